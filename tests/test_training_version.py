"""Training gives today what it gave when `records.TRAINING_VERSION` was last raised: the losses of short runs, within rounding.

A failure means that the book's records are of other code than this. If that is meant, raise `TRAINING_VERSION`, write the new
losses with `python tests/test_training_version.py`, and make the records again (`make records`).
"""

import json
from pathlib import Path
from typing import Any

import pytest

from jfb_tutorial.training import records, train
from jfb_tutorial.training.recipes import recipe

EXPECTED = Path(__file__).parent / "data" / "training_version.json"
# float64 and a tight tolerance: where an iteration stops is then no matter of rounding
EXACT: dict[str, Any] = {"precision": "float64", "solver": "FixedPointIteration(tol=1e-9, max_steps=100)"}
SHORT: dict[str, Any] = {"epochs": 2, "images": 150, "reestimate": 150, "held_out": 50, "probe": 2}
AUGMENTED = {"flip": "alternate", "crop": 1, "cutout": 2, "erase": 0.5, "label_smoothing": 0.1}
RUNS: dict[str, dict[str, Any]] = {
    "jfb": {},
    "explicit": {"explicit": True, "solver": None},
    "exact": {"rule": "ImplicitDifferentiation(tol=1e-8)", "norm": "group"},
    "phantom": {"rule": "UnrolledPhantom(steps=3, damping=0.5)", "batch_norm": False, "gamma": 0.3},
    "neumann": {"rule": "NeumannSeries(terms=3)", "norm": "every-step"},
    "published": {"rule": "PublishedCG()", "norm": "rescaling", "batch_norm": False},
    "augmented": {"optimiser": "sgd", "lr": 0.02, "weight_decay": 1e-3, "decay": "weights", "average": 0.9} | AUGMENTED,
    "muon": {"optimiser": "muon", "lr": 0.02, "weight_decay": 1e-3, "decay": "weights", "channels_last": True},
    "cosine": {"optimiser": "adamw", "schedule": "cosine", "fill": "mean", "crop": 2, "flip": "random", "seed": 3},
}


def figures(name: str) -> dict[str, list[float]]:
    """What a run's record holds of losses: the columns of all epochs, and the test's."""
    made = train(recipe("digits", "smoke", **EXACT | SHORT | RUNS[name])).record
    columns = {key: made.curve(key) for key in ("loss", "validation_loss")}
    if not RUNS[name].get("explicit"):
        columns["gamma"] = made.curve("gamma")
    return columns | {"test_loss": [made["result"]["test_loss"]]}


@pytest.mark.parametrize("name", RUNS)
def test_training_gives_what_its_version_gave(name):
    expected = json.loads(EXPECTED.read_text())
    assert expected["version"] == records.TRAINING_VERSION, (
        "write the losses of the new version: see the top of this file"
    )
    found = figures(name)
    assert found.keys() == expected["runs"][name].keys()
    for key, values in expected["runs"][name].items():
        assert found[key] == pytest.approx(values, rel=2e-2 if key == "gamma" else 1e-6), key


if __name__ == "__main__":
    losses = {name: figures(name) for name in RUNS}
    EXPECTED.write_text(json.dumps({"version": records.TRAINING_VERSION, "runs": losses}, indent=1) + "\n")
