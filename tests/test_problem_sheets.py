"""Problem sheets by variants: other numbers for another seed, a key that solves the sheet, and marks that are never lost."""

import csv
import json
import sys

import pytest
import torch
from conftest import BOOK, CHAPTERS

from jfb_tutorial.pages import exercises
from jfb_tutorial.pages.exercises import sheets
from jfb_tutorial.pages.exercises.__main__ import main

sys.path.insert(0, str(BOOK / "_ext"))

import chapters

NAMES = sorted(path.stem for path in (BOOK / "course" / "problems").glob("*.yml"))


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """In an empty folder; and whatever dtype a sheet sets, the next test begins as the others do."""
    monkeypatch.chdir(tmp_path)
    yield
    torch.set_default_dtype(torch.float32)


def sources(notebook, kind="code"):
    return [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == kind]


def solved(notebook, tmp_path, *, but=()):
    """The sheet with a right answer to each problem, but for what is in `but`."""
    name, seed = notebook["metadata"]["jfb_tutorial"].values()
    sheet = sheets.read(name)
    lines = ["from jfb_tutorial.pages.exercises import exercise, sheets", f"sheet = sheets.read({name!r})"]
    for problem in sheet.problems:
        if problem.label not in but:
            lines += [
                f"given = sheets.given(sheet, {problem.label!r}, {seed})",
                f"answers[{problem.label!r}] = exercise({problem.label!r}).right(given)",
            ]
    notebook = notebook | {"cells": [notebook["cells"][0], {"cell_type": "code", "source": "\n".join(lines)}]}
    path = tmp_path / "handed-in.ipynb"
    path.write_text(json.dumps(notebook))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_sheet_asks_what_the_book_has(name):
    sheet = sheets.read(name)
    titles = {label: title for path in CHAPTERS for label, title in chapters.exercises(path).items()}
    for problem in sheet.problems:
        assert titles[problem.label].startswith(problem.title + " (")
        assert problem.points > 0
    assert 24 <= sheet.points <= 36
    varied = [problem for problem in sheet.problems if exercises.exercise(problem.label).draw]
    assert len(varied) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_two_seeds_have_different_keys(name):
    one, two = sheets.key(name, 7), sheets.key(name, 8)
    assert one == sheets.key(name, 7)
    assert sources(one, "markdown")[1:] != sources(two, "markdown")[1:]
    assert sum(a != b for a, b in zip(sources(one, "markdown")[1:], sources(two, "markdown")[1:], strict=True)) >= 3


@pytest.mark.parametrize("label", [label for label in exercises.labels() if exercises.exercise(label).question])
def test_whatever_a_seed_draws_can_be_solved(label):
    exercise = exercises.exercise(label)
    sheet = sheets.Sheet("any", "", ())
    for seed in range(4):
        given = sheets.given(sheet, label, seed)
        assert set(given) == set(exercise.given)
        assert exercise.question is not None
        assert exercise.question(given).strip()
        answer = exercise.right(given)
        found = exercise.check(answer, given)
        assert all(found.parts[name] for name in answer), found
        # no number that varies is right in another variant by itself: the book's answer is not this one
    if exercise.draw:
        drawn = [sheets.given(sheet, label, seed) for seed in range(12)]
        assert any(given != drawn[0] for given in drawn)
        assert exercise.given not in drawn


@pytest.mark.parametrize("name", NAMES)
def test_a_sheet_runs_as_it_stands_and_earns_nothing(name, tmp_path):
    notebook = sheets.sheet(name, 7)
    text = "\n".join(sources(notebook))
    assert "check(" not in text
    assert "hint(" not in text
    path = tmp_path / "blank.ipynb"
    path.write_text(json.dumps(notebook))
    sheets.mark(path, tmp_path / "found.json", name, 7)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found.pop("cells") == []
    assert [each["share"] for each in found.values()] == [0] * len(sheets.read(name).problems)


def test_a_solved_sheet_earns_its_points_and_another_seed_does_not(tmp_path):
    path = solved(sheets.sheet("ps1", 7), tmp_path)
    sheets.mark(path, tmp_path / "found.json", "ps1", 7)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found.pop("cells") == []
    assert all(each["share"] == 1 for each in found.values()), found
    sheets.mark(path, tmp_path / "other.json", "ps1", 8)
    other = json.loads((tmp_path / "other.json").read_text())
    assert sum(other[problem.label]["share"] == 1 for problem in sheets.read("ps1").problems) <= 3


def test_a_notebook_is_well_formed():
    nbformat = pytest.importorskip("nbformat")
    for notebook in (sheets.sheet("ps2", 3), sheets.key("ps2", 3)):
        nbformat.validate(nbformat.from_dict(notebook))


def test_marks_are_never_lost(tmp_path, capsys):
    folder = tmp_path / "in"
    (folder / "ann").mkdir(parents=True)
    sheet = sheets.sheet("ps1", 7)
    solved(sheet, folder / "ann", but=("ex-02-needle",))
    broken = json.loads(json.dumps(sheet))
    broken["cells"][3]["source"] = "import os\nos._exit(3)"
    (folder / "bob.ipynb").write_text(json.dumps(broken))
    (folder / "cem.ipynb").write_text("no notebook")
    (folder / "dot.ipynb").write_text(json.dumps(sheet | {"metadata": {}}))
    assert main(["grade", str(folder)]) == 0
    said = capsys.readouterr().out
    with (folder / "marks.csv").open() as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["ann/handed-in", "bob", "cem", "dot"]
    assert float(rows["ann/handed-in"]["points"]) == 24
    assert rows["ann/handed-in"]["remarks"] == "ex-02-needle: nothing handed in"
    assert [rows[name]["points"] for name in ("bob", "cem", "dot")] == ["0.0", "0", "0"]
    assert "ex-01-quadratic: 0 points, the notebook ended its process (status 3)" in rows["bob"]["remarks"]
    assert "0 points: the notebook could not be read" in rows["cem"]["remarks"]
    assert "does not say its sheet; name --sheet and --seed" in rows["dot"]["remarks"]
    assert "ann/handed-in  ps1 7  24 of 30" in said


def test_a_notebook_that_does_not_end_is_stopped(tmp_path):
    sheet = sheets.sheet("ps1", 7)
    sheet["cells"][3]["source"] = "while True:\n    pass"
    (tmp_path / "eve.ipynb").write_text(json.dumps(sheet))
    (mark,) = sheets.grade(tmp_path, seconds=1.0, seed=5)
    assert mark.total == 0
    assert mark.remarks[0] == "handed in for seed 7, graded for 5"
    assert mark.remarks[1] == "ex-01-quadratic: 0 points, the notebook ran past 1 seconds"
    assert len(mark.points) == 6


def test_a_cell_that_fails_is_told_and_the_others_count(tmp_path):
    path = solved(sheets.sheet("ps1", 7), tmp_path)
    notebook = json.loads(path.read_text())
    notebook["cells"].append(
        {"cell_type": "code", "source": "%matplotlib inline\n!ls\nanswers['ex-02-four'] = nothing"}
    )
    path.write_text(json.dumps(notebook))
    sheets.mark(path, tmp_path / "found.json", "ps1", 7)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["cells"] == ["cell 3 stopped with NameError: name 'nothing' is not defined"]
    assert found["ex-02-four"]["share"] == 1


def test_the_commands_say_what_is_wrong(tmp_path, capsys):
    assert main(["sheet", "ps9", "--seed", "1"]) == 1
    assert "there is no sheet 'ps9'; the sheets are ps1, ps2, ps3" in capsys.readouterr().err
    assert main(["grade", str(tmp_path / "none")]) == 1
    assert "is no folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["grade", str(tmp_path / "empty")]) == 1
    assert "there is no notebook in" in capsys.readouterr().err
    assert main(["key", "ps1", "--seed", "4", "--out", str(tmp_path / "keys" / "k.ipynb")]) == 0
    assert "For staff." in (tmp_path / "keys" / "k.ipynb").read_text()
    assert main(["sheet", "ps1", "--seed", "4"]) == 0
    assert (tmp_path / "ps1-4.ipynb").exists()
