"""What Jacobian regularisation does to the MNIST network; writes book/timings/penalty.json.

    python tests/benchmarks/measure_penalty.py [--out FILE]

The network of chapter 8 is trained from new weights on 10,000 images, one epoch of JFB with the penalty of `theory.jacobian_penalty`
at several strengths: the same images in the same order, and the same random rows, at every strength. Measured at
the end: accuracy on 2,000 training images that were held out and on the test images; ‖J‖, ρ and the penalty itself, means over test
images; the steps that the solver takes to a relative residual of 1e-4; and what R still adds to what Q gives. Needs MNIST in $JFB_DATA. Chapter 12 reads it.
"""

import copy
import time

import torch
from shared import parser, write
from torch.nn.functional import cross_entropy

from jfb_tutorial import architectures, theory
from jfb_tutorial.normalisation import reestimate
from jfb_tutorial.solvers import FixedPointIteration
from jfb_tutorial.training import data
from jfb_tutorial.training.evaluation import as_input, evaluate

STRENGTHS = (0, 1, 10, 100)
SEEDS = range(3)
IMAGES, HELD, BATCH, LR = 10_000, 2000, 100, 1e-3
LOOKED_AT = 5
"""Test images, one of each of the first classes, at which J is measured."""
TIGHT = FixedPointIteration(tol=1e-4, max_steps=200, relative=True)


def train(strength: float, seed: int, images: data.Images, *, every: int = 10) -> tuple:
    torch.manual_seed(seed)
    network = architectures.mnist(on_unconverged="ignore")
    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    rows, order = (torch.Generator().manual_seed(seed + 100 * k) for k in (1, 2))
    losses: list[dict] = []
    for batch in torch.randperm(len(images), generator=order).split(BATCH):
        x, y = as_input(images.images[batch], network), images.labels[batch]
        T, u = network.operator(x), network.solve(x).u
        loss = cross_entropy(network.S(T(u)), y)  # JFB, in one line
        penalty = theory.jacobian_penalty(T, u, generator=rows)
        optimizer.zero_grad()
        (loss + strength * penalty).backward()
        optimizer.step()
        losses.append({"loss": loss.item(), "penalty": penalty.item()})
    with torch.no_grad():
        reestimate(network, (as_input(images.images[k : k + BATCH], network) for k in range(0, 2000, BATCH)))
    blocks = [losses[k : k + every] for k in range(0, len(losses), every)]
    means = [{key: sum(each[key] for each in block) / len(block) for key in block[0]} for block in blocks]
    return network, means


def pull(seed: int, images: data.Images) -> dict:
    """Lengths of the two gradients by the weights of Q and R, before the first step: of the loss, by JFB, and of the penalty."""
    torch.manual_seed(seed)
    network = architectures.mnist(on_unconverged="ignore")
    x, y = as_input(images.images[:BATCH], network), images.labels[:BATCH]
    T, u = network.operator(x), network.solve(x).u
    weights = [*network.Q.parameters(), *network.R.parameters()]
    values = {
        "loss": cross_entropy(network.S(T(u)), y),
        "penalty": theory.jacobian_penalty(T, u, generator=torch.Generator().manual_seed(seed)),
    }
    row: dict = {"seed": seed}
    for name, value in values.items():
        parts = torch.autograd.grad(value, weights, retain_graph=True, materialize_grads=True)
        row[name] = torch.cat([part.flatten() for part in parts]).norm().item()
    return row


def look(network, held: data.Images, test: data.Images) -> dict:
    """At the end, in eval mode."""
    judged, final = (evaluate(network, each, solver=TIGHT) for each in (held, test))
    row: dict = {"held_out": judged.accuracy, "test": final.accuracy, "loss": final.loss}
    row |= {"steps": final.steps, "unconverged": final.unconverged}
    exact = copy.deepcopy(network).double().eval()
    exact.solver = FixedPointIteration(tol=1e-9, max_steps=2000)
    sizes = []
    for label in range(LOOKED_AT):
        x = as_input(test.images[(test.labels == label).nonzero()[0]], exact)
        T, u = exact.operator(x), exact.solve(x).u
        norm, radius = theory.contraction_factor(T, u, tol=1e-2), theory.spectral_radius(T, u, tol=1e-3)
        square = theory.jacobian_penalty(T, u, samples=10, generator=torch.Generator().manual_seed(label)).item()
        sizes.append((norm, radius, square))
    row["norm"], row["radius"], row["mean_square"] = (sum(each) / len(sizes) for each in zip(*sizes, strict=True))
    x = as_input(test.images[:: len(test) // 200], exact)
    with torch.no_grad():
        u, q, one = exact.solve(x).u, exact.Q(x), exact.operator(x)(torch.zeros_like(exact.Q(x)))
    # R sees q + u: how large is q beside u, and how far is one step from zero from where the iteration ends?
    row |= {"q_over_u": (q.norm() / u.norm()).item(), "one_step": ((one - u).norm() / u.norm()).item()}
    return row


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--strengths", nargs="*", type=float, default=STRENGTHS)
    options.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    everything, test = data.load("mnist"), data.load("mnist", "test")
    used, apart = data.hold_out(everything.labels, HELD)
    # the files of an image folder come class by class
    shuffled = torch.randperm(len(used), generator=torch.Generator().manual_seed(0))
    images, held = everything[used[shuffled[:IMAGES]]], everything[apart]
    config = {
        "threads": 1,
        "dtype": "float32",
        "images": IMAGES,
        "held_out": HELD,
        "batch": BATCH,
        "lr": LR,
    }
    found: list[dict] = []
    pulls = [pull(seed, images) for seed in SEEDS]
    print(pulls, flush=True)
    for seed in arguments.seeds:
        for strength in arguments.strengths:
            begin = time.process_time()
            network, losses = train(strength, seed, images)
            seconds = time.process_time() - begin
            row = {"strength": strength, "seed": seed} | look(network, held, test)
            found.append(row | {"training_seconds": seconds, "losses": losses})
            print({k: round(v, 4) for k, v in found[-1].items() if k != "losses"}, flush=True)
            write(arguments.out, "penalty", config, {"pulls": pulls, "runs": found})


if __name__ == "__main__":
    main()
