"""The course kit of book/course: what it names exists in the book, its plans fill 90 minutes, its quizzes answer every answer.

Each check is a function that returns what is wrong, in words; `test_a_fault_is_found` shows each of them a fault.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from conftest import BOOK, CHAPTERS, NOTEBOOKS, ROOT

from jfb_tutorial.pages import explorers

sys.path.insert(0, str(BOOK / "_ext"))

import chapters
import references

COURSE = BOOK / "course"
PAGES = [path for path in sorted(COURSE.rglob("*.md")) if "_build" not in path.parts]
QUIZZES = sorted(COURSE.glob("quiz/*.yml"))
SESSIONS = sorted(COURSE.glob("session-*.md"))
NUMBERS = {path.stem[:2]: path for path in CHAPTERS}


def shown(path: Path) -> str:
    return str(path.relative_to(COURSE))


# What the book has


@cache
def exercises() -> dict[str, str]:
    """The titles of all exercises, by their labels."""
    return {label: title for path in CHAPTERS for label, title in chapters.exercises(path).items()}


def minutes(label: str) -> int:
    """How long an exercise takes, as its title says; an open one says nothing."""
    said = re.search(r"(\d+) minutes", exercises()[label])
    return int(said[1]) if said else 0


@cache
def headings(number: str) -> dict[str, str]:
    """The headings of a chapter by what a reader sees of them."""
    found = re.findall(r"^#{1,4} (.+)$", chapters.text(NUMBERS[number]), re.MULTILINE)
    return {heading: references.slug(heading) for heading in found}


@cache
def names() -> frozenset[str]:
    """Figures, exercises, claims and quiz questions: what a page may name in a code span."""
    figures = {figure.name for path in NOTEBOOKS for figure in chapters.figures(path)}
    claims = {claim["identifier"] for path in NOTEBOOKS for claim in chapters.claims(path)}
    questions = {question["id"] for path in QUIZZES for question in read_quiz(path.read_text())}
    return frozenset(figures | claims | questions | set(exercises()))


@cache
def code(number: str = "") -> str:
    """The code of a chapter, or of all, without white space."""
    paths = [NUMBERS[number]] if number else CHAPTERS
    return re.sub(r"\s", "", "".join(chapters.text(path, "code") for path in paths))


@cache
def scripts() -> str:
    return "".join(path.read_text() for path in (ROOT / "jfb_tutorial/pages/explorers").glob("*.js"))


# What a page says


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```|`[^`\n]+`", "", text, flags=re.MULTILINE | re.DOTALL)


def without_mathematics(text: str) -> str:
    return re.sub(r"\$\$.*?\$\$|\$[^$]*\$", "", without_code(text), flags=re.DOTALL)


def spans(text: str) -> list[str]:
    """The code in the lines of a page, blocks left out."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(text: str) -> set[str]:
    return {references.slug(heading) for heading in re.findall(r"^#{1,4} (.+)$", text, re.MULTILINE)}


# The checks


def wrong_links(text: str, folder: Path = COURSE) -> Iterator[str]:
    """Links to a file that is not there, or to a section or a label that it does not have."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
        name, _, anchor = target.partition("#")
        path = (folder / name).resolve() if name else None
        if path and not path.exists():
            yield f"a link leads to {name}, which is not there"
        elif path and path.parent == BOOK and anchor:
            try:
                references.find(path.name, anchor)
            except ValueError as error:
                yield str(error)
        elif anchor and anchor not in anchors(path.read_text() if path else text):
            yield f"a link leads to #{anchor}, which is no heading of {name or 'the page'}"


def wrong_names(text: str, folder: Path = COURSE) -> Iterator[str]:
    """Figures, exercises, claims and questions that do not exist; a file of the course may be named too."""
    for name in spans(text):
        if re.fullmatch(r"[a-z]\w*(-[\w.]+)+", name) and name not in names() and not (folder / name).exists():
            yield f"`{name}` is no figure, exercise, claim or question"


def wrong_calls(text: str, number: str = "") -> Iterator[str]:
    """Explorers in a setting that no chapter shows (this chapter, if there is one), and functions that none calls."""
    for span in spans(text):
        if span.startswith("explorers."):
            call = ast.parse(span, mode="eval").body
            name = call.func.attr if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) else ""
            if name not in explorers.__all__:
                yield f"`{span}` is no explorer"
            elif re.sub(r"\s", "", span) not in code(number):
                yield f"`{span}` is not how chapter {number or 'any'} calls it"
        elif (called := re.match(r"(?:theory|bench|live|toy|gradients)\.\w+", span)) and called[0] not in code():
            yield f"`{called[0]}` is called in no chapter"


def wrong_buttons(text: str) -> Iterator[str]:
    """Names in square brackets that no explorer shows."""
    for label in re.findall(r"\[([^\]]+)\](?![(:])", without_mathematics(text)):
        if f'"{label}"' not in scripts():
            yield f"[{label}] is no button of an explorer"


def wrong_tables(text: str) -> Iterator[str]:
    r"""In a table \| is an escaped bar, so that a norm would lose half of its bars; and each row has as many cells as the first."""
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = table.splitlines()
        for row in rows:
            if "\\|" in row:
                yield f"write \\lVert and \\rVert in a table: {row}"
            elif row.count("|") != rows[0].count("|"):
                yield f"a row with another number of cells: {row}"


def clock(text: str) -> list[tuple[int, int, str]]:
    """The blocks of a plan: from minute, to minute, name."""
    found = re.findall(r"^## (\d\d):(\d\d)–(\d\d):(\d\d) (.+)$", text, re.MULTILINE)
    return [(60 * int(a) + int(b), 60 * int(c) + int(d), name) for a, b, c, d, name in found]


def wrong_plan(text: str) -> Iterator[str]:
    """A plan is 90 minutes without a gap, and its table agrees with its clock."""
    now, blocks = 0, clock(text)
    for start, end, name in blocks:
        if start != now or end <= start:
            yield f"“{name}” begins at minute {start} and ends at {end}, after minute {now}"
        now = end
    if now != 90:
        yield f"the plan ends at minute {now}"
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \| ([^|]*) \|$", text, re.MULTILINE)
    if (total := sum(int(length) for length, *_ in rows)) != 90:
        yield f"the minutes of the table sum to {total}"
    if [(int(length), name) for length, name, _ in rows] != [(end - start, name) for start, end, name in blocks]:
        yield "the table and the clock have different blocks"
    if not all(cut.strip() for *_, cut in rows):
        yield "the table does not say of each block what to cut"
    if "xit question" not in text:
        yield "there is no exit question"


def wrong_votes(text: str) -> Iterator[str]:
    """A vote has two to four choices, one answer, and a reply to each other choice."""
    votes = re.findall(r"^### (Vote .+?)$(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    if not votes:
        yield "there is no vote"
    for name, vote in votes:
        choices = re.findall(r"^- \*\*([A-D])\.\*\*", vote, re.MULTILINE)
        answers = re.findall(r"^\*\*Answer: ([A-D])\b", vote, re.MULTILINE)
        replies = re.findall(r"^- \*\*([A-D])\*\* ", vote, re.MULTILINE)
        if choices != list("ABCD"[: len(choices)]) or len(choices) < 2:
            yield f"{name}: the choices are {choices}"
        elif len(answers) != 1 or answers[0] not in choices:
            yield f"{name}: the answers are {answers}"
        elif replies != [choice for choice in choices if choice != answers[0]]:
            yield f"{name}: the wrong answers that are replied to are {replies}"


NOTES = ["Misconceptions", "Board plan", "Run live", "What goes wrong", "Discussion question"]


def wrong_notes(text: str) -> Iterator[str]:
    """The notes of a chapter have their five parts, and say misconceptions as students do."""
    if (found := re.findall(r"^## (.+)$", text, re.MULTILINE)) != NOTES:
        yield f"the parts are {found}"
    if len(re.findall(r"^- \*“.+?”\*", text, re.MULTILINE)) < 4:
        yield "fewer than four misconceptions"


def read_quiz(text: str) -> list[dict]:
    return yaml.safe_load(text)


QUESTION = {"id", "section", "question", "choices"}
CHOICE = {"text", "right", "feedback"}


def wrong_quiz(text: str, number: str) -> Iterator[str]:
    """Five questions; one right choice of three or four; a reply to each, and for a wrong one where to reread."""
    questions = read_quiz(text)
    if len(questions) != 5:
        yield f"there are {len(questions)} questions"
    for question in questions:
        if set(question) != QUESTION or any(set(choice) != CHOICE for choice in question["choices"]):
            yield f"{question.get('id')} does not have the fields {sorted(QUESTION)} and {sorted(CHOICE)}"
            continue
        name, choices = question["id"], question["choices"]
        # a number at the end would be a position, which changes
        if not re.fullmatch(rf"quiz-{number}(-[a-z]+)+", name):
            yield f"{name} is no stable name for a question of chapter {number}"
        # the page gives a section the name that docutils makes, book-s and not books
        if question["section"].lower() not in {*map(references.identifier, headings(number)), *targets(number)}:
            yield f"{name} belongs to #{question['section']}, which chapter {number} does not have"
        if not 3 <= len(choices) <= 4 or [choice["right"] for choice in choices].count(True) != 1:
            yield f"{name} has {len(choices)} choices, or not one that is right"
        if len({choice["text"] for choice in choices}) != len(choices):
            yield f"{name} has the same choice twice"
        for choice in choices:
            yield from (f"{name}: {fault}" for fault in wrong_feedback(choice, number))
        for part in [question["question"], *(choice[key] for choice in choices for key in ("text", "feedback"))]:
            if part.count("$") % 2:
                yield f"{name} has a formula that does not end: {part}"


def targets(number: str) -> set[str]:
    """The explicit anchors of a chapter."""
    return set(re.findall(r"^\(([\w.-]+)\)=$", chapters.text(NUMBERS[number]), re.MULTILINE))


def wrong_feedback(choice: dict, number: str) -> Iterator[str]:
    if len(choice["feedback"]) < 40:
        yield f"a reply too short to explain: {choice['feedback']}"
    places = re.findall(r"Reread “([^”]+)”(?: in chapter (\d+))?", choice["feedback"])
    if not choice["right"] and not places:
        yield f"a reply that does not say where to reread: {choice['feedback']}"
    for heading, other in places:
        where = f"{int(other or number):02}"
        if heading not in headings(where):
            yield f"“{heading}” is no heading of chapter {where}"


def wrong_rubric(text: str) -> Iterator[str]:
    """The points of an exercise sum to what its heading says; every proof, and what is done by hand, has some."""
    parts = re.findall(r"^## [^\n]+ \(`([\w-]+)`, (\d+) points\)$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    for label, total, part in parts:
        points = [int(row) for row in re.findall(r"^\| (\d+) \|", part, re.MULTILINE)]
        if sum(points) != int(total):
            yield f"the points of {label} sum to {sum(points)}, not {total}"
        if not re.search(r"^- ", part, re.MULTILINE):
            yield f"{label} has no common partial answer"
    by_hand = {label for label, title in exercises().items() if re.search(r"\((proof|by hand)", title)}
    for label in sorted(by_hand - {label for label, *_ in parts}):
        yield f"{label} has no points"


def wrong_projects(text: str) -> Iterator[str]:
    """Three projects with a first milestone in an hour, and 20 points each, of which five for honesty."""
    common = re.search(r"Five points for honesty.*?(?=^## )", text, re.MULTILINE | re.DOTALL)
    projects = re.findall(r"^## (Project [A-Z]).*?$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if len(projects) != 3 or common is None:
        yield f"there are {len(projects)} projects"
        return
    for name, part, total in [("honesty", common[0], 5), *((name, part, 20) for name, part in projects)]:
        points = sum(int(row) for row in re.findall(r"^\| (\d+) \|", part, re.MULTILINE))
        if points != total:
            yield f"the points of {name} sum to {points}"
    for name, part in projects:
        if "**First milestone, in an hour.**" not in part:
            yield f"{name} has no first milestone"


def wrong_syllabus(text: str) -> Iterator[str]:
    """The hours are those of the chapters and of the exercises for everybody."""
    weeks = re.findall(r"^\| (\d) \| ([\d, ]+) \|" + r" (\d+) \|" * 5 + "$", text, re.MULTILINE)
    if not weeks:
        yield "there is no table of hours"
    for week, listed, *numbers in weeks:
        held, reading, work, quizzes, together = map(int, numbers)
        paths = [NUMBERS[f"{int(number):02}"] for number in listed.split(",")]
        if abs(reading - sum(map(chapters.words, paths)) / chapters.WORDS_A_MINUTE) > 15:
            yield f"week {week}: {reading} minutes of reading are not what chapters {listed} take"
        (part,) = re.findall(rf"^## Week {week}:.*?(?=^## )", text, re.MULTILINE | re.DOTALL)
        (everybody,) = re.findall(r"^\*\*Exercises for everybody:\*\*(.+)$", part, re.MULTILINE)
        if (found := sum(map(minutes, spans(everybody)))) != work:
            yield f"week {week}: the exercises for everybody take {found} minutes, not {work}"
        if missing := set(spans(everybody)) - set(spans(part.partition("**Class")[0])):
            yield f"week {week}: no goal has the exercises {sorted(missing)}"
        if held + reading + work + quizzes != together:
            yield f"week {week}: the hours do not sum up"
        if quizzes != 10 * len(paths):
            yield f"week {week}: ten minutes a quiz"


# The kit


@pytest.mark.parametrize("path", PAGES, ids=shown)
def test_a_page_names_what_exists(path):
    text = path.read_text()
    # the notes of a chapter are about that chapter's explorers
    number = path.stem if path.parent.name == "notes" else ""
    faults = [
        *wrong_links(text, path.parent),
        *wrong_names(text, path.parent),
        *wrong_calls(text, number),
        *wrong_buttons(text),
        *wrong_tables(text),
    ]
    assert not faults, faults


@pytest.mark.parametrize("path", SESSIONS, ids=shown)
def test_a_session_fills_ninety_minutes_and_answers_its_votes(path):
    faults = [*wrong_plan(path.read_text()), *wrong_votes(path.read_text())]
    assert not faults, faults


def test_there_are_two_sessions():
    assert [path.name for path in SESSIONS] == ["session-1.md", "session-2.md"]


def test_every_chapter_has_notes_and_a_quiz():
    assert {path.stem for path in COURSE.glob("notes/*.md")} == set(NUMBERS)
    assert {path.stem for path in QUIZZES} == set(NUMBERS)


@pytest.mark.parametrize("path", sorted(COURSE.glob("notes/*.md")), ids=shown)
def test_notes_have_their_parts(path):
    assert not [*wrong_notes(path.read_text())]


@pytest.mark.parametrize("path", QUIZZES, ids=shown)
def test_a_quiz_replies_to_every_answer(path):
    text = path.read_text()
    faults = [*wrong_quiz(text, path.stem), *wrong_names(text)]
    assert not faults, faults


def test_questions_keep_their_names():
    """A page remembers by the name of a question what a reader has answered: add names, and never change or take away one."""
    found = [question["id"] for path in QUIZZES for question in read_quiz(path.read_text())]
    assert len(set(found)) == len(found)
    known = (ROOT / "tests/data/quiz_ids.txt").read_text().split()
    assert found == known


def test_the_right_answer_has_no_favourite_place():
    places = [
        [choice["right"] for choice in question["choices"]].index(True)
        for path in QUIZZES
        for question in read_quiz(path.read_text())
    ]
    assert max(map(places.count, range(4))) <= len(places) * 0.4


def test_rubric_projects_and_syllabus_add_up():
    faults = [
        *wrong_rubric((COURSE / "rubric.md").read_text()),
        *wrong_projects((COURSE / "project.md").read_text()),
        *wrong_syllabus((COURSE / "syllabus.md").read_text()),
    ]
    assert not faults, faults


# Every check can fail


def changed(name: str, old: str, new: str) -> str:
    text = (COURSE / name).read_text()
    assert old in text, f"{name} has no {old!r}"
    return text.replace(old, new, 1)


QUIZ = "quiz/05.yml"
FAULTS: list[tuple[Callable[..., Iterator[str]], str, str, str]] = [
    (wrong_links, "session-1.md", "../02-contractions.ipynb)", "../02-contraction.ipynb)"),
    (wrong_links, "session-1.md", "ipynb#how-fast)", "ipynb#how-slow)"),
    (wrong_links, "syllabus.md", "(#the-short-course-two-sessions)", "(#the-long-course)"),
    (wrong_names, "session-2.md", "`fig-05-plane`", "`fig-05-plain`"),
    (wrong_names, "session-2.md", "`sharp-condition`", "`blunt-condition`"),
    (wrong_names, "session-1.md", "`ex-01-quadratic`", "`ex-01-cubic`"),
    (wrong_names, "README.md", "`session-1.md`", "`session-3.md`"),
    (wrong_calls, "session-1.md", "explorers.cobweb(d=0.5, y0=0.7", "explorers.cobweb(d=0.5, y0=0.9"),
    (wrong_calls, "session-2.md", "explorers.descent()", "explorers.ascent()"),
    (wrong_calls, "notes/04.md", "bench.compare", "bench.contrast"),
    (wrong_buttons, "session-2.md", "[worst gradient]", "[best gradient]"),
    (wrong_tables, "session-1.md", "| 7 | What is asked, and why | keep |", "| 7 | What is asked, $\\|J\\|$ | keep |"),
    (wrong_tables, "session-1.md", "| 7 | What is asked, and why | keep |", "| 7 | What is asked, and why |"),
    (wrong_plan, "session-1.md", "## 00:24–00:38", "## 00:25–00:38"),
    (wrong_plan, "session-1.md", "## 01:25–01:30", "## 01:25–01:31"),
    (wrong_plan, "session-2.md", "| 14 | When", "| 13 | When"),
    (wrong_plan, "session-2.md", "| 14 | When it cannot climb |", "| 14 | When it climbs |"),
    (wrong_plan, "session-2.md", "| 4 | Exit question | keep |", "| 4 | Exit question |  |"),
    (wrong_votes, "session-1.md", "**Answer: C.**", "**Answer.**"),
    (wrong_votes, "session-1.md", "- **B** takes", "- B takes"),
    (wrong_votes, "session-2.md", "- **C.** in a wrong", "- **D.** in a wrong"),
    (wrong_notes, "notes/03.md", "## Run live", "## Run"),
    (wrong_notes, "notes/03.md", "## Misconceptions", "## Misconceptions\n\n## Errors"),
    (wrong_quiz, QUIZ, "- id: quiz-05-saturated", "- id: quiz-05-3"),
    (wrong_quiz, QUIZ, "section: when-it-cannot-climb", "section: when-it-can-climb"),
    (wrong_quiz, QUIZ, "right: true", "right: false"),
    (wrong_quiz, QUIZ, "right: false", "right: true"),
    (wrong_quiz, QUIZ, "“Where it climbs”", "“Where it falls”"),
    (wrong_quiz, QUIZ, "Reread\n        “When it cannot climb”.", "See above."),
    (wrong_quiz, QUIZ, "$\\gamma = 0.85$", "$\\gamma = 0.85"),
    (wrong_quiz, QUIZ, "  question:", "  asks:"),
    (wrong_rubric, "rubric.md", "(`ex-01-quadratic`, 4 points)", "(`ex-01-quadratic`, 5 points)"),
    (wrong_rubric, "rubric.md", "`ex-06-fit`", "`ex-06-unfit`"),
    (wrong_projects, "project.md", "**First milestone, in an hour.**", "**First milestone.**"),
    (wrong_projects, "project.md", "| 4 | both tasks", "| 5 | both tasks"),
    (wrong_projects, "project.md", "## Project C", "## A project"),
    (wrong_syllabus, "syllabus.md", "| 180 | 100 | 100 |", "| 180 | 130 | 100 |"),
    (wrong_syllabus, "syllabus.md", "everybody:** `ex-04-scalar`, ", "everybody:** "),
    (wrong_syllabus, "syllabus.md", "| `ex-05-units` |", "| none |"),
    (wrong_syllabus, "syllabus.md", "| 30 | 410 |", "| 30 | 420 |"),
]


@pytest.mark.parametrize("fault", range(len(FAULTS)))
def test_a_fault_is_found(fault):
    check, name, old, new = FAULTS[fault]
    more = {wrong_quiz: ("05",), wrong_links: (COURSE,), wrong_names: (COURSE,)}.get(check, ())
    assert not [*check((COURSE / name).read_text(), *more)]
    assert [*check(changed(name, old, new), *more)]
