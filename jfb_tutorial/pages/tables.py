"""Tables: real ones on a page, aligned text in a terminal and for the notebook's test::

table(["rule", "cosine", "time [ms]"], [["JFB", "0.923", "1.2"], ["exact", "1", "14.0"]], caption="…")
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Integral

__all__ = ["Table", "table", "table_of"]

_STYLE = (
    ".jfb-table{overflow-x:auto;margin:1em 0}.jfb-table table{border-collapse:collapse;margin:0;font-size:.95em;"
    "font-variant-numeric:tabular-nums}.jfb-table caption{caption-side:top;text-align:left;padding:0 0 .4em;color:inherit}"
    ".jfb-table th,.jfb-table td{text-align:right;padding:.2em .9em .2em 0;border:0;border-bottom:1px solid "
    "rgba(128,128,128,.3);background:transparent;vertical-align:bottom;font-weight:normal;white-space:nowrap}"
    ".jfb-table thead th{font-weight:600;white-space:normal}.jfb-table .jfb-words{text-align:left;white-space:normal}"
    # what a shorter number lacks, so that the points stand under each other
    ".jfb-table i{visibility:hidden;font-style:normal}"
    # on a phone, where there are many columns, a row is a small list, each number under its heading's name
    "@media(max-width:480px){.jfb-many thead{position:absolute;clip-path:inset(50%)}.jfb-many tr{display:block;padding:.3em 0;"
    "border-bottom:1px solid rgba(128,128,128,.3)}.jfb-many th,.jfb-many td{display:flex;justify-content:space-between;border:0;"
    "text-align:right;padding:.05em 0;gap:1em}.jfb-many tbody th{font-weight:600}.jfb-many i{display:none}"
    ".jfb-many td::before{content:attr(data-name);text-align:left}}"
)
_NUMBER = re.compile(r"[−\-+±<≤>≥≈~ ]*\d[\d,]*")
"""A number up to its decimal point, and what may stand before it."""
_MANY = 4
"""So many columns of numbers do not fit a phone side by side."""


@dataclass(frozen=True, repr=False)
class Table:
    """Rows of cells under headings, all of them text; see `table`."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str

    def __repr__(self) -> str:
        lines = [self.head, *self._padded()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.head))]
        words = self._words()

        def line(cells: Sequence[str]) -> str:
            parts = [
                cell.ljust(width) if left else cell.rjust(width)
                for cell, width, left in zip(cells, widths, words, strict=True)
            ]
            return "  ".join(parts).rstrip()

        return "\n".join([self.caption, line(self.head), *map(line, lines[1:])])

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/html": self._html(), "text/plain": repr(self)}

    def _words(self) -> list[bool]:
        """Which columns hold words and are set to the left: those without a number, the first always."""
        return [i == 0 or not any(_point(row[i]) is not None for row in self.rows) for i in range(len(self.head))]

    def _padded(self) -> list[list[str]]:
        """The rows with blanks after shorter numbers, so that the points of a column stand under each other."""
        after = [
            max((len(row[i]) - point for row in self.rows if (point := _point(row[i])) is not None), default=0)
            for i in range(len(self.head))
        ]
        words = self._words()
        return [
            [
                cell if left or (point := _point(cell)) is None else cell + " " * (room - (len(cell) - point))
                for cell, room, left in zip(row, after, words, strict=True)
            ]
            for row in self.rows
        ]

    def _html(self) -> str:
        kind = ['class="jfb-words"' if left else "" for left in self._words()]
        head = "".join(f'<th scope="col" {c}>{escape(cell)}</th>' for cell, c in zip(self.head, kind, strict=True))
        body = "".join(f"<tr>{self._row(row, kind)}</tr>" for row in self._padded())
        many = " jfb-many" if len(self.head) > _MANY else ""
        return (
            f'<style>{_STYLE}</style><div class="jfb-table{many}" tabindex="0" role="region" aria-label="{escape(self.caption)}">'
            f"<table><caption>{escape(self.caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def _row(self, row: Sequence[str], kind: Sequence[str]) -> str:
        first, *rest = row
        cells = [f'<th scope="row" {kind[0]}>{escape(first)}</th>']
        for name, cell, c in zip(self.head[1:], rest, kind[1:], strict=True):
            text = cell.rstrip()
            # as wide as what a longer number has there
            missing = len(cell) - len(text)
            filling = "0" * missing if "." in text or not missing else "." + "0" * (missing - 1)
            hidden = f'<i aria-hidden="true">{filling}</i>' if missing else ""
            cells.append(f'<td data-name="{escape(name)}" {c}><span>{escape(text)}{hidden}</span></td>')
        return "".join(cells)


def table(head: Iterable[str], rows: Iterable[Iterable[str | int]], *, caption: str) -> Table:
    """A table, as the last expression of a cell.

    Args:
        head: the headings, units in brackets: "time [ms]".
        rows: the cells of each row, the first of which names it. Text as it is to be seen, formatted numbers most often, or
            integers; "" where there is nothing.
        caption: what the table shows, in a sentence.

    Raises:
        ValueError: a row has not as many cells as there are headings; there is no row; the caption says nothing.
        TypeError: a cell is neither text nor an integer; a row is text and not cells.
    """
    # a generator has no length, and gives its items once
    head, rows = tuple(head), list(rows)
    if not rows:
        raise ValueError("rows must hold at least one row")
    if len(caption.split()) < 3:
        raise ValueError(f"caption must say what the table shows, got {caption!r}; write a sentence")
    made = []
    for number, row in enumerate(rows):
        if isinstance(row, str):
            raise TypeError(f"row {number} must be a sequence of cells, got {row!r}; put it in brackets")
        made.append(tuple(_text(cell) for cell in row))
        if len(made[-1]) != len(head):
            raise ValueError(f"row {number} must have {len(head)} cells, one for each heading, got {len(made[-1])}")
    return Table(head, tuple(made), " ".join(caption.split()))


def table_of(rows: Iterable[Mapping], columns: Mapping[str, str], *, caption: str) -> Table:
    """A table of things that have the same keys, such as the epochs of a record.

    Args:
        rows: mappings, one a row.
        columns: for each heading, how its cells are written, as for `str.format`: `{"rate": "{lr:.2f}"}`.
        caption: as for `table`.
    """
    cells = [[written.format_map(row) for written in columns.values()] for row in rows]
    return table(list(columns), cells, caption=caption)


def _text(cell: str | int) -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Integral) and not isinstance(cell, bool):
        return f"{cell:,}"
    raise TypeError(
        f"a cell must be text or an integer, got {cell!r} of type {type(cell).__name__}; format it with the digits to be seen"
    )


def _point(cell: str) -> int | None:
    """Where the decimal point of a number stands, or its end; None for words."""
    number = _NUMBER.match(cell)
    return number.end() if number else None
