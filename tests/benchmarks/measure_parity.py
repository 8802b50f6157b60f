"""What one recorded step learns of parity, how far it goes on, and what it rests on; writes book/timings/parity.json.

    python tests/benchmarks/measure_parity.py [PART …] [--out FILE]

Parts: `lengths` (five seeds on strings of 16 to 512 bits; writes book/records/parity.safetensors too), `tolerances`, `depths`
(the explicit twin and fixed depths), `deaf` (the input does not enter R), `training` (Jacobian, cosines and criterion through
training), `dip` (the cosine alone, at more updates around its lowest) and `rules` (updates and processor time until solved).
What the file has of other parts stays. Chapter 13 reads it.
"""

import copy
import time
import warnings
from typing import Any

import torch
from shared import parser, write, write_network, written
from torch import nn

from jfb_tutorial import theory
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, Unrolled, UnrolledPhantom
from jfb_tutorial.pages import parity
from jfb_tutorial.pages.instances import cosine
from jfb_tutorial.solvers import FixedPointIteration

SEEDS = range(5)
LENGTHS = {16: 1000, 32: 1000, 64: 400, 128: 200, 256: 100, 512: 100}
"""Strings of each length; all the five seeds together take about five minutes of a core that has nothing else to do."""
BATCH = 10
"""Strings at once: what fits the cache is twice as fast."""


def tried(network, bits: int, count: int, *, solver=None, start=None, seed: int = 1000) -> dict:
    """Strings that are right in every bit, bits that are right, steps."""
    generator = torch.Generator().manual_seed(seed + bits)
    solver = solver or parity.solver(bits)
    whole, bits_right, steps, converged = 0, 0, [], 0
    for _ in range(0, count, BATCH):
        d, y = parity.strings(min(BATCH, count), bits, generator)
        with torch.no_grad(), network.using(solver=solver):
            logits = network(d, None if start is None else start(network, d))
            if not isinstance(network.gradient, Unrolled):
                steps += network.last.steps.tolist()
                converged += int(network.last.converged.sum())
        whole += int(parity.right(logits, y).sum())
        bits_right += int(((logits > 0) == (y > 0.5)).sum())
    row = {"bits": bits, "strings": count, "right": whole, "bits_right": bits_right, "converged": converged}
    if steps:
        ordered = sorted(steps)
        row |= {"steps": ordered[len(ordered) // 2], "fewest": ordered[0], "most": ordered[-1]}
    return row


_trained: dict[int, tuple] = {}


def trained(seed: int):
    if seed not in _trained:
        network, begin = parity.network(seed), time.process_time()
        losses = parity.train(network, seed)
        _trained[seed] = network, losses, time.process_time() - begin
    return _trained[seed]


def lengths(keep) -> None:
    rows: list[dict] = []
    for seed in SEEDS:
        losses, seconds = trained(seed)[1:]
        rows.append({"seed": seed, "loss": losses[-1], "seconds": seconds, "lengths": []})
    write_network("parity", trained(0)[0], "tests/benchmarks/measure_parity.py")
    for bits, count in LENGTHS.items():
        for seed in SEEDS:
            rows[seed]["lengths"].append(tried(trained(seed)[0], bits, count))
            keep(rows)
            print(seed, rows[seed]["lengths"][-1], flush=True)


def tolerances(keep) -> None:
    rows = []
    for seed in range(3):
        for bits in (64, 128):
            for tol in (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5):
                rows.append(
                    {"seed": seed, "tol": tol} | tried(trained(seed)[0], bits, 100, solver=parity.solver(bits, tol))
                )
            for more in (1, 2, 4):
                # the tolerance cannot be met: so many steps, whatever the residual
                fixed = FixedPointIteration(tol=1e-30, max_steps=more * 2 * bits)
                rows.append(
                    {"seed": seed, "tol": 0, "fixed": more * 2 * bits} | tried(trained(seed)[0], bits, 50, solver=fixed)
                )
            keep(rows)
            print(rows[-11:], flush=True)


class Layers(nn.Module):
    """Ten different steps one after another: an explicit network of the same shape with ten times the weights."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList([parity.Step() for _ in range(depth)])

    def forward(self, u, q):
        for step in self.steps:
            u = step(u, q)
        return u


def depths(keep) -> None:
    rows = []
    for seed in range(3):
        for name, depth, R in (("twin", 1, None), ("shared", 10, None), ("different", 1, lambda: Layers(10))):
            torch.manual_seed(seed)
            network = parity.network(seed, gradient=Unrolled(depth), R=R() if R else None)
            losses = parity.train(network, seed)
            for bits in (16, 24, 32, 64, 512):
                rows.append(
                    {"kind": name, "depth": depth, "seed": seed, "loss": losses[-1]} | tried(network, bits, 200)
                )
            if name == "shared":  # the same weights, run to rest
                network.gradient = JFB()
                for bits in (16, 64):
                    rows.append({"kind": "shared, to rest", "depth": depth, "seed": seed} | tried(network, bits, 100))
            keep(rows)
            print(rows[-5:], flush=True)
        rows += recorded(seed)
        keep(rows)


def recorded(seed: int) -> list[dict]:
    """Trained with all of the 24 steps recorded, and then run to rest."""
    network = parity.network(seed, gradient=Unrolled(24))
    losses = parity.train(network, seed)
    network.gradient = JFB()
    return [
        {"kind": "all recorded, to rest", "depth": 24, "seed": seed, "loss": losses[-1]} | tried(network, bits, count)
        for bits, count in ((16, 100), (64, 100), (256, 50))
    ]


class Deaf(parity.Step):
    """A step that does not hear the input."""

    def forward(self, u, q):
        return super().forward(u, torch.zeros_like(q))


def deaf(keep) -> None:
    def start(network, d):
        with torch.no_grad():
            return network.Q(d)

    rows = []
    for seed in range(3):
        network = parity.network(seed, R=Deaf())
        losses = parity.train(network, seed, start=start)
        for bits in (16, 64, 256):
            rows.append({"seed": seed, "loss": losses[-1]} | tried(network, bits, 200, start=start))
        keep(rows)
        print(rows[-3:], flush=True)


def gradients(network, rule, d, y, solver) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient by a rule: of the weights of Q and R, and of all."""
    with network.using(gradient=rule, solver=solver):
        loss = nn.functional.binary_cross_entropy_with_logits(network(d), y)
        parts = torch.autograd.grad(loss, [*network.Q.parameters(), *network.R.parameters(), *network.S.parameters()])
    of_T = sum(1 for _ in network.Q.parameters()) + sum(1 for _ in network.R.parameters())
    flat = [part.flatten() for part in parts]
    return torch.cat(flat[:of_T]), torch.cat(flat)


def probe(network, loss: float, update: int) -> dict:
    network = copy.deepcopy(network).double()
    d, y = (x.double() for x in parity.strings(16, parity.BITS, torch.Generator().manual_seed(77)))
    in_training = network.solver
    row: dict = {"update": update, "loss": loss if loss == loss else None}
    one, whole = (gradients(network, rule, d, y, in_training) for rule in (JFB(), Unrolled(25)))
    row |= {"cosine_25": cosine(one[0], whole[0]), "cosine_25_all": cosine(one[1], whole[1])}
    row["residual"] = float((network.solve(d).residual / network.last.u.flatten(1).norm(dim=1)).median())
    rest = FixedPointIteration(tol=1e-10, max_steps=2000)
    with network.using(solver=rest):
        found = network.solve(d)
    row["at_rest"] = int(found.converged.sum())
    calm = found.converged.nonzero().flatten()
    if len(calm) == len(d):
        exact = ImplicitDifferentiation("gmres", tol=1e-8, max_steps=2000, on_failure="warn")
        one, true = (gradients(network, rule, d, y, rest) for rule in (JFB(), exact))
        row |= {"cosine": cosine(one[0], true[0]), "cosine_all": cosine(one[1], true[1])}
    rows = []
    for i in range(3):
        T, u = network.operator(d[i : i + 1]), found.u[i : i + 1]
        settled = bool(found.converged[i])
        each: dict = {
            "settled": settled,
            "radius": theory.spectral_radius(T, u),
            "norm": theory.contraction_factor(T, u),
        }
        if settled and i == 0:
            try:
                each["criterion"] = theory.criterion(network, d[i : i + 1]).smallest
            except RuntimeError as error:
                each["criterion"], each["why"] = None, str(error)
        rows.append(each)
    return row | {"strings": rows}


def training(keep) -> None:
    rows = []
    at = {*range(0, 201, 10), 225, 250, 275, 300}
    for seed in range(3):
        network = parity.network(seed)

        def watch(update, loss, network=network, seed=seed):
            if update in at:
                rows.append({"seed": seed} | probe(network, loss, update))
                keep(rows)
                print(rows[-1], flush=True)

        parity.train(network, seed, watch=watch)


def dip(keep) -> None:
    """At rest, on those of 64 strings that come to rest: JFB's cosine with the exact gradient, at every third update from 40 to 130."""
    rows = []
    exact = ImplicitDifferentiation("gmres", tol=1e-6, max_steps=1000, on_failure="warn")
    rest = FixedPointIteration(tol=1e-8, max_steps=1000)
    for seed in range(3):
        network = parity.network(seed)

        def watch(update, loss, network=network, seed=seed):
            if not 40 <= update <= 130 or update % 3:
                return update > 130
            mine = copy.deepcopy(network).double()
            d, y = (x.double() for x in parity.strings(64, parity.BITS, torch.Generator().manual_seed(78)))
            with mine.using(solver=rest):
                calm = mine.solve(d).converged
            one, true = (gradients(mine, rule, d[calm], y[calm], rest)[0] for rule in (JFB(), exact))
            rows.append(
                {
                    "seed": seed,
                    "update": update,
                    "strings": len(d),
                    "at_rest": int(calm.sum()),
                    "cosine": cosine(one, true),
                }
            )
            keep(rows)
            print(rows[-1], flush=True)
            return None

        parity.train(network, seed, watch=watch)


RULES: dict[str, Any] = {
    "JFB": JFB(),
    "UPG, k = 5": UnrolledPhantom(5, 0.5),
    "every step recorded": Unrolled(24),
    "exact": ImplicitDifferentiation("gmres", tol=1e-3, max_steps=50, on_failure="warn"),
}


def rules(keep) -> None:
    """Until 100 strings of 32 bits are right, run to rest, at two looks one after the other."""
    rows = []
    for seed in range(3):
        for name, rule in RULES.items():
            network = parity.network(seed, gradient=rule)
            clock = {"begin": time.process_time(), "looking": 0.0, "before": False}
            row = {"rule": name, "seed": seed, "updates": None, "seconds": None, "loss": None}

            def watch(update, loss, network=network, clock=clock, row=row):
                row["loss"] = loss
                if update % 10:
                    return None
                begin = time.process_time()
                with network.using(gradient=JFB()):
                    solved = tried(network, 32, 100)["right"] == 100
                both, clock["before"] = solved and clock["before"], solved
                if both:
                    row |= {"updates": update, "seconds": begin - clock["begin"] - clock["looking"]}
                clock["looking"] += time.process_time() - begin
                return both

            parity.train(network, seed, updates=500, watch=watch)
            rows.append(row | {"total": time.process_time() - clock["begin"] - clock["looking"]})
            keep(rows)
            print(rows[-1], flush=True)


PARTS = {f.__name__: f for f in (lengths, tolerances, depths, deaf, training, dip, rules)}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("parts", nargs="*", help="which; all without")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter(
        "ignore", RuntimeWarning
    )  # early in training there are adjoints that GMRES does not reach in 50 products
    for part in arguments.parts or PARTS:

        def keep(rows: list, part=part) -> None:
            results = written(arguments.out, "parity")
            config = {"threads": 1, "dtype": "float32", "updates": parity.UPDATES, "bits": parity.BITS}
            write(arguments.out, "parity", config, results | {part: rows})

        PARTS[part](keep)


if __name__ == "__main__":
    main()
