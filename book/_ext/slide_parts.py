"""What a slide takes from the book by name, so that it has no copy of it. A name that is not there fails the build.

{picture} fig-05-plane            a figure of a chapter; with `:height:` in pixels, and with `:from:` and `:to:`, shares of the
                                  figure's height, a part of it: one of several panels above one another
{theorem} theorem-sharp           a theorem, lemma or corollary, by its label or target
{equation} jfb-14                 a numbered formula
{claim} sharp-condition           a claim, with its mark and how it was tested; with `:brief:` without its sentence
{value}`05/up`                    what a cell of chapter 05 names for its sentences
{exercise}`ex-05-one`             the number and the title of an exercise
{stored-table} The steeper, the more steps.
                                  a table, by its caption
{printed} an-answer-where-there-is-none
                                  what the cells under a heading print
{shown-code} u = solve(data)      a visible cell, by how it begins
{explorer} explorers.descent()    an explorer, by the call that a chapter makes; alive
{vote} Vote 1, {vote} quiz-05-saturated
                                  a question of the deck's own plan, or of a quiz; with `:answer:` the right choice is marked,
                                  and what the plan or the quiz says of each choice is in the speaker notes
{notes} 00:08–00:25 Cobweb, two votes
                                  speaker notes; the words are a block of the plan, on the block's first slide. The later ones have
                                  a clock alone, {notes} 00:15; the slide's time in the speaker view is what lies between two clocks.
                                  Without a clock where the deck has no plan
"""

import re
from html import escape
from itertools import pairwise
from pathlib import Path

import pygments
from docutils import nodes
from docutils.parsers.rst import Directive, directives
from docutils.statemachine import StringList
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole
from sphinx.util.logging import getLogger
from sphinx_revealjs.nodes import revealjs_section

import chapters
import slide_sources as sources

logger = getLogger(__name__)

PICTURES = "_pictures"
"""Where pictures lie beside the decks."""


# The directives


def slide_at(deck: str, source: str, line: int) -> str:
    """The deck, and the heading of the slide that a line of its source is on."""
    above = Path(source).read_text().splitlines()[:line]
    headings = [text.lstrip("# ") for text in above if re.match(r"#{1,3} ", text)]
    return f"{deck}, slide “{headings[-1] if headings else ''}”"


class Part(Directive):
    """A directive whose argument is a name; what is not found is said with the slide it is missing on."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        self.env = self.state.document.settings.env
        for path in chapters.notebooks():
            self.env.note_dependency(str(path))
        name = " ".join(self.arguments)
        try:
            return self.made(name)
        except ValueError as error:
            where = slide_at(self.env.docname, self.state.document.current_source, self.lineno)
            raise self.error(f"{where}: {{{self.name}}} {name} is not in the book: {error}") from None

    def made(self, name: str) -> list[nodes.Node]:
        raise NotImplementedError

    def plan(self) -> Path:
        """The minutes of the session that the deck is for."""
        return chapters.BOOK / "course" / f"{self.env.docname}.md"

    def markdown(self, text: str, *classes: str) -> nodes.container:
        box = nodes.container(classes=list(classes))
        lines = StringList(text.strip().splitlines(), source=self.state.document.current_source)
        self.state.nested_parse(lines, 0, box)
        return box


class Picture(Part):
    option_spec = {  # noqa: RUF012
        "height": directives.positive_int,
        "from": float,
        "to": float,
    }

    def made(self, name: str) -> list[nodes.Node]:
        content, ending, alt = sources.find_figure(name)
        # beside the deck, and not an image of Sphinx: it would look for it below the decks' sources
        file = Path(self.env.app.outdir, PICTURES, f"{name}.{ending}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        height, top = self.options.get("height", 560), self.options.get("from", 0.0)
        whole = height / (self.options.get("to", 1.0) - top)
        return [
            html(
                f'<div class="deck-picture" style="height: {height}px"><img src="{PICTURES}/{file.name}" alt="{escape(alt)}" '
                f'style="height: {whole:.0f}px; margin-top: {-round(top * whole)}px"></div>'
            )
        ]


class Theorem(Part):
    def made(self, name: str) -> list[nodes.Node]:
        title, body = sources.find_theorem(name)
        return [nodes.container("", self.markdown(f"**{title}.** {body}"), classes=["deck-theorem"])]


class Equation(Part):
    def made(self, name: str) -> list[nodes.Node]:
        return [self.markdown(sources.find_equation(name), "deck-equation")]


class ShownClaim(Part):
    option_spec = {"brief": directives.flag}  # noqa: RUF012

    def made(self, name: str) -> list[nodes.Node]:
        claim = sources.find_claim(name)
        line = claim["tested"] if "brief" in self.options else f"{claim['states']} <small>{claim['tested']}</small>"
        return [
            html(f'<div class="deck-claim" data-verdict="{claim["verdict"]}"><span>{claim["mark"]}</span> {line}</div>')
        ]


class StoredTable(Part):
    def made(self, name: str) -> list[nodes.Node]:
        return [html(f'<div class="deck-table">{sources.find_table(name)}</div>')]


class Printed(Part):
    def made(self, name: str) -> list[nodes.Node]:
        return [html(f'<pre class="deck-printed">{escape(sources.find_printed(name))}</pre>')]


class ShownCode(Part):
    def made(self, name: str) -> list[nodes.Node]:
        formatter = HtmlFormatter(cssclass="deck-code", noclasses=True, style="xcode")
        return [html(pygments.highlight(sources.find_code(name), PythonLexer(), formatter))]


class ShownExplorer(Part):
    def made(self, name: str) -> list[nodes.Node]:
        # a finger on a figure drags, and does not turn the page
        return [html(f'<div class="deck-explorer" data-prevent-swipe>{sources.find_explorer(name)}</div>')]


class Vote(Part):
    option_spec = {"answer": directives.flag}  # noqa: RUF012

    def made(self, name: str) -> list[nodes.Node]:
        vote, answer = sources.find_vote(name, self.plan()), "answer" in self.options
        # dots that stand for the answer stay with the last word
        made: list[nodes.Node] = [self.markdown(vote["question"].replace(" …", "\u00a0…"), "deck-question")]
        long = len(vote["question"]) + sum(len(text) for text, _ in vote["choices"]) > 340
        choices = nodes.container(classes=["deck-choices", *["deck-answered"] * answer, *["deck-dense"] * long])
        for letter, (text, right) in zip("ABCD", vote["choices"], strict=False):
            line = self.markdown(f"**{letter}** {text}", "deck-choice")
            if answer and right:
                line["classes"].append("deck-right")
                line.children[0].insert(0, nodes.inline("", "Right: ", classes=["deck-spoken"]))
            choices += line
        made.append(choices)
        return [*made, note(vote["said"])] if answer else made


class Notes(Part):
    required_arguments, optional_arguments = 0, 1
    has_content = True

    def made(self, name: str) -> list[nodes.Node]:
        minute, words = sources.find_block(name, self.plan()) if name else (None, "")
        text = re.sub(r"\{value\}`([^`]+)`", lambda found: sources.find_value(found[1]), "\n".join(self.content))
        return [note(f"{words}\n\n{text}", minute)]


class deck_note(nodes.General, nodes.Element):
    """Text for the speaker view: lines as they are written, formulas as their source."""


_SPOKEN = {
    r"\kappa": "κ",
    r"\gamma": "γ",
    r"\rho": "ρ",
    r"\lambda": "λ",
    r"\nabla": "∇",
    r"\|": "‖",
    r"\le": "≤",
    r"\ge": "≥",
    r"\,": " ",
}


def note(text: str, minute: int | None = None) -> deck_note:
    """A part of a slide's notes; its formulas, which the speaker view does not set, as plain text where that can be."""
    text = re.sub(r"\*\*([^*]+)\*\*|\*([^*]+)\*", lambda found: found[1] or found[2], text)
    text = re.sub(r"\[([^\]]+)\]\([^)\s]*\)", r"\1", text)
    text = re.sub(r"\\(?:[a-z]+|[|,])", lambda found: _SPOKEN.get(found[0], found[0]), text)
    return deck_note(text=re.sub(r"[`$]", "", text), minute=minute)


def html(text: str) -> nodes.raw:
    return nodes.raw("", text, format="html")


class Named(SphinxRole):
    """A number, or the title of an exercise, within a sentence."""

    def run(self):
        find = {"value": sources.find_value, "exercise": sources.find_exercise}[self.name]
        try:
            return [nodes.Text(find(self.text))], []
        except ValueError as error:
            where = slide_at(self.env.docname, *self.get_source_info())
            logger.warning("%s: {%s} %s is not in the book: %s", where, self.name, self.text, error)
            return [], []


def gather_notes(app: Sphinx, doctree: nodes.document) -> None:
    """One note a slide, at its end; and how long the slide stays, from the clocks of the plan."""
    app.env.metadata[app.env.docname]["orphan"] = True  # a deck is in no table of contents
    slides = [section for section in doctree.findall(nodes.section) if isinstance(section.children[0], nodes.title)]
    clocks = []
    for slide in slides:
        notes = [child for child in slide.findall(deck_note) if _slide_of(child) is slide]
        for each in notes:
            each.parent.remove(each)
        if notes:
            lines = "\n".join(each["text"] for each in notes).splitlines()
            text = "".join(f"<p>{escape(line)}</p>" for line in lines if line.strip())
            where = next((i for i, child in enumerate(slide.children) if isinstance(child, nodes.section)), None)
            aside = html(f'<aside class="notes">{text}</aside>')
            slide.insert(len(slide.children) if where is None else where, aside)
        clocks += [(slide, each["minute"]) for each in notes if each["minute"] is not None]
    for (slide, now), (_, later) in pairwise(clocks):
        if later < now:
            logger.warning("the clock of a slide goes back, from minute %s to %s", now, later, location=slide)
        slide.insert(1, revealjs_section("", **{"data-timing": str(60 * (later - now))}))


def _slide_of(node: nodes.Node) -> nodes.Node:
    while not isinstance(node, nodes.section):
        node = node.parent
    return node


def setup(app: Sphinx) -> dict:
    parts = {
        "picture": Picture,
        "theorem": Theorem,
        "equation": Equation,
        "claim": ShownClaim,
        "stored-table": StoredTable,
        "printed": Printed,
        "shown-code": ShownCode,
        "explorer": ShownExplorer,
        "vote": Vote,
        "notes": Notes,
    }
    for name, directive in parts.items():
        app.add_directive(name, directive)
    for name in ("value", "exercise"):
        app.add_role(name, Named())
    app.connect("doctree-read", gather_notes)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
