"""The book as a PDF: `whole_book.py`, into book/_build/book.pdf; `whole_book.py notes`, the teaching notes, into notes.pdf beside it.

It is made of the built site, without a network: the pages one behind another in a single file, in which every link that led to another
page leads to its place, and which a Chromium prints. Proofs, solutions and the boxes of claims are open; figures that answer
to the hand stand still; folded code, which draws and checks, is left to the notebooks.
"""

import json
import os
import posixpath
import re
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import yaml
from bs4 import BeautifulSoup, Tag

import chromium
from chapters import BOOK, repository, version
from public_address import citation

SITE = BOOK / "_build" / "html"
LEFT_OUT = ("index", "course/*", "figures", "api")
"""What is not printed: what asks for a screen, or has an edition of its own."""

EVERYWHERE = ("Five questions", "Exercises", "Summary", "Where to read on")
"""Sections that each chapter has, and that the table of contents leaves out."""

WIDTH = 635
"""Of A4 between the margins, in pixels of 1/96 inch."""

ABOUT = (
    "This is the book as the site has it, to be read on paper. Proofs, solutions and the boxes of claims are open. Figures that answer to the "
    "hand stand still here. The code that draws and checks is in the notebooks; the course, the figures as files and the reference of the "
    "package are on the site."
)
ABOUT_NOTES = "Notes for teachers, chapter by chapter. Names such as fig-05-plane and ex-05-layer are those of the book's figures and exercises."


@dataclass(frozen=True)
class Part:
    """Pages that belong together, by their names without `.html`, and what stands above the first."""

    caption: str
    pages: list[str]


def parts() -> list[Part]:
    """The pages of the book in its order, but what is left out."""
    made = [Part(part["caption"], [each["file"] for each in part["chapters"]]) for part in _contents()]
    kept = [Part(part.caption, [page for page in part.pages if not _left_out(page)]) for part in made]
    return [part for part in kept if part.pages]


def notes() -> list[Part]:
    """The pages for teachers."""
    teaching = next(part for part in _contents() if part["caption"] == "Teaching")["chapters"]
    below = [section["file"] for chapter in teaching for section in chapter.get("sections", [])]
    return [Part("Teaching", [each["file"] for each in teaching]), Part("Notes on the chapters", below)]


def _contents() -> list[dict]:
    return yaml.safe_load((BOOK / "_toc.yml").read_text())["parts"]


def _left_out(page: str) -> bool:
    return any(page == name or (name.endswith("*") and page.startswith(name[:-1])) for name in LEFT_OUT)


# One file of many pages


def anchor(page: str, name: str = "") -> str:
    """What an element of a page is called in the file of all pages; without a name, the page."""
    return f"{page.replace('/', '-')}--{name}"


def article(site: Path, page: str, printed: set[str], up: str) -> Tag:
    """What a page says, to stand among others.

    Args:
        site: the built site.
        page: its name.
        printed: the names of all pages that are printed; a link to another one becomes plain text.
        up: the way from the printed file to the site.
    """
    text = (site / f"{page}.html").read_text()
    found = BeautifulSoup(_with_parameters(site, text), "html.parser").find("article", class_="bd-article")
    if not isinstance(found, Tag):
        raise ValueError(f"{page}.html has no article")
    for useless in found.select(
        "a.headerlink, script[type='text/x-thebe-config'], details.admonition.hide, .jfb-provenance, .jfb-quiz-said, .toctree-wrapper"
    ):
        useless.decompose()
    for script in found.find_all("script", string=re.compile(r"^kernelName")):
        script.decompose()
    for details in found.find_all("details"):
        details["open"] = ""
    for picture in found.find_all(["img", "source"], src=re.compile(r"^(?![a-z]+:)")):
        picture["src"] = f"{up}/{posixpath.normpath(posixpath.join(posixpath.dirname(page), picture['src']))}"
        picture.attrs.pop("loading", None)
    for element in found.find_all(id=True):
        element["id"] = anchor(page, element["id"])
    for element in found.find_all(True):
        for attribute in ("for", "aria-labelledby", "aria-describedby", "aria-controls"):
            if value := element.get(attribute):
                element[attribute] = " ".join(anchor(page, name) for name in " ".join([value]).split())
    for link in found.find_all("a", href=True):
        _lead(link, page, printed)
    return found


def _with_parameters(site: Path, text: str) -> str:
    """A page whose heavy explorers have their parameters, and start at once; see `page_weight`."""

    def whole(found: re.Match[str]) -> str:
        script = (site / "_static" / found["file"]).read_text()
        return f'data-parameters="{json.loads(script.partition(" = ")[2].rstrip().rstrip(";"))}"'

    text = re.sub(r'data-ready data-late="(?P<file>[^"]+)" data-size="[^"]*"', whole, text)
    return text.replace('<script type="text/plain" class="jfb-late">', "<script>")


def _lead(link: Tag, page: str, printed: set[str]) -> None:
    """Let a link lead to its place in the file; what is not there, or is no page, becomes plain text."""
    address = str(link["href"])
    if re.match(r"[a-z]+:", address):
        return
    file, _, name = address.partition("#")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(page), file)).removesuffix(".html") if file else page
    if target in printed and (not file or file.endswith(".html")):
        link["href"] = f"#{anchor(target, name)}"
    else:
        link.unwrap()


def assemble(site: Path, parts: list[Part], target: Path, *, title: str = "", about: str = ABOUT) -> list[str]:
    """Write the file of all pages; returns the links within it that lead nowhere, which should be none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    up = Path(os.path.relpath(site, target.parent)).as_posix()
    printed = {page for part in parts for page in part.pages}
    body, contents = [], []
    for part in parts:
        contents.append(f'<li class="pdf-part">{escape(part.caption)}</li>')
        for number, page in enumerate(part.pages):
            made = article(site, page, printed, up)
            above = f'<p class="pdf-part">{escape(part.caption)}</p>' if not number else ""
            body.append(f'<div class="pdf-page" id="{anchor(page)}">{above}{made.decode_contents()}</div>')
            contents += _lines(made, page)
    head = BeautifulSoup((site / f"{parts[0].pages[0]}.html").read_text(), "html.parser").head
    styles = "".join(
        f'<link rel="stylesheet" href="{up}/{str(link["href"]).lstrip("./")}">'
        for link in (head.find_all("link", rel="stylesheet") if head else [])
    )
    cited = citation()
    authors = ", ".join(
        each.get("name") or f"{each['given-names']} {each['family-names']}" for each in cited["authors"]
    )
    title = title or cited["title"]
    edition = f"Version {version()}, {cited['date-released']}" + (f"<br>{escape(repository())}" if repository() else "")
    text = PAGE.format(
        title=escape(title),
        authors=escape(authors),
        edition=edition,
        about=escape(about),
        styles=styles,
        mathjax=f"{up}/mathjax/tex-mml-chtml.js",
        own=STYLE,
        contents="\n".join(contents),
        body="\n".join(body),
    )
    target.write_text(text)
    names = set(re.findall(r'\sid="([^"]+)"', text))
    return sorted({name for name in re.findall(r'\shref="#([^"]+)"', text) if name not in names})


def _lines(made: Tag, page: str) -> list[str]:
    """The lines of a page in the table of contents: its heading, and its sections."""
    lines = []
    for level, heading in ((heading.name, heading) for heading in made.find_all(["h1", "h2"])):
        section = heading.find_parent("section")
        if level == "h2" and heading.get_text().strip() in EVERYWHERE:
            continue
        name = anchor(page) if level == "h1" or section is None else section["id"]
        words = escape(" ".join(heading.get_text().split()))
        lines.append(
            f'<li class="pdf-{level}"><a href="#{name}">{words}</a><span data-page-of="{name}">000</span></li>'
        )
    return lines


PAGE = """<!doctype html>
<html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8"><title>{title}</title>{styles}<style>{own}</style>
<script>window.MathJax = {{options: {{processHtmlClass: "tex2jax_process|mathjax_process|math|output_area", enableMenu: false}}}}</script>
<script defer src="{mathjax}"></script></head>
<body><main class="bd-article bd-content">
<div class="pdf-title"><h1>{title}</h1><p>{authors}</p><p>{edition}</p><p>{about}</p>
<p>Text: CC BY 4.0. Code: MIT.</p></div>
<nav class="pdf-contents" aria-label="Contents"><h2>Contents</h2><ul>
{contents}
</ul></nav>
{body}
</main></body></html>
"""

STYLE = """
@page { size: A4; margin: 20mm 21mm 22mm; @bottom-center { content: counter(page); font: 9pt sans-serif; color: #444; } }
@page :first { @bottom-center { content: none; } }
html { font-size: 13.5px; background: #fff; }
body { display: block; background: #fff; color: #1a1a1a; line-height: 1.5; }
main.bd-article { padding: 0; max-width: none; }
.pdf-title, .pdf-contents, .pdf-page { break-after: page; }
.pdf-page:last-child { break-after: auto; }
.pdf-title { padding-top: 30vh; text-align: center; }
.pdf-title p { max-width: 30rem; margin: 1.2rem auto; }
.pdf-contents ul { list-style: none; padding: 0; }
.pdf-contents li { display: flex; justify-content: space-between; gap: 1em; }
.pdf-contents li.pdf-part { display: block; font-weight: 700; margin-top: 1.1em; break-after: avoid; }
.pdf-contents li.pdf-h1 { margin-top: .35em; break-after: avoid; }
.pdf-contents li.pdf-h2 { padding-left: 1.8em; font-size: .88em; }
.pdf-contents a { color: inherit; text-decoration: none; }
p.pdf-part { text-transform: uppercase; letter-spacing: .06em; font-size: .85em; color: #555; margin: 0; }
"""


# Printing


def print_file(browser: Any, file: Path, pdf: Path) -> dict[str, int]:
    """Print a file of pages; twice, since its table of contents names pages that only the first print knows. Returns those."""
    page = browser.new_page(viewport={"width": WIDTH, "height": 900}, reduced_motion="reduce")
    page.set_default_timeout(0)  # a thousand formulas take minutes on a busy machine
    page.route(
        "**/*", lambda route: route.continue_() if route.request.url.startswith(("file:", "data:")) else route.abort()
    )
    page.goto(file.resolve().as_uri())
    page.evaluate("window.MathJax?.startup?.promise")
    faults = page.locator("mjx-merror, [data-mjx-error]")
    if faults.count():
        raise ValueError(f"formulas that could not be set: {faults.all_inner_texts()[:5]}")
    page.emulate_media(media="print")
    page.evaluate(FIT)
    settings = {"path": pdf, "prefer_css_page_size": True, "print_background": True, "outline": True, "tagged": True}
    pdf.parent.mkdir(parents=True, exist_ok=True)
    page.pdf(**settings)
    pages = pages_of_targets(pdf.read_bytes())
    page.evaluate(
        "(pages) => document.querySelectorAll('[data-page-of]').forEach((at) => { at.textContent = pages[at.dataset.pageOf] ?? ''; })",
        pages,
    )
    page.pdf(**settings)
    page.close()
    return pages


FIT = """() => {
  for (const formula of document.querySelectorAll('mjx-container[display="true"]')) {
    const fits = formula.clientWidth / formula.scrollWidth;
    if (fits < 1) formula.style.setProperty("font-size", `${Math.floor(98 * fits)}%`, "important");
  }
}"""


def pages_of_targets(pdf: bytes) -> dict[str, int]:
    """The number of the page of each named target of a PDF that Chromium wrote, from 1; it writes what is asked here uncompressed."""
    objects = {
        int(found[1]): found[2] for found in re.finditer(rb"(?:^|\n)(\d+) 0 obj\s?(.*?)\nendobj", pdf, re.DOTALL)
    }
    catalog = next(each for each in objects.values() if re.search(rb"/Type\s*/Catalog\b", each))

    def leaves(number: int) -> list[int]:
        kids = re.search(rb"/Kids\s*\[(.*?)\]", objects[number], re.DOTALL)
        return [leaf for kid in re.findall(rb"(\d+) 0 R", kids[1]) for leaf in leaves(int(kid))] if kids else [number]

    pages = re.search(rb"/Pages (\d+) 0 R", catalog)
    targets = re.search(rb"/Dests (\d+) 0 R", catalog)
    if not pages or not targets:
        return {}
    order = {leaf: number for number, leaf in enumerate(leaves(int(pages[1])), 1)}
    found = re.findall(rb"/([^\s/\[\]<>()]+)\s*\[(\d+) 0 R\s*/XYZ", objects[int(targets[1])])
    return {_unescaped(name): order[int(leaf)] for name, leaf in found}


def _unescaped(name: bytes) -> str:
    return re.sub(rb"#([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), name).decode()


def make(parts: list[Part], pdf: Path, *, site: Path = SITE, title: str = "", about: str = ABOUT) -> Path:
    """Pages of the built site as a PDF.

    Raises:
        FileNotFoundError: there is no Chromium.
        ValueError: a link within the pages leads nowhere, or a formula could not be set.
    """
    file = pdf.parent / "pdf" / f"{pdf.stem}.html"
    if lost := assemble(site, parts, file, title=title, about=about):
        raise ValueError(f"links of the printed book lead nowhere: {lost[:10]}")
    with chromium.launched() as browser:
        print_file(browser, file, pdf)
    return pdf


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["notes"]):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        if arguments:
            title = "Jacobian-Free Backpropagation: notes for teachers"
            pdf = make(notes(), BOOK / "_build" / "notes.pdf", title=title, about=ABOUT_NOTES)
        else:
            pdf = make(parts(), BOOK / "_build" / "book.pdf")
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"The PDF is at {pdf}, {pdf.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
