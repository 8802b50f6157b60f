"""Options: fields of a recipe that carry what the command line says of them, how their text is read, and their check."""

from __future__ import annotations

import ast
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any

from .._checks import check_choice, check_flag, check_integer, check_positive, shown

__all__ = ["added", "call", "count", "fraction", "number", "one_of", "option", "parse", "switch"]

Reader = Callable[[str, str], Any]
"""From an option's name and its text on the command line to its value."""
Check = Callable[[str, Any], Any]
"""From an option's name and its value to the value that stands in the recipe; raises TypeError or ValueError."""


TOO_LARGE = 1e15
"""No rate is of any use there, and what an optimiser makes of it is beyond float32's largest number, 3.4e38."""


def option(default: Any, help: str, *, parse: Reader | None, check: Check) -> Any:
    """A field of a dataclass.

    Args:
        default: its value where none is given.
        help: what the command line says of it.
        parse: how its text is read; None for what is on or off.
        check: what its value has to be.
    """
    return field(default=default, metadata={"help": help, "parse": parse, "check": check})


def added(field: Any) -> Any:
    """A field that came later: records and checkpoints hold it only where it is not at its default, as those made before do not."""
    # what `field()` has made is no annotation of a class yet, so that its metadata may still be replaced
    field.metadata = MappingProxyType({**field.metadata, "added": True})
    return field


def switch(default: bool, help: str) -> Any:
    """On or off."""
    return option(default, help, parse=None, check=check_flag)


def count(default: int, help: str, *, least: int = 0) -> Any:
    """A whole number of at least `least`."""
    return option(
        default,
        help,
        parse=read_integer,
        check=lambda name, value: check_integer(name, value, least, f"{least} is the least that makes sense"),
    )


def number(default: float | None, help: str, *, check: Check) -> Any:
    """A number, with a check of its own."""
    return option(default, help, parse=read_number, check=check)


def fraction(default: float, help: str, *, below: float = TOO_LARGE) -> Any:
    """A number from 0 on, and below `below`."""

    def check(name: str, value: Any) -> float:
        value = as_number(name, value)
        # so written, NaN is refused too
        if not 0 <= value < below:
            raise ValueError(f"{name} must be at least 0 and below {below:g}, got {value}")
        return value

    return number(default, help, check=check)


def one_of(default: str, help: str, valid: Iterable[str]) -> Any:
    """One of a few names."""
    names = tuple(valid)
    return option(default, help, parse=read_text, check=lambda name, value: check_choice(name, value, names))


def call(default: Callable | None, help: str, known: Mapping[str, Callable], *, optional: bool = False) -> Any:
    """An object of one of the classes `known`, in Python also given as its code; with `optional`, None too."""

    def check(name: str, value: Any) -> Any:
        if isinstance(value, str):  # records and checkpoints hold rules and solvers as code
            return parse(name, value, known)
        if optional and value is None:
            return value
        if not isinstance(value, tuple(known.values())):  # type: ignore[arg-type]
            raise TypeError(f"{name} must be one of {', '.join(known)}, with (), got {value!r}")
        try:
            written = parse(name, repr(value), known)
        except (TypeError, ValueError):
            written = None
        # otherwise what is trained could not be read again
        if written != value:
            raise TypeError(f"{name} cannot be written down and read again: {value!r}; give it plain Python numbers")
        return value

    return option(default, help, parse=lambda name, text: parse(name, text, known), check=check)


def positive_or_error(remedy: str) -> Check:
    """The check of a number above 0; `remedy` says what is usual. An integer stays one, as old records have it."""

    def check(name: str, value: Any) -> Any:
        number = as_number(name, value)
        check_positive(name, number, remedy, below=TOO_LARGE)
        return number

    return check


def number_or_none(name: str, value: Any) -> int | float | None:
    """The check of a number whose bounds whoever uses it knows."""
    return None if value is None else as_number(name, value)


def as_number(name: str, value: Any) -> int | float:
    """`value`, of NumPy for instance, as a number of Python, which JSON can hold; TypeError if it is none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(
            f"{name} must be a number that a float holds, got {shown(value)}; give one below 1e308"
        ) from None
    return int(value) if isinstance(value, Integral) else number


def parse(name: str, text: str, known: Mapping[str, Callable]) -> Any:
    """What `text` makes, the name of a class of `known` with or without literal arguments: "JFB", "NeumannSeries(terms=6)".

    Raises:
        ValueError: it is no such thing; the nearest name is offered.
        TypeError: the class does not take these arguments.
    """
    try:
        spelt, positional, named = _call_in(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        shown = repr(text) if len(text) <= 100 else f"{text[:97]!r}…, {len(text):,} characters"
        raise ValueError(
            f"{name} must be a name, with arguments if need be, such as {next(iter(known))}(), got {shown}"
        ) from None
    # in a shell, jfb is JFB
    lower = {key.lower(): key for key in known}
    build = known[lower.get(spelt.lower()) or check_choice(name, spelt, known)]
    try:
        return build(*positional, **named)
    except TypeError as error:
        raise TypeError(f"{name} {text!r}: {error}") from None


def _call_in(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """The name and the literal arguments of a call, which is not made; ValueError or SyntaxError if it is none."""
    # not eval: text from a record or a checkpoint must not run
    if len(text) > 1000:  # nested a thousand times, it is more than Python's parser has memory for
        raise ValueError("too long")
    tree = ast.parse(text.strip(), mode="eval").body
    positional: list[Any] = []
    named: dict[str, Any] = {}
    if isinstance(tree, ast.Call):
        positional = [ast.literal_eval(argument) for argument in tree.args]
        for keyword in tree.keywords:
            if keyword.arg is None:
                raise ValueError("** is no literal argument")
            named[keyword.arg] = ast.literal_eval(keyword.value)
        tree = tree.func
    if not isinstance(tree, ast.Name):
        raise ValueError("not a name")
    return tree.id, positional, named


def read_text(name: str, text: str) -> str:
    """The text itself."""
    return text


def read_integer(name: str, text: str) -> int:
    """A whole number; ValueError if it is none."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name} must be an integer, got {reprlib.repr(text)}") from None


def read_number(name: str, text: str) -> float:
    """A number; ValueError if it is none."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, got {reprlib.repr(text)}") from None
