"""Implicit graph networks by every rule, in ten folds, and what the theory says of them; writes book/timings/graphs.json.

    JFB_DATA=… python tests/benchmarks/measure_graphs.py [PART …] [--sets NAME …] [--smoke] [--out FILE]

Parts, with the processor time of one core, estimated from a few epochs on a machine that ran much else (less where it runs nothing else):
- `choose` (10 minutes): the learning rate for each set, with the exact gradient, on the held-out graphs of two folds of a seed of its own;
- `runs` (90 to 135 minutes, at most: PROTEINS 40, COX2 45, MUTAG 25, PTC_MR 25): each set, seed, fold and rule, written when it is done, and skipped when
  it is there; all of seed 0 first;
- `theory` (5 minutes): norms, radii, one-sided norms, the criterion, and the rules' cosines with the exact gradient, through training;
- `linear` (seconds): the equilibrium without relu against a dense linear solve.
What the file has of other parts stays. Chapter 16 reads it. The sets are looked for as `training/graph_sets.py` says.

The published protocol trains 200 epochs at 1e-3, halved after 50, in batches of 128, on nine tenths of the graphs, in ten folds. Here there
are fewer epochs in batches of 32, at a rate chosen for that, on eight tenths, since a tenth chooses the epoch; of PROTEINS the first five of
the ten folds. NCI1 (`--sets NCI1`) would take about three times what PROTEINS takes.
"""

import copy
import math
import time
import warnings
from typing import Any

import numpy as np
import torch
from shared import one_sided, parser, write, written
from torch.nn.functional import cross_entropy

from jfb_tutorial import theory
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, NeumannSeries, Unrolled, UnrolledPhantom
from jfb_tutorial.gradients._adjoint import tally
from jfb_tutorial.pages import graphs as pages
from jfb_tutorial.pages.instances import cosine
from jfb_tutorial.solvers import FixedPointIteration
from jfb_tutorial.theory.criterion import _smallest
from jfb_tutorial.training.graph_sets import GraphSet, load_graphs

RULES: dict[str, Any] = {
    "exact": pages.EXACT,
    "JFB": JFB(),
    "UPG 5, 0.5": UnrolledPhantom(5, 0.5),
    "UPG 5, 0.8": UnrolledPhantom(5, 0.8),
    "UPG 5, 1.0": UnrolledPhantom(5, 1.0),
    "NPG 5, 0.5": NeumannSeries(5, 0.5),
    "one step": Unrolled(1),
}
"""The last from zero, so that W is never used: the network without its equilibria, relu(Â U Ωᵀ) three times."""
EPOCHS = {"MUTAG": 60, "PTC_MR": 40, "COX2": 25, "PROTEINS": 20}
"""Of the published 200: what two hours of one core hold."""
FOLDS = 10
FOLDS_RUN = {"PROTEINS": 5}
"""Of the ten, the first so many; all of them without."""
BATCH = 32
"""Of the published 128: with fewer epochs, four times as many updates in each."""
RATES = (1e-3, 3e-3, 1e-2)
SEEDS = range(3)
TIGHT = ImplicitDifferentiation("neumann", tol=1e-10, max_steps=5000)
AT_REST = FixedPointIteration(tol=1e-11, max_steps=5000, relative=True)


class Options:
    """What `--smoke` makes smaller."""

    smoke = False
    sets: tuple[str, ...] = tuple(EPOCHS)


def epochs_of(name: str) -> int:
    return 2 if Options.smoke else EPOCHS.get(name, 15)


_sets: dict[str, GraphSet] = {}


def graphs_of(name: str) -> GraphSet:
    if name not in _sets:
        _sets[name] = load_graphs(name)
    return _sets[name]


def split(graphs: GraphSet, fold: pages.Fold, seed: int) -> tuple[list, list]:
    """The training batches, shuffled once as the published code does; and the held-out and the test graphs, one batch each."""
    shuffled = np.random.RandomState(seed).permutation(fold.train)
    shown = [shuffled[i : i + BATCH] for i in range(0, len(shuffled), BATCH)]
    made = pages.batches(graphs, [*shown, fold.held_out, fold.test])
    return made[:-2], made[-2:]


def held_out_loss(network: pages.IGNN, graphs: pages.Graphs, start: list) -> float:
    """In eval mode; `start` as for `pages.right`."""
    network.eval()
    with torch.no_grad():
        loss = cross_entropy(network(graphs, start or None), graphs.labels).item()
    network.train()
    start[:] = network.found
    return loss


def one_run(graphs: GraphSet, rule: str, seed: int, number: int, fold: pages.Fold, rate: float, epochs: int) -> dict:
    """One fold: the epoch of the smallest held-out loss, and the test at each epoch."""
    shown, (held_out, test) = split(graphs, fold, seed)
    torch.manual_seed(1000 * seed + number)
    network = pages.IGNN(graphs.features, graphs.classes, gradient=RULES[rule])
    starts: dict[str, list] = {"held_out": [], "test": []}
    kept: dict[str, list] = {"held_out": [], "test": [], "loss": [], "steps": []}
    spent = [0.0]

    def watch(epoch: int, loss: float, seconds: float) -> None:
        kept["loss"].append(loss)
        kept["steps"].append([int(s.steps.max()) for s in network.last if s is not None])
        kept["held_out"].append(held_out_loss(network, held_out, starts["held_out"]))
        kept["test"].append(pages.right(network, test, starts["test"]))
        spent[0] = seconds

    with tally() as count:
        pages.train(network, shown, epochs=epochs, rate=rate, watch=watch)
    chosen = int(np.argmin(kept["held_out"]))
    return {
        "set": graphs.name,
        "rule": rule,
        "seed": seed,
        "fold": number,
        "rate": rate,
        "epochs": epochs,
        "seconds": round(spent[0], 3),
        "products": count.products,
        "loss": round(kept["loss"][-1], 4),
        "steps": kept["steps"][-1],
        "held_out_loss": round(kept["held_out"][chosen], 4),
        "chosen": chosen + 1,
        "right": kept["test"][chosen],
        "tested": len(test),
        "curve": " ".join(map(str, kept["test"])),
    }


def choose(keep, rows: list) -> None:
    done = {(row["set"], row["rate"], row["fold"]) for row in rows}
    for name in Options.sets:
        graphs = graphs_of(name)
        for number, fold in list(enumerate(pages.folds(graphs.labels, 100, FOLDS)))[: 1 if Options.smoke else 2]:
            for rate in RATES:
                if (name, rate, number) in done:
                    continue
                row = one_run(graphs, "exact", 100, number, fold, rate, epochs_of(name))
                # what is tested plays no part in a choice, and is not kept
                rows.append(
                    {
                        key: row[key]
                        for key in ("set", "fold", "rate", "epochs", "seconds", "loss", "held_out_loss", "chosen")
                    }
                )
                keep(rows)
                print(rows[-1], flush=True)


def chosen_rate(name: str) -> float:
    """The rate of the smallest mean held-out loss."""
    rows = [row for row in written(FILE, "graphs").get("choose", []) if row["set"] == name]
    if not rows:
        raise SystemExit(f"measure_graphs: no rate is chosen for {name}; run the part `choose` first")
    rates = sorted({row["rate"] for row in rows})
    return min(rates, key=lambda rate: float(np.mean([row["held_out_loss"] for row in rows if row["rate"] == rate])))


def runs(keep, rows: list) -> None:
    done = {(row["set"], row["rule"], row["seed"], row["fold"]) for row in rows}
    seeds = SEEDS[:1] if Options.smoke else SEEDS
    # by seed first: what is there after a while is a whole table of fewer seeds
    for seed in seeds:
        for name in Options.sets:
            graphs, rate = graphs_of(name), chosen_rate(name)
            folds = 1 if Options.smoke else FOLDS_RUN.get(name, FOLDS)
            for number, fold in list(enumerate(pages.folds(graphs.labels, seed, FOLDS)))[:folds]:
                for rule in RULES:
                    if (name, rule, seed, number) in done:
                        continue
                    rows.append(one_run(graphs, rule, seed, number, fold, rate, epochs_of(name)))
                    keep(rows)
            print(seed, name, rows[-1], flush=True)


def flat_gradient(network: pages.IGNN, rule, output: torch.Tensor | None, graphs: pages.Graphs) -> torch.Tensor:
    """The gradient of the loss by a rule; or with an `output`, `(graphs, classes)`, that of ⟨output, logits⟩."""
    own, network.gradient = network.gradient, rule
    logits = network(graphs)
    value = cross_entropy(logits, graphs.labels) if output is None else (logits * output).sum()
    # a W that the rule does not reach has the gradient 0
    found = torch.autograd.grad(value, list(network.parameters()), allow_unused=True, materialize_grads=True)
    network.gradient = own
    return torch.cat([part.flatten() for part in found])


def criterion_of_all(network: pages.IGNN, graphs: pages.Graphs) -> float:
    """The criterion of chapter 12 with JFB in every equilibrium: of one it is `theory.criterion`, which knows one equilibrium alone."""
    basis = torch.eye(graphs.labels.numel() * network.head.out.out_features, dtype=torch.float64)
    outputs = [row.reshape(len(graphs), -1) for row in basis]
    exact, one = (torch.stack([flat_gradient(network, rule, a, graphs) for a in outputs]) for rule in (TIGHT, JFB()))
    return _smallest(exact, one)


def probe(network: pages.IGNN, graphs: pages.Graphs) -> dict:
    """Measures of a float64 copy, at rest; `graphs` in float64."""
    network = copy.deepcopy(network).double().eval()
    network.solver, network.gradient = AT_REST, TIGHT
    rows, x = [], graphs.x
    equilibria = network.equilibria(graphs)
    for i, equilibrium in enumerate(equilibria):
        with torch.no_grad():
            u = equilibrium.solve(x).u
        T, W = equilibrium.operator(x), network.steps[i].W.detach()
        absolute = torch.linalg.eigvals(W.abs()).abs().max()
        rows.append(
            {
                "norm": theory.contraction_factor(T, u, tol=1e-4),
                "radius": theory.spectral_radius(T, u, tol=1e-3),
                "one_sided": one_sided(T, u),
                "W_inf": float(W.abs().sum(dim=1).max()),
                "W_2": float(torch.linalg.matrix_norm(W, 2)),
                "W_radius": float(torch.linalg.eigvals(W).abs().max()),
                "W_pf": float(absolute),
                "W_zero": float((W == 0).double().mean()),
                "active": float((u > 0).double().mean()),
                "steps": int(
                    FixedPointIteration(tol=1e-6, max_steps=5000, relative=True)(T, torch.zeros_like(u)).steps.max()
                ),
            }
        )
        if i < len(equilibria) - 1:
            x = u
    # without the head, whose gradient is the same for all
    of_T = sum(each.numel() for part in (network.inputs, network.steps) for each in part.parameters())
    true = flat_gradient(network, TIGHT, None, graphs)[:of_T]
    cosines = {
        name: cosine(flat_gradient(network, rule, None, graphs)[:of_T], true)
        for name, rule in RULES.items()
        if name not in ("exact", "one step")
    }
    # the equilibria before it are its data
    last = theory.criterion(network.equilibria(graphs, head=True)[-1], x).smallest
    return {
        "equilibria": rows,
        "cosines": cosines,
        "criterion_last": last,
        "criterion_all": criterion_of_all(network, graphs),
    }


def probed(name: str, rule: str, seed: int, wanted: set[int], found) -> None:
    """The network of one run, on its first fold, at the wanted epochs; hands each row to `found`."""
    graphs = graphs_of(name)
    fold = next(iter(pages.folds(graphs.labels, seed, FOLDS)))
    shown, _ = split(graphs, fold, seed)
    few = pages.batch(graphs, fold.test[: 2 if Options.smoke else 6]).double()
    torch.manual_seed(1000 * seed)
    network = pages.IGNN(graphs.features, graphs.classes, gradient=RULES[rule])

    def look(epoch: int, loss: float, seconds: float = 0.0) -> None:
        if epoch in wanted:
            known = loss if math.isfinite(loss) else None
            found({"set": name, "rule": rule, "seed": seed, "epoch": epoch, "loss": known} | probe(network, few))

    look(0, float("nan"))
    pages.train(network, shown, epochs=epochs_of(name), rate=chosen_rate(name), watch=look)


def theory_part(keep, rows: list) -> None:
    done = {(row["set"], row["rule"], row["seed"], row["epoch"]) for row in rows}

    def found(row: dict) -> None:
        rows.append(row)
        keep(rows)
        print(row, flush=True)

    for name in Options.sets:
        for seed in SEEDS[:1] if Options.smoke else SEEDS:
            for rule in ("exact", "JFB"):
                last = epochs_of(name)
                wanted = {epoch for epoch in (0, last // 2, last) if (name, rule, seed, epoch) not in done}
                if wanted:
                    probed(name, rule, seed, wanted, found)


def linear(keep, rows: list) -> None:
    """X = Â X Wᵀ + q in float64, at ρ(W) near κ and at that of a random W, against a dense solve with I − Â ⊗ W."""
    del rows[:]
    for name in Options.sets:
        graphs = pages.batch(graphs_of(name), range(4)).double()
        for kind in ("drawn", "near κ"):
            torch.manual_seed(0)
            network = pages.IGNN(graphs.x.shape[1], width=8, layers=1, phi=lambda x: x, solver=AT_REST).double()
            W = network.steps[0].W
            if kind == "near κ":
                W.data.fill_(pages.KAPPA / len(W))
            (equilibrium,) = network.equilibria(graphs)
            found = equilibrium.solve(graphs.x)
            q = equilibrium.Q(graphs.x).detach()
            system = torch.eye(q.numel(), dtype=q.dtype) - torch.kron(graphs.A.matrix.to_dense(), W.detach())
            true = torch.linalg.solve(system, q.flatten()).reshape(q.shape)
            rows.append(
                {
                    "set": name,
                    "W": kind,
                    "nodes": len(q),
                    "steps": int(found.steps.max()),
                    "error": float((found.u - true).norm() / true.norm()),
                }
            )
            print(rows[-1], flush=True)
    keep(rows)


PARTS = {"choose": choose, "runs": runs, "theory": theory_part, "linear": linear}
FILE = None


def main() -> None:
    global FILE
    options = parser(__doc__)
    options.add_argument("parts", nargs="*", help="which; all without")
    options.add_argument("--sets", nargs="*", help=f"which; {' '.join(EPOCHS)} without")
    options.add_argument("--smoke", action="store_true", help="everything tiny: does it run?")
    arguments = options.parse_args()
    FILE, Options.smoke = arguments.out, arguments.smoke
    if arguments.smoke and FILE is None:
        options.error("--smoke needs --out FILE, so that it does not mix with the record")
    Options.sets = tuple(arguments.sets or (("MUTAG",) if arguments.smoke else EPOCHS))
    torch.set_num_threads(1)
    # an adjoint that misses its tolerance is followed all the same, and the products say so
    warnings.simplefilter("ignore", RuntimeWarning)
    for part in arguments.parts or PARTS:

        def keep(rows: list, part=part) -> None:
            config = {
                "threads": 1,
                "dtype": "float32",
                "width": pages.WIDTH,
                "layers": 3,
                "kappa": pages.KAPPA,
                "batch": BATCH,
            }
            config |= {
                "epochs": EPOCHS,
                "folds": FOLDS,
                "folds_run": FOLDS_RUN,
                "seeds": len(SEEDS),
                "solver": repr(pages.solver()),
            }
            write(FILE, "graphs", config, written(FILE, "graphs") | {part: rows})

        begin = time.process_time()
        PARTS[part](keep, written(FILE, "graphs").get(part, []))
        print(f"{part}: {time.process_time() - begin:.0f} s of the processor", flush=True)


if __name__ == "__main__":
    main()
