"""Times that can be compared: every round runs each function once, so that what disturbs the machine disturbs them all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ._checks import check_integer
from .network import ImplicitNetwork

__all__ = ["ALLOCATOR", "interleaved", "ratios", "step_times"]

Name = TypeVar("Name", bound=Hashable)

# Freed buffers of some 256 KB go back to the system and are fetched again, page by page, unless malloc is told otherwise; for
# small networks on the CPU that is a tenth of the time, and falls on whoever comes first. tests/benchmarks/run.py sets these.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
}


def interleaved(functions: Mapping[Name, Callable[[], object]], rounds: int) -> dict[Name, list[float]]:
    """Seconds of each function in each round, after a round to warm up."""
    seconds: dict[Name, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            if number:  # round 0 warms up
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def ratios(seconds: dict[str, list[float]], to: str) -> dict[str, float]:
    """The median over the rounds of each function's time in units of that of `to`."""
    # divided within a round: what slows a whole round, a warm processor, slows both
    base = seconds[to]
    return {name: statistics.median(a / b for a, b in zip(times, base, strict=True)) for name, times in seconds.items()}


def step_times(
    network: ImplicitNetwork,
    d: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    rules: Sequence[Callable],
    *,
    rounds: int = 5,
) -> dict[Callable, float]:
    """The median seconds of a forward and a backward pass under each rule, all other things equal.

    The network keeps its rule; its gradients are dropped.

    Raises:
        TypeError, ValueError: rounds is no integer, or below 1.
    """
    check_integer("rounds", rounds, 1, "5 is the default")

    def step(rule: Callable):
        def run() -> None:
            network.gradient = rule
            network.zero_grad()
            loss(network(d), y).backward()
            if d.device.type == "cuda":
                # CUDA returns before the work is done
                torch.cuda.synchronize(d.device)

        return run

    own = network.gradient
    try:
        seconds = interleaved({rule: step(rule) for rule in rules}, rounds)
    finally:
        network.gradient = own
        network.zero_grad()
    return {rule: statistics.median(times) for rule, times in seconds.items()}
