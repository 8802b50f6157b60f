"""Exercises that check themselves::

    from jfb_tutorial.pages.exercises import check, hint

    check("ex-03-three-points", {"limit": 10, "evaluations": 66, "residual": ...})
    hint("ex-03-three-points", 2)

A check says that an answer is right and what that shows, or which property fails and what kind of mistake that usually is; never
the answer. There are three hints for each exercise, each saying more than the one before. Answers that are functions are called on
fresh instances, the same in every run, and leave nothing of the session changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from typing import Any

from ..._checks import check_integer
from .checks import Exercise
from .said import Hint, Verdict
from .unchecked import DERIVATIONS, OPEN

__all__ = ["check", "exercise", "form", "hint", "hints", "labels", "stub"]

RUBRIC = "book/course/rubric.md"


@cache
def _exercises() -> dict[str, Exercise]:
    from . import ch01, ch02, ch03, ch04, ch05, ch06, ch07, ch08, ch09, ch10, ch11, ch12, ch13, ch14, ch15, ch16, ch17

    chapters = (ch01, ch02, ch03, ch04, ch05, ch06, ch07, ch08, ch09, ch10, ch11, ch12, ch13, ch14, ch15, ch16, ch17)
    return {each.label: each for chapter in chapters for each in chapter.EXERCISES}


def labels() -> tuple[str, ...]:
    """The labels of the exercises that have a check, in the order of the book."""
    return tuple(_exercises())


def exercise(label: str) -> Exercise:
    """The exercise of a label.

    Raises:
        ValueError: there is none, or it is one that no check can answer for.
    """
    if label in _exercises():
        return _exercises()[label]
    if label in DERIVATIONS:
        raise ValueError(
            f"{label} asks for a derivation, which no check can read: compare yours with the solution; {RUBRIC} says what earns its points"
        )
    if label in OPEN:
        raise ValueError(f"{label} is an open question, and has no answer to check; its solution says what is known")
    near = get_close_matches(str(label), (*_exercises(), *DERIVATIONS, *OPEN), n=3, cutoff=0.4)
    listed = ", ".join(near or list(_by_chapter(str(label))))
    raise ValueError(f"no exercise is called {label!r}; near it are {listed}")


def _by_chapter(label: str) -> Iterator[str]:
    return (
        (each for each in _exercises() if each[:5] == label[:5]) if label[:3] == "ex-" else iter(list(_exercises())[:3])
    )


def check(label: str, answer: Any = None) -> Verdict:
    """Say whether an answer is right, or what kind of mistake it is.

    Args:
        label: of the exercise, such as "ex-05-layer".
        answer: what `stub(label)` asks for: a dictionary of parts, or the one part by itself. `...` or None: what is asked for, and
            the first hint.

    Returns:
        What is shown; its `right` is True or False.

    Raises:
        ValueError: no exercise has this label; the message names near ones.

    Example:
        >>> check("ex-11-share", {"share": 0.41, "bound": ...}).right
        False
    """
    if label in DERIVATIONS or label in OPEN:
        try:
            exercise(label)
        except ValueError as error:
            return Verdict(label, False, (f"{error}.",))
    return exercise(label).check(answer)


def form(label: str, answer: Any = None) -> Verdict:
    """Say whether an answer has the form that is asked for, and not whether it is right; ValueError as in `hints`."""
    return exercise(label).form(answer)


def hints(label: str) -> tuple[str, str, str]:
    """The three hints of an exercise; ValueError as in `check`, and where there is no check."""
    return exercise(label).hints


def hint(label: str, step: int = 1) -> Hint:
    """One of the three hints of an exercise: `hint(label)`, `hint(label, 2)`, `hint(label, 3)`.

    Raises:
        ValueError: no exercise with a check has this label, or `step` is not 1, 2 or 3.
    """
    found = hints(label)
    number = check_integer("step", step, 1, "the first hint is 1")
    if number > len(found):
        raise ValueError(
            f"step must be at most {len(found)}, got {number}; there are three hints, and then the solution"
        )
    more = f' `hint("{label}", {number + 1})` says more.' if number < len(found) else ""
    return Hint(f"Hint {number} of 3: {found[number - 1]}{more}")


def stub(label: str) -> str:
    """The source of a cell to answer an exercise in; ValueError as in `hints`."""
    return exercise(label).stub()
