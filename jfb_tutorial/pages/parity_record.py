"""What chapter 13 shows of its record, `book/timings/parity.json`: shares, tables' cells, and its three drawings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from .figures import BLUE, GREEN, GREY, VERMILION

__all__ = [
    "act",
    "cells_by_rule",
    "lengths",
    "lower_end",
    "percent",
    "share",
    "through_training",
    "tolerance",
    "total",
    "travel",
]

Row = Mapping[str, Any]


def total(rows: Iterable[Row], bits: int, key: str) -> int:
    """The sum of a count over the rows for strings of this length."""
    return sum(row[key] for row in rows if row["bits"] == bits)


def share(rows: Sequence[Row], bits: int, key: str = "right") -> float:
    """The share of the strings of a length that are right in every bit, or with `bits_right` of their single bits."""
    return total(rows, bits, key) / (total(rows, bits, "strings") * (bits if key == "bits_right" else 1))


def percent(rows: Sequence[Row], bits: int, key: str = "right") -> str:
    """`share` as a cell of a table."""
    return f"{100 * share(rows, bits, key):.0f} %"


def lower_end(right: int, count: int) -> float:
    """The lower end of Wilson's 95 % interval."""
    return binomtest(right, count).proportion_ci(method="wilson").low


def tolerance(tol: float) -> str:
    """A tolerance as a decimal fraction."""
    return f"{tol:.5f}".rstrip("0")


def cells_by_rule(rows: Iterable[Row]) -> list[list[str]]:
    """For each rule its updates and its seconds until solved, those of all seeds, the smallest first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["rule"], []).append(row)

    def ranged(rows: list[Row], key: str, digits: int) -> str:
        known = sorted(row[key] for row in rows if row[key] is not None)
        missing = len(rows) - len(known)
        return " / ".join([f"{value:.{digits}f}" for value in known] + ["not solved"] * missing)

    return [[name, ranged(rows, "updates", 0), ranged(rows, "seconds", 1)] for name, rows in found.items()]


def act(probes: Iterable[Row], first: int, last: int) -> str:
    """At how many of the probes from one update to another the criterion held: "3 of 5"."""
    found = [
        string["criterion"]
        for row in probes
        if first <= row["update"] <= last
        for string in row["strings"]
        if string.get("criterion") is not None
    ]
    return f"{sum(smallest > 0 for smallest in found)} of {len(found)}"


def lengths(runs: Sequence[Row]) -> Figure:
    """Steps to rest against the length of the string, a line a seed."""
    bits = [row["bits"] for row in runs[0]["lengths"]]
    fig, ax = plt.subplots(figsize=(4.8, 3.2))
    for i, run in enumerate(runs):
        steps = [row["steps"] for row in run["lengths"]]
        label = f"median steps, {len(runs)} seeds" if i == 0 else None
        ax.plot(bits, steps, "o-", color=BLUE, alpha=0.7, lw=1, label=label)
    ax.plot(bits, [n / 2 for n in bits], "--", color=GREY, label="two bits a step: the least")
    ax.axvline(16, color=VERMILION, ls=":", label="the length in training")
    ax.set(xscale="log", yscale="log", xlabel="bits", ylabel="steps to rest", xticks=bits, xticklabels=bits)
    ax.set(yticks=[10, 30, 100, 300, 1000], yticklabels=[10, 30, 100, 300, "1,000"])
    ax.minorticks_off()
    ax.legend(loc="lower right")
    return fig


def travel(reads: ArrayLike, truth: ArrayLike, residuals: Sequence[float], tol: float) -> Figure:
    """What S reads at each step `(steps, bits)`, orange where it is wrong, above the relative residual."""
    reads, truth = np.asarray(reads), np.asarray(truth)
    fig, (top, low) = plt.subplots(2, 1, figsize=(4.8, 5.4), height_ratios=[2, 1])
    colours = ListedColormap(["#e8e8e8", BLUE, VERMILION])
    top.imshow(np.where(reads != truth, 2, reads), cmap=colours, aspect="auto", interpolation="none", vmin=0, vmax=2)
    ticks = [0, *range(15, reads.shape[1], 16)]
    top.set(xlabel="bit", ylabel="step", xticks=ticks, xticklabels=[tick + 1 for tick in ticks])
    top.grid(visible=False)
    low.semilogy(range(1, len(residuals) + 1), residuals)
    low.axhline(tol, color=GREY, ls="--")
    low.set(xlabel="step", ylabel="relative residual", yticks=[1, 1e-2, 1e-4])
    return fig


def through_training(probes: Sequence[Row]) -> Figure:
    """The loss; the largest ‖J‖ and ρ; the cosines of JFB's direction, of each seed through training."""
    fig, axes = plt.subplots(3, 1, figsize=(4.8, 6.6), sharex=True)
    for i, seed in enumerate(sorted({row["seed"] for row in probes})):
        mine = [row for row in probes if row["seed"] == seed]
        x = [row["update"] for row in mine]

        def draw(ax, y, name, color, style, x=x, first=i == 0):
            ax.plot(x[-len(y) :], y, color=color, ls=style, lw=1.2, label=name if first else None)

        draw(axes[0], [row["loss"] for row in mine[1:]], "loss", BLUE, "-")
        draw(axes[1], [max(s["norm"] for s in row["strings"]) for row in mine], "‖J‖", VERMILION, "--")
        draw(axes[1], [max(s["radius"] for s in row["strings"]) for row in mine], "ρ", BLUE, "-")
        draw(axes[2], [row.get("cosine", np.nan) for row in mine], "exact, at rest", BLUE, "-")
        draw(axes[2], [row["cosine_25"] for row in mine], "25 steps recorded", GREEN, ":")
    axes[0].set(ylabel="training loss", ylim=(0, None))
    axes[1].axhline(1, color=GREY, lw=1)
    axes[1].set(ylabel="largest of 3 strings", ylim=(0, 2.2))
    axes[1].legend(loc="upper right", ncols=2)
    axes[2].axhline(0, color=GREY, lw=1)
    axes[2].set(ylabel="cosine with JFB", xlabel="update", ylim=(-1, 1.05))
    axes[2].legend(loc="lower right")
    return fig
