"""{quiz}: the questions of a chapter, from book/course/quiz/NN.yml, in its page.

A question is a group of radio buttons. To choose an answer shows what it says about the way that led there: CSS does that, so it
works without a script too; quiz.js counts, and says the verdict to a screen reader. Nothing is stored and nothing is sent.
"""

import re
from html import escape
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx import addnodes

BOOK = Path(__file__).resolve().parent.parent
VERDICTS = {True: "Right.", False: "Not yet."}


def file_of(page: str) -> Path:
    """The file of the questions of a chapter, `05-…`.

    Raises:
        ValueError: the page is no chapter, or there are no questions for it.
    """
    number = re.match(r"(\d+)-", page)
    path = BOOK / "course" / "quiz" / f"{number[1] if number else page}.yml"
    if not path.is_file():
        raise ValueError(f"{page} asks for a quiz, and there is no {path.relative_to(BOOK.parent)}")
    return path


def questions(page: str) -> list[dict[str, Any]]:
    """The questions of a chapter."""
    return yaml.safe_load(file_of(page).read_text())


class Quiz(Directive):
    """The questions of the chapter that the directive stands in."""

    def run(self) -> list[nodes.Node]:
        env = self.state.document.settings.env
        try:
            asked = questions(env.docname)
        except ValueError as error:
            raise self.error(str(error)) from None
        env.note_dependency(str(file_of(env.docname)))
        box = nodes.container(classes=["jfb-quiz"])
        for number, question in enumerate(asked, 1):
            box += self._question(number, question)
        box += _html(f'<p role="status" class="jfb-quiz-said" data-questions="{len(asked)}"></p>')
        return [box]

    def _question(self, number: int, question: dict[str, Any]) -> list[nodes.Node]:
        name = escape(question["id"])
        made: list[nodes.Node] = [_html(f'<fieldset id="{name}"><legend><b>{number}.</b> ')]
        made += [*self._inline(question["question"]), _html("</legend>")]
        for position, choice in enumerate(question["choices"], 1):
            right = bool(choice["right"])
            made += [
                _html(
                    f'<div class="jfb-choice"><input type="radio" name="{name}" id="{name}-{position}" '
                    f'value="{"right" if right else "wrong"}"><label for="{name}-{position}">'
                ),
                *self._inline(choice["text"]),
                _html("</label>"),
                self._feedback(choice["feedback"], right, question["section"]),
                _html("</div>"),
            ]
        return [*made, _html("</fieldset>")]

    def _feedback(self, text: str, right: bool, section: str) -> nodes.Node:
        # a printed page asks, and does not answer in the same breath
        only = addnodes.only(expr="html")
        only += _html(f'<p class="jfb-feedback" data-right="{str(right).lower()}"><strong>{VERDICTS[right]}</strong> ')
        only += self._inline(text)
        only += _html(f' <a href="#{escape(section)}">To the section</a></p>')
        return only

    def _inline(self, text: str) -> list[nodes.Node]:
        """Markdown of one paragraph, without the paragraph."""
        parsed = nodes.container()
        self.state.nested_parse(
            StringList(text.strip().splitlines(), source=self.state.document.current_source), 0, parsed
        )
        if len(parsed.children) != 1 or not isinstance(parsed.children[0], nodes.paragraph):
            raise self.error(f"a quiz has text of one paragraph, got {text!r}")
        # a link asks that its parent hold text
        return [nodes.inline("", "", *parsed.children[0].children)]


def _html(text: str) -> nodes.raw:
    return nodes.raw("", text, format="html")


def as_markdown(page: str) -> list[str]:
    """The same for an edition that knows no directives: each question with its choices, and a box to open with what each says."""
    lines: list[str] = []
    for number, question in enumerate(questions(page), 1):
        letters = "abcdefgh"[: len(question["choices"])]
        lines += [f"**{number}.** {_line(question['question'])}", ""]
        lines += [
            f"- **{letter}** {_line(choice['text'])}"
            for letter, choice in zip(letters, question["choices"], strict=True)
        ]
        lines += ["", "<details>", "<summary>What each answer says</summary>", ""]
        for letter, choice in zip(letters, question["choices"], strict=True):
            lines += [f"- **{letter}** {VERDICTS[bool(choice['right'])]} {_line(choice['feedback'])}"]
        lines += ["", "</details>", ""]
    return lines


def _line(text: str) -> str:
    return " ".join(text.split())


def setup(app) -> dict:
    app.add_directive("quiz", Quiz)
    app.add_js_file("quiz.js", loading_method="defer")
    app.add_css_file("quiz.css")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
