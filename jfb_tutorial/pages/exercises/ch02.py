"""The exercises of chapter 2."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import torch
from scipy.special import betaln, hyp2f1
from torch import Tensor, nn

from ...theory import contraction_factor
from .checks import Answer, Exercise, Given, Mistake, Part, Property
from .kinds import Function, Number, Object, Words, YesNo
from .running import Stopped, Student

# Four matrices

_ORDER = ("first", "second", "third")


def _sizes(given: Given) -> list[tuple[float, float, bool]]:
    """Norm, spectral radius, and whether the matrix is symmetric."""
    found = []
    for rows in given["matrices"]:
        A = torch.tensor(rows)
        radius = torch.linalg.eigvals(A).abs().max().item()
        found.append((torch.linalg.matrix_norm(A, 2).item(), radius, bool((A == A.T).all())))
    return found


def _chosen(given: Given, test: Any) -> list[str]:
    return [name for name, sizes in zip(_ORDER, _sizes(given), strict=True) if test(*sizes)]


def _draw_matrices(rng: Random) -> dict[str, Any]:
    x, p, c = rng.choice((2.0, 3.0, 7.0)), rng.choice((0.7, 0.8, 0.95)), rng.choice((0.5, 0.65, 0.8, 0.9))
    return {"matrices": [[[0.0, 0.0], [x, 0.0]], [[-p, 0.0], [0.0, p]], [[c, c], [-c, c]]]}


def _matrix(rows: list[list[float]]) -> str:
    return "\\begin{pmatrix} " + " \\\\ ".join(" & ".join(f"{x:g}" for x in row) for row in rows) + " \\end{pmatrix}"


FOUR = Exercise(
    "ex-02-four",
    parts=(
        Part(
            "contractions",
            Words(_ORDER, many=True),
            "those that are contractions",
            truth=lambda g: _chosen(g, lambda norm, radius, symmetric: norm < 1),
            mistakes=(
                Mistake(
                    "radius-for-norm",
                    "`contractions`: you have judged by the eigenvalues. A contraction brings *all* pairs nearer in one step; the norm decides.",
                    answer=lambda g: _chosen(g, lambda norm, radius, symmetric: radius < 1),
                ),
                Mistake(
                    "symmetric-only",
                    "`contractions`: complex eigenvalues are no obstacle. Compute the norm of each matrix; a turn keeps lengths.",
                    answer=lambda g: _chosen(g, lambda norm, radius, symmetric: norm < 1 and symmetric),
                ),
            ),
            otherwise="`contractions`: compute the norm of each, the largest factor by which it stretches a vector.",
        ),
        Part(
            "settles",
            Words(_ORDER, many=True),
            "those whose iteration settles",
            truth=lambda g: _chosen(g, lambda norm, radius, symmetric: radius < 1),
            mistakes=(
                Mistake(
                    "norm-for-radius",
                    "`settles`: a contraction settles, and others may: follow a vector for two or three steps, or look at the eigenvalues.",
                    made=lambda a, g: a["settles"] < set(_chosen(g, lambda norm, radius, symmetric: radius < 1)),
                ),
            ),
            otherwise="`settles`: the spectral radius decides, the largest modulus of an eigenvalue.",
        ),
    ),
    shows="The norm decides whether every step brings points nearer, the spectral radius whether they end up together.",
    hints=(
        "Contraction: the norm is below 1. Settling: the spectral radius is.",
        "For a symmetric matrix the two are the same. A matrix with one entry beside the diagonal, and nothing else, has only the eigenvalue 0.",
        "The third turns, and multiplies all lengths by one factor: take the length of its first column.",
    ),
    given={"matrices": [[[0.0, 5.0], [0.0, 0.0]], [[0.9, 0.0], [0.0, -0.9]], [[0.6, -0.6], [0.6, 0.6]]]},
    draw=_draw_matrices,
    question=lambda g: (
        "Without a computer: for which of these is $u \\leftarrow Au$ a contraction, and for which does it settle?\n\n$$"
        + ", \\quad ".join(_matrix(rows) for rows in g["matrices"])
        + "$$"
    ),
)

# A block with a certificate


class _Block(nn.Module):
    """The chapter's, with weights of its own."""

    def __init__(self, channels: int, size: float = 1.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        with torch.no_grad():
            self.first.weight *= size

    def forward(self, u: Tensor) -> Tensor:
        inner = nn.functional.leaky_relu(self.first(u), 0.1)
        return 0.5 * (u + nn.functional.leaky_relu(self.second(inner), 0.1))


def _norms(block: Any, u: Tensor) -> tuple[float, float]:
    return contraction_factor(block.first, 0 * u), contraction_factor(block.second, 0 * u)


def _flat(layer: nn.Conv2d) -> float:
    return torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2).item()


def _bounds(f: Student, given: Given) -> list[float]:
    u = torch.randn(1, 4, 5, 5)
    return [f.number(_Block(4, size).double(), u) for size in (1.0, 2.0)]


def _product(block: Any, u: Tensor) -> float:
    a, b = _norms(block, u)
    return 0.5 * (1 + a * b)


def _like(block: Any) -> Tensor:
    """A latent for the student's block, of the chapter's size."""
    return torch.zeros(1, int(block.first.weight.shape[1]), 6, 6).to(block.first.weight.dtype)


def _layers(value: Any) -> bool:
    return isinstance(value, nn.Module) and hasattr(value, "first") and hasattr(value, "second")


def _certified(answer: Answer, given: Given) -> bool:
    block = answer["certified"]
    try:
        return _product(block, _like(block)) < 1
    except (AttributeError, RuntimeError, TypeError) as error:
        raise Stopped(
            f"`certified` could not be measured on a latent of 6 × 6: {type(error).__name__}: {error}".splitlines()[0]
        ) from None


PRODUCT = Exercise(
    "ex-02-product",
    parts=(
        Part(
            "product_bound",
            Function("block, u", "the bound, a float", rel=1e-3),
            "the bound on the factor of a block, for images of the size of u",
            truth=lambda g: _product,
            observe=_bounds,
            mistakes=(
                Mistake(
                    "half-forgotten",
                    "This is the product of the two norms alone: the block adds u itself, and halves the sum.",
                    answer=lambda g: lambda block, u: math.prod(_norms(block, u)),
                ),
                Mistake(
                    "path-without-the-skip",
                    "The path through the layers is there, and the one beside them is not: u is added to it.",
                    answer=lambda g: lambda block, u: 0.5 * math.prod(_norms(block, u)),
                ),
                Mistake(
                    "sum-for-product",
                    "You have added the norms: one layer after the other multiplies them.",
                    answer=lambda g: lambda block, u: 0.5 * (1 + sum(_norms(block, u))),
                ),
                Mistake(
                    "kernel-as-a-matrix",
                    "You have taken the norm of the kernel as a matrix. A convolution stretches an *image*; that norm belongs to another map.",
                    answer=lambda g: lambda block, u: 0.5 * (1 + _flat(block.first) * _flat(block.second)),
                ),
            ),
        ),
        Part(
            "certified",
            Object("a block, a torch module with layers `first` and `second`", _layers),
            "a block whose bound is below 1",
        ),
    ),
    properties=(
        Property(
            ("certified",),
            _certified,
            "The bound of `certified` is not below 1.",
            mistakes=(
                Mistake(
                    "certified-by-the-kernel",
                    "`certified`: the kernels are small as matrices, and the convolutions are not: their norms on 6 × 6 images are larger.",
                    made=lambda a, g: 0.5 * (1 + _flat(a["certified"].first) * _flat(a["certified"].second)) < 1,
                ),
                Mistake(
                    "untouched",
                    "The product of the norms in `certified` is still above 1. Bound each convolution, not the block at one point.",
                    made=lambda a, g: math.prod(_norms(a["certified"], _like(a["certified"]))) > 1,
                ),
            ),
        ),
    ),
    shows="A product of norms is a pessimist, and a certificate: keep it below 1, and the block contracts wherever it is.",
    hints=(
        "`theory.contraction_factor(layer, 0 * u)` is the norm of a convolution on images of the size of u.",
        "The norms of layers that follow each other multiply; the leaky ReLU stretches nothing; u itself passes with the factor 1.",
        "`operator_norm(layer, 0.9, shape=(6, 6))` of `jfb_tutorial.normalisation` keeps a convolution's norm from exceeding 0.9.",
    ),
)

# Another ruler


def _ruler(given: Given) -> float:
    return (given["factor"] - given["a"] ** 2 / given["factor"]) / given["c"]


RULER = Exercise(
    "ex-02-ruler",
    parts=(
        Part(
            "s",
            Number(rel=2e-3),
            "the s for the factor that is asked for",
            truth=_ruler,
            mistakes=(
                Mistake(
                    "inverse-ruler",
                    "Which coordinate is measured in units of s? The factor is that of D⁻¹AD, not of DAD⁻¹.",
                    answer=lambda g: 1 / _ruler(g),
                ),
                Mistake(
                    "entries-added",
                    "You have added the entries of a row. The norm is the largest *stretch*; take it from the singular values.",
                    answer=lambda g: (g["factor"] - g["a"]) / g["c"],
                ),
                Mistake(
                    "radius",
                    "With this s the entry outside the diagonal has the size of the factor itself; the diagonal stretches too.",
                    answer=lambda g: g["factor"] / g["c"],
                ),
            ),
            otherwise="The norm of D⁻¹AD at this s is another one.",
        ),
        Part(
            "changes",
            YesNo(),
            "whether the new ruler changes if JFB may climb",
            truth=lambda g: False,
            mistakes=(
                Mistake(
                    "ruler-of-the-reader",
                    "`changes`: the ruler was chosen by you, and the gradient has not been asked. What does the gradient's ruler come from?",
                    answer=lambda g: True,
                ),
            ),
        ),
    ),
    shows="For the iteration you may choose the ruler; for the gradient the weights have chosen it.",
    hints=(
        "Measuring by √(u₁² + (u₂/s)²) is measuring D⁻¹u with D = diag(1, s).",
        "The factor is then the norm of D⁻¹AD. Write that matrix down: one entry has changed.",
        "Its two singular values multiply to the determinant, and the difference of the two is the size of the entry outside the diagonal.",
    ),
    given={"a": 0.5, "c": 10.0, "factor": 0.6},
    draw=lambda rng: {
        "a": rng.choice((0.4, 0.5, 0.6)),
        "c": rng.choice((5.0, 8.0, 20.0)),
        "factor": rng.choice((0.7, 0.8, 0.9)),
    },
    question=lambda g: (
        f"Lengths are measured by $\\sqrt{{u_1^2 + (u_2/s)^2}}$. For which $s$ is the shear $A = {_matrix([[g['a'], g['c']], [0, g['a']]])}$ "
        f"a contraction with the factor {g['factor']:g}? With weights for which $\\partial T/\\partial\\theta$ is the identity JFB may climb for this "
        "matrix. Does the new ruler change that?"
    ),
)

# A needle in a thousand dimensions


def _threshold(given: Given) -> float:
    return (1 - given["small"] ** 2) / (given["large"] ** 2 - given["small"] ** 2)


def _zeros(q: float, n: int) -> float:
    """−log₁₀ of the probability that a squared cosine exceeds q: too small for a float, so by the series for its logarithm."""
    a, b, x = (n - 1) / 2, 0.5, 1 - q
    log = a * math.log(x) - math.log(a) - betaln(a, b) + math.log(hyp2f1(a, 1 - b, a + 1, x))
    return float(-log / math.log(10))


NEEDLE = Exercise(
    "ex-02-needle",
    parts=(
        Part(
            "threshold",
            Number(rel=2e-3),
            "the squared cosine above which the check notices",
            truth=_threshold,
            mistakes=(
                Mistake(
                    "stretches-not-squared",
                    "`threshold`: lengths add by their squares. Square both stretches before you mix them.",
                    answer=lambda g: (1 - g["small"]) / (g["large"] - g["small"]),
                ),
                Mistake(
                    "the-rest-forgotten",
                    "`threshold`: what lies in the other directions adds to the length as well.",
                    answer=lambda g: 1 / g["large"] ** 2,
                ),
                Mistake(
                    "cosine-not-squared",
                    "`threshold` is the cosine; its square is asked for.",
                    answer=lambda g: math.sqrt(_threshold(g)),
                ),
            ),
        ),
        Part(
            "zeros",
            Number(rel=0.0, abs=1.0),
            "k, where the probability is about 10⁻ᵏ",
            truth=lambda g: _zeros(_threshold(g), g["n"]),
            mistakes=(
                Mistake(
                    "natural-logarithm",
                    "`zeros` is the natural logarithm; powers of ten are asked for.",
                    answer=lambda g: _zeros(_threshold(g), g["n"]) * math.log(10),
                ),
                Mistake(
                    "cosine-for-its-square",
                    "`zeros` is for the cosine itself as the bound: the Beta distribution is that of its square.",
                    answer=lambda g: _zeros(math.sqrt(_threshold(g)), g["n"]),
                ),
                Mistake(
                    "underflow",
                    "`zeros`: float64 has rounded the probability to 0, or stopped near 10⁻³⁰⁸. Compute its logarithm, or use `mpmath`.",
                    made=lambda a, g: math.isinf(a["zeros"]) or abs(a["zeros"] - 316) < 10,
                ),
            ),
        ),
    ),
    shows="No number of random directions finds one stretched direction among so many: the check says nothing about the norm.",
    hints=(
        "Split the direction into its part along the stretched one, of squared length q, and the rest, 1 − q.",
        "Each part is stretched by its own factor, and squared lengths add. When is the sum above 1?",
        "The probability is the upper tail of the Beta distribution at that q; `mpmath.betainc(…, regularized=True)` does not underflow.",
    ),
    given={"n": 1000, "large": 1.1, "small": 0.3},
    draw=lambda rng: {
        "n": rng.choice((300, 500, 800)),
        "large": rng.choice((1.1, 1.2, 1.3)),
        "small": rng.choice((0.2, 0.4, 0.5)),
    },
    question=lambda g: (
        f"A linear map stretches one direction of {g['n']} by {g['large']:g} and the others by {g['small']:g}. How large must the squared cosine between "
        "a random direction and the stretched one be for the direction to grow? The probability of that is about $10^{-k}$: what is $k$? "
        "(The squared cosine has a Beta distribution with parameters $\\tfrac12$ and $\\tfrac{n-1}{2}$.)"
    ),
)

# How much damping?


def _at(f: Student, given: Given) -> list[float]:
    return [f.number(s) for s in (0.5, 2.0, 6.0)]


def _at_pairs(f: Student, given: Given) -> list[float]:
    return [f.number(a, b) for a, b in ((1.3, 0.5), (2.4, 0.9), (0.7, 0.1))]


DAMPING = Exercise(
    "ex-02-damping",
    parts=(
        Part(
            "breaks_at",
            Number(),
            "the s at which the damped ring breaks",
            truth=lambda g: math.sqrt(2 / g["share"] - 1),
            mistakes=(
                Mistake(
                    "imaginary-part-alone",
                    "`breaks_at`: the eigenvalue has a real part too, 1 − λ, and its modulus counts both.",
                    answer=lambda g: 1 / g["share"],
                ),
                Mistake(
                    "best-for-limit",
                    "`breaks_at`: this is the s for which that damping is *best*. It breaks later.",
                    answer=lambda g: math.sqrt(1 / g["share"] - 1),
                ),
                Mistake(
                    "undamped",
                    "`breaks_at`: this is where whole steps break.",
                    answer=lambda g: 1.0,
                ),
            ),
        ),
        Part(
            "repair",
            Function("s", "the λ, a float", rel=2e-3),
            "the λ that repairs a ring of s best",
            truth=lambda g: lambda s: 1 / (1 + s**2),
            observe=_at,
            mistakes=(
                Mistake(
                    "limit-for-best",
                    "`repair` is the largest λ that settles at all; the best one makes the modulus smallest.",
                    answer=lambda g: lambda s: 2 / (1 + s**2),
                ),
                Mistake(
                    "real-part-forgotten",
                    "`repair`: you have left out the part 1 − λ, which a small λ makes large.",
                    answer=lambda g: lambda s: 1 / s**2,
                ),
            ),
        ),
        Part(
            "for_slopes",
            Function("a, b", "the λ, a float", rel=2e-3),
            "the λ with the smallest factor for slopes in [−a, b]",
            truth=lambda g: lambda a, b: 2 / (2 + a - b),
            observe=_at_pairs,
            mistakes=(
                Mistake(
                    "sign-of-a",
                    "`for_slopes`: the slopes begin at *minus* a, so that 1 − λ(1 + a) is one end.",
                    answer=lambda g: lambda a, b: 2 / (2 - a - b),
                ),
                Mistake(
                    "one-end-zero",
                    "`for_slopes` makes one end 0 and leaves the other large: the two ends should be equally far from 0.",
                    answer=lambda g: lambda a, b: 1 / (1 + a),
                ),
                Mistake(
                    "one-end-half",
                    "`for_slopes`: write down both ends, and ask that they are opposite; something has been lost on the way.",
                    answer=lambda g: lambda a, b: 1 / (2 + a - b),
                ),
            ),
        ),
    ),
    shows="Damping turns eigenvalues towards 1, and the best λ makes the two extreme ones equally large.",
    hints=(
        "A damped step has the eigenvalues 1 − λ + λμ, where the undamped one has μ. In the ring μ = ±is.",
        "Their squared modulus is a quadratic function of λ: it is below 1 up to some λ, and smallest halfway.",
        "A slope m becomes 1 − λ(1 − m). Of an interval only the two ends matter, and the larger modulus is least where they are opposite.",
    ),
    given={"share": 0.1},
    draw=lambda rng: {"share": rng.choice((0.05, 0.2, 0.25, 0.4))},
    question=lambda g: (
        f"Where both units of a ring are on, a whole step has the eigenvalues $\\pm is$. At which $s$ does a step of which only the share {g['share']:g} is taken no longer settle? "
        "Which $\\lambda$ repairs a ring of $s$ best? And if the slopes of a map of the line lie in $[-a, b]$, $b < 1$, $b < a$: which $\\lambda$ gives the "
        "smallest contraction factor?"
    ),
)

EXERCISES = (FOUR, PRODUCT, RULER, NEEDLE, DAMPING)
