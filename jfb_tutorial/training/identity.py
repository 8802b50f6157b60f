"""What a run is besides its recipe: its images, and a rule and a solver of the caller's, in words that a file can hold.

A run that went on with others would be neither the one nor the other, and its record would not say so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..gradients import JFB
from ..network import ImplicitNetwork
from .data import Images
from .recipes import Recipe

__all__ = ["check_identity", "describe", "of_images", "of_network"]

DIGESTS = {
    key: f"other {kind} images, or other labels of them" for key, kind in (("train", "training"), ("test", "test"))
}
PLAIN = (int, float, str, type(None))


def of_images(train: Images, test: Images) -> dict[str, str]:
    """Digests of the images, their labels and the names of these."""
    return {"train": _digest(train), "test": _digest(test)}


def of_network(recipe: Recipe, network: ImplicitNetwork) -> dict[str, str]:
    """The rule and the solver with which a network of the caller's is trained: they may be none that a recipe can name."""
    return {
        "rule": describe(network.gradient if recipe.rule == JFB() else recipe.rule),
        "solver": describe(recipe.solver or network.solver),
    }


def check_identity(out: Any, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse to go on with a run of something else; what only one side names, as older runs name nothing, is not compared.

    Raises:
        ValueError: it is of something else; the message names it.
    """
    for key in sorted(before.keys() & now.keys()):
        if before[key] != now[key]:
            # a digest says nothing to a reader
            what = DIGESTS.get(key, f"another {key}: it was {before[key]:.200} and is {now[key]:.200}")
            raise ValueError(f"the run in {out} was begun with {what}; give the same, or choose another folder")


def describe(given: Callable) -> str:
    """A function, or an object that is called, by its qualified name and its settings: the same in every process."""
    kind: Any = given if hasattr(given, "__qualname__") else type(given)
    # this package's own may move from one of its modules to another
    module = "" if kind.__module__.startswith("jfb_tutorial.") else f"{kind.__module__}."
    if kind is given:
        return f"{module}{kind.__qualname__}{_in_words(_closure(given))}"
    name = kind.__qualname__
    shown = f"{name}{_in_words(getattr(given, '__dict__', {}))}" if kind.__repr__ is object.__repr__ else repr(given)
    # where an object lies in memory is another place each time
    shown = re.sub(r" at 0x[0-9A-Fa-f]+", "", shown)
    return f"{module}{shown}" if shown.startswith(name) else f"{module}{name}: {shown}"


def _closure(function: Callable) -> dict[str, Any]:
    """What a function takes from around it, and by default."""
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None) or ()
    if code is None:
        return {}
    defaults = dict(enumerate(getattr(function, "__defaults__", None) or ()))
    values = {name: cell.cell_contents for name, cell in zip(code.co_freevars, cells, strict=True)}
    return {**{f"default {n}": value for n, value in defaults.items()}, **(function.__kwdefaults__ or {}), **values}


def _in_words(settings: Mapping[str, Any]) -> str:
    """Plain values; others, such as lists to which something is added in each step, are no settings."""
    plain = {name: value for name, value in settings.items() if isinstance(value, PLAIN) and not name.startswith("_")}
    return f"({', '.join(f'{name}={value!r}' for name, value in sorted(plain.items()))})" if plain else ""


def _digest(images: Images) -> str:
    digest = hashlib.sha256(repr((images.classes, tuple(images.images.shape))).encode())
    for tensor in (images.images, images.labels):
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()
