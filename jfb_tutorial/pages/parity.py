"""Parity of prefixes: the network, the strings and the training of chapter 13, for its measurements and its explorer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ..gradients import JFB
from ..network import ImplicitNetwork
from ..solvers import FixedPointIteration
from .fitting import fit, restored

__all__ = ["Step", "network", "recorded", "right", "solver", "strings", "train"]

BITS = 16
"""How long the strings of training are."""
UPDATES = 300
CHANNELS = 32


class Step(nn.Module):
    """R(u, q) = tanh(conv(relu(conv([u, q])))): in one step a position hears of the two on either side."""

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.one = nn.Conv1d(2 * channels, 2 * channels, 3, padding=1)
        self.two = nn.Conv1d(2 * channels, channels, 3, padding=1)

    def forward(self, u: Tensor, q: Tensor) -> Tensor:
        """One step of all positions, `(batch, channels, bits)`."""
        return torch.tanh(self.two(torch.relu(self.one(torch.cat([u, q], dim=1)))))


def network(seed: int, *, gradient: Callable[..., Tensor] = JFB(), R: nn.Module | None = None) -> ImplicitNetwork:  # noqa: B008
    """The untrained network of a seed: a bit to 32 channels, `Step`, and 32 channels to one logit a position."""
    torch.manual_seed(seed)
    parts = nn.Conv1d(1, CHANNELS, 1), R or Step(), nn.Conv1d(CHANNELS, 1, 1)
    trained_with = FixedPointIteration(tol=1e-3, max_steps=24, relative=True)
    return ImplicitNetwork(*parts, solver=trained_with, gradient=gradient, on_unconverged="ignore")


def recorded(path: Path | str) -> ImplicitNetwork:
    """A trained network from its file, `book/records/parity.safetensors`."""
    return restored(network(0), path)


def strings(count: int, bits: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random bits and, at each position, whether the ones up to there are odd in number; both `(count, 1, bits)`, 0 or 1."""
    d = torch.randint(2, (count, 1, bits), generator=generator).to(torch.get_default_dtype())
    return d, d.cumsum(dim=-1) % 2


def solver(bits: int, tol: float = 1e-5) -> FixedPointIteration:
    """What the tests run to rest with: three steps a bit at most, and a few."""
    return FixedPointIteration(tol=tol, max_steps=3 * bits + 100, relative=True)


def right(logits: Tensor, y: Tensor) -> Tensor:
    """Which strings are right in every bit, or labyrinths in every cell, `(count,)`."""
    return ((logits > 0) == (y > 0.5)).flatten(1).all(dim=1)


def train(
    network: ImplicitNetwork,
    seed: int,
    *,
    updates: int = UPDATES,
    start: Callable[[ImplicitNetwork, Tensor], Tensor | None] = lambda network, d: None,
    watch: Callable[[int, float], bool | None] = lambda update, loss: None,
) -> list[float]:
    """Adam at 1e-3 on 64 fresh strings an update, gradients clipped to length 1; returns the losses.

    `start(network, d)` gives u⁰; `watch(update, loss)` is called before each update and after the last, and ends it with True.
    """
    generator = torch.Generator().manual_seed(seed)

    def loss(update: int) -> Tensor:
        d, y = strings(64, BITS, generator)
        return binary_cross_entropy_with_logits(network(d, start(network, d)), y)

    return fit(
        network, loss, updates=updates, rate=1e-3, clip=1.0, watch=lambda update, value, seconds: watch(update, value)
    )
