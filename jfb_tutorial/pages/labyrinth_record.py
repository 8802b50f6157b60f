"""What chapter 13 shows of its second record, `book/timings/labyrinth.json`: shares of grids, and the drawing of a flood."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..network import ImplicitNetwork
from .figures import BLUE, GREY

__all__ = ["arrivals", "drawing", "later", "of_size", "share"]

Row = Mapping[str, Any]


def of_size(rows: Iterable[Row], size: int, key: str) -> int:
    """The sum of a count over the rows for grids of this size."""
    return sum(row[key] for row in rows if row["size"] == size)


def share(rows: Sequence[Row], size: int) -> float:
    """The share of the grids of a size that are right in every cell."""
    return of_size(rows, size, "right") / of_size(rows, size, "grids")


def later(rows: Iterable[Row]) -> list[int]:
    """For each grid, how many steps after the water could have been everywhere the iteration came to rest."""
    return [steps - far for row in rows for steps, far in zip(row["steps"], row["farthest"], strict=True)]


@torch.no_grad()
def arrivals(network: ImplicitNetwork, d: Tensor, tol: float = 1e-4) -> tuple[np.ndarray, int]:
    """From which step on S reads wet for good, of each cell `(rows, columns)`, NaN where it ends dry; and the steps to rest."""
    T, reads = network.operator(d), []
    u, residual = T.zeros(), 1.0
    while residual > tol:
        new = T(u)
        residual = float((new - u).norm() / new.norm())
        reads.append((network.S(new) > 0)[0, 0])
        u = new
    wet = torch.stack(reads)
    # the last step at which it was dry, and one more
    last = torch.where(wet, 0, torch.arange(1, len(reads) + 1).reshape(-1, 1, 1)).amax(dim=0) + 1
    return np.where(wet[-1], last, np.nan), len(reads)


def drawing(d: Tensor, steps: np.ndarray, rows: Sequence[Row]) -> Figure:
    """A labyrinth, coloured by the step at which the water came; below, steps to rest against the way to the farthest cell, a dot a grid."""
    fig, (top, low) = plt.subplots(2, 1, figsize=(4.8, 7), height_ratios=[3, 2])
    walls, (row, column) = d[0, 0].numpy(), np.argwhere(d[0, 1].numpy())[0]
    picture = np.ones((*walls.shape, 4))
    picture[:] = (0.93, 0.93, 0.93, 1)
    wet = ~np.isnan(steps)
    picture[wet] = plt.get_cmap("YlGnBu")(0.2 + 0.75 * steps[wet] / np.nanmax(steps))
    picture[walls > 0] = (0.35, 0.35, 0.35, 1)
    top.imshow(picture, interpolation="none")
    top.plot(column, row, "o", color="white", mec="black", ms=7)
    top.set(xticks=[], yticks=[])
    top.grid(visible=False)
    top.spines[:].set_visible(False)
    far, until = ([each for row in rows for each in row[key]] for key in ("farthest", "steps"))
    low.plot(far, until, ".", color=BLUE, ms=4, alpha=0.4, label="a labyrinth")
    low.plot([0, max(far)], [0, max(far)], "--", color=GREY, label="one cell a step: the least")
    low.set(xlabel="moves from the spring to the farthest cell", ylabel="steps to rest")
    low.legend(loc="upper left")
    return fig
