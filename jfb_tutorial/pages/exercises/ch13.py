"""The exercises of chapter 13."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...network import ImplicitNetwork
from ...solvers import FixedPointIteration
from .. import parity
from .checks import Answer, Exercise, Given, Mistake, Part, Property
from .kinds import Function, Number, Whole, Words
from .running import Stopped, Student

# How far has the news come?


def _least(given: Given) -> int:
    return math.ceil((given["bits"] - 1) / given["reach"])


def _weights(given: Given, layers: int) -> float:
    """In millions."""
    return layers * sum(w.numel() for w in parity.network(0).R.parameters()) / 1e6


REACH = Exercise(
    "ex-13-reach",
    parts=(
        Part(
            "least",
            Whole(),
            "the steps after which the last bit can be right for a reason, at the least",
            truth=_least,
            mistakes=(
                Mistake(
                    "one-position-a-step",
                    "`least`: a step hears of more than its neighbour.",
                    answer=lambda g: g["bits"] - 1,
                ),
                Mistake(
                    "rounded-down",
                    "`least` is rounded down: a part of a step is a step.",
                    answer=lambda g: (g["bits"] - 1) // g["reach"],
                ),
                Mistake(
                    "both-sides",
                    "`least`: the news of the first bit comes from one side only.",
                    answer=lambda g: math.ceil((g["bits"] - 1) / (2 * g["reach"])),
                ),
            ),
        ),
        Part(
            "layers",
            Whole(),
            "how many different layers an explicit network needs",
            truth=_least,
            mistakes=(
                Mistake(
                    "one-a-bit",
                    "`layers`: one for each bit is more than needed; what can one layer reach?",
                    answer=lambda g: g["bits"],
                ),
                Mistake(
                    "one-position-a-layer",
                    "`layers`: a layer hears of more than its neighbour.",
                    answer=lambda g: g["bits"] - 1,
                ),
            ),
        ),
        Part(
            "weights",
            Number(rel=0.02),
            "its weights, in millions, if a layer has as many as R",
            truth=lambda g: _weights(g, _least(g)),
            mistakes=(
                Mistake(
                    "one-layer",
                    "`weights` are those of one layer: the layers of an explicit network are different ones.",
                    answer=lambda g: _weights(g, 1),
                ),
                Mistake(
                    "one-position-a-layer", "`weights`: too many layers.", answer=lambda g: _weights(g, g["bits"] - 1)
                ),
                Mistake(
                    "not-in-millions", "`weights`: in millions, please.", answer=lambda g: 1e6 * _weights(g, _least(g))
                ),
            ),
        ),
    ),
    shows="News travels a few positions a step, so a fixed depth is a fixed length; the equilibrium pays in steps and not in weights.",
    hints=(
        "How far is the first bit from the last?",
        "Divide by how far the news can come in a step. A layer of an explicit network is a step with weights of its own.",
        "`sum(w.numel() for w in network.R.parameters())` counts the weights of R.",
    ),
    given={"bits": 512, "reach": 2},
    draw=lambda rng: {"bits": rng.choice((200, 300, 400, 1000)), "reach": 2},
    question=lambda g: (
        f"A step of the network of chapter 13 hears of two positions on either side. After how many steps at the earliest can the last of {g['bits']} bits be right for a reason? How many different layers would an "
        "explicit network need, and how many weights, in millions, if a layer has as many as $R$ (`jfb_tutorial.pages.parity.network(0).R`)?"
    ),
)

# Go on from where it was


def _small() -> tuple[ImplicitNetwork, Tensor]:
    network = parity.network(3).double()
    network.solver = FixedPointIteration(tol=1e-5, max_steps=300, relative=True)
    with torch.no_grad():
        for weights in network.R.parameters():
            weights *= 2.5  # slow enough that every place takes another number of steps
    d = torch.randint(2, (1, 1, 24), generator=torch.Generator().manual_seed(1)).double()
    return network, d


def _warm(f: Student, given: Given) -> list[float]:
    found: list[float] = []
    for place in (4, 12, 23):
        network, d = _small()
        before = d.clone()
        pair = f(network, d, place)
        if not torch.equal(d, before):
            raise Stopped(f"`{f.name}` changes the string d itself: flip the bit of a copy, `d.clone()`.")
        found += _two(pair, f.name)
    return found


def _two(pair: Any, name: str) -> list[float]:
    try:
        cold, warm = (float(x) for x in pair)
    except (TypeError, ValueError):
        raise Stopped(f"`{name}` has to return two numbers of steps, from zero and from the old equilibrium.") from None
    return [cold, warm]


def _flip(d: Tensor, place: int) -> Tensor:
    flipped = d.clone()
    flipped[0, 0, place - 1] = 1 - flipped[0, 0, place - 1]
    return flipped


def _again(*, shift: int = 0, flip: bool = True, use: str = "cw") -> Callable[..., tuple[int, int]]:
    def f(network: ImplicitNetwork, d: Tensor, place: int) -> tuple[int, int]:
        old = network.solve(d).u
        new = _flip(d, place + shift) if flip else d
        steps = {"c": int(network.solve(new).steps), "w": int(network.solve(new, old).steps)}
        return steps[use[0]], steps[use[1]]

    return f


WARM = Exercise(
    "ex-13-warm",
    parts=(
        Part(
            "flip_and_solve",
            Function("network, d, place", "steps from zero and from the old equilibrium, a pair"),
            "what a flipped bit costs; d is (1, 1, bits), and place counts from 1",
            truth=lambda g: _again(),
            observe=_warm,
            mistakes=(
                Mistake(
                    "exchanged", "The two numbers are exchanged: from zero first.", answer=lambda g: _again(use="wc")
                ),
                Mistake(
                    "cold-twice",
                    "Both start from zero: hand the old equilibrium to `network.solve` as its second argument.",
                    answer=lambda g: _again(use="cc"),
                ),
                Mistake(
                    "place-from-zero",
                    "It flips the bit after that place: places count from 1, positions in a tensor from 0.",
                    answer=lambda g: _again(shift=1),
                ),
                Mistake(
                    "nothing-flipped",
                    "No bit is flipped: the old equilibrium solves the same string.",
                    answer=lambda g: _again(flip=False),
                ),
            ),
            otherwise="The steps are not those of `network.solve(flipped)` and `network.solve(flipped, old)`, old the equilibrium of d.",
        ),
        Part(
            "shorter",
            Words(("near the beginning", "near the end", "anywhere")),
            "where a flipped bit makes a warm start short, on the trained network",
            truth=lambda g: "near the end",
            mistakes=(
                Mistake(
                    "news-goes-right",
                    "`shorter`: which bits of the answer depend on the flipped one, those before it or those after it?",
                    answer=lambda g: "near the beginning",
                ),
                Mistake(
                    "warm-is-always-short",
                    "`shorter`: try place 16 of 128. The correction has to cross all that lies to the right.",
                    answer=lambda g: "anywhere",
                ),
            ),
        ),
    ),
    shows="A warm start has to carry a correction through all that depends on what changed, and nothing else.",
    hints=(
        "`network.solve(d).u` is the old equilibrium, `network.solve(flipped, u0)` starts from u0.",
        "Flip in a copy: `flipped = d.clone()`, then one entry becomes 1 minus itself.",
        "`.steps` of a solution has one number a sample; `int(…)` makes it a number.",
    ),
)

# Stop too early


class _Line:
    """A step of 2 strings, 4 channels, 40 positions, most of which rest at once while the last ones go on moving."""

    def __init__(self) -> None:
        self.rate = torch.linspace(0.1, 0.97, 40) ** torch.tensor([4.0, 2.0])[:, None, None]
        self.rest = torch.randn(2, 4, 40, generator=torch.Generator().manual_seed(0)) + 2

    def __call__(self, u: Tensor) -> Tensor:
        return self.rest + self.rate * (u - self.rest)


def _largest(u: Tensor, new: Tensor) -> float:
    return ((new - u).norm(dim=1) / new.norm(dim=1)).max().item()


def _stop(moved: Callable[[Tensor, Tensor], float]) -> Callable[[Callable[[Tensor], Tensor], Tensor, float], Tensor]:
    def solve(T: Callable[[Tensor], Tensor], u0: Tensor, tol: float) -> Tensor:
        u = u0
        for _ in range(500):
            new = T(u)
            u, at = new, u
            if moved(at, new) < tol:
                break
        return u

    return solve


def _whole(u: Tensor, new: Tensor) -> float:
    return ((new - u).flatten(1).norm(dim=1) / new.flatten(1).norm(dim=1)).max().item()


def _mean(u: Tensor, new: Tensor) -> float:
    return ((new - u).norm(dim=1) / new.norm(dim=1)).mean().item()


def _ended(answer: Answer) -> tuple[Tensor, float]:
    T = _Line()
    u = answer["solve"].tensor((2, 4, 40), T, torch.zeros(2, 4, 40), 0.02).detach()
    return u, _largest(u, T(u))


def _as(moved: Callable[[Tensor, Tensor], float]) -> Callable[[Answer, Given], bool]:
    return lambda a, g: torch.allclose(_ended(a)[0], _stop(moved)(_Line(), torch.zeros(2, 4, 40), 0.02))


def _first(answer: Answer, given: Given) -> bool:
    """Whether it stops as soon as it may: two steps of grace."""
    T, target = _Line(), _ended(answer)[0]
    u, after = torch.zeros(2, 4, 40), 0
    while after <= 3:
        new = T(u)
        after += after > 0 or _largest(u, new) < 0.02
        if torch.allclose(new, target) or torch.allclose(u, target):
            return True
        u = new
    return False


EARLY = Exercise(
    "ex-13-early",
    parts=(
        Part(
            "solve",
            Function("T, u0, tol", "the latent, of the shape of u0"),
            "iterate until every position rests; u0 is (strings, channels, bits)",
        ),
        Part(
            "wrong",
            Words(("to the left", "to the right", "anywhere")),
            "which bits are wrong when one stops too early",
            truth=lambda g: "to the right",
            mistakes=(
                Mistake(
                    "news-goes-right",
                    "`wrong`: an answer depends on the bits before it, so the first are right first.",
                    answer=lambda g: "to the left",
                ),
                Mistake(
                    "no-order",
                    "`wrong`: look at the picture of what S reads at each step; there is an order.",
                    answer=lambda g: "anywhere",
                ),
            ),
        ),
    ),
    properties=(
        Property(
            ("solve",),
            lambda a, g: _ended(a)[1] < 0.02,
            "Some position still moves by more than tol of its size.",
            mistakes=(
                Mistake(
                    "whole-string",
                    "Some positions still move: the 2-norm of the whole string hides a few among many that rest.",
                    made=_as(_whole),
                ),
                Mistake(
                    "mean-for-largest",
                    "Some positions still move: you have taken the mean over positions. The largest must be small.",
                    made=_as(_mean),
                ),
                Mistake(
                    "one-step", "It does not iterate: after one step nothing rests yet.", made=_as(lambda u, new: 0.0)
                ),
            ),
        ),
        Property(
            ("solve",),
            _first,
            "Every position rests, and it iterated much longer than tol asks for: is the movement measured relative to each position's own norm?",
        ),
    ),
    shows="A residual is one number for all positions: measured at the position that moves most, it does not fade as the string grows.",
    hints=(
        "How much has position i moved? That is a norm over the channels, `dim=1`.",
        "Divide by the norm of that position, not by that of the string.",
        "Stop when the *largest* of these numbers, over all strings and positions, is below tol.",
    ),
)

# The same map for everyone


def _ends(answer: Answer) -> tuple[Tensor, Tensor]:
    """The ends of the iteration from eight starts, and how far they still move."""
    u = torch.tensor([-2.0, -1.0, -0.5, -0.1, 0.1, 0.5, 1.0, 2.0])
    for _ in range(3000):
        u = answer["T"].tensor((8,), u).detach()
        if not torch.isfinite(u).all():
            raise Stopped("`T` runs away from some of the starts between −2 and 2.")
    return u, (answer["T"].tensor((8,), u).detach() - u).abs()


DEAF = Exercise(
    "ex-13-deaf",
    parts=(
        Part(
            "T",
            Function("u", "T(u), elementwise, of the shape of u"),
            "a map of one number, the same for all inputs, whose iteration ends in different places",
        ),
    ),
    properties=(
        Property(
            ("T",),
            lambda a, g: bool(_ends(a)[1].max() < 1e-6),
            "The iteration does not come to rest from every start between −2 and 2.",
            mistakes=(
                Mistake(
                    "goes-round",
                    "It goes to and fro for ever, so that its end depends on the number of steps. Both ends should be fixed points.",
                    made=lambda a, g: bool(_ends(a)[1].max() > 1e-3),
                ),
            ),
        ),
        Property(
            ("T",),
            lambda a, g: bool((_ends(a)[0].max() - _ends(a)[0].min()) > 1e-3),
            "All starts end at the same place.",
            mistakes=(
                Mistake(
                    "contraction",
                    "All starts end at the same place: the slope is below 1 everywhere, and a contraction forgets where it began.",
                    made=lambda a, g: bool((_ends(a)[0].max() - _ends(a)[0].min()) <= 1e-3),
                ),
            ),
        ),
        Property(
            ("T",),
            lambda a, g: len(torch.unique((_ends(a)[0] * 1e4).round())) < 8,
            "Every start ends in a place of its own.",
            mistakes=(
                Mistake(
                    "remembers-everything",
                    "Every start ends in a place of its own. Find one with few attracting ends, each reached from many starts.",
                    made=lambda a, g: len(torch.unique((_ends(a)[0] * 1e4).round())) == 8,
                ),
            ),
        ),
    ),
    shows="Where T is no contraction the start may matter; for parity one would need an attracting end for every string.",
    hints=(
        "A contraction has one fixed point. So the slope has to be above 1 somewhere.",
        "Look for a map with three fixed points, of which the middle one repels.",
        "A function that is steep at 0 and flat far out has that: think of the activation of this chapter.",
    ),
)

EXERCISES = (REACH, WARM, EARLY, DEAF)
