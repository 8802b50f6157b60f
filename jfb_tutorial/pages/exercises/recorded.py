"""The records of the book, for the exercises that read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .running import Stopped

__all__ = ["book_file", "record"]

_PLACES = (Path(), Path(".."), Path(__file__).resolve().parents[3] / "book")


def book_file(name: str) -> Path:
    """A file that stands beside the chapters, such as `records/digits-jfb-cpu-0.json`.

    Raises:
        Stopped: it is not where chapters run.
    """
    for place in _PLACES:
        if (place / name).exists():
            return place / name
    raise Stopped(f"This check reads `{name}` of the book, which is not here: run it in the folder of the chapters.")


def record(name: str) -> Any:
    """What a record in JSON holds."""
    return json.loads(book_file(name).read_text())
