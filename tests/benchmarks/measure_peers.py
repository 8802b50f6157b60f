"""The peers of JFB's Table 1 on MNIST, at one budget; writes book/timings/peers.json.

    JFB_DATA=… python tests/benchmarks/measure_peers.py [PART …] [--seeds 0 1 2] [--systems NAME …] [--smoke] [--out FILE] [--keep FOLDER]

Parts, and the processor time that each takes in all, estimated from some steps on a busy machine, which is slower by perhaps a third:
    choose     8 min   the learning rate of each system, from 60 updates and 1,000 held-out images; the adjoint method beside backpropagation
    runs   55–70 min   each system: 10,000 images, five epochs, three seeds (some: one); accuracy, time, evaluations; the weights go to --keep
    costs      2 min   an update of each: time, evaluations, kept memory; of the ODEs and the monotone network at their published sizes too
    adjoint    3 min   how far the adjoint method's gradient is from the ODE's, against its tolerance
    decay      1 s     the same for u' = −λu, where the gradient is known
    theory     5 min   the monotone networks: norms, one-sided norms, radii, the criterion, and JFB's cosines for each step and α
    draws      1 min   whether JFB descends in random monotone layers: relu and others, one sample and two

`choose` comes before `runs`, `runs` before `adjoint` and `theory`. What the file has stays, and is skipped. Seconds are processor time. All
pictures are MNIST's: 10,000 of the training set to train on and 1,000 others to choose by, always the same (of a folder of images others than
of the published files, since their order differs); the 10,000 of the test set are looked at once, after the last update. The ODEs and the monotone networks see pictures folded 4×4 (`pages/monotone.py`, `pages/odes.py`).
"""

import copy
import itertools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shared
import torch
from shared import one_sided, parser
from torch.nn.functional import cross_entropy

from jfb_tutorial import architectures, theory
from jfb_tutorial.bench import saved_bytes
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, Unrolled, tally
from jfb_tutorial.network import ImplicitNetwork
from jfb_tutorial.normalisation import reestimate
from jfb_tutorial.pages import instances, monotone, odes
from jfb_tutorial.pages.fitting import fit
from jfb_tutorial.pages.instances import cosine, off
from jfb_tutorial.training import checkpoints, data

BATCH, EPOCHS, IMAGES, HELD_OUT = 100, 5, 10_000, 1_000
RATES = (1e-3, 2e-3, 4e-3)
EXACT = ImplicitDifferentiation("gmres", tol=1e-3, max_steps=200, on_failure="warn")
TIGHT = ImplicitDifferentiation("gmres", tol=1e-9, max_steps=3000)
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)

SYSTEMS: dict[str, dict[str, Any]] = {
    "JFB": {"of": "book"},
    "explicit twin": {"of": "book", "explicit": True},
    "monotone, JFB": {"of": "monotone"},
    "monotone, JFB, Peaceman–Rachford": {"of": "monotone", "kind": "peaceman-rachford"},
    "monotone, exact": {"of": "monotone", "kind": "peaceman-rachford", "gradient": EXACT},
    "neural ODE": {"of": "ode", "adjoint": False},
    "augmented neural ODE": {"of": "ode", "adjoint": False, "augment": 5},
    "monotone, large W, exact": {"of": "monotone", "kind": "peaceman-rachford", "gradient": EXACT, "skew": 12.0},
    "monotone, large W, JFB, Peaceman–Rachford": {"of": "monotone", "kind": "peaceman-rachford", "skew": 12.0},
    "neural ODE, adjoint": {"of": "ode"},
    "augmented neural ODE, adjoint": {"of": "ode", "augment": 5},
}
"""What is trained. The α of a monotone network is tuned before every epoch, as in the published code twice an epoch; "large W" starts with a
norm of about 5, where the published one has 0.4."""
ONCE = {
    "monotone, JFB, Peaceman–Rachford": "monotone, JFB",
    "monotone, large W, exact": "monotone, exact",
    "monotone, large W, JFB, Peaceman–Rachford": "monotone, exact",
}
"""Trained with the first seed only, at the rate of another system."""
ADJOINT = ("neural ODE, adjoint", "augmented neural ODE, adjoint")
"""Of these `choose` trains the first at one rate, beside backpropagation, and `costs` times both."""


def made(seed: int, system: str, **more: Any) -> torch.nn.Module:
    settings = {key: value for key, value in (SYSTEMS[system] | more).items() if key != "of"}
    if SYSTEMS[system]["of"] == "monotone":
        return monotone.network(seed, **settings)
    if SYSTEMS[system]["of"] == "ode":
        return odes.network(seed, **settings)
    torch.manual_seed(seed)
    return architectures.build("mnist", on_unconverged="ignore", **settings)


@dataclass(frozen=True)
class Pictures:
    """Images in [0, 1] with their labels."""

    d: torch.Tensor
    y: torch.Tensor

    def __getitem__(self, index) -> "Pictures":
        return Pictures(self.d[index], self.y[index])

    def __len__(self) -> int:
        return len(self.y)


_sets: dict[str, Pictures] = {}


def pictures(which: str, smoke: bool) -> Pictures:
    """ "training", "held out" or "test"."""
    split = "test" if which == "test" else "train"
    if split not in _sets:
        found = data.load("mnist", split)
        # a folder lists its images class by class
        order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))
        order = order[: IMAGES + HELD_OUT] if split == "train" else order
        _sets[split] = Pictures(found.images[order].float() / 255, found.labels[order])
    whole = _sets[split]
    if which == "test":
        return whole[:200] if smoke else whole
    if which == "held out":
        return whole[IMAGES:][: 200 if smoke else None]
    return whole[:IMAGES][: 500 if smoke else None]


@torch.no_grad()
def right(network: torch.nn.Module, images: Pictures) -> float:
    network.eval()
    found = [
        network(images.d[i : i + BATCH]).argmax(1) == images.y[i : i + BATCH] for i in range(0, len(images), BATCH)
    ]
    network.train()
    return torch.cat(found).double().mean().item()


def evaluations(network: torch.nn.Module) -> int:
    """Of R or f, in the last forward pass."""
    if isinstance(network, odes.NeuralODE):
        return network.field.evaluations
    if not isinstance(network, ImplicitNetwork) or isinstance(network.gradient, Unrolled) or network.last is None:
        return 1
    return int(network.last.steps.max()) + 1


def trained(network: torch.nn.Module, seed: int, images: Pictures, *, rate: float, updates: int) -> dict:
    """Adam, the rate falling to zero in a straight line; what there is to say of the training."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    forward: list[int] = []
    backward: list[int] = []
    alphas: list[float] = []

    def loss(update: int) -> torch.Tensor:
        nonlocal order
        begin = update * BATCH % len(images)
        if begin == 0:
            order = torch.randperm(len(images), generator=generator)
        batch = images[order[begin : begin + BATCH]]
        if begin == 0 and isinstance(getattr(network, "R", None), monotone.Step):
            alphas.append(monotone.tuned(network, batch.d))
        if isinstance(network, odes.NeuralODE):
            if update:
                backward.append(network.field.evaluations - forward[-1])
            network.field.evaluations = 0
        value = cross_entropy(network(batch.d), batch.y)
        forward.append(evaluations(network))
        return value

    spent = 0.0

    def watch(update: int, value: float, seconds: float) -> None:
        nonlocal spent
        spent = seconds

    losses = fit(network, loss, updates=updates, rate=rate, factor=lambda k: 1 - k / updates, watch=watch)
    tail = lambda row: sum(row[-50:]) / len(row[-50:]) if row else None  # noqa: E731
    row = {"updates": updates, "seconds": spent, "loss": tail(losses), "first_evaluations": forward[0]}
    row |= {"evaluations": tail(forward), "backward": tail(backward), "alpha": alphas}
    row["curve"] = [[sum(losses[k : k + 10]) / 10, sum(forward[k : k + 10]) / 10] for k in range(0, updates, 10)]
    if isinstance(network, ImplicitNetwork):
        reestimate(network, images.d[:5000].split(500))
    return row


def choose(keep) -> None:
    for system, rate in itertools.product(SYSTEMS, RATES):
        if system in ONCE or system == ADJOINT[1] or (system == ADJOINT[0] and rate != RATES[0]):
            continue
        if keep.has(system=system, rate=rate):
            continue
        network = made(100, system)
        images = pictures("training", keep.smoke)
        row = trained(network, 100, images, rate=rate, updates=3 if keep.smoke else 60)
        del row["curve"]
        keep.add({"system": system, "rate": rate, "held_out": right(network, pictures("held out", keep.smoke))} | row)


def rate_of(keep, system: str) -> float:
    system = ONCE.get(system, system)
    tried = [row for row in keep.rows("choose") if row["system"] == system]
    if not tried:
        raise SystemExit(f"choose comes first: it has no rate for {system!r}")
    return max(tried, key=lambda row: row["held_out"])["rate"]


def runs(keep) -> None:
    # what is trained once comes last: it is the first to be left out where time is short
    order = itertools.product(keep.arguments.seeds, keep.arguments.systems)
    for seed, system in sorted(order, key=lambda pair: pair[1] in ONCE):
        if system in ADJOINT or keep.has(system=system, seed=seed) or (system in ONCE and seed):
            continue
        network, images = made(seed, system), pictures("training", keep.smoke)
        rate, updates = rate_of(keep, system), EPOCHS * len(images) // BATCH
        parameters = sum(p.numel() for p in network.parameters())
        row = {"system": system, "seed": seed, "parameters": parameters, "rate": rate}
        row |= trained(network, seed, images, rate=rate, updates=3 if keep.smoke else updates)
        row["held_out"] = right(network, pictures("held out", keep.smoke))
        begin = time.process_time()
        row["test_accuracy"] = right(network, pictures("test", keep.smoke))
        row["test_seconds"] = time.process_time() - begin
        checkpoints.save(keep.weights(system, seed), network.state_dict(), {"system": system, "seed": str(seed)})
        keep.add(row)


def restored(keep, system: str, seed: int, **more: Any) -> torch.nn.Module:
    """As trained."""
    network = made(seed, system, **more)
    path = keep.weights(system, seed)
    if not path.exists():
        raise SystemExit(f"runs comes first: the weights of {system!r}, seed {seed}, are not at {path}")
    network.load_state_dict(checkpoints.load(path)[0])
    return network


PUBLISHED = {
    "neural ODE": {"fold": 1, "filters": 92},
    "augmented neural ODE": {"fold": 1, "filters": 64},
    "neural ODE, adjoint": {"fold": 1, "filters": 92},
    "monotone, exact": {"fold": 1, "channels": 54},
}
"""The sizes of the published code, which this script times and does not train."""


def costs(keep) -> None:
    every: list[tuple[str, dict]] = [(system, {}) for system in SYSTEMS]
    every += PUBLISHED.items()
    images = pictures("training", keep.smoke)[: 10 if keep.smoke else BATCH]
    for system, more in every:
        name = system + "".join(f", {key} {value}" for key, value in more.items())
        if keep.has(name=name):
            continue
        network = made(0, system, **more)
        seconds, parts = [], dict[str, Any]()
        for _ in range(1 if "fold" in more or keep.smoke else 3):
            ode = isinstance(network, odes.NeuralODE)
            if ode:
                network.field.evaluations = 0
            begin = time.process_time()
            with saved_bytes([*network.parameters(), *network.buffers()]) as saved:
                value = cross_entropy(network(images.d), images.y)
            count = evaluations(network)
            with tally() as products:
                value.backward()
            seconds.append(time.process_time() - begin)
            back = network.field.evaluations - count if ode else products.products
            parts = {"forward": count, "backward": back, "bytes": saved.total}
        parameters = sum(p.numel() for p in network.parameters())
        keep.add({"name": name, "images": len(images), "seconds": min(seconds), "parameters": parameters} | parts)


def flat(network: torch.nn.Module, images: Pictures, parts: Any = None) -> torch.Tensor:
    """The gradient of the loss by the weights of a part."""
    value = cross_entropy(network(images.d.to(next(network.parameters()))), images.y)
    found = torch.autograd.grad(value, [*(parts or network).parameters()])
    return torch.cat([part.flatten() for part in found]).double()


def adjoint(keep) -> None:
    """Of f's weights, the adjoint method and backpropagation at each tolerance: how far from the gradient of the ODE, and of the computed loss.

    The first is backpropagation through many equal steps in float64, with the change from half as many as its error. An adaptive solver at a tight
    tolerance will not do: its steps are short enough for u, but the gradient jumps wherever a relu switches. The second is backpropagation
    through the steps that the solver took.
    """
    images = pictures("training", keep.smoke)[:4]
    steps = 10 if keep.smoke else 400
    for system, when in itertools.product(("neural ODE", "augmented neural ODE"), ("before", "after")):
        if keep.has(system=system, when=when):
            continue
        start = made(0, system) if when == "before" else restored(keep, system, 0)
        double = copy.deepcopy(start).double()
        half, true = (
            ode_gradient(double, images, adjoint=False, method="rk4", steps=count)[0] for count in (steps // 2, steps)
        )
        row: dict[str, Any] = {"system": system, "when": when, "images": len(images), "steps": steps}
        row |= {"reference_off": off(half, true), "rows": []}
        for tol in TOLERANCES:
            computed, count = ode_gradient(double, images, adjoint=False, tol=tol)
            row["rows"].append({"tol": tol, "way": "backpropagation", "evaluations": count} | apart(computed, true))
            for way, network in (("adjoint", double), ("adjoint, float32", start)):
                try:
                    found, count = ode_gradient(network, images, adjoint=True, tol=tol)
                except AssertionError as error:  # torchdiffeq's word for a step that became too small
                    row["rows"].append({"tol": tol, "way": way, "failed": str(error)})
                    continue
                measured = apart(found, true) | {f"computed_{key}": x for key, x in apart(found, computed).items()}
                row["rows"].append({"tol": tol, "way": way, "evaluations": count} | measured)
        keep.add(row)


def ode_gradient(network, images: Pictures, **settings: Any) -> tuple[torch.Tensor, int]:
    """Of the loss by f's weights, and the evaluations of f for it."""
    network.settings = settings
    network.field.evaluations = 0
    return flat(network, images, network.field), network.field.evaluations


def apart(found: torch.Tensor, true: torch.Tensor) -> dict:
    return {"cosine": cosine(found, true), "off": off(found, true)}


class Decay(torch.nn.Module):
    """u' = −λu, and λ is learned."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = torch.nn.Parameter(torch.tensor(strength, dtype=torch.float64))

    def forward(self, t: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return -self.strength * u


def decay(keep) -> None:
    """The loss is ½(u(1) − 1)² from u(0) = 1, hence the gradient −(u(1) − 1) u(1), u(1) = exp(−λ)."""
    rows = []
    for strength, tol, by_adjoint in itertools.product((1.0, 2.0, 5.0, 10.0, 20.0), (1e-3, 1e-6, 1e-9), (True, False)):
        field, u = Decay(strength), torch.ones(1, 1, dtype=torch.float64)
        end = odes.integrate(field, u, tol=tol, adjoint=by_adjoint)
        (found,) = torch.autograd.grad(((end - 1) ** 2).sum() / 2, [field.strength])
        true = float((1 - np.exp(-strength)) * np.exp(-strength))
        row = {"strength": strength, "tol": tol, "adjoint": by_adjoint, "gradient": found.item(), "true": true}
        rows.append(row | {"ratio": found.item() / true})
    keep(rows)


def sizes(network: ImplicitNetwork, d: torch.Tensor, u: torch.Tensor) -> dict:
    """Of J at one picture, with chapter 12's criterion."""
    T = network.operator(d)
    found = {"norm": theory.contraction_factor(T, u, tol=1e-3), "one_sided": one_sided(T, u)}
    found["radius"] = theory.spectral_radius(T, u, tol=1e-2)
    return found | {"criterion": theory.criterion(network, d).smallest}


ALPHAS = (0.1, 0.3, 1.0, 3.0, 10.0)


def theorem(keep, system: str, when: str, seed: int) -> dict:
    """What J of each step is at two held-out pictures, and how far JFB's direction is from the gradient on eight."""
    network = (restored(keep, system, seed) if when == "after" else made(seed, system)).double().eval()
    images = pictures("held out", keep.smoke)[: 2 if keep.smoke else 8]
    d, y = images.d.double(), images.y
    W = network.R.W
    row: dict[str, Any] = {"W": monotone.measures(W)._asdict(), "largest_alpha": monotone.measures(W).largest_alpha}
    steps = [("plain", 1.0), ("forward-backward", row["largest_alpha"] / 2)]
    steps += [("peaceman-rachford", alpha) for alpha in ALPHAS]
    row["steps"] = []
    for kind, alpha in steps:
        network.R = monotone.Step(W, kind, alpha, frame=1)
        network.solver = monotone.Splitting(1e-9, 2000)
        found: dict[str, Any] = {"kind": kind, "alpha": alpha}
        try:
            solved = network.solve(d)
        except FloatingPointError:
            row["steps"].append(found | {"rests": 0})
            continue
        found |= {"rests": int(solved.converged.sum()), "evaluations": int(solved.steps.max())}
        if solved.converged.all():
            true, one = (instances.gradient_of(network, rule, d, y, parts="QR") for rule in (TIGHT, JFB()))
            found |= {"cosine": cosine(one, true), "ratio": float(one.norm() / true.norm())}
            if kind != "peaceman-rachford" or alpha == 1:
                found["each"] = [
                    sizes(network, d[i : i + 1], solved.u[i : i + 1]) for i in range(1 if keep.smoke else 2)
                ]
        row["steps"].append(found)
    return row


def theory_(keep) -> None:
    for seed, system, when in itertools.product(keep.arguments.seeds, SYSTEMS, ("before", "after")):
        if SYSTEMS[system]["of"] != "monotone" or keep.has(system=system, when=when, seed=seed):
            continue
        exact = system.endswith("exact")
        if (seed and (not exact or system in ONCE or when == "before")) or (when == "before" and not exact):
            continue  # before training the networks of one size are the same
        keep.add({"system": system, "when": when, "seed": seed} | theorem(keep, system, when, seed))


def draws(keep) -> None:
    """W itself, U and b trained, m = 1: how often −p ascends in random layers, for slopes of 0 and 1 (relu) and of 0.1 and 1."""
    count = 1000 if keep.smoke else 20_000
    rows = []
    for n, skew, slope, samples in itertools.product((2, 4, 8), (1.0, 4.0), (0.0, 0.1), (1, 2)):
        generator = torch.Generator().manual_seed(n)
        found = monotone_draws(count, n, skew, slope, samples, generator)
        rows.append({"n": n, "skew": skew, "slope": slope, "samples": samples, "draws": count} | found)
    keep(rows)


def monotone_draws(count: int, n: int, skew: float, slope: float, samples: int, generator: torch.Generator) -> dict:
    draw = lambda *shape: torch.randn(count, *shape, generator=generator, dtype=torch.float64)  # noqa: E731
    A, B = draw(n, n) / n**0.5, skew * draw(n, n) / n**0.5
    W, identity = -A.mT @ A + B - B.mT, torch.eye(n, dtype=torch.float64)
    V = torch.linalg.inv(2 * identity - W)  # α = 1
    sums: dict[str, Any] = {"gradient": 0, "plain": 0, "peaceman-rachford": 0}
    for _ in range(samples):
        on = (torch.rand(count, n, generator=generator) < 0.5).double()
        D, g, x = torch.diag_embed(on + slope * (1 - on)), draw(n, 1), draw(1, n + 1)
        p = D @ g
        sums["gradient"] += D @ torch.linalg.solve(identity - W.mT @ D, g) @ x
        sums["plain"] += p @ x
        sums["peaceman-rachford"] += V.mT @ p @ x
    inner = {key: (sums["gradient"] * sums[key]).sum(dim=(1, 2)) for key in ("plain", "peaceman-rachford")}
    # no gradient where nothing is on
    there = sums["gradient"].square().sum(dim=(1, 2)) > 1e-20
    return {"with_gradient": int(there.sum())} | {key: int((value[there] < 0).sum()) for key, value in inner.items()}


class Keep(shared.Keep):
    """With what --smoke changes, and the folder of trained weights."""

    name = "peers"

    @property
    def smoke(self) -> bool:
        return self.arguments.smoke

    @property
    def config(self) -> dict:
        own = {"threads": 1, "dtype": "float32", "batch": BATCH, "epochs": EPOCHS}
        return own | {"images": IMAGES, "smoke": self.smoke}

    def add(self, row: dict) -> None:
        self([*self.rows(), row])
        print({key: value for key, value in row.items() if key not in ("curve", "rows", "steps")}, flush=True)

    def weights(self, system: str, seed: int) -> Path:
        self.arguments.keep.mkdir(parents=True, exist_ok=True)
        name = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in system)
        return self.arguments.keep / f"{name}-{seed}.safetensors"


PARTS = {f.__name__.rstrip("_"): f for f in (choose, runs, costs, adjoint, decay, theory_, draws)}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of `runs` and `theory`")
    options.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS), help="of `runs`")
    options.add_argument("--smoke", action="store_true", help="everything tiny, into a file of its own")
    options.add_argument("--keep", type=Path, help="folder of the trained weights; by default one for temporary files")
    options.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which; all without")
    arguments = options.parse_args()
    place = Path(tempfile.gettempdir()) / ("peers-smoke" if arguments.smoke else "peers")
    arguments.keep = arguments.keep or place
    if arguments.smoke:
        arguments.seeds, arguments.out = arguments.seeds[:1], arguments.out or place / "peers.json"
    torch.set_num_threads(1)
    for part in arguments.parts or PARTS:
        PARTS[part](Keep(arguments, part))


if __name__ == "__main__":
    main()
