"""The JFB paper's networks for SVHN and CIFAR-10, in parts and as its code tests; writes book/timings/larger.json, a part at a time.

    python tests/benchmarks/measure_larger.py steps [--rounds N] [--out FILE]
    python tests/benchmarks/measure_larger.py parts [--rounds N] [--out FILE]
    python tests/benchmarks/measure_larger.py tested [--images N] [--out FILE]

`steps`: the time of whole training steps of 100 images on one core, at the weights of book/records, which they do not change: every
rule in turn on the same batch, the median over rounds of its time in JFB's. `parts`: what each part of a training step costs on one core, in milliseconds for a batch of 100 images in train mode, with
batch normalisation in R and without: the median over rounds, in which every part of every network comes once. How often a part
is needed, the records of chapter 09 say; how long a batch iterates, which waits for its slowest image, and how many products the
exact gradient takes, is counted in the networks of book/records. `tested`: the accuracy of these networks on one and the same test images in evaluation mode, in training mode, and,
for the one that was trained on augmented images, in training mode with the test images augmented likewise, as the code of the
paper does. Both need CIFAR-10 in $JFB_DATA.
"""

import statistics
import time
import warnings
from dataclasses import replace

import torch
from shared import BOOK, parser, repeated_step, write, written
from torch.nn import functional as F

from jfb_tutorial import architectures, theory
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, NeumannSeries, PublishedCG, Unrolled, tally
from jfb_tutorial.timing import interleaved, ratios
from jfb_tutorial.training import batches, checkpoints, data
from jfb_tutorial.training.evaluation import as_input, evaluate
from jfb_tutorial.training.recipes import Recipe

BATCH, DRAWS = 100, 3


class Parts:
    """A training step in its parts."""

    def __init__(self, name, batch_norm, images):
        torch.manual_seed(0)
        self.network = architectures.build(name, batch_norm=batch_norm).train().to(memory_format=torch.channels_last)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=0.0)
        self.d, self.labels = as_input(images.images, self.network), images.labels

    def __call__(self):
        """Milliseconds of each part."""
        network, clock, spent = self.network, [time.perf_counter()], {}

        def done(name):
            clock.append(time.perf_counter())
            spent[name] = 1e3 * (clock[-1] - clock[-2])

        self.optimiser.zero_grad()
        clock[:] = [time.perf_counter()]
        q = network.Q(self.d)
        done("Q")
        with torch.no_grad():
            u = network.R(q, q)
        done("R")
        loss = F.cross_entropy(network.S(network.R(u, q)), self.labels)
        done("last R, S")
        loss.backward()
        done("backward")
        self.optimiser.step()
        done("optimiser")
        apply, transposed = theory.jacobian_products(lambda u: network.R(u, q.detach()), u)
        # the first product of either kind records what the others use
        apply(transposed(u))
        clock.append(time.perf_counter())
        w = transposed(u)
        done("wJ")
        apply(w)
        done("Jx")
        return spent


RULES = {
    "cifar10-svhn": {
        "svhn-jfb": JFB(),
        "svhn-explicit": Unrolled(1),
        "svhn-neumann-6": NeumannSeries(6),
        "svhn-neumann-11": NeumannSeries(11),
        "svhn-jacobian-batch-norm": ImplicitDifferentiation(tol=1e-3),
    },
    "cifar10-svhn-published": {
        "svhn-jfb-rescaling": JFB(),
        "svhn-jacobian-published": PublishedCG(tol=1e-4, max_steps=200),
    },
    "cifar10-paper": {"jfb": JFB(), "jacobian-batch-norm": ImplicitDifferentiation(tol=1e-3)},
}
"""The runs whose steps are timed, by the network that they are timed in, and the rule of each."""


def training_step(name, rule, images):
    """A function that takes a training step of a rule each time it is called, with the next batch, and changes no weights of R."""
    network = checkpoints.load_network(BOOK / "records" / f"{name}.safetensors").train()
    network.to(memory_format=torch.channels_last)
    network.gradient, network.on_unconverged = rule, "ignore"
    return repeated_step(network, images, BATCH)


def steps(options):
    images = data.load("cifar10")[: 4 * BATCH]
    found = {}
    for name, rules in RULES.items():
        seconds = interleaved(
            {label: training_step(name, rule, images) for label, rule in rules.items()}, options.rounds
        )
        first = next(iter(rules))
        for label, ratio in ratios(seconds, first).items():
            found[label] = {"milliseconds": 1e3 * statistics.median(seconds[label]), "ratio": ratio, "to": first}
        print(name, {label: found[label] for label in rules}, flush=True)
    return {"steps": found}


def counts(name, images):
    """Evaluations of R that a batch makes, and products of the exact gradient, in a trained network."""
    network = checkpoints.load_network(BOOK / "records" / f"{name}.safetensors").train()
    evaluations, products = [], []
    # the published network meets no tolerance, so that there is no exact gradient to count
    rule = ImplicitDifferentiation(tol=1e-3, on_failure="warn" if name.endswith("published") else "raise")
    with network.using(gradient=rule, on_unconverged="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for begin in range(0, len(images), BATCH):
            part = images[begin : begin + BATCH]
            with tally() as count:
                F.cross_entropy(network(as_input(part.images, network)), part.labels).backward()
            evaluations.append(int(network.last.steps.max()))
            products.append(count.products)
    return {"network": name, "evaluations": statistics.mean(evaluations), "exact_products": statistics.mean(products)}


def parts(options):
    images = data.load("cifar10")[: 3 * BATCH]
    counted = [counts(name, images) for name in RULES]
    kinds = {(name, norm): Parts(name, norm, images[:BATCH]) for name in ("svhn", "cifar10") for norm in (True, False)}
    taken = {kind: [] for kind in kinds}
    for number in range(options.rounds + 1):
        for kind, step in kinds.items():
            spent = step()
            # round 0 warms up
            taken[kind] += [spent] if number else []
    rows = [
        {"network": name, "batch_norm": norm}
        | {part: statistics.median(each[part] for each in rounds) for part in rounds[0]}
        for (name, norm), rounds in taken.items()
    ]
    return {"parts": rows, "counts": counted}


def tested(options):
    found = []
    everything = data.load("cifar10", "test")
    chosen = torch.randperm(len(everything), generator=batches.generator(0))[: options.images]
    images = everything[chosen]
    for name in RULES:
        path = BOOK / "records" / f"{name}.safetensors"
        network = checkpoints.load_network(path)
        recipe = Recipe.from_json(checkpoints.load(path)[1]["recipe"])
        row = {"network": name, "images": len(images), "evaluation": evaluate(network, images).accuracy}
        torch.manual_seed(0)
        row["training"] = evaluate(network, images, training_mode=True).accuracy
        augmentation = recipe.augmentation
        if augmentation != batches.Augmentation():
            mean = batches.Batches(images, BATCH).mean
            row["augmented"] = []
            for number in range(DRAWS):
                draws = augmentation.draws(len(images), 0, number)
                seen = replace(images, images=augmentation(images.images, draws, mean))
                row["augmented"].append(evaluate(network, seen, training_mode=True).accuracy)
        print(row, flush=True)
        found.append(row)
    return {"tested": found}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("part", choices=("steps", "parts", "tested"))
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--images", type=int, default=2000)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    result = written(options.out, "larger") | {"steps": steps, "parts": parts, "tested": tested}[options.part](options)
    write(options.out, "larger", {"threads": 1, "batch": BATCH, "rounds": options.rounds, "dtype": "float32"}, result)


if __name__ == "__main__":
    main()
