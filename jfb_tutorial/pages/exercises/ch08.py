"""The exercises of chapter 8."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from scipy import stats

from .checks import Exercise, Given, Mistake, Part
from .kinds import Function, Number
from .recorded import book_file
from .running import Student

# The best of a hundred


def _best(given: Given, epochs: int | None = None) -> float:
    """In per cent."""
    k = np.arange(given["N"])
    return float(
        100 * (1 - stats.binom.cdf(k, given["N"], given["p"]) ** (epochs or given["epochs"])).sum() / given["N"]
    )


def _sigma(given: Given) -> float:
    return 100 * math.sqrt(given["p"] * (1 - given["p"]) / given["N"])


BEST = Exercise(
    "ex-08-best",
    parts=(
        Part(
            "accuracy",
            Number(rel=0.0, abs=0.015),
            "the accuracy that you expect of the best epoch, in per cent",
            truth=_best,
            mistakes=(
                Mistake(
                    "plateau",
                    "This is the accuracy of any one epoch. The *best* of many is a maximum, and lies above it.",
                    answer=lambda g: 100 * g["p"],
                ),
                Mistake(
                    "one-deviation",
                    "This is one standard deviation above the plateau, as for the best of a few. More epochs reach further.",
                    answer=lambda g: 100 * g["p"] + _sigma(g),
                ),
                Mistake(
                    "share", "This is a share; per cent are asked for.", made=lambda a, g: 0.5 < a["accuracy"] <= 1
                ),
            ),
            otherwise="This is not the mean of the largest of so many binomial numbers.",
        ),
    ),
    shows="Choosing the best epoch on the test set adds about as much as the differences that tables are made of.",
    hints=(
        "The number of right answers of one epoch is binomial. What is the probability that none of the epochs has more than k?",
        "Of independent epochs all stay at or below k with the probability F(k) to the power of their number.",
        "The mean of a whole number that is not negative is the sum of P(more than k) over all k ≥ 0.",
    ),
    given={"epochs": 100, "p": 0.993, "N": 10_000},
    draw=lambda rng: {
        "epochs": rng.choice((30, 50, 200)),
        "p": rng.choice((0.98, 0.99, 0.995)),
        "N": rng.choice((5000, 10_000)),
    },
    question=lambda g: (
        f"A network has reached its plateau: after each of {g['epochs']} epochs it classifies each of {g['N']:,} test images rightly with probability {g['p']:g}, independently of the other images and "
        "epochs. What accuracy do you expect if you report the best epoch?"
    ),
)

# Which images share a batch


@cache
def _accuracies() -> dict[str, float]:
    """In per cent, of 180 enlarged digits: fixed statistics, those of mixed batches, of batches sorted by class."""
    from ...training import checkpoints, data

    digits = data.load("digits", "test")
    large = torch.nn.functional.interpolate(digits.images[:180].double() / 255, size=20, mode="bilinear")
    images, labels = torch.nn.functional.pad(large, (4, 4, 4, 4)), digits.labels[:180]
    path = book_file("records/mnist.safetensors")

    def accuracy(order: torch.Tensor, training: bool) -> float:
        network = checkpoints.load_network(path).double()
        for module in network.modules():
            if "BatchNorm" in type(module).__name__:
                module.train(training)
        with torch.no_grad():
            answers = torch.cat([network(part).argmax(dim=1) for part in images[order].split(36)])
        return 100 * (answers == labels[order]).double().mean().item()

    first = torch.arange(180)
    return {
        "fixed": accuracy(first, False),
        "mixed": accuracy(first, True),
        "by_class": accuracy(torch.argsort(labels, stable=True), True),
    }


def _accuracy(name: str, what: str, other: str, says: str) -> Part:
    return Part(
        name,
        Number(rel=0.0, abs=0.6),
        what,
        truth=lambda g: _accuracies()[name],
        mistakes=(
            Mistake(f"{other}-for-{name}", f"`{name}`: {says}", answer=lambda g: _accuracies()[other]),
            Mistake("share", f"`{name}` is a share; per cent are asked for.", made=lambda a, g: a[name] <= 1),
        ),
        otherwise=f'`{name}`: 180 digits of `data.load("digits", "test")`, enlarged as in the chapter, in batches of 36, the network loaded anew, dropout off.',
    )


BATCH = Exercise(
    "ex-08-batch",
    parts=(
        _accuracy(
            "fixed",
            "accuracy in evaluation mode, in per cent",
            "mixed",
            "the batch normalisation is still in training mode.",
        ),
        _accuracy(
            "mixed",
            "with the statistics of the batch, in their own order, in per cent",
            "fixed",
            "the batch normalisation is in evaluation mode; `network.train()` on the whole would switch dropout on as well.",
        ),
        _accuracy(
            "by_class",
            "the same, sorted by class, in per cent",
            "mixed",
            "these are batches in their own order; sort by label first.",
        ),
    ),
    shows="In training mode the answer for an image depends on its neighbours: sorting a test set changes its accuracy.",
    hints=(
        "Load the network anew for each measurement: in training mode an evaluation changes its running statistics.",
        "Put only the modules whose type has BatchNorm in its name into training mode.",
        "`torch.argsort(labels, stable=True)` sorts by class; `images.split(36)` makes the batches.",
    ),
)

# How much faster can JFB make a step?


def _pairs(f: Student, given: Given) -> list[float]:
    return [f.number(K, m) for K, m in ((10, 5), (7.5, 12), (100, 5))]


AMDAHL = Exercise(
    "ex-08-amdahl",
    parts=(
        Part(
            "ratio",
            Function("K, m", "how many times as long as JFB's, a float"),
            "the time of a step with m products in units of JFB's",
            truth=lambda g: lambda K, m: 1 + m / (K + 3),
            observe=_pairs,
            mistakes=(
                Mistake(
                    "two-a-product",
                    "A product goes back to u alone: it counts as one evaluation, not two.",
                    answer=lambda g: lambda K, m: 1 + 2 * m / (K + 3),
                ),
                Mistake(
                    "no-backward-pass",
                    "The backward pass of the recorded step is missing; JFB has it too.",
                    answer=lambda g: lambda K, m: 1 + m / (K + 1),
                ),
                Mistake(
                    "no-recorded-step",
                    "The evaluation with a graph is missing, besides the K without.",
                    answer=lambda g: lambda K, m: 1 + m / (K + 2),
                ),
                Mistake(
                    "upside-down",
                    "This is JFB's time in units of the other's.",
                    answer=lambda g: lambda K, m: 1 / (1 + m / (K + 3)),
                ),
            ),
        ),
        Part(
            "limit",
            Number(),
            "the ratio for K → ∞ with m fixed",
            truth=lambda g: 1.0,
            mistakes=(
                Mistake(
                    "the-gain-stays",
                    "`limit`: the products are a fixed number; the evaluations grow.",
                    answer=lambda g: 2.0,
                ),
                Mistake("difference-for-ratio", "`limit` is what is added to it.", answer=lambda g: 0.0),
            ),
        ),
    ),
    shows="The longer the forward iteration, the less a fixed number of products matters: JFB can only save what the backward pass takes.",
    hints=(
        "Count in evaluations of T: those without a graph, the one with, and its backward pass.",
        "m products come on top. Divide the two sums.",
        "For K → ∞ hold m and look at what is added to 1.",
    ),
    question=lambda g: (
        "A training step with JFB makes $K$ evaluations of $T$ without a graph and one with; count its backward pass as two evaluations, a product with the Jacobian as one, and leave $Q$ and $S$ "
        "aside. How many times as long does a step with $m$ products take? What is the ratio for $K \\to \\infty$ with $m$ fixed?"
    ),
)

EXERCISES = (BEST, BATCH, AMDAHL)
