"""The cells of a chapter taken apart and put together: its exercises, its solutions, its captions."""

import re
from collections.abc import Callable
from pathlib import Path

import nbformat
from jfb_tutorial.pages import exercises
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

import quizzes
from chapters import figures
from plain_markdown import Renderer
from references import Links
from roles import roles

_SOLUTION = re.compile(
    r"^(`{3,}|:{3,})\{solution-(?P<which>start|end)\}[ ]*(?P<label>\S*)[^\n]*\n(?::[^\n]*\n)*\1[ ]*$", re.MULTILINE
)
_FOLDED = {"hide-input", "remove-input"}

Follow = Callable[[NotebookNode, str, list[NotebookNode]], list[NotebookNode]]
"""What comes after an exercise, made from its cell, its label and the cells of its solution."""


def split(cells: list[NotebookNode]) -> tuple[list[NotebookNode], dict[str, list[NotebookNode]]]:
    """The cells without the solutions, and those of each solution by its label.

    Raises:
        ValueError: a solution is left, written in a way that is not known here.
    """
    chapter: list[NotebookNode] = []
    solutions: dict[str, list[NotebookNode]] = {}
    into = chapter
    for cell in cells:
        if cell.cell_type != "markdown":
            into.append(cell)
            continue
        begin = 0
        for mark in _SOLUTION.finditer(cell.source):
            _add_text(into, cell.source[begin : mark.start()])
            into = solutions.setdefault(mark["label"], []) if mark["which"] == "start" else chapter
            begin = mark.end()
        _add_text(into, cell.source[begin:])
    for cell in chapter:
        if cell.cell_type == "markdown" and "{solution" in cell.source:
            raise ValueError(f"write a solution between {{solution-start}} and {{solution-end}}, got {cell.source!r}")
    return chapter, solutions


def _add_text(cells: list[NotebookNode], text: str) -> None:
    # an exercise gets a cell of its own, so that a cell for the answer can follow it
    for part in re.split(r"(?=^:{3,}\{exercise\})", text, flags=re.MULTILINE):
        if part.strip():
            cells.append(new_markdown_cell(part.strip()))


def _label(cell: NotebookNode) -> str | None:
    """The label of the exercise that a cell holds."""
    found = re.search(r"^:{3,}\{exercise\}.*?^:label: (\S+)$", cell.source, re.MULTILINE | re.DOTALL)
    return found[1] if found and cell.cell_type == "markdown" else None


def assembled(path: Path, renderer: Renderer, follow: Follow) -> NotebookNode:
    """A chapter with its text rendered and its code folded; `follow` says what comes in the place of the solutions."""
    notebook = nbformat.read(path, as_version=4)
    cells, solutions = split(_captioned(path, notebook.cells))
    chapter: list[NotebookNode] = []
    for cell in cells:
        label = _label(cell)
        render(renderer, [cell])
        fold(cell)
        chapter.append(cell)
        if label:
            chapter += follow(cell, label, solutions.get(label, []))
    notebook.cells = named(chapter)
    return notebook


def answer_cell(label: str) -> NotebookNode:
    """Where the answer to an exercise goes; with its check, if it has one."""
    return new_code_cell(exercises.stub(label) if label in exercises.labels() else "# your answer\n")


def _captioned(path: Path, cells: list[NotebookNode]) -> list[NotebookNode]:
    """The cells of a chapter, each that draws a figure followed by its number and caption."""
    captions = {figure.cell: f"*Figure {figure.number}.* {figure.caption}" for figure in figures(path)}
    every: list[NotebookNode] = []
    for position, cell in enumerate(cells):
        every.append(cell)
        if cell.cell_type == "code" and position in captions:
            every.append(new_markdown_cell(captions[position]))
    return every


def render(renderer: Renderer, cells: list[NotebookNode]) -> list[NotebookNode]:
    """The cells, their text rendered in place."""
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = renderer.render(cell.source)
    return cells


def fold(cell: NotebookNode) -> None:
    """Fold a cell's code, if it is to be, as JupyterLab and VS Code know it."""
    if _FOLDED & set(cell.metadata.get("tags", [])):
        cell.metadata["jupyter"] = {"source_hidden": True}


def unfold(cell: NotebookNode) -> None:
    """Show a cell's code, on the site too."""
    if _FOLDED & set(cell.metadata.get("tags", [])):
        cell.metadata["tags"] = [tag for tag in cell.metadata["tags"] if tag not in _FOLDED]


def renderer_of(path: Path, *, fragments: bool, up: str = "", dollars: bool = False) -> Renderer:
    """What renders the text of a chapter; see `Renderer` and `Links` for the settings."""
    number = re.match(r"(\d+)-", path.name)
    return Renderer(
        number[1] if number else "",
        roles(path),
        dollars=dollars,
        links=Links(path.name, fragments=fragments, up=up),
        quiz=lambda: quizzes.as_markdown(path.stem),
        figures={figure.name: figure.number for figure in figures(path)},
    )


def named(cells: list[NotebookNode]) -> list[NotebookNode]:
    """With identifiers that stay the same, so that a chapter generated again is the same file."""
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number:02d}"
    return cells
