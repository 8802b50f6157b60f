"""Pictures that say in words what they show.

A chapter draws with plain Matplotlib and ends the cell with `show(fig, alt="…")`. The result carries the picture as PNG,
without metadata, so that an unchanged cell leaves an unchanged file, and the alternative text, which the published page
hands to screen readers and a terminal prints.
"""

from __future__ import annotations

import base64
import io
import os
from dataclasses import dataclass, field
from typing import Any

import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.figure import Figure

__all__ = ["BLUE", "GREEN", "GREY", "PURPLE", "VERMILION", "Picture", "show", "style", "use_style"]

# After Okabe and Ito's palette, told apart with any common colour vision, and darkened until each has a contrast of 4.5 : 1 on
# white; turned over for the dark theme, each then has it on black.
BLUE, VERMILION, GREEN, PURPLE, GREY = "#0072B2", "#C04A00", "#007A5A", "#8F4B8F", "#666666"

DRAWINGS = "JFB_DRAWINGS"
"""With `svg` in this environment variable a picture carries itself as SVG too; `book/_ext/execute.py` sets it, and takes it out again."""

WIDEST = 640
"""The widest picture in JupyterLab, in pixels."""

_STYLE: dict[Any, object] = {
    # 4.8 inches at 200 dots each: on a phone, 350 pixels wide, the smallest type below is still 10 pixels high
    "figure.figsize": (4.8, 3.2),
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "legend.fontsize": 10,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    # a line is known by its dashes too, never by its colour alone
    "axes.prop_cycle": cycler(
        color=[BLUE, VERMILION, GREEN, PURPLE, GREY], linestyle=["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]
    ),
}


def use_style() -> None:
    """Set Matplotlib's defaults to the book's: size, type, colours, dashes."""
    plt.rcParams.update(_STYLE)


def style() -> dict:
    """The book's defaults, for `plt.rc_context`."""
    return dict(_STYLE)


@dataclass(frozen=True)
class Picture:
    """A PNG with its alternative text, as a notebook shows it.

    Attributes:
        png: the file's bytes.
        alt: what the picture shows, in words.
        width: in pixels, as JupyterLab shows it; the file has twice as many, for dense screens.
        svg: the same as a vector drawing, for lecturers; empty unless it was asked for.
    """

    png: bytes = field(repr=False)
    alt: str
    width: int = WIDEST
    svg: str = field(default="", repr=False)

    def _repr_mimebundle_(self, include=None, exclude=None):
        data = {"image/png": base64.b64encode(self.png).decode(), "text/plain": self.alt}
        if self.svg:
            data["image/svg+xml"] = self.svg
        return data, {"image/png": {"alt": self.alt, "width": self.width}}


def show(fig: Figure, *, alt: str) -> Picture:
    """Close `fig` and return it as a picture; as a cell's last expression, it is shown.

    Args:
        fig: a Matplotlib figure.
        alt: what the reader of the picture learns from it, in a sentence or two; not a title.

    Raises:
        TypeError: `fig` is not a figure, or `alt` is not text.
        ValueError: `alt` says too little.
    """
    if not isinstance(fig, Figure):
        raise TypeError(f"fig must be a Matplotlib figure, got {type(fig).__name__}; pass ax.figure for an axes")
    if not isinstance(alt, str):
        raise TypeError(f"alt must be text, got {type(alt).__name__}")
    alt = " ".join(alt.split())
    if len(alt) < 20:
        raise ValueError(
            f"alt must say what the picture shows, got {alt!r}; write a sentence for a reader who cannot see it"
        )
    file = io.BytesIO()
    fig.savefig(file, format="png", metadata={"Software": None})
    svg = _as_svg(fig) if os.environ.get(DRAWINGS) == "svg" else ""
    plt.close(fig)
    return Picture(file.getvalue(), alt, min(WIDEST, round(100 * fig.get_figwidth())), svg)


def _as_svg(fig: Figure) -> str:
    """The same text for the same figure: fixed element names, no date. Type is outlines: not every lecturer has our fonts."""
    file = io.StringIO()
    with plt.rc_context({"svg.hashsalt": "jfb_tutorial", "svg.fonttype": "path"}):
        fig.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
