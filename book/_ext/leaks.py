"""What stands in the solutions and nowhere else in the book, and where it is found: in nothing that students are given.

A solution is known by its runs of six words, in prose, code and outputs alike; by the words that it alone has, which an index for
the search would give away; and by its pictures.
"""

import base64
import hashlib
import html
import io
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jfb_tutorial
import nbformat
from nbformat import NotebookNode
from sphinx.search.en import SearchEnglish

from chapter_cells import answer_cell, split
from chapters import BOOK, notebooks

RUN = 6
CHARACTERS = 12  # a shorter run, 0 0 1 0 2 0, is in any table
PACKAGE = Path(jfb_tutorial.__file__).parent

_ESCAPED = re.compile(r"\\(u003c|.)", re.DOTALL)
_ESCAPES = {"u003c": "<", "n": " ", "r": " ", "t": " "}
_INLINE = re.compile(r"</?(?:span|code|em|strong|b|i|sup|sub)\b[^>]*>")
_SCRIPT = re.compile(r"<(script|style)\b.*?</\1>", re.DOTALL)
_MARKUP = re.compile(r"^[`:]{3,}.*$|^:[\w-]+:.*$|\{[\w:-]+\}`[^`]*`|\]\([^)]*\)", re.MULTILINE)
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of a text, code or page, as they are read: without the markup of HTML, but with what stands in its attributes."""
    return _WORD.findall(html.unescape(_INLINE.sub("", text)))


def unescaped(text: str) -> str:
    r"""What stands in the strings of JSON or JavaScript: a break for \n, and \tanh for \\tanh."""
    return _ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[1]), text)


def runs(text: Iterable[str]) -> set[tuple[str, ...]]:
    """Every six words that follow each other."""
    every = list(text)
    return set(zip(*(every[begin:] for begin in range(RUN)), strict=False))


def said(cell: NotebookNode) -> Iterator[str]:
    """The pieces of text of a cell: what is written in it, and what running it has left."""
    # a role becomes something else on the page, and a link's address is not read
    yield from _MARKUP.split(cell.source) if cell.cell_type == "markdown" else [cell.source]
    for output in cell.get("outputs", []):
        yield output.get("text", "")
        for kind in ("text/plain", "text/html"):
            yield _SCRIPT.sub("", output.get("data", {}).get(kind, ""))


def pictures(cell: NotebookNode) -> Iterator[str]:
    """The pictures of a cell, in base 64."""
    for output in cell.get("outputs", []):
        if picture := output.get("data", {}).get("image/png"):
            yield picture.strip()


@dataclass(frozen=True)
class Told:
    """What the solutions alone say; each dictionary gives the label of the exercise."""

    runs: dict[tuple[str, ...], str]
    words: dict[str, str]
    pictures: dict[str, str]
    """By the digests of their files."""

    def labels(self) -> dict[str, set[str]]:
        """The exercises, and what is known of each of their solutions: "runs", "words", "pictures"."""
        known: dict[str, set[str]] = defaultdict(set)
        for kind in ("runs", "words", "pictures"):
            for label in getattr(self, kind).values():
                known[label].add(kind)
        return dict(known)


def told_by_solutions() -> Told:
    """What stands in the solutions of the book, and neither in the rest of it nor in the package."""
    outside_runs: set[tuple[str, ...]] = set()
    outside_words: set[str] = set()
    solutions: dict[str, list[NotebookNode]] = {}

    def know(text: str) -> None:
        outside_runs.update(runs(words(text)))
        outside_words.update(words(text))

    for path in notebooks():
        cells, own = split(nbformat.read(path, as_version=4).cells)
        solutions |= own
        for label in own:
            know(answer_cell(label).source)  # which names what is asked for
        for cell in cells:
            for text in (cell.source, *said(cell)):
                know(text)
    for folder, kinds in (
        (BOOK, ("*.md", "*.bib", "course/project.md", "course/quiz/*.yml")),
        (PACKAGE, ("**/*.py", "**/*.js")),
    ):
        for kind in kinds:
            for path in sorted(folder.glob(kind)):
                # the checks know the answers, and are not to have them from a solution word for word
                if path.parent != PACKAGE / "pages" / "exercises":
                    know(path.read_text())
    stem = SearchEnglish({}).stem
    outside_stems = {stem(word.lower()) for word in outside_words}
    told = Told({}, {}, {})
    for label, cells in solutions.items():
        for cell in cells:
            for text in said(cell):
                own_words = words(text)
                own_runs = {run for run in runs(own_words) - outside_runs if len("".join(run)) >= CHARACTERS}
                told.runs.update(dict.fromkeys(own_runs, label))
                for word in own_words:
                    if re.fullmatch(r"[a-zA-Z_]\w{5,}", word) and stem(word.lower()) not in outside_stems:
                        told.words.update(dict.fromkeys((word, word.lower(), stem(word.lower())), label))
            for picture in pictures(cell):
                told.pictures[_digest(base64.b64decode(picture))] = label
    return told


def found_in(path: Path, told: Told) -> Iterator[tuple[str, str, str]]:
    """What of the solutions is in a file, a folder or an archive: the file, the exercise, and the words."""
    for name, data in _files(path):
        digest = _digest(data)
        if digest in told.pictures:
            yield name, told.pictures[digest], "its picture"
        try:
            text = data.decode()
        except UnicodeDecodeError:
            continue
        for picture in re.findall(r'"image/png": ?"([\w+/=]+)', text):
            if (digest := _digest(base64.b64decode(picture))) in told.pictures:
                yield name, told.pictures[digest], "its picture"
        every = words(unescaped(text) if name.endswith((".ipynb", ".js", ".json")) else text)
        for run in runs(every) & told.runs.keys():
            yield name, told.runs[run], " ".join(run)
        # a script of the theme or of MathJax has any word
        if name.endswith((".html", ".ipynb", "searchindex.js")):
            for word in set(every) & told.words.keys():
                yield name, told.words[word], word


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """The files of a folder, and those in its archives."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            yield from _unpacked(str(file.relative_to(path)) if file != path else file.name, file.read_bytes())


def _unpacked(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield from _unpacked(f"{name}/{member}", archive.read(member))
    else:
        yield name, data


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
