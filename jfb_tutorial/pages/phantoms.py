"""What chapter 06 is tried on: layers and Jacobians of given eigenvalues, random instances, a network of the digits, SGD with a biased gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

from ..network import ImplicitNetwork
from ..solvers import FixedPointIteration
from ..theory import Linearised
from .figures import BLUE, GREEN, GREY, PURPLE, VERMILION
from .instances import most_turned, norm, perturbed, replaced

__all__ = [
    "BiasedSGD",
    "Layer",
    "any_A",
    "curves",
    "damped_power",
    "digits_network",
    "four_jacobians",
    "matrix_of",
    "only_D",
    "small_network",
]

Test = Callable[[Tensor], Tensor]
"""Maps a size of E or of K, a number for each instance, to whether each instance descends."""


class Layer(nn.Module):
    """R(u, q) = tanh(Wu + q), ‖W‖₂ = gamma.

    Args:
        n: unknowns.
        gamma: the norm of W.
        kind: "gaussian", "orthogonal", or "negative", with eigenvalues from −gamma to 0.
    """

    def __init__(self, n: int, gamma: float, kind: str = "gaussian"):
        super().__init__()
        W = torch.randn(n, n)
        if kind == "orthogonal":
            W = torch.linalg.qr(W)[0]
        if kind == "negative":
            W = -W @ W.T
        self.W = nn.Parameter(gamma * W / torch.linalg.matrix_norm(W, 2))

    def forward(self, u: Tensor, q: Tensor) -> Tensor:
        """R(u, q), `(batch, n)`."""
        return torch.tanh(u @ self.W.T + q)


def small_network(seed: int = 0) -> ImplicitNetwork:
    """Four inputs, eight tanh units with ‖W‖₂ = 0.9, three classes."""
    torch.manual_seed(seed)
    R = Layer(8, 0.9)
    return ImplicitNetwork(nn.Linear(4, 8), R, nn.Linear(8, 3))


def four_jacobians(n: int = 32) -> dict[str, Tensor]:
    """Matrices of norm 0.9, by name: symmetric, orthogonal, Gaussian, and −0.9·I."""
    generator = torch.Generator().manual_seed(3)
    W = torch.randn(n, n, generator=generator)
    found = {"symmetric": W + W.T, "orthogonal": torch.linalg.qr(W)[0], "Gaussian": W, "−0.9·I": -torch.eye(n)}
    return {name: 0.9 * A / norm(A) for name, A in found.items()}


def damped_power(J: Tensor, k: int, damping: float) -> Tensor:
    """Bᵏ with B = λJ + (1 − λ)I, which is the K of k damped terms."""
    return torch.linalg.matrix_power(damping * J + (1 - damping) * torch.eye(len(J)), k)


def matrix_of(case: Linearised, rule: Callable, start: Tensor | None = None) -> Tensor:
    """A, `(n, p)`, by running a rule on basis rows: what reaches the weights is g A. It starts at the fixed point, or elsewhere."""
    return case.theta_T_rows(rule(case.T, case.u if start is None else start)).T


def curves(ax: Axes, lines: Mapping[str, ArrayLike]) -> None:
    """Lines over 1, 2, 3, … under their names; the one called "exact" is blue and solid, the others are told apart by dashes too."""
    looks = [(VERMILION, "--"), (PURPLE, (0, (6, 2))), (GREEN, "-."), (GREY, ":")]
    for name, line in lines.items():
        colour, dash = (BLUE, "-") if name == "exact" else looks.pop(0)
        y = np.asarray(line)
        ax.plot(np.arange(1, len(y) + 1), y, color=colour, linestyle=dash, linewidth=1.5, label=name)
    ax.legend(loc="lower left")


def digits_network(steps: int = 150) -> tuple[ImplicitNetwork, ImplicitNetwork, Tensor, Tensor]:
    """Sixteen tanh units before and after some steps of Adam on scikit-learn's digits, by JFB; and the digits, `(N, 64)`, `(N,)`."""
    loaded = load_digits()
    pixels, labels = torch.tensor(loaded.data / 16, dtype=torch.get_default_dtype()), torch.tensor(loaded.target)
    torch.manual_seed(0)
    # training makes some samples slow
    solver = FixedPointIteration(tol=1e-6, max_steps=100)
    network = ImplicitNetwork(
        nn.Linear(64, 16), Layer(16, 0.5), nn.Linear(16, 10), solver=solver, on_unconverged="ignore"
    )
    before = copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = torch.randint(1000, (100,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(pixels[batch]), labels[batch]).backward()
        optimizer.step()
    return before, network, pixels, labels


def only_D(count: int, *, n: int = 4, p: int = 7) -> tuple[Tensor, Tensor, Test]:
    """Random M of p rows, n columns and random adjoints, half of them as bad as can be: κ(MᵀM); which are bad; the test of a size of K."""
    generator = torch.Generator().manual_seed(0)
    left, right, bad = _drawn(count, n, p, generator)
    kappas = (30 ** torch.rand(count, generator=generator)) ** 2
    logs = torch.rand(count, n, generator=generator)
    logs[:, 0], logs[:, -1] = 0, 1
    M = left * (kappas[:, None] ** (logs / 2))[:, None] @ right
    w = torch.where(bad, most_turned(M.mT @ M), torch.randn(count, n, 1, generator=generator))
    return kappas, bad[:, 0, 0], partial(replaced, M, w, bad, generator)


def any_A(count: int, *, n: int = 4, p: int = 7) -> tuple[Tensor, Tensor, Test]:
    """As `only_D`: M; its singular values, the largest first; the test of a size of E."""
    generator = torch.Generator().manual_seed(1)
    left, right, bad = _drawn(count, n, p, generator)
    sigma = (30 ** torch.rand(count, n, generator=generator)).sort(dim=1, descending=True)[0]
    M = left * sigma[:, None] @ right
    w = torch.where(bad, right[:, -1, :, None], torch.randn(count, n, 1, generator=generator))
    return M, sigma, partial(perturbed, M, w, bad, generator)


def _drawn(count: int, n: int, p: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    left, right = (torch.linalg.qr(torch.randn(count, k, n, generator=generator))[0] for k in (p, n))
    return left, right, torch.rand(count, 1, 1, generator=generator) < 0.5


Array = NDArray[np.floating]


@dataclass(frozen=True)
class BiasedSGD:
    """SGD on u = Wu + Cθ + x with a squared loss, by the rule of k terms; four unknowns, two weights, bounded random x of mean 0.

    Everything is an exact formula. k terms multiply the adjoint by I − Wᵏ from the right; k = 0 stands for the exact gradient.

    Attributes:
        W, C: `(4, 4)` of norm ½, and `(4, 2)`.
        inverse: (I − W)⁻¹.
        response: du*/dθ, `(4, 2)`.
        shift: of the targets, so that no θ meets them, not even on average, `(4,)`.
    """

    W: Array = field(init=False)
    C: Array = field(init=False)
    inverse: Array = field(init=False)
    response: Array = field(init=False)
    shift: Array = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        W = 0.5 * np.linalg.qr(rng.standard_normal((4, 4)))[0]
        C = np.array([[1.5, 0.0], [0.0, 1.0], [1.0, 0.5], [-0.5, 0.7]])
        inverse = np.linalg.inv(np.eye(4) - W)
        found = {"W": W, "C": C, "inverse": inverse, "response": inverse @ C, "shift": rng.standard_normal(4)}
        for name, value in found.items():
            object.__setattr__(self, name, value)

    def kept(self, k: int) -> Array:
        """I − Wᵏ, what k terms leave of an adjoint; I for k = 0."""
        return np.eye(4) - np.linalg.matrix_power(self.W, k) if k else np.eye(4)

    def rest_point(self, k: int) -> Array:
        """The θ at which the mean of the rule vanishes, `(2,)`."""
        rows = (self.inverse @ self.kept(k) @ self.C).T
        return np.linalg.solve(rows @ self.response, rows @ self.shift)

    def slope_at(self, theta: Array) -> Array:
        """‖∇R‖² at each row of θ."""
        return (((theta @ self.response.T - self.shift) @ self.response) ** 2).sum(axis=-1)

    def adjoints(self, theta: Array, x: Array) -> Array:
        """Of one sample a row."""
        tilt = np.array([1.0, -1.0, 0.5, 2.0])
        return ((theta @ self.response.T - self.shift) + x @ self.inverse.T - x * tilt) @ self.inverse

    def inputs(self, count: int, rng: np.random.Generator) -> Array:
        """x of each sample, `(count, 4)`."""
        return rng.uniform(-1.7, 1.7, (count, 4))

    def run(self, k: int, *, power: float = 0.5, steps: int = 8000, runs: int = 64) -> tuple[Array, float, float]:
        """Several runs from θ = 0 with steps 0.1/n^power, one sample each.

        Returns:
            ‖∇R‖² before each step, mean over the runs; its mean weighted by the steps, as in [20]; the largest bias of a sample.
        """
        rng, kept = np.random.default_rng(1), self.kept(k)
        theta, path, bias = np.zeros((runs, 2)), np.zeros(steps), 0.0
        etas = 0.1 / np.arange(1, steps + 1) ** power
        for i, eta in enumerate(etas):
            adjoint = self.adjoints(theta, self.inputs(runs, rng))
            rule = adjoint @ kept @ self.C
            path[i] = self.slope_at(theta).mean()
            bias = max(bias, float(np.linalg.norm(rule - adjoint @ self.C, axis=1).max()))
            theta = theta - eta * rule
        return path, float(etas @ path / etas.sum()), bias
