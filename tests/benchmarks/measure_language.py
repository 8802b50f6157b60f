"""A transformer in equilibrium on text, trained by several rules; writes book/timings/language.json.

    python tests/benchmarks/measure_language.py [PART …] [--out FILE] [--weights FOLDER] [--seeds 0 1] [--smoke]

Parts, in this order:

`choose`      the learning rate (of each norm, by JFB and by all steps recorded) and the strength of the penalty, on `valid`
`characters`  Shakespeare in characters: each norm and rule, some with the penalty, two seeds; `valid` after 1 to 52 steps, and
              `test` once, with the steps of training (one row of Table 3 has more); of seed 0, J and the cosines through training
`words`       Penn Treebank in words, which the reader must put there: see jfb_tutorial/training/texts.py
`theory`      J before training and after, the criterion of chapter 12, and what Anderson's mixing tells of later characters; needs the
              weights that `characters` leaves in --weights (runs/language, which git ignores)

A part goes on where it was stopped: what the file holds is left out. Processor seconds of a single thread. Estimated from a few steps of
each on a busy machine, in minutes: choose 11, characters 39 and 35 (seeds 0 and 1, sixteen runs each), words 14, theory 5. With
--smoke all is tiny, takes a minute and needs no data. Chapter 16 reads it.
"""

import copy
import itertools
import statistics
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shared
import torch
from shared import has, one_sided, parser
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from jfb_tutorial import theory
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, Unrolled, UnrolledPhantom, tally
from jfb_tutorial.network import ImplicitNetwork
from jfb_tutorial.pages import language
from jfb_tutorial.pages.instances import cosine, gradient_of
from jfb_tutorial.solvers import Anderson, FixedPointIteration
from jfb_tutorial.training import checkpoints, texts

STEPS = language.STEPS
RULES: dict[str, Any] = {
    "one step": Unrolled(1),
    "JFB": JFB(),
    "UPG": UnrolledPhantom(5, 0.8),
    "exact": ImplicitDifferentiation("gmres", tol=1e-2, max_steps=STEPS, per_sample=True, on_failure="warn"),
    "every step": Unrolled(STEPS + 1),
    "one step, longer": Unrolled(1),
}
"""The solver's steps come before, 12; every rule but "one step" reads at least the 13th iterate."""
PLAIN = [(norm, rule, False) for norm in ("post", "pre") for rule in list(RULES)[:5]]
FLAT = [("pre", "exact"), ("pre", "UPG"), ("pre", "JFB"), ("post", "exact"), ("post", "UPG")]
"""Those that are trained with the penalty, too."""
CHARACTERS = [*PLAIN, *((norm, rule, True) for norm, rule in FLAT), ("post", "one step, longer", False)]
LONGER = 6
"""How many times the updates "one step, longer" has: about as many as take JFB's processor time."""
AT = (1, 2, 3, 4, 6, 8, 10, 13, 17, 26, 39, 52)
RATES = (1e-3, 2e-3, 4e-3)
STRENGTHS = (0.3, 1.0, 3.0)
UPDATES, CHOOSING = 400, 120
WORDS, WORD_RULES = 400, ("one step", "JFB", "UPG", "exact")
PROBED = 16
"""How many characters the sequences have at which J is measured."""


@dataclass(frozen=True)
class Sizes:
    """What --smoke makes small."""

    updates: int = UPDATES
    choosing: int = CHOOSING
    words: int = WORDS
    probed: int = PROBED
    network: tuple[tuple[str, Any], ...] = ()
    every: int = 4  # of the windows of `valid`, those that are followed step by step


SMOKE = Sizes(6, 3, 3, 6, (("width", 16), ("heads", 2), ("inner", 24), ("context", 16)), 8)


class Keep(shared.Keep):
    """With what --smoke changes."""

    name = "language"

    @property
    def sizes(self) -> Sizes:
        return SMOKE if self.arguments.smoke else Sizes()

    @property
    def config(self) -> dict:
        own = {"threads": 1, "dtype": "float32", "steps": STEPS, "batch": language.BATCH, "updates": self.sizes.updates}
        sizes = {"width": language.WIDTH, "context": language.CONTEXT, "inner": language.INNER, "heads": language.HEADS}
        return own | sizes

    def __call__(self, rows: list) -> None:
        super().__call__(rows)
        long = ("curve", "places", "residuals", "training", "blocks", "radii")
        print({key: value for key, value in rows[-1].items() if key not in long}, flush=True)

    def text(self, name: str, split: str) -> texts.Text:
        if not self.arguments.smoke:
            return texts.load(name, split)
        kinds = 9 if name == "tinyshakespeare" else 50
        numbers = torch.randint(kinds, (800,), generator=torch.Generator().manual_seed(texts.SPLITS.index(split)))
        return texts.Text(name, split, numbers, tuple(map(str, range(kinds))))

    def network(self, seed: int, norm: str, rule: str, vocabulary: int, **more) -> ImplicitNetwork:
        return language.network(vocabulary, seed, norm=norm, gradient=RULES[rule], **dict(self.sizes.network), **more)

    def weights(self, norm: str, rule: str, penalty: float, seed: int) -> Path:
        name = f"{norm}-{rule.replace(' ', '-')}-{penalty:g}-{seed}{'-smoke' if self.arguments.smoke else ''}"
        return self.arguments.weights / f"{name}.safetensors"


def windows_of(text: texts.Text, network: ImplicitNetwork, every: int = 1) -> tuple[Tensor, Tensor]:
    d, y = texts.cut(text.tokens, network.Q.place.num_embeddings)
    return d[::every], y[::every]


@torch.no_grad()
def as_trained(network: ImplicitNetwork, d: Tensor, y: Tensor, steps: int | None = None) -> float:
    """Nats a token of what the network itself answers, with its own rule and the solver's steps, or more of them."""
    total, solver = 0.0, FixedPointIteration(max_steps=steps or STEPS, check_every=0)
    with network.using(solver=solver):
        for part, truth in zip(d.split(32), y.split(32), strict=True):
            total += cross_entropy(network(part).flatten(0, 1), truth.flatten(), reduction="sum").item()
    return total / y.numel()


def trained(
    network, tokens, seed: int, *, updates: int, rate: float, penalty: float, watch=lambda update: None
) -> dict:
    """What there is to say of a training; NaN where it failed is None."""
    begin, looking = time.process_time(), 0.0

    def timed(update, value, seconds):
        nonlocal looking
        start, products, residuals = time.process_time(), count.products, len(count.residuals)
        watch(update)
        # what looking costs is no part of training
        looking += time.process_time() - start
        count.products = products
        del count.residuals[residuals:]

    with tally() as count:
        losses = language.train(network, tokens, seed, updates=updates, rate=rate, penalty=penalty, watch=timed)
    row: dict[str, Any] = {"updates": updates, "rate": rate, "seconds": time.process_time() - begin - looking}
    last = losses[-max(1, updates // 10) :]
    row |= {"loss": statistics.fmean(last), "products": count.products / updates}
    # of the adjoint equation, which GMRES leaves after 12 products whatever has come of it
    row["adjoint"] = statistics.median(count.residuals) if count.residuals else None
    row["curve"] = [statistics.fmean(losses[k : k + 20]) for k in range(0, updates, 20)]
    return row


def choose(keep: Keep) -> None:
    rows, valid = keep.rows(), keep.text("tinyshakespeare", "valid")
    train = keep.text("tinyshakespeare", "train")
    tried = [(norm, rule, rate, 0.0) for norm in ("post", "pre") for rule in ("JFB", "every step") for rate in RATES]

    def run(norm: str, rule: str, rate: float, penalty: float) -> None:
        if has(rows, norm=norm, rule=rule, rate=rate, penalty=penalty):
            return
        network = keep.network(0, norm, rule, len(train.vocabulary))
        row = {"norm": norm, "rule": rule, "penalty": penalty}
        row |= trained(network, train.tokens, 0, updates=keep.sizes.choosing, rate=rate, penalty=penalty)
        row["valid"] = as_trained(network, *windows_of(valid, network, keep.sizes.every))
        row["penalised"] = mean_square(network, windows_of(valid, network)[0][:8])
        rows.append(row)
        keep(rows)

    for each in tried:
        run(*each)
    for strength in STRENGTHS:
        for norm in ("post", "pre"):
            run(norm, "UPG", chosen(keep)[norm], strength)


def mean_square(network: ImplicitNetwork, d: Tensor) -> float:
    """‖J‖_F² / n where the solver ends."""
    generator = torch.Generator().manual_seed(0)
    return theory.jacobian_penalty(network.operator(d), network.solve(d).u, samples=10, generator=generator).item()


def chosen(keep: Keep) -> dict:
    """The rate of each norm, and "penalty": the best on `valid`, means over the rules that were tried."""
    rows = keep.rows("choose")
    if not rows:
        raise SystemExit("run the part `choose` first")

    def best(values, key, **which):
        def mean(value):
            return statistics.fmean(
                row["valid"]
                for row in rows
                if row[key] == value and all(row[name] == wanted for name, wanted in which.items())
            )

        return min(values, key=mean)

    rates: dict = {norm: best(RATES, "rate", norm=norm, penalty=0.0) for norm in ("post", "pre")}
    there = [strength for strength in STRENGTHS if has(rows, penalty=strength)]
    return rates | ({"penalty": best(there, "penalty")} if there else {})


def characters(keep: Keep) -> None:
    rows, settings = keep.rows(), chosen(keep)
    parts = {split: keep.text("tinyshakespeare", split) for split in texts.SPLITS}
    for seed, (norm, rule, flat) in itertools.product(keep.arguments.seeds, CHARACTERS):
        penalty = settings["penalty"] if flat else 0.0
        row: dict[str, Any] = {"norm": norm, "rule": rule, "penalty": penalty, "seed": seed}
        if has(rows, **row):
            continue
        network = keep.network(seed, norm, rule, len(parts["train"].vocabulary))
        d, y = windows_of(parts["valid"], network)
        updates, probes = keep.sizes.updates * (LONGER if rule == "one step, longer" else 1), list[dict]()

        def watch(update, network=network, probes=probes, d=d, y=y, seed=seed, updates=updates):
            if seed == 0 and update in (updates // 4, updates // 2, updates):
                probes.append(
                    {"update": update} | look(network, d[:4, : keep.sizes.probed], y[:4, : keep.sizes.probed])
                )

        row |= trained(
            network, parts["train"].tokens, seed, updates=updates, rate=settings[norm], penalty=penalty, watch=watch
        )
        row |= judged(network, parts, keep.sizes.every)
        if flat:
            row["test_more"] = as_trained(network, *windows_of(parts["test"], network), steps=2 * STEPS)
        if probes:
            row["training"] = probes
        checkpoints.save(
            keep.weights(norm, rule, penalty, seed), network.state_dict(), {"made_by": "measure_language.py"}
        )
        rows.append(row)
        keep(rows)


def judged(network: ImplicitNetwork, parts: dict, every: int) -> dict:
    """Of a trained network: `valid` and, once, `test` as trained; a part of `valid` after steps from zero; how far from rest."""
    d, y = windows_of(parts["valid"], network, every)
    row: dict[str, Any] = {"weights": sum(weight.numel() for weight in network.parameters())}
    row |= {split: as_trained(network, *windows_of(parts[split], network)) for split in ("valid", "test")}
    row |= {
        "at": list(AT),
        "steps": language.losses(network, d, y, AT).tolist(),
        "mean_square": mean_square(network, d[:8]),
    }
    with torch.no_grad():
        T = network.operator(d[:32])
        u, residuals = T.zeros(), []
        for _ in range(AT[-1]):
            u, old = T(u), u
            residuals.append((u - old).norm(dim=2) / u.norm(dim=2))
    # a number for each step and a number for each place
    row["residuals"] = [residual.median().item() for residual in residuals]
    row["places"] = [residuals[k - 1].median(dim=0).values.tolist() for k in (4, 8, 13, 26)]
    return row


def words(keep: Keep) -> None:
    rows, rate = keep.rows(), chosen(keep)["post"]
    parts = {split: keep.text("ptb", split) for split in texts.SPLITS}
    for rule in WORD_RULES:
        row: dict[str, Any] = {"norm": "post", "rule": rule, "penalty": 0.0, "seed": 0}
        if has(rows, **row):
            continue
        network = keep.network(0, "post", rule, len(parts["train"].vocabulary), tied=True)
        row |= trained(network, parts["train"].tokens, 0, updates=keep.sizes.words, rate=rate, penalty=0.0)
        rows.append(row | judged(network, parts, 2 * keep.sizes.every))
        keep(rows)


def flat_gradient(network, rule, d, y, solver) -> Tensor:
    """By the weights of Q and R."""

    def loss(logits: Tensor, tokens: Tensor) -> Tensor:
        return cross_entropy(logits.flatten(0, 1), tokens.flatten())

    with network.using(solver=solver):
        return gradient_of(network, rule, d, y, loss=loss, parts="QR")


def at_rest(network: ImplicitNetwork, d: Tensor) -> tuple[Tensor, float]:
    """Where the iteration comes to rest, by plain steps or else by Anderson's, and the relative residual there."""
    found = []
    for solver in (FixedPointIteration, Anderson):
        with network.using(solver=solver(tol=1e-9, max_steps=1000, relative=True)):
            solution = network.solve(d)
        found.append((float((solution.residual / solution.u.flatten(1).norm(dim=1)).max()), solution.u))
        if solution.converged.all():
            break
    residual, u = min(found, key=lambda each: each[0])
    return u, residual


def look(network: ImplicitNetwork, d: Tensor, y: Tensor) -> dict:
    """J at rest on the first sequence, and the rules' cosines with the exact gradient on all, in float64."""
    network = copy.deepcopy(network).double()
    u, residual = at_rest(network, d)
    row: dict[str, Any] = {"residual": residual}
    T, u = network.operator(d[:1]), u[:1]
    J = language.jacobian(T, u)
    blocks = language.diagonal(J)
    radii = torch.linalg.eigvals(blocks).abs().amax(dim=1)
    row |= {"radius": radii.max().item(), "radii": radii.tolist(), "top": one_sided(T, u, tol=1e-2)}
    # how strongly the state of a place reacts on that of each: the picture of a causal Jacobian
    row["blocks"] = J.norm(dim=(1, 3)).tolist()
    row |= {
        "norm_of_J": theory.contraction_factor(T, u, tol=1e-2),
        "block_norm": torch.linalg.matrix_norm(blocks, 2).max().item(),
    }
    # in training's own state every rule has a cosine with all the steps recorded
    whole = flat_gradient(network, Unrolled(STEPS + 1), d, y, network.solver)
    rules = {"JFB": JFB(), "UPG": RULES["UPG"], "exact": RULES["exact"]}
    row["in_training"] = {
        name: cosine(flat_gradient(network, rule, d, y, FixedPointIteration(max_steps=STEPS, check_every=0)), whole)
        for name, rule in rules.items()
    }
    if residual > 1e-6:
        return row
    exact = ImplicitDifferentiation("gmres", tol=1e-8, max_steps=1000, per_sample=True, on_failure="warn")

    def rest(T, start):
        return FixedPointIteration(max_steps=1, check_every=0)(T, at_rest(network, d)[0])

    true = flat_gradient(network, exact, d, y, rest)
    row["cosines"] = {name: cosine(flat_gradient(network, rules[name], d, y, rest), true) for name in ("JFB", "UPG")}
    return row


class Last(nn.Module):
    """The head at the last place alone."""

    def __init__(self, S: nn.Module) -> None:
        super().__init__()
        self.S = S

    def forward(self, u: Tensor) -> Tensor:
        return self.S(u[:, -1])


def certificate(network: ImplicitNetwork, d: Tensor) -> dict:
    """The criterion of chapter 12 for the prediction after the last token of one sequence."""
    alone = ImplicitNetwork(network.Q, network.R, Last(network.S), on_unconverged="ignore")
    try:
        return {"criterion": theory.criterion(alone, d).smallest}
    except RuntimeError as error:
        return {"criterion": None, "why": str(error)}


def reads_ahead(network: ImplicitNetwork, d: Tensor, y: Tensor) -> dict:
    """Anderson's answer after 12 steps: its loss, and by how much a changed last quarter changes what it says of the first half."""
    other, middle = d.clone(), d.shape[1] // 2
    last = slice(d.shape[1] - d.shape[1] // 4, None)
    other[:, last] = d.flip(0)[:, last]
    row = {}
    for name, solver in (
        ("plain", FixedPointIteration(max_steps=STEPS, check_every=0)),
        ("Anderson", Anderson(tol=1e-30, max_steps=STEPS)),
    ):
        with network.using(solver=solver, gradient=JFB()), torch.no_grad():
            answers = [network(each).log_softmax(dim=-1) for each in (d, other)]
        loss = -answers[0].gather(2, y.unsqueeze(2)).mean().item()
        moved = (answers[0] - answers[1])[:, :middle].abs()
        row[name] = {"loss": loss, "moved": moved.mean().item(), "most": moved.max().item()}
    return row


def theory_of(keep: Keep) -> None:
    rows, settings = keep.rows(), chosen(keep)
    text = keep.text("tinyshakespeare", "valid")
    runs: list[tuple[str, str, float | None, int]]
    runs = [(norm, "JFB", None, seed) for norm in ("post", "pre") for seed in keep.arguments.seeds]
    runs += [
        (norm, rule, settings["penalty"] if flat else 0.0, seed)
        for seed in keep.arguments.seeds
        for norm, rule, flat in CHARACTERS
    ]
    for norm, rule, penalty, seed in runs:
        row: dict[str, Any] = {
            "norm": norm,
            "rule": rule,
            "penalty": penalty,
            "seed": seed,
            "trained": penalty is not None,
        }
        if has(rows, **row):
            continue
        network = keep.network(seed, norm, rule, len(text.vocabulary))
        if penalty is not None:
            path = keep.weights(norm, rule, penalty, seed)
            if not path.exists():
                print(f"{path} is not there: run the part `characters` first")
                continue
            network.load_state_dict(checkpoints.load(path)[0])
        d, y = windows_of(text, network)
        size = keep.sizes.probed
        row["text"] = "".join(text.vocabulary[k] for k in d[0, :size])
        # a trained network of seed 0 has been looked at where its training ended, at the same characters
        if penalty is None or seed:
            row |= look(network, d[:4, :size], y[:4, :size])
        if penalty is None or not seed:  # it takes longest
            row |= certificate(network, d[:1, :size])
        rows.append(row | {"ahead": reads_ahead(network, d[:16], y[:16])})
        keep(rows)


PARTS = {"choose": choose, "characters": characters, "words": words, "theory": theory_of}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--weights", type=Path, default=Path("runs/language"), help="where trained weights are kept")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of `characters` and `theory`")
    options.add_argument("--smoke", action="store_true", help="everything tiny, on random numbers")
    options.add_argument("parts", nargs="*", help="which; all without")
    arguments = options.parse_args()
    if arguments.smoke and arguments.out is None:
        options.error("--smoke needs --out: what it measures says nothing")
    arguments.weights.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    # twelve products leave the adjoint equation unsolved now and then; `adjoint` tells how far
    warnings.simplefilter("ignore", RuntimeWarning)
    for part in arguments.parts or PARTS:
        PARTS[part](Keep(arguments, part))


if __name__ == "__main__":
    main()
