"""Drawings of what is known, not measured: networks as boxes and arrows, chains of arrows, the paths and the fixed points of y = d + y⁵."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionStyle, FancyArrowPatch, FancyBboxPatch

from .. import toy
from . import figures

__all__ = ["backward_schemes", "cobweb", "explicit_and_implicit", "fold"]


def backward_schemes() -> Figure:
    """The forward pass, and what passes back through it: by unrolling, by implicit differentiation, by JFB."""
    stops = ((0.0, "$u^0$"), (1.0, "$u^1$"), (2.0, "$u^2$"), (2.72, "$\\cdots$"), (3.4, "$u^K$"), (4.6, "$\\ell$"))
    steps = ((0.22, 0.78), (1.22, 1.78), (2.2, 2.5), (2.92, 3.2), (3.62, 4.38))
    schemes = (
        ("backpropagation through every step", ""),
        ("implicit differentiation", "solve $w(I - J) = g$,\nthen $w\\,\\partial T/\\partial\\theta$"),
        ("JFB", "$g\\,\\partial T/\\partial\\theta$"),
    )
    with plt.rc_context(figures.style()):
        figure, axes = plt.subplots(3, 1, figsize=(4.8, 5.0))
        for ax, (title, what) in zip(axes, schemes, strict=True):
            for x, name in stops:
                ax.text(x, 0, name, ha="center", va="center", fontsize=12)
            for a, b in steps:
                _arrow(ax, (a, 0.12), (b, 0.12), figures.BLUE, "-")
            # without a text, back along the whole chain
            for a, b in steps[-1:] if what else steps:
                _arrow(ax, (b, -0.16), (a, -0.16), figures.VERMILION, "--")
            if what:
                _arrow(ax, (3.4, -0.22), (2.75, -0.52), figures.VERMILION, "--")
                ax.text(2.65, -0.6, what, ha="right", va="center", fontsize=10)
            ax.set_title(title, loc="left")
            ax.set(xlim=(-0.3, 4.9), ylim=(-0.95, 0.35))
            ax.axis("off")
        plt.close(figure)
    return figure


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, dashes: str) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "linestyle": dashes})


def explicit_and_implicit() -> Figure:
    """JFB's Figure 1: d → Q → u → S → y, and d → Q → R → u* → S → y, where u* goes back into R."""
    fig, ax = plt.subplots(figsize=(4.8, 2.9))
    ax.set(xlim=(-0.4, 6.9), ylim=(-1.1, 3.2))
    ax.axis("off")
    _chain(ax, 2.2, figures.VERMILION, "explicit", ["$Q$", "$S$"], "$u$")
    _chain(ax, 0.0, figures.BLUE, "implicit", ["$Q$", "$R$", "$S$"], "$u^*$")
    _bent_arrow(ax, (3.85, -0.3), (2.65, -0.36), figures.BLUE, bend=-0.75)
    return fig


def cobweb(d: float, steps: int = 8) -> Figure:
    """The path of y ← d + y⁵ from 0 between curve and diagonal, 0 < d < 0.535, with a lens on the fixed point."""
    y, x = toy.iterate(d, steps), np.linspace(0, 0.8, 300)
    root = toy.iterate(d, 4000)[-1].item()
    path = [(0, 0), *((a, b) for pair in pairwise(y.tolist()) for a, b in (pair, pair[1:] * 2))]
    fig, ax = plt.subplots(figsize=(4.8, 4.4))
    near = (root - 0.06, root + 0.01)
    lens = ax.inset_axes((0.56, 0.09, 0.42, 0.42), xlim=near, ylim=near)
    for axes in (ax, lens):
        axes.plot(x, d + x**5, figures.BLUE, linestyle="-", label="$d + y^5$")
        axes.plot(x, x, figures.GREY, linestyle="--", linewidth=1.2, label="diagonal")
        axes.plot(*zip(*path, strict=True), figures.VERMILION, linestyle="-", linewidth=1.3, label="cobweb from 0")
        axes.plot(root, root, "o", color=figures.GREEN, label="fixed point")
    lens.set(xticks=[], yticks=[])
    lens.spines[:].set_visible(True)
    ax.indicate_inset_zoom(lens, edgecolor="black")
    ax.set(xlim=(0, 0.8), ylim=(0, 0.8), aspect="equal", xlabel="$y$", ylabel="$T(y; d)$")
    ax.legend(loc="upper left")
    return fig


def fold() -> Figure:
    """All fixed points of y = d + y⁵ against d, those that attract and those that repel, and the box of JFB's Lemma F.1."""
    turn, alpha = 5**-0.25, toy.ALPHA
    fig, ax = plt.subplots(figsize=(4.8, 3.8))
    ax.fill_between([-0.5, 0.5], -alpha, alpha, color=figures.BLUE, alpha=0.1, linewidth=0)
    for low, high, color, dashes in (
        (-1.17, -turn, figures.VERMILION, "--"),
        (-turn, turn, figures.BLUE, "-"),
        (turn, 1.17, figures.VERMILION, "--"),
    ):
        y = np.linspace(low, high, 200)
        ax.plot(y - y**5, y, color, linestyle=dashes)
    ax.plot([toy.RADIUS, -toy.RADIUS], [turn, -turn], "o", color=figures.GREEN)
    for x, height, words, color in (
        (-0.47, 0.42, "Lemma F.1", figures.BLUE),
        (0.1, -0.08, "attracts, slope < 1", figures.BLUE),
        (-0.62, 0.85, "repels, slope > 1", figures.VERMILION),
        (0.0, -0.84, "repels, slope > 1", figures.VERMILION),
        (0.56, 0.62, "fold,\nslope 1", figures.GREEN),
    ):
        ax.text(x, height, words, color=color)
    ax.set(xlabel="$d$", ylabel="fixed points $y$", xlim=(-0.8, 0.8), ylim=(-1.2, 1.2))
    return fig


def _chain(ax: Axes, y: float, color: str, name: str, maps: Sequence[str], latent: str) -> None:
    """A row of boxes and arrows: d, the maps with the latent before the last, y."""
    ax.text(-0.2, y + 0.62, name, color=color, weight="bold")
    for number, text in enumerate(["$d$", *maps[:-1], latent, maps[-1], "$y$"]):
        x = 1.3 * number
        ax.text(x, y, text, ha="center", va="center", fontsize=13)
        if text in maps:
            box = FancyBboxPatch((x - 0.36, y - 0.3), 0.72, 0.6, boxstyle="round,pad=0.02")
            box.set(facecolor="none", edgecolor=color, linewidth=1.8)
            ax.add_patch(box)
        if number:
            _bent_arrow(ax, (x - 0.88, y), (x - 0.4, y), color)


def _bent_arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str, bend: float = 0.0) -> None:
    bent = ConnectionStyle("arc3", rad=bend)
    patch = FancyArrowPatch(start, end, connectionstyle=bent, arrowstyle="-|>", mutation_scale=12)
    patch.set(color=color, linewidth=1.8)
    ax.add_patch(patch)
