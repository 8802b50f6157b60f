"""The problem sheets for nbgrader: it scores a solved sheet full, an empty one nothing, and a part of one in between."""

import csv
import shutil
import sys

import pytest
import torch
from conftest import BOOK

sys.path.insert(0, str(BOOK / "_ext"))

import course_nbgrader

from jfb_tutorial.pages.exercises import sheets

NAMES = sorted(path.stem for path in (BOOK / "course" / "problems").glob("*.yml"))


def code(cells):
    return [cell for cell in cells if cell["cell_type"] == "code"]


def without(source, what):
    """A cell's code as nbgrader leaves it to students, without what stands between two marks."""
    before, mark, after = source.partition(f"### BEGIN {what}\n")
    return before + after.partition(f"### END {what}")[2].lstrip("\n") if mark else source


def points(cells, capsys):
    """Run cells as a kernel does; what the last line of each test gives, in the order of the sheet."""
    space: dict[str, object] = {}
    found = {}
    for cell in cells:
        *lines, last = cell["source"].splitlines()
        if not cell["metadata"]["nbgrader"]["grade"]:
            exec(cell["source"], space)
            continue
        assert last == "### END HIDDEN TESTS"
        exec("\n".join(lines[:-1]), space)
        found[cell["metadata"]["nbgrader"]["grade_id"]] = eval(lines[-1], space)
    torch.set_default_dtype(torch.float32)
    # whatever goes to stderr would cost the points
    assert capsys.readouterr().err == ""
    return list(found.values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [7, 8])
def test_a_solved_sheet_is_scored_full_and_an_empty_one_nothing(name, seed, capsys):
    cells = code(course_nbgrader.source(name, seed)["cells"])
    assert points(cells, capsys) == [problem.points for problem in sheets.read(name).problems]
    empty = [cell | {"source": without(cell["source"], "SOLUTION")} for cell in cells]
    assert points(empty, capsys) == [0.0] * len(sheets.read(name).problems)


@pytest.mark.parametrize("name", NAMES)
def test_a_source_is_the_sheet_and_what_nbgrader_is_to_know(name):
    nbformat = pytest.importorskip("nbformat")
    made = course_nbgrader.source(name, 7)
    nbformat.validate(nbformat.from_dict(made))
    known = [cell["metadata"]["nbgrader"] for cell in made["cells"]]
    assert len({each["grade_id"] for each in known}) == len(known)
    graded = [each for each in known if each["grade"]]
    assert [each["points"] for each in graded] == [problem.points for problem in sheets.read(name).problems]
    assert all(each["locked"] and not each["solution"] for each in graded)
    # an answer is the student's, and nothing else is
    assert [each["grade_id"] for each in known if not each["locked"]] == [p.label for p in sheets.read(name).problems]
    released = [without(cell["source"], "SOLUTION") for cell in code(made["cells"])]
    sheet = [cell["source"] for cell in code(sheets.sheet(name, 7)["cells"])]
    assert [text for text in released if "BEGIN HIDDEN TESTS" not in text] == sheet


def test_a_part_of_an_answer_is_a_part_of_the_points(capsys):
    given = sheets.given(sheets.read("ps1"), "ex-02-four", 7)
    right = sheets.exercise("ex-02-four").right(given)
    assert sheets.earned("ex-02-four", right | {"settles": ...}, given, 4) == 2
    assert "`contractions` is right." in capsys.readouterr().out
    assert sheets.earned("ex-02-four", None, given, 4) == 0
    assert capsys.readouterr().out == "nothing handed in\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The course's folder, and in it what two students have handed in for the first sheet."""
    folder = tmp_path_factory.mktemp("nbgrader")
    try:
        course_nbgrader.command()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    course_nbgrader.export(folder, 7)
    for student, kind in (("solved", "source"), ("empty", "release")):
        shutil.copytree(folder / kind / "ps1", folder / "submitted" / student / "ps1")
    return folder


def test_nbgrader_itself_grades_a_sheet(folder):
    course_nbgrader.run(folder, "autograde", "ps1")
    course_nbgrader.run(folder, "export")
    with (folder / "grades.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["assignment"] == "ps1"]
    assert {row["student_id"]: float(row["score"]) for row in rows} == {"solved": 30, "empty": 0}
    assert {float(row["max_score"]) for row in rows} == {30}


def test_what_nbgrader_releases_has_no_solution_and_no_test(folder):
    released = sorted((folder / "release").rglob("*.ipynb"))
    assert [path.stem for path in released] == NAMES
    for path in released:
        text = path.read_text()
        assert not [word for word in ("SOLUTION", "HIDDEN", "sheets.earned", ".right(") if word in text]
        assert text.count('form(\\"ex-') == len(sheets.read(path.stem).problems)
    assert sorted(path.name for path in (folder / "keys").iterdir()) == [f"{name}-7-key.ipynb" for name in NAMES]
