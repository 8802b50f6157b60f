"""The runs that the book's chapters read: what each is, and one command that makes those that are missing.

`python -m jfb_tutorial reproduce digits --out book/records` trains what has no record there, or one made by an older version of
the training code. A run that was killed goes on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from . import records
from ._checks import choice
from .checkpoints import write
from .gradients import ImplicitDifferentiation, NeumannSeries, PublishedCG, UnrolledPhantom
from .recipes import Recipe, recipe
from .solvers import Anderson, FixedPointIteration
from .training import train

__all__ = ["SUITES", "Experiment", "reproduce"]

EXACT = ImplicitDifferentiation(tol=1e-4)
FIVE, THREE, ONE = range(5), range(3), range(1)


@dataclass(frozen=True)
class Experiment:
    """Runs that differ in their seed alone.

    Attributes:
        label: what they are called, in file names and in `book/` pages.
        scale: as for `recipes.recipe`.
        recipe: with seed 0.
        seeds: of the runs.
        keeps: the name of a file for the trained network of seed 0, beside its record, which then has a copy of the same name, as
            `mnist.safetensors` and `mnist.json`; "" keeps none.
    """

    label: str
    scale: str
    recipe: Recipe
    seeds: range
    keeps: str = ""

    def file(self, seed: int) -> str:
        """The name of a run's record, `<dataset>-<label>-<scale>-<seed>.json`."""
        return f"{self.recipe.dataset}-{self.label}-{self.scale}-{seed}.json"

    def failure(self, folder: Path | str, seed: int = 0) -> records.Record | None:
        """What is left of a run that failed, if it did: `result["failed"]` is the message. It is in the subfolder `failed`."""
        path = Path(folder) / "failed" / self.file(seed)
        return records.read(path) if path.is_file() else None

    def records(self, folder: Path | str) -> list[records.Record]:
        """The records of all seeds; FileNotFoundError names the command that makes a missing one."""
        found = []
        for seed in self.seeds:
            path = Path(folder) / self.file(seed)
            if not path.is_file():
                raise FileNotFoundError(
                    f"there is no record {path}; python -m jfb_tutorial reproduce {self.recipe.dataset} --out {folder} makes it"
                )
            found.append(records.read(path))
        return found


def _digits(label: str, seeds: range = FIVE, *, keeps: str = "", **changes) -> Experiment:
    return Experiment(label, "cpu", recipe("digits", "cpu", **changes), seeds, keeps)


CONVERGED = ImplicitDifferentiation(tol=1e-3)
PUBLISHED = {"rule": PublishedCG(), "norm": "rescaling"}
APPENDIX_E = {"lr": 1e-4, "solver": FixedPointIteration(tol=1e-4, max_steps=50)}  # for MNIST; the code has others
OURS = {"epochs": 20, "lr": 2e-3, "schedule": "triangular", "crop": 2}  # for MNIST; set beforehand, not tuned


def _paper(dataset: str, scale: str, **changes) -> tuple[Experiment, ...]:
    """The runs of the JFB paper on a data set: its Tables 1 and 2, its figures of training, and what tells their causes apart."""

    def runs(label: str, seeds: range = ONE, *, keeps: str = "", **more) -> Experiment:
        return Experiment(label, scale, recipe(dataset, scale, watch_test=True, **changes, **more), seeds, keeps)

    # on CIFAR-10 the paper solves the forward problem more tightly where the Jacobian is used
    without = {"batch_norm": False} | (
        {"solver": FixedPointIteration(tol=1e-4, max_steps=500)} if dataset == "cifar10" else {}
    )
    mnist = dataset == "mnist"

    def kept(name: str) -> str:
        return name if mnist and scale == "cpu" else ""

    short = {"epochs": 1} if scale == "cpu" else {}
    return (
        runs("jfb", THREE, keeps=kept("mnist.safetensors")),
        runs("jfb-no-norm", keeps=kept("mnist-no-norm.safetensors"), **without),
        runs("explicit", THREE, explicit=True),
        runs("jacobian", rule=CONVERGED, **without),
        runs("jacobian-batch-norm", THREE if mnist else ONE, rule=CONVERGED),
        runs("neumann-6", rule=NeumannSeries(6)),
        runs("neumann-11", rule=NeumannSeries(11)),
        # the adjoint solver of the paper's code, with and without the scaling of R that goes with it; Appendix E
        *(
            (
                runs("jacobian-published", keeps=kept("mnist-published.safetensors"), **PUBLISHED, **without),
                runs("jacobian-published-free", THREE, rule=PublishedCG(), **short, **without),
                runs("jfb-rescaling", norm="rescaling", **without),
                runs("jfb-appendix-e", **APPENDIX_E, **short),
                runs("jfb-appendix-e-lr", lr=APPENDIX_E["lr"], **short),
                runs("jfb-appendix-e-tol", solver=APPENDIX_E["solver"], **short),
                runs("jfb-augmented", keeps=kept("mnist-augmented.safetensors"), **OURS),
            )
            if mnist
            else ()
        ),
    )


FAST = {
    "epochs": 18,
    "batch": 250,
    "cutout": 0,
    "held_out": 1000,
    "probe": 16,
    "compile": False,
}  # what one core does in two hours
SHORT = {"epochs": 40, "compile": False}  # compiling takes a minute
ON_A_CORE = {"precision": "bfloat16", "channels_last": True, "held_out": 2000}
ON_A_GPU = {"epochs": 30, "held_out": 5000, "probe": 16}
ABLATIONS = {
    "explicit": {"explicit": True},
    # how the iteration is made
    "tol-0.1": {"solver": FixedPointIteration(tol=1e-1, max_steps=20, relative=True)},
    "tol-0.001": {"solver": FixedPointIteration(tol=1e-3, max_steps=20, relative=True)},
    "5-steps": {"solver": FixedPointIteration(tol=1e-2, max_steps=5, relative=True, check_every=0)},
    "every-step": {"norm": "every-step"},
    # how it is trained
    "adamw": {"optimiser": "adamw", "lr": 2e-3, "weight_decay": 5e-2},
    "constant": {"schedule": "constant", "lr": 0.1},
    "plain-images": {"flip": "none", "crop": 0, "cutout": 0},
    "no-average": {"average": 0.0},
    "no-smoothing": {"label_smoothing": 0.0},
    # how it is computed
    "float32": {"precision": "float32"},
}
"""What is taken out of our recipe for CIFAR-10, or replaced, one at a time."""


def _fast(scale: str) -> tuple[Experiment, ...]:
    """The runs of our network on CIFAR-10."""
    base = {"cpu": ON_A_CORE, "full": ON_A_GPU}[scale]

    def ablation(name: str, seeds: range, **changes) -> Experiment:
        return Experiment(f"ablation-{name}", scale, recipe("cifar10", scale, **base | changes), seeds)

    runs = [ablation("none", THREE)]
    runs += [ablation(name, THREE if name == "explicit" else ONE, **changes) for name, changes in ABLATIONS.items()]
    if scale == "cpu":
        return (Experiment("fast-jfb", "cpu", recipe("cifar10", "full", **FAST), ONE, "cifar10.safetensors"), *runs)
    for name, changes in {"eager": {"compile": False}, "channels-first": {"channels_last": False}}.items():
        runs.append(ablation(name, ONE, **changes))
    return (
        Experiment("fast-jfb", "full", recipe("cifar10", "full"), THREE, "cifar10-full.safetensors"),
        Experiment("fast-short", "full", recipe("cifar10", "full", **SHORT), THREE),
        Experiment("fast-explicit", "full", recipe("cifar10", "full", explicit=True), THREE),
        *runs,
    )


SUITES: dict[str, tuple[Experiment, ...]] = {
    "digits": (
        # the rules
        _digits("jfb", keeps="digits.safetensors"),
        _digits("exact", rule=EXACT, compare=True),
        _digits("neumann-6", rule=NeumannSeries(6)),
        _digits("neumann-11", rule=NeumannSeries(11)),
        _digits("npg-5-0.5", rule=NeumannSeries(5, 0.5)),
        _digits("upg-5-0.5", rule=UnrolledPhantom(5, 0.5)),
        _digits("explicit", explicit=True),
        # batch normalisation in R
        _digits("jfb-every-step", norm="every-step", reestimate=0),
        _digits("jfb-last-step", norm="last-step", reestimate=0),
        _digits("jfb-fixed-point", reestimate=0),
        _digits("jfb-group", THREE, norm="group"),
        _digits("jfb-no-norm", THREE, batch_norm=False),
        # the factor γ in R
        *(_digits(f"jfb-gamma-{gamma:g}", THREE, gamma=gamma) for gamma in (0.9, 1.5, 3.0)),
        _digits("exact-gamma-1.5", THREE, gamma=1.5, rule=EXACT),
        # the tolerance, relative
        *(
            _digits(f"jfb-tol-{tol:g}", THREE, solver=FixedPointIteration(tol=tol, relative=True))
            for tol in (0.5, 0.1, 0.01)
        ),
        # another solver: the paper's open direction
        _digits("jfb-anderson", solver=Anderson(tol=1e-3, max_steps=50)),
    ),
    "mnist": (*_paper("mnist", "cpu"), *_paper("mnist", "full")),
    "svhn": _paper("svhn", "full"),
    "cifar10": (*_fast("cpu"), *_fast("full"), *_paper("cifar10", "full", network="cifar10")),
}
"""The runs of a chapter, by data set."""


def at_scale(dataset: str, scale: str = "", device: str | None = None) -> str:
    """`scale`, or what is fit for a device: "full" on a GPU, "cpu" without one, unless the data set has runs at one scale only.

    Raises:
        ValueError: there are no such runs.
    """
    choice("dataset", dataset, SUITES)
    known = sorted({experiment.scale for experiment in SUITES[dataset]})
    if scale:
        return choice("scale", scale, known)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    fit = "cpu" if device.type == "cpu" else "full"
    return fit if fit in known else known[0]


def missing(dataset: str, folder: Path | str, scale: str = "") -> Iterator[tuple[Experiment, int, str]]:
    """The runs of a scale without a good record in a folder, each with the reason."""
    scale = at_scale(dataset, scale)
    for experiment in (each for each in SUITES[dataset] if each.scale == scale):
        for seed in experiment.seeds:
            path = Path(folder) / experiment.file(seed)
            record = records.read(path) if path.is_file() else experiment.failure(folder, seed)
            if record is None:
                yield experiment, seed, "there is no record"
            elif record["config"] != experiment.recipe.replace(seed=seed).to_json():
                yield experiment, seed, "its record is of another recipe"
            elif record.stale:
                yield experiment, seed, "its record was made by an older version of the training code"
            elif (
                experiment.keeps
                and seed == 0
                and "failed" not in record["result"]
                and not (Path(folder) / experiment.keeps).is_file()
            ):
                yield experiment, seed, "its trained network is not there"


def _can_go_on(under_way: Path, wanted: Recipe) -> bool:
    """Whether a run that was left there is of this recipe and of this version of training."""
    for name, key in (("record.json", "config"), ("state.json", "recipe")):
        try:
            left = json.loads((under_way / name).read_text(encoding="utf-8"))
            return left[key] == wanted.to_json() and left.get("training_version", 1) == records.TRAINING_VERSION
        except (OSError, ValueError, KeyError):
            continue
    return False


def _keep_failure(path: Path, wanted: Recipe, error: Exception, under_way: Path, device: str | None) -> None:
    """A record of a run that failed: a failure is a result, too."""
    try:
        rows = json.loads((under_way / "state.json").read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError, KeyError):
        rows = []
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"config": wanted.to_json(), "seed": wanted.seed, **records.provenance(device)}
    records.save(path, records.Record(about | {"epochs": rows, "result": {"failed": str(error)}}))


def reproduce(
    dataset: str,
    folder: Path | str,
    *,
    labels: tuple[str, ...] = (),
    scale: str = "",
    device: str | None = None,
    **settings,
) -> None:
    """Train what `missing` yields, and put the records into a folder.

    Args:
        dataset: a key of `SUITES`.
        folder: of the records; runs under way are in its subfolder `.runs`.
        labels: of the experiments to make; all by default.
        scale: "cpu" or "full"; see `at_scale`.
        device: "cpu", "cuda", …; by default a GPU if there is one.
        settings: `progress` and `callback` as for `training.train`.

    Raises:
        RuntimeError: some runs failed; all others were made. A failed one leaves a record in the subfolder `failed`; the same code
            does not try it again.
        torch.OutOfMemoryError: a batch does not fit into the device's memory; the message says which one does.
    """
    folder, scale = Path(folder), at_scale(dataset, scale, device)
    for label in labels:
        choice("label", label, [experiment.label for experiment in SUITES[dataset] if experiment.scale == scale])
    todo = [item for item in missing(dataset, folder, scale) if not labels or item[0].label in labels]
    failed = []
    for number, (experiment, seed, why) in enumerate(todo, 1):
        print(f"{number}/{len(todo)} {experiment.file(seed)}: {why}", flush=True)
        under_way = folder / ".runs" / experiment.file(seed).removesuffix(".json")
        wanted = experiment.recipe.replace(seed=seed)
        if not _can_go_on(under_way, wanted):
            shutil.rmtree(under_way, ignore_errors=True)
        try:
            train(wanted, under_way, resume=True, device=device, **settings)
        except torch.OutOfMemoryError:
            raise  # it says something about the machine, not about the run
        except (FloatingPointError, RuntimeError) as error:
            failed.append(f"{experiment.file(seed)}: {error}")
            print(f"    failed: {error}", flush=True)
            _keep_failure(folder / "failed" / experiment.file(seed), wanted, error, under_way, device)
            if under_way.is_dir() and not any(under_way.iterdir()):  # it failed before its first checkpoint
                under_way.rmdir()
            continue
        if experiment.keeps and seed == 0:
            write(folder / experiment.keeps, (under_way / "model.safetensors").read_bytes())
            write((folder / experiment.keeps).with_suffix(".json"), (under_way / "record.json").read_bytes())
        write(folder / experiment.file(seed), (under_way / "record.json").read_bytes())
        (folder / "failed" / experiment.file(seed)).unlink(missing_ok=True)
        shutil.rmtree(under_way)
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(todo)} runs failed:\n" + "\n".join(failed))
    if (folder / ".runs").is_dir() and not any((folder / ".runs").iterdir()):
        (folder / ".runs").rmdir()
