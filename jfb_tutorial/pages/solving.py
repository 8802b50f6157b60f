"""Drawings for the chapter on solvers; what they show is computed there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from .figures import BLUE, GREEN, GREY, VERMILION

__all__ = ["creeping_and_overshooting", "film", "two_paths", "two_polynomials", "valleys_and_residuals"]

LEVELS = (0.03, 0.1, 0.3, 1.0)
"""Of |p|; where it is above the last, nothing is drawn."""
SHADES = ("#5e7f9e", "#93aec6", "#c3d4e2", "#e6eef5")


def two_paths(plain: ArrayLike, jumps: ArrayLike) -> Figure:
    """The points of two solves in the plane, `(points, 2)` each, from the same start to the same end."""
    plain, jumps = np.asarray(plain), np.asarray(jumps)
    fig, ax = plt.subplots(figsize=(4.8, 4.3))
    ax.plot(*plain.T, marker="o", linewidth=1.0, markersize=3, label=f"plain: {len(plain)} evaluations")
    ax.plot(*jumps.T, marker="o", label=f"Anderson: {len(jumps)} evaluations")
    ax.plot(*plain[-1], "*", color=GREEN, markersize=14, zorder=3)
    ax.plot(*plain[0], "s", color=GREY, markersize=8, zorder=3)
    ax.annotate("start", plain[0], (9, 2), textcoords="offset points")
    line = {"arrowstyle": "-", "color": GREEN, "shrinkB": 7}
    ax.annotate("fixed point", plain[-1], (0.45, 0.62), color=GREEN, arrowprops=line)
    ax.set(
        xlabel="$u_1$", ylabel="$u_2$", aspect="equal", xlim=(-0.85, 1.1), ylim=(-0.75, 1.35), xticks=(-0.5, 0, 0.5, 1)
    )
    ax.legend(loc="upper right")
    return fig


def creeping_and_overshooting(mu: float) -> Figure:
    """The step from u to T(u), and the distance from u to u*, where the error shrinks by μ and by −μ."""
    fig, axes = plt.subplots(2, 1, figsize=(4.8, 3.4))
    for ax, factor, name in zip(axes, (mu, -mu), ("creeping", "overshooting"), strict=True):
        track = -(factor ** np.arange(2, 12.0))
        ax.plot([-1.1, 1.0], [0, 0], color=GREY, linewidth=0.8, linestyle="-")
        ax.plot(track, 0 * track, "o", color=BLUE, markersize=3, alpha=0.5)
        ax.plot([-1, -factor], [0, 0], "o", color=BLUE)
        ax.plot(0, 0, "*", color=GREEN, markersize=13)
        for x, text in ((-1, "$u$"), (-factor, "$T(u)$"), (0, "$u^{\\!*}$")):
            ax.annotate(text, (x, 0), (0, -20), textcoords="offset points", ha="center")
        arrows = (0.75, 0.0, VERMILION, "error 1"), (0.3, -factor, BLUE, f"residual {1 - factor:.1f}")
        for y, end, colour, text in arrows:
            ax.annotate(
                "", (end, y), (-1, y), arrowprops={"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0}
            )
            ax.text(end + 0.04, y, text, color=colour, va="center", fontsize=10)
        ax.set_title(f"{name}, $\\mu = {factor}$", loc="left")
        ax.set(ylim=(-0.75, 1.05), xlim=(-1.15, 1.5))
        ax.axis("off")
    return fig


def two_polynomials(mu: ArrayLike, weights: ArrayLike, plain: Sequence[float], combined: Sequence[float]) -> Figure:
    """The highest power and the polynomial with these weights over real eigenvalues; beside them, residuals by points.

    Args:
        mu: the eigenvalues.
        weights: of the powers 1, z, z², …
        plain: the residuals of plain iteration, after 1, 2, 3, … points.
        combined: those of the best combination of as many.
    """
    mu, weights = np.asarray(mu), np.asarray(weights)
    power = np.eye(len(weights))[-1]
    fig, (left, right) = plt.subplots(1, 2, figsize=(4.8, 3.3), width_ratios=(1.2, 1))
    z = np.linspace(-0.015, 1, 300)
    value = np.polynomial.polynomial.polyval
    label = f"$z^{{{len(power) - 1}}}$, plain"
    for p, name, colour, dashes in ((power, label, BLUE, "-"), (weights, "best $p$", VERMILION, "--")):
        left.plot(z, value(z, p), color=colour, linestyle=dashes, label=name)
        left.plot(mu, value(mu, p), ".", color=colour, markersize=5)
    left.plot(1, 1, "X", color=GREEN, markersize=8, clip_on=False, zorder=4)
    left.axhline(0, color=GREY, linewidth=0.8, linestyle="-")
    left.set(xlabel="eigenvalue", xlim=(-0.03, 1.04), ylim=(-0.2, 1.05), xticks=(0, 0.5, 1))
    left.set_title("what is left", loc="left")
    counts = range(1, len(plain) + 1)
    right.semilogy(counts, plain, label="plain")
    right.semilogy(counts, combined, label="best $p$")
    right.set(xlabel="points remembered", xticks=counts[::4])
    right.set_title("residual", loc="left")
    left.legend(loc="upper left", handlelength=1.5)
    right.legend(loc="lower left", handlelength=1.5)
    return fig


def film(cold: Sequence[int], warm: Sequence[int]) -> Figure:
    """Evaluations for each frame of a film, started from zero and from the frame before."""
    fig, ax = plt.subplots(figsize=(4.8, 2.9))
    ax.plot(cold, label="from zero")
    ax.plot(warm, label="from the frame before")
    ax.set(xlabel="frame", ylabel="evaluations", ylim=(0, 1.4 * max(*cold, *warm)))
    ax.legend(loc="upper left")
    return fig


def valleys_and_residuals(rows: Mapping[str, tuple[ArrayLike, ArrayLike, Mapping[str, ArrayLike]]]) -> Figure:
    """For each kind of map a row: its eigenvalues over the valleys of a polynomial, and what solvers make of it.

    Args:
        rows: by kind, the eigenvalues, the polynomial's weights, and by solver the residuals.
    """
    fig, axes = plt.subplots(len(rows), 2, figsize=(4.8, 2.2 * len(rows)), width_ratios=(1, 1.25))
    for (left, right), (kind, (mu, weights, tracks)) in zip(axes, rows.items(), strict=True):
        _valleys(left, np.asarray(mu), np.asarray(weights))
        left.set_title(kind, loc="left")
        for name, track in tracks.items():
            right.semilogy(range(1, len(np.asarray(track)) + 1), track, label=name)
        right.set(xlim=(0, 145), ylim=(1e-7, 30), xticks=(0, 50, 100), yticks=(1e-6, 1e-3, 1))
    axes[0, 1].set_title("residual", loc="left")
    axes[0, 1].legend(loc="upper right", handlelength=1.6, labelspacing=0.2)
    axes[-1, 1].set_xlabel("evaluations")
    return fig


def _valleys(ax: Axes, mu: np.ndarray, weights: np.ndarray) -> None:
    """|p| over the complex plane, the stronger the shade, the smaller; with the eigenvalues and the point 1, where p is 1."""
    x, y = np.meshgrid(np.linspace(-1.15, 1.15, 161), np.linspace(-1.15, 1.15, 161))
    height = np.abs(np.polynomial.polynomial.polyval(x + 1j * y, weights))
    ax.contourf(x, y, height, levels=(0, *LEVELS), colors=SHADES)
    ax.plot(mu.real, mu.imag, ".", color=VERMILION, markersize=5)
    ax.plot(1, 0, "X", color=GREEN, markersize=8)
    ax.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
    ax.grid(visible=False)
