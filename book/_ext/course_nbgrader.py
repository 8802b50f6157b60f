"""The problem sheets as nbgrader has them: a folder of a course, in which `nbgrader autograde ps1` works as it stands.

source/ has each sheet with its solutions and hidden tests, release/ what students get, which nbgrader itself has made of it, with
its gradebook; keys/ has what is expected of each part. A seed draws the numbers.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jfb_tutorial.pages.exercises import sheets
from jfb_tutorial.pages.exercises.recorded import book_file

BESIDE = Path(sys.prefix) / "nbgrader"
"""Where the Makefile puts nbgrader: beside what JupyterLab looks through, whose menus it would change for every reader."""

CONFIGURATION = """\
# How nbgrader is to treat the sheets; it is read in the folder that nbgrader is called in
c = get_config()
c.CourseDirectory.course_id = "jfb"
c.ClearSolutions.code_stub = {"python": ""}  # a sheet has stubs of its own
c.Execute.timeout = 120  # seconds for a cell
"""

README = """\
# The problem sheets, for nbgrader 0.9.6

| Folder | What it is |
|---|---|
| `release/ps1/ps1.ipynb` and so on | for students, to be handed out by nbgrader, or by any other way |
| `source/` | the same with solutions and hidden tests; not for students |
| `keys/` | what is expected of each part, and which mistakes are known |
| `gradebook.db` | nbgrader's, which knows these sheets |

The numbers are those of variant {seed}. `make course NBGRADER=8` draws others.

What students hand in goes to `submitted/NAME/ps1/ps1.ipynb`. Then, in this folder,

    nbgrader autograde ps1
    nbgrader generate_feedback ps1
    nbgrader export

grade it, write what each student is told, and a table of all points. A problem's points are divided evenly among its parts. Students'
code runs with your rights: use an account or a container that was made for it.

Students and graders need the package: the folder `jfb_tutorial` that lies beside the notebooks, in a folder of PYTHONPATH, or installed.
The graders' has to be the book's own or the staff's, and not one that a student has changed.

If you change a sheet in `source/`, `nbgrader generate_assignment ps1` writes its release again.
"""


def source(name: str, seed: int) -> sheets.Notebook:
    """A sheet with its solutions, and a test below each answer, hidden from students, that gives points for parts."""
    made, chosen = sheets.sheet(name, seed), sheets.read(name)
    title, set_up, *rest = made["cells"]
    cells = [_locked(title, "title"), _locked(set_up, "set-up")]
    for problem, question, answer in zip(chosen.problems, rest[::2], rest[1::2], strict=True):
        given = sheets.given(chosen, problem.label, seed)
        cells += [_locked(question, f"{problem.label}-question"), _answered(answer, problem, given)]
        cells.append(_test(problem, given))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number:02d}"
    return made | {"cells": cells}


def _answered(cell: dict[str, Any], problem: sheets.Problem, given: sheets.Given) -> dict[str, Any]:
    """The cell for an answer, with one below the stub; the last line says whether it has the form that is asked for."""
    stub, form = cell["source"].rsplit("\n", 1)
    solution = (
        "### BEGIN SOLUTION\nfrom jfb_tutorial.pages.exercises import exercise\n\n"
        f'answers["{problem.label}"] = exercise("{problem.label}").right({given!r})\n### END SOLUTION'
    )
    return _marked(cell | {"source": f"{stub}\n{solution}\n{form}"}, problem.label, solution=True)


def _test(problem: sheets.Problem, given: sheets.Given) -> dict[str, Any]:
    test = (
        f'# The points of "{problem.title}"; the test is added when you have handed in\n### BEGIN HIDDEN TESTS\n'
        "from jfb_tutorial.pages.exercises import sheets\n\n"
        f'sheets.earned("{problem.label}", answers.get("{problem.label}"), {given!r}, {problem.points:g})\n### END HIDDEN TESTS'
    )
    cell = {"cell_type": "code", "execution_count": None, "outputs": [], "source": test}
    return _marked(cell, f"{problem.label}-test", locked=True, points=problem.points)


def _locked(cell: dict[str, Any], name: str) -> dict[str, Any]:
    return _marked(cell, name, locked=True)


def _marked(
    cell: dict[str, Any], name: str, *, solution: bool = False, locked: bool = False, points: float | None = None
) -> dict[str, Any]:
    """The cell with what nbgrader is to know of it."""
    known = {
        "schema_version": 3,
        "grade_id": name,
        "grade": points is not None,
        "solution": solution,
        "locked": locked,
        "task": False,
    }
    if points is not None:
        known["points"] = points
    return cell | {"metadata": {"nbgrader": known}}


def command() -> tuple[list[str], dict[str, str]]:
    """How nbgrader is called, and its environment.

    Raises:
        FileNotFoundError: it is not installed.
    """
    if not (BESIDE.is_dir() or find_spec("nbgrader")):
        raise FileNotFoundError("nbgrader is not installed; make course NBGRADER=1 installs it, as make test does")
    package = Path(sheets.__file__).parents[3]
    paths = [str(package), *([str(BESIDE)] if BESIDE.is_dir() else []), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    # nbgrader calls alembic by its name
    programs = [str(BESIDE / "bin"), str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    environment["PATH"] = os.pathsep.join(programs)
    return [sys.executable, "-m", "nbgrader"], environment


def run(folder: Path, *arguments: str) -> str:
    """Call nbgrader in a folder; returns what it says.

    Raises:
        RuntimeError: it failed.
    """
    program, environment = command()
    done = subprocess.run(
        [*program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"nbgrader {' '.join(arguments)} failed\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def export(folder: Path, seed: int) -> None:
    """Write the course's folder, each sheet with its source, its release and its key."""
    (folder / "keys").mkdir(parents=True, exist_ok=True)
    (folder / "nbgrader_config.py").write_text(CONFIGURATION)
    (folder / "README.md").write_text(README.format(seed=seed))
    names = sorted(path.stem for path in book_file("course/problems").glob("*.yml"))
    for name in names:
        _write(folder / "source" / name / f"{name}.ipynb", source(name, seed))
        _write(folder / "keys" / f"{name}-{seed}-key.ipynb", sheets.key(name, seed))
    run(folder, "generate_assignment", "--assignment=*")


def _write(path: Path, notebook: sheets.Notebook) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook, ensure_ascii=False, indent=1) + "\n")
