"""What machines read on a page, with and without a public address; and what there is to download."""

import json
import re
import zipfile
from xml.etree import ElementTree

import offline
import public_address
import pytest
import yaml
from conftest import CHAPTERS, ROOT

ADDRESS = "https://example.org/book"
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())


@pytest.fixture
def address(monkeypatch):
    monkeypatch.setenv("JFB_SITE", ADDRESS + "/")


def test_a_page_names_an_address_only_if_the_site_has_one(site, monkeypatch):
    there = (site / "sitemap.xml").exists()  # whoever runs the tests may have built the site with one
    for name in ("index.html", CHAPTERS[0].stem + ".html"):
        head = (site / name).read_text().partition("</head>")[0]
        for tag in ('property="og:', 'name="citation_', 'rel="canonical"'):
            assert (tag in head) == there, tag
        assert re.search(r'<meta name="description" content="\w[^"\\]{40,210}" />', head)
    monkeypatch.delenv("JFB_SITE", raising=False)
    if not public_address.site():
        assert public_address.Downloads.run(None) == []


def test_with_an_address_a_page_says_how_to_cite_it(address):
    lines = public_address.tags("05-x", 'A "title" & more', "Some words.", CITATION)
    for expected in (
        '<meta property="og:type" content="article" />',
        '<meta property="og:title" content="A &quot;title&quot; &amp; more" />',
        f'<meta property="og:url" content="{ADDRESS}/05-x.html" />',
        f'<meta property="og:image" content="{ADDRESS}/_static/preview.png" />',
        '<meta name="citation_title" content="A &quot;title&quot; &amp; more" />',
        f'<meta name="citation_inbook_title" content="{CITATION["title"]}" />',
        f'<meta name="citation_author" content="{CITATION["authors"][0]["name"]}" />',
    ):
        assert expected in lines
    assert not any("citation_pdf_url" in line for line in lines)
    whole = public_address.tags("index", "The title", "", CITATION)
    assert f'<meta name="citation_pdf_url" content="{ADDRESS}/book.pdf" />' in whole
    assert f'<meta name="citation_title" content="{CITATION["title"]}" />' in whole
    (sentence,) = public_address.Downloads.run(None)
    assert "as a PDF to print" in sentence.astext()


def test_the_sitemap_has_the_pages(address, tmp_path):
    class App:
        class builder:
            name = "html"

        class env:
            all_docs = dict.fromkeys(["index", "01-a", "search", "_modules/x", "course/b"])

        outdir = tmp_path

    (tmp_path / "_static").mkdir()
    public_address.write_sitemap(App, None)
    found = [
        element.text for element in ElementTree.parse(tmp_path / "sitemap.xml").iter() if element.tag.endswith("loc")
    ]
    assert found == [f"{ADDRESS}/{page}.html" for page in ("01-a", "course/b", "index")]
    assert (tmp_path / "_static" / "preview.png").is_file()


def test_what_is_no_address_is_refused(monkeypatch):
    monkeypatch.setenv("JFB_SITE", "example.org")
    with pytest.raises(ValueError, match=r"is to be https://…, got 'example\.org': see JFB_SITE"):
        public_address.site()


def test_each_page_of_a_notebook_has_it_to_download(site):
    for path in CHAPTERS:
        (link,) = re.findall(r'href="(_sources/[^"]+\.ipynb)"', (site / f"{path.stem}.html").read_text())
        notebook = json.loads((site / link).read_text())
        assert notebook["metadata"]["kernelspec"]["name"] == "python3"
        assert len(notebook["cells"]) == len(json.loads(path.read_text())["cells"])


def test_the_archive_opens_from_disk(open_page, site, tmp_path):
    pdf = tmp_path / "paper.pdf"
    pdf.write_bytes(b"%PDF-1.4")
    file = offline.make(tmp_path / "made" / "jfb-book.zip", site=site, pdf=pdf)
    assert file.stat().st_size < 60_000_000
    with zipfile.ZipFile(file) as archive:
        archive.extractall(tmp_path)
    top = tmp_path / "jfb-book"
    assert sorted(path.name for path in top.iterdir()) == ["README.md", "book.pdf", "notebooks", "site"]
    page = open_page(top / "site" / "index.html")
    assert page.locator("mjx-container").count() >= 2
    page.get_by_role("link", name=re.compile("^2 Contractions")).first.click()
    page.wait_for_url("**/02-contractions.html")
    assert page.locator(".bd-article h1").inner_text().startswith("2. Contractions")
    assert (top / "notebooks" / "jfb_tutorial" / "__init__.py").is_file()
    assert {path.name for path in (top / "notebooks").glob("[01]*.ipynb")} == {path.name for path in CHAPTERS}
    assert "torch>=" in (top / "notebooks" / "requirements.txt").read_text()
    assert not list(top.rglob("*.map"))
    assert "`book.pdf` is the same on paper" in (top / "README.md").read_text()


def test_an_archive_asks_for_a_site(tmp_path):
    with pytest.raises(FileNotFoundError, match="`make book` builds the site"):
        offline.make(tmp_path / "x.zip", site=tmp_path)
