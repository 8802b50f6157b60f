"""The exercises of chapter 16."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from ...network import ImplicitNetwork
from ...solvers import Anderson, FixedPointIteration
from .. import graphs, language
from .checks import Exercise, Given, Mistake, Part
from .kinds import Function, Number, Whole
from .running import Student

# How long at the bound?

RING, BOUND = 20, 0.9


def _steps(below: float = 1e-6) -> float:
    edges = np.array([(i, (i + s) % RING) for i in range(RING) for s in (1, RING - 1)]).T
    A = torch.from_numpy(graphs.normalised(edges, RING).toarray()).double()
    W = torch.full((8, 8), BOUND / 8).double()
    q = torch.randn(RING, 8, generator=torch.Generator().manual_seed(0)).double()
    solve = FixedPointIteration(tol=below, max_steps=1000, relative=True)
    return float(solve(lambda X: (A @ X.reshape(RING, 8) @ W.T + q).reshape(1, -1), torch.zeros(1, 160).double()).steps)


LISTEN = Exercise(
    "ex-16-listen",
    parts=(
        Part(
            "radius",
            Number(),
            "ρ(J)",
            truth=lambda g: BOUND,
            mistakes=(
                Mistake(
                    "an-entry-for-the-sum",
                    "`radius`: the eigenvalue of a matrix with equal entries is their *sum along a row*.",
                    answer=lambda g: BOUND / 8,
                ),
                Mistake(
                    "graph-counted-by-neighbours",
                    "`radius`: Â is normalised; adding up over three nodes does not make it larger than 1.",
                    answer=lambda g: 3 * BOUND,
                ),
            ),
        ),
        Part(
            "steps",
            Whole(off=12),
            "the steps that you have counted",
            truth=lambda g: _steps(),
            mistakes=(
                Mistake(
                    "the-error-for-the-step",
                    "`steps`: so many until the *error* is a millionth. A step moves a tenth of the error only, and random inputs lie along the slow direction in part.",
                    made=lambda a, g: abs(a["steps"] - np.log(1e-6) / np.log(BOUND)) <= 8,
                ),
                Mistake(
                    "too-early",
                    "`steps`: count on until a step moves less than 10⁻⁶ of the state, not 10⁻³.",
                    made=lambda a, g: abs(a["steps"] - _steps(1e-3)) <= 8,
                ),
            ),
        ),
    ),
    shows="The bound of the theorem is met with equality here, and then a hundred steps are what an equilibrium costs.",
    hints=(
        "The eigenvalues of J are the products of one of Â and one of W; only one of W is not zero.",
        "The error shrinks by ρ a step: solve ρᵏ = 10⁻⁶ for k, and think of what a step moves.",
        "Iterate `X = ring @ X @ W.T + q` from zero and count until `(new - X).norm() / new.norm()` is below 1e-6.",
    ),
)

# The best of many looks


def _best(molecules: int = 19, right: float = 0.8, looks: int = 100) -> float:
    at_most = binom(molecules, right).cdf(np.arange(molecules)) ** looks
    return float((1 - at_most).sum() / molecules)


LOOKS = Exercise(
    "ex-16-looks",
    parts=(
        Part(
            "best",
            Number(rel=1e-3),
            "the accuracy of the best epoch, on average, between 0 and 1",
            truth=lambda g: _best(),
            mistakes=(
                Mistake("one-look", "That is the mean of one look, not of the best of 100.", answer=lambda g: 0.8),
                Mistake(
                    "always-all",
                    "Close: but all 19 right is not *certain* in 100 looks. Average over what the best may be.",
                    answer=lambda g: 1.0,
                ),
                Mistake(
                    "in-molecules",
                    "That is a number of molecules; divide by 19.",
                    answer=lambda g: 19 * _best(),
                ),
            ),
        ),
    ),
    shows="A maximum over many looks at few graphs makes a classifier that is right four times in five look all but perfect.",
    hints=(
        "The best of 100 is at most k if all 100 are.",
        "`binom(19, 0.8).cdf(k) ** 100` is the probability of that.",
        "The mean of a whole number between 0 and 19 is the sum of P(it is above k) over k from 0 to 18.",
    ),
)

# A solver that does not read ahead


def _small() -> tuple[ImplicitNetwork, Tensor, Tensor]:
    network = language.network(12, 0, width=16, heads=2, inner=32, context=8).double()
    d = torch.randint(12, (1, 8), generator=torch.Generator().manual_seed(0))
    return network, d, torch.cat([d[:, :-1], (d[:, -1:] + 1) % 12], dim=1)


def _solved(*shape: int) -> Callable[[ImplicitNetwork, Tensor], Tensor]:
    def f(network: ImplicitNetwork, d: Tensor) -> Tensor:
        T, solve = network.operator(d), Anderson(tol=1e-30, max_steps=6)
        with torch.no_grad():
            found = solve(lambda u: T(u.reshape(1, 8, 16)).reshape(shape), torch.zeros(shape).double())
        return found.u.reshape(8, 16)

    return f


def _plain(network: ImplicitNetwork, d: Tensor) -> Tensor:
    with torch.no_grad(), network.using(solver=FixedPointIteration(max_steps=6, check_every=0)):
        return network.solve(d).u.reshape(8, 16)


def _states(f: Student, given: Given) -> Tensor:
    network, *lines = _small()
    with network.using(on_unconverged="ignore"):
        return torch.stack([f.tensor((8, 16), network, line).detach() for line in lines])


AHEAD = Exercise(
    "ex-16-ahead",
    parts=(
        Part(
            "places",
            Whole(),
            "at how many of the 8 places Anderson's answer for the whole line changes",
            truth=lambda g: 8,
            mistakes=(
                Mistake(
                    "as-with-plain-steps",
                    "`places`: so it is with plain steps. Compare the states with more digits than a print shows.",
                    answer=lambda g: 1,
                ),
            ),
        ),
        Part(
            "solve_by_place",
            Function("network, d", "the states after six steps, (8, 16)", off=1e-8),
            "six steps of Anderson's method, each place with its own mixing weights; d is (1, 8)",
            truth=lambda g: _solved(8, 16),
            observe=_states,
            mistakes=(
                Mistake(
                    "one-sample",
                    "The places are mixed as one sample, as before: lay them out as so many samples.",
                    answer=lambda g: _solved(1, 128),
                ),
                Mistake(
                    "plain-steps",
                    "These are plain steps. They do not read ahead either, but Anderson's method is asked for.",
                    answer=lambda g: _plain,
                ),
                Mistake(
                    "a-sample-for-each-number",
                    "A sample for each *number*: let each place of 16 numbers be one.",
                    answer=lambda g: _solved(128, 1),
                ),
            ),
            otherwise="The states are others: start from zero, with tol=1e-30 and max_steps=6, and hand T its whole line in every step.",
        ),
    ),
    shows="What reads ahead is the mixing, and it stops once each place mixes by its own residuals.",
    hints=(
        "The first axis of what `Anderson` gets is the samples, and each sample has mixing weights of its own.",
        "T wants a line, (1, places, 16). What does Anderson's method see, if it gets (places, 16)?",
        "Wrap T: before it give the state its first axis of one line, and take that off again after it.",
    ),
)

EXERCISES = (LISTEN, LOOKS, AHEAD)
