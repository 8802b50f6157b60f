"""The chapters as a reader uses them: `editions.py work|plain [FOLDER]`. Generated, and never committed.

work    for JupyterLab, into work/: folded code is folded, citations, references and times are resolved, each exercise has a cell
        for the answer, and its solution is in solutions/. A chapter that the reader has changed is left as it is.
plain   for Colab, VS Code and a code host, into book/_build/plain/: a first cell sets up what is missing, and a chapter runs
        alone in an empty folder.
"""

import copy
import hashlib
import json
import re
import shutil
import sys
import unicodedata
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.sign import NotebookNotary
from nbformat.v4 import new_code_cell, new_markdown_cell
from pybtex.database import BibliographyData, Entry, parse_file
from pybtex.richtext import Text

import quizzes
from chapters import BOOK, chapter_time, figures, named_values, notebooks, repository, title
from plain_markdown import Renderer
from references import Links

READ = ("records", "timings", "images", "runs.py")
"""What chapters read beside themselves."""

_SOLUTION = re.compile(
    r"^(`{3,}|:{3,})\{solution-(?P<which>start|end)\}[ ]*(?P<label>\S*)[^\n]*\n(?::[^\n]*\n)*\1[ ]*$", re.MULTILINE
)
_WORDS = re.compile(r"(?P<words>.*?)\s*<(?P<target>[^<>]+)>", re.DOTALL)
_FOLDED = {"hide-input", "remove-input"}


# What the roles of the text stand for


def roles(path: Path) -> dict:
    """For each role of a chapter, what makes Markdown of its text."""
    numbers = named_values(path)
    bibliography = parse_file(BOOK / "references.bib", "bibtex")
    return {
        "cite": lambda keys: _citation(bibliography, keys),
        "chapter-time": chapter_time,
        "glue:text": lambda name: numbers[name],
        "ref": _reference_to,
        "prf:ref": _reference_to,
        "numref": _reference_to_figure,
    }


def _reference_to(text: str) -> str:
    """A link: `words <target>`, or a target alone, whose section then gives the words."""
    found = _WORDS.fullmatch(text)
    return f"[{found['words']}](#{found['target']})" if found else f"[](#{text})"


def _reference_to_figure(text: str) -> str:
    found = _WORDS.fullmatch(text)
    name = found["target"] if found else text
    numbers = {figure.name: figure.number for path in notebooks() for figure in figures(path)}
    if name not in numbers:
        raise ValueError(
            f"{{numref}}`{text}` names no figure of the book; its figures are {', '.join(numbers) or 'none'}"
        )
    words = found["words"].replace("%s", "{number}") if found else "Figure {number}"
    return f"[{words.replace('{number}', numbers[name])}](#{name})"


def _citation(bibliography: BibliographyData, keys: str) -> str:
    return "[" + "; ".join(_work_cited(bibliography.entries[key.strip()]) for key in keys.split(",")) + "]"


def _work_cited(entry: Entry) -> str:
    """Authors and year, linked to the work where the bibliography has an address."""
    names = [_plain(" ".join(person.prelast_names + person.last_names)) for person in entry.persons["author"]]
    who = names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else f"{names[0]} et al."
    text, fields = f"{who}, {entry.fields['year']}", entry.fields
    address = f"https://doi.org/{fields['doi']}" if "doi" in fields else fields.get("url")
    return f"[{text}]({address})" if address else text


def _plain(latex: str) -> str:
    return unicodedata.normalize("NFC", str(Text.from_latex(latex)))


# A chapter taken apart: its cells, and the solutions


def _split(cells: list[NotebookNode]) -> tuple[list[NotebookNode], dict[str, list[NotebookNode]]]:
    """The cells without the solutions, and those of each solution by its label."""
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
    return chapter, solutions


def _add_text(cells: list[NotebookNode], text: str) -> None:
    # an exercise gets a cell of its own, so that a cell for the answer can follow it
    for part in re.split(r"(?=^:{3,}\{exercise\})", text, flags=re.MULTILINE):
        if part.strip():
            cells.append(new_markdown_cell(part.strip()))


def _label(text: str) -> str | None:
    """The label of the exercise that a cell holds."""
    found = re.search(r"^:{3,}\{exercise\}.*?^:label: (\S+)$", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else None


def _captioned(path: Path, cells: list[NotebookNode]) -> list[NotebookNode]:
    """The cells of a chapter, each that draws a figure followed by its number and caption."""
    captions = {figure.cell: f"*Figure {figure.number}.* {figure.caption}" for figure in figures(path)}
    every: list[NotebookNode] = []
    for position, cell in enumerate(cells):
        every.append(cell)
        if cell.cell_type == "code" and position in captions:
            every.append(new_markdown_cell(captions[position]))
    return every


def _render(renderer: Renderer, cells: list[NotebookNode]) -> None:
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = renderer.render(cell.source)


def _fold(cell: NotebookNode) -> None:
    """As JupyterLab and VS Code know it."""
    if _FOLDED & set(cell.metadata.get("tags", [])):
        cell.metadata["jupyter"] = {"source_hidden": True}


def _renderer(path: Path, *, fragments: bool, up: str = "", dollars: bool = False) -> Renderer:
    number = re.match(r"(\d+)-", path.name)
    return Renderer(
        number[1] if number else "",
        roles(path),
        dollars=dollars,
        links=Links(path.name, fragments=fragments, up=up),
        quiz=lambda: quizzes.as_markdown(path.stem),
        figures={figure.name: figure.number for figure in figures(path)},
    )


def _named(cells: list[NotebookNode]) -> list[NotebookNode]:
    """With identifiers that stay the same, so that a chapter generated again is the same file."""
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number:02d}"
    return cells


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
    notebook = nbformat.read(path, as_version=4)
    cells, solutions = _split(_captioned(path, notebook.cells))
    renderer = _renderer(path, fragments=True)
    chapter: list[NotebookNode] = []
    order: list[tuple[str, str]] = []
    for cell in cells:
        label = _label(cell.source) if cell.cell_type == "markdown" else None
        _render(renderer, [cell])
        _fold(cell)
        chapter.append(cell)
        if label:
            heading = cell.source.partition("\n")[0].lstrip("# ")
            order.append((label, heading))
            cell.source += f"\n\n[Solution](solutions/{path.name})"
            chapter.append(new_code_cell("# your answer\n"))
    notebook.cells = _named(chapter)
    return notebook, _solutions(path, order, solutions) if order else None


def _solutions(path: Path, order: list[tuple[str, str]], solutions: dict[str, list[NotebookNode]]) -> NotebookNode:
    """All solutions of a chapter, each under a folded heading."""
    renderer = _renderer(path, fragments=True, up="../")
    cells = [
        new_markdown_cell(
            f"# Solutions: {title(path)}\n\nEach is folded; the arrow beside its heading opens it. They use names of "
            f"[the chapter](../{path.name}): to run their code, run the next cell first, which runs the chapter."
        ),
        new_code_cell(RUN_THE_CHAPTER.format(path.name), metadata={"jupyter": {"source_hidden": True}}),
    ]
    for label, heading in order:
        own = copy.deepcopy(solutions.get(label, []))
        _render(renderer, own)
        # JupyterLab folds all that follows up to the next heading
        cells.append(new_markdown_cell(f"## {heading}", metadata={"jp-MarkdownHeadingCollapsed": True}))
        cells += own
    notebook = nbformat.v4.new_notebook(cells=_named(cells))
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
    notebook = nbformat.v4.new_notebook(cells=_named([new_markdown_cell("\n".join(lines))]))
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
    notebook = nbformat.read(path, as_version=4)
    cells, solutions = _split(_captioned(path, notebook.cells))
    renderer = _renderer(path, fragments=False, dollars=True)
    ordered: list[NotebookNode] = []
    for cell in cells:
        label = _label(cell.source) if cell.cell_type == "markdown" else None
        _render(renderer, [cell])
        ordered.append(cell)
        if label and label in solutions:
            _render(renderer, solutions[label])
            # both hosts fold what follows a heading that is marked so
            folded = {"jp-MarkdownHeadingCollapsed": True, "collapsed": True}
            ordered += [new_markdown_cell("#### Solution", metadata=folded), *solutions[label]]
    for cell in ordered:
        _fold(cell)
        if cell.cell_type == "code" and cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.metadata["cellView"] = "form"  # as Colab knows it
    set_up = new_code_cell(SET_UP.format(repository=address), metadata={"tags": ["set-up"]})
    notebook.cells = _named([ordered[0], set_up, *ordered[1:]])
    return notebook


def main(arguments: list[str]) -> int:
    kind, *rest = arguments or [""]
    if kind == "work":
        work(Path(rest[0]) if rest else BOOK.parent / "work")
    elif kind == "plain":
        plain(BOOK / "_build" / "plain", rest[0] if rest else repository())
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
