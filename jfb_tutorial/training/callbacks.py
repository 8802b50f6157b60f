"""The caller's callback after an epoch: it may look, and add to the row; what would make the record untrue is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import torch

from ..network import ImplicitNetwork

__all__ = ["Callback", "call_back"]

Callback = Callable[[dict, ImplicitNetwork], None]


def call_back(callback: Callback, row: dict, network: ImplicitNetwork) -> None:
    """Call it with an epoch's row and the network, in eval mode; the mode of gradients is as it was afterwards.

    Raises:
        TypeError: it has added what JSON cannot hold.
        ValueError: it has changed or removed an entry of the row, or replaced a part of the network, its solver or its rule.
    """
    network.eval()
    entries, parts, kinds = copy.deepcopy(row), _parts(network), _kinds(network)
    # whatever is switched in here, and left so, is put back at the end
    with torch.inference_mode(False), torch.enable_grad():
        callback(row, network)
    now = _parts(network)
    if replaced := [name for name in {**parts, **now} if parts.get(name) is not now.get(name)]:
        raise ValueError(
            f"callback has replaced {', '.join(replaced[:3])} of the network, which its optimiser and its record do not know; "
            "change copy.deepcopy(network), or let network.using(…) put back what it sets"
        )
    if kinds != _kinds(network):
        raise ValueError("callback has moved or converted the network; change copy.deepcopy(network) instead")
    _check_row(entries, row)


def _parts(network: ImplicitNetwork) -> dict[str, Any]:
    """What the network is made of, by name."""
    parts = {name: getattr(network, name) for name in ("Q", "R", "S", "solver", "before_solve")}
    modules = {name: module for name, module in network.named_modules() if name}
    return parts | {"the rule": network.gradient} | modules | dict(network.named_parameters())


def _kinds(network: ImplicitNetwork) -> list[tuple[torch.dtype, torch.device]]:
    return [(parameter.dtype, parameter.device) for parameter in network.parameters()]


def _check_row(entries: dict, row: dict) -> None:
    for key in row.keys() - entries.keys():
        try:
            if not isinstance(key, str):
                raise TypeError("the name is no text")
            # as the record will have it; what cannot be encoded would fail when the run is finished
            text = json.dumps(row[key], ensure_ascii=False)
            row[key] = json.loads(text.encode())
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(
                f"callback has added {key!r} to its row, a {type(row[key]).__name__} that JSON cannot hold ({error}); give "
                "numbers, texts, or lists of them, as x.item() and x.tolist() are"
            ) from None
    # two dictionaries with the same NaN in them are equal: == asks first whether both are one object
    if changed := [key for key in entries if {key: entries[key]} != {key: row.get(key)}]:
        raise ValueError(
            f"callback has changed or removed {', '.join(changed[:3])} in its row; it may add entries, under other names"
        )
