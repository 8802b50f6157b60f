"""Drawings of what is known, not measured: networks as boxes and arrows, chains of arrows, the map and the fixed points of y = d + y⁵."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionStyle, FancyArrowPatch, FancyBboxPatch

from .. import toy
from . import figures

__all__ = [
    "backward_schemes",
    "choosing",
    "explicit_and_implicit",
    "family",
    "fold",
    "looking_back",
    "shares_of_the_derivative",
    "square_that_keeps",
    "two_resolutions",
]


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


CHOICES = (
    ("Do some inputs need more\nsteps, or does an equation\ndefine the answer?", "an explicit network"),
    ("Does every sample\ncome to rest?", "damping,\na gentler step"),
    ("In steps that you\ncan pay for?", "Anderson, or shorter\ninputs in training"),
    ("Does JFB learn it,\nwith every seed?", "more recorded steps:\nUPG, then all, or exact"),
    ("Does it still come\nto rest after training?", "damping in R,\na weak penalty on J"),
)
"""The questions of chapter 17, in their order, and what to take where the answer is no."""


def choosing() -> Figure:
    """Chapter 17's questions as a way down: a no leads aside, to a remedy, a yes on."""
    fig, ax = plt.subplots(figsize=(4.8, 5.6))
    ax.axis("off")
    y, left, right = 0.0, 2.35, 7.75
    for number, (question, remedy) in enumerate(CHOICES):
        height = 0.42 * (question.count("\n") + 1) + 0.3
        box = FancyBboxPatch((0.1, y - height), 4.5, height, boxstyle="round,pad=0.06")
        box.set(facecolor="none", edgecolor=figures.BLUE, linewidth=1.6)
        ax.add_patch(box)
        middle = y - height / 2
        ax.text(left, middle, question, ha="center", va="center", fontsize=10.5)
        _bent_arrow(ax, (4.7, middle), (5.75, middle), figures.VERMILION)
        ax.text(5.2, middle + 0.1, "no", ha="center", va="bottom", fontsize=10, color=figures.VERMILION)
        ax.text(right, middle, remedy, ha="center", va="center", fontsize=10.5, color=figures.VERMILION)
        if number in (1, 2, 3, 4):
            _bent_arrow(ax, (right, middle + 0.5), (4.75, y - 0.1), figures.GREY, bend=0.35, width=1.0)
        _bent_arrow(ax, (left, y - height - 0.08), (left, y - height - 0.82), figures.BLUE)
        ax.text(left + 0.2, y - height - 0.42, "yes", va="center", fontsize=10, color=figures.BLUE)
        y -= height + 0.9
    ax.text(left, y - 0.1, "Keep it, and report\nseeds, residual, twin.", ha="center", va="top", fontsize=10.5)
    ax.set(xlim=(-0.1, 10.0), ylim=(y - 1.1, 0.25))
    return fig


def explicit_and_implicit() -> Figure:
    """JFB's Figure 1: d → Q → u → S → y, and d → Q → R → u* → S → y, where u* goes back into R."""
    fig, ax = plt.subplots(figsize=(4.8, 2.9))
    ax.set(xlim=(-0.4, 6.9), ylim=(-1.1, 3.2))
    ax.axis("off")
    _chain(ax, 2.2, figures.VERMILION, "explicit", ["$Q$", "$S$"], "$u$")
    _chain(ax, 0.0, figures.BLUE, "implicit", ["$Q$", "$R$", "$S$"], "$u^*$")
    _bent_arrow(ax, (3.85, -0.3), (2.65, -0.36), figures.BLUE, bend=-0.75)
    return fig


def family() -> Figure:
    """Networks that repeat a step: how often each does so, and what makes sure that there is something to arrive at."""
    branches = {
        "a number of times": [("explicit networks", "nothing to arrive at: an output after so many layers")],
        "until nothing changes": [
            ("chapters 7 to 11", "one equilibrium, if R contracts"),
            ("implicit graph networks", "one: the sizes in a row of W add up to less than 1"),
            ("monotone networks, chapter 15", "one: W does not push outwards"),
            ("transformers in equilibrium", "one or more: the state stays bounded"),
            ("shortest paths, chapter 14", "one: the lowest point of a bowl"),
        ],
        "in ever smaller steps": [
            ("neural ODEs, chapter 15", "one path, if f is Lipschitz"),
            ("augmented neural ODEs", "the same, with room to pass"),
        ],
    }
    fig, ax = plt.subplots(figsize=(4.8, 5.2))
    ax.axis("off")
    y, stem = 0.0, list[float]()
    for branch, leaves in branches.items():
        y -= 1.0
        stem.append(y)
        ax.text(0.75, y, branch, va="center", fontsize=11, color=figures.BLUE)
        first = y
        for name, sure in leaves:
            y -= 1.15
            ax.plot([1.1, 1.1, 1.5], [first - 0.4, y + 0.2, y + 0.2], color=figures.GREY, lw=1, ls="-")
            ax.text(1.65, y + 0.2, name, va="center", fontsize=10.5)
            ax.text(1.65, y - 0.28, sure, va="center", fontsize=9.5, color=figures.GREY)
        y -= 0.35
    ax.text(0, 0.1, "repeat a step …", va="center", fontsize=11, color=figures.BLUE)
    for at in stem:
        ax.plot([0.2, 0.2, 0.6], [-0.3, at, at], color=figures.GREY, lw=1, ls="-")
    ax.set(xlim=(0, 8), ylim=(y - 0.3, 0.5))
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
        (-0.16, -0.35, "attracts, slope < 1", figures.BLUE),
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


def _bent_arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str, bend: float = 0.0, width: float = 1.8
) -> None:
    bent = ConnectionStyle("arc3", rad=bend)
    patch = FancyArrowPatch(start, end, connectionstyle=bent, arrowstyle="-|>", mutation_scale=12)
    patch.set(color=color, linewidth=width)
    ax.add_patch(patch)


def looking_back(text: str = "summer's d") -> Figure:
    """One step of a transformer at the last place of a text: arrows to it from each place, as wide as it looks there, and its own layer."""
    last = len(text) - 1
    fig, ax = plt.subplots(figsize=(4.8, 2.9))
    ax.axis("off")
    for place, letter in enumerate(text):
        ax.text(place, 0, {" ": "␣"}.get(letter, letter), ha="center", va="center", fontsize=14)
        width = 0.6 + 3.0 * abs(np.sin(2.3 * place + 1)) ** 3
        if place < last:
            _bent_arrow(ax, (place, 0.35), (last - 0.1, 1.55), figures.BLUE, bend=-0.12, width=width)
    _bent_arrow(ax, (last, 0.35), (last, 1.5), figures.BLUE, width=1.6)
    for y, name in ((1.8, "+"), (3.0, "$F$")):
        ax.text(
            last, y, name, ha="center", va="center", fontsize=13, bbox={"boxstyle": "round", "fc": "none", "ec": "0.5"}
        )
    _bent_arrow(ax, (last, 2.15), (last, 2.6), figures.VERMILION)
    _bent_arrow(ax, (last, 3.4), (last, 4.0), figures.VERMILION)
    ax.text(last - 0.3, 4.0, "its new vector", ha="right", va="center", color=figures.VERMILION)
    ax.text(0.5, 2.6, "attention:\nlook back", ha="left", va="center", color=figures.BLUE)
    ax.set(xlim=(-0.6, last + 0.8), ylim=(-0.5, 4.3))
    return fig


def square_that_keeps() -> Figure:
    """JFB's Lemma F.1 as a picture: over [−α, α] the curves d + y⁵ stay in the square, and two points come closer by half or more."""
    alpha = toy.ALPHA
    y = np.linspace(-alpha, alpha, 200)
    fig, ax = plt.subplots(figsize=(4.8, 4.0))
    ax.fill_between([-alpha, alpha], -alpha, alpha, color=figures.BLUE, alpha=0.1, linewidth=0)
    for d, dashes, below in ((0.5, "-", -0.09), (0.0, "-.", 0.03), (-0.5, ":", 0.03)):
        ax.plot(y, d + y**5, figures.BLUE, linestyle=dashes)
        ax.text(-0.3, d + below, f"$d = {d:g}$", color=figures.BLUE)
    ax.plot([-0.7, 0.66], [-0.7, 0.66], figures.GREY, linestyle="--", linewidth=1.2)
    ax.text(-0.44, -0.37, "diagonal", color=figures.GREY, rotation=43)
    # two points, below the square, and their images, at its right
    pair = np.array([0.25, alpha])
    images = 0.5 + pair**5
    for x, image in zip(pair, images, strict=True):
        ax.plot([x, x, 0.68], [-0.72, image, image], figures.VERMILION, linestyle=":", linewidth=1.0)
    ax.plot(pair, [-0.72, -0.72], figures.VERMILION, linestyle="-", marker="|")
    ax.plot([0.68, 0.68], images, figures.VERMILION, linestyle="-", marker="_")
    ax.text(0.16, -0.72, "two points", color=figures.VERMILION, ha="right", va="center")
    ax.text(0.72, 0.74, "their images:\nhalf as far, or less", color=figures.VERMILION, ha="right")
    root = toy.solve(0.5).item()
    ax.plot(root, root, "o", color=figures.GREEN)
    ticks, names = [-alpha, 0, alpha], [r"$-\alpha$", "0", r"$\alpha$"]
    ax.set(xticks=ticks, xticklabels=names, yticks=ticks, yticklabels=names)
    ax.set(xlim=(-0.8, 0.8), ylim=(-0.8, 0.95), xlabel="$y$", ylabel="$T(y; d)$")
    return fig


def shares_of_the_derivative() -> Figure:
    """How much of dy/dd of y = d + y⁵ a few steps back from the fixed point see, 1 − sᴷ with the slope s, against d."""
    d = np.linspace(0, toy.RADIUS * (1 - 1e-6), 400)
    s = 5 * toy.iterate(d, 4000)[-1].numpy() ** 4
    fig, ax = plt.subplots(figsize=(4.8, 3.2))
    for steps in (1, 2, 4, 16):
        ax.plot(d, 1 - s**steps, label=f"{steps} step{'s' if steps > 1 else ''} back")
    ax.axvline(0.5, color=figures.GREY, linewidth=1.0)
    ax.set(xlabel="$d$", ylabel="share of the exact derivative", xlim=(0.2, 0.54), ylim=(0, 1.03))
    ax.legend(loc="lower left")
    return fig


def two_resolutions() -> Figure:
    """One step of the multiscale network: a block for each resolution, then each gets what the other one has."""
    boxes = {
        "$u$ high\n32×32": (0.0, 1.0),
        "$u$ low\n16×16": (0.0, 0.0),
        "block ": (1.5, 1.0),
        "block": (1.5, 0.0),
        "+ ": (3.0, 1.0),
        "+": (3.0, 0.0),
        "new $u$ high": (4.4, 1.0),
        "new $u$ low": (4.4, 0.0),
    }
    with plt.rc_context(figures.style()):
        figure, ax = plt.subplots(figsize=(5.6, 2.4))
        for name, (x, y) in boxes.items():
            ax.text(x, y, name, ha="center", va="center", bbox={"boxstyle": "round,pad=0.4", "fc": "none", "ec": "0.5"})
        for y in (0.0, 1.0):
            for start, end in ((0.45, 1.15), (1.87, 2.78), (3.2, 3.82)):
                _arrow(ax, (start, y), (end, y), figures.BLUE, "-")
        _arrow(ax, (1.78, 0.82), (2.82, 0.16), figures.VERMILION, "--")
        _arrow(ax, (1.78, 0.18), (2.82, 0.84), figures.VERMILION, "--")
        ax.text(1.6, 0.64, "halved", fontsize=9, ha="right", va="center")
        ax.text(1.6, 0.36, "doubled", fontsize=9, ha="right", va="center")
        _arrow(ax, (1.5, 1.62), (1.5, 1.24), figures.GREY, "-")
        ax.text(1.5, 1.7, "$Q(d)$", ha="center", va="bottom")
        ax.set(xlim=(-0.6, 5.1), ylim=(-0.4, 2.0))
        ax.axis("off")
        plt.close(figure)
    return figure
