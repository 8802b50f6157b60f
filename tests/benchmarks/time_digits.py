"""Times of a training step of the digits network under every rule of chapter 07, interleaved; writes book/timings/digits.json.

    python tests/benchmarks/time_digits.py [--out FILE]

A step is the forward pass with its solve, the backward pass, and Adam's step, in train mode at batch 50, from the trained
weights in book/records. What is recorded is its time in units of the step with JFB. `make timings` runs it.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch
from torch.nn import functional as F

from jfb_tutorial import architectures, checkpoints, data
from jfb_tutorial.evaluation import as_input
from jfb_tutorial.experiments import SUITES
from jfb_tutorial.timing import interleaved, ratios

BOOK = Path(__file__).resolve().parents[2] / "book"
sys.path.insert(0, str(BOOK / "_ext"))
from execute import provenance  # noqa: E402

ROUNDS = 40
LABELS = ("jfb", "exact", "neumann-6", "neumann-11", "npg-5-0.5", "upg-5-0.5", "explicit", "jfb-anderson")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=BOOK / "timings" / "digits.json")
    path = parser.parse_args().out
    torch.set_num_threads(1)
    tensors, _ = checkpoints.load(BOOK / "records" / "digits.safetensors")
    images = data.load("digits")[:50]
    suite = {each.label: each.recipe for each in SUITES["digits"]}
    steps = {}
    for label in LABELS:
        recipe = suite[label]
        rule = {} if recipe.explicit else {"gradient": recipe.rule}
        network = architectures.build("digits", **recipe.arguments, **rule, solver=recipe.solver).train()
        checkpoints.restore(network, tensors, label)
        d = as_input(images.images, network)
        optimiser = torch.optim.Adam(network.parameters(), lr=0.0)

        def step(network=network, d=d, optimiser=optimiser):
            optimiser.zero_grad()
            F.cross_entropy(network(d), images.labels).backward()
            optimiser.step()

        steps[label] = step
    seconds = interleaved(steps, ROUNDS)
    result = {
        "milliseconds_with_jfb": 1e3 * statistics.median(seconds["jfb"]),
        "ratio_to_jfb": ratios(seconds, "jfb"),
    }
    config = {"rounds": ROUNDS, "threads": 1, "batch": 50, "dtype": "float32"}
    path.write_text(
        json.dumps({"config": config, **provenance(), "result": result}, indent=1, ensure_ascii=False) + "\n"
    )
    print(f"{result['milliseconds_with_jfb']:.1f} ms with JFB")
    print(", ".join(f"{label} {ratio:.2f}" for label, ratio in result["ratio_to_jfb"].items()))


if __name__ == "__main__":
    main()
