"""What the chapters' plots have in common: a band over seeds, plain numbers on a logarithmic axis, intervals about zero, images, the plane of κ and γ, regions of a classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import ArrayLike
from torch import Tensor

from .figures import BLUE, GREEN, GREY, PURPLE, VERMILION
from .instances import sharp_bound

__all__ = [
    "band",
    "coming_to_rest",
    "descent_plane",
    "early_directions",
    "gallery",
    "heat_map",
    "intervals",
    "intervals_in_words",
    "passes",
    "plain_log",
    "regions",
    "roofline",
]


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
    # more than these run into each other where the axis spans more than ten times
    ax.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
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
    # few numbers, so that they do not run into each other where panels stand side by side
    ax.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter("{x:g}")


def intervals_in_words(found: Mapping[str, tuple[float, float]], digits: int = 2) -> str:
    """The numbers of a plot of intervals, for its alternative text."""
    return "; ".join(f"{name} {mean:+z.{digits}f} ± {half:.{digits}f}" for name, (mean, half) in found.items())


def heat_map(
    ax: Axes, table: ArrayLike, rows: Sequence[object], columns: Sequence[object], *, low: float, high: float, form: str
) -> None:
    """A table as coloured squares, each with its number; the lightest are at `high`.

    Args:
        ax: where to draw.
        table: `(rows, columns)`.
        rows: their names.
        columns: theirs.
        low: the number of the darkest colour.
        high: that of the lightest.
        form: how a number is written, as "{:.2f}".
    """
    table = np.asarray(table)
    ax.imshow(table, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        # black on the lighter half of the colours
        colour = "black" if value > (low + high) / 2 else "white"
        ax.text(column, row, form.format(value), ha="center", va="center", color=colour, fontsize=9)
    ax.set_xticks(range(len(columns)), [str(name) for name in columns])
    ax.set_yticks(range(len(rows)), [str(name) for name in rows])
    ax.tick_params(length=0)
    ax.grid(False)


def passes(ax: Axes, seconds: Mapping[str, tuple[float, float]]) -> None:
    """A bar for each name, the forward pass and behind it the backward pass, hatched; the first name on top."""
    names = list(seconds)[::-1]
    forward, backward = (np.array([seconds[name][i] for name in names]) for i in (0, 1))
    ax.barh(names, forward, color=BLUE, label="forward")
    ax.barh(names, backward, left=forward, color=VERMILION, hatch="///", edgecolor="white", label="backward")
    ax.legend(loc="lower right")


def gallery(images: Tensor, titles: Sequence[object], *, columns: int, height: float) -> Figure:
    """Images side by side, each under its title; a grey one is drawn dark on white.

    Args:
        images: `(count, channels, rows, columns)`, uint8, of 1 or 3 channels.
        titles: one for each.
        columns: images in a row.
        height: of the figure, in inches.
    """
    fig, axes = plt.subplots(-(-len(images) // columns), columns, figsize=(4.8, height))
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        colours = image.permute(1, 2, 0).numpy()
        ax.imshow(colours if len(image) == 3 else colours[..., 0], cmap="gray_r")
        ax.set_title(str(title), fontsize=10, pad=3)
    return fig


def roofline(
    machines: Mapping[str, tuple[float, float]],
    dots: Mapping[str, tuple[float, float]],
    places: Mapping[str, tuple[int, int]],
) -> Figure:
    """Speed over operations per byte: a roof for each machine, a dot for each piece of work.

    Args:
        machines: by name, operations a second and bytes a second, at most five.
        dots: by name, operations per byte and operations per second.
        places: of their names, in points from the dot.
    """
    fig, ax = plt.subplots(figsize=(4.8, 4.2))
    x = np.geomspace(0.3, 3000, 200)
    colours, dashes = (BLUE, GREY, GREEN, VERMILION, PURPLE), ("-", ":", "-.", "--", "-")
    for (name, (peak, band)), colour, dash in zip(machines.items(), colours, dashes, strict=False):
        ax.loglog(x, np.minimum(peak, band * x), color=colour, linestyle=dash)
        ax.text(x[-1], 1.25 * peak, name, color=colour, ha="right", fontsize=10)
    for name, dot in dots.items():
        ax.plot(*dot, "o", color=BLUE)
        ax.annotate(name, dot, places[name], textcoords="offset points")
    ax.set(xlabel="operations per byte", ylabel="operations per second")
    return fig


def descent_plane(ax: Axes, largest: float, label: str) -> None:
    """The two curves under which γ must stay, against κ from 1 to `largest`; `label` names that of Theorem 3.1, 1/κ."""
    kappa = np.logspace(0, np.log10(largest), 300)
    ax.semilogx(kappa, 1 / kappa, color=BLUE, linestyle="-", label=label)
    ax.semilogx(kappa, sharp_bound(kappa), color=GREEN, linestyle="--", label=r"sharp: $2\sqrt{\kappa}/(1+\kappa)$")
    ax.fill_between(kappa, 0, 1 / kappa, color=BLUE, alpha=0.25, linewidth=0)
    ax.fill_between(kappa, 1 / kappa, sharp_bound(kappa), color=GREEN, alpha=0.18, linewidth=0)
    ax.set(xlim=(1, largest))


def early_directions(cosines: Sequence[float], errors: Sequence[float], final: float) -> Figure:
    """JFB's direction p at the iterates of a solver, the first at u⁰: is its relative error below the cosine at u*?

    Args:
        cosines: of p and minus the gradient, at each iterate.
        errors: of p, relative to p at u*.
        final: the cosine at u*.
    """
    fig, ax = plt.subplots()
    ax.plot(cosines, "o-", label="cosine of $p$ and $-\\nabla$")
    ax.plot(errors, "s--", label="relative error of $p$")
    ax.axhline(final, color=GREY, linestyle=":", label="cosine of $p$ and $-\\nabla$ at $u^*$")
    ax.set(xlabel="steps of the solver", ylim=(0, 1.05))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="center right")
    return fig


def regions(
    ax: Axes, score: Callable[[Tensor], Tensor], points: Tensor, labels: Tensor, *, margin: float = 0.6, cells: int = 80
) -> Tensor:
    """Where a classifier of two classes says which, and the points that it was asked to tell apart.

    Args:
        ax: where to draw.
        score: maps places `(count, 2)` to numbers `(count,)`, positive where the class is 1.
        points: `(count, 2)`.
        labels: `(count,)`, 0 or 1.
        margin: drawn around the points.
        cells: of the grid, on each side.

    Returns:
        For each cell of the grid, `(cells, cells)`, whether the class is 1.
    """
    low, high = points.amin(0) - margin, points.amax(0) + margin
    x, y = (torch.linspace(float(a), float(b), cells, dtype=points.dtype) for a, b in zip(low, high, strict=True))
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)
    one = (score(grid) > 0).reshape(cells, cells)
    ax.contourf(x, y, one, levels=[-0.5, 0.5, 1.5], colors=[BLUE, VERMILION], alpha=0.22)
    for name, (marker, colour) in enumerate((("o", BLUE), ("^", VERMILION))):
        chosen = points[labels == name]
        ax.plot(chosen[:, 0], chosen[:, 1], marker, color=colour, markersize=2.5, linestyle="")
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    return one


def coming_to_rest(
    score: Callable[..., Tensor], points: Tensor, labels: Tensor, *, steps: Sequence[int]
) -> tuple[Figure, list[float]]:
    """What an implicit classifier of the plane answers when it is stopped after so many steps, four panels; the last is at rest.

    Args:
        score: maps places `(count, 2)` and `steps`, a number, to numbers `(count,)`, positive where the class is 1.
        points: `(count, 2)`.
        labels: `(count,)`, 0 or 1.
        steps: four numbers of steps.

    Returns:
        The figure, and for each panel the share of it that has its final colour.
    """
    fig, axes = plt.subplots(2, 2, figsize=(4.8, 3.9))
    answers = []
    for ax, count in zip(axes.flat, steps, strict=True):
        answers.append(regions(ax, partial(score, steps=count), points, labels))
        ax.set_title("at rest" if count == steps[-1] else f"{count} step{'s' if count > 1 else ''}")
    return fig, [(answer == answers[-1]).double().mean().item() for answer in answers]
