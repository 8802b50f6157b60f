"""What a check and a hint show: a line or a few, in text and as HTML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape

__all__ = ["Hint", "Verdict"]

_BLUE, _ORANGE = "#0072B2", "#C04A00"


@dataclass(frozen=True, repr=False)
class Verdict:
    """What a check found.

    Attributes:
        label: of the exercise.
        right: whether every part of the answer is.
        lines: what is said.
        parts: by the name of each part whether it is right; a part that is still open is not.
        mistakes: the names of the mistakes that were recognised, such as `through-the-iteration`.
    """

    label: str
    right: bool
    lines: tuple[str, ...]
    parts: Mapping[str, bool] = field(default_factory=dict)
    mistakes: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """The share of the parts that are right, from 0 to 1."""
        return sum(self.parts.values()) / len(self.parts) if self.parts else float(self.right)

    def __repr__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        return _box(self.lines, _BLUE if self.right else _ORANGE)


@dataclass(frozen=True, repr=False)
class Hint:
    """One of the three hints of an exercise."""

    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return _box((self.text,), "#777777")


def _box(lines: tuple[str, ...], colour: str) -> str:
    paragraphs = "".join(f'<p style="margin:.2em 0">{_inline(line)}</p>' for line in lines)
    return (
        f'<div role="status" style="border-left:3px solid {colour};padding:.2em .9em;margin:.3em 0;max-width:44em">'
        f"{paragraphs}</div>"
    )


def _emphasised(text: str) -> str:
    return re.sub(r"\*(\w[^*]*)\*", r"<em>\1</em>", escape(text))


def _inline(text: str) -> str:
    """HTML of a line; `code` between backticks, *stress* between stars, and the first word of a verdict in bold."""
    parts = re.split(r"`([^`]*)`", text)
    html = "".join(f"<code>{escape(part)}</code>" if i % 2 else _emphasised(part) for i, part in enumerate(parts))
    return re.sub(r"^(Right\.|Not yet\.|Still open\.|Hint \d of 3:)", r"<strong>\1</strong>", html)
