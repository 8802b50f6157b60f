"""The book's source as the course's editions are built from it: copies in which only what has to differ does."""

import re
import shutil
from pathlib import Path

import nbformat
import yaml

import quizzes
from chapter_cells import named, split, unfold
from chapters import BOOK, notebooks, title

FOR_TEACHERS = ("README.md", "notes", "syllabus.md", "session-*.md", "rubric.md", "slides")
"""What of `course` students do not get: it says what to ask in class and what the answers are worth, and is written to teachers."""

RUN_IT = """\
## Run it yourself

The folder `notebooks`, which came with these pages, has every chapter as a notebook; the `README.md` above it says how to open them.

"""


def copy_source(folder: Path) -> Path:
    """The book's source in a folder of its own, where its extensions find all they read; returns the copy's `book`."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(BOOK, folder / "book", ignore=shutil.ignore_patterns("_build", "__pycache__", ".ipynb_checkpoints"))
    for name in ("pyproject.toml", "CITATION.cff"):
        shutil.copy2(BOOK.parent / name, folder)
    index = folder / "book" / "index.md"
    index.write_text(_replaced(index.read_text(), r"## Run it yourself\n.*?(?=^## )", RUN_IT))
    return folder / "book"


def student_source(folder: Path) -> Path:
    """A copy without solutions and without what is for teachers."""
    book = copy_source(folder)
    for path in notebooks():
        notebook = nbformat.read(path, as_version=4)
        notebook.cells, _ = split(notebook.cells)
        named(notebook.cells)
        nbformat.write(notebook, book / path.name)
    for name in FOR_TEACHERS:
        for path in (book / "course").glob(name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    _change_contents(book, [{"file": "course/project"}])
    index = book / "index.md"
    text = _replaced(index.read_text(), r", with solutions\.", ".")
    index.write_text(_replaced(text, r"\[([^\]]*)\]\(course/README\.md\)", r"\1"))
    # the project's address leads to the solutions: no button goes there
    project = folder / "pyproject.toml"
    project.write_text(re.sub(r"^Repository *=.*\n", "", project.read_text(), flags=re.MULTILINE))
    return book


def instructor_source(folder: Path) -> Path:
    """A copy with open solutions and the quizzes' answers."""
    book = copy_source(folder)
    for path in notebooks():
        notebook = nbformat.read(path, as_version=4)
        _, solutions = split(notebook.cells)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = re.sub(r"(\{solution-start\} *\S+\n):class: dropdown\n", r"\1", cell.source)
        for cell in (cell for solution in solutions.values() for cell in solution):
            unfold(cell)
        nbformat.write(notebook, book / path.name)
    (book / "course" / "answers.md").write_text(quiz_answers())
    _change_contents(book, [{"file": "course/answers"}], instead=False)
    config = yaml.safe_load((book / "_config.yml").read_text())
    config["sphinx"]["config"]["html_theme_options"]["announcement"] = (
        "The instructor's edition: the solutions are open. Please do not publish it."
    )
    (book / "_config.yml").write_text(yaml.safe_dump(config, allow_unicode=True))
    return book


def quiz_answers() -> str:
    """A page of the right answers to all quizzes."""
    lines = ["# The quizzes' answers", "", "The letter is the one that the notebooks show.", ""]
    for path in notebooks():
        chapter = re.match(r"(\d+)-", path.name)
        if not chapter:
            continue
        lines += [f"## Chapter {int(chapter[1])}: [{title(path)}](../{path.name})", ""]
        for number, question in enumerate(quizzes.questions(path.stem), 1):
            answers = zip("abcdefgh", question["choices"], strict=False)
            right = [f"**{letter}** {_line(choice['text'])}" for letter, choice in answers if choice["right"]]
            lines += [f"{number}. {_line(question['question'])}", "", f"   {'; '.join(right)}", ""]
    return "\n".join(lines)


def _line(text: str) -> str:
    return " ".join(text.split())


def _change_contents(book: Path, pages: list[dict[str, str]], *, instead: bool = True) -> None:
    """Put pages into the place of those for teaching, or behind them."""
    file = book / "_toc.yml"
    contents = yaml.safe_load(file.read_text())
    teaching = next(part for part in contents["parts"] if part["caption"] == "Teaching")
    teaching["chapters"] = pages if instead else teaching["chapters"] + pages
    if instead:
        teaching["caption"] = "The course"
    file.write_text(yaml.safe_dump(contents, allow_unicode=True, sort_keys=False))


def _replaced(text: str, pattern: str, by: str) -> str:
    """ValueError if what is to be replaced is not there: the sentence has changed, and the edition would say what is not so."""
    changed, times = re.subn(pattern, by, text, flags=re.MULTILINE | re.DOTALL)
    if times != 1:
        raise ValueError(f"{pattern!r} is to be replaced in the book's index.md, and is there {times} times")
    return changed
