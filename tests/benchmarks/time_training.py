"""Times of a training step under every rule of chapter 07 or 08, interleaved; writes book/timings/DATASET.json.

    python tests/benchmarks/time_training.py digits|mnist [--out FILE]

A step is the forward pass with its solve, the backward pass, and Adam's step, in train mode, at the weights that JFB left in
book/records (where R is scaled down, at those that such a run left), which it does not change. What is recorded is its time
in units of the step with JFB, the median over the rounds; in a round every rule takes one step, on the same batch.
`make timings` runs it.
"""

import statistics

import torch
from shared import BOOK, parser, repeated_step, write

from jfb_tutorial import architectures
from jfb_tutorial.timing import interleaved, ratios
from jfb_tutorial.training import checkpoints, data
from jfb_tutorial.training.experiments import read_suites

ROUNDS = 40
LABELS = {
    "digits": ("jfb", "exact", "neumann-6", "neumann-11", "npg-5-0.5", "upg-5-0.5", "explicit", "jfb-anderson"),
    "mnist": (
        *("jfb", "explicit", "jfb-appendix-e", "neumann-6", "neumann-11", "jacobian-batch-norm"),
        *("jfb-no-norm", "jacobian-published-free", "jacobian", "jfb-rescaling", "jacobian-published"),
    ),
}


def training_step(recipe, images):
    """A function that takes a training step of a recipe each time it is called, with the next batch."""
    rule = {} if recipe.explicit else {"gradient": recipe.rule}
    network = architectures.build(recipe.network, **recipe.arguments, **rule, solver=recipe.solver).train()
    kind = "" if recipe.batch_norm else "-published" if recipe.norm == "rescaling" else "-no-norm"
    file = BOOK / "records" / f"{recipe.dataset}{kind}.safetensors"
    checkpoints.restore(network, checkpoints.load(file)[0], file.name)
    return repeated_step(network, images, recipe.batch)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("dataset", choices=LABELS)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    images = data.load(options.dataset)
    recipes = {
        each.label: each.recipe for each in read_suites(BOOK / "runs.py")[options.dataset] if each.scale == "cpu"
    }
    seconds = interleaved({label: training_step(recipes[label], images) for label in LABELS[options.dataset]}, ROUNDS)
    result = {
        "milliseconds_with_jfb": 1e3 * statistics.median(seconds["jfb"]),
        "ratio_to_jfb": ratios(seconds, "jfb"),
    }
    config = {"rounds": ROUNDS, "threads": 1, "batch": recipes["jfb"].batch, "dtype": "float32"}
    write(options.out, options.dataset, config, result)
    print(f"{result['milliseconds_with_jfb']:.1f} ms with JFB")
    print(", ".join(f"{label} {ratio:.2f}" for label, ratio in result["ratio_to_jfb"].items()))


if __name__ == "__main__":
    main()
