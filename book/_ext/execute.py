"""Run the notebooks again, in place: `execute.py [NOTEBOOK …]`, all of them by default.

What is stored stays the same as long as the code and the versions do: no times of day, no cell timings, fixed cell ids.
The figures that have a name are drawn as SVG too, into `book/figures`, for lecturers.
The seconds that each notebook took go to `book/_run_times.json`, with what they were measured on.
"""

import datetime
import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import nbformat
from jfb_tutorial.pages.figures import DRAWINGS
from jfb_tutorial.training.records import commit
from nbclient import NotebookClient

from chapters import BOOK, RUN_TIMES, figures, notebooks

FIGURES = BOOK / "figures"
LARGEST = 300_000
"""Bytes of an SVG; a larger one is a photograph in disguise, and lecturers take its PNG."""


def main(names: list[str]) -> None:
    os.environ[DRAWINGS] = "svg"  # the kernel has what we have
    paths = [Path(name).resolve() for name in names] or notebooks()
    record = json.loads(RUN_TIMES.read_text()) if RUN_TIMES.exists() else {}
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        for number, cell in enumerate(notebook.cells):
            cell.id = f"cell-{number:02d}"
        begin = time.perf_counter()
        # the kernel runs without a graphical backend and in the notebook's folder, as nbval's does
        client = NotebookClient(
            notebook,
            timeout=600,
            record_timing=False,
            resources={"metadata": {"path": BOOK}},
        )
        client.execute()
        seconds = time.perf_counter() - begin
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = merge(cell.outputs)
        save_drawings(notebook.cells, FIGURES)
        # the kernel has written its Python's version here
        notebook.metadata = {
            "kernelspec": {
                "display_name": "Python 3",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        }
        nbformat.write(notebook, path)
        record[path.stem] = {"seconds": round(seconds, 1), **provenance()}
        print(f"{path.name}: {seconds:.1f} s")
    remove_drawings_but({figure.name for path in notebooks() for figure in figures(path)}, FIGURES)
    RUN_TIMES.write_text(json.dumps(dict(sorted(record.items())), indent=1) + "\n")


def merge(outputs: list) -> list:
    """What a cell prints in one piece, however the kernel cut it up."""
    merged = []
    for output in outputs:
        # the state of widgets is not stored: without a kernel their words are what there is to show
        output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
        if merged and output.output_type == merged[-1].output_type == "stream" and output.name == merged[-1].name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def save_drawings(cells: list, folder: Path) -> None:
    """Take the SVGs out of the outputs, for what is stored is PNG, and write those of figures that have a name."""
    folder.mkdir(exist_ok=True)
    for cell in cells:
        name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        for output in cell.get("outputs", []):
            svg = output.get("data", {}).pop("image/svg+xml", "")
            if svg and name and len(svg) <= LARGEST:
                (folder / f"{name}.svg").write_text(svg)
            elif svg and name:
                (folder / f"{name}.svg").unlink(missing_ok=True)


def remove_drawings_but(names: set[str], folder: Path) -> None:
    """Remove those of figures that are no longer in the book."""
    for path in folder.glob("*.svg"):
        if path.stem not in names:
            path.unlink()


def provenance() -> dict:
    """What a measurement was made on, with and when."""
    return {
        "device": f"{os.cpu_count()} CPU cores",
        "versions": {
            "Python": platform.python_version(),
            "torch": version("torch"),
        },
        "date": datetime.date.today().isoformat(),
        "commit": commit(BOOK.parent),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
