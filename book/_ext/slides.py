"""The slides of the course: `slides.py FOLDER` builds every deck of book/course/slides into FOLDER, without a network.

A deck is HTML that opens from disk. Printed with `?print-pdf` after its address, it is a PDF with a page for each slide; with a
Chromium at hand `slides.py FOLDER --pdf` does that.
"""

import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.deprecation import RemovedInSphinx90Warning
from sphinx.errors import SphinxError
from sphinx.util.console import color_terminal, nocolor
from sphinx.util.docutils import docutils_namespace, patch_docutils

import chromium

HERE = Path(__file__).resolve().parent
DECKS = HERE.parent / "course" / "slides"
WIDTH, HEIGHT = 1280, 720

KEPT = ("dist/reset.css", "dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js", "LICENSE")
"""What a deck loads of reveal.js, and its license; the rest of the five megabytes is left out."""

CONFIGURATION = {
    "project": "Jacobian-Free Backpropagation",
    "extensions": ["myst_parser", "sphinx.ext.mathjax", "sphinx_revealjs", "slide_parts"],
    "myst_enable_extensions": ["amsmath", "colon_fence", "dollarmath", "attrs_inline"],
    "exclude_patterns": ["_static"],
    "html_copy_source": False,
    "html_extra_path": [str(HERE.parent / "_vendor")],
    "mathjax_path": "../mathjax/tex-mml-chtml.js",
    # a slide that is not shown has no size that MathJax could measure
    "mathjax3_config": {"chtml": {"matchFontHeight": False}, "options": {"enableMenu": False}},
    "revealjs_static_path": [str(DECKS / "_static")],
    "revealjs_html_theme": "revealjs-simple",  # the other loads scripts of pages with a search, which fail here
    "revealjs_style_theme": "deck.css",
    "revealjs_script_files": ["revealjs/dist/reveal.js", "deck.js"],
    "revealjs_script_plugins": [{"name": "RevealNotes", "src": "revealjs/plugin/notes/notes.js"}],
    "revealjs_script_conf": (
        f"{{width: {WIDTH}, height: {HEIGHT}, margin: 0, minScale: 0.1, center: false, hash: true, controls: false, "
        # one key goes through all slides, as a lecturer's clicker has no more
        "navigationMode: 'linear', slideNumber: 'c', transition: 'none', backgroundTransition: 'none', "
        "pdfSeparateFragments: false, totalTime: 5400, scrollActivationWidth: null, keyboardCondition: deckMayTurn}"
    ),
}


def build(folder: Path, sources: Path = DECKS) -> list[Path]:
    """Build the decks, warnings as errors; returns their files.

    Raises:
        SphinxError: something that a slide names is not in the book, or another warning; what was written says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    decks = sorted(sources.glob("*.md"))
    with (
        tempfile.TemporaryDirectory() as trees,
        patch_docutils(),
        docutils_namespace(),
        warnings.catch_warnings(),
    ):
        # sphinx-revealjs asks Sphinx 7 for an attribute that Sphinx 9 will not have
        warnings.simplefilter("ignore", RemovedInSphinx90Warning)
        app = Sphinx(
            str(sources),
            None,
            str(folder),
            trees,
            "revealjs",
            confoverrides={**CONFIGURATION, "root_doc": decks[0].stem},
            status=None,
            warning=sys.stderr,
            freshenv=True,
            warningiserror=True,
            keep_going=True,
        )
        app.build()
        if app.statuscode:
            raise SphinxError(f"the decks have {app._warncount} faults, named above")
    _leave_out(folder)
    return [folder / f"{deck.stem}.html" for deck in decks]


def _leave_out(folder: Path) -> None:
    """Remove what Sphinx writes and no deck loads."""
    reveal = folder / "_static" / "revealjs"
    for path in sorted(reveal.rglob("*"), reverse=True):
        if path.is_file() and str(path.relative_to(reveal)) not in KEPT:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    for name in ("objects.inv", "searchindex.js", "search.html", "genindex.html", ".buildinfo"):
        (folder / name).unlink(missing_ok=True)
    for path in (folder / "_static").glob("*"):
        if path.is_file() and path.name not in ("deck.css", "deck.js"):
            path.unlink()
    shutil.rmtree(folder / "_sources", ignore_errors=True)


def print_pdf(page: Any, deck: Path) -> Path:
    """The deck as a PDF beside it, a page for each slide; `page` is one of Playwright's, of a Chromium without a window."""
    page.goto(deck.resolve().as_uri() + "?print-pdf")
    page.wait_for_function("Reveal.isReady() && document.querySelector('.pdf-page')")
    page.evaluate("window.MathJax?.startup?.promise")
    pdf = deck.with_suffix(".pdf")
    page.pdf(path=pdf, prefer_css_page_size=True, print_background=True)
    return pdf


def print_all(decks: list[Path]) -> None:
    """Each deck as a PDF beside it; FileNotFoundError as in `printing_page`."""
    with printing_page() as page:
        for deck in decks:
            print_pdf(page, deck)


@contextmanager
def printing_page() -> Iterator[Any]:
    """A page of a Chromium without a window.

    Raises:
        FileNotFoundError: there is no Chromium.
    """
    with chromium.launched() as browser:
        yield browser.new_page()


def main(arguments: list[str]) -> int:
    names = [argument for argument in arguments if not argument.startswith("--")]
    if len(names) != 1 or set(arguments) - {*names, "--pdf"}:
        print(__doc__, file=sys.stderr)
        return 2
    if not color_terminal():
        nocolor()
    try:
        decks = build(Path(names[0]))
        if "--pdf" in arguments:
            print_all(decks)
    except (SphinxError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
