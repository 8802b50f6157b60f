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

_EQUILIBRIA = tuple(each for each in ORDER if not each[1].startswith("one step"))

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


def _each(rows: Sequence[Row], key: str, digits: int = 2) -> str:
    return " / ".join("–" if row.get(key) is None else f"{row[key]:.{digits}f}" for row in rows)


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

    def behind(self, rule: str) -> list[float]:
        """By how many bits on the test a rule is behind the exact one without the penalty, for each order and seed."""
        return [
            bits - exact
            for norm in ("post", "pre")
            for bits, exact in zip(self.bits(norm, rule), self.bits(norm, "exact"), strict=True)
        ]

    def rule_values(self) -> dict[str, str]:
        """Numbers of the sentences that compare rules; a pair of bits is of both seeds."""

        def both(*each: Any) -> str:
            return " and ".join(f"{x:.2f}" for x in self.bits(*each))

        one, longer = (self.seconds("post", rule) for rule in ("one step", "one step, longer"))
        updates = self.runs("post", "one step, longer")[0]["updates"]
        exact = self.seconds("post", "exact") * self.runs("post", "exact")[0]["updates"]
        at = {rule: self.bits_at("post", rule) for rule in ("one step", "JFB")}
        tried = {row["rate"]: row["valid"] for row in self.measured["choose"] if _is(row, "post", "JFB", False)}
        taken = tried[self.runs("post", "JFB")[0]["rate"]]
        return {
            "text_jfb_rate": f"{language.bits(taken - min(tried.values())):.2f}",
            "text_jfb_behind": f"{np.mean(self.behind('JFB')):.2f}",
            "text_upg_behind": f"{min(self.behind('UPG')):.2f} to {max(self.behind('UPG')):.2f}".replace("-", "−"),
            "text_failed": both("pre", "every step"),
            "text_one_speed": f"{self.seconds('post', 'exact') / one:.0f}",
            "text_one_post": both("post", "one step"),
            "text_exact_post": both("post", "exact"),
            "text_one_pre": both("pre", "one step"),
            "text_jfb_pre": both("pre", "JFB"),
            "text_longer": both("post", "one step, longer"),
            "text_longer_time": f"{longer * updates / exact:.1f}",
            "text_at_1": f"{at['JFB'][1]:.2f}",
            "text_at_13": f"{at['JFB'][13]:.2f}",
            "text_at_52": f"{at['JFB'][52]:.2f}",
            "text_one_at_1": f"{at['one step'][1]:.2f}",
            "text_one_at_13": f"{at['one step'][13]:.2f}",
        }

    def values(self) -> dict[str, str]:
        """Numbers of the sentences."""
        words = self.measured["words"]
        ahead = [
            row["ahead"]["Anderson"]
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
        }

    def theory_rows(self) -> list[list[str]]:
        """J at rest: untrained, and after training by each rule; both seeds in a cell."""
        lines = []
        for norm in ("post", "pre"):
            fresh = self._untrained(norm)
            lines.append(_cells(f"{norm}, untrained", fresh, fresh[:1]))
            for each in (each for each in _EQUILIBRIA if each[0] == norm):
                certified = [row for row in self._after(each) if not row["seed"]]
                lines.append(_cells(_name(*each), self._looks(each), certified))
        return lines

    def _untrained(self, norm: str) -> list[Row]:
        return [row for row in self.measured["theory"] if not row["trained"] and row["norm"] == norm]

    def _after(self, each: tuple[str, str, bool]) -> list[Row]:
        return [row for row in self.measured["theory"] if row["trained"] and _is(row, *each)]

    def _looks(self, each: tuple[str, str, bool]) -> list[Row]:
        """J at rest after training, by seed; empty where no point of rest was found."""
        # a network of seed 0 has been looked at where its training ended
        looks = [self.runs(*each)[0]["training"][-1], *(row for row in self._after(each) if row["seed"])]
        return [row if row["residual"] < _AT_REST else {} for row in looks]

    def theory_values(self) -> dict[str, str]:
        """Numbers of the sentences about J at rest: before training, and the range over all networks of the table after it."""
        fresh = [row for norm in ("post", "pre") for row in self._untrained(norm)]
        trained = [row for each in _EQUILIBRIA for row in self._looks(each) if row]
        certified = [row["criterion"] for row in self.measured["theory"] if row.get("criterion") is not None]
        radii, norms = [row["radius"] for row in trained], [row["norm_of_J"] for row in trained]
        cosines = sorted(row["cosines"]["UPG"] for row in trained)
        return {
            "text_fresh_norm": f"{np.mean([row['norm_of_J'] for row in fresh]):.1f}",
            "text_fresh_radius": f"{np.mean([row['radius'] for row in fresh]):.2f}",
            "text_fresh_cosine": f"{np.mean([row['cosines']['JFB'] for row in fresh]):.2f}",
            "text_norms": f"{min(norms):.1f} to {max(norms):.1f}",
            "text_rest": str(len(trained)),
            "text_beyond": str(sum(radius > 1 for radius in radii)),
            "text_radius_most": f"{max(radii):.1f}",
            "text_top_least": f"{min(row['top'] for row in trained):.1f}",
            "text_criterion": f"{min(certified):.3f} to {max(certified):.3f}",
            "text_jfb_cosines": " to ".join(f"{f(row['cosines']['JFB'] for row in trained):.2f}" for f in (min, max)),
            "text_upg_low": f"{cosines[0]:.2f}",
            "text_upg_median": f"{np.median(cosines):.2f}",
        }

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
    cosines = [row.get("cosines", {}) for row in looks]
    cells = [_each(looks, key, digits) for key, digits in (("norm_of_J", 1), ("top", 1), ("radius", 2))]
    return [name, *cells, _each(certified, "criterion", 3), *(_each(cosines, key) for key in ("JFB", "UPG"))]


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
