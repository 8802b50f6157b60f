"""Rules that record steps of T and let autograd do the rest: JFB, the unrolled phantom gradient, unrolling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._checks import check_damping, check_integer, store
from ..solvers.iteration import eager, recorded
from ._adjoint import Operator, constant
from ._once import differentiable_once

__all__ = ["JFB", "Unrolled", "UnrolledPhantom"]


@dataclass(frozen=True)
class JFB:
    """Jacobian-free backpropagation, JFB (20): one recorded step T(u*), as if u* were a constant.

    The loss sees T(u*). No product with a Jacobian.

    Derivatives in forward mode are those of the recorded step, with u* a constant. One of second order, of the gradient by what
    u* depends on, is refused: with u* a constant it is no derivative of anything. A Hessian-vector product needs `Unrolled`.
    """

    @eager
    def __call__(self, T: Operator, u_star: Tensor) -> Tensor:
        """T(u*), `(batch, *latent)`; arguments and errors as for `ImplicitDifferentiation`."""
        # a constant: no gradient goes back through the iteration that found u*, which is the whole rule
        return differentiable_once(recorded(T, constant(u_star), "u_star"))


@dataclass(frozen=True)
class UnrolledPhantom:
    """The unrolled phantom gradient, phantom gradient [16]: k recorded steps u ← (1 − λ)u + λT(u), from u*.

    The loss sees the k-th iterate. Memory grows with k. At an exact fixed point it is NeumannSeries(k, λ). Derivatives in forward
    mode and of second order are as for `JFB`.

    Args:
        steps: k, at least 1.
        damping: λ in (0, 1].
    """

    steps: int = 5
    damping: float = 0.5

    def __post_init__(self) -> None:
        steps = check_integer("steps", self.steps, 1, "the nearest valid choice is 1, which with damping=1.0 is JFB")
        store(self, steps=steps, damping=check_damping(self.damping))

    @eager
    def __call__(self, T: Operator, u_star: Tensor) -> Tensor:
        """The k-th iterate, `(batch, *latent)`; arguments and errors as for `ImplicitDifferentiation`."""
        u = constant(u_star)
        for _ in range(self.steps):
            v = recorded(T, u, "u_star")
            # λ = 1 is T(u), bit for bit, without the two products in the graph
            u = v if self.damping == 1 else (1 - self.damping) * u + self.damping * v
        return differentiable_once(u)


@dataclass(frozen=True)
class Unrolled:
    """Ordinary backpropagation through `steps` recorded iterations u ← T(u) from zero; u* is ignored but for its shape.

    The loss sees the last iterate. Memory grows with the steps. `ImplicitNetwork` skips the solve for it.

    Args:
        steps: at least 1.
    """

    steps: int = 50

    def __post_init__(self) -> None:
        store(self, steps=check_integer("steps", self.steps, 1, "50 is the default"))

    @eager
    def __call__(self, T: Operator, u_star: Tensor) -> Tensor:
        """The last iterate, `(batch, *latent)`; arguments and errors as for `ImplicitDifferentiation`."""
        # `constant` for its check of u_star, whose values play no part
        u = torch.zeros_like(constant(u_star))
        for _ in range(self.steps):
            u = recorded(T, u, "u_star")
        return u
