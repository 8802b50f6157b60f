"""What chapter 14 draws of shortest paths and of pictures out of focus, live and from its record, `book/timings/problems.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from . import paths
from .figures import BLUE, GREEN, GREY, PURPLE, VERMILION
from .sudoku_record import listed

__all__ = [
    "after_steps",
    "against",
    "ends",
    "landscape",
    "median",
    "middle",
    "pair",
    "strips",
    "three",
    "through_steps",
]

Row = Mapping[str, Any]
STYLES = [(BLUE, "-"), (GREEN, "--"), (PURPLE, "-."), (VERMILION, ":"), (GREY, (0, (5, 1, 1, 1)))]
PLACES = {"exact": 3, "50 recorded steps": 4}
"""Of the styles, where a name has the same in all figures; all others have that of their order."""


def landscape(ax, cells: Tensor, side: int = paths.SIDE) -> None:
    """The costs of the cells as shades, dear ones dark, on a logarithmic scale."""
    ax.imshow(cells.detach().reshape(side, side).log().numpy(), cmap="Greys", vmin=-2, vmax=3)
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)


def _path(ax, path: Tensor, color: str, style: Any, shift: float, side: int, label: str, width: float = 2.5) -> None:
    edges = paths.grid(side)[0][path > 0.5]
    cells = [0, *sorted(edges[:, 1].tolist())]  # along a path the numbers of the cells grow
    x, y = [cell % side + shift for cell in cells], [cell // side + shift for cell in cells]
    ax.plot(x, y, color=color, ls=style, lw=width, label=label, solid_capstyle="round")


def pair(cells: Tensor, best: Tensor, first: Tensor, flow: Tensor, last: Tensor, side: int = paths.SIDE) -> Figure:
    """Two panels over one map: the best path and an untrained layer's; the trained layer's flow, wide where much flows, and path."""
    fig, axes = plt.subplots(1, 2, figsize=(4.8, 3.1))
    for ax in axes:
        landscape(ax, cells, side)
    _path(axes[0], best, BLUE, "-", -0.1, side, "best")
    _path(axes[0], first, VERMILION, ":", 0.1, side, "untrained")
    for (leaves, enters), share in zip(paths.grid(side)[0].tolist(), flow.tolist(), strict=True):
        if share > 1e-3:
            x, y = ([cell % side for cell in (leaves, enters)], [cell // side for cell in (leaves, enters)])
            axes[1].plot(x, y, color=BLUE, ls="-", lw=7 * share, alpha=0.7, solid_capstyle="butt")
    axes[1].plot([], [], color=BLUE, ls="-", lw=4, alpha=0.7, label="flow")
    _path(axes[1], last, VERMILION, "--", 0.1, side, "trained", 1.5)
    axes[0].set_title("before training")
    axes[1].set_title("after")
    for ax in axes:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2, handlelength=1.6, columnspacing=1)
    return fig


def three(cells: Tensor, best: Tensor, side: int = paths.SIDE) -> Figure:
    """Three maps with their cheapest paths."""
    fig, axes = plt.subplots(1, 3, figsize=(4.8, 1.8))
    for ax, map_, path in zip(axes, cells, best, strict=True):
        landscape(ax, map_, side)
        _path(ax, path, BLUE, "-", 0, side, "best")
    return fig


def ends(runs: Sequence[Row], key: str, update: int | None = None) -> list[float]:
    """The last value of a curve, or that at an update, for each run, the smallest first."""
    found = [run["curve"][-1] if update is None else _at(run["curve"], update) for run in runs]
    return sorted(row[key] for row in found)


def after_steps(runs: Sequence[Row], rule: str, most: int) -> list[float]:
    """The PSNR of each run of a rule once it has made so many steps at the test, in the record's order."""
    return [look["psnr"] for run in runs if run["rule"] == rule for look in run["steps"] if look["most"] == most]


def _at(curve: Sequence[Row], update: int) -> Row:
    return next(row for row in curve if row["update"] == update)


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return float(np.median(values))


def middle(values: Sequence[float], digits: int) -> str:
    """All of them, the smallest first, as a cell of a table: "0.8 / 0.9 / 1.1"."""
    return listed(sorted(values), digits)


def against(runs: Sequence[Row], names: Sequence[str], kind: str, key: str, label: str, ylim, log: bool) -> Figure:
    """A quantity against the processor time of training, a line a run; `kind` is the key of a run's name."""
    fig, ax = plt.subplots(figsize=(4.8, 3.8))
    for place, name in enumerate(names):
        color, style = STYLES[PLACES.get(name, place)]
        for i, run in enumerate([run for run in runs if run[kind] == name]):
            curve = [row for row in run["curve"] if row["seconds"] > 0]
            x, y = [row["seconds"] for row in curve], [row[key] for row in curve]
            ax.plot(x, y, color=color, ls=style, lw=1.3, label=name if i == 0 else None)
    ax.set(xscale="log", yscale="log" if log else "linear", ylim=ylim)
    ax.set(xlabel="processor seconds of training", ylabel=label)
    for axis, ends in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ylim))[: 1 + log]:
        ticks = [digit * 10.0**power for power in range(-2, 3) for digit in (1, 2, 5)]
        axis.set_ticks([tick for tick in ticks if ends[0] <= tick <= ends[1]])
        axis.set_major_formatter("{x:g}")
        axis.set_ticks([], minor=True)
    fig.legend(loc="outside upper center", ncols=2, fontsize=9)
    return fig


def through_steps(more: Sequence[Row], names: Sequence[str], line: float, name: str) -> Figure:
    """PSNR against the steps at test time, the median over seeds with all between the least and the most shaded."""
    fig, ax = plt.subplots(figsize=(4.8, 3.2))
    for place, rule in enumerate(names):
        color, style = STYLES[PLACES.get(rule, place)]
        runs = [[step["psnr"] for step in row["steps"]] for row in more if row["rule"] == rule]
        steps = [step["most"] for step in more[0]["steps"]]
        ax.plot(steps, np.median(runs, axis=0), color=color, ls=style, lw=1.5, label=rule)
        ax.fill_between(steps, np.min(runs, axis=0), np.max(runs, axis=0), color=color, alpha=0.15, lw=0)
    ax.axhline(line, color=GREY, lw=1)
    ax.text(10, line + 0.1, name, color=GREY, fontsize=9)
    ax.set(xscale="log", xlabel="steps at test time", ylabel="PSNR in decibels")
    ax.set(xticks=[10, 100, 1000], xticklabels=["10", "100", "1,000"])
    ax.set(ylim=(None, line + 0.6))
    fig.legend(loc="outside upper center", ncols=len(names), fontsize=9)
    return fig


def strips(columns: Mapping[str, Tensor], count: int = 5) -> Figure:
    """The first pictures of several sets `(pictures, 64)`, a column each, under their names."""
    fig, axes = plt.subplots(count, len(columns), figsize=(4.8, 4.8 * count / len(columns)), squeeze=False)
    for j, (name, pictures) in enumerate(columns.items()):
        axes[0, j].set_title(name, fontsize=9)
        for i in range(count):
            picture = torch.as_tensor(pictures)[i].detach().reshape(8, 8).numpy()
            axes[i, j].imshow(picture, cmap="Greys", vmin=0, vmax=1)
            axes[i, j].set(xticks=[], yticks=[])
            axes[i, j].grid(visible=False)
            axes[i, j].spines[["left", "bottom"]].set_visible(False)
    return fig
