"""The training that the small networks of chapters 13 and 14 have in common, and how one of them comes back from its file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..training import checkpoints

__all__ = ["fit", "restored"]

Network = TypeVar("Network", bound=nn.Module)


def fit(
    network: nn.Module,
    loss: Callable[[int], Tensor],
    *,
    updates: int,
    rate: float,
    factor: Callable[[int], float] = lambda update: 1.0,
    clip: float | None = None,
    watch: Callable[[int, float, float], bool | None] = lambda update, value, seconds: None,
) -> list[float]:
    """Adam; returns the losses.

    Args:
        network: its parameters are trained.
        loss: of the number of an update: draws a batch, and gives its loss.
        updates: how many.
        rate: the learning rate.
        factor: by which it is multiplied, of the number of an update.
        clip: the length to which longer gradients are cut.
        watch: called before each update and after the last with its number, the loss before (NaN at first) and the processor time
            of training so far in seconds; True ends the training.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    losses: list[float] = []
    seconds = 0.0
    for update in range(updates):
        if watch(update, losses[-1] if losses else float("nan"), seconds):
            return losses
        begin = time.process_time()
        for group in optimizer.param_groups:
            group["lr"] = rate * factor(update)
        value = loss(update)
        optimizer.zero_grad()
        value.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()
        losses.append(value.item())
        seconds += time.process_time() - begin
    watch(updates, losses[-1], seconds)
    return losses


def restored(network: Network, path: Path | str) -> Network:
    """The network with the weights of a file of book/records that a script of tests/benchmarks has written."""
    network.load_state_dict(checkpoints.load(path)[0])
    return network
