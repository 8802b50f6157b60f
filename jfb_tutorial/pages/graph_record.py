"""What chapter 16 shows of its record of graph networks, `book/timings/graphs.json`: accuracies by three protocols, and the theory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from . import graphs
from .figures import BLUE, GREY, VERMILION
from .recorded import interval

__all__ = [
    "MAJORITY",
    "PROTOCOLS",
    "PUBLISHED",
    "Molecules",
    "Ratio",
    "difference",
    "fold_accuracies",
    "of",
    "protocols",
    "ratio",
    "summary",
]

Row = Mapping[str, Any]

PROTOCOLS = {
    "held out": "each fold at the epoch with the smallest loss on held-out graphs",
    "one epoch": "all folds of a seed at the one epoch with the best mean accuracy on the tests",
    "best of each": "each fold at the epoch with the best accuracy on its test, as the published code",
}
"""The first alone chooses without a look at the test."""
COMPARED = ("JFB", "UPG 5, 0.5", "UPG 5, 1.0", "NPG 5, 0.5", "one step")
"""The rules whose differences from the exact gradient are tabulated."""
PUBLISHED = {
    ("COX2", "exact"): 84.1,
    ("COX2", "UPG 5, 0.5"): 83.9,
    ("COX2", "UPG 5, 0.8"): 83.9,
    ("COX2", "UPG 5, 1.0"): 83.0,
    ("PROTEINS", "exact"): 78.6,
    ("PROTEINS", "UPG 5, 0.5"): 78.4,
    ("PROTEINS", "UPG 5, 0.8"): 78.6,
    ("PROTEINS", "UPG 5, 1.0"): 78.8,
}
"""Table 4 of the phantom-gradient paper, in percent, with spreads over folds of 2.7 to 4.2."""
MAJORITY = {"MUTAG": 66.5, "PTC_MR": 55.8, "COX2": 78.2, "PROTEINS": 59.6}
"""The share of the larger class, in percent."""


def called(name: str) -> str:
    """The set as sentences have it."""
    return name.removesuffix("_MR")


def shown(rule: str) -> str:
    """The rule as figures and sentences have it."""
    return "without W" if rule == "one step" else rule


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


def _signed(mean: float, half: float) -> str:
    return f"{mean:+.1f} ± {half:.1f}".replace("-", "−")


@dataclass(frozen=True)
class Molecules:
    """The record, as sentences and tables of the chapter have it.

    Args:
        measured: the `result` of `book/timings/graphs.json`.
    """

    measured: Mapping[str, Any]

    @property
    def sets(self) -> list[str]:
        """Those with runs, in the order of `MAJORITY`."""
        there = {row["set"] for row in self.measured["runs"]}
        return [name for name in MAJORITY if name in there]

    @property
    def rules(self) -> list[str]:
        """In the order in which they were run."""
        return list(dict.fromkeys(row["rule"] for row in self.measured["runs"]))

    def of(self, name: str, rule: str) -> list[Row]:
        """The folds of a set and a rule that every rule of the set has, by seed and fold."""
        common = self._common[name]
        return [row for row in of(self.measured["runs"], name, rule) if (row["seed"], row["fold"]) in common]

    @cached_property
    def _common(self) -> dict[str, set[tuple[int, int]]]:
        """The seeds and folds that every rule has, by set."""
        runs = self.measured["runs"]
        return {
            name: set.intersection(
                *({(row["seed"], row["fold"]) for row in of(runs, name, rule)} for rule in self.rules)
            )
            for name in self.sets
        }

    def seeds(self, name: str) -> int:
        """How many there are."""
        return len({row["seed"] for row in self.of(name, "exact")})

    def gap(self, rule: str) -> float:
        """By how many points the published protocol is above the held-out one, mean over sets."""
        return float(np.mean([self._gap(name, rule) for name in self.sets]))

    def _gap(self, name: str, rule: str) -> float:
        rows = self.of(name, rule)
        return summary(rows, "best of each")[0] - summary(rows)[0]

    def difference_rows(self, base: str = "exact") -> list[list[str]]:
        """For each set, the number of pairs, and how much more accurate than the exact gradient each rule is, with half an interval."""
        lines = []
        for name in self.sets:
            cells = [_signed(*difference(self.of(name, rule), self.of(name, base))) for rule in COMPARED]
            lines.append([called(name), str(len(self.of(name, base))), *cells])
        return lines

    def looks(self, epoch: str) -> list[Row]:
        """The equilibria of all sets and seeds, trained with the exact gradient, at the "first" or the "last" look."""
        rows = [row for row in self.measured["theory"] if row["rule"] == "exact"]
        runs = {(row["set"], row["seed"]) for row in rows}
        end = min if epoch == "first" else max
        return [
            end((row for row in rows if (row["set"], row["seed"]) == run), key=lambda row: row["epoch"])
            for run in sorted(runs)
        ]

    def values(self) -> dict[str, str]:
        """Numbers of the sentences."""
        named = {"graph_gap": f"{np.mean([self.gap(rule) for rule in self.rules]):.1f}"}
        pairs = [
            (name, rule, difference(self.of(name, rule), self.of(name, "exact")))
            for name in self.sets
            for rule in COMPARED
        ]
        outside = [
            f"{shown(rule)} on {called(name)}, {_signed(mean, half)}"
            for name, rule, (mean, half) in pairs
            if abs(mean) > half
        ]
        gaps = [np.mean([self._gap(name, rule) for rule in self.rules]) for name in self.sets]
        guessing = [name for name in self.sets if summary(self.of(name, "exact"))[0] < MAJORITY[name] + 3]
        crosses = [
            published - summary(self.of(name, rule), "best of each")[0]
            for (name, rule), published in PUBLISHED.items()
            if name in self.sets
        ]
        above = [summary(self.of(name, rule))[0] - MAJORITY[name] for name in guessing for rule in self.rules]
        named |= {
            "graph_cells": str(len(pairs)),
            "graph_outside": str(len(outside)),
            "graph_runs": f"{sum(len(self.of(name, rule)) for name in self.sets for rule in self.rules):,}",
            "graph_which": "; ".join(outside) or "none",
            "graph_widest": f"{max(half for _, _, (_, half) in pairs):.1f}",
            "graph_guessing": " and ".join(map(called, guessing)),
            "graph_guessing_by": f"{max(above, default=0.0):.1f}",
            "graph_gaps": f"{min(gaps):.0f} to {max(gaps):.0f}",
            "graph_crosses": f"{min(crosses):.1f} to {max(crosses):.1f}" if crosses else "–",
            "graph_seeds": " or ".join(map(str, sorted({self.seeds(name) for name in self.sets}, reverse=True))),
            "graph_cosine_least": f"{min(look['cosines']['JFB'] for look in self.looks('last')):.2f}",
        }
        epochs = {name: self.of(name, "exact")[0]["epochs"] for name in self.sets}
        named["graph_epochs"] = ", ".join(f"{count} ({called(name)})" for name, count in epochs.items())
        for epoch in ("first", "last"):
            looks = self.looks(epoch)
            each = [equilibrium for look in looks for equilibrium in look["equilibria"]]
            named |= {
                f"graph_radius_{epoch}": f"{np.mean([x['radius'] for x in each]):.2f}",
                f"graph_norm_{epoch}": f"{np.mean([x['norm'] for x in each]):.2f}",
                f"graph_steps_{epoch}": f"{np.mean([x['steps'] for x in each]):.0f}",
                f"graph_cosine_{epoch}": f"{np.mean([look['cosines']['JFB'] for look in looks]):.3f}",
            }
        named["graph_norm_most"] = f"{max(x['norm'] for look in self.looks('last') for x in look['equilibria']):.2f}"
        norms = [x["norm"] for look in self.looks("last") for x in look["equilibria"]]
        named |= {"graph_above": str(sum(norm > 1 for norm in norms)), "graph_seen": str(len(norms))}
        named["graph_zero"] = (
            f"{100 * np.mean([x['W_zero'] for look in self.looks('first') for x in look['equilibria']]):.0f}"
        )
        return named


def protocols(molecules: Molecules) -> Figure:
    """A panel for each set, a line for each rule: the epoch chosen on held-out graphs, and the best epoch of each test."""
    sets, rules = molecules.sets, molecules.rules
    fig, axes = plt.subplots(1, len(sets), figsize=(6.4, 3.4), sharey=True, squeeze=False)
    for ax, name in zip(axes[0], sets, strict=True):
        for y, rule in enumerate(rules):
            rows = molecules.of(name, rule)
            held, best = summary(rows)[0], summary(rows, "best of each")[0]
            ax.plot([held, best], [y, y], color=GREY, lw=0.8, ls="-")
            ax.plot(held, y, "o", color=BLUE)
            ax.plot(best, y, "o", color=VERMILION, mfc="white")
            if (name, rule) in PUBLISHED:
                ax.plot(PUBLISHED[name, rule], y, "x", color=GREY)
        ax.axvline(MAJORITY[name], color=GREY, ls=":", lw=1)
        ax.locator_params(axis="x", nbins=3)
        ax.set(title=called(name), xlabel="percent")
    axes[0][0].set_yticks(range(len(rules)), [shown(rule) for rule in rules])
    axes[0][0].invert_yaxis()
    return fig


class Ratio(NamedTuple):
    """Of a random step X ↦ relu(Â X Wᵀ + q) on a random graph."""

    row: float
    """‖W‖∞."""
    own: float
    """The distance of two states after the step over that before, in the norm max |E_ia| / √d_i."""
    radius: float
    """ρ(J) at one of them."""


def ratio(seed: int, *, kappa: float, nodes: int = 12, width: int = 6) -> Ratio:
    """How much a step shrinks the distance of two states, zero and one near the vector √d, where the bound is tight.

    Args:
        seed: of the graph, W, q and the states.
        kappa: to which ‖W‖∞ is brought.
        nodes: of the graph.
        width: numbers a node.
    """
    generator = torch.Generator().manual_seed(seed)
    draw = torch.float64
    pairs = torch.rand(nodes, nodes, generator=generator).triu(1) < 0.3
    edges = (pairs | pairs.T).nonzero().T.numpy()
    A = torch.from_numpy(graphs.normalised(edges, nodes).toarray()).to(draw)
    root = ((pairs | pairs.T).sum(dim=1) + 1).to(draw).sqrt()[:, None]
    W = torch.rand(width, width, generator=generator, dtype=draw)  # no sign: nothing cancels
    W *= kappa / W.sum(dim=1).max()
    q = torch.rand(nodes, width, generator=generator, dtype=draw)  # every relu is on
    step = lambda X: torch.relu(A @ X @ W.T + q)  # noqa: E731
    other = root * (1 - 0.1 * torch.rand(nodes, width, generator=generator, dtype=draw))
    size = lambda E: (E.abs() / root).max().item()  # noqa: E731
    J = torch.kron(A, W)  # with every relu on
    radius = torch.linalg.eigvals(J).abs().max().item()
    zero = torch.zeros_like(other)
    return Ratio(W.abs().sum(dim=1).max().item(), size(step(other) - step(zero)) / size(other), radius)
