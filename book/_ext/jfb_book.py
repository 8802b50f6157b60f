"""What this book adds to Jupyter Book: pages generated from the notebooks, and a site that asks no other host for anything.

{claims-ledger}      a table of every claim that the notebooks check, collected from their stored outputs
{run-times}          a table of the chapters' measured run times, with what they were measured on
{chapter-time}`see Run times, chapter 01`
                     how long a chapter takes to read and to run; the words are what JupyterLab shows
{cite-this-book}     the book's BibTeX entry, from CITATION.cff and the project's address
{explorer} cobweb    an explorer outside a notebook; options d, y0 and steps as in jfb_tutorial.pages.explorers.cobweb;
                     {explorer} walk and {explorer} playground have those of explorers.walk and explorers.playground
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import myst_nb.sphinx_
from docutils import nodes
from docutils.parsers.rst import Directive, directives
from jfb_tutorial.pages import explorers
from jfb_tutorial.pages.claims import CODE
from myst_nb.sphinx_ import HideCodeCellNode, SphinxNbRenderer
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxRole
from sphinx.util.logging import getLogger

from chapters import (
    RUN_TIMES,
    chapter_time,
    claims,
    named_values,
    notebooks,
    repository,
    text,
    title,
    verdict,
    version,
)
from public_address import citation
from theme_faults import wide_table

logger = getLogger(__name__)


def table(headings: list[str], rows: list[list[list[nodes.Node]]]) -> wide_table:
    """A docutils table; a cell is a list of inline nodes."""
    head = [[[nodes.Text(heading)] for heading in headings]]
    group = nodes.tgroup(cols=len(headings))
    group += [nodes.colspec(colwidth=1) for _ in headings]
    for part, lines in ((nodes.thead(), head), (nodes.tbody(), rows)):
        part.extend(
            nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in line)) for line in lines
        )
        group += part
    return wide_table("", group, classes=["jfb-wide"])


class ClaimsLedger(Directive):
    """Every claim, the chapter that checks it, and what came out."""

    def run(self) -> list[nodes.Node]:
        note_dependencies(self.state.document.settings.env)
        rows = [claim_row(path, claim) for path in notebooks() for claim in claims(path)]
        return [table(["Claim", "Where", "As measured", "Fails without"], rows)]


def claim_row(path: Path, claim: dict) -> list[list[nodes.Node]]:
    """A row of the ledger of claims; the last cell counts the hypotheses without which the claim was seen to fail."""
    identifier = claim["identifier"]
    link = nodes.reference("", "", internal=True, refuri=f"{path.stem}.html#{identifier}")
    link += nodes.literal(text=identifier)
    failing = sum(not check["holds"] for check in claim["dropped"])
    dropped = len(claim["dropped"])
    return [
        [nodes.Text(claim["states"] + " "), link],
        [nodes.Text(claim["source"])],
        [nodes.strong(text=verdict(claim))],
        [nodes.Text(f"{failing} of {dropped}" if dropped else "–")],
    ]


class RunTimes(Directive):
    """The time each chapter's notebook takes, and the machine and versions that it was measured with."""

    def run(self) -> list[nodes.Node]:
        note_dependencies(self.state.document.settings.env)
        record = json.loads(RUN_TIMES.read_text())
        rows = []
        for path in notebooks():
            run = record[path.stem]
            versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
            line = [title(path), f"{run['seconds']:.0f} s", run["device"], versions, run["date"], run["commit"]]
            rows.append([[nodes.Text(cell)] for cell in line])
        return [table(["Chapter", "Time to run", "Device", "Versions", "Date", "Commit"], rows)]


class ChapterTime(SphinxRole):
    """How long a chapter takes, from its words and its last recorded run."""

    def run(self):
        note_dependencies(self.env)
        return [nodes.Text(chapter_time(self.text))], []


class NamedValue(SphinxRole):
    """A number that a cell of the page has named, as the cell has written it; MyST-NB's own role makes 0.535 of 0.5350."""

    def run(self):
        named = named_values(Path(self.env.doc2path(self.env.docname)))
        if self.text not in named:
            logger.warning("no cell names the value %r", self.text, location=self.get_location())
        return [nodes.Text(named.get(self.text, ""))], []


class CiteThisBook(Directive):
    """A BibTeX entry made from CITATION.cff; the address appears once pyproject.toml has it."""

    def run(self) -> list[nodes.Node]:
        cited = citation()
        authors = " and ".join(
            f"{{{a['name']}}}" if "name" in a else f"{a['family-names']}, {a['given-names']}" for a in cited["authors"]
        )
        lines = [
            "@book{jfb_tutorial,",
            f"  title   = {{{cited['title']}}},",
            f"  author  = {{{authors}}},",
            f"  year    = {{{str(cited['date-released'])[:4]}}},",
            f"  version = {{{cited['version']}}},",
        ]
        if repository():
            lines.append(f"  url     = {{{repository()}}},")
        text = "\n".join([*lines, "}"])
        return [nodes.literal_block(text, text, language="bibtex")]


class ShowExplorer(Directive):
    """An explorer on a page that is no notebook."""

    required_arguments = 1
    option_spec = {  # noqa: RUF012
        **dict.fromkeys(("d", "y0", "x", "y", "shear", "damping", "angle", "gamma", "tol", "lr"), float),
        **dict.fromkeys(("steps", "terms"), directives.nonnegative_int),
        **dict.fromkeys(("data", "rule"), directives.unchanged),
    }

    def run(self) -> list[nodes.Node]:
        explorer = getattr(explorers, self.arguments[0])(**self.options)
        return [nodes.raw("", explorer._repr_html_(), format="html")]


def note_dependencies(env) -> None:
    """A generated page is read anew when a notebook or the record of run times changes."""
    for path in [*notebooks(), RUN_TIMES]:
        env.note_dependency(str(path))


def set_repository(app: Sphinx, config) -> None:
    """Launch and repository buttons, once the project has an address."""
    options = config.html_theme_options
    options["footer_content_items"] = ["report-a-mistake.html", "copyright.html", "extra-footer.html"]
    # Jupyter Book fills them in from its defaults, with no address to lead to
    options.pop("launch_buttons", None)
    if not repository():
        options.update(use_repository_button=False, use_issues_button=False)
        return
    options.update(
        repository_url=repository(),
        # the plain edition, which .github/workflows/publish.yml puts there: it sets itself up, on Binder as on Colab
        repository_branch="notebooks",
        path_to_docs="",
        use_repository_button=True,
        use_issues_button=True,
        launch_buttons={
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
        },
    )


def report_a_mistake(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """A link at the foot of each page: to a new issue with the page and the version filled in, once there is an address."""
    if repository():
        words = f"Page: {page}\nVersion: {version()}\n\nWhat is wrong, and what should it say?\n"
        # the form asks for page and version; a host that knows no forms takes the text
        filled = {"template": "mistake.yml", "title": f"{page}: ", "page": page, "version": version(), "body": words}
        question = urlencode(filled, quote_via=quote)
        context["report_address"] = f"{repository()}/issues/new?{question}"


def describe_pictures(app: Sphinx, doctree: nodes.document) -> None:
    """Alternative text: a picture's output says in its plain text what the picture shows."""
    for bundle in doctree.findall(nodes.container):
        if bundle.get("nb_element") != "mime_bundle":
            continue
        plain = [part.astext() for part in bundle.children if part.get("mime_type") == "text/plain"]
        for image in bundle.findall(nodes.image):
            # a picture's plain text is its alternative text, see `jfb_tutorial.pages.figures.Picture`
            if plain:
                image["alt"] = plain[0].strip()


class CaptionedPictures(SphinxNbRenderer):
    """A cell's caption is its picture's; MyST-NB would give each of the cell's outputs a figure of that name."""

    def _render_nb_cell_code_outputs(self, token, outputs: list) -> None:
        metadata = token.meta["metadata"]
        options = metadata.get("mystnb", {})
        rest = {name: option for name, option in options.items() if name != "figure"}
        for output in outputs:
            pictured = "image/png" in output.get("data", {})
            token.meta["metadata"] = metadata if pictured else {**metadata, "mystnb": rest}
            super()._render_nb_cell_code_outputs(token, [output])
        token.meta["metadata"] = metadata


class TitledCode(SphinxTransform):
    """A folded cell has the title that its first line, a comment, gives it."""

    default_priority = 800

    def apply(self, **_: object) -> None:
        for cell in self.document.findall(nodes.container):
            if cell.get("nb_element") == "cell_code" and cell.get("hide_mode"):
                first = cell.children[0].astext().strip().partition("\n")[0]
                if first.startswith("# "):
                    cell["prompt_show"] = cell["prompt_hide"] = first.removeprefix("# ")


class CodeInClaims(SphinxPostTransform):
    """The code that checks a claim is inside the claim's box, below its numbers."""

    default_priority = 300  # when MyST-NB has folded the code and has chosen among the forms of an output
    formats = ("html",)

    def run(self, **_: object) -> None:
        for cell in self.document.findall(nodes.container):
            if cell.get("nb_element") != "cell_code":
                continue
            boxes = [raw for raw in cell.findall(nodes.raw) if CODE in raw.astext()]
            code = cell.children[0]
            # a cell of several claims keeps its code above them
            if len(boxes) == 1 and isinstance(code, HideCodeCellNode):
                before, _, after = boxes[0].astext().partition(CODE)
                cell.remove(code)
                parts = [nodes.raw("", before, format="html"), code, nodes.raw("", after, format="html")]
                boxes[0].parent.replace(boxes[0], parts)


def check_values(app: Sphinx, env) -> None:
    """Each number that a cell names is used by the text of its page."""
    for path in notebooks():
        used = set(re.findall(r"\{glue:text\}`([\w-]+)", text(path)))
        for name in sorted(named_values(path).keys() - used):
            logger.warning("the value %r is named by a cell, and used nowhere in the text", name, location=path.stem)


def escape_bars(app: Sphinx, what: str, name: str, obj, options, lines: list[str]) -> None:
    """Docstrings write |d| for an absolute value; to reStructuredText a bar opens a substitution."""
    for number, line in enumerate(lines):
        parts = line.split("`")
        # what is between backticks, every second part, is code and stays
        parts[::2] = [part.replace("|", "\\|") for part in parts[::2]]
        lines[number] = "`".join(parts)


def add_targets(app: Sphinx, env) -> list[str]:
    """Claims and theorems are something to link to: `[Lemma A.1](#lemma-A1)`. MyST itself finds neither."""
    labels = env.domaindata["std"]["anonlabels"]
    # a target is looked for in lower case
    for path in notebooks():
        labels |= {claim["identifier"].lower(): (path.stem, claim["identifier"]) for claim in claims(path)}
    labels |= {label.lower(): (proof["docname"], label) for label, proof in getattr(env, "proof_list", {}).items()}
    # in a link to a page, `05-….ipynb#anchor`, MyST knows the anchors of headings alone, and of those with a formula another
    for page, anchor in [*labels.values(), *sections(env)]:
        env.metadata[page].setdefault("myst_slugs", {}).setdefault(anchor, (0, anchor, ""))
    return []


def sections(env) -> Iterator[tuple[str, str]]:
    """The page and the anchor of every section."""
    for page, contents in env.tocs.items():
        for link in contents.findall(nodes.reference):
            if anchor := link["anchorname"].removeprefix("#"):
                yield page, anchor


def number_by_file(app: Sphinx, env) -> list[str]:
    """A chapter has the number of its file, 10-… is chapter 10, though one before it may not be written yet."""
    for name, numbers in env.toc_secnumbers.items():
        chapter = re.match(r"(\d+)-", name)
        if not chapter:
            continue
        for anchor, number in numbers.items():
            # None where the page's heading has no number
            numbers[anchor] = number and (int(chapter[1]), *number[1:])
        for figures in env.toc_fignumbers.get(name, {}).values():
            for identifier, number in figures.items():
                figures[identifier] = (int(chapter[1]), *number[1:])
        for node in [*env.tocs[name].findall(nodes.reference), env.titles[name], env.longtitles[name]]:
            if number := node.get("secnumber"):
                node["secnumber"] = (int(chapter[1]), *number[1:])
    return []


def setup(app: Sphinx) -> dict:
    for extension in (
        "theme_faults",
        "code_names",
        "previews",
        "figure_list",
        "quizzes",
        "course_names",
        "front_page",
        "notebook_downloads",
        "page_weight",
        "public_address",
    ):
        app.setup_extension(extension)
    myst_nb.sphinx_.SphinxNbRenderer = CaptionedPictures  # MyST-NB's parser looks for it there
    app.add_directive("claims-ledger", ClaimsLedger)
    app.add_directive("run-times", RunTimes)
    app.add_directive("cite-this-book", CiteThisBook)
    app.add_directive("explorer", ShowExplorer)
    app.add_role("chapter-time", ChapterTime())
    app.setup_extension("myst_nb")  # which has the domain
    app.add_role_to_domain("glue", "text", NamedValue(), override=True)
    app.add_transform(TitledCode)
    app.add_post_transform(CodeInClaims)
    app.connect("env-check-consistency", check_values)
    app.connect("config-inited", set_repository, priority=100)
    app.connect("autodoc-process-docstring", escape_bars, priority=100)
    app.connect("doctree-read", describe_pictures)
    app.connect("html-page-context", report_a_mistake)
    app.connect("env-updated", add_targets)
    app.connect("env-get-updated", number_by_file, priority=900)  # after the numbers have been given
    # a page opened from disk may not read the other pages, so its search shows titles without excerpts
    app.add_js_file(
        None,
        body='if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;',
    )
    return {
        "version": "1",
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
