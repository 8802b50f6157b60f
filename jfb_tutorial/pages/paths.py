"""Shortest paths with learned costs: the maps, the layer and the training of chapter 14."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..gradients import JFB
from ..network import ImplicitNetwork
from ..solvers import FixedPointIteration
from .fitting import fit

__all__ = [
    "Costs",
    "Flow",
    "Read",
    "doubled",
    "entering",
    "flows",
    "grid",
    "maps",
    "network",
    "regret",
    "shortest",
    "train",
]

SIDE = 8
CONTEXT = 5
"""Numbers in a context."""
ALPHA, EPSILON = 1.0, 0.1
"""The step of the splitting, and the weight of ½‖x‖² in what it minimises."""
UPDATES = 300


def grid(side: int = SIDE) -> tuple[Tensor, Tensor]:
    """The edges of a grid, `(edges, 2)`, from a cell to the one on its right or below, and its incidence matrix `(cells, edges)`.

    Cells are counted row by row; the matrix has 1 where an edge leaves a cell and −1 where it enters one.
    """
    edges = [
        (cell, after)
        for cell in range(side * side)
        for after, there in ((cell + 1, cell % side < side - 1), (cell + side, cell < side * (side - 1)))
        if there
    ]
    A = torch.zeros(side * side, len(edges))
    for number, (leaves, enters) in enumerate(edges):
        A[leaves, number], A[enters, number] = 1, -1
    return torch.tensor(edges), A


def flows(side: int = SIDE) -> tuple[Tensor, Tensor]:
    """N and x₀, with which v ↦ N v + x₀ is the projection onto the flows of one unit from the first cell to the last."""
    A = grid(side)[1].double()
    b = torch.zeros(len(A), dtype=torch.float64)
    b[0], b[-1] = 1, -1
    inverse = torch.linalg.pinv(A)
    return torch.eye(A.shape[1], dtype=torch.float64) - inverse @ A, inverse @ b


def entering(costs: Tensor, side: int = SIDE) -> Tensor:
    """The costs of the edges, `(batch, edges)`, from those of the cells `(batch, cells)`: what it costs to enter."""
    return costs[:, grid(side)[0][:, 1]]


def shortest(costs: Tensor, side: int = SIDE) -> Tensor:
    """The cheapest path for costs of the edges `(batch, edges)`, exactly: 1 on its edges and 0 on all others."""
    edges = grid(side)[0]
    batch = torch.arange(len(costs))
    least = costs.new_full((len(costs), side * side), torch.inf)
    least[:, 0] = 0
    through = torch.zeros(len(costs), side * side, dtype=torch.long)
    # edges lead to cells with a larger number, so that in this order a cell is settled before it is left
    for number, (leaves, enters) in enumerate(edges.tolist()):
        offer = least[:, leaves] + costs[:, number]
        better = offer < least[:, enters]
        least[:, enters] = torch.where(better, offer, least[:, enters])
        through[better, enters] = number
    path, cell = torch.zeros_like(costs), torch.full((len(costs),), side * side - 1)
    for _ in range(2 * (side - 1)):
        edge = through[batch, cell]
        path[batch, edge] = 1
        cell = edges[edge, 0]
    return path


def maps(count: int, seed: int, side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Contexts `(count, 5)` and what it costs to enter each cell, `(count, cells)`: the exponential of five smooth landscapes, weighted."""
    generator = torch.Generator().manual_seed(7)  # of the landscapes, which are the same for all
    land = torch.randn(CONTEXT, 1, side, side, generator=generator)
    land = nn.functional.avg_pool2d(nn.functional.pad(land, (1, 1, 1, 1), mode="replicate"), 3, 1).flatten(1)
    land = land / land.std()
    d = torch.randn(count, CONTEXT, generator=torch.Generator().manual_seed(seed)).to(torch.get_default_dtype())
    return d, torch.exp(0.7 * d @ land.to(d) / CONTEXT**0.5)


class Costs(nn.Module):
    """Q: from a context to a cost of each cell, by one hidden layer, and from there to each edge."""

    def __init__(self, hidden: int = 64, side: int = SIDE) -> None:
        super().__init__()
        self.cells = nn.Sequential(nn.Linear(CONTEXT, hidden), nn.ReLU(), nn.Linear(hidden, side * side))
        self.side = side

    def forward(self, d: Tensor) -> Tensor:
        """The costs of the edges, `(batch, edges)`."""
        return entering(self.cells(d), self.side)


class Flow(nn.Module):
    """R(z, c), Davis–Yin splitting of min c·x + ½ε‖x‖² over the flows x ≥ 0 of one unit from the first cell to the last.

    Args:
        recorded: whether the projection onto the flows is recorded; else the gradient step alone is, and passes it by.
    """

    N: Tensor
    x0: Tensor

    def __init__(
        self, side: int = SIDE, alpha: float = ALPHA, epsilon: float = EPSILON, *, recorded: bool = True
    ) -> None:
        super().__init__()
        N, x0 = (tensor.to(torch.get_default_dtype()) for tensor in flows(side))
        self.register_buffer("N", N)
        self.register_buffer("x0", x0)
        self.side, self.alpha, self.epsilon, self.recorded = side, alpha, epsilon, recorded

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        """One step, `(batch, edges)`."""
        x = torch.relu(z)  # the nearest point with x ≥ 0
        v = 2 * x - z - self.alpha * (c + self.epsilon * x)
        y = v @ self.N + self.x0  # the nearest flow
        if not self.recorded:
            y = v + (y - v).detach()
        return z - x + y


class Read(nn.Module):
    """S(z) = max(z, 0), the flow that the state stands for.

    Args:
        recorded: whether its derivative is its own; else it is 1 everywhere.
    """

    def __init__(self, *, recorded: bool = True) -> None:
        super().__init__()
        self.recorded = recorded

    def forward(self, z: Tensor) -> Tensor:
        """The flow, `(batch, edges)`."""
        x = torch.relu(z)
        return x if self.recorded else z + (x - z).detach()


def network(
    seed: int,
    *,
    gradient: Callable[..., Tensor] = JFB(),  # noqa: B008
    epsilon: float = EPSILON,
    projection: bool = True,
    read: bool = True,
) -> ImplicitNetwork:
    """The untrained layer of a seed; `projection` and `read` say whether these two are recorded."""
    torch.manual_seed(seed)
    parts = Costs(), Flow(epsilon=epsilon, recorded=projection), Read(recorded=read)
    trained_with = FixedPointIteration(tol=1e-3, max_steps=1000)
    return ImplicitNetwork(*parts, solver=trained_with, gradient=gradient, on_unconverged="ignore")


def doubled(network: ImplicitNetwork) -> ImplicitNetwork:
    """A copy in float64, its projection not merely converted but computed anew."""
    copied = copy.deepcopy(network).double()
    copied.R.N, copied.R.x0 = flows(copied.R.side)
    return copied


def regret(network: ImplicitNetwork, d: Tensor, cells: Tensor) -> dict[str, float]:
    """How much dearer than the best the paths are that are shortest for the costs of Q, in percent, and the share that is best."""
    with torch.no_grad():
        costs = entering(cells)
        best, chosen = shortest(costs), shortest(network.Q(d))
    more = ((chosen - best) * costs).sum() / (best * costs).sum()
    return {"regret": 100 * float(more), "same": float((chosen == best).all(dim=1).double().mean())}


def train(
    network: ImplicitNetwork,
    seed: int,
    d: Tensor,
    paths: Tensor,
    *,
    updates: int = UPDATES,
    rate: float = 3e-3,
    watch: Callable[[int, float], Any] = lambda update, seconds: None,
) -> None:
    """Adam on the squared distance from the best paths, 32 contexts an update.

    `watch(update, seconds)` is called before each update and after the last, with the processor time of training so far.
    """
    generator = torch.Generator().manual_seed(seed)

    def loss(update: int) -> Tensor:
        batch = torch.randint(len(d), (32,), generator=generator)
        return (network(d[batch]) - paths[batch]).square().sum(dim=1).mean()

    fit(network, loss, updates=updates, rate=rate, watch=lambda update, value, seconds: watch(update, seconds))
