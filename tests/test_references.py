"""Figures, links and names: a small book of two chapters, built as the book is, and its editions."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from unittest.mock import MagicMock
from urllib.parse import parse_qs, urlsplit

import matplotlib.pyplot as plt
import nbformat
import pytest
import yaml
from conftest import BOOK, ROOT, build_command, grave_violations
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from jfb_tutorial.pages import figures, provenance
from jfb_tutorial.pages.claims import MIME_TYPE
from jfb_tutorial.pages.values import PREFIX

sys.path.insert(0, str(BOOK / "_ext"))

import chapters
import editions
import references
import roles

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
ADDRESS = "https://github.com/someone/book"
ALT = "A line that rises from 0.0 to 1.0 in one step."
CLAIM = {
    "identifier": "jfb-lemma-F.1",
    "states": "All is well",
    "source": "JFB, Lemma F.1",
    "verdict": "holds",
    "assumed": [],
    "concluded": [],
    "dropped": [],
}

TOC = """\
format: jb-book
root: index
parts:
  - caption: Chapters
    numbered: 1
    chapters:
      - file: 05-one
      - file: 10-two
      - file: api
      - file: figures
"""

INDEX = """\
# The book

See [the equation](#jfb-20), {numref}`fig-05-second` and [Lemma A.1](#lemma-A1).
"""

API = """\
# API

```{eval-rst}
.. automodule:: jfb_tutorial.toy
```

```{eval-rst}
.. automodule:: jfb_tutorial.gradients
```

A `JFB` here is no link.
"""

ONE = """\
# One

The first words of chapter five.

## Where it *climbs*

(jfb-20)=
$$ a = b \\tag{JFB 20} $$

See [(20)](#jfb-20), {numref}`fig-05-second`, and the number {glue:text}`v`.

:::{prf:lemma} JFB, Lemma A.1
:label: lemma-A1
:nonumber:

All is well.
:::

:::{exercise} Do it
:label: ex-05-it

Now, with [chapter 10](10-two.ipynb).
:::

:::{solution-start} ex-05-it
:class: dropdown
:::

As in [chapter 10](10-two.ipynb), by [(20)](#jfb-20).

:::{solution-end}
:::

## Under $R$ and more

## Of code `x`

Take `JFB()`, and `JFB` again, the exact `gradients.ImplicitDifferentiation`, `toy.solve`; not `solve`, `x`, `JFB.py`
nor [`JFB`, chapter 10](10-two.ipynb).
"""

TWO = """\
# Two

See [(20)](#jfb-20), [Lemma A.1](#lemma-A1), [chapter 5](05-one.ipynb), [where it climbs](05-one.ipynb#where-it-climbs),
{numref}`fig-05-first`, {numref}`as in Fig. %s <fig-05-second>`, [the claim](#jfb-lemma-F.1), [an exercise](#ex-05-it)
and `JFB`; [the exercise there](05-one.ipynb#ex-05-it) is under [a formula](05-one.ipynb#under-r-and-more).

```{figure} images/dot.png
:name: fig-10-dot
:alt: A dot.

A dot.
```
"""


def png():
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    return figures.show(fig, alt=ALT)


def output(data, metadata=None):
    return new_output("display_data", data=data, metadata=metadata or {})


def value(name, text):
    scrapbook = {"name": name, "mime_prefix": PREFIX}
    return output({f"{PREFIX}text/plain": text}, {"scrapbook": scrapbook})


def drawing(name, caption, *before):
    picture = output(*png()._repr_mimebundle_())
    metadata = {"tags": ["hide-input"], "mystnb": {"figure": {"name": name, "caption": caption}}}
    return new_code_cell(
        "# Plot: it\nfigures.show(fig)", metadata=metadata, outputs=[*before, picture], execution_count=1
    )


@dataclass(frozen=True)
class SmallBook:
    folder: Path
    html: Path

    def page(self, name):
        return (self.html / f"{name}.html").read_text()


def write_small_book(folder: Path) -> None:
    """The sources of a book of two chapters, with the book's own extensions, styles and settings."""
    for name in ("_ext", "_static", "_templates"):
        shutil.copytree(BOOK / name, folder / name)
    (folder / "_vendor").symlink_to(BOOK / "_vendor")
    shutil.copy(BOOK / "references.bib", folder)
    config = (BOOK / "_config.yml").read_text()
    (folder / "_config.yml").write_text(config.replace("    reproductions: _ext\n", ""))
    project = (ROOT / "pyproject.toml").read_text()
    (folder.parent / "pyproject.toml").write_text(
        project.replace("[project.urls]", f'[project.urls]\nRepository = "{ADDRESS}"')
    )
    for name, text in {"_toc.yml": TOC, "index.md": INDEX, "api.md": API}.items():
        (folder / name).write_text(text)
    shutil.copy(BOOK / "figures.md", folder)
    shutil.copy(ROOT / "CITATION.cff", folder.parent)
    (folder / "figures").mkdir()
    (folder / "figures" / "fig-05-first.svg").write_text("<svg/>")
    (folder / "_run_times.json").write_text("{}")
    (folder / "images").mkdir()
    (folder / "images" / "dot.png").write_bytes(png().png)
    claim = output({MIME_TYPE: CLAIM, "text/html": '<div id="jfb-lemma-F.1">All is well.</div>', "text/plain": "All"})
    source = output({"text/html": provenance.Sources("From 2 recorded runs.")._repr_html_(), "text/plain": "From 2"})
    one = [
        new_markdown_cell(ONE),
        drawing("fig-05-first", "A *line*, {glue:text}`v`, by [(20)](#jfb-20).", value("v", "3.50"), source),
        drawing("fig-05-second", "Another."),
        new_code_cell("Claim('jfb-lemma-F.1')", outputs=[claim], execution_count=1),
    ]
    unrun = drawing("fig-10-unrun", "A picture still to be drawn.")
    unrun.outputs = []
    two = [new_markdown_cell(TWO), unrun, drawing("fig-10-last", "The last.")]
    for name, cells in {"05-one": one, "10-two": two}.items():
        nbformat.write(new_notebook(cells=cells, metadata=KERNEL), folder / f"{name}.ipynb")


def build(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(build_command(folder), capture_output=True, text=True)


@pytest.fixture(scope="module")
def small_book(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "book"
    folder.mkdir()
    write_small_book(folder)
    run = build(folder)
    assert run.returncode == 0, run.stdout + run.stderr
    return SmallBook(folder, folder / "_build" / "html")


@pytest.fixture
def sources(small_book, monkeypatch):
    """The editions' functions, made to read the small book."""
    for module in (chapters, editions, references, roles):
        monkeypatch.setattr(module, "BOOK", small_book.folder)
    return small_book.folder


# Figures

NUMBERS = {
    "05-one": {"fig-05-first": "5.1", "fig-05-second": "5.2"},
    "10-two": {"fig-10-dot": "10.1", "fig-10-last": "10.2"},
}


@pytest.mark.parametrize("page", NUMBERS)
def test_a_figure_has_one_number_everywhere(small_book, sources, page):
    assert {figure.name: figure.number for figure in chapters.figures(sources / f"{page}.ipynb")} == NUMBERS[page]
    html = small_book.page(page)
    for name, number in NUMBERS[page].items():
        figure = re.search(rf'<figure [^>]*id="{name}".*?</figure>', html, re.DOTALL)
        assert figure
        assert f'<span class="caption-number">Figure {number} </span>' in figure[0]
        # the caption is under the picture, and the picture keeps its words
        assert 0 < figure[0].index("<img alt=") < figure[0].index("<figcaption>")
        assert ALT in figure[0] or name == "fig-10-dot"
    assert html.count("<figure ") == len(NUMBERS[page])


def test_the_text_refers_to_figures_by_number(small_book):
    assert re.search(r'href="05-one.html#fig-05-second"><span[^>]*>Figure 5.2<', small_book.page("index"))
    assert re.search(r'href="05-one.html#fig-05-second"><span[^>]*>as in Fig. 5.2<', small_book.page("10-two"))


def test_a_number_stands_in_the_text_as_the_cell_has_written_it(small_book):
    assert "and the number 3.50." in small_book.page("05-one")


def edition(path, kind):
    notebook = editions.work_edition(path)[0] if kind == "work" else editions.plain_edition(path, ADDRESS)
    return notebook.cells


@pytest.mark.parametrize("kind", ["work", "plain"])
def test_an_edition_has_the_caption_below_the_picture(sources, kind):
    cells = edition(sources / "05-one.ipynb", kind)
    drawn = [position for position, cell in enumerate(cells) if cell.source.startswith("# Plot")]
    captions = [cells[position + 1].source for position in drawn]
    twenty = "[(20)](#Where-it-climbs)" if kind == "work" else "(20)"
    assert captions == [f"*Figure 5.1.* A *line*, 3.50, by {twenty}.", "*Figure 5.2.* Another."]
    text = "\n".join(cell.source for cell in edition(sources / "10-two.ipynb", kind))
    assert "![A dot.](images/dot.png)\n\n*Figure 10.1.* A dot." in text


def test_a_caption_of_two_pictures_and_a_figure_of_no_name_fail(tmp_path):
    folder = tmp_path / "book"
    folder.mkdir()
    write_small_book(folder)
    two = nbformat.read(folder / "10-two.ipynb", as_version=4)
    two.cells[0].source = "# Two\n\nSee {numref}`fig-none`."
    two.cells[-1].outputs *= 2
    nbformat.write(two, folder / "10-two.ipynb")
    run = build(folder)
    assert run.returncode != 0
    said = run.stdout + run.stderr
    assert "fig-none" in said
    assert 'Duplicate explicit target name: "fig-10-last"' in said


# Links


def test_the_site_links_to_equations_theorems_claims_and_exercises(small_book):
    html = small_book.page("10-two")
    for target in (
        "#jfb-20",
        "#lemma-A1",
        "",
        "#where-it-climbs",
        "#fig-05-first",
        "#jfb-lemma-F.1",
        "#ex-05-it",
        "#under-r-and-more",
    ):
        assert f'<a class="reference internal" href="05-one.html{target}">' in html


def links(text):
    return dict(re.findall(r"(?<!!)\[([^\]]*)\]\(([^)]*)\)", text))


def test_in_jupyterlab_a_link_leads_to_the_section_of_its_target(sources):
    here = edition(sources / "05-one.ipynb", "work")[0].source
    assert links(here) == {"(20)": "#Where-it-climbs", "Figure 5.2": "#Of-code-x"}
    there = edition(sources / "10-two.ipynb", "work")[0].source
    climbs = "05-one.ipynb#Where-it-climbs"
    assert links(there) == {
        "(20)": climbs,
        "Lemma A.1": climbs,
        "chapter 5": "05-one.ipynb",
        "where it climbs": climbs,
        "Figure 5.1": "05-one.ipynb#Of-code-x",
        "as in Fig. 5.2": "05-one.ipynb#Of-code-x",
        "the claim": "05-one.ipynb#Of-code-x",
        "an exercise": "05-one.ipynb#Exercise-5.1:-Do-it",
        "the exercise there": "05-one.ipynb#Exercise-5.1:-Do-it",
        "a formula": "05-one.ipynb",  # JupyterLab does not find a heading with one
    }
    solutions = editions.work_edition(sources / "05-one.ipynb")[1]
    assert links(solutions.cells[-1].source) == {
        "chapter 10": "../10-two.ipynb",
        "(20)": "../05-one.ipynb#Where-it-climbs",
    }


def test_elsewhere_a_link_leads_to_the_chapter_of_its_target(sources):
    text = "\n".join(cell.source for cell in edition(sources / "05-one.ipynb", "plain"))
    assert set(links(text).values()) == {"10-two.ipynb"}  # and none within the chapter
    assert "See (20), Figure 5.2, and the number 3.50." in text
    there = edition(sources / "10-two.ipynb", "plain")[0].source
    assert set(links(there).values()) == {"05-one.ipynb"}
    assert "(20)" in links(there)


def test_a_link_to_nowhere_is_refused(sources):
    rewrite = references.Links("05-one.ipynb", fragments=True)
    with pytest.raises(ValueError, match=r"05-one\.ipynb links to #jfb-21, which is nowhere in the book"):
        rewrite("See [(21)](#jfb-21).")
    with pytest.raises(
        ValueError, match=r"\{numref\}`fig-none` names no figure of the book; its figures are fig-05-first"
    ):
        roles.roles(sources / "05-one.ipynb")["numref"]("fig-none")


def test_a_link_to_a_page_that_is_no_notebook_leads_to_the_published_one_or_is_none(sources, monkeypatch):
    rewrite = references.Links("05-one.ipynb", fragments=True)
    assert rewrite("The [API](api.md).") == f"The [API]({ADDRESS}/blob/main/book/api.md)."
    monkeypatch.setattr(references, "repository", lambda: "")
    assert rewrite("The [API](api.md) of $[0, 1](x)$.") == "The API of $[0, 1](x)$."


# Code names


def test_code_names_lead_to_the_api_once_in_a_section(small_book):
    linked = re.findall(
        r'<a class="jfb-api reference internal" href="([^"]*)"[^>]*><code[^>]*>(.*?)</code>', small_book.page("05-one")
    )
    assert [(address, re.sub("<[^>]*>", "", code)) for address, code in linked] == [
        ("api.html#jfb_tutorial.gradients.JFB", "JFB()"),
        ("api.html#jfb_tutorial.gradients.ImplicitDifferentiation", "gradients.ImplicitDifferentiation"),
        ("api.html#jfb_tutorial.toy.solve", "toy.solve"),
    ]
    assert "jfb-api" in small_book.page("10-two")  # another section's first
    assert "jfb-api" not in small_book.page("api")


# Previews


def previews(small_book):
    text = (small_book.html / "_static" / "previews.js").read_text()
    return json.loads(text.removeprefix("window.jfbPreviews = ").rstrip(";\n"))


def test_what_is_linked_has_a_preview(small_book):
    shown = previews(small_book)
    for name, text in {
        "05-one#": "The first words of chapter five.",
        "05-one#where-it-climbs": "Where it <em>climbs</em>",
        "05-one#jfb-20": "(JFB 20)",
        "05-one#lemma-A1": "All is well.",
        "05-one#fig-05-first": "Figure 5.1",
        "05-one#ex-05-it": "Exercise (Do it)",
        "05-one#jfb-lemma-F.1": "All is well",
        "api#jfb_tutorial.gradients.JFB": "JFB",
    }.items():
        assert text in shown[name], (name, shown[name])
        assert not re.search(r"<a\b| id=|tabindex|\\tag", shown[name])
    assert "a = b" in shown["05-one#jfb-20"]
    assert "05-one#of-code-x" not in shown  # linked from nowhere
    assert "jfb-photograph" in shown["10-two#fig-10-dot"]
    assert "jfb-photograph" not in shown["10-two#fig-10-last"]


def tip_of(page):
    return page.locator("#jfb-preview")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_preview_by_keyboard(open_page, small_book, theme):
    page = open_page(small_book.html / "10-two.html", scheme=theme)
    link = page.locator(".bd-article a", has_text="(20)")
    link.evaluate("(link) => link.focus({focusVisible: true})")
    tip_of(page).locator("mjx-container").wait_for()
    assert "(JFB 20)" in tip_of(page).inner_text()  # the page has no formula of its own
    assert link.get_attribute("aria-describedby") == "jfb-preview"
    assert not grave_violations(page)
    page.keyboard.press("Escape")
    assert tip_of(page).is_hidden()
    assert link.evaluate("(link) => link === document.activeElement")
    assert link.get_attribute("aria-describedby") is None
    page.keyboard.press("Tab")  # to Lemma A.1
    tip_of(page).wait_for()
    assert "All is well." in tip_of(page).inner_text()
    page.locator("body").evaluate("() => document.activeElement.blur()")
    tip_of(page).wait_for(state="hidden")


def test_a_preview_by_mouse(open_page, small_book):
    page = open_page(small_book.html / "05-one.html", formulas=False)
    page.locator(".bd-article a", has_text="Figure 5.2").first.hover()
    tip_of(page).wait_for()
    assert tip_of(page).locator("img").evaluate("(img) => img.decode().then(() => img.naturalWidth)") > 100
    tip_of(page).hover()
    page.wait_for_timeout(500)
    assert tip_of(page).is_visible()  # it may be hovered itself, and stays
    page.locator(".bd-article h1").hover()
    tip_of(page).wait_for(state="hidden")
    page.locator(".bd-article h2 a.headerlink").first.evaluate("(link) => link.focus({focusVisible: true})")
    page.wait_for_timeout(300)
    assert tip_of(page).is_hidden()


def test_a_preview_is_no_wider_than_a_phone_and_none_for_a_finger(open_page, small_book):
    page = open_page(small_book.html / "10-two.html", width=320, touch=True, formulas=False)
    links = page.locator(".bd-article a.reference.internal:not(.image-reference)")
    assert links.count() > 7
    for link in links.all():
        link.evaluate("(link) => link.focus({focusVisible: true})")
        tip_of(page).wait_for()
        box = tip_of(page).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 320
    page.keyboard.press("Escape")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    link = links.nth(0)
    link.evaluate("(link) => { link.blur(); link.addEventListener('click', (event) => event.preventDefault()); }")
    link.tap()
    page.wait_for_timeout(500)
    assert tip_of(page).is_hidden()


# For lecturers, and for who finds a mistake


def test_a_page_lists_all_figures_with_their_files(small_book):
    html = small_book.page("figures")
    for page, numbers in NUMBERS.items():
        for name, number in numbers.items():
            assert f'href="{page}.html#{name}">Figure {number}<' in html
    assert "A <em>line</em>, 3.50, by <a" in html
    files = re.findall(r'<a class="reference download[^>]* href="([^"]*)">(.*?)<', html)
    assert [text for _, text in files] == [
        "5.1 as SVG", "5.1 as PNG", "5.2 as PNG", "10.1 as PNG", "10.2 as PNG"
    ]  # fmt: skip
    assert all((small_book.html / address).stat().st_size for address, _ in files)
    assert f'<img alt="{ALT}"' in html
    assert "CC BY 4.0" in html
    assert "{{The jfb_tutorial authors}}" in html


def test_the_page_of_figures_says_so_when_there_are_none(tmp_path, monkeypatch):
    import figure_list

    monkeypatch.setattr(figure_list, "notebooks", lambda: [])
    monkeypatch.setattr(figure_list.jfb_book, "note_dependencies", lambda env: None)
    directive = figure_list.FigureList.__new__(figure_list.FigureList)
    directive.state = MagicMock()
    assert directive.run()[0].astext() == "No chapter has a numbered figure yet."


def test_running_a_notebook_saves_its_drawings_and_stores_none(tmp_path, monkeypatch):
    import execute

    monkeypatch.setenv(figures.DRAWINGS, "svg")
    cells = [
        drawing("fig-a", "One."),
        drawing("fig-b", "Two."),
        new_code_cell("show()", outputs=[output(png()._repr_mimebundle_()[0])]),
    ]
    first = cells[0].outputs[0].data["image/svg+xml"]
    assert first == png().svg  # the same each time
    assert not re.search(r"dc:date|<text|20\d\d-", first)
    monkeypatch.setattr(execute, "LARGEST", len(first))
    cells[1].outputs[0].data["image/svg+xml"] += " "  # too large
    (tmp_path / "fig-b.svg").write_text("old")
    (tmp_path / "fig-gone.svg").write_text("old")
    execute.save_drawings(cells, tmp_path)
    execute.remove_drawings_but({"fig-a", "fig-b"}, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"fig-a.svg": first}
    assert [list(cell.outputs[0].data) for cell in cells] == [["image/png", "text/plain"]] * 3
    monkeypatch.delenv(figures.DRAWINGS)
    assert "image/svg+xml" not in png()._repr_mimebundle_()[0]


def test_each_page_offers_to_report_a_mistake_on_it(small_book):
    for page in ("index", "05-one", "api"):
        address = re.search(r'<p class="jfb-report"><a href="([^"]*)">', small_book.page(page))
        assert address
        url = urlsplit(unescape(address[1]))
        assert f"{url.scheme}://{url.netloc}{url.path}" == f"{ADDRESS}/issues/new"
        question = parse_qs(url.query)
        assert question["title"] == [f"{page}: "]
        assert question["body"][0].startswith(f"Page: {page}\nVersion: {chapters.version()}\n")
        # and fills in the form of that name, whose fields these are
        form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / question["template"][0]).read_text())
        fields = {field["id"] for field in form["body"] if "id" in field}
        assert {"page": [page], "version": [chapters.version()]}.items() <= question.items()
        assert {"page", "version"} <= fields


def test_what_a_page_gives_to_download_sets_itself_up_once_there_is_an_address(small_book):
    (link,) = re.findall(r'href="(_sources/[^"]+\.ipynb)"', small_book.page("05-one"))
    notebook = nbformat.read(small_book.html / link, as_version=4)
    assert ADDRESS in notebook.cells[1].source
    assert notebook.cells[1].metadata.tags == ["set-up"]
    assert "{exercise}" not in "".join(cell.source for cell in notebook.cells)


# Quiet things


def test_provenance_is_a_mark_that_opens(open_page, small_book):
    page = open_page(small_book.html / "05-one.html", formulas=False)
    words = page.get_by_text("From 2 recorded runs.")
    assert words.is_hidden()
    page.locator(".jfb-provenance summary").press("Enter")
    assert words.is_visible()


def test_headings_are_smaller_and_lighter_the_deeper_they_are(open_page, small_book):
    page = open_page(small_book.html / "05-one.html", formulas=False)
    looks = page.evaluate(
        """["h1", "h2", "h3", "h4"].map((name) => {
          const heading = document.querySelector(".bd-article").appendChild(document.createElement(name));
          const style = getComputedStyle(heading);
          return [parseFloat(style.fontSize), Number(style.fontWeight)];
        })"""
    )
    sizes, weights = zip(*looks, strict=True)
    assert sorted(set(sizes), reverse=True) == list(sizes)
    assert sorted(weights, reverse=True) == list(weights)
