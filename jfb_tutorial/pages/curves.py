"""The curves of training runs, drawn from their records."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..training.records import Record
from .figures import BLUE, GREEN, GREY, VERMILION, style
from .plots import band

__all__ = ["curves"]

# title, scale of the axis, and lines: key of an epoch's row, label, colour, dashes
PANELS = (
    ("loss", "log", (("loss", "training", BLUE, "-"), ("validation_loss", "held out", VERMILION, "--"))),
    (
        "error (%)",
        "log",
        (
            ("accuracy", "training", BLUE, "-"),
            ("validation_accuracy", "held out", VERMILION, "--"),
            ("test_accuracy", "test", GREEN, "-."),
        ),
    ),
    ("residual", "log", (("residual_worst", "worst sample", VERMILION, "--"), ("residual_mean", "mean", BLUE, "-"))),
    (
        "Lipschitz constant of T",
        "linear",
        (
            ("gamma", "‖∂T/∂u‖₂ at u*", BLUE, "-"),
            ("contraction", "seen on the way", VERMILION, "--"),
            ("gamma_one_direction", "one direction", GREY, ":"),
        ),
    ),
)
LEAST_ERROR = 0.05
"""Errors below, in percent, are drawn here: there is no zero on a logarithmic axis."""


def curves(runs: Sequence[Record], *, beside: Sequence[Record] = ()) -> Figure:
    """Loss, error, residual and contraction factor of each epoch; the runs' mean, and a band from the least to the largest.

    Args:
        runs: records with the same number of epochs, of one recipe with several seeds, say.
        beside: others, of any length, drawn in grey to compare with: the first line of each part.

    Raises:
        ValueError: there are none, or they differ in length.
    """
    lengths = {len(run["epochs"]) for run in runs}
    if len(lengths) != 1:
        raise ValueError(f"runs must be records of equally many epochs, got {sorted(lengths) or 'none'}")
    epochs = range(1, lengths.pop() + 1)
    with plt.rc_context(style()):
        figure, axes = plt.subplots(2, 2, figsize=(7.2, 5), sharex=True)
        for ax, (title, scale, lines) in zip(axes.flat, PANELS, strict=True):
            for other in beside:
                _line(ax, range(1, len(other["epochs"]) + 1), [other], lines[0][0], None, "#aaaaaa", "-")
            for key, label, colour, dashes in lines:
                _line(ax, epochs, runs, key, label, colour, dashes)
            ax.set_title(title, loc="left")
            if ax.lines:
                # the worst residual stays at the tolerance, at the top
                ax.legend(loc="center right" if title == "residual" else "upper right")
                ax.set_yscale(scale)
            if scale == "linear":
                # the legend stands above the curves; at 1 a map ceases to be a contraction
                ax.set_ylim(0, 1.7 * max(1, ax.get_ylim()[1]))
                ax.axhline(1, color=GREY, linewidth=0.8, linestyle="-")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        for ax in axes[1]:
            ax.set_xlabel("epoch")
        plt.close(figure)
    return figure


def _line(ax, epochs: range, runs: Sequence[Record], key: str, label: str | None, colour: str, dashes: str) -> None:
    all_rows = [[row.get(key) for row in run["epochs"]] for run in runs]
    if any(value is None for rows in all_rows for value in rows):
        return
    if "accuracy" in key:  # of the order of 1% at the end: the error shows what happens there
        all_rows = [[max(100 * (1 - value), LEAST_ERROR) for value in rows] for rows in all_rows]
    # a single epoch draws no line
    marker = {"marker": "o"} if len(epochs) < 10 else {}
    band(ax, epochs, all_rows, label=label, color=colour, linestyle=dashes, **marker)
