"""The network that `mymodule:build` on a command line stands for."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ._checks import check_integer
from .network import ImplicitNetwork

__all__ = ["Target", "load"]


class Target(NamedTuple):
    """What is to be examined."""

    network: ImplicitNetwork
    d: Tensor
    y: Tensor | None
    loss: Callable[[Tensor, Tensor], Tensor] | None


def load(target: str, shape: Sequence[int] = (), batch: int = 8) -> Target:
    """Import a module, call its function, and take what it returns.

    Args:
        target: "mymodule:build"; `build` takes no argument and returns a network, or a tuple of a network, its data, and, if it
            likes, targets and a loss. It may also be the network itself.
        shape: of one sample, where no data come along: standard normal numbers are drawn, from seed 0.
        batch: how many of those.

    Raises:
        ValueError, TypeError: there is no such module or function, it wants arguments, or returns something else.
    """
    name, colon, attribute = target.partition(":")
    if not colon or not name or not attribute:
        raise ValueError(f"write MODULE:FUNCTION, such as mymodule:build, got {target!r}")
    if name.endswith(".py") or "/" in name or "\\" in name:
        raise ValueError(
            f"give the module's name and not its file: {Path(name.replace(chr(92), '/')).stem}:{attribute}, in its folder"
        )
    made = _call(_module(name), name, attribute)
    network, *more = made if isinstance(made, tuple) and made else (made,)
    _check_network(network, f"{name}:{attribute}")
    if len(more) > 3:
        raise ValueError(
            f"{target} must return at most a network, data, targets and a loss, got a tuple of {len(more) + 1}"
        )
    d, y, loss = [*more, None, None, None][:3]
    return Target(network, _data(d, shape, batch, target, network), y, loss)


def _module(name: str) -> ModuleType:
    # the folder in which the command was typed, also where Python was told to be safe
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # one that the module itself imports is another matter
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise ValueError(f"{name} cannot be imported: {error}; install it, or leave it out") from error
    here = [path.stem for path in Path.cwd().glob("*.py")]
    near = get_close_matches(name, here, n=1, cutoff=0.5)
    raise ValueError(
        f"there is no module {name!r}; "
        + (f"did you mean {near[0]!r}?" if near else "run the command in the folder that holds it")
    )


def _call(module: ModuleType, name: str, attribute: str) -> Any:
    if not hasattr(module, attribute):
        near = get_close_matches(
            attribute, [each for each in vars(module) if not each.startswith("_")], n=1, cutoff=0.5
        )
        raise ValueError(f"{name} has no {attribute!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    build = getattr(module, attribute)
    if isinstance(build, nn.Module):
        return build
    if not callable(build):
        raise TypeError(
            f"{name}:{attribute} must be a function that returns a network, got {type(build).__name__}, which cannot be called"
        )
    try:
        inspect.signature(build).bind()
    except TypeError:
        needed = ", ".join(
            each.name
            for each in inspect.signature(build).parameters.values()
            if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        )
        raise TypeError(
            f"{name}:{attribute} must run without arguments, and asks for {needed}; write a function that calls it: "
            f"def build(): return {attribute}(…)"
        ) from None
    return build()


def _check_network(network: object, target: str) -> None:
    if isinstance(network, ImplicitNetwork):
        return
    inside = [
        name for name, each in getattr(network, "named_modules", list)() if isinstance(each, ImplicitNetwork) and name
    ]
    if inside:
        raise TypeError(
            f"{target} returned {type(network).__name__}, which has an ImplicitNetwork inside, {inside[0]!r}: return that one, "
            "with what goes into it"
        )
    raise TypeError(f"{target} must return an ImplicitNetwork, got {type(network).__name__}")


def _data(d: Any, shape: Sequence[int], batch: int, target: str, network: ImplicitNetwork) -> Tensor:
    if isinstance(d, Tensor):
        return d
    if d is not None:
        raise TypeError(f"the data that {target} returns must be a tensor (batch, …), got {type(d).__name__}")
    if not shape:
        raise ValueError(
            f"{target} returned no data; return a tuple, network and data, or say the shape of one sample: --shape 3 32 32"
        )
    for size in shape:
        check_integer("shape", size, 1, "give the sizes of one sample, such as 3 32 32")
    check_integer("batch", batch, 1, "8 is the default")
    like = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    drawn = torch.randn((batch, *shape), generator=torch.Generator().manual_seed(0))
    return drawn.to(like)
