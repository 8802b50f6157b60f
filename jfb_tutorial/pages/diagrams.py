"""Drawings that compute nothing: networks as boxes and arrows."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from . import figures

__all__ = ["explicit_and_implicit"]


def explicit_and_implicit() -> Figure:
    """JFB's Figure 1: d → Q → u → S → y, and d → Q → R → u* → S → y, where u* goes back into R."""
    fig, ax = plt.subplots(figsize=(4.8, 2.9))
    ax.set(xlim=(-0.4, 6.9), ylim=(-1.1, 3.2))
    ax.axis("off")
    _chain(ax, 2.2, figures.VERMILION, "explicit", ["$Q$", "$S$"], "$u$")
    _chain(ax, 0.0, figures.BLUE, "implicit", ["$Q$", "$R$", "$S$"], "$u^*$")
    _bent_arrow(ax, (3.85, -0.3), (2.65, -0.36), figures.BLUE, bend=-0.75)
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
    shape = {"connectionstyle": f"arc3,rad={bend}", "arrowstyle": "-|>", "mutation_scale": 12}
    ax.add_patch(FancyArrowPatch(start, end, color=color, linewidth=1.8, **shape))
