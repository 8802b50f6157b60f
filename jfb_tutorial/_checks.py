"""Checks of arguments that several modules share: an error names the argument, the fault and the remedy."""

from __future__ import annotations

import math
import operator
from numbers import Real


def integer(name: str, value, least: int, remedy: str) -> int:
    """`value` as an int of at least `least`; `remedy` says what to give instead."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}; {remedy}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}; {remedy}")
    return number


def positive(name: str, value, remedy: str) -> float:
    """`value` as a finite float above 0."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}; {remedy}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}; {remedy}")
    return float(value)


def flag(name: str, value) -> bool:
    """`value`, if it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r} of type {type(value).__name__}")
    return value
