"""What one recorded step learns of a labyrinth on grids of 8 by 8, and how far it goes on; writes book/timings/labyrinth.json.

    python tests/benchmarks/measure_labyrinth.py [PART …] [--seeds SEED …] [--out FILE]

Parts: `sizes` (three seeds on grids of 8 to 96 cells a side; writes book/records/labyrinth.safetensors too), `others`
(ten steps, the input that does not enter R), `convolution` (in place of the maximum) and `changes` (a wall more or less, from the
old equilibrium and from zero). What the file has of other parts and seeds stays. Chapter 13 reads it.
"""

import time

import torch
from shared import parser, write, write_network, written
from torch import nn

from jfb_tutorial.gradients import Unrolled
from jfb_tutorial.pages import labyrinth

SEEDS = range(3)
SIZES = {8: 200, 12: 100, 24: 100, 48: 100, 96: 4}
"""Grids of each size, new ones for each network, which no choice was made on."""
BATCH = 4
"""Grids at once: those of a batch go on until the last of them is at rest."""


def tried(network, size: int, count: int, *, tol: float = 1e-4, start=None, seed: int = 7000) -> dict:
    """Grids that are right in every cell, cells that are right, steps, and how far the water goes."""
    generator = torch.Generator().manual_seed(seed + size)
    row: dict = {"size": size, "grids": count, "right": 0, "cells_right": 0, "converged": 0}
    steps, far = [], []
    for _ in range(0, count, BATCH):
        d, y = labyrinth.grids(min(BATCH, count), size, generator)
        far += labyrinth.flood(d)[1].tolist()
        with torch.no_grad(), network.using(solver=labyrinth.solver(size, tol)):
            logits = network(d, None if start is None else start(network, d))
            if not isinstance(network.gradient, Unrolled):
                steps += network.last.steps.tolist()
                row["converged"] += int(network.last.converged.sum())
        row["right"] += int(labyrinth.right(logits, y).sum())
        row["cells_right"] += int(((logits > 0) == (y > 0.5)).sum())
    return row | {"farthest": far} | ({"steps": steps} if steps else {})


_trained: dict[int, tuple] = {}


def trained(seed: int):
    if seed not in _trained:
        network, begin = labyrinth.network(seed), time.process_time()
        losses = labyrinth.train(network, seed)
        _trained[seed] = network, losses, time.process_time() - begin
    return _trained[seed]


def sizes(seed: int):
    network, losses, seconds = trained(seed)
    if seed == 0:  # this one is carried by the page
        write_network("labyrinth", network, "tests/benchmarks/measure_labyrinth.py")
    for size, count in SIZES.items():
        yield {"seed": seed, "loss": losses[-1], "seconds": seconds} | tried(
            network, size, count, seed=10_000 * (seed + 1)
        )


class Convolution(nn.Module):
    """R(u, q) = tanh(W₂ relu(conv [u, q])): a weighted sum of the cells around in place of their largest value."""

    def __init__(self, channels: int = labyrinth.CHANNELS) -> None:
        super().__init__()
        self.one = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
        self.two = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, u, q):
        return torch.tanh(self.two(torch.relu(self.one(torch.cat([u, q], dim=1)))))


class Deaf(labyrinth.Step):
    """A step that does not hear the input."""

    def forward(self, u, q):
        return super().forward(u, torch.zeros_like(q))


def of_kind(name: str, seed: int, network, *, updates: int = labyrinth.UPDATES, **start):
    losses = labyrinth.train(network, seed, updates=updates, **start)
    for size in (12, 24):
        row = {"kind": name, "updates": updates, "seed": seed, "loss": sum(losses[-10:]) / 10}
        yield row | tried(network, size, 40, **start)


def others(seed: int):
    def begin(network, d):
        with torch.no_grad():
            return network.Q(d)

    yield from of_kind("ten steps", seed, labyrinth.network(seed, gradient=Unrolled(10)))
    torch.manual_seed(seed)
    yield from of_kind("deaf", seed, labyrinth.network(seed, R=Deaf()), start=begin)


def convolution(seed: int):
    """With three times the updates, since it learns more slowly."""
    torch.manual_seed(seed)
    yield from of_kind("convolution", seed, labyrinth.network(seed, R=Convolution()), updates=3 * labyrinth.UPDATES)


def changed(d: torch.Tensor, generator: torch.Generator, *, built: bool, least: int = 20) -> torch.Tensor | None:
    """A wall more that cuts off at least so many cells, or a wall less that lets the water reach as many more; None if there is none."""
    y, _ = labyrinth.flood(d)
    free = (y - d[:, 1:] if built else d[:, :1]).flatten().nonzero().flatten()
    for cell in free[torch.randperm(len(free), generator=generator)].tolist():
        new = d.clone()
        new[0, 0].view(-1)[cell] = float(built)
        if abs(int(labyrinth.flood(new)[0].sum() - y.sum())) > least:
            return new
    return None


def changes(seed: int):
    network = trained(seed)[0]
    for built in (False, True):
        generator = torch.Generator().manual_seed(8000)
        row: dict = {"seed": seed, "built": built, "grids": 0, "cold_right": 0, "warm_right": 0, "converged": 0}
        row |= {"cold_steps": [], "warm_steps": [], "cut_off": 0, "still_wet": 0, "apart": []}
        while row["grids"] < 10:
            d, y = labyrinth.grids(1, 24, generator)
            new = changed(d, generator, built=built)
            if new is None:
                continue
            now, _ = labyrinth.flood(new)
            with torch.no_grad(), network.using(solver=labyrinth.solver(24)):
                old = network.solve(d).u
                found = {"cold": network.solve(new), "warm": network.solve(new, old)}
                for name, solution in found.items():
                    row[f"{name}_right"] += int(labyrinth.right(network.S(solution.u), now))
                    row[f"{name}_steps"].append(int(solution.steps))
                warm = network.S(found["warm"].u) > 0
            row["converged"] += all(bool(solution.converged) for solution in found.values())
            # what the new wall itself stands on is no cell that the water might stay in
            lost = (y > now) & (new[:, :1] == 0)
            row["cut_off"] += int(lost.sum())
            row["still_wet"] += int((warm & lost).sum())
            row["apart"].append(float((found["cold"].u - found["warm"].u).norm() / found["cold"].u.norm()))
            row["grids"] += 1
        yield row


PARTS = {f.__name__: f for f in (sizes, others, convolution, changes)}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("parts", nargs="*", help="which; all without")
    options.add_argument("--seeds", nargs="+", type=int, help="which; all without")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    for part in arguments.parts or PARTS:
        for seed in arguments.seeds or SEEDS:
            new = []
            for row in PARTS[part](seed):
                new.append(row)
                print(part, {key: value for key, value in row.items() if type(value) is not list}, flush=True)
            results = written(arguments.out, "labyrinth")
            old = [row for row in results.get(part, []) if row["seed"] != seed]
            config = {"threads": 1, "dtype": "float32", "updates": labyrinth.UPDATES, "size": labyrinth.SIZE}
            rows = sorted(old + new, key=lambda row: row["seed"])
            write(arguments.out, "labyrinth", config, results | {part: rows})


if __name__ == "__main__":
    main()
