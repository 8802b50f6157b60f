"""The form of what is read from JSON: files may be damaged, or made by others, and are not believed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["COUNT", "NUMBER", "OBJECT", "TEXT", "Kind", "check_form", "escape", "or_null", "read_json"]


@dataclass(frozen=True)
class Kind:
    """A kind of value: its name in a message, and whether a value is of it."""

    name: str
    holds: Callable[[Any], bool]


TEXT = Kind("a text", lambda value: isinstance(value, str))
# type and not isinstance: to Python True is the integer 1
COUNT = Kind("a whole number from 0 on", lambda value: type(value) is int and value >= 0)
NUMBER = Kind("a number", lambda value: type(value) is int or (type(value) is float and math.isfinite(value)))
OBJECT = Kind("an object", lambda value: isinstance(value, dict))

Form = Kind | dict[str, Any] | list[Any]
"""A kind; a dictionary from the names of fields to their forms, a name with a "?" for one that may be missing, or the name "*" for
all others; a list that holds the form of all its items."""


def or_null(kind: Kind) -> Kind:
    """That kind, or null."""
    return Kind(f"{kind.name} or null", lambda value: value is None or kind.holds(value))


def check_form(file: Path | str, value: Any, form: Form, field: str = "") -> None:
    """Refuse a value of another form.

    Args:
        file: where it was read.
        value: as `json.loads` gives it.
        form: what it has to be.
        field: its name in the file, "" for all of it.

    Raises:
        ValueError: it has another form; the message names the file and the field.
    """
    if isinstance(form, Kind):
        if not form.holds(value):
            raise ValueError(_fault(file, field, f"must be {form.name}, got {_shorten(value)}"))
    elif isinstance(form, list):
        if not isinstance(value, list):
            raise ValueError(_fault(file, field, f"must be a list, got {_shorten(value)}"))
        for index, item in enumerate(value):
            check_form(file, item, form[0], f"{field}[{index}]")
    else:
        check_form(file, value, OBJECT, field)
        _check_fields(file, value, form, field)


def _check_fields(file: Path | str, value: dict[str, Any], form: dict[str, Any], field: str) -> None:
    for key, inner in form.items():
        names = [key.removesuffix("?")] if key != "*" else [name for name in value if name not in form]
        for name in names:
            path = f"{field}.{escape(name)}" if field else escape(name)
            if name in value:
                check_form(file, value[name], inner, path)
            elif not key.endswith("?"):
                raise ValueError(_fault(file, path, "is missing"))


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of UTF-8, of JSON, an endless number, brackets without an end
        raise ValueError(f"{path} is not readable ({error}); take another copy of it") from None


def escape(text: Any) -> str:
    """A text out of a file as it may be printed: what moves the cursor or begins a line is written as in Python, "\\x1b"."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(text))


def _fault(file: Path | str, field: str, fault: str) -> str:
    return f"{file} is damaged or was altered: {field or 'what it holds'} {fault}; take another copy of it"


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
