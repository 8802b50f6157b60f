"""Drawings that compute nothing: chains of arrows, and networks as boxes and arrows."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from .figures import BLUE, VERMILION, style

__all__ = ["backward_schemes", "explicit_and_implicit"]


def backward_schemes() -> Figure:
    """The forward pass, and what passes back through it: by unrolling, by implicit differentiation, by JFB."""
    stops = ((0.0, "$u^0$"), (1.0, "$u^1$"), (2.0, "$u^2$"), (2.72, "$\\cdots$"), (3.4, "$u^K$"), (4.6, "$\\ell$"))
    steps = ((0.22, 0.78), (1.22, 1.78), (2.2, 2.5), (2.92, 3.2), (3.62, 4.38))
    schemes = (
        ("backpropagation through every step", ""),
        ("implicit differentiation", "solve $w(I - J) = g$,\nthen $w\\,\\partial T/\\partial\\theta$"),
        ("JFB", "$g\\,\\partial T/\\partial\\theta$"),
    )
    with plt.rc_context(style()):
        figure, axes = plt.subplots(3, 1, figsize=(4.8, 5.0))
        for ax, (title, what) in zip(axes, schemes, strict=True):
            for x, name in stops:
                ax.text(x, 0, name, ha="center", va="center", fontsize=12)
            for a, b in steps:
                _arrow(ax, (a, 0.12), (b, 0.12), BLUE, "-")
            # without a text, back along the whole chain
            for a, b in steps[-1:] if what else steps:
                _arrow(ax, (b, -0.16), (a, -0.16), VERMILION, "--")
            if what:
                _arrow(ax, (3.4, -0.22), (2.75, -0.52), VERMILION, "--")
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
    _chain(ax, 2.2, VERMILION, "explicit", ["$Q$", "$S$"], "$u$")
    _chain(ax, 0.0, BLUE, "implicit", ["$Q$", "$R$", "$S$"], "$u^*$")
    _bent_arrow(ax, (3.85, -0.3), (2.65, -0.36), BLUE, bend=-0.75)
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
    arrow = FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", arrowstyle="-|>", mutation_scale=12)
    arrow.set(color=color, linewidth=1.8)
    ax.add_patch(arrow)
