"""What the chapters' plots have in common: a band over seeds, plain numbers on a logarithmic axis, intervals about zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from .figures import BLUE, GREY, VERMILION

__all__ = ["band", "intervals", "intervals_in_words", "plain_log"]


def band(ax: Axes, x: Iterable[float], rows: ArrayLike, **style) -> Line2D:
    """The mean of several runs as a line, and behind it a band from the least to the largest.

    Args:
        ax: where to draw.
        x: `(points,)`.
        rows: `(runs, points)`.
        style: of the line, as for `ax.plot`.
    """
    x, rows = list(x), np.asarray(rows)
    (line,) = ax.plot(x, rows.mean(axis=0), **style)
    if len(rows) > 1:
        low, high = rows.min(axis=0), rows.max(axis=0)
        ax.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    return line


def plain_log(ax: Axes) -> None:
    """A logarithmic axis upwards, with its numbers written out: 2 and not 2·10⁰."""
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("{x:g}")


def intervals(
    ax: Axes, found: Mapping[str, tuple[float, float]], *, faint: Mapping[str, tuple[float, float]] | None = None
) -> None:
    """Intervals one below the other, and a line at zero: a filled mark where zero is outside, an open one where it is inside.

    Args:
        ax: where to draw.
        found: by name, a mean and half an interval.
        faint: others of the same names, drawn thinly below.
    """
    ax.axvline(0, color=GREY, linewidth=0.8)
    for y, (name, (mean, half)) in enumerate(found.items()):
        away = abs(mean) > half
        colour = VERMILION if away else BLUE
        ax.errorbar(mean, y, xerr=half, color=colour, fmt="o", linestyle="", mfc=colour if away else "white")
        if faint and name in faint:
            mean, half = faint[name]
            ax.errorbar(mean, y + 0.28, xerr=half, color=GREY, linewidth=0.9, fmt="", linestyle="")
    ax.set_yticks(range(len(found)), list(found))
    ax.set_ylim(len(found) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)


def intervals_in_words(found: Mapping[str, tuple[float, float]], digits: int = 2) -> str:
    """The numbers of a plot of intervals, for its alternative text."""
    return "; ".join(f"{name} {mean:+.{digits}f} ± {half:.{digits}f}" for name, (mean, half) in found.items())
