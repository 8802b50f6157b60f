"""Recipes: all that decides a training run, in one frozen dataclass, and the ones this book uses.

A recipe prints as code, is stored in every record and checkpoint, and comes back from there equal. A field is an option of
`python -m jfb_tutorial train`.
"""

from __future__ import annotations

import ast
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields

from .. import gradients, solvers
from .._checks import choice, flag, integer, nearest, positive
from ..architectures import ARCHITECTURES, NORMS
from ..gradients import JFB, Unrolled
from .batches import Augmentation
from .data import DATASETS
from .schedules import SCHEDULES, rate

__all__ = ["RULES", "SCALES", "SOLVERS", "Recipe", "parse", "recipe"]

SCALES = ("smoke", "cpu", "full")
RULES = {name: getattr(gradients, name) for name in gradients.__all__ if name not in ("Tally", "tally")}
SOLVERS = {name: getattr(solvers, name) for name in solvers.__all__ if name != "Solution"}


def option(default, help: str):
    """A field of `Recipe`; `help` is what the command line says of it."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides a training run, besides the device. See `python -m jfb_tutorial train --help` for the fields.

    Raises:
        TypeError, ValueError: a setting is bad; the message names it.
    """

    dataset: str
    network: str = option("", "the architecture; by default the data set's")
    batch_norm: bool = option(True, "batch normalisation in R")
    dropout: bool = option(True, "dropout in Q and S")
    norm: str = option("fixed-point", f"its policy, or what stands in for it: {', '.join(NORMS)}")
    explicit: bool = option(False, "the explicit twin")
    gamma: float | None = option(None, "the factor in R that damps u; by default the network's own")
    rule: Callable = option(JFB(), "the backward rule, as in Python: JFB, 'NeumannSeries(terms=6)', …")
    solver: Callable | None = option(None, "the forward solver, as in Python; by default the network's own")
    evaluation: Callable | None = option(None, "the solver in evaluation; by default the one in training")
    epochs: int = option(10, "passes over the training images")
    batch: int = option(100, "images in a step, over all processes together")
    optimiser: str = option(
        "adam", "adam, adamw, sgd (with Nesterov momentum 0.9), or muon (for the convolutions of Q; sgd for the rest)"
    )
    lr: float = option(1e-3, "learning rate, at its highest")
    schedule: str = option("constant", "constant, cosine, triangular (up over a fifth, down to 0), or halving")
    halve_every: int = option(200, "epochs between two halvings of the learning rate, with --schedule halving")
    weight_decay: float = option(0.0, "weight decay")
    decay: str = option("all", "what decays: all parameters, or weights (those with two dimensions or more)")
    label_smoothing: float = option(0.0, "label smoothing")
    average: float = option(
        0.0, "decay a step of an exponential average of the weights, over the last fifth; 0 is none"
    )
    flip: str = option("none", "none, random or alternate")
    crop: int = option(0, "frame in pixels for random crops")
    fill: str = option("reflect", "what the frame holds: reflect or mean")
    cutout: int = option(0, "side in pixels of a square painted over")
    erase: float = option(0.0, "probability of a random rectangle painted over")
    precision: str = option("float32", "float32, bfloat16 (autocast) or float64")
    channels_last: bool = option(False, "memory format channels_last")
    compile: bool = option(False, "compile Q, R and S with torch.compile")
    drop_last: bool = option(False, "leave out a last batch that is smaller than the others")
    images: int = option(0, "training images to use, the first so many of each class; 0 is all")
    held_out: int = option(0, "training images held out to choose by, stratified and the same in every run")
    reestimate: int = option(0, "training images on which batch normalisation is measured anew at the end; 0 is none")
    probe: int = option(16, "images on which the Lipschitz constant of T is measured after each epoch; 0 is none")
    compare: bool = option(
        False, "after each epoch, the cosines of the book's rules with the exact gradient on the probe"
    )
    watch_test: bool = option(False, "test after every epoch, in eval and in train mode, as the JFB paper's code does")
    seed: int = option(0, "of weights, orders, augmentation and dropout")

    def __post_init__(self) -> None:
        if not self.network:
            object.__setattr__(self, "network", _network_of(self.dataset))
        for name, known in (("rule", RULES), ("solver", SOLVERS), ("evaluation", SOLVERS)):
            value = getattr(self, name)
            if isinstance(value, str):
                object.__setattr__(self, name, parse(name, value, known))
            elif not isinstance(value, tuple(known.values())) and not (value is None and name != "rule"):
                raise TypeError(f"{name} must be one of {', '.join(known)}, with (), got {value!r}")
        if self.explicit:
            if self.rule not in (JFB(), Unrolled(1)):
                raise ValueError(f"an explicit network is differentiated as it is; leave rule out, got {self.rule}")
            object.__setattr__(self, "rule", Unrolled(1))
        choice("network", self.network, ARCHITECTURES)
        choice("norm", self.norm, NORMS)
        choice("optimiser", self.optimiser, ("adam", "adamw", "muon", "sgd"))
        choice("schedule", self.schedule, SCHEDULES)
        choice("decay", self.decay, ("all", "weights"))
        choice("precision", self.precision, ("float32", "bfloat16", "float64"))
        positive("lr", self.lr, "1e-3 is usual for Adam")
        for name in (
            "batch_norm",
            "dropout",
            "explicit",
            "channels_last",
            "compare",
            "compile",
            "drop_last",
            "watch_test",
        ):
            flag(name, getattr(self, name))
        for name, least in {"epochs": 1, "batch": 1, "halve_every": 1, "images": 0, "held_out": 0}.items():
            integer(name, getattr(self, name), least, f"at least {least} makes sense")
        for name in ("reestimate", "probe", "seed"):
            integer(name, getattr(self, name), 0, "0 is the least")
        for name, high in {"weight_decay": math.inf, "label_smoothing": 1, "average": 1}.items():
            if not 0 <= getattr(self, name) < high:
                raise ValueError(
                    f"{name} must be at least 0{f' and below {high}' if high == 1 else ''}, got {getattr(self, name)}"
                )
        self.augmentation  # noqa: B018  (checks its fields)

    @property
    def augmentation(self) -> Augmentation:
        """What happens to training images."""
        return Augmentation(self.flip, self.crop, self.fill, self.cutout, self.erase)

    @property
    def arguments(self) -> dict:
        """The keywords of `architectures.build` for this network, but for the solver and the rule."""
        return {name: getattr(self, name) for name in ("batch_norm", "explicit", "norm", "gamma")}

    def rate(self, step: int, steps: int, steps_an_epoch: int) -> float:
        """The learning rate at a step of `steps`, the first of which is 0."""
        return rate(self.schedule, self.lr, step, steps, steps_between_halvings=steps_an_epoch * self.halve_every)

    def to_json(self) -> dict:
        """The fields as JSON has them; rules and solvers as code."""
        return {f.name: repr(v) if callable(v := getattr(self, f.name)) else v for f in fields(self)}

    @classmethod
    def from_json(cls, values: dict) -> Recipe:
        """The recipe that `to_json` wrote; ValueError if it has other fields."""
        if unknown := set(values) - {f.name for f in fields(cls)}:
            raise ValueError(f"the recipe has unknown fields: {', '.join(sorted(unknown))}; was it made by other code?")
        return cls(**values)

    def replace(self, **changes) -> Recipe:
        """The recipe with some fields changed; ValueError offers the nearest name for an unknown one."""
        for name in changes:
            choice("field", name, [f.name for f in fields(self)])
        return dataclasses.replace(self, **changes)


def parse(name: str, text: str, known: dict[str, Callable]):
    """What `text` makes, the name of a class of `known` with or without literal arguments: "JFB", "NeumannSeries(terms=6)".

    Raises:
        ValueError: it is no such thing; the nearest name is offered.
        TypeError: the class does not take these arguments.
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
        positional, named = [], {}
        if isinstance(call, ast.Call):
            positional = [ast.literal_eval(argument) for argument in call.args]
            named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
            call = call.func
        if not isinstance(call, ast.Name) or None in named:
            raise ValueError
    except (SyntaxError, ValueError):
        raise ValueError(
            f"{name} must be a name, with arguments if need be, such as {next(iter(known))}(), got {text!r}"
        ) from None
    lower = {key.lower(): key for key in known}
    made = known[lower.get(call.id.lower()) or choice(name, call.id, known)]
    try:
        return made(*positional, **named)
    except TypeError as error:
        raise TypeError(f"{name} {text!r}: {error}") from None


def recipe(dataset: str, scale: str = "cpu", **changes) -> Recipe:
    """The book's recipe for a data set at a scale, with some fields changed.

    Args:
        dataset: one of `data.DATASETS`, or an image folder's name; then `network` must be among the changes.
        scale: "smoke" (seconds, a few images), "cpu" (minutes on two cores) or "full" (one GPU; for the digits as "cpu").
        changes: fields of `Recipe`.

    Raises:
        ValueError, TypeError: an unknown data set, scale or field, or a bad setting.
    """
    choice("scale", scale, SCALES)
    network = changes.get("network") or _network_of(dataset)
    choice("network", network, ARCHITECTURES)
    settings = OF_THE_BOOK[network] | ({} if scale == "full" else AT_SCALE[scale].get(network, {}))
    return Recipe(dataset=dataset, network=network, **settings).replace(**changes)


def _network_of(dataset: str) -> str:
    if dataset not in DATASETS:
        raise ValueError(
            f"dataset {dataset!r} has no network of its own, as {', '.join(DATASETS)} have: did you mean "
            f"{nearest(dataset, DATASETS)!r}? For an image folder, give network, one of {', '.join(ARCHITECTURES)}"
        )
    return "fast_cifar10" if dataset == "cifar10" else dataset


TIGHT = solvers.FixedPointIteration(tol=1e-4, max_steps=100, relative=True)

# the paper's settings are those of its code (Adam, cross entropy, batches of 100)
OF_THE_BOOK: dict[str, dict] = {
    "digits": {
        "epochs": 20,
        "batch": 50,
        "lr": 5e-3,
        "schedule": "triangular",
        "evaluation": TIGHT,
        "reestimate": 1000,
    },
    "mnist": {"epochs": 100, "lr": 2e-4, "weight_decay": 1e-6, "reestimate": 5000},
    "svhn": {"epochs": 100, "lr": 1e-4, "weight_decay": 2e-4, "reestimate": 5000},
    "cifar10": {"epochs": 1000, "lr": 1e-3, "weight_decay": 1e-3, "schedule": "halving", "reestimate": 5000}
    | {"flip": "random", "crop": 2, "fill": "mean", "erase": 0.95},
    "fast_cifar10": {"epochs": 100, "batch": 512, "optimiser": "sgd", "lr": 0.2, "schedule": "triangular"}
    | {"weight_decay": 5e-4, "decay": "weights", "label_smoothing": 0.1, "average": 0.99}
    | {"flip": "alternate", "crop": 4, "cutout": 8, "evaluation": TIGHT, "reestimate": 10000}
    | {"precision": "bfloat16", "channels_last": True, "compile": True, "drop_last": True}
    | {"probe": 0},  # looking at T takes as long as half an epoch
}
"""The recipes at full scale, by network."""

AT_SCALE: dict[str, dict[str, dict]] = {
    "smoke": {
        "digits": {"epochs": 3, "images": 500, "reestimate": 500},
        "mnist": {"epochs": 1, "images": 200, "reestimate": 200, "probe": 2},
        "svhn": {"epochs": 1, "images": 200, "reestimate": 200, "probe": 2},
        "cifar10": {"epochs": 1, "images": 100, "batch": 20, "reestimate": 100, "probe": 1},
        "fast_cifar10": {"epochs": 2, "images": 200, "batch": 50, "reestimate": 200, "probe": 2}
        | {"precision": "float32", "channels_last": False, "compile": False},
    },
    "cpu": {
        "mnist": {"epochs": 5, "probe": 4},
        "svhn": {"epochs": 3, "images": 10000, "probe": 2},
        "cifar10": {"epochs": 3, "images": 2000, "probe": 1},
        "fast_cifar10": {"epochs": 10, "images": 8000, "batch": 250, "probe": 4}
        | {"precision": "float32", "channels_last": False, "compile": False},
    },
}
"""What is different at the smaller scales."""
