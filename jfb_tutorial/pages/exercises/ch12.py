"""The exercises of chapter 12."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

import torch
from torch import Tensor

from ..certificates import Draws, abscissa, draw
from ..instances import coercivity, sym
from .checks import Exercise, Given, Mistake, Part, Property
from .kinds import Array, Function, Number, Words
from .running import Student

# One output


def _tensors(given: Given) -> tuple[Tensor, Tensor, Tensor]:
    """J, G and B."""
    x = torch.tensor
    return given["gamma"] * x([[0.0, 1.0], [1.0, 0.0]]), x(given["G"]).diag(), x([given["B"]])


def _K(given: Given) -> float:
    J, G, B = _tensors(given)
    return (B @ torch.linalg.inv(torch.eye(2) - J) @ G @ B.T).item()


def _without_G(given: Given) -> float:
    J, _, B = _tensors(given)
    return (B @ torch.linalg.inv(torch.eye(2) - J) @ B.T).item()


def _without_inverse(given: Given) -> float:
    _, G, B = _tensors(given)
    return (B @ G @ B.T).item()


def _draw_one(rng: Random) -> dict[str, Any]:
    gamma = rng.choice((0.5, 0.8))
    # B = z(I − J) for a z of small numbers, so that Z is one that a hand computes
    z = rng.choice(((1.0, 3.0), (1.0, 2.0), (2.0, 1.0), (1.0, -1.0)))
    return {
        "gamma": gamma,
        "G": (rng.choice((4.0, 9.0)), 1.0),
        "B": (round(z[0] - gamma * z[1], 4), round(z[1] - gamma * z[0], 4)),
    }


ONE = Exercise(
    "ex-12-one",
    parts=(
        Part(
            "K",
            Number(),
            "the number K",
            truth=_K,
            mistakes=(
                Mistake(
                    "weights-left-out",
                    "`K` has no G in it: the weights decide how much of each coordinate is seen.",
                    answer=_without_G,
                ),
                Mistake(
                    "inverse-left-out",
                    "`K` is BGBᵀ, what JFB would need: one of the two B is Z = B(I − J)⁻¹.",
                    answer=_without_inverse,
                ),
            ),
        ),
        Part(
            "climbs",
            Words(("for every loss", "for some losses", "for no loss")),
            "for which losses of this output JFB climbs",
            truth=lambda g: "for every loss" if _K(g) < 0 else "for no loss",
            mistakes=(
                Mistake(
                    "sign-of-a",
                    "`climbs`: with one output a is a number; does its sign survive in aKa?",
                    answer=lambda g: "for some losses",
                ),
                Mistake(
                    "sign-of-K",
                    "`climbs`: ⟨gradient, p⟩ is −aKa. What does the sign of K make of it?",
                    answer=lambda g: "for no loss" if _K(g) < 0 else "for every loss",
                ),
            ),
        ),
    ),
    shows="With one output the sign of one number tells for every loss at once whether JFB descends.",
    hints=(
        "Z solves Z(I − J) = B: two equations for two numbers.",
        "K = ZGBᵀ, with G diagonal: a sum of two products of three numbers.",
        "The loss enters as a, once from the left and once from the right.",
    ),
    given={"gamma": 0.9, "G": (4.0, 1.0), "B": (-0.8, 1.1)},
    draw=_draw_one,
    question=lambda g: (
        f"With one output and a head without weights $K$ is a number. Compute it where $J$ swaps two coordinates and multiplies by {g['gamma']:g}, $G = \\mathrm{{diag}}({g['G'][0]:g}, {g['G'][1]:g})$, and "
        f"$B = ({g['B'][0]:g},\\ {g['B'][1]:g})$. For which losses of this output does JFB climb?"
    ),
)

# How many terms certify


def _with_terms(draws: Draws, k: int) -> Tensor:
    sent = draws.Z @ (torch.eye(draws.J.shape[-1]) - torch.linalg.matrix_power(draws.J, k))
    return draws.Z @ draws.G @ sent.mT


def _power_for_J(draws: Draws, k: int) -> Tensor:
    return Draws(torch.linalg.matrix_power(draws.J, k), draws.E, draws.B).K


def _matrices(f: Student, given: Given) -> Tensor:
    draws = draw(6, generator=torch.Generator().manual_seed(4))
    # the symmetric part is what certifies, so that a transposed K is as good
    return torch.cat([sym(f.tensor((6, 2, 2), draws, k)).flatten() for k in (1, 2, 5)])


@cache
def _certified(symmetric: bool = True) -> list[int]:
    torch.set_default_dtype(torch.float64)  # as the chapter has it; the guard puts it back
    draws = draw(300, generator=torch.Generator().manual_seed(10))
    found = []
    for k in (1, 2, 3, 40):
        K = _with_terms(draws, k)
        least = coercivity(K) if symmetric else torch.linalg.eigvals(K).real.amin(-1)
        found.append(int((least > 0).sum()))
    return found


TERMS = Exercise(
    "ex-12-terms",
    parts=(
        Part(
            "K",
            Function("draws, k", "K of each instance, (count, 2, 2)", rel=1e-6),
            "K for JFB with k Neumann terms; draws is what certificates.draw returns",
            truth=lambda g: _with_terms,
            observe=_matrices,
            mistakes=(
                Mistake("one-term", "`K` is that of JFB for every k.", answer=lambda g: lambda draws, k: draws.K),
                Mistake(
                    "power-in-place-of-J",
                    "`K`: you have put Jᵏ in the place of J. With k terms w − wJᵏ is *sent*; the adjoint itself stays as it is.",
                    answer=lambda g: _power_for_J,
                ),
                Mistake(
                    "one-term-more",
                    "`K` is for one term more: one term is JFB, and leaves J itself.",
                    answer=lambda g: lambda draws, k: _with_terms(draws, k + 1),
                ),
            ),
        ),
        Part(
            "certified",
            Array((4,), rel=0.0, off=1.5),
            "how many of draw(300, generator=torch.Generator().manual_seed(10)) are certified with 1, 2, 3 and 40 terms",
            truth=lambda g: _certified(),
            mistakes=(
                Mistake(
                    "eigenvalues-for-symmetric-part",
                    "`certified` counts matrices whose *eigenvalues* are positive. aKaᵀ > 0 asks for the symmetric part.",
                    answer=lambda g: _certified(False),
                ),
                Mistake(
                    "those-that-are-not",
                    "`certified` counts those that are not.",
                    answer=lambda g: [300 - x for x in _certified()],
                ),
            ),
            otherwise="`certified`: in float64 (`torch.set_default_dtype(torch.float64)`), where the smallest eigenvalue of the symmetric part is above 0.",
        ),
    ),
    shows="Each further term brings K nearer to ZGZᵀ, which is positive whatever J is.",
    hints=(
        "With one term JFB sends aB = aZ(I − J). What is sent with k terms, in terms of Z and J?",
        "K = ZG(what the head and the rule send)ᵀ.",
        "`coercivity` of `jfb_tutorial.pages.instances` is the smallest eigenvalue of the symmetric part, for many matrices at once.",
    ),
    question=lambda g: (
        "Write `K(draws, k)`: the matrix $K$ of chapter 12 for JFB with $k$ Neumann terms, for all instances of `certificates.draw` at once. How many of "
        "`draw(300, generator=torch.Generator().manual_seed(10))`, in float64, are certified with 1, 2, 3 and 40 terms?"
    ),
)

# Two rulers


def _omegas(f: Student, given: Given) -> list[float]:
    return [f.number(s) for s in (0.01, 0.08, 0.5)]


RULERS = Exercise(
    "ex-12-rulers",
    parts=(
        Part(
            "omega",
            Function("s", "ω_G, a float", rel=2e-3),
            "ω_G of the shear for G = diag(1, s²)",
            truth=lambda g: (
                lambda s: abscissa(
                    torch.tensor([[g["a"], g["c"]], [0.0, g["a"]]]), torch.tensor([1.0, s**2]).diag()
                ).item()
            ),
            observe=_omegas,
            mistakes=(
                Mistake(
                    "entry-not-shared",
                    "`omega`: the symmetric part shares the entry outside the diagonal between two places.",
                    answer=lambda g: lambda s: g["a"] + g["c"] * s,
                ),
                Mistake(
                    "s-squared",
                    "`omega`: in the ruler the entry is multiplied by s; the s² of G is the square of its unit.",
                    answer=lambda g: lambda s: g["a"] + g["c"] * s**2 / 2,
                ),
            ),
        ),
        Part(
            "descends",
            Number(rel=2e-3),
            "the s below which JFB descends for every loss",
            truth=lambda g: 2 * (1 - g["a"]) / g["c"],
            mistakes=(
                Mistake(
                    "contraction-for-descent",
                    "`descends` is where the shear ceases to be a contraction. Less is asked for.",
                    answer=lambda g: (1 - g["a"] ** 2) / g["c"],
                ),
                Mistake(
                    "entry-not-shared",
                    "`descends`: the symmetric part has half of the entry in each of two places.",
                    answer=lambda g: (1 - g["a"]) / g["c"],
                ),
            ),
        ),
        Part(
            "contracts",
            Number(rel=2e-3),
            "the s below which the shear contracts in that ruler",
            truth=lambda g: (1 - g["a"] ** 2) / g["c"],
            mistakes=(
                Mistake(
                    "descent-for-contraction",
                    "`contracts` is where JFB ceases to descend for every loss. The norm is larger than ω_G.",
                    answer=lambda g: 2 * (1 - g["a"]) / g["c"],
                ),
                Mistake(
                    "row-sum", "`contracts`: the norm is not the sum of a row.", answer=lambda g: (1 - g["a"]) / g["c"]
                ),
            ),
        ),
        Part(
            "more",
            Words(("a contraction", "descent")),
            "which asks for more",
            truth=lambda g: "a contraction",
            mistakes=(
                Mistake(
                    "limits-misread",
                    "`more`: the condition that ends earlier asks for more.",
                    answer=lambda g: "descent",
                ),
            ),
        ),
    ),
    shows="A contraction forbids stretching in any direction, descent only along the direction itself.",
    hints=(
        "In the ruler the shear becomes D⁻¹AD with D = diag(1, s).",
        "ω_G is the largest eigenvalue of the symmetric part of that matrix, the contraction factor its norm.",
        "A symmetric 2 × 2 matrix with equal numbers on the diagonal has the eigenvalues diagonal ± entry. For the norm: the singular values multiply to the determinant.",
    ),
    given={"a": 0.5, "c": 10.0},
    draw=lambda rng: {"a": rng.choice((0.4, 0.6, 0.7)), "c": rng.choice((5.0, 8.0, 20.0))},
    question=lambda g: (
        f"For the shear $\\begin{{pmatrix}} {g['a']:g} & {g['c']:g} \\\\ 0 & {g['a']:g} \\end{{pmatrix}}$ and $G = \\mathrm{{diag}}(1, s^2)$, compute $\\omega_G$ by hand. For which $s$ does JFB descend for every loss? "
        "For which $s$ is the shear a contraction in that ruler? Which asks for more?"
    ),
)

# A head that breaks it


def _instance() -> tuple[Tensor, Tensor]:
    draws = draw(1, generator=torch.Generator().manual_seed(3))
    return draws.J[0], draws.G[0]


def _least(B: Tensor, factor: float = 1.0) -> float:
    J, G = _instance()
    return coercivity(B @ torch.linalg.inv(torch.eye(6) - factor * J) @ G @ B.T).item()


def _rank(B: Tensor) -> int:
    return int(torch.linalg.matrix_rank(B, rtol=1e-6))


def _heads() -> tuple[Tensor, Tensor]:
    """The two directions of the largest rate of descent; and one of these with the one of the least."""
    J, G = _instance()
    A = torch.linalg.solve(torch.eye(6) - J, G)
    directions = torch.linalg.eigh((A + A.mT) / 2).eigenvectors.mT
    return directions[-2:], directions[[0, -1]]


def _repair(B: Tensor) -> float:
    """The largest factor in hundredths by which J is to be multiplied so that B is certified."""
    return next(percent for percent in range(99, -1, -1) if _least(B, percent / 100) > 0) / 100


HEAD = Exercise(
    "ex-12-head",
    parts=(
        Part(
            "certified",
            Array((2, 6)),
            "a head that is certified, for draw(1, generator=torch.Generator().manual_seed(3)) in float64",
            example=lambda g: _heads()[0],
        ),
        Part("spoilt", Array((2, 6)), "one that is not", example=lambda g: _heads()[1]),
        Part(
            "factor",
            Number(),
            "the largest factor for J that repairs the second, to two digits",
            example=lambda g: _repair(_heads()[1]),
        ),
    ),
    properties=(
        Property(
            ("certified",),
            lambda a, g: _rank(a["certified"]) == 2 and _least(a["certified"]) > 1e-9,
            "`certified`: the smallest eigenvalue of K's symmetric part is not positive.",
            mistakes=(
                Mistake(
                    "one-direction-twice",
                    "`certified`: its two rows are one direction, so that K has a 0 among its eigenvalues.",
                    made=lambda a, g: _rank(a["certified"]) < 2,
                ),
                Mistake(
                    "smallest-eigenvectors",
                    "`certified` sends the directions in which the rate of descent is *least*. Take the other end of the spectrum.",
                    made=lambda a, g: _least(a["certified"]) < 0,
                ),
            ),
        ),
        Property(
            ("spoilt",),
            lambda a, g: _least(a["spoilt"]) < -1e-9,
            "`spoilt` is certified: no loss of these two outputs climbs.",
            mistakes=(
                Mistake(
                    "no-bad-direction",
                    "`spoilt` is certified: neither row has enough of the direction in which the rate is negative.",
                    made=lambda a, g: _least(a["spoilt"]) > 1e-9,
                ),
                Mistake(
                    "nothing-sent",
                    "`spoilt` sends too little to climb: its K has a 0.",
                    made=lambda a, g: _rank(a["spoilt"]) < 2,
                ),
            ),
        ),
        Property(
            ("spoilt", "factor"),
            lambda a, g: (
                0 <= a["factor"] < 1 and _least(a["spoilt"], a["factor"]) > 0 > _least(a["spoilt"], a["factor"] + 0.02)
            ),
            "`factor` does not repair the second head.",
            mistakes=(
                Mistake(
                    "not-below-one", "`factor` has to lie between 0 and 1.", made=lambda a, g: not 0 <= a["factor"] < 1
                ),
                Mistake(
                    "too-large",
                    "`factor` is too large: with it some loss still climbs.",
                    made=lambda a, g: _least(a["spoilt"], a["factor"]) <= 0,
                ),
                Mistake(
                    "smaller-than-needed",
                    "`factor` repairs it, and a larger one would too: come nearer to the limit, to two digits.",
                    made=lambda a, g: _least(a["spoilt"], a["factor"] + 0.02) >= 0,
                ),
            ),
        ),
    ),
    shows="The head chooses which adjoints arrive, and with them whether one and the same J is harmless.",
    hints=(
        "The rate for an arriving row g is gAgᵀ with A = (I − J)⁻¹G: only the symmetric part of A counts.",
        "`torch.linalg.eigh` of that part returns its eigenvectors by ascending eigenvalue, in columns.",
        "For the factor try 0.99, 0.98, … until the smallest eigenvalue of K's symmetric part is positive.",
    ),
    question=lambda g: (
        "For the instance `certificates.draw(1, generator=torch.Generator().manual_seed(3))` in float64, with all of $\\mathbb R^6$ arriving, find a head with two outputs that is certified, and one "
        "that is not. Repair the second without touching the head: multiply $J$ by a factor below 1, as large as possible, to two digits."
    ),
)


EXERCISES = (ONE, TERMS, RULERS, HEAD)
