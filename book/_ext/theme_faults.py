"""Faults of the theme and of docutils' markup, each mended where the markup is written; `jfb_book` sets this up.

Two of the theme's templates have a version of ours in `book/_templates`; the rest are visitors of nodes. If a name that is
replaced here goes away, the build stops, or `test_the_faults_of_the_theme_are_mended` fails: no mend is left without effect.
"""

from pathlib import Path

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode, depart_HideCellInput, visit_HideCellInput
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.docutils import SphinxTranslator

TEMPLATES = Path(__file__).resolve().parent.parent / "_templates"


class wide_table(nodes.table):
    """A table that scrolls by itself, so that the page is never wider than a phone."""


def visit_wide_table(self: SphinxTranslator, node: wide_table) -> None:
    """As any table, but what scrolls can be scrolled by keyboard only if it can have the focus."""
    begin = len(self.body)
    self.visit_table(node)
    replace(self, begin, "<table ", '<table tabindex="0" ')


def visit_folded_cell(self: SphinxTranslator, node: HideCodeCellNode) -> None:
    """As myst-nb, but what the fold says on the screen is its name: the label that myst-nb gives it says something else."""
    begin = len(self.body)
    visit_HideCellInput(self, node)
    replace(self, begin, '<summary aria-label="Toggle hidden content">', "<summary>")


def replace(translator: SphinxTranslator, begin: int, old: str, new: str) -> None:
    """Replace a piece of what was written since `begin`; ValueError if it is not there once."""
    written = "".join(translator.body[begin:])
    if written.count(old) != 1:
        raise ValueError(f"{old!r} is to be mended, but what is written is {written!r}: see {__file__}")
    translator.body[begin:] = [written.replace(old, new)]


def visit_citation(self: SphinxTranslator, node: nodes.citation) -> None:
    """As docutils, but for its role="list": the entries inside have a role of their own and are no list items."""
    if not isinstance(node.previous_sibling(), nodes.citation):
        self.body.append('<div class="citation-list">\n')
    self.body.append(self.starttag(node, "div", classes=[node.tagname], role="doc-biblioentry"))


def use_templates(app: Sphinx, config: Config) -> None:
    """Look for templates here before looking in the theme."""
    config.templates_path.insert(0, str(TEMPLATES))


def clean_page(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Leave out Thebe, whose snippet throws an error on every page, and whose script lives on another host."""
    context["default_mode"] = "auto"  # the theme follows the reader's system until told otherwise
    for files in ("script_files", "css_files"):
        context[files] = [file for file in context.get(files, []) if not is_thebe(file)]


def name_toggles(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """In the list of pages, the arrow that shows the pages below another has no words; give it a name."""
    made = context["generate_toctree_html"]

    def named(*args: object, **settings: object) -> str:
        return str(made(*args, **settings)).replace("<summary>", '<summary aria-label="Pages below">')

    context["generate_toctree_html"] = named


def is_thebe(file: object) -> bool:
    """Whether a script or a style sheet, which may be written into the page, is Thebe's."""
    return "thebe" in f"{getattr(file, 'filename', '')}{getattr(file, 'attributes', '')}".lower()


def setup(app: Sphinx) -> dict:
    app.add_node(wide_table, html=(visit_wide_table, lambda self, node: self.depart_table(node)))
    app.add_node(HideCodeCellNode, override=True, html=(visit_folded_cell, depart_HideCellInput))
    # without a visitor of ours for the end, docutils' own closes the list
    app.add_node(nodes.citation, override=True, html=(visit_citation, None))
    app.connect("config-inited", use_templates, priority=100)  # before the theme appends its own
    app.connect("html-page-context", clean_page, priority=900)  # after the extensions have added their files
    app.connect("html-page-context", name_toggles, priority=900)  # after the theme has brought its function
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
