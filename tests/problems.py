"""Fixed point problems that the tests of several modules share: T with parameters, and its fixed point, in float64."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from jfb_tutorial import theory
from jfb_tutorial.solvers import FixedPointIteration


class Block(nn.Module):
    """scale · norm(x + conv(leaky(conv x))), x = u + q: the shape of the papers' latent block."""

    def __init__(self, norm: nn.Module, channels: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = norm
        self.scale = 1.0

    def forward(self, u: Tensor, q: Tensor) -> Tensor:
        x = u + q
        return self.scale * self.norm(x + self.second(leaky_relu(self.first(x), 0.1)))


class Layer(nn.Module):
    """scale · tanh(W u + q)"""

    def __init__(self, n: int = 12) -> None:
        super().__init__()
        self.linear = nn.Linear(n, n)
        self.scale = 1.0

    def forward(self, u: Tensor, q: Tensor) -> Tensor:
        return self.scale * torch.tanh(self.linear(u) + q)


class Mixed(nn.Module):
    """The samples of a batch, mixed by an orthogonal matrix."""

    def __init__(self, base: nn.Module, batch: int) -> None:
        super().__init__()
        self.base = base
        self.register_buffer("mix", torch.linalg.qr(torch.randn(batch, batch))[0])

    def forward(self, u: Tensor, q: Tensor) -> Tensor:
        return torch.tensordot(self.mix, self.base(u, q), dims=1)


@dataclass
class Problem:
    R: nn.Module
    q: Tensor
    u: Tensor
    gamma: float

    def T(self, u: Tensor) -> Tensor:
        return self.R(u, self.q)


def batch_norm() -> nn.Module:
    return nn.BatchNorm2d(4, momentum=0.0)  # in train mode, with its running statistics frozen


KINDS = {
    "tanh": lambda: Layer(),
    "conv": lambda: Block(nn.Identity()),
    "group": lambda: Block(nn.GroupNorm(2, 4)),
    "batch": lambda: Block(batch_norm()),
}


def problem(kind: str, batch: int, *, gamma: float = 0.8, mixed: bool = False, seed: int = 0) -> Problem:
    """A problem with ‖∂T/∂u‖ ≤ gamma, measured at its fixed point."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        R: nn.Module = KINDS[kind]().double().train()
        q = torch.randn(batch, 12).double() if kind == "tanh" else torch.randn(batch, 4, 3, 3).double()
        if mixed:
            R = Mixed(R, batch).double()
    base: Any = R.base if mixed else R  # its scale is a plain number
    for _ in range(60):  # smaller until it is a contraction where it ends
        try:
            solution = FixedPointIteration(tol=1e-13, max_steps=2000)(lambda u: R(u, q), torch.zeros_like(q))
        except FloatingPointError:
            base.scale *= 0.8
            continue
        found = theory.contraction_factor(lambda u: R(u, q), solution.u)
        if found <= gamma and bool(solution.converged.all()):
            return Problem(R, q, solution.u, found)
        base.scale *= 0.9
    raise AssertionError("no contraction found")
