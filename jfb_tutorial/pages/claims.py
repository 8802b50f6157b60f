"""A claim of a paper, checked by machine beside the sentence that states it::

    Claim("jfb-lemma-F.1-step-1", "T is a ½-contraction of [−α, α].", source="JFB (78)–(80)",
          concluded=[Check("largest ratio on [−α, α]", ratio, "<=", 0.5)],
          dropped=[Check("the same on [−1, 1]", wide, "<=", 0.5)])

What a cell shows of it, the stored output carries as data too (`MIME_TYPE`): the book's ledger of claims is collected from
there, and a claim whose numbers change fails the notebook's test.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["MIME_TYPE", "Check", "Claim"]

MIME_TYPE = "application/vnd.jfb-tutorial.claim+json"

_RELATIONS = {  # the relation, and how it and its contrary are written
    "<": (operator.lt, "<", "≥"),
    "<=": (operator.le, "≤", ">"),
    ">": (operator.gt, ">", "≤"),
    ">=": (operator.ge, "≥", "<"),
    "==": (operator.eq, "=", "≠"),
}
# a bound of at most this is one on rounding errors, not on a quantity
_ROUNDING = 1e-9
_VERDICTS = {
    "holds": "holds as measured",
    "fails": "fails as measured",
    "silent": "says nothing here: a hypothesis fails",
}
_MARKS = {"holds": "✓", "fails": "✗", "silent": "–"}
# what is said of a conclusion once a hypothesis is dropped: it is to fail, so that neither is marked as right or wrong
_DROPPED = {True: "still holds", False: "no longer holds"}
_STYLE = (
    ".jfb-claim{border-left:3px solid #0072B2;padding:.25em .9em;margin:1em 0;font-size:.95em}"
    ".jfb-claim[data-verdict=fails]{border-left-color:#C04A00}"
    # a quiet one belongs to the paragraph above it
    ".jfb-claim[data-quiet]{border-left:0;margin:-.4em 0 1em;padding:0;font-size:.85em}"
    ".jfb-claim summary{cursor:pointer}.jfb-claim summary small{font-size:.93em}"
    ".jfb-claim>div{padding:.3em 0 .2em 1.1em}.jfb-claim table{border-collapse:collapse;width:100%;margin:.3em 0 0}"
    ".jfb-claim th,.jfb-claim td{text-align:left;padding:.15em .6em .15em 0;vertical-align:top;border:0;"
    "background:transparent;font-weight:normal}.jfb-claim th[scope=rowgroup]{font-weight:bold;padding-top:.5em}"
    ".jfb-claim td+td{white-space:nowrap;font-variant-numeric:tabular-nums}"
    "@media(max-width:600px){.jfb-claim tr{display:block;padding-bottom:.3em}.jfb-claim td:first-child{display:block}"
    ".jfb-claim td{display:inline}}"
)
CODE = "<!-- the code of the cell -->"
"""Where a published page puts the code that checks a claim: inside its box, before the end."""


@dataclass(frozen=True)
class Check:
    """One measured inequality.

    Args:
        what: the quantity, in words or in plain symbols.
        measured: its value.
        relation: one of `<`, `<=`, `>`, `>=`, `==`.
        bound: what it is compared with.
    """

    what: str
    measured: float
    relation: str
    bound: float

    def __post_init__(self) -> None:
        if self.relation not in _RELATIONS:
            raise ValueError(f"relation must be one of {', '.join(_RELATIONS)}, got {self.relation!r}")
        for name in ("measured", "bound"):
            value = getattr(self, name)
            try:
                # float() would read a number out of text
                if isinstance(value, str):
                    raise TypeError
                # float() warns of a tensor that requires a gradient
                value = float(value.detach() if hasattr(value, "detach") else value)
            except OverflowError:
                raise ValueError(
                    f"{name} must be a number that a float holds, at most about 1e308; divide both sides by a power of ten"
                ) from None
            except (TypeError, ValueError, RuntimeError):
                raise TypeError(
                    f"{name} must be one real number, got {type(value).__name__}; reduce it first"
                ) from None
            # the way around `frozen`, open to __post_init__
            object.__setattr__(self, name, value)

    @property
    def holds(self) -> bool:
        """Whether the measured value stands in the relation to the bound; never so for NaN."""
        return bool(_RELATIONS[self.relation][0](self.measured, self.bound))

    def __str__(self) -> str:
        """What was found, as a true statement: `0.46 ≤ 0.5`, or `0.77 > 0.5` where the check fails."""
        if self.holds and self.relation == "==":
            return _number(self.measured)
        if self.holds and self.relation in ("<", "<=") and self.measured >= 0 and 0 < self.bound <= _ROUNDING:
            return f"below {_number(self.bound)}"  # digits of a rounding error are noise, and differ between machines
        sign = "?" if math.isnan(self.measured) else _RELATIONS[self.relation][1 if self.holds else 2]
        for digits in (4, 6, 8, 12, 17):  # as many as it takes to tell the two apart
            left, right = _number(self.measured, digits), _number(self.bound, digits)
            if left != right or self.measured == self.bound:
                break
        return f"{left} {sign} {right}"


@dataclass(frozen=True, repr=False)
class Claim:
    """A claim, its hypotheses and its conclusions, each measured.

    Args:
        identifier: the paper and the number, such as `jfb-theorem-3.1`; the name in the ledger and of the link.
        states: the claim in one sentence of plain text.
        source: where the paper says so, such as `JFB Theorem 3.1`.
        assumed: the hypotheses.
        concluded: what should follow.
        dropped: conclusions measured with a hypothesis dropped. They should fail: they show what it is needed for.
        tested: how it was tested and what came out, in words, for the line that is seen before the box is opened, such as
            "10,000 of 10,000 cases; without full rank it fails". Without it the line counts the measurements.
        quiet: a claim that belongs to the paragraph above it, and has no line of its own but a small one.

    Example:
        >>> slope = 5 * 0.5**4
        >>> claim = Claim(
        ...     identifier="jfb-lemma-F.1",
        ...     states="T(y) = d + y⁵ is a contraction near 0.",
        ...     source="JFB Lemma F.1",
        ...     concluded=Check("T'(0.5)", slope, "<", 1),
        ...     dropped=Check("T'(0.8)", 5 * 0.8**4, "<", 1),
        ... )
        >>> claim.verdict
        'holds'
        >>> claim
        jfb-lemma-F.1 (JFB Lemma F.1): holds as measured
          T(y) = d + y⁵ is a contraction near 0.
          Concluded
            T'(0.5): 0.3125 < 1  ✓
          With a hypothesis dropped
            T'(0.8): 2.048 ≥ 1  no longer holds
    """

    identifier: str
    states: str
    source: str
    assumed: Sequence[Check] = ()
    concluded: Sequence[Check] = ()
    dropped: Sequence[Check] = ()
    tested: str = ""
    quiet: bool = False

    def __post_init__(self) -> None:
        # it becomes an id in HTML and the end of an address
        if not re.fullmatch(r"[a-z]+(-[A-Za-z0-9.]+)+", self.identifier):
            raise ValueError(f"identifier must look like jfb-theorem-3.1, got {self.identifier!r}")
        for name in ("assumed", "concluded", "dropped"):
            checks = getattr(self, name)
            checks = (checks,) if isinstance(checks, Check) else tuple(checks)
            for check in checks:
                if not isinstance(check, Check):
                    raise TypeError(f"{name} must hold Check objects, got {type(check).__name__}")
            object.__setattr__(self, name, checks)
        if not self.concluded:
            raise ValueError("concluded must hold at least one Check: a claim that measures nothing shows nothing")

    @property
    def verdict(self) -> str:
        """`holds`, `fails`, or `silent` where a hypothesis fails and the claim says nothing."""
        if not all(check.holds for check in self.assumed):
            return "silent"
        return "holds" if all(check.holds for check in self.concluded) else "fails"

    def to_dict(self) -> dict:
        """The claim as JSON-ready data; numbers are rounded to 4 significant digits, as shown."""
        groups = {
            name: [{"what": check.what, "shown": str(check), "holds": check.holds} for check in getattr(self, name)]
            for name in ("assumed", "concluded", "dropped")
        }
        return {
            "identifier": self.identifier,
            "states": self.states,
            "source": self.source,
            "verdict": self.verdict,
            **groups,
        }

    def __repr__(self) -> str:
        lines = [f"{self.identifier} ({self.source}): {_VERDICTS[self.verdict]}", f"  {self.states}"]
        for title, checks, marks in self._groups():
            lines.append(f"  {title}")
            lines += [f"    {check.what}: {check}  {marks[check.holds]}" for check in checks]
        return "\n".join(lines)

    def _groups(self):
        plain = {True: "✓", False: "✗"}
        groups = [
            ("Assumed", self.assumed, plain),
            ("Concluded", self.concluded, plain),
            ("With a hypothesis dropped", self.dropped, _DROPPED),
        ]
        return [group for group in groups if group[1]]

    @property
    def _tested(self) -> str:
        """How it was tested, in words."""
        if self.tested:
            return self.tested
        count = len(self.concluded)
        words = "checked" if count == 1 else f"checked in {count} measurements"
        if not self.dropped:
            return words
        failing = sum(not check.holds for check in self.dropped)
        if failing == len(self.dropped):
            return f"{words}; it fails without {'its hypothesis' if failing == 1 else 'its hypotheses'}"
        cases = "the one case" if len(self.dropped) == 1 else f"{len(self.dropped)} cases"
        return f"{words}; of {cases} without a hypothesis it fails in {failing or 'none'}"

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {MIME_TYPE: self.to_dict(), "text/html": self._html(), "text/plain": repr(self)}

    def _html(self) -> str:
        rows = []
        for title, checks, marks in self._groups():
            rows.append(f'<tbody><tr><th scope="rowgroup" colspan="3">{title}</th></tr>')
            for check in checks:
                shown, mark = escape(str(check)), marks[check.holds]
                rows.append(f"<tr><td>{escape(check.what)}</td><td>{shown}</td><td>{mark}</td></tr>")
            rows.append("</tbody>")
        states, found = escape(self.states), escape(self._tested)
        if self.verdict != "holds":
            # that it was checked, its verdict says too
            found = _VERDICTS[self.verdict] + (f"; {found}" if found != "checked" else "")
        mark = f"<span>{_MARKS[self.verdict]}</span>"
        # a quiet one says only that, and how, its paragraph was checked; the sentence is inside
        line = f"{mark} {found}" if self.quiet else f"{mark} <strong>{states}</strong> <small>{found}</small>"
        sentence = f"<p>{states}</p>" if self.quiet else ""
        # the name is inside, so that a link to it opens the box
        return (
            f'<style>{_STYLE}</style><details class="jfb-claim" data-verdict="{self.verdict}"'
            f"{' data-quiet' if self.quiet else ''}{' open' if self.verdict != 'holds' else ''}><summary>{line}</summary>"
            f'<div id="{self.identifier}">{sentence}<small>{escape(self.source)} · <code>{self.identifier}</code></small>'
            f"<table>{''.join(rows)}</table>{CODE}</div></details>"
        )


def _number(value: float, digits: int = 4) -> str:
    """At most `digits` significant digits; small integers stay as they are."""
    if math.isnan(value) or math.isinf(value):
        return str(value)
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.{digits}g}"
