"""What chapter 14 shows of Sudoku: boards, and of the record `book/timings/sudoku.json` the cells of tables and a drawing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from .figures import BLUE, GREEN, GREY, PURPLE, VERMILION

__all__ = ["boards", "cells_by_rule", "listed", "of_rule", "shares", "solved_by_steps", "through_training"]

Row = Mapping[str, Any]
STYLES: dict[str, tuple[str, Any]] = {
    "every step recorded": (GREEN, "-."),
    "UPG, k = 5": (VERMILION, "--"),
    "UPG, damped": (VERMILION, ":"),
    "JFB, 64 steps": (BLUE, (0, (1, 1))),
    "JFB": (BLUE, "-"),
    "JFB, 8 steps": (GREY, (0, (5, 1, 1, 1))),
    "segments": (PURPLE, ":"),
}


DRAWN = ("every step recorded", "UPG, k = 5", "JFB", "segments")
"""What the drawing has of them."""


def of_rule(rows: Iterable[Row], rule: str, budget: str = "updates") -> list[Row]:
    """The runs of a rule, seed by seed: of JFB's number of updates, or of about JFB's time."""
    found = [row for row in rows if row["rule"] == rule and row["budget"] == budget]
    return sorted(found, key=lambda row: row["seed"])


def shares(runs: Sequence[Row], givens: int, steps: int) -> list[float]:
    """The share of the test puzzles solved after so many steps, of each run, in percent."""
    return [
        100 * run[str(givens)]["right"][run[str(givens)]["at"].index(steps)] / run[str(givens)]["puzzles"]
        for run in runs
    ]


def listed(numbers: Iterable[float | None], digits: int = 0) -> str:
    """A number of each seed, in their order; nothing where there is none."""
    return " / ".join(f"{number:.{digits}f}" for number in numbers if number is not None)


def cells_by_rule(rows: Sequence[Row], costs: Iterable[Row], givens: int = 18, steps: int = 128) -> list[list[str]]:
    """For each way what an update costs, the residual in training of each seed, and what it solves, then what it solves in JFB's time."""
    seconds, cells = {cost["rule"]: cost["seconds"] for cost in costs}, []
    for rule in STYLES:
        equal, timed = of_rule(rows, rule), of_rule(rows, rule, "time")
        cells.append(
            [
                rule,
                f"{seconds[rule] / seconds['JFB']:.1f}",
                listed((run["residual_in_training"] for run in equal), 3),
                listed(shares(equal, givens, steps)),
                str(timed[0]["updates"]) if timed else "",
                listed(shares(timed, givens, steps)),
            ]
        )
    return cells


def through_training(runs: Mapping[str, Row]) -> Figure:
    """The loss and the residual in training of a few runs."""
    fig, axes = plt.subplots(2, 1, figsize=(4.8, 4.2), sharex=True)
    for (name, run), dashes, color in zip(runs.items(), ("-", "--"), (VERMILION, BLUE), strict=False):
        updates = [10 * k + 5 for k in range(len(run["curve"]))]
        for ax, part in zip(axes, zip(*run["curve"], strict=True), strict=True):
            ax.plot(updates, part, color=color, ls=dashes, label=name)
    axes[0].set(ylabel="training loss", ylim=(0, None))
    axes[0].legend(loc="upper right")
    axes[1].set(yscale="log", ylabel="residual", xlabel="update")
    return fig


def solved_by_steps(rows: Sequence[Row], givens: Sequence[int] = (18, 14)) -> Figure:
    """The share solved against the steps at test time, a panel a degree of hardness, a line a seed."""
    fig, axes = plt.subplots(len(givens), 1, figsize=(4.8, 2.6 * len(givens) + 0.4), sharex=True)
    for ax, of in zip(axes, givens, strict=True):
        for rule in DRAWN:
            color, dashes = STYLES[rule]
            for k, run in enumerate(of_rule(rows, rule)):
                at = run[str(of)]["at"]
                solved = [shares([run], of, steps)[0] for steps in at]
                ax.plot(at, solved, color=color, ls=dashes, lw=1.4, label=rule if k == 0 else None)
        ax.axvline(33, color=GREY, lw=0.8)
        ax.set(xscale="log", ylim=(-3, 103), ylabel="solved (percent)", title=f"{of} givens")
        ax.set(xticks=at, xticklabels=at)
        ax.minorticks_off()
    axes[-1].set(xlabel="steps at test time")
    axes[-1].legend(loc="upper left")
    return fig


def _board(ax: Axes, title: str, given: Tensor, digits: Tensor | None, sure: Tensor | None, solved: Tensor) -> None:
    for r in range(6):
        for c in range(6):
            digit, kept = int(given[r, c]), bool(given[r, c])
            if kept:
                ax.add_patch(Rectangle((c, r), 1, 1, color="#e0e0e0", lw=0))
            elif digits is not None and sure is not None:
                digit = int(digits[r, c])
                wrong = digit != int(solved[r, c])
                shade = max(0.0, (float(sure[r, c]) - 1 / 6) * 6 / 5)
                ax.add_patch(Rectangle((c, r), 1, 1, color=VERMILION if wrong else BLUE, alpha=0.55 * shade, lw=0))
            if digit:
                ax.text(c + 0.5, r + 0.53, str(digit), ha="center", va="center", weight="bold" if kept else "normal")
    for k in range(7):
        for horizontal, thick in ((True, k % 2 == 0), (False, k % 3 == 0)):
            line = ([0, 6], [k, k]) if horizontal else ([k, k], [0, 6])
            ax.plot(*line, color="black", lw=1.4 if thick else 0.4, ls="-", clip_on=False)
    ax.set(xlim=(0, 6), ylim=(6, 0), aspect="equal", title=title)
    ax.axis("off")


def boards(given: Tensor, solved: Tensor, reads: Sequence[tuple[str, Tensor | None, Tensor | None]]) -> Figure:
    """A puzzle as it is read at some steps, each with its title, digits and their probabilities `(6, 6)`; orange where it is wrong."""
    fig, axes = plt.subplots(2, (len(reads) + 1) // 2, figsize=(4.8, 5.2))
    for ax, (title, digits, sure) in zip(axes.flat, reads, strict=False):
        _board(ax, title, given, digits, sure, solved)
    for ax in axes.flat[len(reads) :]:
        ax.remove()
    return fig
