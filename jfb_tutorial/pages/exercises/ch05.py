"""The exercises of chapter 5."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ... import theory
from ...gradients import JFB, ImplicitDifferentiation, NeumannSeries
from ...network import ImplicitNetwork
from .. import instances
from ..phantoms import Layer
from .checks import Answer, Exercise, Given, Mistake, Part, Property
from .kinds import Array, Function, Number, Whole, Words, YesNo
from .running import Stopped, Student, guard
from .trials import small_network

# One unknown


def _pairs(f: Student, given: Given) -> list[float]:
    return [f.number(a, c) for a, c in ((0.5, 1.0), (0.9, -2.0), (-0.7, 3.0))]


ONE = Exercise(
    "ex-05-one",
    parts=(
        Part(
            "gradient",
            Function("a, c", "dℓ/dθ, a float"),
            "the gradient of ℓ = cu at the fixed point of u = au + θ",
            truth=lambda g: lambda a, c: c / (1 - a),
            observe=_pairs,
            mistakes=(
                Mistake(
                    "direct-part-only",
                    "`gradient` is the part of one step: u on the right depends on θ too.",
                    answer=lambda g: lambda a, c: c,
                ),
                Mistake(
                    "upside-down",
                    "`gradient`: solve u = au + θ for u first; the factor is upside down.",
                    answer=lambda g: lambda a, c: c * (1 - a),
                ),
                Mistake("sign", "`gradient` has the wrong sign before a.", answer=lambda g: lambda a, c: c / (1 + a)),
            ),
        ),
        Part(
            "p",
            Function("a, c", "JFB's step p, a float"),
            "JFB's direction",
            truth=lambda g: lambda a, c: -c,
            observe=_pairs,
            mistakes=(
                Mistake(
                    "no-minus", "`p` is a *step*: in (16) it carries a minus sign.", answer=lambda g: lambda a, c: c
                ),
                Mistake(
                    "exact-step",
                    "`p` is the exact step; JFB leaves out the inverse.",
                    answer=lambda g: lambda a, c: -c / (1 - a),
                ),
            ),
        ),
        Part(
            "too_short",
            Number(rel=1e-3),
            "the a at which JFB's step is too short by the factor that is asked for",
            truth=lambda g: 1 - 1 / g["factor"],
            mistakes=(
                Mistake(
                    "one-over-it",
                    "`too_short`: put this a into 1 − a. Is JFB's step then too short by as much as is asked?",
                    answer=lambda g: 1 / g["factor"],
                ),
                Mistake(
                    "too-long", "`too_short`: at this a the map is no contraction.", answer=lambda g: 1 - g["factor"]
                ),
            ),
        ),
        Part(
            "too_long",
            Words(("a < 0", "a > 0", "never")),
            "for which a it is too long",
            truth=lambda g: "a < 0",
            mistakes=(
                Mistake(
                    "upside-down",
                    "`too_long`: JFB's step is 1 − a times the exact one. When is that above 1?",
                    answer=lambda g: "a > 0",
                ),
                Mistake("always-short", "`too_long`: a may be negative.", answer=lambda g: "never"),
            ),
        ),
        Part(
            "climbs",
            YesNo(),
            "whether it can climb",
            truth=lambda g: False,
            mistakes=(
                Mistake(
                    "length-for-sign",
                    "`climbs`: a wrong length is no wrong sign. What is the sign of 1 − a?",
                    answer=lambda g: True,
                ),
            ),
        ),
    ),
    shows="With one unknown JFB is the gradient times 1 − a, a positive number: it errs in length alone.",
    hints=(
        "Solve u = au + θ for u, and put it into ℓ = cu.",
        "One recorded step sees ∂T/∂θ and not what u itself owes to θ.",
        "Divide p by minus the gradient: what remains is one factor, for which everything can be asked.",
    ),
    given={"factor": 10.0},
    draw=lambda rng: {"factor": rng.choice((4.0, 5.0, 8.0, 20.0))},
    question=lambda g: (
        "Take one unknown and one weight, $T(u; \\theta) = au + \\theta$ with $|a| < 1$, and the loss $\\ell = cu$. Write down the gradient "
        f"$d\\ell/d\\theta$ and $p$. For which $a$ is JFB's step too short by the factor {g['factor']:g}, for which is it too long, and can it climb?"
    ),
)

# Three recorded steps


def _recorded(count: int, *, cut_Q: bool = False) -> Callable[[ImplicitNetwork, Tensor], Tensor]:
    def f(network: ImplicitNetwork, d: Tensor) -> Tensor:
        u = network.solve(d).u
        q = network.Q(d)
        if cut_Q:
            q = q.detach()
        for _ in range(count):
            u = network.R(u, q)
        return network.S(u)

    return f


def _gradients(f: Student, given: Given) -> Tensor:
    """By all weights, of a random linear loss of what is returned, on two networks."""
    found = []
    for seed in (1, 2):
        network, d = small_network(seed=seed), torch.randn(5, 4)
        value = f.tensor((5, 3), network, d)
        if not value.requires_grad:
            raise Stopped(
                "What `three_steps` returns has no graph: the three steps have to be taken with gradients on."
            )
        parameters = instances.blocks(network)
        parts = torch.autograd.grad((value * torch.randn(5, 3)).sum(), parameters, allow_unused=True)
        found += [
            torch.zeros_like(p).flatten() if g is None else g.flatten() for g, p in zip(parts, parameters, strict=True)
        ]
    return torch.cat(found)


@cache
def _cosines() -> dict[str, float]:
    """With the exact gradient, on the chapter's network and its data."""
    with guard(0):
        Layer(8, 0.5), nn.Linear(4, 8), nn.Linear(8, 3)  # the chapter draws these first
        data, labels = torch.randn(16, 4), torch.randint(3, (16,))
        network = small_network()
        of = {
            name: instances.gradient_of(network, rule, data, labels)
            for name, rule in (
                ("one", JFB()),
                ("three", NeumannSeries(3)),
                ("exact", ImplicitDifferentiation(tol=1e-12)),
            )
        }
        return {name: instances.cosine(of[name], of["exact"]) for name in ("one", "three")} | {
            "between": instances.cosine(of["one"], of["three"])
        }


def _cosine_part(name: str, other: str) -> Part:
    return Part(
        name,
        Number(rel=0.0, abs=1e-3),
        f"the cosine of {'one step' if name == 'one' else 'three steps'} with the exact gradient, on small_network(gamma=0.9) and the chapter's data",
        truth=lambda g: _cosines()[name],
        mistakes=(
            Mistake(
                "the-other", f"`{name}` is the cosine of the other number of steps.", answer=lambda g: _cosines()[other]
            ),
            Mistake(
                "not-with-the-exact",
                f"`{name}` is the cosine of one step and three with each other.",
                answer=lambda g: _cosines()["between"],
            ),
        ),
    )


STEPS = Exercise(
    "ex-05-steps",
    parts=(
        Part(
            "three_steps",
            Function("network, d", "the network's output, with a graph through three steps", rel=1e-5, off=1e-7),
            "the forward pass of a training step that records three steps from the fixed point",
            truth=lambda g: _recorded(3),
            observe=_gradients,
            mistakes=(
                Mistake(
                    "one-step",
                    "The weights receive what JFB sends: only one step is in the graph. Is u detached between the steps?",
                    answer=lambda g: _recorded(1),
                ),
                Mistake(
                    "two-steps",
                    "The weights receive g + gJ and no more: one of the steps is outside the graph.",
                    answer=lambda g: _recorded(2),
                ),
                Mistake(
                    "four-steps",
                    "There is a step too many: the powers go beyond J².",
                    answer=lambda g: _recorded(4),
                ),
                Mistake(
                    "Q-without-a-graph",
                    "The weights of R are served and those of Q are not: call Q(d) with its graph.",
                    answer=lambda g: _recorded(3, cut_Q=True),
                ),
                Mistake(
                    "through-the-iteration",
                    "This is the gradient through the whole iteration: did you detach u*?",
                    answer=lambda g: _recorded(400),
                ),
            ),
            otherwise="The gradient is not that of `NeumannSeries(3)`. Which row arrives at the last of the three steps, which at the first?",
        ),
        _cosine_part("one", "three"),
        _cosine_part("three", "one"),
    ),
    shows="Each recorded step adds a power: the weights receive g + gJ + gJ², and the direction comes nearer to the exact one.",
    hints=(
        "`network.solve(d).u` is the fixed point without a graph; `network.R(u, q)` is a step with one, q = network.Q(d).",
        "Do not detach between the steps: it is there that g is multiplied by J.",
        "`instances.gradient_of(network, rule, data, labels)` gives a rule's gradient in one row, `instances.cosine` the cosine of two.",
    ),
    question=lambda g: (
        "In the five lines of chapter 5, record three steps of $T$ from the fixed point in place of one: write `three_steps(network, d)`, which returns the "
        "output of an `ImplicitNetwork` with that graph. For the book's `small_network(gamma=0.9)` and data (chapter 5 has both), what are the cosines of one step and of three "
        "with the exact gradient?"
    ),
)

# A matter of scale


class _Scaled(nn.Module):
    """The head with its weights by 1/s and its input by s."""

    def __init__(self, weight: Tensor, s: float) -> None:
        super().__init__()
        self.weight, self.s = nn.Parameter(weight / s), s

    def forward(self, u: Tensor) -> Tensor:
        return (self.s * u) @ self.weight.T


@cache
def _scaled() -> dict[str, bool]:
    """What changes with s, on a network with small latents."""
    with guard(3):
        U = 0.12 * torch.randn(8, 4)
        R, S = Layer(8, 0.8), nn.Linear(8, 3, bias=False)
        d, y = 0.3 * torch.randn(1, 4), torch.tensor([1])
        checks = [
            theory.descent_check(
                ImplicitNetwork(lambda d: d @ U.T, R, _Scaled(S.weight.detach(), s)), d, y, cross_entropy
            )
            for s in (0.1, 1.0, 10.0)
        ]
    seen: dict[str, list[Any]] = {
        "kappa": [f"{check.kappa:.3e}" for check in checks],
        "kappa_T": [f"{check.kappa_T:.3e}" for check in checks],
        "condition_18": [check.assumption_holds for check in checks],
        "sharp": [check.sharp_holds for check in checks],
        "descent": [check.inner_product < 0 for check in checks],
    }
    return {name: len(set(values)) > 1 for name, values in seen.items()}


def _word(changes: bool) -> str:
    return "changes" if changes else "stays"


def _scale_part(name: str, what: str, wrong: str, says: str) -> Part:
    return Part(
        name,
        Words(("changes", "stays")),
        what,
        truth=lambda g: _word(_scaled()[name]),
        mistakes=(Mistake(wrong, f"`{name}`: {says}", answer=lambda g: _word(not _scaled()[name])),),
    )


SCALE = Exercise(
    "ex-05-scale",
    parts=(
        _scale_part(
            "kappa",
            "κ of the whole",
            "head-left-out",
            "it is that of M with the block of S in it. Which entries carry s?",
        ),
        _scale_part("kappa_T", "κ_T", "head-taken-in", "it is that of the block of T alone. Does s stand in it?"),
        _scale_part(
            "condition_18", "whether (18) holds", "condition-without-head", "which of its two sides depends on s?"
        ),
        _scale_part(
            "sharp",
            "whether the sharp condition holds",
            "sharp-with-head",
            "it asks for γ and κ_T, and for nothing of S.",
        ),
        _scale_part(
            "descent",
            "whether JFB descends",
            "descent-by-units",
            "the network computes the same, and S is differentiated exactly. Measure the sign.",
        ),
    ),
    shows="(18) depends on the units in which S is written, and descent does not: it cannot be the right condition.",
    hints=(
        "Write M as two blocks, one for the weights of S, one for those of T, and put s in.",
        "κ compares the largest with the smallest singular value, of both blocks together.",
        "`theory.descent_check(network, d, y, loss)` returns all five for each s.",
    ),
)

# Other units


def _limit(given: Given) -> float:
    return (1 + math.sqrt(1 - given["gamma"] ** 2)) / given["gamma"]


def _bound(s: float) -> float:
    return 2 * s / (1 + s**2)


def _largest(B: Tensor, gamma: float, terms: int) -> float:
    """The largest ⟨∇, p⟩ over all losses of length 1, J the swap times γ."""
    J = torch.linalg.matrix_power(gamma * torch.tensor([[0.0, 1.0], [1.0, 0.0]]), terms)
    return -instances.coercivity((torch.eye(2) - J) @ B @ B.T).item()


def _units(given: Given) -> Tensor:
    return torch.tensor([[given["s"], 0.0], [0.0, 1.0]])


def _in_units(answer: Answer, given: Given) -> Tensor:
    return _units(given) @ answer["repair"]


def _climbs(answer: Answer, given: Given) -> bool:
    return _largest(_in_units(answer, given), given["gamma"], 1) >= 0


def _spread(A: Tensor) -> float:
    sizes = torch.linalg.svdvals(A)
    return (sizes[0] / sizes[-1].clamp(min=1e-300)).item()


def _draw_units(rng: Random) -> dict[str, Any]:
    return {"gamma": rng.choice((0.8, 0.85, 0.95)), "s": rng.choice((2.5, 3.0, 4.0))}


UNITS = Exercise(
    "ex-05-units",
    parts=(
        Part(
            "limit",
            Number(rel=2e-3),
            "the s from which on JFB climbs for some loss",
            truth=_limit,
            mistakes=(
                Mistake(
                    "kappa-for-s",
                    "`limit` is κ_T there. B has s in it, and G = BBᵀ its square.",
                    answer=lambda g: _limit(g) ** 2,
                ),
                Mistake(
                    "condition-18",
                    "`limit`: this is where κ < 1/γ ends, a condition that is enough and not needed. The sharp one reaches further.",
                    answer=lambda g: math.sqrt(1 / g["gamma"]),
                ),
                Mistake(
                    "the-small-solution",
                    "`limit`: the equation has two solutions, one the inverse of the other; this s is below 1.",
                    answer=lambda g: 1 / _limit(g),
                ),
            ),
        ),
        Part(
            "repair",
            Array((2, 2)),
            "C, where θ = Cφ and φ is trained: a repair of the given s by the weights",
            example=lambda g: [[1 / g["s"], 0.0], [0.0, 1.0]],
        ),
        Part(
            "terms",
            Whole(),
            "a number of Neumann terms that repairs it",
            example=lambda g: next(k for k in range(1, 1000) if _largest(_units(g), g["gamma"], k) < 0),
        ),
    ),
    properties=(
        Property(
            ("repair",),
            lambda a, g: not _climbs(a, g),
            "With θ = Cφ JFB still climbs for some loss.",
            mistakes=(
                Mistake(
                    "singular",
                    "`repair`: this C leaves a direction of θ untrained.",
                    made=lambda a, g: abs(torch.linalg.det(a["repair"]).item()) < 1e-9,
                ),
                Mistake(
                    "wrong-way",
                    "`repair` stretches what was too long already: BC is more uneven than B.",
                    made=lambda a, g: _spread(_in_units(a, g)) > 1.01 * g["s"],
                ),
                Mistake(
                    "all-alike",
                    "`repair` changes both weights alike, and only their *ratio* matters.",
                    made=lambda a, g: abs(_spread(_in_units(a, g)) - g["s"]) < 0.01 * g["s"],
                ),
            ),
        ),
        Property(
            ("repair",),
            lambda a, g: abs(torch.linalg.det(a["repair"]).item()) > 1e-9,
            "`repair`: this C leaves a direction of θ untrained.",
        ),
        Property(
            ("terms",),
            lambda a, g: 1 <= a["terms"] <= 1000 and _largest(_units(g), g["gamma"], int(a["terms"])) < 0,
            "`terms`: with so many some loss still climbs: what is missing, J to that power, is still too large for these units.",
            mistakes=(
                Mistake("jfb", "`terms`: one term is JFB itself, which climbs.", made=lambda a, g: a["terms"] == 1),
            ),
        ),
    ),
    shows="The scale of the weights is a hidden choice in JFB: it decides whether a loss climbs, and can be undone.",
    hints=(
        "With B = diag(s, 1) one has G = diag(s², 1). What is κ_T?",
        "The sharp condition reads γ < 2√κ/(1 + κ). Put √κ = s, and solve the quadratic equation.",
        "By the weights: make BC a multiple of the identity. By terms: k terms leave J to the power k in place of J.",
    ),
    given={"gamma": 0.9, "s": 2.0},
    draw=_draw_units,
    question=lambda g: (
        f"$J$ swaps two coordinates and multiplies by {g['gamma']:g}; $T = Ju + B\\theta$ with $B = \\mathrm{{diag}}(s, 1)$. From which $s > 1$ on does JFB climb for some "
        f"loss? Repair the case $s = {g['s']:g}$ in two ways: by the weights (a matrix $C$, $\\theta = C\\varphi$, with $\\varphi$ trained), and by more Neumann terms (how many?)."
    ),
)

# Saturated, and one that ascends


def _hat(answer: Answer) -> tuple[Tensor, Tensor, Tensor]:
    """D, WD and ŵ = wD."""
    D = answer["slopes"].diag()
    return D, answer["W"] @ D, answer["w"] @ D


def _rate(answer: Answer, WD: Tensor, hat: Tensor) -> float:
    """⟨∇, −p⟩ over ‖input‖²."""
    return (hat @ (torch.eye(2) - WD) @ hat).item()


def _some(WD: Tensor) -> bool:
    return bool(instances.top(WD) > 1)


@cache
def _hundred() -> tuple[int, int]:
    """Of a hundred saturated layers: how many satisfy the sharp condition, how many climb."""
    found = []
    with guard():
        for seed in range(100):
            torch.manual_seed(seed)
            net = ImplicitNetwork(nn.Linear(4, 8), Layer(8, 0.99), nn.Linear(8, 3))
            with torch.no_grad():
                net.Q.weight *= 3
            found.append(theory.descent_check(net, torch.randn(1, 4), torch.tensor([seed % 3]), cross_entropy))
    return sum(check.sharp_holds for check in found), sum(check.inner_product >= 0 for check in found)


LAYER = Exercise(
    "ex-05-layer",
    parts=(
        Part(
            "climbing",
            Whole(),
            "how many of the hundred saturated layers climb",
            truth=lambda g: _hundred()[1],
            mistakes=(
                Mistake(
                    "condition-for-fact",
                    "`climbing` counts those for which the sharp condition fails. That is enough to descend, and not needed: count the signs.",
                    made=lambda a, g: abs(a["climbing"] - (100 - _hundred()[0])) <= 2,
                ),
            ),
        ),
        Part("slopes", Array((2,)), "the slopes, the diagonal of D, in (0, 1]"),
        Part("W", Array((2, 2)), "the weights"),
        Part("w", Array((2,)), "the adjoint that climbs, a row"),
    ),
    properties=(
        Property(
            ("slopes",),
            lambda a, g: bool((a["slopes"] > 0).all() and (a["slopes"] <= 1).all()),
            "`slopes`: those of tanh lie in (0, 1].",
        ),
        Property(
            ("slopes", "W"),
            lambda a, g: bool(instances.norm(_hat({**a, "w": torch.zeros(2)})[0] @ a["W"]) < 1),
            "‖DW‖ is not below 1 here: the layer is no contraction at this point.",
            mistakes=(
                Mistake(
                    "large-weight-on-a-steep-unit",
                    "‖DW‖ is not below 1: the large weight leads into a unit that is not flat enough to hide it. (Rows of W lead into a unit, columns come from one.)",
                    made=lambda a, g: bool(a["W"].abs().max() >= 1),
                ),
            ),
        ),
        Property(
            ("slopes", "W"),
            lambda a, g: _some(_hat({**a, "w": torch.zeros(2)})[1]),
            "No adjoint climbs: the symmetric part of WD has no eigenvalue above 1.",
            mistakes=(
                Mistake(
                    "no-flat-unit",
                    "No adjoint climbs: while all slopes are alike, WD and DW are as large as each other. Make one unit flat.",
                    made=lambda a, g: bool(a["slopes"].min() > 0.5 * a["slopes"].max()),
                ),
            ),
        ),
        Property(
            ("slopes", "W", "w"),
            lambda a, g: _rate(a, *_hat(a)[1:]) < 0,
            "For these D and W some adjoint climbs, and this one does not.",
            mistakes=(
                Mistake(
                    "hat-for-w",
                    "This is ŵ = wD. The adjoint itself is asked for: divide by the slopes.",
                    made=lambda a, g: _rate(a, _hat(a)[1], a["w"]) < 0,
                ),
            ),
        ),
    ),
    shows="A flat unit hides a large weight from ‖DW‖ and not from WD: a contraction, and yet an adjoint that climbs.",
    hints=(
        "With ŵ = wD the rate of descent is ‖ŵ‖² − ŵ WD ŵᵀ, times the squared length of the input.",
        "D from the left shrinks rows of W, the weights that lead *into* a flat unit; D from the right shrinks columns.",
        "Let one large weight lead into the flat unit and come from the steep one; then look for a ŵ with both entries positive.",
    ),
)

EXERCISES = (ONE, STEPS, SCALE, UNITS, LAYER)
