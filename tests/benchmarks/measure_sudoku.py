"""What one recorded step learns of Sudoku of six by six cells, beside other rules; writes book/timings/sudoku.json.

    python tests/benchmarks/measure_sudoku.py [PART …] [--out FILE]

Parts: `puzzles` (how many of each degree of hardness two simple rules solve), `costs` (time of an update), `rules` (ways to train,
three seeds, for equal numbers of updates and some for equal processor time, tried with more steps and on harder puzzles; writes
book/records/sudoku.safetensors too), `swing` (the seed with which UPG fails, iterated with damping), `network` (the recorded network:
puzzles of all degrees, ones with several solutions and with none) and `training` (radius, norm and cosines through training). What
the file has of other parts stays, and of `rules` the runs that are there already. Chapter 14 reads it.
"""

import argparse
import copy
import itertools
import random
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from shared import BOOK, parser, write, write_network, written

from jfb_tutorial import theory
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, Unrolled, UnrolledPhantom
from jfb_tutorial.pages import instances, sudoku
from jfb_tutorial.pages.instances import cosine
from jfb_tutorial.solvers import FixedPointIteration

SEEDS = range(3)
REST = 1e-4
AT = (8, 16, 32, 64, 128)
BINS = (1e-1, 1e-2, 1e-3, 1e-4)
NETWORK = BOOK / "records" / "sudoku.safetensors"

_pools: dict = {}


def pool(count: int, givens: int, seed: int):
    """Training puzzles have seed 1, those that choices are made on seed 2, test puzzles seed 3."""
    if (count, givens, seed) not in _pools:
        _pools[count, givens, seed] = sudoku.puzzles(count, givens, seed)
    return _pools[count, givens, seed]


def followed(network, given, solved, at=AT) -> dict:
    """Puzzles right in every cell after so many steps, and the residuals then."""
    right: list[list[bool]] = [[] for _ in at]
    cells: list[list[int]] = [[] for _ in at]
    residuals: list[list[float]] = [[] for _ in at]
    with torch.no_grad():
        for part, truth in zip(given.split(50), solved.split(50), strict=True):
            T = network.operator(sudoku.one_hot(part))
            u = T.zeros()
            for step in range(1, at[-1] + 1):
                u, old = T(u), u
                if step in at:
                    k, logits = at.index(step), network.S(u)
                    right[k] += sudoku.right(logits, truth).tolist()
                    cells[k].append(int((logits.argmax(dim=1) + 1 == truth).sum()))
                    residuals[k] += ((u - old).flatten(1).norm(dim=1) / u.flatten(1).norm(dim=1)).tolist()
    edges = [float("inf"), *BINS, 0.0]
    binned = [
        [
            [
                sum(lo < r <= hi for r in residuals[k]),
                sum(ok and lo < r <= hi for r, ok in zip(residuals[k], right[k], strict=True)),
            ]
            for hi, lo in itertools.pairwise(edges)
        ]
        for k in range(len(at))
    ]
    return {
        "puzzles": len(given),
        "at": list(at),
        "right": [sum(r) for r in right],
        "cells": [sum(c) for c in cells],
        "residual": [sorted(r)[len(r) // 2] for r in residuals],
        # of each range of residuals, from above 0.1 to below 0.0001: puzzles, and how many of them are right
        "by_residual": binned,
    }


RULES: dict[str, dict[str, Any]] = {
    "JFB": {"gradient": JFB()},
    "UPG, k = 5": {"gradient": UnrolledPhantom(5, 0.5)},
    "every step recorded": {"gradient": Unrolled(sudoku.STEPS + 1)},
    "segments": {"gradient": JFB(), "steps": 3, "segments": 8},
    "JFB, 8 steps": {"gradient": JFB(), "steps": 7},
    "JFB, 64 steps": {"gradient": JFB(), "steps": 63},
    "UPG, damped": {"gradient": UnrolledPhantom(5, 0.5), "damping": 0.25},
}
"""The solver's steps, 32 where nothing is said; those recorded come on top. Segments: three steps and one recorded, eight times
over for a batch, with an update each."""


TIMED = ("every step recorded", "segments", "JFB, 8 steps")
"""What is trained a second time, for as long as JFB's updates take; that of the phantom gradient is nearly the same."""


def untrained(seed: int, how: dict):
    return sudoku.network(seed, **{key: value for key, value in how.items() if key != "segments"})


def trained(seed: int, how: dict, updates: int) -> tuple:
    """The network, and what there is to say of its training."""
    network = untrained(seed, how)
    residuals: list[list[float]] = []
    solve = network.solver

    def remembered(T, start):
        found = solve(T, start)
        residuals.append((found.residual / found.u.flatten(1).norm(dim=1)).tolist())
        return found

    network.solver = remembered
    begin = time.process_time()
    losses = sudoku.train(
        network, seed, *pool(sudoku.POOL, sudoku.GIVENS, 1), updates=updates, segments=how.get("segments", 1)
    )
    row: dict = {"updates": updates, "seconds": time.process_time() - begin, "loss": sum(losses[-40:]) / 40}
    network.solver = solve
    middle = lambda rows: statistics.median(r for row in rows for r in row) if rows else None  # noqa: E731
    # how far from rest the state was at which the recorded step was taken: of the last forty updates, and of every ten
    row["residual_in_training"] = middle(residuals[-40:])
    row["curve"] = [[sum(losses[k : k + 10]) / 10, middle(residuals[k : k + 10])] for k in range(0, updates, 10)]
    return network, row


def costs(keep) -> None:
    """Processor time of an update: the shortest of five, the ways in turn, so that what else the machine does falls on all."""
    pairs, seconds = pool(sudoku.BATCH, sudoku.GIVENS, 4), {name: list[float]() for name in RULES}
    for _ in range(5):
        for name, how in RULES.items():
            net = untrained(0, how)
            begin = time.process_time()
            sudoku.train(net, 0, *pairs, updates=4, segments=how.get("segments", 1))
            seconds[name].append((time.process_time() - begin) / 4)
    keep([{"rule": name, "seconds": min(found)} for name, found in seconds.items()])


def rules(keep) -> None:
    """Each way for as many updates as JFB has, and then for as many as take JFB's processor time; needs `costs`."""
    cost = {row["rule"]: row["seconds"] for row in keep.rows("costs")}
    for budget, seed, name in itertools.product(("updates", "time"), keep.arguments.seeds, keep.arguments.rules):
        done = {(row["rule"], row["seed"], row["budget"]) for row in keep.rows()}
        if (name, seed, budget) in done or (budget == "time" and name not in TIMED):
            continue
        updates = sudoku.UPDATES if budget == "updates" else round(sudoku.UPDATES * cost["JFB"] / cost[name])
        network, row = trained(seed, RULES[name], updates)
        row = {"rule": name, "seed": seed, "budget": budget} | row
        for givens in (18, 14):
            row[str(givens)] = followed(network, *pool(100, givens, 3))
        if (name, seed, budget) == ("UPG, k = 5", 0, "updates"):
            write_network("sudoku", network, "tests/benchmarks/measure_sudoku.py")
        keep([*keep.rows(), row])
        said = {
            key: row[key] for key in ("rule", "seed", "budget", "updates", "seconds", "loss", "residual_in_training")
        }
        print(said, row["18"]["right"], row["14"]["right"], flush=True)


def swing(keep) -> None:
    """The seed with which UPG fails, its network iterated as in training, and damped as the recorded steps are."""
    network, row = trained(2, RULES["UPG, k = 5"], sudoku.UPDATES)
    row = {"seed": 2, "residual_in_training": row["residual_in_training"]}
    for name, damping in (("plain", 0.0), ("damped", 0.5)):
        network.R.damping = damping
        row[name] = followed(network, *pool(100, 18, 3))
    keep([row])
    print(row)


def gradients(network, rule, d, y, solver) -> torch.Tensor:
    """The gradient by a rule, of the weights of Q and R."""
    with network.using(solver=solver):
        return instances.gradient_of(network, rule, d, y, parts="QR")


def probe(network, loss: float, update: int) -> dict:
    network = copy.deepcopy(network).double()
    given, solved = (part[:8] for part in pool(100, sudoku.GIVENS, 2))
    d, y = sudoku.one_hot(given).double(), solved - 1
    row: dict = {"update": update, "loss": loss if loss == loss else None}
    one, whole = (gradients(network, rule, d, y, network.solver) for rule in (JFB(), Unrolled(sudoku.STEPS + 1)))
    row["cosine_recorded"] = cosine(one, whole)
    row["residual"] = float((network.solve(d).residual / network.last.u.flatten(1).norm(dim=1)).median())
    rest = FixedPointIteration(tol=1e-8, max_steps=600)
    with network.using(solver=rest):
        found = network.solve(d)
    calm = found.converged
    row |= {"puzzles": len(d), "at_rest": int(calm.sum())}
    if calm.any():
        exact = ImplicitDifferentiation("gmres", tol=1e-6, max_steps=300, on_failure="warn")
        of = {"cosine": JFB(), "cosine_upg": UnrolledPhantom(5, 0.5)}
        true = gradients(network, exact, d[calm], y[calm], rest)
        row |= {key: cosine(gradients(network, rule, d[calm], y[calm], rest), true) for key, rule in of.items()}
    T, u = network.operator(d[:1]), found.u[:1]
    row |= {"settled": bool(calm[0]), "radius": theory.spectral_radius(T, u), "norm": theory.contraction_factor(T, u)}
    return row


def training(keep) -> None:
    rows: list[dict] = []
    at = {0, 25, 50, 100, 150, 200}
    for seed in keep.arguments.seeds:
        net = sudoku.network(seed)

        def watch(update, loss, network=net, seed=seed):
            if update in at:
                rows.append({"seed": seed} | probe(network, loss, update))
                keep(rows)
                print(rows[-1], flush=True)

        sudoku.train(net, seed, *pool(sudoku.POOL, sudoku.GIVENS, 1), watch=watch)


def spoiled(count: int, solutions: int, seed: int) -> torch.Tensor:
    """Puzzles whose givens do not clash at sight, but that have no solution (0), or several (2)."""
    shuffle, found = random.Random(seed), list[list[int]]()
    while len(found) < count:
        grid, _ = sudoku.puzzle(sudoku.GIVENS, shuffle)
        cell = shuffle.choice([cell for cell in range(36) if grid[cell]])
        seen = {grid[peer] for peer in sudoku.PEERS[cell]}
        others = [digit for digit in range(1, 7) if digit != grid[cell] and digit not in seen]
        if solutions == 0 and not others:
            continue
        grid[cell] = shuffle.choice(others) if solutions == 0 else 0
        if len(sudoku.solutions(grid)) == solutions:
            found.append(grid)
    return torch.tensor(found).reshape(-1, 6, 6)


def valid(grids: torch.Tensor, given: torch.Tensor) -> int:
    """How many full grids break no rule and keep their givens."""
    count = 0
    for grid, kept in zip(grids.flatten(1).tolist(), given.flatten(1).tolist(), strict=True):
        whole = all({grid[cell] for cell in unit} == set(range(1, 7)) for unit in sudoku.UNITS)
        count += whole and all(k in (0, g) for g, k in zip(grid, kept, strict=True))
    return count


def network(keep) -> None:
    trained, rows = sudoku.recorded(NETWORK), []
    sets = {str(givens): pool(100, givens, 3)[0] for givens in (20, 18, 16, 14, 12, 11, 10)}
    sets |= {"two": spoiled(100, 2, 5), "none": spoiled(100, 0, 5)}
    solver = sudoku.solver(512, REST)
    for name, given in sets.items():
        with torch.no_grad():
            found = solver(trained.operator(sudoku.one_hot(given)), torch.zeros(len(given), 6, 6, 6, sudoku.CHANNELS))
            logits = trained.S(found.u)
            relative = found.residual / found.u.flatten(1).norm(dim=1)
        steps = sorted(found.steps[found.converged].tolist())
        grids = logits.argmax(dim=1) + 1
        rows.append(
            {
                "puzzles": name,
                "count": len(given),
                "rested": int(found.converged.sum()),
                "valid": valid(grids, given),
                "valid_rested": valid(grids[found.converged], given[found.converged]),
                "steps": steps[len(steps) // 2],
                "most": steps[-1],
                "residual": sorted(relative.tolist())[len(given) // 2],
                "sure": float(logits.softmax(dim=1).amax(dim=1).flatten(1).amin(dim=1).median()),
            }
        )
        keep(rows)
        print(rows[-1], flush=True)


def puzzles(keep) -> None:
    rows = []
    for givens in (20, 18, 16, 14, 12, 11, 10):
        given = pool(100, givens, 3)[0]
        easy = sum(sudoku.singles(grid) for grid in given.flatten(1).tolist())
        rows.append({"givens": givens, "puzzles": len(given), "singles": easy})
    keep(rows)


@dataclass(frozen=True)
class Keep:
    """Writes the rows of a part, beside what the file has of others."""

    arguments: argparse.Namespace
    part: str

    def __call__(self, rows: list) -> None:
        config = {"threads": 1, "dtype": "float32", "updates": sudoku.UPDATES, "givens": sudoku.GIVENS}
        # read anew: another part may be measured beside this one
        write(self.arguments.out, "sudoku", config, self._results() | {self.part: rows})

    def rows(self, part: str | None = None) -> list:
        return self._results().get(part or self.part, [])

    def _results(self) -> dict:
        return written(self.arguments.out, "sudoku")


PARTS = {f.__name__: f for f in (puzzles, costs, rules, swing, network, training)}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="of `rules`; all without")
    options.add_argument("--rules", nargs="+", default=list(RULES), help="of `rules`; all without")
    options.add_argument("parts", nargs="*", help="which; all without")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    for part in arguments.parts or PARTS:
        PARTS[part](Keep(arguments, part))


if __name__ == "__main__":
    main()
