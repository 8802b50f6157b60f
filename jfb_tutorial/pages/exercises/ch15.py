"""The exercises of chapter 15."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .checks import Exercise, Given, Mistake, Part
from .kinds import Array, Function, Number, Words, YesNo
from .running import Stopped, Student

# Any α will do


def _cases() -> list[tuple[Tensor, Tensor, float]]:
    A, B = torch.randn(2, 4, 4) / 2
    W = -A.T @ A + 2 * (B - B.T)
    return [(W, torch.tensor([1.0, -0.5, 2.0, 0.3]), alpha) for alpha in (0.2, 1.0)]


def _split(*, kind: str = "right") -> Callable[[Tensor, Tensor, float], tuple[Tensor, int]]:
    def f(W: Tensor, q: Tensor, alpha: float) -> tuple[Tensor, int]:
        identity, tol = torch.eye(len(W)), 1e-6 if kind == "loose" else 1e-8
        V = torch.linalg.inv((1 + alpha) * identity - alpha * W)
        v, steps = torch.zeros(len(W)), 0
        while (torch.relu(v) - torch.relu(W @ torch.relu(v) + q)).norm() >= tol and steps < 5000:
            v, steps = 2 * V @ (v.abs() + alpha * q) - v.abs(), steps + 1
        return (v if kind == "v" else torch.relu(v)), steps

    return f


def _ends(f: Student, given: Given) -> list[float]:
    seen: list[float] = []
    for W, q, alpha in _cases():
        pair = f(W.clone(), q.clone(), alpha)
        try:
            u, steps = pair
            seen += [*torch.as_tensor(u).double().flatten().tolist(), float(steps)]
        except (TypeError, ValueError):
            raise Stopped(f"`{f.name}` has to return u and the number of steps, a pair.") from None
    return seen


SPLITTING = Exercise(
    "ex-15-splitting",
    parts=(
        Part(
            "peaceman_rachford",
            Function("W, q, alpha", "u and the number of steps, a pair", off=1e-7),
            "the equilibrium of u = relu(Wu + q) by Peaceman–Rachford's steps from v = 0; W is (n, n), q is (n,)",
            truth=lambda g: _split(),
            observe=_ends,
            mistakes=(
                Mistake(
                    "v-for-u", "The function returns v: u is its positive part.", answer=lambda g: _split(kind="v")
                ),
                Mistake(
                    "stops-early",
                    "The steps end before the gap is as small as is asked.",
                    answer=lambda g: _split(kind="loose"),
                ),
            ),
            otherwise="u or the number of steps is another: v starts at zero, a step is 2V(|v| + αq) − |v|, and the gap is looked at before each step.",
        ),
        Part(
            "fewest",
            Words(("0.01", "0.1", "1", "10")),
            "the α with the fewest steps, for the W of twelve rows",
            truth=lambda g: "0.1",
            mistakes=(
                Mistake(
                    "the-larger-the-better",
                    "`fewest`: a large α sends an eigenvalue of W near −1; look at (1 − z)/(1 + z) for a large z.",
                    made=lambda a, g: a["fewest"] in ("1", "10"),
                ),
                Mistake(
                    "the-smaller-the-safer",
                    "`fewest`: every α is safe here, and a small one moves little in a step.",
                    answer=lambda g: "0.01",
                ),
            ),
        ),
    ),
    shows="Every α arrives; how fast is decided by the eigenvalues of W, which a middling α sends farthest from the circle.",
    hints=(
        "The inverse does not change from step to step.",
        "V is (I + α(I − W))⁻¹; iterate v ← 2V(|v| + αq) − |v| from zero.",
        "After each step let u be relu(v), and stop once ‖u − relu(Wu + q)‖ is small.",
    ),
)

# What relu is for

RELU = Exercise(
    "ex-15-relu",
    parts=(
        Part(
            "below",
            Number(rel=1e-3),
            "the s below which JFB can climb",
            truth=lambda g: 1 / 3,
            mistakes=(
                Mistake(
                    "of-the-whole-matrix",
                    "`below`: the *symmetric part* of WD decides, half of WD and its transpose.",
                    answer=lambda g: 2 / 3,
                ),
                Mistake(
                    "slopes-for-one",
                    "`below`: both off-diagonal entries of WD count, and they have different signs.",
                    answer=lambda g: 1.0,
                ),
            ),
        ),
        Part(
            "relu_climbs",
            YesNo(),
            "whether JFB can climb at s = 0",
            truth=lambda g: False,
            mistakes=(
                Mistake(
                    "not-reached",
                    "`relu_climbs`: the matrix would allow it. But which rows ŵ = wD are there, if the second slope is zero?",
                    answer=lambda g: True,
                ),
            ),
        ),
    ),
    shows="It is slopes in between that do the damage; a unit that is off takes its row out of the game.",
    hints=(
        "The rate is a positive number times ŵ(I − WD)ŵᵀ with ŵ = wD.",
        "Write WD down, and its symmetric part; that is a 2 × 2 matrix with zeros on the diagonal.",
        "Its larger eigenvalue has to pass 1. Then ask whether the row ŵ that belongs to it can be reached.",
    ),
)

# Paths keep their order


def _swaps(*, half: bool = True, ties: bool = False) -> Callable[[Tensor, Tensor], int]:
    def f(before: Tensor, after: Tensor) -> int:
        first, last = (x.flatten()[:, None] - x.flatten()[None, :] for x in (before, after))
        changed = first * last <= 0 if ties else first * last < 0
        return int(changed.sum()) // (2 if half else 1)

    return f


def _counted(f: Student, given: Given) -> list[float]:
    before = torch.tensor([[-1.0], [0.0], [1.0], [2.0]])
    ends = ([[3.0], [1.0], [2.0], [0.5]], [[-1.0], [0.0], [1.0], [2.0]], [[0.1], [0.2], [0.15], [0.3]])
    return [f.number(before, torch.tensor(end)) for end in ends]


ORDER = Exercise(
    "ex-15-order",
    parts=(
        Part(
            "swaps",
            Function("before, after", "the number of pairs that have changed their order"),
            "count the pairs, each once; before and after are (states, 1)",
            truth=lambda g: _swaps(),
            observe=_counted,
            mistakes=(
                Mistake("each-twice", "`swaps` counts each pair twice.", answer=lambda g: _swaps(half=False)),
                Mistake(
                    "with-itself",
                    "`swaps` counts each state with itself, too.",
                    answer=lambda g: _swaps(ties=True, half=False),
                ),
            ),
        ),
        Part(
            "above",
            Number(rel=2e-3),
            "the a above which one of four layers can swap two states",
            truth=lambda g: 4 / 3,
            mistakes=(
                Mistake(
                    "step-forgotten",
                    "`above`: a layer moves its state by f/4, not by f.",
                    answer=lambda g: 1 / 3,
                ),
                Mistake(
                    "three-forgotten",
                    "`above`: the slope of a sin(3u + 4t) by u is not a cos(3u + 4t).",
                    answer=lambda g: 4.0,
                ),
            ),
        ),
    ),
    shows="Paths of an ODE cannot cross; layers can, once a layer moves its state so much that u + f(u)/4 turns round.",
    hints=(
        "Two states have changed their order if their difference has changed its sign.",
        "`x[:, None] - x[None, :]` has all differences, each pair twice.",
        "A layer is the map u + f(u)/4; it keeps the order while its slope is positive everywhere.",
    ),
)

# Training A and B

FACTORS = Exercise(
    "ex-15-factors",
    parts=(
        Part("u", Array((2,)), "the equilibrium", truth=lambda g: [1.0, 1.0]),
        Part(
            "g",
            Array((2,)),
            "the row g that belongs to w = (2, 0)",
            truth=lambda g: [2.0, 6.0],
            mistakes=(
                Mistake(
                    "column-for-row",
                    "`g`: w is a row, and stands left of I − W.",
                    answer=lambda g: [2.0, -6.0],
                ),
            ),
        ),
        Part(
            "by_factors",
            Number(),
            "⟨gradient, −p⟩ by A, B and the bias",
            truth=lambda g: -12.0,
            mistakes=(
                Mistake(
                    "bias-forgotten",
                    "`by_factors`: the bias is trained, too.",
                    answer=lambda g: -16.0,
                ),
                Mistake(
                    "skew-part-forgotten",
                    "`by_factors` is what W itself would give; B moves W by a skew matrix only.",
                    answer=lambda g: 12.0,
                ),
            ),
        ),
    ),
    shows="By W itself JFB descends, and by the factors of the same W it climbs: what is trained decides, and not only the layer.",
    hints=(
        "Suppose that both units are on: then relu can be left out, and u solves a linear system.",
        "g = w(I − W). By W the two gradients are the outer products of w with u and of g with u.",
        "By B a gradient G becomes G − Gᵀ. Multiply the two skew matrices entry by entry, add up, and add what the bias brings.",
    ),
)

EXERCISES = (SPLITTING, RELU, ORDER, FACTORS)
