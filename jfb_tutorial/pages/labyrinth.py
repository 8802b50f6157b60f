"""Where the water reaches in a labyrinth: the network, the grids and the training of chapter 13, for its measurements and its explorer.

A grid is `(2, rows, columns)`: the walls and the spring, 0 or 1. Water goes to the four neighbours of a cell, and not into walls.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, max_pool2d, one_hot

from ..gradients import JFB
from ..network import ImplicitNetwork
from ..solvers import FixedPointIteration
from .fitting import fit, restored
from .parity import right

__all__ = [
    "DAM",
    "DRAWN",
    "Step",
    "flood",
    "grids",
    "largest_near",
    "network",
    "read",
    "recorded",
    "right",
    "solver",
    "train",
]

SIZE = 8
"""How many cells wide and high the grids of training are."""
UPDATES = 150
CHANNELS = 16
WALLS = 0.4
"""The share of walls; with 0.407 or more an endless grid has no endless cluster of open cells."""

DRAWN = """
o..............
##############.
.........#...#.
.#######.#.#.#.
...#.....#.#.#.
##.#.#####.#.#.
...#.......#...
.##############
.#...#.......#.
####.#.#####.#.
...#...#.....#.
.#.#####.#####.
.#.......#...#.
.#########.#.#.
...........#...
"""
"""A labyrinth that a single wall divides in two, as `read` reads it."""
DAM = 9, 2
"""Where this wall stands: the row and the column, from 1."""


def largest_near(u: Tensor) -> Tensor:
    """Of each channel the largest value in a cell and its four neighbours, `(batch, channels, rows, columns)`."""
    return torch.maximum(max_pool2d(u, (3, 1), 1, (1, 0)), max_pool2d(u, (1, 3), 1, (0, 1)))


class Step(nn.Module):
    """R(u, q) = tanh(W₂ relu(W₁ [near(u), q])), the same at each cell: in one step it hears of its four neighbours."""

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.one = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.two = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, u: Tensor, q: Tensor) -> Tensor:
        """One step of all cells, `(batch, channels, rows, columns)`."""
        return torch.tanh(self.two(torch.relu(self.one(torch.cat([largest_near(u), q], dim=1)))))


def network(seed: int, *, gradient: Callable[..., Tensor] = JFB(), R: nn.Module | None = None) -> ImplicitNetwork:  # noqa: B008
    """The untrained network of a seed: wall and spring to 16 channels, `Step`, and 16 channels to one logit a cell."""
    torch.manual_seed(seed)
    parts = nn.Conv2d(2, CHANNELS, 1), R or Step(), nn.Conv2d(CHANNELS, 1, 1)
    trained_with = FixedPointIteration(tol=1e-3, max_steps=24, relative=True)
    return ImplicitNetwork(*parts, solver=trained_with, gradient=gradient, on_unconverged="ignore")


def recorded(path: Path | str) -> ImplicitNetwork:
    """A trained network from its file, `book/records/labyrinth.safetensors`."""
    return restored(network(0), path)


def flood(d: Tensor) -> tuple[Tensor, Tensor]:
    """What the water reaches, `(batch, 1, rows, columns)`, 0 or 1; and how many moves away from the spring its last cell is, `(batch,)`."""
    walls, wet = d[:, :1], d[:, 1:]
    farthest = torch.zeros(len(d), dtype=torch.int64)
    while True:
        new = largest_near(wet) * (1 - walls)
        moved = (new != wet).flatten(1).any(dim=1)
        if not moved.any():
            return wet, farthest
        wet, farthest = new, farthest + moved


def grids(
    count: int, size: int, generator: torch.Generator, *, walls: float = WALLS, least: float = 0.2, most: float = 0.8
) -> tuple[Tensor, Tensor]:
    """Random grids whose water reaches from `least` to `most` of the open cells, and what it reaches.

    A grid that is all dry or all wet but for the spring's own pocket would be easy to get right.
    """
    found: list[tuple[Tensor, Tensor]] = []
    while sum(len(d) for d, _ in found) < count:
        wall = (torch.rand(2 * count, 1, size, size, generator=generator) < walls).to(torch.get_default_dtype())
        place = torch.randint(size * size, (2 * count,), generator=generator)
        spring = one_hot(place, size * size).to(wall.dtype).reshape(wall.shape)
        d = torch.cat([wall * (1 - spring), spring], dim=1)
        y, _ = flood(d)
        share = y.sum(dim=(1, 2, 3)) / (1 - d[:, :1]).sum(dim=(1, 2, 3))
        kept = (share >= least) & (share <= most)
        found.append((d[kept], y[kept]))
    d, y = (torch.cat(parts)[:count] for parts in zip(*found, strict=True))
    return d, y


def read(text: str) -> Tensor:
    """A grid from its picture, one line a row: `#` is a wall, `o` the spring, anything else is open; `(1, 2, rows, columns)`."""
    lines = text.strip("\n").split("\n")
    if len({len(line) for line in lines}) != 1 or text.count("o") != 1:
        raise ValueError("text must have lines of one length and one spring, o")
    at = [[[float(letter == kind) for letter in line] for line in lines] for kind in "#o"]
    return torch.tensor(at).to(torch.get_default_dtype())[None]


def solver(size: int, tol: float = 1e-4) -> FixedPointIteration:
    """What the tests run to rest with: as many steps at most as there are cells, and a few."""
    return FixedPointIteration(tol=tol, max_steps=size * size + 100, relative=True)


def train(
    network: ImplicitNetwork,
    seed: int,
    *,
    updates: int = UPDATES,
    start: Callable[[ImplicitNetwork, Tensor], Tensor | None] = lambda network, d: None,
) -> list[float]:
    """Adam at 3e-3 on 32 fresh grids an update, gradients clipped to length 1; returns the losses. `start(network, d)` gives u⁰."""
    generator = torch.Generator().manual_seed(seed)

    def loss(update: int) -> Tensor:
        d, y = grids(32, SIZE, generator, least=0, most=1)
        return binary_cross_entropy_with_logits(network(d, start(network, d)), y)

    return fit(network, loss, updates=updates, rate=3e-3, clip=1.0)
