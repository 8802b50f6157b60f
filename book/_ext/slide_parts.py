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
                                  a clock alone, {notes} 00:15; the slide's time in the speaker view is what lies between two clocks
"""

import base64
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import pygments
import yaml
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
import references

logger = getLogger(__name__)

PICTURES = "_pictures"
"""Where pictures lie beside the decks."""


# What is found in the chapters


def find_figure(name: str) -> tuple[bytes, str, str]:
    """A figure's picture, as SVG where there is one, the ending of its file, and its alternative text."""
    for path in chapters.notebooks():
        for figure in chapters.figures(path):
            if figure.name == name and not figure.file:
                outputs = chapters.cells(path)[figure.cell]["outputs"]
                stored = next(output["data"] for output in outputs if "image/png" in output.get("data", {}))
                alt = "".join(stored["text/plain"])
                drawing = chapters.BOOK / "figures" / f"{name}.svg"
                if drawing.is_file():
                    return drawing.read_bytes(), "svg", alt
                return base64.b64decode("".join(stored["image/png"])), "png", alt
    raise ValueError("no chapter draws a figure of this name")


_PROOF = re.compile(
    r"^(?P<mark>`{3,}|:{3,})\{prf:(?P<kind>\w+)\}(?P<title>[^\n]*)\n(?P<options>(?::[^\n]*\n)*)(?P<body>.*?)^(?P=mark) *$",
    re.MULTILINE | re.DOTALL,
)


def find_theorem(name: str) -> tuple[str, str]:
    """The title and the Markdown of a theorem."""
    for path in chapters.notebooks():
        text = chapters.text(path)
        for proof in _PROOF.finditer(text):
            targets = re.search(r"((?:^\([\w.-]+\)=\n+)*)\Z", text[: proof.start()], re.MULTILINE)
            names = re.findall(r"\(([\w.-]+)\)=", targets[1] if targets else "")
            if name in (*names, *re.findall(r"^:label: *(\S+)", proof["options"], re.MULTILINE)):
                title = proof["title"].strip()
                # of a theorem with a number in its paper the title says the kind
                kind = proof["kind"].capitalize()
                return title if kind in title else f"{kind}: {title}", plain(path, proof["body"])
    raise ValueError("no chapter has a theorem of this label")


def find_equation(name: str) -> str:
    """A displayed formula, as Markdown."""
    formula = re.compile(
        rf"^\({re.escape(name)}\)=\s*(?:\([\w.-]+\)=\s*)*(\$\$.*?\$\$|\\begin\{{align\*?\}}.*?\\end\{{align\*?\}})",
        re.MULTILINE | re.DOTALL,
    )
    for path in chapters.notebooks():
        if found := formula.search(chapters.text(path)):
            return found[1]
    raise ValueError("no chapter has a formula with this target")


def find_claim(name: str) -> dict[str, str]:
    """What a claim states, its mark and how it was tested, as HTML."""
    for path in chapters.notebooks():
        for cell in chapters.cells(path):
            for output in cell.get("outputs", []):
                claim = output.get("data", {}).get(chapters.CLAIM, {})
                if claim.get("identifier") == name:
                    line = re.search(r"<summary>(.*?)</summary>", "".join(output["data"]["text/html"]), re.DOTALL)[1]
                    # of a quiet one the line has the mark and how it was tested, without the sentence
                    tested = re.search(r"<small>(.*)</small>", line) or re.search(r"</span>(.*)", line)
                    mark = re.search(r"<span>(.*?)</span>", line)[1]
                    return {"states": escape(claim["states"]), "mark": mark, "tested": tested[1].strip()}
    raise ValueError("no chapter checks a claim of this name")


def find_value(name: str) -> str:
    """A number as a cell has written it; the name is 05/up."""
    number, _, value = name.partition("/")
    for path in chapters.notebooks():
        if path.stem.startswith(f"{number}-"):
            named = chapters.named_values(path)
            if value not in named:
                raise ValueError(f"no cell of chapter {number} names this value")
            return named[value]
    raise ValueError("write chapter and name, as in 05/up")


def find_exercise(name: str) -> str:
    """Its number and its title."""
    for path in chapters.notebooks():
        for number, (label, title) in enumerate(chapters.exercises(path).items(), 1):
            if label == name:
                return f"{int(path.stem[:2])}.{number} {title}"
    raise ValueError("no chapter has an exercise of this label")


def find_table(caption: str) -> str:
    """A table as HTML, by its caption."""
    for path in chapters.notebooks():
        for html in _html_outputs(path):
            if "<table" in html and f"<caption>{escape(caption)}</caption>" in html:
                return html
    raise ValueError("no chapter shows a table with this caption")


def _html_outputs(path: Path) -> Iterator[str]:
    for cell in chapters.cells(path):
        for output in cell.get("outputs", []):
            yield "".join(output.get("data", {}).get("text/html", ""))


def find_printed(anchor: str) -> str:
    """What the cells under a heading print."""
    for path in chapters.notebooks():
        here, printed = False, ""
        for cell in chapters.cells(path):
            if cell["cell_type"] == "markdown":
                for heading in re.findall(r"^#{1,6} +(.+)$", "".join(cell["source"]), re.MULTILINE):
                    here = references.slug(heading) == anchor
            elif here:
                streams = [output for output in cell["outputs"] if output["output_type"] == "stream"]
                printed += "".join("".join(output["text"]) for output in streams)
        if printed:
            return printed.strip()
    raise ValueError("under no heading with this anchor does a chapter print anything")


def find_code(start: str) -> str:
    """The code of the visible cell that starts so."""
    for path in chapters.notebooks():
        for cell in chapters.cells(path):
            code, tags = "".join(cell["source"]), set(cell["metadata"].get("tags", []))
            if cell["cell_type"] == "code" and not tags & {"hide-input", "remove-input"} and code.startswith(start):
                return code
    raise ValueError("no visible cell of a chapter starts so")


def find_explorer(call: str) -> str:
    """The stored HTML of an explorer, by the code that calls it."""
    for path in chapters.notebooks():
        for cell in chapters.cells(path):
            code = "".join(cell["source"]) if cell["cell_type"] == "code" else ""
            # a call may be broken into lines
            if re.sub(r"\s", "", code).endswith(re.sub(r"\s", "", call)):
                for output in cell["outputs"]:
                    html = "".join(output.get("data", {}).get("text/html", ""))
                    if 'class="jfb-explorer"' in html:
                        return html
    raise ValueError("no chapter shows an explorer by this call")


def plain(path: Path, text: str) -> str:
    """Markdown of a chapter without what leads away from it: links keep their words, numbers stand where they are named."""
    numbers = chapters.named_values(path)
    text = re.sub(r"\{glue:text\}`([\w-]+)`", lambda found: numbers[found[1]], text)
    text = re.sub(r" ?\{cite\}`[^`]*`", "", text)
    text = re.sub(r"\{(?:prf:)?(?:num)?ref\}`([^`<]+?)(?: *<[^`]*>)?`", r"\1", text)
    text = re.sub(r"^\([\w.-]+\)=\n", "", text, flags=re.MULTILINE)
    return re.sub(r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\([^)\s]*\)", r"\1", text)


# What is found in the plan of a session, and in the quizzes


def find_vote(name: str, plan: Path) -> dict[str, Any]:
    """A question, its choices with whether each is right, and what is said of them, for the speaker."""
    if name.startswith("quiz-"):
        return _quiz_question(name)
    text = plan.read_text() if plan.is_file() else ""
    vote = re.search(rf"^### {re.escape(name)}\b[^\n]*\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    if not vote:
        raise ValueError(f"{plan.name} has no vote of this name")
    before, _, after = vote[1].partition("**Answer: ")
    question, *choices = re.split(r"^- \*\*[A-D]\.\*\* ", before.strip(), flags=re.MULTILINE)
    right = "ABCD".index(after[0])
    return {
        "question": question.strip(),
        "choices": [(" ".join(choice.split()), number == right) for number, choice in enumerate(choices)],
        "said": "Answer: " + after.strip(),
    }


def _quiz_question(name: str) -> dict[str, Any]:
    path = chapters.BOOK / "course" / "quiz" / f"{name[5:7]}.yml"
    for question in yaml.safe_load(path.read_text()) if path.is_file() else ():
        if question["id"] == name:
            said = [
                f"{letter}: {choice['feedback']}" for letter, choice in zip("ABCD", question["choices"], strict=False)
            ]
            return {
                "question": question["question"],
                "choices": [(choice["text"], choice["right"]) for choice in question["choices"]],
                "said": "\n".join(said),
            }
    raise ValueError("there is no question of this name")


def find_block(words: str, plan: Path) -> tuple[int, str]:
    """When a slide begins, in minutes; and the words, with a block of the plan in full or nothing after the clock."""
    clock = re.fullmatch(r"(\d\d):(\d\d)(?:–\d\d:\d\d .+)?", words)
    if not clock:
        raise ValueError("write 00:08, or a block of the plan as its heading has it, 00:08–00:25 and its name")
    if "–" in words and f"## {words}\n" not in (plan.read_text() if plan.is_file() else ""):
        raise ValueError(f"{plan.name} has no block with this heading")
    return 60 * int(clock[1]) + int(clock[2]), words


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
        try:
            return self.made(self.arguments[0])
        except ValueError as error:
            where = slide_at(self.env.docname, self.state.document.current_source, self.lineno)
            raise self.error(f"{where}: {{{self.name}}} {self.arguments[0]} is not in the book: {error}") from None

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
        content, ending, alt = find_figure(name)
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
        title, body = find_theorem(name)
        return [nodes.container("", self.markdown(f"**{title}.** {body}"), classes=["deck-theorem"])]


class Equation(Part):
    def made(self, name: str) -> list[nodes.Node]:
        return [self.markdown(find_equation(name), "deck-equation")]


class ShownClaim(Part):
    option_spec = {"brief": directives.flag}  # noqa: RUF012

    def made(self, name: str) -> list[nodes.Node]:
        claim = find_claim(name)
        line = claim["tested"] if "brief" in self.options else f"{claim['states']} <small>{claim['tested']}</small>"
        return [html(f'<div class="deck-claim"><span>{claim["mark"]}</span> {line}</div>')]


class StoredTable(Part):
    def made(self, name: str) -> list[nodes.Node]:
        return [html(f'<div class="deck-table">{find_table(name)}</div>')]


class Printed(Part):
    def made(self, name: str) -> list[nodes.Node]:
        return [html(f'<pre class="deck-printed">{escape(find_printed(name))}</pre>')]


class ShownCode(Part):
    def made(self, name: str) -> list[nodes.Node]:
        formatter = HtmlFormatter(cssclass="deck-code", noclasses=True, style="xcode")
        return [html(pygments.highlight(find_code(name), PythonLexer(), formatter))]


class ShownExplorer(Part):
    def made(self, name: str) -> list[nodes.Node]:
        # a finger on a figure drags, and does not turn the page
        return [html(f'<div class="deck-explorer" data-prevent-swipe>{find_explorer(name)}</div>')]


class Vote(Part):
    option_spec = {"answer": directives.flag}  # noqa: RUF012

    def made(self, name: str) -> list[nodes.Node]:
        vote, answer = find_vote(name, self.plan()), "answer" in self.options
        # dots that stand for the answer stay with the last word
        made: list[nodes.Node] = [self.markdown(vote["question"].replace(" …", "\u00a0…"), "deck-question")]
        choices = nodes.container(classes=["deck-choices", *["deck-answered"] * answer])
        for letter, (text, right) in zip("ABCD", vote["choices"], strict=False):
            line = self.markdown(f"**{letter}** {text}", "deck-choice")
            if answer and right:
                line["classes"].append("deck-right")
                line.children[0].insert(0, nodes.inline("", "Right: ", classes=["deck-spoken"]))
            choices += line
        made.append(choices)
        return [*made, note(vote["said"])] if answer else made


class Notes(Part):
    has_content = True

    def made(self, name: str) -> list[nodes.Node]:
        minute, words = find_block(name, self.plan())
        text = re.sub(r"\{value\}`([^`]+)`", lambda found: find_value(found[1]), "\n".join(self.content))
        return [note(f"{words}\n\n{text}", minute)]


class deck_note(nodes.General, nodes.Element):  # noqa: N801
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
        find = {"value": find_value, "exercise": find_exercise}[self.name]
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
    for (slide, now), (_, later) in zip(clocks, clocks[1:], strict=False):
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
