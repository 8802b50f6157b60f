"""What the rules learn in layers that solve a problem, and what the theory says there; writes book/timings/problems.json.

    python tests/benchmarks/measure_problems.py [PART …] [--out FILE]

Parts: `rates` (shortest paths: the rate and ε for each choice, on contexts of their own), `paths` (regret of each choice against
updates and processor time, three seeds), `flatter` (three of them at ε = 1), `jacobians` (norm, radius, criterion, cosines through training), `strengths` (deblurring:
the rate for each rule, on images of their own), `images` (PSNR of each rule against updates and processor time, three seeds) and
`patience` (of those networks, more steps and fewer than in training). What the file has of other parts stays. Chapter 14 reads it.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from shared import parser, write, written

from jfb_tutorial import theory
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, Unrolled, UnrolledPhantom
from jfb_tutorial.network import ImplicitNetwork
from jfb_tutorial.pages import instances, paths, restoration
from jfb_tutorial.pages.instances import cosine
from jfb_tutorial.solvers import FixedPointIteration

SEEDS = range(3)
EXACT = ImplicitDifferentiation("gmres", tol=1e-3, max_steps=200, on_failure="warn")
TIGHT = ImplicitDifferentiation("gmres", tol=1e-8, max_steps=2000, on_failure="warn")
"""What the loose one is compared with: in float64, with the fixed point to 1e-7."""

CHOICES: dict[str, dict[str, Any]] = {
    "JFB, the whole step": {},
    "JFB, passing by max": {"read": False},
    "JFB, passing by the projection": {"projection": False},
    "JFB, passing by both": {"read": False, "projection": False},
    "UPG, k = 5": {"gradient": UnrolledPhantom(5, 1.0)},
    "exact": {"gradient": EXACT},
    "exact, solved tightly": {"gradient": TIGHT},
    "50 recorded steps": {"gradient": Unrolled(50)},
}
"""How the shortest-path layer may be differentiated."""


def path_run(seed: int, choice: str, rate: float, epsilon: float, held_out, updates: int = paths.UPDATES) -> list[dict]:
    network = paths.network(seed, epsilon=epsilon, **CHOICES[choice])
    d, cells = paths.maps(500, 0)
    if CHOICES[choice].get("gradient") is TIGHT:
        network = paths.doubled(network)
        network.solver = FixedPointIteration(tol=1e-7, max_steps=20_000)
        d, cells, held_out = d.double(), cells.double(), tuple(each.double() for each in held_out)
    best = paths.shortest(paths.entering(cells))
    rows: list[dict] = []

    def watch(update: int, seconds: float) -> None:
        if update % 25 == 0:
            rows.append({"update": update, "seconds": seconds} | paths.regret(network, *held_out))

    paths.train(network, seed, d, best, updates=updates, rate=rate, watch=watch)
    return rows


def rates(keep) -> None:
    held_out, rows = paths.maps(1000, 1), []
    for choice in CHOICES:
        for epsilon, rate in ((0.1, 1e-3), (0.1, 3e-3), (0.1, 1e-2), (1.0, 3e-3)):
            last = path_run(100, choice, rate, epsilon, held_out, 200)[-1]
            rows.append({"choice": choice, "epsilon": epsilon, "rate": rate} | last)
            keep(rows)
            print(rows[-1], flush=True)


def found(name: str) -> list[dict]:
    return written(FILE, "problems")[name]


def path_runs(keep, epsilon: float = paths.EPSILON, choices=tuple(CHOICES)) -> None:
    held_out, rows = paths.maps(1000, 2), []
    tuned = found("rates")
    for seed in SEEDS:
        for choice in choices:
            # ε is the same for all, since it is the same layer; the rate is each one's own
            mine = [row for row in tuned if row["choice"] == choice and row["epsilon"] == epsilon]
            rate = min(mine, key=lambda row: row["regret"])["rate"]
            each = path_run(seed, choice, rate, epsilon, held_out)
            rows.append({"choice": choice, "seed": seed, "rate": rate, "epsilon": epsilon, "curve": each})
            keep(rows)
            print(choice, seed, rate, each[-1], flush=True)


def flatter(keep) -> None:
    path_runs(keep, 1.0, ("JFB, the whole step", "exact", "50 recorded steps"))


def direction(network: ImplicitNetwork, rule, d: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    return instances.gradient_of(network, rule, d, best, loss=lambda x, best: (x - best).square().sum(dim=1).mean())


def jacobians(keep) -> None:
    rows: list[dict] = []
    d, cells = (x.double() for x in paths.maps(32, 3))
    best = paths.shortest(paths.entering(cells))
    dense = ImplicitDifferentiation("gmres", tol=1e-8, max_steps=3000, on_failure="warn")
    for seed in SEEDS:
        network = paths.network(seed)
        train_d, train_cells = paths.maps(500, 0)

        def watch(update: int, seconds: float, network=network, seed=seed) -> None:
            if update not in (0, 10, 25, 50, 100, 200, 300):
                return
            mine = paths.doubled(network)
            mine.solver = FixedPointIteration(tol=1e-11, max_steps=20_000)
            solved = mine.solve(d)
            row: dict[str, Any] = {"seed": seed, "update": update, "converged": int(solved.converged.sum())}
            used = torch.relu(solved.u) > 0
            row["used"] = used.sum(dim=1).tolist()
            row["target used"] = [bool(all_in) for all_in in (used | (best == 0)).all(dim=1)]
            one, true = (direction(mine, rule, d, best) for rule in (JFB(), dense))
            row |= {"cosine": cosine(one, true), "ratio": float(one.norm() / true.norm())}
            row["each"] = []
            for i in range(10):
                T, u = mine.operator(d[i : i + 1]), solved.u[i : i + 1]
                one, true = (direction(mine, rule, d[i : i + 1], best[i : i + 1]) for rule in (JFB(), dense))
                each = {"target used": row["target used"][i], "cosine": cosine(one, true)}
                each |= {"norm": theory.contraction_factor(T, u), "radius": theory.spectral_radius(T, u)}
                if i < 3:
                    each["criterion"] = theory.criterion(mine, d[i : i + 1]).smallest
                row["each"].append(each)
            rows.append(row)
            keep(rows)
            print(rows[-1], flush=True)

        paths.train(network, seed, train_d, paths.shortest(paths.entering(train_cells)), watch=watch)


RULES: dict[str, Any] = {
    "JFB": JFB(),
    "UPG, k = 5": UnrolledPhantom(5, 1.0),
    "exact": ImplicitDifferentiation("gmres", tol=1e-6, max_steps=500, on_failure="warn"),
    "50 recorded steps": Unrolled(50),
}
STEPS = (10, 25, 50, 100, 200, 400, 1000)


def image_run(seed: int, rule: str, rate: float, images: str, updates: int) -> tuple[ImplicitNetwork, list[dict]]:
    network = restoration.network(seed, gradient=RULES[rule])
    shown, sharp = restoration.held_out(images)
    rows: list[dict] = []

    def watch(update: int, seconds: float) -> None:
        if update % 200 == 0:
            rows.append({"update": update, "seconds": seconds} | restoration.quality(network, shown, sharp))

    restoration.train(network, seed, updates=updates, rate=rate, watch=watch)
    return network, rows


def strengths(keep) -> None:
    rows = []
    for rule in RULES:
        for rate in (3e-4, 1e-3, 3e-3):
            last = image_run(100, rule, rate, "validation", 300)[1][-1]
            rows.append({"rule": rule, "rate": rate} | last)
            keep(rows)
            print(rows[-1], flush=True)


def images(keep) -> None:
    rows, more = [], []
    tuned = found("strengths")
    shown, sharp = restoration.held_out("test")
    for seed in SEEDS:
        for rule in RULES:
            rate = max((row for row in tuned if row["rule"] == rule), key=lambda row: row["psnr"])["rate"]
            network, curve = image_run(seed, rule, rate, "test", restoration.UPDATES)
            rows.append({"rule": rule, "seed": seed, "rate": rate, "curve": curve} | restoration.size(network))
            more.append({"rule": rule, "seed": seed, "steps": []})
            for steps in STEPS:
                fixed = FixedPointIteration(tol=1e-30, max_steps=steps, check_every=0)
                quality = restoration.quality(network, shown, sharp, solver=fixed)
                more[-1]["steps"].append({"most": steps} | quality)
            keep(rows)
            keep(more, "patience")
            print(rows[-1]["rule"], rows[-1]["curve"][-1], more[-1], flush=True)


PARTS = {
    "rates": rates,
    "paths": path_runs,
    "flatter": flatter,
    "jacobians": jacobians,
    "strengths": strengths,
    "images": images,
}
FILE: Path | None = None
"""Where the results are, by default in book/timings."""


def main() -> None:
    global FILE
    options = parser(__doc__)
    options.add_argument("parts", nargs="*", help="which; all without")
    arguments = options.parse_args()
    FILE = arguments.out
    torch.set_num_threads(1)
    # adjoints that GMRES does not reach, and states that are not at rest, are counted and not warned of
    warnings.simplefilter("ignore", RuntimeWarning)
    for part in arguments.parts or PARTS:

        def keep(rows: list, name=part) -> None:
            results = written(FILE, "problems")
            config = {"threads": 1, "dtype": "float32", "side": paths.SIDE, "alpha": paths.ALPHA}
            config |= {"updates of paths": paths.UPDATES, "updates of images": restoration.UPDATES}
            write(arguments.out, "problems", config, results | {name: rows})

        PARTS[part](keep)


if __name__ == "__main__":
    main()
