"""The book on paper: every page in one file, every link to its place; and a few pages printed."""

import re

import pytest
import whole_book
import yaml
from bs4 import BeautifulSoup
from conftest import BOOK, CHAPTERS, ROOT
from whole_book import Part


@pytest.fixture(scope="module")
def assembled(site, tmp_path_factory):
    """All pages in one file, and the links in it that lead nowhere."""
    file = tmp_path_factory.mktemp("book") / "book.html"
    lost = whole_book.assemble(site, whole_book.parts(), file)
    return file.read_text(), lost


def test_all_pages_are_there_and_every_link_leads_to_its_place(assembled):
    text, lost = assembled
    assert lost == []
    assert all(f'id="{path.stem}--"' in text for path in CHAPTERS)
    assert 'id="reproductions--"' in text
    assert "course-notes" not in text
    assert len(re.findall(r'href="#[^"]+--[^"]*"', text)) > 500
    # a link to what is not printed is plain text, and nothing names a file of the site but its pictures and styles
    assert not re.search(r'<a [^>]*href="(?!#|https?:|mailto:)', text)
    # the way from the file to the site may climb to the root, "../../work/book"; no path begins there
    assert not re.search(rf"(?<!\.\.){re.escape(str(ROOT))}", text)


def test_folds_are_open_and_nothing_waits(assembled):
    text, _ = assembled
    assert text.count("<details") > 50
    assert len(re.findall(r"<details[^>]* open(?:=\"\")?", text)) == text.count("<details")
    assert 'class="solution dropdown' in text
    assert "data-late" not in text
    assert "text/plain" not in text
    # the trained network that the page loads when asked is here at once
    assert re.search(r"""data-explorer="equilibrium" data-parameters=(["']).{500000}""", text)


def test_pictures_are_found(assembled, site):
    text, _ = assembled
    sources = re.findall(r'<img [^>]*src="([^"]+)"', text)
    assert len(sources) > 60
    assert all((site / "_images" / source.rpartition("/")[2]).is_file() for source in sources if "_images" in source)


def test_names_are_those_of_their_page():
    link = BeautifulSoup('<a href="../04-x.html#a">here</a>', "html.parser").a
    assert link
    whole_book._lead(link, "course/notes", {"04-x"})
    assert link["href"] == "#04-x--a"
    left_out = BeautifulSoup('<p><a href="api.html#a">there</a></p>', "html.parser")
    assert left_out.a
    whole_book._lead(left_out.a, "index", {"04-x"})
    assert str(left_out) == "<p>there</p>"
    assert whole_book.anchor("course/notes/01", "x") == "course-notes-01--x"


def test_a_small_book_is_printed_with_its_page_numbers(browser, site, tmp_path):
    parts = [Part("Part I", ["03-solving"]), Part("Appendices", ["run-times", "bibliography"])]
    assert whole_book.assemble(site, parts, tmp_path / "small.html") == []
    pdf = tmp_path / "small.pdf"
    pages = whole_book.print_file(browser, tmp_path / "small.html", pdf)
    data = pdf.read_bytes()
    assert 20 < len(re.findall(rb"/Type\s*/Page\b", data)) < 60
    # title, contents, and each page of the site from a page of its own on
    assert (
        3 <= pages["03-solving--"] <= pages["03-solving--when-to-stop"] < pages["run-times--"] < pages["bibliography--"]
    )
    assert pages == whole_book.pages_of_targets(data)  # the numbers have moved nothing
    cited = [name for name in pages if name.startswith("bibliography--id")]
    assert cited
    for name in cited:
        assert f"/{name}".encode() in data
    assert b"/Outlines" in data


def test_what_is_left_out_is_said():
    contents = yaml.safe_load((BOOK / "_toc.yml").read_text())
    listed = [chapter["file"] for part in contents["parts"] for chapter in part["chapters"]]
    printed = [page for part in whole_book.parts() for page in part.pages]
    assert [page for page in listed if page not in printed and not page.startswith("course/")] == ["figures", "api"]
    for word in ("course", "figures as files", "reference of the package"):
        assert word in whole_book.ABOUT
    assert [part.caption for part in whole_book.notes()] == ["Teaching", "Notes on the chapters"]
