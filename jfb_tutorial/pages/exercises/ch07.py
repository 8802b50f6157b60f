"""The exercises of chapter 7."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...gradients import NeumannSeries
from .checks import Answer, Exercise, Given, Mistake, Part, Property
from .kinds import Array, Function, Number
from .recorded import record
from .running import Student
from .trials import flat_gradient, powers, trials

# How many images is a difference?


def _error(given: Given, comparisons: int = 2) -> float:
    """In points."""
    return 100 * math.sqrt(comparisons * given["p"] * (1 - given["p"]) / given["N"])


def _images(given: Given, errors: float = 2, comparisons: int = 2) -> float:
    return comparisons * given["p"] * (1 - given["p"]) * (100 * errors / given["points"]) ** 2


IMAGES = Exercise(
    "ex-07-images",
    parts=(
        Part(
            "error",
            Number(rel=0.01),
            "the standard error of the difference, in points (per cent)",
            truth=_error,
            mistakes=(
                Mistake(
                    "one-accuracy",
                    "`error` is that of one accuracy. A difference of two has the variances of both.",
                    answer=lambda g: _error(g, 1),
                ),
                Mistake(
                    "share-for-points", "`error` is a share; points are per cent.", answer=lambda g: _error(g) / 100
                ),
                Mistake("variance", "`error` is the variance; take its root.", answer=lambda g: (_error(g) / 100) ** 2),
            ),
        ),
        Part(
            "images",
            Number(rel=0.02),
            "how many test images it takes",
            truth=_images,
            mistakes=(
                Mistake(
                    "once-its-error",
                    "`images` makes the difference as large as one standard error; two were asked for.",
                    answer=lambda g: _images(g, 1),
                ),
                Mistake(
                    "one-accuracy",
                    "`images` uses the error of one accuracy, not that of a difference.",
                    answer=lambda g: _images(g, 2, 1),
                ),
            ),
        ),
    ),
    shows="A few hundred images cannot tell apart two networks that differ by some tenths of a point.",
    hints=(
        "An accuracy is a mean of N numbers that are 0 or 1, each with variance p(1 − p).",
        "The variances of two independent accuracies add.",
        "For the number of images set twice that standard error equal to the difference, as a share, and solve for N.",
    ),
    given={"p": 0.985, "N": 360, "points": 0.3},
    draw=lambda rng: {
        "p": rng.choice((0.97, 0.98, 0.99)),
        "N": rng.choice((500, 1000, 2000)),
        "points": rng.choice((0.2, 0.4, 0.5)),
    },
    question=lambda g: (
        f"Two trained networks are each right on {100 * g['p']:g}% of {g['N']} test images. What is the standard error of the difference of their accuracies, in points, if their mistakes were "
        f"independent? How many test images would it take to see a difference of {g['points']:g} points at twice its standard error?"
    ),
)

# The first epoch above one


def _found(*, last: bool = False, before: int = 0) -> tuple[list[float], list[float]]:
    """The epochs, 0 for never, and the training accuracies there in per cent."""
    epochs, accuracies = [], []
    for seed in range(5):
        rows = record(f"records/digits-jfb-cpu-{seed}.json")["epochs"]
        above = [i for i, row in enumerate(rows) if row["gamma"] > 1]
        at = above[-1 if last else 0] if above else None
        epochs.append(0.0 if at is None else at + 1.0 - before)
        if at is not None:
            accuracies.append(100 * rows[at]["accuracy"])
    return epochs, accuracies


EPOCH = Exercise(
    "ex-07-epoch",
    parts=(
        Part(
            "epochs",
            Array((5,), rel=0.0, off=0.1),
            "the first epoch above 1 of each seed, from 0 to 4; 0 for never",
            truth=lambda g: _found()[0],
            mistakes=(
                Mistake(
                    "counted-from-zero",
                    "`epochs` are positions in a list, which begin at 0; the first epoch is number 1.",
                    answer=lambda g: _found(before=1)[0],
                ),
                Mistake("last-for-first", "`epochs` are the last ones above 1.", answer=lambda g: _found(last=True)[0]),
            ),
            otherwise='`epochs`: `run.curve("gamma")` is the norm after each epoch, `runs("jfb")` the five runs in the order of their seeds.',
        ),
        Part(
            "least",
            Number(rel=1e-3),
            "the smallest training accuracy of these epochs, in per cent",
            truth=lambda g: min(_found()[1]),
            mistakes=(
                Mistake("largest-for-least", "`least` is the largest of them.", answer=lambda g: max(_found()[1])),
                Mistake(
                    "share-for-per-cent",
                    "`least` is a share; per cent are asked for.",
                    answer=lambda g: min(_found()[1]) / 100,
                ),
            ),
        ),
    ),
    shows="The map was a contraction while most was learnt, and ceased to be while the last per cent was fitted.",
    hints=(
        "A record is a dictionary; `run.curve(name)` reads one quantity of all its epochs.",
        '`np.flatnonzero(np.array(run.curve("gamma")) > 1)` are the positions; there may be none.',
        'The accuracy is that of the same row, `run["epochs"][position]["accuracy"]`.',
    ),
)

# A rule of your own

_BETAS = (0.0, 1.0, 2.0, -0.5)


def _sent(f: Student, given: Given) -> Tensor:
    seen = []
    for beta in _BETAS:
        rule = Student(f(beta), f"{f.name}({beta:g})")
        seen += [flat_gradient(rule(trial.T, trial.u_star.clone()), trial, rule.name) for trial in trials(1)]
    return torch.cat(seen)


def _evaluations(answer: Answer, given: Given) -> bool:
    count = 0
    for trial in trials(1):

        def T(u: Tensor) -> Tensor:
            nonlocal count
            count += 1
            return trial.T(u)  # noqa: B023

        answer["extrapolated"](1.5)(T, trial.u_star.clone())
    return count <= 2


def _mixed(
    first: Callable[[float], float], second: Callable[[float], float], *, cut: bool = False
) -> Callable[[float], Any]:
    def extrapolated(beta: float) -> Any:
        def rule(T: Callable[[Tensor], Tensor], u_star: Tensor) -> Tensor:
            v = T(u_star.detach())
            again = T(u_star.detach() if cut else u_star.detach() + v - v.detach())
            return first(beta) * v + second(beta) * again

        return rule

    return extrapolated


def _truth(beta: float) -> Any:
    return powers(lambda i: (1.0, beta)[i], 2)


RULE = Exercise(
    "ex-07-rule",
    parts=(
        Part(
            "extrapolated",
            Function("beta", "a rule: a function of (T, u_star) that returns T(u*) with a graph", rel=1e-6, off=1e-8),
            "the rule that sends g + β gJ",
            truth=lambda g: _truth,
            example=lambda g: _mixed(lambda b: 1 - b, lambda b: b),
            observe=_sent,
            mistakes=(
                Mistake(
                    "value-not-kept",
                    "The gradient is on the right way and the *value* is not T(u*): the weights of the two evaluations have to sum to one.",
                    answer=lambda g: _mixed(lambda b: 1.0, lambda b: b),
                ),
                Mistake(
                    "weights-exchanged",
                    "The two evaluations have each other's weight: for β = 0 this should be JFB.",
                    answer=lambda g: _mixed(lambda b: b, lambda b: 1 - b),
                ),
                Mistake(
                    "both-at-the-same-leaf",
                    "Nothing passes through J: the second evaluation has to stand on the first, in its graph though not in its value.",
                    answer=lambda g: _mixed(lambda b: 1 - b, lambda b: b, cut=True),
                ),
                Mistake(
                    "two-terms-for-every-beta",
                    "For every β this is the series of two terms: where does β enter?",
                    answer=lambda g: lambda beta: NeumannSeries(2),
                ),
            ),
            otherwise="The weights do not receive the gradient of w = g + β gJ. Try β = 0 against JFB, then β = 1 against `NeumannSeries(2)`.",
        ),
    ),
    properties=(Property(("extrapolated",), _evaluations, "It is right, and evaluates T more than twice."),),
    shows="Two evaluations and two weights that sum to one send any g + β gJ, and the value stays T(u*).",
    hints=(
        "Evaluate T at u*, detached. What would you have to put into T so that a second evaluation sends gJ on to the first?",
        "A tensor that has the value of u* and the graph of the first evaluation: u* + v − v.detach().",
        "Return a weighted sum of both. The weights sum to one, so that the value stays; the one of the second is what multiplies gJ.",
    ),
    question=lambda g: (
        "A backward rule is anything that is called as `rule(T, u_star)` and returns a value with a graph. Write `extrapolated(beta)`, which returns a rule that returns $T(u^\\star)$ and sends "
        "back $w = g + \\beta gJ$, with two evaluations of $T$."
    ),
)

EXERCISES = (IMAGES, EPOCH, RULE)
