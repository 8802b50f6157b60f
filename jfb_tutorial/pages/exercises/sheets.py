"""Problem sheets by variants: a sheet, its key, and the marks of a folder of notebooks that were handed in.

A sheet is a file of book/course/problems: which exercises, how many points each. A seed draws the numbers. The notebook that a student
hands in carries both, and is run in a process of its own: what it does, it does with the rights of whoever grades.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from . import exercise
from .checks import Exercise, Given, Part
from .kinds import Function
from .recorded import book_file
from .running import guard

__all__ = ["Mark", "Problem", "Sheet", "earned", "given", "grade", "key", "read", "sheet", "write_csv"]

Notebook = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """An exercise of a sheet."""

    label: str
    title: str
    points: float


@dataclass(frozen=True)
class Sheet:
    """A problem sheet, as its file has it."""

    name: str
    title: str
    problems: tuple[Problem, ...]

    @property
    def points(self) -> float:
        """Of all problems."""
        return sum(problem.points for problem in self.problems)


def read(name: str) -> Sheet:
    """The sheet `ps1` of book/course/problems.

    Raises:
        ValueError: there is none, or one of its exercises has no question of its own and so no variants.
    """
    import yaml

    folder = book_file("course/problems")
    path = folder / f"{name}.yml"
    if not path.is_file():
        raise ValueError(
            f"there is no sheet {name!r}; the sheets are {', '.join(sorted(each.stem for each in folder.glob('*.yml')))}"
        )
    try:
        found = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is no YAML: {error}") from None
    problems = tuple(Problem(each["exercise"], each["title"], each["points"]) for each in found["problems"])
    for problem in problems:
        if exercise(problem.label).question is None:
            raise ValueError(
                f"{problem.label} has no question for a sheet; give it one in jfb_tutorial/pages/exercises"
            )
    return Sheet(name, found["title"], problems)


def given(sheet: Sheet, label: str, seed: int) -> Given:
    """The numbers that a seed draws for an exercise, or the book's where they do not vary."""
    chosen = exercise(label)
    # a text as the seed gives the same numbers with every version of Python
    return chosen.draw(random.Random(f"{sheet.name} {seed} {label}")) if chosen.draw else chosen.given


def sheet(name: str, seed: int) -> Notebook:
    """The notebook that a student fills in."""
    chosen = read(name)
    cells = [
        _markdown(
            f"# {chosen.title}\n\nSheet {name}, variant {seed}, {chosen.points:g} points. Fill in each `...`. A cell says whether what you hand in has the form that "
            "is asked for, and not whether it is right. Before you hand in, restart the kernel and run all cells from top to bottom."
        ),
        _code(
            "import math\n\nimport numpy as np\nimport torch\nfrom jfb_tutorial.pages.exercises import form\n\ntorch.set_default_dtype(torch.float64)\nanswers = {}"
        ),
    ]
    for number, problem in enumerate(chosen.problems, 1):
        each = exercise(problem.label)
        cells.append(
            _markdown(f"## {number}. {problem.title} ({problem.points:g} points)\n\n{_question(chosen, problem, seed)}")
        )
        target = f'answers["{problem.label}"]'
        source = each.stub(call=f'form("{{label}}", {target})', target=target)
        cells.append(_code(source.split("\n", 2)[2].lstrip("\n")))  # without the lines that help a learner alone
    return _notebook(cells, name, seed)


def key(name: str, seed: int) -> Notebook:
    """The same for staff: what is expected of each part, and which mistakes are known by their answer."""
    chosen = read(name)
    cells = [
        _markdown(
            f"# Key to: {chosen.title}\n\nSheet {name}, variant {seed}, {chosen.points:g} points. For staff. The points of a problem are divided evenly among its parts."
        )
    ]
    for number, problem in enumerate(chosen.problems, 1):
        numbers = given(chosen, problem.label, seed)
        lines = [
            f"## {number}. {problem.title} ({problem.points:g} points)",
            "",
            _question(chosen, problem, seed),
            "",
            "| Part | Expected | Known mistakes |",
            "|---|---|---|",
        ]
        each = exercise(problem.label)
        with guard():
            lines += [
                f"| `{part.name}`: {_cell(part.what)} | {_cell(_expected(each, part, numbers))} | {_cell(_mistakes(part, numbers))} |"
                for part in each.parts
            ]
        cells.append(_markdown("\n".join(lines)))
    return _notebook(cells, name, seed)


def _question(sheet: Sheet, problem: Problem, seed: int) -> str:
    ask = exercise(problem.label).question
    assert ask is not None  # read() has looked
    return ask(given(sheet, problem.label, seed))


def _expected(each: Exercise, part: Part, numbers: Given) -> str:
    if part.truth is None:
        properties = "; ".join(prop.otherwise for prop in each.properties if part.name in prop.of)
        such_as = f", such as {_shown(part.example(numbers))}" if part.example else ""
        return f"any that has the properties{such_as} (else: “{properties}”)"
    value = part.truth(numbers)
    if not isinstance(part.kind, Function):
        return _shown(value)
    torch.manual_seed(0)
    seen = part.observe(part.kind.read(value, part.name), numbers)
    if len(seen) > 12:
        return "a function, judged by what it does on fresh instances"
    return f"a function; on the instances of the check {_shown(seen)}"


def _mistakes(part: Part, numbers: Given) -> str:
    named = []
    for mistake in part.mistakes:
        if mistake.answer is not None and not isinstance(part.kind, Function):
            named.append(f"{_shown(mistake.answer(numbers))}: {mistake.name}")
        else:
            named.append(mistake.name)
    return "; ".join(named)


def _shown(value: Any) -> str:
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int | float):
        return f"{value:.6g}"
    if isinstance(value, set | frozenset):
        return ", ".join(sorted(value))
    return ", ".join(_shown(each) for each in (value.tolist() if hasattr(value, "tolist") else value))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _markdown(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def _code(text: str) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [], "source": text}


def _notebook(cells: list[dict[str, Any]], name: str, seed: int) -> Notebook:
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number:02d}"
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "jfb_tutorial": {"sheet": name, "seed": seed},
    }
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


# Grading


@dataclass(frozen=True)
class Mark:
    """What a notebook earns.

    Attributes:
        student: its path in the folder, without its ending.
        sheet: its name, and the seed of the variant.
        points: of each problem, by its label.
        remarks: why something earned nothing, and what the checks said.
    """

    student: str
    sheet: str
    seed: int | None
    points: Mapping[str, float]
    of: float
    remarks: tuple[str, ...]

    @property
    def total(self) -> float:
        """All points."""
        return round(sum(self.points.values()), 2)


def grade(folder: Path, *, seconds: float = 120.0, name: str | None = None, seed: int | None = None) -> list[Mark]:
    """The marks of all notebooks of a folder and of its folders, in the order of their names.

    Args:
        folder: what was handed in.
        seconds: after which a notebook is stopped, with its checks.
        name: the sheet, where it is not to be read from the notebooks.
        seed: the seed of the variant, likewise.
    """
    paths = sorted(path for path in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
    if not paths:
        raise ValueError(f"there is no notebook in {folder}")
    return [_mark(path, path.relative_to(folder).with_suffix("").as_posix(), seconds, name, seed) for path in paths]


def _mark(path: Path, student: str, seconds: float, name: str | None, seed: int | None) -> Mark:
    try:
        carried = json.loads(path.read_text())["metadata"].get("jfb_tutorial", {})
        remarks = [
            f"handed in for {what} {carried[what]}, graded for {asked}"
            for what, asked in (("sheet", name), ("seed", seed))
            if asked is not None and carried.get(what, asked) != asked
        ]
        name = name if name is not None else carried["sheet"]
        seed = seed if seed is not None else int(carried["seed"])
        chosen = read(name)
    except KeyError as error:
        return Mark(
            student,
            name or "",
            seed,
            {},
            0,
            (f"0 points: the notebook does not say its {error.args[0]}; name --sheet and --seed",),
        )
    except (ValueError, TypeError, OSError, AttributeError) as error:
        return Mark(student, name or "", seed, {}, 0, (f"0 points: the notebook could not be read: {error}",))
    found, end = _run(path, chosen, seed, seconds)
    points = {}
    for problem in chosen.problems:
        said = found.get(problem.label)
        points[problem.label] = round(problem.points * said["share"], 2) if said else 0.0
        if said is None:
            remarks.append(f"{problem.label}: 0 points, {end}")
        elif said["share"] < 1:
            remarks.append(f"{problem.label}: {' '.join(said['lines'])}")
    return Mark(student, name, seed, points, chosen.points, (*remarks, *found.get("cells", ())))


def _run(path: Path, chosen: Sheet, seed: int, seconds: float) -> tuple[dict[str, Any], str]:
    """What the checks found by label, and what is to be said of those that found nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "found.json"
        command = [sys.executable, "-m", __package__, "mark", str(path.resolve()), str(out), chosen.name, str(seed)]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MPLBACKEND": "agg",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        process = subprocess.Popen(
            command,
            cwd=scratch,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            _, errors = process.communicate(timeout=seconds)
            end = "" if process.returncode == 0 else _ending(process.returncode, errors)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # and whatever it has started
            process.communicate()
            end = f"the notebook ran past {seconds:g} seconds"
        return (json.loads(out.read_text()) if out.exists() else {}), end or "its check did not end"


def _ending(code: int, errors: str) -> str:
    if code < 0:
        return f"the notebook crashed ({signal.Signals(-code).name})"
    last = errors.strip().splitlines()[-1:] or [f"status {code}"]
    return f"the notebook ended its process ({last[0]})"


def mark(path: Path, out: Path, name: str, seed: int) -> None:
    """Run a notebook in this process and write what the checks find, after each of them: of one that hangs the others are not lost."""
    import linecache

    space: dict[str, Any] = {"__name__": "__main__", "answers": {}}
    found: dict[str, Any] = {"cells": []}
    for number, cell in enumerate(json.loads(path.read_text())["cells"], 1):
        if cell["cell_type"] != "code":
            continue
        # a notebook's own commands are no Python, and nothing that is graded
        lines = [line for line in "".join(cell["source"]).splitlines() if not line.lstrip().startswith(("%", "!"))]
        source, file = "\n".join(lines) + "\n", f"<cell {number}>"
        linecache.cache[file] = (len(source), None, source.splitlines(True), file)
        try:
            exec(compile(source, file, "exec"), space)
        except (Exception, SystemExit) as error:
            found["cells"].append(f"cell {number} stopped with {type(error).__name__}: {error}".splitlines()[0])
    answers = space.get("answers")
    chosen = read(name)
    for problem in chosen.problems:
        answer = answers.get(problem.label) if isinstance(answers, dict) else None
        verdict = exercise(problem.label).check(answer, given(chosen, problem.label, seed))
        found[problem.label] = {
            "share": verdict.share if answer is not None else 0.0,
            "lines": verdict.lines if answer is not None else ("nothing handed in",),
        }
        partial = out.with_suffix(".part")
        partial.write_text(json.dumps(found))
        partial.replace(out)


def earned(label: str, answer: Any, numbers: Given, points: float) -> float:
    """The points of one problem; what is wrong with the answer is printed. What a test of nbgrader's calls."""
    verdict = exercise(label).check(answer, numbers)
    print(verdict if answer is not None else "nothing handed in")
    return round(points * verdict.share, 2)


def write_csv(marks: Sequence[Mark], path: Path) -> None:
    """A row a student, a column a problem; what was said in the last."""
    labels = list(dict.fromkeys(label for each in marks for label in each.points))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["student", "sheet", "seed", "points", "of", *labels, "remarks"])
        for each in marks:
            writer.writerow(
                [
                    each.student,
                    each.sheet,
                    each.seed,
                    each.total,
                    each.of,
                    *(each.points.get(label, "") for label in labels),
                    " / ".join(each.remarks),
                ]
            )
