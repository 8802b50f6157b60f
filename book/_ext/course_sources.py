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

FOR_A_GPU = """\
**A build of PyTorch for your GPU.** On Linux `pip install -r requirements.txt` installs PyTorch's build for CUDA 13, which an older
driver may be too old for; on Windows and on a Mac it installs a build for the CPU. If yours is the wrong one, take the command for your
system from [PyTorch's own page](https://pytorch.org/get-started/locally/), and run it in the same environment. Then, in the folder `notebooks`:

"""

RECORDS = """\
**Where they go.** The records lie in the folder `book/records`, which these commands make where they are called. A record names your GPU,
the versions and the date, and nothing else about your machine. If you can, send them to the authors of the book.

"""

WITHOUT_REPOSITORY = (
    ("index.md", r"^## Run it yourself\n.*?(?=^## )", RUN_IT),
    ("on-a-gpu.md", r"^\*\*A build of PyTorch for your GPU\.\*\* .*?(?=^```bash)", FOR_A_GPU),
    ("on-a-gpu.md", r"the environment of `make lab`", "the environment that the `README.md` makes"),
    ("on-a-gpu.md", r"^\*\*The tests\.\*\* .*?(?=^\*\*The data)", ""),
    ("on-a-gpu.md", r" `python tests/[^`]*` measures [^.]*\.", ""),
    ("on-a-gpu.md", r"^\*\*Sending them back\.\*\* .*?(?=^## )", RECORDS),
    ("reproductions.md", r"; `make records` makes [^.]*\.", "."),
    ("07-training-on-a-laptop.ipynb", r", which `make records` makes anew; under each", "; under each"),
    ("10-cifar-10.ipynb", r'^ *"python tests/benchmarks/[^"]*",\n', ""),
)
"""What a page says of commands that only the repository has: the file, the sentence, and what stands there in an archive."""


def copy_source(folder: Path) -> Path:
    """The book's source in a folder of its own, where its extensions find all they read; returns the copy's `book`."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(BOOK, folder / "book", ignore=shutil.ignore_patterns("_build", "__pycache__", ".ipynb_checkpoints"))
    for name in ("pyproject.toml", "CITATION.cff"):
        shutil.copy2(BOOK.parent / name, folder)
    for name, pattern, by in WITHOUT_REPOSITORY:
        page = folder / "book" / name
        page.write_text(_replaced(name, page.read_text(), pattern, by))
    return folder / "book"


def student_source(folder: Path) -> Path:
    """A copy without solutions and without what is for teachers."""
    book = copy_source(folder)
    for path in notebooks():
        notebook = nbformat.read(book / path.name, as_version=4)
        notebook.cells, _ = split(notebook.cells)
        named(notebook.cells)
        nbformat.write(notebook, book / path.name)
    for name in FOR_TEACHERS:
        for path in (book / "course").glob(name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    _change_contents(book, [{"file": "course/project"}])
    index = book / "index.md"
    text = _replaced(index.name, index.read_text(), r", with solutions\.", ".")
    index.write_text(_replaced(index.name, text, r"\[([^\]]*)\]\(course/README\.md\)", r"\1"))
    # the project's address leads to the solutions: no button goes there
    project = folder / "pyproject.toml"
    project.write_text(re.sub(r"^Repository *=.*\n", "", project.read_text(), flags=re.MULTILINE))
    return book


def instructor_source(folder: Path) -> Path:
    """A copy with open solutions and the quizzes' answers."""
    book = copy_source(folder)
    for path in notebooks():
        notebook = nbformat.read(book / path.name, as_version=4)
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


def _replaced(name: str, text: str, pattern: str, by: str) -> str:
    """ValueError if what is to be replaced is not there: the sentence has changed, and the edition would say what is not so."""
    changed, times = re.subn(pattern, by, text, flags=re.MULTILINE | re.DOTALL)
    if times != 1:
        raise ValueError(f"{pattern!r} is to be replaced in the book's {name}, and is there {times} times")
    return changed
