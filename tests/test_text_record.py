"""What chapter 16 shows of its record of text, on numbers made up, and the spectra that it checks."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from jfb_tutorial.pages import text_record
from jfb_tutorial.pages.text_record import ORDER, Text

LN2 = float(np.log(2))
AT = (1, 4, 13, 52)
LOOK = {"residual": 1e-9} | {
    "norm_of_J": 2.0,
    "top": 1.2,
    "radius": 0.8,
    "cosines": {"JFB": 0.6, "UPG": 0.9},
    "blocks": [[2.0, 0.0], [0.5, 4.0]],
}


def run(norm, rule, flat, seed):
    row = {
        "norm": norm,
        "rule": rule,
        "penalty": 0.3 if flat else 0.0,
        "seed": seed,
        "updates": 400,
        "weights": 209473,
        "rate": 0.002,
    }
    loss = (2 + 0.1 * seed) * LN2  # 2.0 and 2.1 bits
    row |= {"seconds": 400.0 if rule == "exact" else 200.0, "valid": loss, "test": loss, "test_more": loss}
    row |= {"at": AT, "steps": [loss + 1 / k for k in AT], "places": [[0.1 / k] * 3 for k in (4, 8, 13, 26)]}
    moving = {"residual": 1e-3, "norm_of_J": 9.0}
    return row | {"adjoint": 0.1 + seed, "training": [moving if rule == "every step" else LOOK] if seed == 0 else []}


def theory_row(norm, rule, flat, seed, trained=True):
    row = {
        "norm": norm,
        "rule": rule,
        "penalty": (0.3 if flat else 0.0) if trained else None,
        "seed": seed,
        "trained": trained,
    }
    row |= {
        "text": "a\n",
        "ahead": {"plain": {"loss": 2.0}, "Anderson": {"loss": 1.9, "moved": 0.01, "most": 0.2 + seed}},
    }
    if seed or not trained:
        row |= LOOK | {"norm_of_J": 4.0, "radius": None}
    return row | ({} if seed and trained else {"criterion": 0.07})


MEASURED = {
    "characters": [run(*each, seed) for seed in (1, 0) for each in ORDER],
    "words": [{"rule": "JFB", "weights": 900000, "updates": 400, "test": float(np.log(300))}],
    "choose": [
        {"norm": "post", "rule": "JFB", "penalty": 0.0, "rate": rate, "valid": valid * LN2, "updates": 120}
        for rate, valid in ((0.001, 2.5), (0.002, 2.4), (0.004, 2.3))
    ],
    "theory": [theory_row(norm, "JFB", False, 0, trained=False) for norm in ("post", "pre")]
    + [theory_row(*each, seed) for seed in (0, 1) for each in ORDER],
}
TEXT = Text(MEASURED)


def test_runs_are_found_by_norm_rule_and_penalty():
    assert [row["seed"] for row in TEXT.runs("post", "UPG")] == [0, 1]
    assert all(row["penalty"] for row in TEXT.runs("post", "UPG", True))
    assert TEXT.bits("pre", "JFB") == pytest.approx([2.0, 2.1])
    assert TEXT.perplexity("pre", "exact", True) == "4.00 / 4.29"


def test_speed_is_in_units_of_the_exact_rule():
    rows = {row[0]: row[1:] for row in TEXT.run_rows()}
    assert len(rows) == len(ORDER)
    assert rows["post, JFB"] == ["2.000 / 2.100", "2.000 / 2.100", "4.00 / 4.29", "2.0×"]
    assert rows["pre, exact, penalty"][-1] == "1.0×"
    assert TEXT.run_caption().startswith("Shakespeare: 400 updates of 16 windows of 64 characters")


def test_the_table_of_theory_takes_each_look_from_where_it_is():
    rows = {row[0]: row[1:] for row in TEXT.theory_rows()}
    assert rows["post, untrained"] == ["4.0", "1.2", "–", "0.070", "0.60", "0.90"]
    # seed 0 from the end of its training, seed 1 from the part itself, whose radius is missing
    assert rows["pre, UPG, penalty"] == ["2.0 / 4.0", "1.2 / 1.2", "0.80 / –", "0.070", "0.60 / 0.60", "0.90 / 0.90"]
    # of seed 0 no point of rest was found
    assert rows["post, every step"] == ["– / 4.0", "– / 1.2", "– / –", "0.070", "– / 0.60", "– / 0.90"]
    assert not any("one step" in name for name in rows)


def test_the_range_of_J_at_rest_counts_every_network_that_rests():
    rows = [
        row | {"radius": 1.5 if row["norm"] == "pre" else 0.5} if "radius" in row else row for row in MEASURED["theory"]
    ]
    named = Text(MEASURED | {"theory": rows}).theory_values()
    # 13 rows of two seeds each; of the two that record every step seed 0 does not rest
    assert (named["text_rest"], named["text_beyond"], named["text_radius_most"]) == ("24", "7", "1.5")
    assert (named["text_fresh_norm"], named["text_fresh_radius"], named["text_norms"]) == ("4.0", "1.00", "2.0 to 4.0")
    assert (named["text_jfb_cosines"], named["text_upg_low"], named["text_criterion"]) == (
        "0.60 to 0.60",
        "0.90",
        "0.070 to 0.070",
    )


def test_rules_are_compared_with_the_exact_one_of_their_order_and_seed():
    measured = {**MEASURED, "characters": [dict(row) for row in MEASURED["characters"]]}
    for row in measured["characters"]:
        row["test"] += 0.1 * LN2 if row["rule"] == "JFB" and row["norm"] == "pre" else 0
    text = Text(measured)
    assert text.behind("JFB") == pytest.approx([0, 0, 0.1, 0.1])
    named = text.rule_values()
    assert (named["text_jfb_behind"], named["text_upg_behind"]) == ("0.05", "0.00 to 0.00")
    # the runs have 0.002, and 0.004 was better by a tenth of a bit in the short ones
    assert named["text_jfb_rate"] == "0.10"
    # as many updates as the others in these rows, at half the time of the exact rule
    assert (named["text_longer_time"], named["text_failed"]) == ("0.5", "2.00 and 2.10")
    assert float(named["text_at_13"]) == pytest.approx(2 + 1 / 13 / LN2, abs=0.01)


def test_numbers_of_the_sentences():
    named = TEXT.values()
    assert (named["ahead_moved"], named["ahead_most"]) == ("0.0100", "1.20")
    assert named["text_adjoint"] == "0.60"
    assert (named["word_results"], named["word_weights"]) == ("JFB 300", "900,000")
    assert TEXT.block_values() == {"text_own": "3.0", "text_others": "0.50"}
    assert TEXT.bits_at("post", "JFB")[13] == pytest.approx(2 + 1 / 13 / LN2)


def test_the_figures_are_those_of_the_record():
    stairs, steps = TEXT.staircase(), TEXT.through_steps()
    assert [label.get_text() for label in stairs.axes[0].get_xticklabels()] == ["a", "¶"]
    shades = np.ma.masked_invalid(np.asarray(stairs.axes[0].images[0].get_array(), dtype=float))
    assert shades.count() == 3, "nothing is drawn above the diagonal"
    drawn = {line.get_label(): np.asarray(line.get_ydata()) for line in steps.axes[0].lines}
    assert drawn["UPG"][2] == pytest.approx(2 + 1 / 13 / LN2)
    assert "26" in TEXT.staircase_in_words()
    assert "after 52" in TEXT.through_steps_in_words()
    for figure in (stairs, steps):
        plt.close(figure)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_blocks_tell_the_radius_of_what_looks_back_only(norm):
    causal, both = (text_record.spectrum(norm, 0, causal=each) for each in (True, False))
    assert causal.ahead == 0.0 < both.ahead
    assert causal.gap < 1e-8 < both.gap
    assert causal.over > 1
