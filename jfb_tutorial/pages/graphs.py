"""Implicit graph neural networks (IGNN; Gu, Chang, Zhu, Sojoudi, El Ghaoui, NeurIPS 2020): batches of graphs, the network, its training.

A graph's nodes talk to their neighbours until nothing changes any more. With the m features of a node in a row of X,

    X = relu(Â X Wᵀ + Â U Ωᵀ),     Â = D^(−1/2) (A + I) D^(−1/2),

where U holds the labels of the nodes, one-hot, and D the degrees of A + I. The largest eigenvalue of Â is 1 (its Perron–Frobenius
eigenvalue, of the eigenvector D^(1/2) 1), so ‖W‖_∞ ≤ κ < 1 makes the equation well-posed: one X, found by iteration from anywhere.

What follows the published code (SwiftieH/IGNN, graphclassification/, commits ee90385 and 059693d) and where it departs is said at each name.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.model_selection import StratifiedKFold, train_test_split
from torch import Tensor, nn

from .._checks import check_integer, check_positive
from ..gradients import ImplicitDifferentiation
from ..network import ImplicitNetwork
from ..solvers import FixedPointIteration, Solution
from ..training.graph_sets import GraphSet

__all__ = [
    "IGNN",
    "Graphs",
    "Neighbours",
    "Step",
    "batch",
    "batches",
    "folds",
    "normalised",
    "project",
    "right",
    "solver",
    "train",
    "unused_parameters",
]

WIDTH = 64
KAPPA = 0.9
RATE = 1e-3


class Neighbours(nn.Module):
    """Â of some graphs, sparse and symmetric: `A(x, q)` is Â x + q, `(N, features)`.

    A module that holds its three arrays, since a sparse tensor of PyTorch's can neither be copied deeply nor be a buffer that is converted.

    Args:
        rows: `(N + 1,)`, where each row begins in the other two.
        columns: `(E,)`, of each entry.
        values: `(E,)`, of each entry, in the dtype of x.
    """

    rows: Tensor
    columns: Tensor
    values: Tensor

    def __init__(self, rows: Tensor, columns: Tensor, values: Tensor) -> None:
        super().__init__()
        # indices of 32 bits are what the library behind takes: those of 64 it would copy at each product
        self.register_buffer("rows", rows.int())
        self.register_buffer("columns", columns.int())
        self.register_buffer("values", values)

    @property
    def matrix(self) -> Tensor:
        """`(N, N)`, sparse, in rows."""
        nodes = len(self.rows) - 1
        with warnings.catch_warnings():  # "in beta state", said once a process
            warnings.simplefilter("ignore", UserWarning)
            return torch.sparse_csr_tensor(self.rows, self.columns, self.values, size=(nodes, nodes))

    def forward(self, x: Tensor, q: Tensor | None = None) -> Tensor:
        """Each node gets the weighted sum of itself and its neighbours; Â has no gradient."""
        return _Spread.apply(self.matrix, x, torch.zeros_like(x) if q is None else q)


class _Spread(torch.autograd.Function):
    """Â x + q for a symmetric Â, whose backward pass is the same product; PyTorch's own transposes Â anew each time."""

    @staticmethod
    def forward(ctx, A: Tensor, x: Tensor, q: Tensor) -> Tensor:
        ctx.A = A
        return torch.addmm(q, A, x)

    @staticmethod
    def backward(ctx, g: Tensor):
        return None, _Spread.apply(ctx.A, g, torch.zeros_like(g)) if ctx.needs_input_grad[1] else None, g


@dataclass(frozen=True, eq=False)
class Graphs:
    """Some graphs as one, which falls into as many pieces: what the network takes.

    Attributes:
        A: Â, a block a graph, `(N, N)`.
        x: `(N, features)`, the labels of the nodes, one-hot.
        graph: `(N,)`, of each node the graph, from 0, ascending.
        labels: `(G,)`, the classes of the graphs.
    """

    A: Neighbours
    x: Tensor
    graph: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def double(self) -> Graphs:
        """A copy in float64."""
        return replace(self, A=copy.deepcopy(self.A).double(), x=self.x.double())


def normalised(edges: np.ndarray, nodes: int) -> sp.csr_matrix:
    """Â = D^(−1/2) (A + I) D^(−1/2), D the row sums of A + I: the "AugNormAdj" of the published code.

    Every edge weighs 1. The published code takes the type of a MUTAG bond for its weight in training, which leaves out the bonds of type 0,
    and 2 A + I, with all bonds, in the test; here both are A + I.

    Args:
        edges: `(2, E)`, both directions.
        nodes: N.
    """
    A = sp.coo_matrix((np.ones(edges.shape[1]), (edges[0], edges[1])), shape=(nodes, nodes)) + sp.eye(nodes)
    scale = sp.diags(np.asarray(A.sum(axis=1)).ravel() ** -0.5)
    return sp.csr_matrix(scale @ A @ scale)


def batches(graphs: GraphSet, parts: Sequence[np.ndarray]) -> list[Graphs]:
    """The graphs at each of these positions as one `Graphs` in float32; Â is made once for all."""
    A = normalised(graphs.edges, len(graphs.graph))
    return [_batch(graphs, A, np.asarray(part)) for part in parts]


def batch(graphs: GraphSet, index: Sequence[int] | np.ndarray | None = None) -> Graphs:
    """The graphs at these positions, all without."""
    return batches(graphs, [np.arange(len(graphs)) if index is None else np.asarray(index)])[0]


def _batch(graphs: GraphSet, A: sp.csr_matrix, index: np.ndarray) -> Graphs:
    if not len(index) or index.min() < 0 or index.max() >= len(graphs):
        raise ValueError(f"index must hold positions from 0 to {len(graphs) - 1}, and at least one, got {index!r:.60}")
    starts = graphs.starts
    sizes = starts[index + 1] - starts[index]
    nodes = np.concatenate([np.arange(starts[g], starts[g + 1]) for g in index])
    rows = A[nodes]
    # the columns of a graph's rows are its own nodes: one table turns their numbers into the new ones
    place = np.zeros(A.shape[0], dtype=np.int64)
    place[nodes] = np.arange(len(nodes))
    x = torch.zeros(len(nodes), graphs.features)
    x[torch.arange(len(nodes)), torch.from_numpy(graphs.node_labels[nodes])] = 1
    return Graphs(
        Neighbours(*map(torch.from_numpy, (rows.indptr, place[rows.indices], rows.data.astype(np.float32)))),
        x,
        torch.from_numpy(np.repeat(np.arange(len(index)), sizes)),
        torch.from_numpy(graphs.labels[index]),
    )


class Input(nn.Module):
    """Q: what the nodes hear from outside, Â U Ωᵀ, `(N, width)`."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.omega = nn.Parameter(torch.empty(width, inputs).uniform_(-(width**-0.5), width**-0.5))

    def forward(self, A: Neighbours, x: Tensor) -> Tensor:
        """From `(N, inputs)`."""
        return A(x @ self.omega.T)


class Step(nn.Module):
    """R: X ↦ φ(Â X Wᵀ + q), `(N, width)`: each node hears of its neighbours once.

    Args:
        width: m.
        phi: φ, relu in the paper; any that never moves two numbers further apart keeps the equation well-posed.
    """

    def __init__(self, width: int, phi: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(width, width).uniform_(-(width**-0.5), width**-0.5))
        self.phi = phi

    def forward(self, A: Neighbours, u: Tensor, q: Tensor) -> Tensor:
        """One step of all nodes."""
        return self.phi(A(u @ self.W.T, q))


class _On(nn.Module):
    """A module with the Â of some graphs as its first argument."""

    def __init__(self, module: nn.Module, A: Neighbours) -> None:
        super().__init__()
        self.module, self.A = module, A

    def forward(self, *arguments: Tensor) -> Tensor:
        return self.module(self.A, *arguments)


class Head(nn.Module):
    """S: the sum over the nodes of each graph, a hidden layer, dropout, and a logit for each class, `(G, classes)`."""

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.hidden, self.drop, self.out = nn.Linear(width, width), nn.Dropout(dropout), nn.Linear(width, classes)

    def forward(self, graph: Tensor, count: int, u: Tensor) -> Tensor:
        """From `(N, width)`."""
        pooled = u.new_zeros(count, u.shape[1]).index_add(0, graph, u)
        return self.out(self.drop(torch.relu(self.hidden(pooled))))


class _HeadOn(nn.Module):
    def __init__(self, head: Head, graphs: Graphs) -> None:
        super().__init__()
        self.head, self.graph, self.count = head, graphs.graph, len(graphs)

    def forward(self, u: Tensor) -> Tensor:
        return self.head(self.graph, self.count, u)


def solver(tol: float = 1e-3, max_steps: int = 100) -> FixedPointIteration:
    """Plain iteration to this relative residual at every node; the published code takes 3e-6, absolute, and 300 steps."""
    return FixedPointIteration(tol=tol, max_steps=max_steps, relative=True)


EXACT = ImplicitDifferentiation("neumann", tol=1e-3, max_steps=300, on_failure="warn")
"""As in the published code: the adjoint equation by the same plain iteration, which the bound on W makes converge."""


class IGNN(nn.Module):
    """Equilibria one after another, and a head: the published network for classes of graphs.

    Three equilibria of width 64, the sum over the nodes, a hidden layer of 64, dropout 0.5 before the last. With the published widths it has
    24,962 parameters on PROTEINS and 27,010 on COX2; the published code makes 33,538 and 37,634, the 34K and 38K of the phantom-gradient
    paper's Table 4, since each of its layers holds a second Ω and a bias that nothing reads (`unused_parameters`).

    Args:
        features: columns of `Graphs.x`.
        classes: outputs.
        width: m, of all equilibria and of the hidden layer.
        layers: number of equilibria.
        kappa: κ, the bound on ‖W‖_∞, in (0, 1).
        dropout: in the head.
        phi: φ of the steps.
        solver: of each equilibrium.
        gradient: the rule of each equilibrium.

    Attributes:
        last: the `Solution` of each equilibrium in the latest `forward`.
    """

    # lists of modules, whose items a type checker does not know
    inputs: Any
    steps: Any

    def __init__(
        self,
        features: int,
        classes: int = 2,
        *,
        width: int = WIDTH,
        layers: int = 3,
        kappa: float = KAPPA,
        dropout: float = 0.5,
        phi: Callable[[Tensor], Tensor] = torch.relu,
        solver: Callable[..., Solution] = solver(),  # noqa: B008  (frozen)
        gradient: Callable[..., Tensor] = EXACT,
    ) -> None:
        super().__init__()
        check_integer("layers", layers, 1, "3 is the published number")
        self.kappa = check_positive("kappa", kappa, "0.9 is the published bound", below=1)
        self.inputs = nn.ModuleList(Input(features if i == 0 else width, width) for i in range(layers))
        self.steps = nn.ModuleList(Step(width, phi) for _ in range(layers))
        self.head = Head(width, classes, dropout)
        self.solver, self.gradient = solver, gradient
        self.last: list[Solution | None] = []
        self.project()

    def project(self) -> None:
        """Each W onto the ball ‖W‖_∞ ≤ κ: a step of projected gradient descent ends so. The published code does it before each use."""
        for step in self.steps:
            step.W.data.copy_(project(step.W.data, self.kappa))

    def equilibria(self, graphs: Graphs, *, head: bool = False) -> list[ImplicitNetwork]:
        """The equilibria for these graphs as implicit networks with the weights of this one, each of which takes what the one before gives.

        Args:
            graphs: the batch.
            head: whether the last one has the head for its S, and gives logits; else its S is the identity, as that of the others.
        """
        last = len(self.steps) - 1
        return [
            ImplicitNetwork(
                _On(self.inputs[i], graphs.A),
                _On(self.steps[i], graphs.A),
                _HeadOn(self.head, graphs) if head and i == last else nn.Identity(),
                solver=self.solver,
                gradient=self.gradient,
                on_unconverged="ignore",
            ).train(self.training)
            for i in range(last + 1)
        ]

    def on(self, graphs: Graphs) -> ImplicitNetwork:
        """The network of these graphs, from `graphs.x` to logits, as one implicit network, whose Q contains the equilibria before the last.

        (`theory.criterion` and the other checks want no equilibrium inside Q: they take the last of `equilibria`, or one layer.)
        """
        *before, network = self.equilibria(graphs, head=True)
        if before:
            network.Q = nn.Sequential(*before, network.Q)
        return network

    @property
    def found(self) -> list[Tensor | None]:
        """Where the latest solves ended, `(N, width)` each: a `start`. None of an equilibrium whose rule makes no solve."""
        return [None if solution is None else solution.u for solution in self.last]

    def forward(self, graphs: Graphs, start: Sequence[Tensor | None] | None = None) -> Tensor:
        """Logits, `(G, classes)`.

        Args:
            graphs: the batch.
            start: where each iteration begins, `(N, width)`; None is zero. The equilibrium does not depend on it.
        """
        x, self.last = graphs.x, []
        for i, network in enumerate(self.equilibria(graphs)):
            x = network(x, None if start is None else start[i])
            self.last.append(network.last)
        return self.head(graphs.graph, len(graphs), x)


def unused_parameters(network: IGNN) -> int:
    """How many parameters more the published code makes, which no forward pass reads: a second Ω and a bias for each equilibrium."""
    return sum(each.omega.numel() + len(each.omega) for each in network.inputs)


def project(W: Tensor, kappa: float) -> Tensor:
    """The nearest matrix with ‖·‖_∞ ≤ κ: each row is moved to the ℓ₁ ball of radius κ.

    A row outside of it is shrunk towards zero by one amount α for all of its entries, those below α becoming 0, so that Σ max(|w| − α, 0) = κ
    (Duchi et al. 2008). `(rows, columns)`; W is not changed.
    """
    sizes = W.abs()
    ordered = sizes.sort(dim=1, descending=True).values
    counts = torch.arange(1, W.shape[1] + 1, dtype=W.dtype, device=W.device)
    alphas = (ordered.cumsum(dim=1) - kappa) / counts
    # the last place at which the entry is above the α that all entries up to it would give
    used = (ordered > alphas).sum(dim=1, keepdim=True).clamp(min=1)
    alpha = alphas.gather(1, used - 1).clamp(min=0)
    return W.sign() * (sizes - alpha).clamp(min=0)


@dataclass(frozen=True, eq=False)
class Fold:
    """Positions of graphs: to train on, to choose the epoch on, and to test on."""

    train: np.ndarray
    held_out: np.ndarray
    test: np.ndarray


def folds(labels: np.ndarray, seed: int, count: int = 10) -> Iterator[Fold]:
    """Stratified folds; of the training part of each a stratified ninth, so a tenth of all graphs, is held out.

    The published protocol holds nothing out, and takes for each fold the epoch with the best accuracy on the test.
    """
    for part, test in StratifiedKFold(count, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels):
        train, held_out = train_test_split(part, test_size=len(test), stratify=labels[part], random_state=seed)
        yield Fold(train, held_out, test)


def right(network: IGNN, graphs: Graphs, start: list[Tensor | None] | None = None) -> int:
    """How many of these graphs the network classifies rightly, in eval mode; `start` is taken, and set to what is found."""
    training = network.training
    network.eval()
    with torch.no_grad():
        logits = network(graphs, start or None)
    network.train(training)
    if start is not None:
        start[:] = network.found
    return int((logits.argmax(dim=1) == graphs.labels).sum())


def train(
    network: IGNN,
    shown: Sequence[Graphs],
    *,
    epochs: int,
    rate: float = RATE,
    halved: int = 50,
    watch: Callable[[int, float, float], bool | None] = lambda epoch, loss, seconds: None,
) -> list[float]:
    """Adam on the same batches in the same order each epoch, as the published code; returns the mean loss of each epoch.

    After each update W is projected. Each iteration begins where that of the same batch ended an epoch before, which saves most of its
    steps and changes no equilibrium.

    Args:
        network: its parameters are trained.
        shown: the batches.
        epochs: how many.
        rate: the learning rate, half as large after the epoch `halved`.
        watch: called after each epoch, from 1, with its number, its loss and the processor time of training so far in seconds; True ends it.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    starts: list[list[Tensor | None] | None] = [None] * len(shown)
    losses: list[float] = []
    seconds = 0.0
    network.train()
    for epoch in range(1, epochs + 1):
        begin = time.process_time()
        for group in optimizer.param_groups:
            group["lr"] = rate * (0.5 if epoch > halved else 1.0)
        total = 0.0
        for i, graphs in enumerate(shown):
            loss = nn.functional.cross_entropy(network(graphs, starts[i]), graphs.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            network.project()
            starts[i] = network.found
            total += loss.item() * len(graphs)
        losses.append(total / sum(len(graphs) for graphs in shown))
        seconds += time.process_time() - begin
        if watch(epoch, losses[-1], seconds):
            break
    return losses
