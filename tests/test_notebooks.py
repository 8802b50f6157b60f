"""The notebooks as files; nbval, started beside this by `make test`, runs them and compares what they print."""

import json
import re
import subprocess
import sys

import nbformat
import pytest
from conftest import BOOK, CHAPTERS, NOTEBOOKS

from jfb_tutorial.pages.claims import MIME_TYPE

sys.path.insert(0, str(BOOK / "_ext"))

import chapters

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
every_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@every_notebook
def test_committed_executed_and_tidy(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    assert [cell.id for cell in notebook.cells] == [f"cell-{number:02d}" for number in range(len(notebook.cells))]
    assert [cell.execution_count for cell in code_cells(path)] == list(range(1, len(code_cells(path)) + 1))
    for cell in code_cells(path):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text
            text = json.dumps(output)
            assert not re.search(r"(?<![A-Za-z0-9+/])0x[0-9a-f]{6,}|/(home|root|tmp|work|Users)/", text), text[:200]
            if "image/png" in output.get("data", {}):
                assert len(output.metadata["image/png"]["alt"]) >= 20


@every_notebook
def test_every_picture_has_a_name_and_a_caption(path):
    for cell in code_cells(path):
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            figure = cell.metadata.get("mystnb", {}).get("figure", {})
            assert re.fullmatch(rf"fig-{path.stem[:2]}-[a-z0-9-]+", figure.get("name", "")), cell.source
            assert len(figure.get("caption", "")) >= 20, cell.source


@every_notebook
def test_every_picture_has_a_printed_number(path):
    # pictures are not compared, but their words are: a drawing of data says a number of its curve
    for cell in code_cells(path):
        pictures = any("image/png" in output.get("data", {}) for output in cell.outputs)
        if pictures and re.search(r"\.(plot|semilogy|loglog|scatter|imshow)\(", cell.source):
            described = [output.data["text/plain"] for output in cell.outputs if "image/png" in output.get("data", {})]
            assert all(re.search(r"\d\.\d", alt) for alt in described), cell.source
            assert re.search(r'alt=.*f"', cell.source, re.DOTALL), "the number is to be computed, not typed"


@every_notebook
def test_claims_have_names_of_their_own_and_say_something(path):
    claims = [
        output.data[MIME_TYPE]
        for cell in code_cells(path)
        for output in cell.outputs
        if MIME_TYPE in output.get("data", {})
    ]
    names = [claim["identifier"] for claim in claims]
    assert len(names) == len(set(names))
    # a guide need not claim anything
    assert names or path not in CHAPTERS
    for claim in claims:
        assert claim["verdict"] in ("holds", "fails"), f"{claim['identifier']}: a hypothesis fails"
        # what is said to fail without a hypothesis does fail
        assert not any(check["holds"] for check in claim["dropped"]), claim["identifier"]


def test_an_appendix_has_its_claims_in_the_ledger_too():
    """The ledger is collected from all notebooks, and links to the page that a claim is on."""
    appendix = BOOK / "reading-closely.ipynb"
    assert appendix in chapters.notebooks()
    assert appendix not in CHAPTERS
    assert {"jfb-eq-83", "jfb-equation-19", "jfb-equation-60"} <= {c["identifier"] for c in chapters.claims(appendix)}


@every_chapter
def test_every_exercise_has_a_folded_solution_with_code_that_runs(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    exercises = re.findall(r":::\{exercise\}.*\n:label: (\S+)", text)
    solutions = re.findall(r"\{solution-start\} (\S+)\n:class: dropdown", text)
    assert exercises == solutions
    assert len(exercises) >= 3
    assert text.count("{solution-end}") == len(solutions)


RESET = """# as in a kernel that has just started
%reset -f
import matplotlib, torch
torch.set_default_dtype(torch.float32)
matplotlib.rcdefaults()"""


def texts(cell):
    """What a cell prints, and the plain form of what it shows, each with the name under which it is stored."""
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            yield output, "text"
        elif "text/plain" in output.get("data", {}):
            yield output.data, "text/plain"


def up_to_a_changed_digit(path):
    """The cells of a notebook up to the first that says a number, and in that one the number's last digit changed."""
    cells = nbformat.read(path, as_version=4).cells
    for position, cell in enumerate(cells):
        for holder, name in texts(cell):
            if number := re.search(r"\d\.\d+", holder[name]):
                text, last = holder[name], number.end() - 1
                holder[name] = text[:last] + str((int(text[last]) + 1) % 10) + text[last + 1 :]
                return [cell for cell in cells[: position + 1] if cell.cell_type == "code"]
    raise AssertionError(f"{path.name} says no number")


def test_nbval_sees_one_changed_digit(tmp_path):
    """Change the last digit of each notebook's first number, and the strict run fails in those cells alone.

    The beginnings of the notebooks are one notebook here: a kernel and its imports take longer than all their cells.
    """
    changed, fails = nbformat.v4.new_notebook(), []
    for path in NOTEBOOKS:
        changed.cells += [nbformat.v4.new_code_cell(RESET, execution_count=1), *up_to_a_changed_digit(path)]
        fails.append(f"changed.ipynb::Cell {len(changed.cells) - 1}")
    for position, cell in enumerate(changed.cells):
        cell.id = f"cell-{position}"
    nbformat.write(changed, tmp_path / "changed.ipynb")
    for name in ("records", "timings", "runs.py"):  # what notebooks read from where they are
        (tmp_path / name).symlink_to(BOOK / name)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "--nbval-current-env",
        "-p",
        "no:cacheprovider",
        "--color=no",
        "-rf",
    ]
    run = subprocess.run([*command, "changed.ipynb"], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 1, run.stdout
    assert re.findall(r"^FAILED (.*?) - ", run.stdout, re.MULTILINE) == fails, run.stdout
