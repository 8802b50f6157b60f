"""What is read out of the chapters: their titles, claims, figures, named values, length and run times. Needs nothing but Python."""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jfb_tutorial.pages.claims import MIME_TYPE as CLAIM
from jfb_tutorial.pages.values import PREFIX

BOOK = Path(__file__).resolve().parent.parent
RUN_TIMES = BOOK / "_run_times.json"
WORDS_A_MINUTE = 100  # reading with a pencil: formulas, figures, a look at the code


def _project() -> dict:
    return tomllib.loads((BOOK.parent / "pyproject.toml").read_text())["project"]


def repository() -> str:
    """The project's public address, or nothing while it is not known."""
    return _project().get("urls", {}).get("Repository", "").rstrip("/")


def version() -> str:
    """The version of the package, and of the book with it."""
    return _project()["version"]


def notebooks() -> list[Path]:
    """The chapters, in order, and the guides after them."""
    return sorted(BOOK.glob("*.ipynb"))


def cells(path: Path) -> list[dict]:
    """The cells of a notebook, to be read and not changed; their sources are lists of lines."""
    return _cells(path, path.stat().st_mtime_ns)


@cache
def _cells(path: Path, changed: int) -> list[dict]:
    # a page of the book asks for each of its numbers, and a notebook has up to two megabytes
    return json.loads(path.read_text())["cells"]


def text(path: Path, kind: str = "markdown") -> str:
    """All that stands in the cells of one kind, "markdown" or "code"."""
    return "\n".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == kind)


def exercises(path: Path) -> dict[str, str]:
    """The titles of a notebook's exercises, by their labels."""
    found = re.findall(r"\{exercise\} (.+)\n:label: (\S+)", text(path))
    return {label: title for title, label in found}


def claims(path: Path) -> list[dict]:
    """The claims that a notebook's stored outputs carry, in order."""
    outputs = [output for cell in cells(path) for output in cell.get("outputs", [])]
    return [output["data"][CLAIM] for output in outputs if CLAIM in output.get("data", {})]


def title(path: Path) -> str:
    """The first heading of a notebook."""
    first = "".join(cells(path)[0]["source"])
    return re.search(r"^# (.+)$", first, re.MULTILINE).group(1)


def verdict(claim: dict) -> str:
    """What was found of a claim: it holds, not always, or in none of its checks; or it says nothing."""
    held = [check["holds"] for check in claim["concluded"]]
    if claim["verdict"] == "fails" and any(held):
        return f"not always: {sum(held)} of {len(held)} checks hold"
    return {"silent": "says nothing"}.get(claim["verdict"], claim["verdict"])


def words(path: Path) -> int:
    """The words of a notebook's prose; what starts folded, solutions and boxes to open, is not counted."""
    prose = text(path)
    # a directive of MyST opens with three or more backticks or colons
    for folded in (
        r"^(`{3,}|:{3,})\{solution-start\}.*?\{solution-end\}",
        r"^(`{3,}|:{3,})\{[\w-]+\}[^\n]*\n(:[^\n]*\n)*:class:[^\n]*dropdown.*?^\1\s*$",
        r"^(`{3,}|:{3,})\{dropdown\}.*?^\1\s*$",
    ):
        prose = re.sub(folded, "", prose, flags=re.MULTILINE | re.DOTALL)
    return len(prose.split())


def chapter_time(text: str) -> str:
    """How long the chapter takes whose number, or name, is the last word of `text`."""
    path = next(path for path in notebooks() if path.stem.startswith(text.split()[-1]))
    run = json.loads(RUN_TIMES.read_text())[path.stem]
    # to ten minutes: nobody reads at a rate
    minutes = round(words(path) / WORDS_A_MINUTE, -1)
    return f"about {minutes:.0f} minutes to read, {run['seconds']:.0f} seconds to run"


def named_values(path: Path) -> dict[str, str]:
    """What the cells of a notebook name for its sentences."""
    outputs = [output for cell in cells(path) for output in cell.get("outputs", [])]
    return {
        output["metadata"]["scrapbook"]["name"]: "".join(output["data"][f"{PREFIX}text/plain"])
        for output in outputs
        if "scrapbook" in output.get("metadata", {})
    }


@dataclass(frozen=True)
class Figure:
    """A picture that has a caption: that of a cell, or of a directive {figure} in the text."""

    name: str
    """What the text calls it by, fig-05-regions; of a directive without a name, its file."""
    number: str
    """As the site counts: 5.3 in a chapter, 3 in a guide."""
    caption: str
    cell: int
    """Its position in the notebook."""
    file: str
    """The picture's file, of a directive; empty for what a cell draws."""


_FIGURE = re.compile(
    r"^(?P<mark>`{3,}|:{3,})\{figure\} *(?P<file>\S+)\n(?P<options>(?::[^\n]*\n)*)(?P<body>.*?)^(?P=mark) *$",
    re.MULTILINE | re.DOTALL,
)


def figures(path: Path) -> list[Figure]:
    """The figures of a notebook, in the order in which they are numbered."""
    chapter = re.match(r"(\d+)-", path.name)
    prefix = f"{int(chapter[1])}." if chapter else ""
    found = [(position, *figure) for position, cell in enumerate(cells(path)) for figure in _captions(cell)]
    return [
        Figure(name, f"{prefix}{number}", caption, position, file)
        for number, (position, name, caption, file) in enumerate(found, 1)
    ]


def _captions(cell: dict) -> Iterator[tuple[str, str, str]]:
    """The name, the caption and the file of each figure of a cell."""
    options = cell["metadata"].get("mystnb", {}).get("figure", {})
    drawn = any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
    # as on the site, where a caption without a picture is none
    if drawn and options.get("caption"):
        yield options.get("name", ""), options["caption"], ""
    if cell["cell_type"] == "markdown":
        for figure in _FIGURE.finditer("".join(cell["source"])):
            name = re.search(r"^:name: *(\S+)", figure["options"], re.MULTILINE)
            if caption := figure["body"].strip():
                yield (name[1] if name else figure["file"]), caption, figure["file"]
