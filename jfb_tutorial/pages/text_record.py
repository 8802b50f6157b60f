"""What chapter 16 shows of its record of text, `book/timings/language.json`, and the spectra that it checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from ..solvers import FixedPointIteration
from . import language
from .figures import BLUE, GREEN, GREY, PURPLE, VERMILION

__all__ = ["ORDER", "Spectrum", "Text", "spectrum"]

Row = Mapping[str, Any]

ORDER = (
    ("post", "one step", False),
    ("post", "one step, longer", False),
    ("post", "JFB", False),
    ("post", "UPG", False),
    ("post", "exact", False),
    ("post", "every step", False),
    ("post", "UPG", True),
    ("post", "exact", True),
    ("pre", "one step", False),
    ("pre", "JFB", False),
    ("pre", "UPG", False),
    ("pre", "exact", False),
    ("pre", "every step", False),
    ("pre", "JFB", True),
    ("pre", "UPG", True),
    ("pre", "exact", True),
)
"""The runs, as tables list them: order of the norms, rule, whether with the penalty."""

STYLES: dict[str, tuple[str, Any]] = {
    "one step": (GREY, (0, (5, 1, 1, 1))),
    "JFB": (BLUE, "-"),
    "UPG": (VERMILION, "--"),
    "exact": (GREEN, "-."),
    "every step": (PURPLE, ":"),
}


_AT_REST = 1e-6


def _name(norm: str, rule: str, flat: bool) -> str:
    return f"{norm}, {rule}" + (", penalty" if flat else "")


def _mean(rows: Sequence[Row], key: str, digits: int = 2) -> str:
    found = [row[key] for row in rows if row.get(key) is not None]
    return f"{np.mean(found):.{digits}f}" if found else "–"


@dataclass(frozen=True)
class Text:
    """The record, as sentences, tables and figures of the chapter have it.

    Args:
        measured: the `result` of `book/timings/language.json`.
    """

    measured: Mapping[str, Any]

    def runs(self, norm: str, rule: str, flat: bool = False) -> list[Row]:
        """The runs on characters, by seed."""
        found = [row for row in self.measured["characters"] if _is(row, norm, rule, flat)]
        return sorted(found, key=lambda row: row["seed"])

    def bits(self, norm: str, rule: str, flat: bool = False, key: str = "test") -> list[float]:
        """Bits a character, of each seed."""
        return [language.bits(row[key]) for row in self.runs(norm, rule, flat)]

    def perplexity(self, norm: str, rule: str, flat: bool = False, key: str = "test") -> str:
        """Of both seeds."""
        return " / ".join(f"{language.perplexity(row[key]):.2f}" for row in self.runs(norm, rule, flat))

    def seconds(self, norm: str, rule: str, flat: bool = False) -> float:
        """Processor time of an update."""
        return float(np.mean([row["seconds"] / row["updates"] for row in self.runs(norm, rule, flat)]))

    # tables and sentences

    def run_rows(self) -> list[list[str]]:
        """A line for each rule: bits of both seeds, perplexity, speed."""
        base = self.seconds("post", "exact")
        lines = []
        for each in ORDER:
            bits = [" / ".join(f"{x:.3f}" for x in self.bits(*each, key=key)) for key in ("valid", "test")]
            speed = f"{base / self.seconds(*each):.1f}×"
            lines.append([_name(*each), *bits, self.perplexity(*each), speed])
        return lines

    def run_caption(self) -> str:
        """What the table shows."""
        row = self.runs("post", "JFB")[0]
        return (
            f"Shakespeare: {row['updates']} updates of {language.BATCH} windows of {language.CONTEXT} characters (one step, longer: six times as many), "
            f"{row['weights']:,} weights; seeds 0 / 1. Speed of an update: post-norm, exact = 1, as in the paper"
        )

    def values(self) -> dict[str, str]:
        """Numbers of the sentences."""
        words = self.measured["words"]
        ahead = [
            row["ahead"]["Anderson"] | {"plain": row["ahead"]["plain"]["loss"]}
            for row in self.measured["theory"]
            if row["trained"] and _is(row, "post", "JFB", False)
        ]
        return {
            "text_adjoint": f"{np.median([row['adjoint'] for row in self.runs('post', 'exact')]):.2f}",
            "text_choosing": str(self.measured["choose"][0]["updates"]),
            "text_post_exact": self.perplexity("post", "exact"),
            "text_post_upg": self.perplexity("post", "UPG"),
            "text_pre_exact": self.perplexity("pre", "exact", True),
            "text_pre_upg": self.perplexity("pre", "UPG", True),
            "text_pre_more": self.perplexity("pre", "UPG", True, "test_more"),
            "word_weights": f"{words[0]['weights']:,}",
            "word_updates": str(words[0]["updates"]),
            "word_results": ", ".join(f"{row['rule']} {language.perplexity(row['test']):.0f}" for row in words),
            "ahead_moved": f"{np.mean([row['moved'] for row in ahead]):.4f}",
            "ahead_most": f"{max(row['most'] for row in ahead):.2f}",
            "ahead_gain": f"{np.mean([row['plain'] - row['loss'] for row in ahead]):.4f}",
        }

    def theory_rows(self) -> list[list[str]]:
        """J at rest: untrained, and after training by each rule."""
        lines = []
        for norm in ("post", "pre"):
            fresh = [row for row in self.measured["theory"] if not row["trained"] and row["norm"] == norm]
            lines.append(_cells(f"{norm}, untrained", fresh, fresh))
            for each in (each for each in ORDER if each[0] == norm and not each[1].startswith("one step")):
                after = [row for row in self.measured["theory"] if row["trained"] and _is(row, *each)]
                # a network of seed 0 has been looked at where its training ended
                looks = [self.runs(*each)[0]["training"][-1], *(row for row in after if row["seed"])]
                lines.append(_cells(_name(*each), looks, after))
        return lines

    def block_values(self) -> dict[str, str]:
        """Mean norms of the blocks of the picture."""
        blocks = self._blocks()
        own, others = np.diag(blocks).mean(), blocks[np.tril_indices(len(blocks), -1)].mean()
        return {"text_own": f"{own:.1f}", "text_others": f"{others:.2f}"}

    def _blocks(self) -> np.ndarray:
        return np.array(self.runs("post", "exact")[0]["training"][-1]["blocks"])

    # figures

    def staircase(self) -> Figure:
        """The blocks of J at a line, and how far each place still moves."""
        blocks, shown = self._blocks(), self.runs("post", "exact")[0]
        text = self.measured["theory"][0]["text"][: len(blocks)]
        characters = [{" ": "␣", "\n": "¶"}.get(c, c) for c in text]
        fig, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3.3), width_ratios=(1.1, 1))
        sizes = np.where(blocks > 0, np.log10(np.maximum(blocks, 1e-12)), np.nan)
        left.imshow(sizes, cmap="Blues", vmin=-2.5, vmax=1.2)
        for t in range(len(blocks)):
            left.add_patch(plt.Rectangle((t - 0.5, t - 0.5), 1, 1, fill=False, color=VERMILION, lw=1.2))
        left.set_xticks(range(len(blocks)), characters)
        left.set_yticks(range(len(blocks)), characters)
        left.tick_params(length=0)
        left.grid(False)
        left.set(xlabel="on the state at", ylabel="the state at")
        for k, places, dashes in zip((4, 8, 13, 26), shown["places"], ("-", "--", "-.", ":"), strict=True):
            right.semilogy(range(1, len(places) + 1), places, ls=dashes, label=f"{k} steps")
        right.set(xlabel="place", ylabel="change in a step, relative")
        right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return fig

    def staircase_in_words(self) -> str:
        """Its alternative text."""
        sizes, places = self.block_values(), self.runs("post", "exact")[0]["places"]
        return (
            f"Left, a staircase of {len(self._blocks())} by {len(self._blocks())} blocks, empty above the diagonal, with norms of {sizes['text_own']} on the diagonal "
            f"and {sizes['text_others']} below it, on average. Right, four curves of the change in a step over {len(places[0])} places: "
            f"{np.median(places[0]):.3f} in the middle after 4 steps, {np.median(places[3]):.4f} after 26."
        )

    def through_steps(self) -> Figure:
        """Bits a character against steps from zero: post-norm without the penalty, pre-norm with it."""
        fig, panels = plt.subplots(1, 2, figsize=(6.4, 3.2), sharey=True)
        for panel, (norm, rules, flat) in zip(
            panels, (("post", list(STYLES), False), ("pre", ["JFB", "UPG", "exact"], True)), strict=True
        ):
            for rule in rules:
                row, (color, dashes) = self.runs(norm, rule, flat)[0], STYLES[rule]
                panel.plot(row["at"], [language.bits(x) for x in row["steps"]], color=color, ls=dashes, label=rule)
            panel.axvline(13, color="#bbbbbb", lw=1)
            panel.set_xscale("log", base=2)
            panel.set_xticks([1, 2, 4, 8, 16, 32], [1, 2, 4, 8, 16, 32])
            panel.set(title=f"{norm}-norm" + (", penalty" if flat else ""), xlabel="steps from zero")
        panels[0].set_ylabel("bits a character")
        fig.legend(
            *panels[0].get_legend_handles_labels(),
            loc="outside upper center",
            ncols=5,
            columnspacing=1,
            handlelength=1.6,
        )
        return fig

    def through_steps_in_words(self) -> str:
        """Its alternative text."""
        one, every = (self.bits_at("post", rule) for rule in ("JFB", "every step"))
        return (
            f"Bits a character over 1 to 52 steps. Post-norm, JFB: {one[1]:.2f} after one step, {one[13]:.2f} after 13, {one[52]:.2f} after 52. "
            f"Every step recorded: {every[13]:.2f} after 13, {every[52]:.2f} after 52."
        )

    def bits_at(self, norm: str, rule: str, flat: bool = False) -> dict[int, float]:
        """Bits a character of held-out text after so many steps, seed 0."""
        row = self.runs(norm, rule, flat)[0]
        return {at: language.bits(x) for at, x in zip(row["at"], row["steps"], strict=True)}


def _is(row: Row, norm: str, rule: str, flat: bool) -> bool:
    return (row["norm"], row["rule"], bool(row["penalty"])) == (norm, rule, flat)


def _cells(name: str, looks: Sequence[Row], certified: Sequence[Row]) -> list[str]:
    looks = [row for row in looks if row["residual"] < _AT_REST]
    cosines = [row["cosines"] for row in looks]
    cells = [_mean(looks, key) for key in ("norm_of_J", "top", "radius")]
    return [name, *cells, _mean(certified, "criterion", 3), *(_mean(cosines, key) for key in ("JFB", "UPG"))]


class Spectrum(NamedTuple):
    """J of a small untrained transformer at its equilibrium."""

    ahead: float
    """The largest entry by which a place hears of a later one."""
    gap: float
    """By how much the largest radius of the blocks on the diagonal misses that of J."""
    over: float
    """‖J‖ over the largest norm of a block on the diagonal."""


class _Both(language.Block):
    """Attention to both sides."""

    causal = False


def spectrum(norm: str, seed: int, *, causal: bool = True) -> Spectrum:
    """Of eight characters in 16 numbers each, float64.

    Args:
        norm: "post" or "pre".
        seed: of the weights and of the characters.
        causal: whether attention looks back only.
    """
    network = language.network(12, seed, norm=norm, width=16, heads=2, inner=32, context=8).double()
    if not causal:
        both = _Both(16, 2, 32, norm).double()
        both.load_state_dict(network.R.state_dict())
        network.R = both
    d = torch.randint(12, (1, 8), generator=torch.Generator().manual_seed(seed))
    with network.using(solver=FixedPointIteration(tol=1e-12, max_steps=5000)):
        J = language.jacobian(network.operator(d), network.solve(d).u)
    whole = J.reshape(128, 128)
    radius = torch.linalg.eigvals(whole).abs().max().item()
    blocks = language.diagonal(J)
    own = torch.linalg.eigvals(blocks).abs().max().item()
    largest = torch.linalg.matrix_norm(blocks, 2).max().item()
    ahead = max(J[t, :, t + 1 :].abs().max().item() for t in range(7))
    return Spectrum(ahead, abs(own - radius), torch.linalg.matrix_norm(whole, 2).item() / largest)
