"""Recipes: all that decides a training run, in one frozen dataclass, and the ones this book uses.

A recipe prints as code, is stored in every record and checkpoint, and comes back from there equal. A field is an option of
`python -m jfb_tutorial train`, and carries its own parser and check, see `options`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from .. import gradients, solvers
from .._checks import check_choice, nearest
from ..architectures import ARCHITECTURES, NORMS
from ..gradients import JFB, Unrolled
from ..normalisation import POLICIES
from .batches import Augmentation
from .data import DATASETS
from .options import (
    added,
    as_number,
    call,
    count,
    fraction,
    number,
    number_or_none,
    one_of,
    option,
    parse,
    positive_or_error,
    read_integer,
    read_text,
    switch,
)

__all__ = ["OWN", "RULES", "SCALES", "SOLVERS", "Recipe", "parse", "recipe"]

SCALES = ("smoke", "cpu", "full")
# what a string on the command line, in a record or in a checkpoint may name, and nothing else
RULES = {name: getattr(gradients, name) for name in gradients.__all__ if name not in ("Tally", "tally")}
SOLVERS = {name: getattr(solvers, name) for name in solvers.__all__ if name != "Solution"}
OWN = "own"
"""The `network` of a recipe that trains a network of the caller's, which no name stands for."""

GIVES_WAY = frozenset({"images", "held_out", "batch", "reestimate", "probe"})
"""The settings that depend on how many images there are: a preset's give way to a smaller data set, a caller's do not."""


def _augments(name: str, value: Any) -> Any:
    value = value if isinstance(value, str) else as_number(name, value)
    # an Augmentation checks its settings when it is made
    return getattr(Augmentation(**{name: value}), name)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides a training run, besides the device. See `python -m jfb_tutorial train --help` for the fields.

    Attributes:
        proposals: the fields that a preset has proposed and that give way to a smaller data set. Not a field: no part of
            what is compared, printed or stored.

    Raises:
        TypeError, ValueError: a setting is bad; the message names it.
    """

    # a ClassVar is no field to dataclasses; `_proposing` sets it on the instance all the same
    proposals: ClassVar[Collection[str]] = frozenset()

    dataset: str
    network: str = one_of("", "the architecture; by default the data set's", (*ARCHITECTURES, OWN))
    batch_norm: bool = switch(True, "batch normalisation in R")
    dropout: bool = switch(True, "dropout, where the network has it")
    norm: str = one_of("fixed-point", f"its policy, or what stands in for it: {', '.join(NORMS)}", NORMS)
    explicit: bool = switch(False, "the explicit twin")
    gamma: float | None = number(
        None, "the factor in R that damps u; by default the network's own", check=number_or_none
    )
    width: int = added(count(0, "channels of each resolution of the multiscale network; 0 is its own number, 24"))
    weight_norm: bool = added(switch(True, "weight normalisation in R, in the multiscale network"))
    rule: Callable = call(JFB(), "the backward rule, as in Python: JFB, 'NeumannSeries(terms=6)', …", RULES)
    solver: Callable | None = call(
        None, "the forward solver, as in Python; by default the network's own", SOLVERS, optional=True
    )
    evaluation: Callable | None = call(
        None, "the solver in evaluation; by default the one in training", SOLVERS, optional=True
    )
    epochs: int = count(10, "passes over the training images", least=1)
    pretrain: int = added(
        count(
            0, "the first so many of these epochs are trained through an unrolled network, before the rule takes over"
        )
    )
    pretrain_steps: int = added(count(10, "steps of that network, from zero", least=1))
    batch: int = count(100, "images in a step, over all processes together", least=1)
    optimiser: str = one_of(
        "adam",
        "adam, adamw, sgd (with Nesterov momentum 0.9), or muon (for the convolutions of Q; sgd for the rest)",
        ("adam", "adamw", "muon", "sgd"),
    )
    lr: float = number(1e-3, "learning rate, at its highest", check=positive_or_error("1e-3 is usual for Adam"))
    schedule: str = one_of(
        "constant",
        "constant, cosine, triangular (up over a fifth, down to 0), or halving",
        ("constant", "cosine", "triangular", "halving"),
    )
    halve_every: int = count(200, "epochs between two halvings of the learning rate, with --schedule halving", least=1)
    weight_decay: float = fraction(0.0, "weight decay")
    decay: str = one_of(
        "all", "what decays: all parameters, or weights (those with two dimensions or more)", ("all", "weights")
    )
    label_smoothing: float = fraction(0.0, "label smoothing", below=1)
    average: float = fraction(
        0.0, "decay a step of an exponential average of the weights, over the last fifth; 0 is none", below=1
    )
    flip: str = option("none", "none, random or alternate", parse=read_text, check=_augments)
    crop: int = option(0, "frame in pixels for random crops", parse=read_integer, check=_augments)
    fill: str = option("reflect", "what the frame holds: reflect or mean", parse=read_text, check=_augments)
    cutout: int = option(0, "side in pixels of a square painted over", parse=read_integer, check=_augments)
    erase: float = number(0.0, "probability of a random rectangle painted over", check=_augments)
    precision: str = one_of("float32", "float32, bfloat16 (autocast) or float64", ("float32", "bfloat16", "float64"))
    channels_last: bool = switch(False, "memory format channels_last")
    compile: bool = switch(False, "compile Q, R and S with torch.compile")
    drop_last: bool = switch(False, "leave out a last batch that is smaller than the others")
    images: int = count(0, "training images to use, the first so many of each class; 0 is all")
    held_out: int = count(0, "training images held out to choose by, stratified and the same in every run")
    reestimate: int = count(0, "training images on which batch normalisation is measured anew at the end; 0 is none")
    probe: int = count(16, "images on which the Lipschitz constant of T is measured after each epoch; 0 is none")
    compare: bool = switch(
        False, "after each epoch, the cosines of the book's rules with the exact gradient on the probe"
    )
    radius: bool = added(switch(False, "after each epoch, T's spectral radius on the probe"))
    criterion: bool = added(
        switch(False, "after each epoch, T's spectral radius and JFB's exact criterion for descent on the probe")
    )
    watch_test: bool = switch(False, "test after every epoch, in eval and in train mode, as the JFB paper's code does")
    seed: int = count(0, "of weights, orders, augmentation and dropout")

    def __post_init__(self) -> None:
        if not isinstance(self.dataset, str) or not self.dataset:
            raise TypeError(f"dataset must be a name, got {self.dataset!r}; digits needs no download")
        if not self.network:
            # the way around `frozen`, open to __post_init__
            object.__setattr__(self, "network", _network_of(self.dataset))
        for f in fields(self):
            if check := f.metadata.get("check"):
                object.__setattr__(self, f.name, check(f.name, getattr(self, f.name)))
        if self.explicit:
            # JFB() is the default, which nobody need have asked for; Unrolled(1) is set below, and so in records
            if self.rule not in (JFB(), Unrolled(1)):
                raise ValueError(f"an explicit network is differentiated as it is; leave rule out, got {self.rule}")
            object.__setattr__(self, "rule", Unrolled(1))
        self._check_pretraining()

    def _check_pretraining(self) -> None:
        if self.pretrain and self.explicit:
            raise ValueError(
                f"an explicit network has nothing to be pretrained for; leave pretrain out, got {self.pretrain}"
            )
        if self.pretrain >= self.epochs:
            raise ValueError(
                f"pretrain must be below epochs, {self.epochs}, got {self.pretrain}: the rule would train nothing; to train through "
                f"an unrolled network alone, rule='Unrolled({self.pretrain_steps})'"
            )
        default = next(f.default for f in fields(self) if f.name == "pretrain_steps")
        if not self.pretrain and self.pretrain_steps != default:
            raise ValueError(
                f"pretrain_steps is about the epochs that pretrain counts, and there are none, got {self.pretrain_steps}; leave it "
                "out, or give pretrain"
            )

    @property
    def augmentation(self) -> Augmentation:
        """What happens to training images."""
        return Augmentation(self.flip, self.crop, self.fill, self.cutout, self.erase)

    @property
    def arguments(self) -> dict:
        """The keywords of `architectures.build` for this network, but for the solver and the rule."""
        settings = {name: getattr(self, name) for name in ("batch_norm", "explicit", "norm", "gamma")}
        # most networks have neither
        if self.width:
            settings["width"] = self.width
        if not self.weight_norm:
            settings["weight_norm"] = False
        return settings

    def rate(self, step: int, steps: int, steps_an_epoch: int) -> float:
        """The learning rate at a step of `steps`, the first of which is 0.

        "cosine" falls to 0 along half a wave; "triangular" rises for a fifth of the run and falls to 0; "halving" halves after
        each `halve_every` epochs.
        """
        gone = step / steps
        match self.schedule:
            case "cosine":
                return self.lr * (1 + math.cos(math.pi * gone)) / 2
            case "triangular":
                # (step + 1) over (a fifth + 1): the first step has a rate above 0, the last one too
                return self.lr * min((step + 1) / (0.2 * steps + 1), (1 - gone) / 0.8)
            case "halving":
                return self.lr * 0.5 ** (step // (steps_an_epoch * self.halve_every))
            case _:
                return self.lr

    def to_json(self) -> dict:
        """The fields as JSON has them; rules and solvers as code. Of those that came later, see `options.added`, only what is set."""
        return {
            f.name: repr(v) if callable(v) else v
            for f in fields(self)
            if (v := getattr(self, f.name)) != f.default or not f.metadata.get("added")
        }

    @classmethod
    def from_json(cls, values: dict) -> Recipe:
        """The recipe that `to_json` wrote; ValueError if it has other fields."""
        if unknown := set(values) - {f.name for f in fields(cls)}:
            raise ValueError(f"the recipe has unknown fields: {', '.join(sorted(unknown))}; was it made by other code?")
        return cls(**values)

    def replace(self, **changes) -> Recipe:
        """The recipe with some fields changed; ValueError offers the nearest name for an unknown one."""
        for name in changes:
            check_choice("field", name, [f.name for f in fields(self)])
        changed = dataclasses.replace(self, **changes)
        # without batch normalisation the field keeps its default, which here was asked for
        if not changed.batch_norm and changes.get("norm") in POLICIES:
            raise ValueError(
                f"norm={changed.norm!r} is about the batch normalisation that batch_norm=False leaves out; leave one of them out"
            )
        # what a caller sets is no proposal any more; dataclasses.replace copies fields only
        return changed._proposing(frozenset(self.proposals) - changes.keys())

    def give_way(self, **settings: int) -> Recipe:
        """The recipe with proposals lowered to fit a data set; what was proposed remains so."""
        lowered: dict[str, Any] = dict(settings)
        return dataclasses.replace(self, **lowered)._proposing(self.proposals)

    def differences(self, config: dict, gave_way: dict) -> list[str]:
        """The fields in which a run is none of this recipe.

        Args:
            config: what the run was trained with, as `to_json` has it.
            gave_way: the proposals that it lowered, as they were.
        """
        own = self.to_json()
        # some older records hold a field at its default that is left out by now
        later = {f.name: f.default for f in fields(self) if f.metadata.get("added")}
        config = {name: value for name, value in config.items() if name not in later or value != later[name]}
        # nothing else gives way, whatever a file says
        asked = {**config, **{name: value for name, value in gave_way.items() if name in GIVES_WAY}}
        return [
            name
            for name in {**own, **config}
            # equal to what the run had, or was asked for; a field that only one side has differs, null or not
            if own.get(name) not in (config.get(name), asked.get(name)) or (name in own) != (name in config)
        ]

    def _proposing(self, names: Collection[str]) -> Recipe:
        object.__setattr__(self, "proposals", frozenset(names))
        return self


def recipe(dataset: str, scale: str = "cpu", **changes) -> Recipe:
    """The book's recipe for a data set at a scale, with some fields changed.

    What is not changed is a proposal: `images`, `held_out`, `batch`, `reestimate` and `probe` give way to a smaller data set when
    it is trained, with a line that says so.

    Args:
        dataset: one of `data.DATASETS`, or an image folder's name, or any name for data of your own; then `network` must be
            among the changes.
        scale: "smoke" (seconds, a few images), "cpu" (minutes on two cores) or "full" (one GPU; for the digits as "cpu").
        changes: fields of `Recipe`.

    Raises:
        ValueError, TypeError: an unknown data set, scale or field, or a bad setting.
    """
    check_choice("scale", scale, SCALES)
    network = changes.get("network") or _network_of(dataset)
    check_choice("network", network, OF_THE_BOOK)
    settings = OF_THE_BOOK[network] | ({} if scale == "full" else AT_SCALE[scale].get(network, {}))
    preset = Recipe(dataset=dataset, network=network, **settings)
    return preset._proposing(GIVES_WAY).replace(**changes)


def _network_of(dataset: str) -> str:
    if dataset not in DATASETS:
        raise ValueError(
            f"dataset {dataset!r} has no network of its own, as {', '.join(DATASETS)} have: did you mean "
            f"{nearest(dataset, DATASETS)!r}? For an image folder, give network, one of {', '.join(ARCHITECTURES)}; for a "
            f"network of yours, network={OWN!r}"
        )
    return {"cifar10": "fast_cifar10", "fashion-mnist": "mnist"}.get(dataset, dataset)


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
    # the settings of the multiscale models' code for the baseline of the phantom-gradient paper; its phantom gradients have SGD
    "multiscale": {"epochs": 50, "batch": 128, "lr": 1e-3, "schedule": "cosine", "weight_decay": 2.5e-6},
    OWN: {},
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
        "multiscale": {"epochs": 2, "images": 60, "batch": 20, "width": 6, "probe": 1},
        OWN: {"epochs": 2, "images": 200, "batch": 50, "probe": 2},
    },
    "cpu": {
        "mnist": {"epochs": 5, "probe": 4},
        "svhn": {"epochs": 3, "images": 10000, "probe": 2},
        "cifar10": {"epochs": 3, "images": 2000, "probe": 1},
        "fast_cifar10": {"epochs": 10, "images": 8000, "batch": 250, "probe": 4}
        | {"precision": "float32", "channels_last": False, "compile": False},
        "multiscale": {"epochs": 5, "images": 8000, "batch": 64, "width": 12, "probe": 2},
    },
}
"""What is different at the smaller scales."""
