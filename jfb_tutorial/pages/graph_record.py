"""The accuracies in the record of the graph networks, `book/timings/graphs.json`, by three protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .recorded import interval

__all__ = ["PROTOCOLS", "difference", "fold_accuracies", "of", "summary"]

Row = Mapping[str, Any]

PROTOCOLS = {
    "held out": "each fold at the epoch with the smallest loss on held-out graphs",
    "one epoch": "all folds of a seed at the one epoch with the best mean accuracy on the tests",
    "best of each": "each fold at the epoch with the best accuracy on its test, as the published code",
}
"""The first alone chooses without a look at the test."""


def of(rows: Sequence[Row], name: str, rule: str) -> list[Row]:
    """The folds of a set and a rule, by seed and fold."""
    mine = [row for row in rows if row["set"] == name and row["rule"] == rule]
    return sorted(mine, key=lambda row: (row["seed"], row["fold"]))


def fold_accuracies(rows: Sequence[Row], protocol: str = "held out") -> np.ndarray:
    """The accuracy on the test of each of these folds, in [0, 1], in their order."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    if protocol == "held out":
        return np.array([row["right"] / row["tested"] for row in rows])
    curves = [np.array(row["curve"].split(), dtype=int) / row["tested"] for row in rows]
    if protocol == "best of each":
        return np.array([curve.max() for curve in curves])
    seeds = [row["seed"] for row in rows]
    best = {
        s: int(np.mean([c for c, of_c in zip(curves, seeds, strict=True) if of_c == s], axis=0).argmax()) for s in seeds
    }
    return np.array([curve[best[s]] for curve, s in zip(curves, seeds, strict=True)])


def summary(rows: Sequence[Row], protocol: str = "held out") -> tuple[float, float, int]:
    """Mean over folds and seeds, in percent; the spread over folds as published tables have it, the mean over seeds; number of folds."""
    accuracies = 100 * fold_accuracies(rows, protocol)
    seeds = np.array([row["seed"] for row in rows])
    spread = float(np.mean([accuracies[seeds == s].std() for s in np.unique(seeds)]))
    return float(accuracies.mean()), spread, len(rows)


def difference(rows: Sequence[Row], others: Sequence[Row], protocol: str = "held out") -> tuple[float, float]:
    """How much more accurate the first rule is on the same folds, in percent, and the half width of a 95 % interval.

    The folds of a seed share four fifths of their training graphs, so the interval is rather too narrow.
    """
    places = [[(row["seed"], row["fold"]) for row in each] for each in (rows, others)]
    if places[0] != places[1]:
        raise ValueError("rows and others must hold the same seeds and folds; take `of` of one record for both")
    gaps = 100 * (fold_accuracies(rows, protocol) - fold_accuracies(others, protocol))
    return interval(gaps) if len(gaps) > 1 else (float(gaps.mean()), float("nan"))
