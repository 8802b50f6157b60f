"""What is read out of the chapters: their titles, claims, named values, length and run times. Needs nothing but Python."""

import json
import re
import tomllib
from pathlib import Path

from jfb_tutorial.pages.claims import MIME_TYPE as CLAIM
from jfb_tutorial.pages.values import PREFIX

BOOK = Path(__file__).resolve().parent.parent
RUN_TIMES = BOOK / "_run_times.json"
WORDS_A_MINUTE = 100  # reading with a pencil: formulas, figures, a look at the code


def repository() -> str:
    """The project's public address, or nothing while it is not known."""
    project = tomllib.loads((BOOK.parent / "pyproject.toml").read_text())["project"]
    return project.get("urls", {}).get("Repository", "").rstrip("/")


def notebooks() -> list[Path]:
    """The chapters, in order, and the guides after them."""
    return sorted(BOOK.glob("*.ipynb"))


def cells(path: Path) -> list[dict]:
    """The cells of a notebook; their sources are lists of lines."""
    return json.loads(path.read_text())["cells"]


def claims(path: Path) -> list[dict]:
    """The claims that a notebook's stored outputs carry, in order."""
    outputs = [output for cell in cells(path) for output in cell.get("outputs", [])]
    return [output["data"][CLAIM] for output in outputs if CLAIM in output.get("data", {})]


def title(path: Path) -> str:
    """The first heading of a notebook."""
    first = "".join(cells(path)[0]["source"])
    return re.search(r"^# (.+)$", first, re.MULTILINE).group(1)


def words(path: Path) -> int:
    """The words of a notebook's prose; solutions, which start folded, are not counted."""
    prose = "\n".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "markdown")
    # a directive of MyST opens with three or more backticks or colons
    prose = re.sub(
        r"^(`{3,}|:{3,})\{solution-start\}.*?\{solution-end\}",
        "",
        prose,
        flags=re.MULTILINE | re.DOTALL,
    )
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
