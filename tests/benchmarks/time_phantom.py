"""What the steps k of a phantom gradient cost, and the steps K of the solver; writes book/timings/phantom.json.

    python tests/benchmarks/time_phantom.py [--out FILE]

Two parts, on MNIST's network at the weights of book/records/mnist.safetensors, with training images (in $JFB_DATA):

- `k`: seconds of the forward and of the backward pass, and bytes that are kept between them and in use at most, for UPG and NPG of
  1 to 15 steps and for the exact rule;
- `K`: the same for JFB, UPG and the exact rule as the tolerance of both solves falls, with the steps that it asks for;

and a third, `multiscale`, on the phantom-gradient paper's network at its own weights, where solver and exact rule take as many steps as
they are given. All steps of a part are taken in turns; the median over the rounds is kept. The parameters' gradients are there
from the start, so that no memory is for them. `make timings` runs it; chapter 11 reads it.
"""

import statistics
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from shared import BOOK, parser, write
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jfb_tutorial import architectures, bench
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, NeumannSeries, UnrolledPhantom, tally
from jfb_tutorial.network import ImplicitNetwork
from jfb_tutorial.solvers import Broyden, FixedPointIteration
from jfb_tutorial.timing import interleaved
from jfb_tutorial.training import checkpoints, data
from jfb_tutorial.training.evaluation import as_input

ROUNDS = 7
STEPS = (1, 2, 3, 5, 9, 15)
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


class InUse(TorchDispatchMode):
    """Counts the bytes of the tensors that were made inside and are still there: now, and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._there: set[int] = set()

    def __torch_dispatch__(self, func: Callable, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, Tensor):
                self._add(each.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        # a view shares its storage with what it is a view of
        name, size = storage._cdata, storage.nbytes()
        if name not in self._there:
            self._there.add(name)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._drop, name, size)

    def _drop(self, name: int, size: int) -> None:
        self._there.discard(name)
        self.now -= size


class Step:
    """A forward and a backward pass of a network under a rule, each timed."""

    def __init__(self, network: ImplicitNetwork, d: Tensor, y: Tensor, rule: Callable, solver: Callable) -> None:
        self.network, self.d, self.y, self.rule, self.solver = network, d, y, rule, solver
        self.forward: list[float] = []
        self.backward: list[float] = []

    def __call__(self) -> None:
        with self.network.using(solver=self.solver, gradient=self.rule):
            begin = time.perf_counter()
            loss = F.cross_entropy(self.network(self.d), self.y)
            between = time.perf_counter()
            loss.backward()
            self.forward.append(between - begin)
            self.backward.append(time.perf_counter() - between)

    def memory(self) -> dict[str, int]:
        """Bytes between the passes, and at most; steps of the solver and products of the backward pass."""
        with self.network.using(solver=self.solver, gradient=self.rule):
            with InUse() as used:
                loss = F.cross_entropy(self.network(self.d), self.y)
                kept, most_forward = used.now, used.most
                with tally() as count:
                    loss.backward()
            steps = int(self.network.solve(self.d).steps.max())
        return {
            "kept": kept,
            "most forward": most_forward,
            "most": used.most,
            "products": count.products,
            "steps": steps,
        }


def measured(steps: dict[Any, Step], rounds: int) -> dict[Any, dict]:
    """Median seconds of both passes of each step, taken in turns, and its memory."""
    interleaved(steps, rounds)
    return {
        name: {
            "forward": statistics.median(step.forward[1:]),  # the first round warms up
            "backward": statistics.median(step.backward[1:]),
        }
        | step.memory()
        for name, step in steps.items()
    }


def trained() -> tuple[ImplicitNetwork, Tensor, Tensor]:
    """MNIST's network as JFB trained it, in train mode, and a batch."""
    network = architectures.mnist(on_unconverged="ignore").train()
    file = BOOK / "records" / "mnist.safetensors"
    checkpoints.restore(network, checkpoints.load(file)[0], file.name)
    part = data.load("mnist")[:100]
    return network, as_input(part.images, network), part.labels


def exact(tol: float) -> ImplicitDifferentiation:
    return ImplicitDifferentiation(tol=tol, on_failure="warn")


def by_k() -> list[dict]:
    network, d, y = trained()
    solver = FixedPointIteration(tol=1e-4, max_steps=200, relative=True)
    rules: dict[Any, Callable] = {"exact": exact(1e-3)}
    for k in STEPS:
        rules |= {("UPG", k): UnrolledPhantom(k, 1.0), ("NPG", k): NeumannSeries(k, 1.0)}
    found = measured({name: Step(network, d, y, rule, solver) for name, rule in rules.items()}, ROUNDS)
    return [{"rule": bench.name(rules[name]), "name": name, **row} for name, row in found.items()]


def by_K() -> list[dict]:
    network, d, y = trained()
    steps: dict[Any, Step] = {}
    for tol in TOLERANCES:
        solver = FixedPointIteration(tol=tol, max_steps=500, relative=True)
        rules: dict[str, Callable] = {"JFB": JFB(), "UPG": UnrolledPhantom(5, 0.5), "exact": exact(tol)}
        for name, rule in rules.items():
            steps[name, tol] = Step(network, d, y, rule, solver)
    return [{"name": name, "tol": tol, **row} for (name, tol), row in measured(steps, ROUNDS).items()]


def multiscale() -> list[dict]:
    torch.manual_seed(0)
    network = architectures.multiscale(on_unconverged="ignore").train()
    d, y = torch.rand(16, 3, 32, 32), torch.arange(16) % 10
    steps: dict[Any, Step] = {}
    for most in (8, 20):
        solver = Broyden(tol=1e-3, max_steps=most, relative=True)
        rules: dict[str, Callable] = {
            "exact": ImplicitDifferentiation(tol=1e-3, max_steps=most, per_sample=True, on_failure="warn"),
            "UPG": UnrolledPhantom(5, 0.5),
            "NPG": NeumannSeries(5, 0.5),
            "JFB": JFB(),
        }
        steps |= {(name, most): Step(network, d, y, rule, solver) for name, rule in rules.items()}
    return [{"name": name, **row} for (name, _), row in measured(steps, 5).items()]


def main() -> None:
    path = parser(__doc__).parse_args().out
    torch.set_num_threads(1)
    result = {}
    for name, part in {"k": by_k, "K": by_K, "multiscale": multiscale}.items():
        result[name] = part()
        for row in result[name]:
            print(name, row, flush=True)
    config = {"rounds": ROUNDS, "threads": 1, "dtype": "float32", "batch": 100, "batch, multiscale": 16}
    write(path, "phantom", config, result)


if __name__ == "__main__":
    main()
