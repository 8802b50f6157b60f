"""The chapters as a reader uses them: `editions.py work|plain|student|instructor [FOLDER]`. Generated, and never committed.

work        for JupyterLab, into work/: folded code is folded, citations, references and times are resolved, each exercise has a
            cell for the answer, and its solution is in solutions/. A chapter that the reader has changed is left as it is.
plain       for Colab, VS Code and a code host, into book/_build/plain/: a first cell sets up what is missing, and a chapter runs
            alone in an empty folder.
student     as work, without solutions; instructor: each solution is folded below its exercise. `course.py` calls for both,
            and the package lies beside the chapters, so that they run where nothing of the book is installed.
"""

import base64
import hashlib
import json
import shutil
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import jfb_tutorial
import nbformat
from nbformat import NotebookNode
from nbformat.sign import NotebookNotary
from nbformat.v4 import new_code_cell, new_markdown_cell

from chapter_cells import answer_cell, assembled, fold, named, render, renderer_of
from chapters import BOOK, chapter_time, notebooks, repository, title
from plain_markdown import Renderer

READ = ("records", "timings", "images", "runs.py")
"""What chapters read beside themselves."""

# both JupyterLab and Colab fold what follows a heading that is marked so, up to the next heading
FOLDED_HEADING = {"jp-MarkdownHeadingCollapsed": True, "collapsed": True}


# Work


def work(folder: Path) -> None:
    """Write or renew the chapters in `folder`, and a page to start from; what the reader has changed stays."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "solutions").mkdir(exist_ok=True)
    _copy_what_chapters_read(folder)
    ledger = folder / ".as-written.json"
    digests = json.loads(ledger.read_text()) if ledger.exists() else {}
    for path in notebooks():
        chapter, solutions = work_edition(path)
        _renew(folder / path.name, chapter, digests)
        if solutions is not None:
            _renew(folder / "solutions" / path.name, solutions, digests)
    _renew(folder / "start.ipynb", _start(), digests)
    ledger.write_text(json.dumps(digests, indent=1))


def work_edition(path: Path) -> tuple[NotebookNode, NotebookNode | None]:
    """A chapter for JupyterLab, and the notebook of its solutions; None if it has no exercises."""
    solved: list[tuple[str, list[NotebookNode]]] = []

    def answer(cell: NotebookNode, label: str, solution: list[NotebookNode]) -> list[NotebookNode]:
        solved.append((cell.source.partition("\n")[0].lstrip("# "), solution))
        cell.source += f"\n\n[Solution](solutions/{path.name})"
        return [answer_cell(label)]

    notebook = assembled(path, renderer_of(path, fragments=True), answer)
    return notebook, _solutions(path, solved) if solved else None


def _solutions(path: Path, solved: list[tuple[str, list[NotebookNode]]]) -> NotebookNode:
    """All solutions of a chapter, each under a folded heading."""
    renderer = renderer_of(path, fragments=True, up="../")
    cells = [
        new_markdown_cell(
            f"# Solutions: {title(path)}\n\nEach is folded; the arrow beside its heading opens it. They use names of "
            f"[the chapter](../{path.name}): to run their code, run the next cell first, which runs the chapter."
        ),
        new_code_cell(RUN_THE_CHAPTER.format(path.name), metadata={"jupyter": {"source_hidden": True}}),
    ]
    for heading, solution in solved:
        folded = {"jp-MarkdownHeadingCollapsed": True}
        cells += [new_markdown_cell(f"## {heading}", metadata=folded), *render(renderer, solution)]
    notebook = nbformat.v4.new_notebook(cells=named(cells))
    notebook.metadata = nbformat.read(path, as_version=4).metadata
    return notebook


RUN_THE_CHAPTER = """\
# Run the chapter, whose names the solutions use
import os

if os.path.basename(os.getcwd()) == "solutions":
    os.chdir("..")  # where the chapter finds its records
%run {}"""


def _start() -> NotebookNode:
    """The page to start from."""
    lines = [
        "# Where to start",
        "",
        "Shift+Enter runs a cell and goes to the next. Folded code opens with a click on its line; pictures that answer to the mouse are"
        " alive already. These copies are yours: change what you like, nothing here is overwritten once you have.",
        "",
        "| Chapter | Time |",
        "|---|---|",
    ]
    lines += [f"| [{title(path)}]({path.name}) | {chapter_time(path.stem)} |" for path in notebooks()]
    notebook = nbformat.v4.new_notebook(cells=named([new_markdown_cell("\n".join(lines))]))
    notebook.metadata = nbformat.read(notebooks()[0], as_version=4).metadata
    return notebook


def _renew(target: Path, notebook: NotebookNode, digests: dict[str, str]) -> None:
    """Write a notebook unless the reader has changed the one that is there; trust what is ours."""
    name = target.relative_to(target.parents[1] if target.parent.name == "solutions" else target.parent).as_posix()
    digest = _digest(notebook)
    present = _digest(nbformat.read(target, as_version=4)) if target.exists() else None
    if present not in (None, digests.get(name)):
        if digest != digests.get(name):
            fresh = target.with_suffix(".new.ipynb")
            _write(fresh, notebook)
            print(f"{name}: you have changed it, and so has the book; yours stays, the book's is {fresh.name}")
            digests[name] = digest
        return
    # as it is: the reader's outputs stay with it
    if present != digest:
        _write(target, notebook)
        digests[name] = digest


def _digest(notebook: NotebookNode) -> str:
    """Of what is written in the cells, not of what running them leaves."""
    text = json.dumps([[cell.cell_type, cell.source] for cell in notebook.cells])
    return hashlib.sha256(text.encode()).hexdigest()


def _write(path: Path, notebook: NotebookNode) -> None:
    nbformat.write(notebook, path)
    # trusted, so that explorers, which are scripts in stored outputs, are alive on opening
    NotebookNotary().sign(nbformat.read(path, as_version=4))


def _copy_what_chapters_read(folder: Path) -> None:
    for name in READ:
        source = BOOK / name
        if source.is_dir():
            shutil.copytree(source, folder / name, dirs_exist_ok=True)
        else:
            shutil.copy2(source, folder / name)


# Plain


SET_UP = """\
# Set up: install what is missing, never another PyTorch, and fetch what this chapter reads
import importlib.util, os, subprocess, sys

needed = {{"tqdm": "tqdm", "sklearn": "scikit-learn", "safetensors": "safetensors", "matplotlib": "matplotlib", "scipy": "scipy",
          "ipywidgets": "ipywidgets", "sympy": "sympy", "mpmath": "mpmath", "torchvision": "torchvision", "torch": "torch",
          "torchdiffeq": "torchdiffeq"}}
missing = [package for module, package in needed.items() if importlib.util.find_spec(module) is None]
if missing:
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", *missing])
if not os.path.isdir("records"):
    if not os.path.isdir("jfb-book"):
        subprocess.check_call(["git", "clone", "-q", "--depth", "1", "{repository}", "jfb-book"])
    os.chdir("jfb-book/book")
    sys.path.insert(0, os.path.abspath(".."))  # the package, without installing it"""


def plain(folder: Path, address: str) -> None:
    """Write the chapters for a host that knows nothing of this book.

    Raises:
        ValueError: there is no address to fetch the package from.
    """
    if not address:
        raise ValueError(
            "the plain edition fetches the package, but the project has no public address; give one: make plain "
            "REPOSITORY=https://… , or set Repository under [project.urls] in pyproject.toml"
        )
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(BOOK / "images", folder / "images", dirs_exist_ok=True)
    # for Binder, which makes an environment of what lies beside the notebooks
    environment = (BOOK.parent / "environment.yml").read_text()
    (folder / "environment.yml").write_text(
        environment.replace("-e .[notebooks]", f"jfb_tutorial[notebooks] @ git+{address}")
    )
    for path in notebooks():
        nbformat.write(plain_edition(path, address), folder / path.name)


def plain_edition(path: Path, address: str) -> NotebookNode:
    """A chapter without directives and roles, that sets itself up."""
    renderer = renderer_of(path, fragments=False, dollars=True)
    notebook = assembled(path, renderer, lambda cell, label, solution: _folded(renderer, solution))
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.metadata["cellView"] = "form"  # as Colab knows it
    set_up = new_code_cell(SET_UP.format(repository=address), metadata={"tags": ["set-up"]})
    notebook.cells = named([notebook.cells[0], set_up, *notebook.cells[1:]])
    return notebook


def _folded(renderer: Renderer, solution: list[NotebookNode]) -> list[NotebookNode]:
    """A solution below its exercise, under a folded heading."""
    if not solution:
        return []
    for cell in solution:
        fold(cell)
    return [new_markdown_cell("#### Solution", metadata=FOLDED_HEADING), *render(renderer, solution)]


# Student and instructor


def student_edition(path: Path) -> NotebookNode:
    """A chapter for JupyterLab with a cell for each answer, and no solution anywhere."""
    return assembled(path, renderer_of(path, fragments=True), lambda cell, label, solution: [answer_cell(label)])


def instructor_edition(path: Path) -> NotebookNode:
    """The same, with each solution folded below the cell for the answer."""
    renderer = renderer_of(path, fragments=True)
    return assembled(path, renderer, lambda cell, label, solution: [answer_cell(label), *_folded(renderer, solution)])


def handed_out(folder: Path, edition: Callable[[Path], NotebookNode]) -> None:
    """Write the chapters in an edition, and all that they need beside PyTorch and its like."""
    folder.mkdir(parents=True, exist_ok=True)
    _copy_what_chapters_read(folder)
    package = Path(jfb_tutorial.__file__).parent
    shutil.copytree(package, folder / package.name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path in notebooks():
        _write(folder / path.name, edition(path))
    _write(folder / "start.ipynb", _start())


def pack(folder: Path) -> None:
    """Make modules that no one reads by the way: the checks of the exercises know the answers. Who wants to can unpack them."""
    for path in folder.glob("*.py"):
        packed = base64.b85encode(zlib.compress(path.read_bytes(), 9)).decode()
        path.write_text(PACKED.format(packed))


PACKED = """\
# Packed, so that nobody reads an answer by the way
import base64, zlib
exec(compile(zlib.decompress(base64.b85decode({!r})), __file__, "exec"))
"""


def main(arguments: list[str]) -> int:
    """Make one of the editions."""
    kind, *rest = arguments or [""]
    if kind == "work":
        work(Path(rest[0]) if rest else BOOK.parent / "work")
    elif kind == "plain":
        plain(BOOK / "_build" / "plain", rest[0] if rest else repository())
    elif kind == "student" and rest:
        handed_out(Path(rest[0]), student_edition)
        pack(Path(rest[0]) / "jfb_tutorial" / "pages" / "exercises")
    elif kind == "instructor" and rest:
        handed_out(Path(rest[0]), instructor_edition)
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
