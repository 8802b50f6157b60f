"""Figures that answer to the hand without a kernel: on the published page, from disk, in Jupyter and in Colab.

An explorer is an object whose HTML carries its own small script, so the same cell output works wherever it is shown. Its
drawing is decoration to a screen reader; what it shows is also said in a sentence that follows every change, and listed in
a table. `core.js` has what all explorers share, `core.css` their look; one more script of the explorer's name draws it, and
where that has much to compute, the mathematics is a script of its own.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..._checks import check_choice, check_flag, check_integer, check_positive
from ...network import ImplicitNetwork
from .. import labyrinth as labyrinths
from .. import parity as parity_of_prefixes
from .. import sudoku as sudoku_of_six
from ._program import Numbers, program

__all__ = [
    "Explorer",
    "cobweb",
    "contraction",
    "criterion",
    "descent",
    "equilibrium",
    "labyrinth",
    "parity",
    "phantom",
    "playground",
    "sudoku",
    "walk",
]


_ALIVE = "The figure answers to the hand where its script runs: on the web page, or after this cell has run."


@dataclass(frozen=True, repr=False)
class Explorer:
    """A figure with a script.

    Args:
        name: of the script, `<name>.js` in this folder.
        label: the accessible name of the figure; also its caption.
        words: what it shows, for a reader whose page runs no script.
        parameters: where it starts, handed to the script as JSON.
        parts: more files of this folder that it needs, scripts (which come before its own) and styles.
    """

    name: str
    label: str
    words: str
    parameters: Mapping[str, object]
    parts: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"{self.label}\n{self.words}"

    def _repr_html_(self) -> str:
        parameters = escape(json.dumps(dict(self.parameters)), quote=True)
        styles = "\n".join(map(_read, ["core.css", *(part for part in self.parts if part.endswith(".css"))]))
        own = [*(part for part in self.parts if part.endswith(".js")), f"{self.name}.js"]
        scripts = "\n".join(map(_read, ["core.js", *own]))
        return (
            f"<style>{styles}</style>"
            f'<figure class="jfb-explorer" data-explorer="{self.name}" data-parameters="{parameters}" '
            f'role="group" aria-label="{escape(self.label, quote=True)}">'
            f'<div class="jfb-stage"></div><div class="jfb-controls"></div>'
            f'<p class="jfb-words" role="status">{escape(self.words)}</p><div class="jfb-more"></div>'
            f"<figcaption>{escape(self.label)}</figcaption></figure>"
            # in a function of its own: several explorers on a page have the same names
            f'<script>(() => {{\n"use strict";\n{scripts}\n'
            f'startAll("{self.name}", start);\n}})();</script>'
        )


def cobweb(d: float = 0.45, y0: float = 0.8, steps: int = 6, *, fold: bool = False) -> Explorer:
    """The cobweb of y ← d + y⁵: drag d and the start, add steps, watch it settle or escape.

    Args:
        d: input at the beginning, in [0, 0.7]. A negative d is the mirror image.
        y0: start of the iteration, in [0, 1].
        steps: steps drawn at the beginning, in [0, 60].
        fold: draw the fixed points against d beside the cobweb, with a mark that moves along.

    Raises:
        ValueError: a parameter is outside its range.
    """
    steps = check_integer("steps", steps, 0, "the slider goes from 0 to 60")
    parameters = {"d": float(d), "y0": float(y0), "steps": steps}
    _check_ranges(parameters, {"d": (0, 0.7), "y0": (0, 1), "steps": (0, 60)})
    words = (
        "A cobweb diagram: from the start, go up to the curve d + y⁵, across to the diagonal, and again. As long as the curve "
        "crosses the diagonal, for d below 0.535, a path that starts below the upper crossing closes in on the lower one; "
        "beyond, the curve has lifted off the diagonal and every path escapes. "
    )
    if fold:
        words += (
            "A second diagram shows the crossings against d: the lower and the upper one meet at the fold, where the curve of "
            "fixed points turns back and dy/dd becomes infinite. "
        )
    return Explorer(
        "cobweb",
        label="Fold explorer: the cobweb and the fixed points of y = d + y⁵" if fold else "Cobweb explorer: y ← d + y⁵",
        words=words + _ALIVE,
        parameters={**parameters, "fold": check_flag("fold", fold)},
    )


def contraction(re: float = 0.6, im: float = 0.5, c: float = 0.0, steps: int = 20, *, angle: float = 60.0) -> Explorer:
    """The map u ← A u of the plane: drag its eigenvalues and the start, take it away from normal, watch the distance.

    A = [[x, b], [−y²/b, x]] with x = re, y = im and b = y + c has the eigenvalues μ = x ± iy for every c, and is normal for c = 0.

    Args:
        re: real part of the eigenvalues at the beginning, in [−1.2, 1.2].
        im: their imaginary part at the beginning, in [0, 1.2].
        c: distance from a normal matrix at the beginning, in [0, 4].
        steps: steps drawn at the beginning, in [0, 40].
        angle: where on the unit circle the iteration starts, in degrees, in [0, 360].

    Raises:
        ValueError: a parameter is outside its range.
    """
    steps = check_integer("steps", steps, 0, "the slider goes from 0 to 40")
    parameters = {"re": float(re), "im": float(im), "c": float(c), "steps": steps, "angle": float(angle)}
    ranges = {"re": (-1.2, 1.2), "im": (0, 1.2), "c": (0, 4), "steps": (0, 40), "angle": (0, 360)}
    _check_ranges(parameters, ranges)
    return Explorer(
        "contraction",
        label="Contraction explorer: ρ and γ of a map of the plane",
        words="A linear map of the plane is applied again and again. Its spectral radius ρ, the size of its largest "
        "eigenvalue, tells what becomes of the distance from the fixed point in the end: with ρ below 1 it shrinks to "
        "nothing. Its norm γ, the most that one step can multiply the distance by, tells what a single step can do: with γ "
        "below 1 the map is a contraction and every step brings every point closer, so that ρ is below 1 too. The converse "
        "is false: with ρ below 1 and γ above 1 the distance may first grow many times over before it shrinks. "
        + _ALIVE,
        parameters=parameters,
    )


def criterion(
    head: Sequence[Sequence[float]] = ((0.6, 0.8, 0.0), (0.0, 0.0, 1.0)),
    *,
    norm: float = 1.3,
    kappa: float = 4.0,
    loss: float = 30.0,
) -> Explorer:
    """The exact criterion where it can be drawn, a latent of three numbers and two outputs: turn the head, watch the spot.

    J is norm/1.3 times [[0, 0.5, 0], [1.3, 0, 0], [0, 0, 0.5]], G = diag(kappa, 1, 1), the head has no weights, and its rows are
    taken to the length 1. On a sphere of all directions g the spot is where JFB climbs, g (I − J)⁻¹ G gᵀ < 0, and the line is what
    the head sends. `theory.criterion` gives the same K = B (I − J)⁻¹ G Bᵀ.

    Args:
        head: the two rows of B at the beginning, three numbers each; on the seen half of the sphere, −0.1 g₁ + g₂ + 0.6 g₃ ≥ 0.
        norm: ‖J‖ at the beginning, in [0, 1.5].
        kappa: condition number of G at the beginning, in [1, 20].
        loss: angle of a = ∂ℓ/∂y at the beginning, in degrees, in [0, 360].

    Raises:
        ValueError: a parameter is outside its range, or a row is none of these.
    """
    rows = [[float(x) for x in row] for row in head]
    for row in rows:
        if len(rows) != 2 or len(row) != 3 or not any(row):
            raise ValueError(f"head must be two rows of three numbers, none of them all zero, got {rows}")
        if -0.1 * row[0] + row[1] + 0.6 * row[2] < 0:
            raise ValueError(
                f"head must have rows with −0.1 g₁ + g₂ + 0.6 g₃ ≥ 0, the half of the sphere that is drawn, got {row}; "
                "multiply it by −1, which changes no verdict"
            )
    numbers = {"norm": float(norm), "kappa": float(kappa), "loss": float(loss)}
    _check_ranges(numbers, {"norm": (0, 1.5), "kappa": (1, 20), "loss": (0, 360)})
    return Explorer(
        "criterion",
        label="Criterion explorer: the bad spot, and the few directions that arrive",
        words="A sphere of all directions g that could arrive at the fixed point of a latent of three numbers. In a spot of it JFB "
        "climbs. The head has two outputs, so what arrives lies on a line around the sphere, through the two rows of B. If the line "
        "passes the spot by, JFB descends for every loss: the symmetric part of K, a matrix of two rows, is then positive definite. "
        "If the line crosses the spot, some losses make JFB climb, and a dial of all losses shows which. Lowering ‖J‖ or κ shrinks "
        "the spot, until there is none and every head is safe. " + _ALIVE,
        parameters={"head": rows, **numbers},
        parts=("criterion.css",),
    )


def equilibrium(network: ImplicitNetwork, images: Tensor, classes: Sequence[str], *, tol: float = 1e-2) -> Explorer:
    """A trained network that runs in the page: its iteration on a picture, step by step, and what it answers after each.

    The reader goes through `images`, or brings a file, which stays in the browser. The weights are rounded to 8 bits each, a
    byte a parameter, so that the page stays small. The network is as in eval mode.

    Args:
        network: of `architectures.fast_cifar10`, or one of the same kinds of layers.
        images: `(N, 3, 32, 32)`, uint8, at least one.
        classes: their names, in the order of the logits.
        tol: relative tolerance, drawn as a line.

    Raises:
        TypeError, ValueError: the images are not such, there are not as many names as logits, or a layer of the network is one
            that the page cannot run; the message names it.
    """
    if images.dtype != torch.uint8 or images.shape[1:] != (3, 32, 32) or not len(images):
        raise ValueError(
            f"images must be of the shape (N, 3, 32, 32) and uint8, got {tuple(images.shape)} of {images.dtype}"
        )
    tol = check_positive("tol", tol, "1e-2 is the default")
    numbers, R = Numbers(), cast(Any, network.R)
    layers = {part: program(getattr(network, part), numbers) for part in "QRS"}
    if len(classes) != layers["S"][-1]["outer"]:
        raise ValueError(f"classes must be {layers['S'][-1]['outer']} names, got {len(classes)}")

    def text(content: bytes | bytearray) -> str:
        return base64.b64encode(content).decode()

    return Explorer(
        "equilibrium",
        label="Equilibrium explorer: a trained implicit network, step by step",
        words="A trained network runs in this page. It iterates on a picture from zero to the fixed point; the figure shows how "
        "far each step moves, how far each place of the latent image still is from where it ends, and which class the network "
        "would name if it stopped there. " + _ALIVE,
        parameters={
            "classes": list(classes),
            "pictures": text(images.cpu().contiguous().numpy().tobytes()),
            "count": len(images),
            "tol": tol,
            "network": {
                **layers,
                "entering": R.entering,
                "leaving": R.leaving,
                "integers": text(numbers.integers),
                "floats": text(numbers.floats),
            },
        },
    )


def descent(
    # arctan 2, and below arctan ½: w = (1, 2)/√5, wJ = 0.9 (2, 1)/√5, and −∇·p = 8/5 − 9/5 < 0 at κ = 4
    angle: float = 63.43494882292201,
    turn: float = 26.56505117707799,
    gamma: float = 0.9,
    kappa: float = 4.0,
) -> Explorer:
    """JFB's direction p for two parameters: turn the gradient and the Jacobian, watch whether p still descends.

    With B = diag(√κ, 1) and a unit row w, the adjoint, the gradient is ∇ = wB and p = −∇ + wJB. Of the Jacobian J, of norm at
    most γ, only wJ matters; here it has the length γ. Every such J descends at this w iff γ is below the cosine between w and
    wB², and at every w iff γ < 2√κ/(1 + κ). The defaults satisfy neither, and p ascends.

    Args:
        angle: of w at the beginning, in degrees, in [0, 360].
        turn: angle of wJ at the beginning, in degrees, in [0, 360].
        gamma: length of wJ at the beginning, in [0, 0.99].
        kappa: condition number of B² at the beginning, in [1, 20].

    Raises:
        ValueError: a parameter is outside its range.
    """
    parameters = {"angle": float(angle), "turn": float(turn), "gamma": float(gamma), "kappa": float(kappa)}
    _check_ranges(parameters, {"angle": (0, 360), "turn": (0, 360), "gamma": (0, 0.99), "kappa": (1, 20)})
    return Explorer(
        "descent",
        label="Descent explorer: JFB's direction p and the gradient",
        words="A plane of two parameters, with the arrow of the negative gradient. JFB's direction p ends somewhere in an ellipse "
        "around its tip: where, depends on the Jacobian, whose norm is at most γ. The larger γ, the larger the ellipse; the larger "
        "the condition number κ, the more elongated it is. A line through the origin, at right angles to the gradient, bounds the "
        "directions that descend. As long as γ < 2√κ/(1 + κ), the ellipse stays on the side of descent for every gradient; "
        "beyond, there are a gradient and a Jacobian for which p does not descend. Assumption 3.3 of the paper, κ < 1/γ, asks "
        "for more than that. " + _ALIVE,
        parameters=parameters,
    )


def labyrinth(
    network: ImplicitNetwork, grid: str | None = None, cell: tuple[int, int] | None = None, *, tol: float = 1e-4
) -> Explorer:
    """The network of chapter 13 runs in the page: water flows through a labyrinth whose walls the reader builds and takes away.

    The weights are rounded to 16 bits each, two bytes a parameter, so that the page stays small.

    Args:
        network: of `pages.labyrinth.network`, trained.
        grid: the labyrinth at the beginning, in letters, a line a row: `#` is a wall, `o` the spring, `.` open; of 2 to 24
            rows and columns. By default one that a single wall divides.
        cell: row and column, from 1, of the cell that is chosen at the beginning; by default that wall, or the first.
        tol: relative tolerance at which the iteration ends.

    Raises:
        TypeError, ValueError: grid is no such text, cell is not in it, tol is not positive, or the network is not of this form.
    """
    tol = check_positive("tol", tol, "1e-4 is the default")
    if grid is None:
        grid, cell = labyrinths.DRAWN, cell or labyrinths.DAM
    if not isinstance(grid, str):
        raise TypeError(f"grid must be a text, got {type(grid).__name__}")
    rows, columns = labyrinths.read(grid).shape[2:]
    if not (2 <= rows <= 24 and 2 <= columns <= 24):
        raise ValueError(f"grid must have 2 to 24 rows and columns, got {rows} by {columns}")
    row, column = cell = cell or (1, 1)
    if not (1 <= row <= rows and 1 <= column <= columns):
        raise ValueError(f"cell must lie in a grid of {rows} by {columns}, got {cell}; rows and columns count from 1")
    Q, R, S = cast(Any, network.Q), cast(Any, network.R), cast(Any, network.S)
    if not isinstance(R, labyrinths.Step):
        raise TypeError(f"network must be of pages.labyrinth.network, got an R of type {type(R).__name__}")
    return Explorer(
        "labyrinth",
        label="Labyrinth explorer: where the water reaches",
        words="A trained network runs in this page. It is given the walls of a labyrinth and the place of a spring, and says of each "
        "cell whether the water reaches it. At each step of the iteration the water goes on by one cell, around all corners, until "
        "all that can be reached is wet, and the iteration comes to rest. A wall that is taken away lets the water go on. "
        + _ALIVE,
        parameters={
            "grid": grid.strip(),
            "cell": [row, column],
            "tol": tol,
            "network": _halves(Q.out_channels, Q, R.one, R.two, S),
        },
        parts=("rest.js", "labyrinth.css"),
    )


def parity(network: ImplicitNetwork, bits: str = "0110100110010110" * 4, *, tol: float = 1e-5) -> Explorer:
    """The network of chapter 13 runs in the page: its answer travels along a string of bits, which the reader types or flips.

    The weights are rounded to 16 bits each, two bytes a parameter, so that the page stays small.

    Args:
        network: of `pages.parity.network`, trained.
        bits: the string at the beginning, of 1 to 200 zeros and ones.
        tol: relative tolerance at which the iteration ends.

    Raises:
        TypeError, ValueError: bits is no such string, tol is not positive, or the network is not of this form.
    """
    tol = check_positive("tol", tol, "1e-5 is the default")
    if not isinstance(bits, str) or not 1 <= len(bits) <= 200 or set(bits) - {"0", "1"}:
        raise ValueError(f"bits must be a string of 1 to 200 zeros and ones, got {bits!r}")
    Q, R, S = cast(Any, network.Q), cast(Any, network.R), cast(Any, network.S)
    if not isinstance(R, parity_of_prefixes.Step):
        raise TypeError(f"network must be of pages.parity.network, got an R of type {type(R).__name__}")
    return Explorer(
        "parity",
        label="Parity explorer: an answer that travels along a string",
        words="A trained network runs in this page. It reads a string of bits and says at each bit whether the number of ones up to "
        "there is odd. The figure shows the bits, the truth, and the answer at each step of the iteration, one line a step: the left "
        "end is right first, what is wrong moves to the right in bands, and when the last band has left the string, all is right. "
        + _ALIVE,
        parameters={"bits": bits, "tol": tol, "network": _halves(Q.out_channels, Q, R.one, R.two, S)},
        parts=("rest.js", "parity.css"),
    )


def phantom(
    k: int = 5,
    damping: float = 0.5,
    gamma: float = 0.9,
    symmetry: float = 1.0,
    kappa: float = 10.0,
) -> Explorer:
    """Phantom gradients of k terms and damping λ: a map of their cosine with the true gradient, and where the conditions hold.

    J is normal on R²⁴, with the eigenvalues μ = γ (cos θ ± i (1 − symmetry) sin θ), θ = π/24, 3π/24, …, 23π/24, and
    B = λJ + (1 − λ)I. With a diagonal M of κ(MᵀM) = kappa and a fixed adjoint w, the true gradient is M w, the phantom gradient
    M (w − w Bᵏ). The paper's condition is ‖Bᵏ‖ < 1/kappa, the sharp one ‖Bᵏ‖ < 2√kappa/(1 + kappa). JFB is k = 1, λ = 1.

    Args:
        k: terms of the cell selected at the beginning, in [1, 20].
        damping: its λ, one of 0.05, 0.10, …, 1.00; another number is refused, not rounded.
        gamma: radius of the spectrum of J at the beginning, in [0, 0.99].
        symmetry: 1 is a symmetric J, with real eigenvalues, 0 is γ times an orthogonal matrix; in [0, 1].
        kappa: condition number of MᵀM at the beginning, in [1, 100].

    Raises:
        TypeError: k is no integer.
        ValueError: a parameter is outside its range, or damping between two rows of the map.
    """
    k = check_integer("k", k, 1, "the slider goes from 1 to 20")
    parameters = {
        "k": k,
        "damping": float(damping),
        "gamma": float(gamma),
        "symmetry": float(symmetry),
        "kappa": float(kappa),
    }
    ranges = {"k": (1, 20), "damping": (0.05, 1), "gamma": (0, 0.99), "symmetry": (0, 1), "kappa": (1, 100)}
    _check_ranges(parameters, ranges)
    row = round(parameters["damping"] * 20)
    # twentieths are no binary fractions: 3 * 0.05 is a row, too
    if abs(parameters["damping"] - row / 20) > 1e-9:
        raise ValueError(
            f"damping must be one of 0.05, 0.10, …, 1.00, got {parameters['damping']}; the nearest is {row / 20:.2f}"
        )
    return Explorer(
        "phantom",
        label="Phantom explorer: k terms, damping λ, and the true gradient",
        words="A map of 400 phantom gradients, of k = 1 to 20 terms from left to right and damping λ = 0.05 to 1 from bottom to "
        "top; the colour of a cell is the cosine between its phantom gradient and the true one. JFB is the upper left corner, "
        "k = 1 and λ = 1. For k = 1 damping only scales: all λ have the same cosine. With more terms the largest cosine may "
        "belong to a λ below 1, although here no damping makes ‖Bᵏ‖ smaller. A second drawing shows the eigenvalues of J and how "
        "damping pulls them towards 1. Behind More: dots mark the cells where the paper's condition ‖Bᵏ‖ < 1/κ holds, open "
        "circles those where only the sharp one holds, ‖Bᵏ‖ < 2√κ/(1 + κ). " + _ALIVE,
        parameters=parameters,
    )


def sudoku(network: ImplicitNetwork, samples: Mapping[str, str], *, tol: float = 1e-4) -> Explorer:
    """The network of chapter 14 runs in the page: the reader sets givens, and the cells settle, step by step, or do not.

    The weights are rounded to 16 bits each, two bytes a parameter, so that the page stays small.

    Args:
        network: of `pages.sudoku.network`, trained.
        samples: names of puzzles and the puzzles, at least one: 36 digits row by row, 0 for an empty cell. It begins with the first.
        tol: relative tolerance at which the iteration ends.

    Raises:
        TypeError, ValueError: a sample is no such puzzle, tol is not positive, or the network is not of this form.
    """
    tol = check_positive("tol", tol, "1e-4 is the default")
    for name, grid in samples.items():
        if not isinstance(grid, str) or len(grid) != 36 or set(grid) - set("0123456"):
            raise ValueError(f"a puzzle must be a string of 36 digits from 0 to 6, got {grid!r} for {name!r}")
    if not samples:
        raise ValueError("samples must have at least one puzzle, got none")
    Q, R, S = cast(Any, network.Q), cast(Any, network.R), cast(Any, network.S)
    if not isinstance(R, sudoku_of_six.Step):
        raise TypeError(f"network must be of pages.sudoku.network, got an R of type {type(R).__name__}")
    tensors = [Q.linear.weight, Q.linear.bias, R.own.weight, R.own.bias]
    tensors += [part.weight for part in (R.row, R.column, R.box, R.cell)] + [S.linear.weight, S.linear.bias]
    numbers = torch.cat([tensor.detach().flatten() for tensor in tensors]).half()
    return Explorer(
        "sudoku",
        label="Sudoku explorer: 36 cells that settle, or do not",
        words="A trained network runs in this page. It reads a Sudoku of six by six cells, and the figure shows at each step of the "
        "iteration the likeliest digit of each cell, shaded the more deeply the surer the network is, and underlined where it clashes with "
        "another. Most puzzles with one solution come to rest at it. " + _ALIVE,
        parameters={
            "samples": dict(samples),
            "tol": tol,
            "network": {
                "channels": Q.linear.out_features,
                "damping": R.damping,
                "weights": base64.b64encode(numbers.numpy().astype("<f2").tobytes()).decode(),
            },
        },
        parts=("rest.js", "sudoku.css"),
    )


def walk(
    x: float = 0.4, y: float = 0.5, shear: float = 0.0, terms: int = 1, damping: float = 1.0, angle: float = 20.0
) -> Explorer:
    """The walk g, g + gJ, g + gJ + gJ², … to the adjoint w = g (I − J)⁻¹, as arrows of the plane; JFB is the first arrow.

    J = [[x, y + shear], [−y²/(y + shear), x]] has the eigenvalues x ± iy for every shear, and is normal for shear = 0; it is the
    matrix of `contraction`. g is a row of length 1. With M = I a step along −v descends iff ⟨v, w⟩ > 0. Damped, the walk is
    v ← (1 − λ)v + λ(g + vJ) from 0.

    Args:
        x: real part of the eigenvalues of J at the beginning, in [−1.2, 1.2].
        y: their imaginary part at the beginning, in [0, 1.2].
        shear: distance from a normal matrix at the beginning, in [0, 4].
        terms: terms of the sum at the beginning, in [1, 40].
        damping: λ at the beginning, in [0.05, 1]; 1 is the plain sum.
        angle: of g at the beginning, in degrees, in [0, 360].

    Raises:
        TypeError: terms is no integer.
        ValueError: a parameter is outside its range.
    """
    terms = check_integer("terms", terms, 1, "the slider goes from 1 to 40")
    parameters = {
        "x": float(x),
        "y": float(y),
        "shear": float(shear),
        "terms": terms,
        "damping": float(damping),
        "angle": float(angle),
    }
    ranges = {
        "x": (-1.2, 1.2),
        "y": (0, 1.2),
        "shear": (0, 4),
        "terms": (1, 40),
        "damping": (0.05, 1),
        "angle": (0, 360),
    }
    _check_ranges(parameters, ranges)
    return Explorer(
        "walk",
        label="Walk explorer: from g, arrow by arrow, to the adjoint w",
        words="An arrow g arrives from the loss. Laid head to tail after it, the arrows gJ, gJ², … walk to a star, the adjoint "
        "w = g(I − J)⁻¹, whenever all eigenvalues of J are smaller than 1 in size. JFB stops at the end of the first arrow. A "
        "line through the origin, at right angles to w, bounds the shaded half of the plane: for an estimate v in that half "
        "a step along −v descends (with M = I), on the other side it climbs. As long as ‖J‖ < 1, g itself lies in the "
        "shaded half. Damping λ below 1 makes the arrows shorter and bends the walk. " + _ALIVE,
        parameters=parameters,
    )


def playground(
    data: str = "moons",
    rule: str = "jfb",
    *,
    terms: int = 5,
    damping: float = 0.5,
    gamma: float = 0.9,
    hold: bool = True,
    tol: float = 1e-3,
    most: int = 50,
    solver: str = "plain",
    lr: float = 0.02,
    seed: int = 0,
) -> Explorer:
    """A small implicit classifier that trains in the page: watch its answer form, break it, repair it.

    d is a point of the plane, u has 10 latents, T(u; d) = tanh(W u + U d + b) and S(u) = V u + c, one logit. The logistic loss of
    all 200 points is made smaller by Adam, in float64, with the gradient of the chosen rule. The exact one is computed beside it.

    Args:
        data: "moons", "circles" or "spirals".
        rule: the gradient at the beginning: "exact", "jfb", "neumann" (`NeumannSeries(terms)`), "npg" (`NeumannSeries(terms, damping)`),
            "upg" (`UnrolledPhantom(terms, damping)`) or "unrolled" (`Unrolled(terms)`).
        terms: its terms or steps, in [1, 30].
        damping: λ of the phantom gradients, in [0.05, 1].
        gamma: the norm that W starts with, in [0.5, 3].
        hold: scale W back to this norm after each training step that made it larger.
        tol: tolerance of the solver, on ‖T(u) − u‖ of each point, in [1e-6, 1].
        most: most steps of the solver, in [1, 100].
        solver: "plain" or "anderson", with the package's settings.
        lr: Adam's learning rate, in [1e-3, 1e-1].
        seed: of the first weights, in [0, 1,000,000].

    Raises:
        TypeError, ValueError: an argument is none of these.
    """
    chosen = {
        "data": check_choice("data", data, ("moons", "circles", "spirals")),
        "rule": check_choice("rule", rule, ("exact", "jfb", "neumann", "npg", "upg", "unrolled")),
        "solver": check_choice("solver", solver, ("plain", "anderson")),
        "hold": check_flag("hold", hold),
    }
    numbers = {
        "terms": check_integer("terms", terms, 1, "the slider goes from 1 to 30"),
        "damping": float(damping),
        "gamma": float(gamma),
        "tol": float(tol),
        "most": check_integer("most", most, 1, "the slider goes from 1 to 100"),
        "lr": float(lr),
        "seed": check_integer("seed", seed, 0, "0 is the default"),
    }
    ranges = {"terms": (1, 30), "damping": (0.05, 1), "gamma": (0.5, 3), "tol": (1e-6, 1), "most": (1, 100)}
    _check_ranges(numbers, ranges | {"lr": (1e-3, 1e-1), "seed": (0, 1_000_000)})
    return Explorer(
        "playground",
        label="Playground: train an implicit network, break it, repair it",
        words="A small implicit network learns to tell two classes of points in the plane apart, and trains in this page. A picture "
        "shows which class it would name at every place, if it were read after none, one, two, … steps of its iteration or once that "
        "has settled; beside it stand the loss, the steps that the iteration takes, the largest norm and spectral radius of the "
        "Jacobian, and the cosine between the gradient of the chosen rule and the exact one. " + _ALIVE,
        parameters={**chosen, **numbers},
        parts=("playground.css", "classifier.js"),
    )


def _check_ranges(parameters: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]) -> None:
    for name, (low, high) in ranges.items():
        if not low <= parameters[name] <= high:
            raise ValueError(
                f"{name} must lie in [{low}, {high}], got {parameters[name]}; the explorer's sliders reach no further"
            )


def _halves(channels: int, *layers: nn.Module) -> dict[str, object]:
    """The weights and biases of these layers, each rounded to 16 bits, one after another."""
    parts = [cast(Tensor, part).detach().flatten() for layer in layers for part in (layer.weight, layer.bias)]
    numbers = torch.cat(parts).half().cpu().numpy().astype("<f2")
    return {"channels": channels, "weights": base64.b64encode(numbers.tobytes()).decode()}


@cache
def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8").strip()
