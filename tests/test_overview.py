"""Chapter 17's numbers are those of the chapters that own them, and its pictures and appendices hold together."""

import re
import sys

import pytest
from conftest import BOOK, CHAPTERS

sys.path.insert(0, str(BOOK))
sys.path.insert(0, str(BOOK / "_ext"))

import chapters
import references
from runs import SUITES

from jfb_tutorial.pages import diagrams
from jfb_tutorial.pages.overview import measured

PAGES = {path.stem[:2]: path for path in CHAPTERS}
OWNED = {
    "digits_jfb": ("07", "jfb_accuracy"),
    "digits_norm": ("07", "norm_at_the_end"),
    "digits_steps": ("07", "plain_steps"),
    "digits_anderson": ("07", "anderson_steps"),
    "anderson_time": ("07", "anderson_time"),
    "mnist_time": ("08", "rule_norm_time"),
    "cifar_norm": ("10", "norm_last"),
    "certified": ("12", "certified"),
    "looked_at": ("12", "images"),
    "parity_strings": ("13", "all_512"),
    "sudoku_jfb": ("14", "sudoku_jfb"),
    "sudoku_phantom": ("14", "sudoku_upg"),
    "sudoku_norm": ("14", "sudoku_norm"),
}
"""Numbers that another chapter names, too."""
PRINTED = {
    "mnist_jfb": "08",
    "mnist_exact": "08",
    "mnist_twin": "08",
    "cifar_jfb": "10",
    "cifar_twin": "10",
    "clothes_jfb": "11",
    "clothes_exact": "11",
    "multi_jfb": "11",
    "multi_upg": "11",
    "multi_adjoint": "11",
    "sudoku_all": "14",
    "sudoku_damped": "14",
    "images_fifty": "14",
    "paths_jfb": "14",
    "paths_exact": "14",
    "images_jfb": "14",
    "images_exact": "14",
    "monotone_jfb": "15",
    "monotone_exact": "15",
    "ode": "15",
}
"""Numbers that stand in a table of another chapter."""


@pytest.fixture(scope="module")
def numbers():
    return measured(SUITES, BOOK)


def printed(number):
    """What the cells of a chapter show, as text."""
    outputs = [o for cell in chapters.cells(PAGES[number]) for o in cell.get("outputs", [])]
    return "\n".join("".join(o.get("data", {}).get("text/plain", "")) for o in outputs)


def test_what_another_chapter_names_is_the_same_here(numbers):
    named = {number: chapters.named_values(PAGES[number]) for number, _ in OWNED.values()}
    wrong = {key: (numbers[key], named[n][name]) for key, (n, name) in OWNED.items() if numbers[key] != named[n][name]}
    assert not wrong


def test_what_another_chapter_prints_is_the_same_here(numbers):
    shown = {number: printed(number) for number in PRINTED.values()}
    # a mean in a table may have fewer digits than its spread asks for
    assert not [key for key, number in PRINTED.items() if numbers[key].split(" ±")[0] not in shown[number]]


def test_chapter_17_stores_these_numbers(numbers):
    stored = chapters.named_values(PAGES["17"])
    assert {key: stored.get(key) for key in numbers} == numbers


def test_the_picture_has_a_way_down():
    fig = diagrams.choosing()
    texts = [text.get_text() for text in fig.axes[0].texts]
    assert texts.count("no") == texts.count("yes") == len(diagrams.CHOICES)
    assert max(len(line) for question, _ in diagrams.CHOICES for line in question.splitlines()) <= 28


def test_questions_are_answered_with_a_place():
    text = (BOOK / "questions.md").read_text()
    answers = re.findall(r"^\*\*(.+?[?.])\*\* (.+)$", text, re.MULTILINE)
    assert len(answers) >= 18
    assert not [question for question, answer in answers if not re.search(r"\]\([\w-]+\.ipynb", answer)]


@pytest.mark.parametrize("page", ["questions.md", "glossary.md", "notation.md"])
def test_links_lead_to_what_is_there(page):
    text = (BOOK / page).read_text()
    for name, anchor in re.findall(r"\]\(([\w-]+\.(?:md|ipynb))?(#[^)\s]+)?\)", text):
        assert not name or (BOOK / name).exists(), name
        if anchor:
            references.find(name or page, anchor[1:])


def test_the_glossary_is_in_order_and_says_each_word_once():
    words = re.findall(r"^\(term-[\w-]+\)=\n(.+)\n: ", (BOOK / "glossary.md").read_text(), re.MULTILINE)
    letters = [re.sub(r"[^a-z]", "", word.lower()) for word in words]
    assert len(words) >= 45
    assert letters == sorted(set(letters))
    assert "term-" not in (BOOK / "notation.md").read_text()
