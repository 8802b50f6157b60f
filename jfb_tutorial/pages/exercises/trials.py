"""What functions that are handed in are tried on: small layers and networks, fresh ones from the guard's seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...gradients import JFB, NeumannSeries
from ...network import ImplicitNetwork
from ...solvers import FixedPointIteration
from ..phantoms import Layer
from .running import Stopped, Student

__all__ = ["Trial", "flat_gradient", "of_rule", "powers", "small_network", "trials"]


@dataclass(frozen=True)
class Trial:
    """T(u) = tanh(Wu + b) for rows u `(3, 5)`, ‖W‖₂ = 0.8, at its fixed point, and the linear loss that a value is sent into."""

    W: Tensor
    b: Tensor
    c: Tensor
    u_star: Tensor

    def T(self, u: Tensor) -> Tensor:
        """One step."""
        return torch.tanh(u @ self.W.T + self.b)


def trials(count: int = 2) -> Iterator[Trial]:
    """Fresh ones."""
    for _ in range(count):
        W = torch.randn(5, 5)
        W = (0.8 * W / torch.linalg.matrix_norm(W, 2)).requires_grad_()
        trial = Trial(W, torch.randn(3, 5).requires_grad_(), torch.randn(3, 5), torch.zeros(3, 5))
        found = FixedPointIteration(tol=1e-13, max_steps=2000)(trial.T, trial.u_star).u
        yield Trial(trial.W, trial.b, trial.c, found)


def flat_gradient(value: Tensor, trial: Trial, name: str) -> Tensor:
    """The value, and the gradient of its loss by W and b, in one row."""
    if not isinstance(value, Tensor) or value.shape != trial.u_star.shape:
        raise Stopped(f"`{name}` has to return a tensor of the shape of u, one step's value with its graph.")
    if not value.requires_grad:
        raise Stopped(
            f"What `{name}` returns has no graph, so nothing reaches the weights: is it detached, or under `no_grad`?"
        )
    found = torch.autograd.grad((value * trial.c).sum(), (trial.W, trial.b), allow_unused=True)
    parts = [torch.zeros_like(to) if part is None else part for part, to in zip(found, (trial.W, trial.b), strict=True)]
    return torch.cat([value.detach().flatten(), *(part.flatten() for part in parts)])


def of_rule(rule: Any, *more: tuple[Any, ...]) -> Tensor:
    """What a backward rule `rule(T, u_star, …)` gives, on each trial and for each tuple of further arguments."""
    name = rule.name if isinstance(rule, Student) else "rule"
    seen = [
        flat_gradient(rule(trial.T, trial.u_star.clone(), *each), trial, name)
        for trial in trials()
        for each in (more or ((),))
    ]
    return torch.cat(seen)


def powers(weights: Callable[[int], float], count: int) -> Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]:
    """A rule that sends Σ weights(i) gJⁱ, i < count, from Neumann series of the package: what wrong rules are made of."""

    def rule(T: Callable[[Tensor], Tensor], u_star: Tensor) -> Tensor:
        value = JFB()(T, u_star)
        total = value.detach()
        last = torch.zeros_like(value)
        for i in range(count):
            series = NeumannSeries(i + 1)(T, u_star)
            term = series - last  # in its graph gJⁱ, in value 0 but for the first
            total = total + weights(i) * (term - term.detach())
            last = series
        return total

    return rule


def small_network(gamma: float = 0.9, seed: int = 0) -> ImplicitNetwork:
    """Chapter 5's: four inputs, eight tanh units with ‖W‖₂ = gamma, three classes; solved to 1e-12."""
    torch.manual_seed(seed)
    R, Q, S = Layer(8, gamma), nn.Linear(4, 8), nn.Linear(8, 3)
    return ImplicitNetwork(Q, R, S, solver=FixedPointIteration(tol=1e-12, max_steps=2000), gradient=JFB())
