"""What chapter 15 shows of its record, and its random draws."""

import math

import pytest

from jfb_tutorial.pages import peer_record
from jfb_tutorial.pages.peer_record import Peers


def step(kind, alpha, **more):
    return {"kind": kind, "alpha": alpha, "rests": 2} | more


EACH = [
    {"norm": 0.5, "one_sided": 0.25, "radius": 0.4, "criterion": 0.9},
    {"norm": 1.5, "one_sided": 0.75} | {"radius": 0.6, "criterion": 0.7},
]
MEASURED = {
    "draws": [
        {"slope": 0.0, "samples": 1, "draws": 100, "plain": 0, "peaceman-rachford": 2},
        {"slope": 0.0, "samples": 1, "draws": 50, "plain": 0, "peaceman-rachford": 3},
        {"slope": 0.1, "samples": 1, "draws": 100, "plain": 7, "peaceman-rachford": 9},
        {"slope": 0.0, "samples": 2, "draws": 100, "plain": 4, "peaceman-rachford": 9},
    ],
    "runs": [
        {
            "system": "JFB",
            "seed": seed,
            "parameters": 54352,
            "test_accuracy": 0.97 + seed / 100,
            "seconds": 60,
            "evaluations": 9,
        }
        for seed in (1, 0)
    ]
    + [
        {
            "system": "explicit twin",
            "seed": 0,
            "parameters": 54352,
            "test_accuracy": 0.9,
            "seconds": 20,
            "evaluations": 1,
        }
    ]
    + [
        {
            "system": "neural ODE",
            "seed": 0,
            "parameters": 81450,
            "test_accuracy": 0.96,
            "seconds": 270,
            "evaluations": 20.4,
        }
    ],
    "costs": [
        {"name": "JFB", "seconds": 0.1, "bytes": 30_000_000},
        {"name": "explicit twin", "seconds": 0.1, "bytes": 20_000_000},
        {"name": "neural ODE", "seconds": 0.5, "bytes": 60_000_000},
        {"name": "neural ODE, adjoint", "seconds": 0.9, "bytes": 700_000},
        {"name": "neural ODE, fold 1, filters 92", "seconds": 8.04, "bytes": 1},
    ],
    "choose": [
        {"system": "neural ODE", "rate": 1e-3, "held_out": 0.9, "updates": 60},
        {"system": "neural ODE, adjoint", "rate": 1e-3, "held_out": 0.89, "updates": 60},
    ],
    "adjoint": [
        {
            "system": system,
            "when": "after",
            "steps": 400,
            "reference_off": 0.0012,
            "rows": [
                {"tol": tol, "way": way, "off": off, "computed_off": 2 * off, "computed_cosine": math.cos(angle)}
                for tol, off, angle in ((1e-1, 0.2, 0.5), (1e-3, 0.05, 0.1), (1e-5, 0.01, 0.1))
                for way in ("backpropagation", "adjoint", "adjoint, float32")
            ],
        }
        for system in ("neural ODE", "augmented neural ODE")
    ],
    "theory": [
        {
            "system": system,
            "when": when,
            "seed": 0,
            "W": {"norm": 0.4 if when == "before" else 0.85},
            "largest_alpha": 0.0083,
            "steps": [
                step("plain", 1.0, each=EACH, evaluations=64, cosine=0.7)
                if (system, when) == ("monotone, exact", "after")
                else step("plain", 1.0, rests=0),
                step("forward-backward", 0.5, each=EACH, cosine=0.8),
                step("peaceman-rachford", 1.0, each=EACH[:1], cosine=0.9),
                step("peaceman-rachford", 3.0, cosine=0.1),
            ],
        }
        for system in ("monotone, exact", "monotone, large W, exact")
        for when in ("before", "after")
    ],
}
PEERS = Peers(MEASURED)


def test_random_layers_are_counted_by_what_is_changed():
    assert (PEERS.drawn, PEERS.climbs("plain"), PEERS.climbs("peaceman-rachford")) == (150, 0, 5)
    assert (PEERS.climbs("plain", slope=0.1), PEERS.climbs("plain", samples=2)) == (7, 4)


def test_the_table_of_runs_has_what_was_trained():
    assert PEERS.run_rows() == [
        ["JFB, chapter 8's", "54,352", "97.5 ± 0.7", "99.4", "60", "9", "30"],
        ["its explicit twin", "54,352", "90.0 *", "99.4", "20", "1", "20"],
        ["neural ODE", "81,450", "96.0 *", "96.4", "270", "20", "60"],
    ]
    named = PEERS.run_values()
    assert (named["peers_jfb"], named["peers_low"], named["peers_ode_time"]) == ("97.5 ± 0.7", "96.0", "4.5")
    assert (named["cost_published"], named["cost_folded"]) == ("8.0", "0.50")
    assert (named["adjoint_updates"], named["adjoint_trial"], named["direct_trial"]) == ("60", "89.0", "90.0")


def test_the_gradients_of_the_ode_are_told_in_percent_and_degrees():
    assert PEERS.adjoint_rows("neural ODE", "after")[1] == ["0.001", "5.0 %", "10.0 %", "0.9950", "5.0 %"]
    named = PEERS.adjoint_values()
    assert (named["adjoint_off"], named["adjoint_fine"], named["adjoint_angle"]) == ("10.0", "2.0", "5.7")
    assert (named["adjoint_ode"], named["direct_ode"], named["adjoint_rough"]) == ("5.0", "5.0", "0.88")
    assert (named["adjoint_bytes"], named["direct_bytes"]) == ("0.7", "60")
    assert (named["adjoint_steps"], named["adjoint_reference"]) == ("400", "0.12")


def test_the_theory_says_where_a_step_does_not_rest():
    rows = PEERS.theory_rows()
    assert len(rows) == 12
    assert rows[0][0] == "as published, before: plain"
    assert rows[0][1:] == ["does not rest", "–", "–", "–", "–"]
    assert rows[1] == ["as published, before: forward–backward", "1.00", "0.50", "0.50", "0.80", "0.80"]
    assert rows[2][1:] == ["0.50", "0.25", "0.40", "0.90", "0.90"]  # α = 1 alone
    named = PEERS.theory_values()
    assert (named["w_before"], named["large_after"], named["large_alpha"]) == ("0.4", "0.8", "0.008")
    assert (named["w_radius"], named["w_norm"], named["w_steps"]) == ("0.50", "1.0", "64")


@pytest.mark.parametrize("seed", range(3))
def test_the_jacobian_of_a_path_is_triangular(seed):
    explicit, implicit = (peer_record.path_spectrum(seed, steps=8, implicit=each) for each in (False, True))
    assert explicit.radius == explicit.early == 0.0
    assert implicit.early == 0.0 < implicit.radius
    assert explicit.steps <= 9
    assert explicit.norm > 0.1
