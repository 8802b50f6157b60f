"""The exercises of chapter 17."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...gradients import JFB, ImplicitDifferentiation
from ...network import ImplicitNetwork
from ...solvers import FixedPointIteration
from .checks import Exercise, Given, Mistake, Part
from .kinds import Function, Number, Whole, Words
from .running import Stopped, Student

# Three reports

REMEDIES = ("nothing", "solver", "gentler", "rule")


def _always(word: str) -> Callable[[Given], str]:
    return lambda given: word


def _report(name: str, truth: str, *mistakes: tuple[str, str, str]) -> Part:
    return Part(
        name,
        Words(REMEDIES),
        f"what comes first for {name}: nothing, the solver (more steps, or Anderson), a gentler R, another backward rule",
        truth=_always(truth),
        mistakes=tuple(Mistake(each, f"`{name}`: {says}", answer=_always(word)) for each, word, says in mistakes),
    )


REPORTS = Exercise(
    "ex-17-reports",
    parts=(
        _report(
            "A",
            "nothing",
            ("norm-feared", "gentler", "a norm above 1 is usual in trained networks; which number decides about rest?"),
            ("cosine-feared", "rule", "is a direction of this cosine one that climbs?"),
        ),
        _report(
            "B",
            "solver",
            (
                "given-up",
                "gentler",
                "plain iteration does find its fixed point; how many steps was it given?",
            ),
            ("waited", "nothing", "most of its samples are not at rest where the gradient is taken."),
        ),
        _report(
            "C",
            "gentler",
            ("longer", "solver", "look at ρ: would plain iteration stay at the fixed point, if it were there?"),
            ("rule-first", "rule", "a gradient of which fixed point would that rule give?"),
        ),
    ),
    shows="First rest, then the rule; and a norm above 1 is no illness.",
    hints=(
        "Ask the questions of the chapter's picture, from the top.",
        "Does the state come to rest by its own solver? If not, is there a fixed point that plain iteration would find?",
        "What the norm says is an upper bound; what decides whether plain iteration stays is the other number beside it.",
    ),
)

# Two scalar layers


def _terms(s: float, t: float, k: int, *, shift: int = 2) -> float:
    return sum(s**i * t**j for i in range(k) for j in range(k) if i + j <= k - shift)


TWO = Exercise(
    "ex-17-two",
    parts=(
        Part(
            "exact",
            Function("s, t", "a number"),
            "db/dθ",
            truth=lambda g: lambda s, t: 1 / ((1 - s) * (1 - t)),
            observe=lambda f, g: [f.number(s, t) for s, t in ((0.5, 0.2), (-0.4, 0.9), (0.0, 0.3))],
            mistakes=(
                Mistake(
                    "one-factor",
                    "`exact` is what one of the two layers makes of it; θ passes through both.",
                    answer=lambda g: lambda s, t: 1 / (1 - s),
                ),
                Mistake(
                    "factors-added",
                    "`exact`: the chain rule multiplies the two layers' factors.",
                    answer=lambda g: lambda s, t: 1 / (1 - s - t) if s + t != 1 else 0.0,
                ),
            ),
        ),
        Part(
            "in_a_row",
            Number(),
            "what JFB gives in two layers in a row",
            truth=lambda g: 1.0,
            mistakes=(
                Mistake(
                    "nothing-arrives",
                    "`in_a_row`: that is so for the pair as one state; in a row the second layer hears the first one's answer through its own Q.",
                    answer=lambda g: 0.0,
                ),
            ),
        ),
        Part(
            "terms",
            Function("s, t, k", "a number"),
            "what k Neumann terms give for the pair as one state",
            truth=lambda g: _terms,
            observe=lambda f, g: [f.number(s, t, k) for s, t, k in ((0.5, 0.2, 1), (0.5, 0.2, 2), (-0.4, 0.9, 4))],
            mistakes=(
                Mistake(
                    "one-too-many",
                    "`terms` is one term ahead: the first term is g itself, and its first entry is zero.",
                    answer=lambda g: lambda s, t, k: _terms(s, t, k, shift=1),
                ),
            ),
        ),
        Part("needed", Whole(), "the terms until something arrives", truth=lambda g: 2),
    ),
    shows="As one state the first layer hears from the second term on, and each term adds the ways of one more step.",
    hints=(
        "Write J of the pair: a row for what moves a, and a row for what moves b.",
        "g is (0, 1), since the answer is b. Multiply it by J from the right, once and again, and look at the first entry.",
        "That entry sums products of powers of s and t; the exponents together are one less than the number of multiplications.",
    ),
)

# The gradient by the input


class _Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(0.8 * torch.linalg.qr(torch.randn(6, 6))[0])

    def forward(self, u: Tensor, q: Tensor) -> Tensor:
        return torch.tanh(u @ self.W.T + q)


def _network() -> ImplicitNetwork:
    solver = FixedPointIteration(tol=1e-11, max_steps=2000)
    return ImplicitNetwork(nn.Linear(3, 6), _Cell(), nn.Linear(6, 2), solver=solver, gradient=JFB()).double()


def _by_input(*, own: bool = False, sign: float = 1.0) -> Callable[..., Tensor]:
    def f(network: ImplicitNetwork, d: Tensor, y: Tensor, loss: Callable) -> Tensor:
        point = d.clone().requires_grad_()
        rule = network.gradient if own else ImplicitDifferentiation(tol=1e-9)
        with network.using(gradient=rule):
            value = loss(network(point), y)
        return sign * torch.autograd.grad(value, point)[0]

    return f


def _left_alone(f: Student, given: Given) -> list[float]:
    network = _network()
    d, y = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    own = network.gradient
    found = f(network, d, y, nn.functional.mse_loss)
    if not isinstance(found, Tensor) or found.shape != d.shape:
        raise Stopped(f"`{f.name}` has to return a tensor of the shape of d.")
    return [*found.detach().flatten().tolist(), float(network.gradient is own)]


INPUT = Exercise(
    "ex-17-input",
    parts=(
        Part(
            "input_gradient",
            Function("network, d, y, loss", "a tensor of the shape of d", off=1e-6),
            "the exact gradient of the loss by d; the network keeps its rule",
            truth=lambda g: _by_input(),
            observe=_left_alone,
            mistakes=(
                Mistake(
                    "own-rule",
                    "This is what the network's own rule makes of it, here JFB's.",
                    answer=lambda g: _by_input(own=True),
                ),
                Mistake(
                    "downhill",
                    "This points the other way: the gradient is asked for, not the step.",
                    answer=lambda g: _by_input(sign=-1.0),
                ),
            ),
            otherwise="The numbers are others, or the network has another rule afterwards.",
        ),
    ),
    shows="With the exact rule the gradient by the input is the derivative of the equilibrium, which differences confirm.",
    hints=(
        "Make a copy of d that asks for a gradient.",
        "`network.using(…)` changes the rule inside a with block, and puts it back.",
        "Inside the block, compute the loss, and let `torch.autograd.grad` differentiate it by the copy.",
    ),
)

EXERCISES = (REPORTS, TWO, INPUT)
