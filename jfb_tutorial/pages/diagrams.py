"""Drawings that compute nothing: chains of arrows, networks."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .figures import BLUE, VERMILION, style

__all__ = ["backward_schemes"]


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
