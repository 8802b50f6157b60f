"""The implicit network N(d) = S(u*), u* = R(u*, Q(d)): JFB (7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ._checks import choice
from .gradients import JFB, Unrolled
from .solvers import FixedPointIteration, Solution
from .solvers.iteration import eager

__all__ = ["ImplicitNetwork"]


class ImplicitNetwork(nn.Module):
    """N(d) = S(u*), where u* = T(u*; d) = R(u*, Q(d)), JFB (6) and (7).

    A forward pass evaluates Q once, with its graph; iterates from zero with the solver, without a graph, on the value of Q(d);
    and hands T(·; d) and what the solver found to the backward rule, whose value S maps to the inference. Training and
    evaluation do the same.

    Args:
        Q: maps the data `(batch, …)` to the latent space, `(batch, *latent)`.
        R: maps u and Q(d), both `(batch, *latent)`, to the same.
        S: maps `(batch, *latent)` to the inference.
        solver: how the fixed point is found; see `jfb_tutorial.solvers`.
        gradient: how the loss is differentiated; see `jfb_tutorial.gradients`. With `Unrolled` no solve is made.

    Attributes:
        last: the `Solution` of the latest solve, without a graph; None until there is one.

    Raises:
        TypeError: an argument cannot be called.
    """

    def __init__(
        self,
        Q: Callable[[Tensor], Tensor],
        R: Callable[[Tensor, Tensor], Tensor],
        S: Callable[[Tensor], Tensor],
        *,
        solver: Callable = FixedPointIteration(),  # noqa: B008  (frozen)
        gradient: Callable = JFB(),  # noqa: B008
    ) -> None:
        super().__init__()
        for name, part in {"Q": Q, "R": R, "S": S, "solver": solver, "gradient": gradient}.items():
            if isinstance(part, type):
                raise TypeError(f"{name} must be an object, got the class {part.__name__}; write {part.__name__}()")
            if not callable(part):
                raise TypeError(f"{name} must be callable, got {type(part).__name__}")
        self.Q, self.R, self.S = Q, R, S
        self.solver, self.gradient = solver, gradient
        self.last: Solution | None = None

    @eager
    def forward(self, d: Tensor) -> Tensor:
        """The inference for the data `d`; `last` then tells how the solve went."""
        T, start = self._operator(d)
        u = start if isinstance(self.gradient, Unrolled) else self._solve(T, start).u
        return self.S(self.gradient(T, u))

    @eager
    def solve(self, d: Tensor) -> Solution:
        """The fixed point for the data `d`, without a graph."""
        with torch.no_grad():
            return self._solve(*self._operator(d))

    def operator(self, d: Tensor) -> Callable[[Tensor], Tensor]:
        """T(·; d), JFB (6), as a function of u; Q(d) is evaluated now, once, and keeps its graph."""
        return self._operator(d)[0]

    @contextmanager
    def using(
        self, *, solver: Callable | None = None, gradient: Callable | None = None, mode: str | None = None
    ) -> Iterator[ImplicitNetwork]:
        """The network with other settings inside, and as it was afterwards: `with network.using(mode="eval"): …`.

        Put back are the solver, the rule, `last`, and the mode of every module; parameters and buffers are not.

        Args:
            solver: instead of its own.
            gradient: instead of its own.
            mode: "train" or "eval", for all modules.

        Raises:
            ValueError: an unknown mode.
        """
        if mode is not None:
            choice("mode", mode, ("train", "eval"))
        modes = [(module, module.training) for module in self.modules()]
        own = self.solver, self.gradient, self.last
        try:
            self.solver, self.gradient = solver or self.solver, gradient or self.gradient
            if mode is not None:
                self.train(mode == "train")
            yield self
        finally:
            self.solver, self.gradient, self.last = own
            for module, training in modes:
                module.training = training

    @eager
    def _operator(self, d: Tensor):
        q = self.Q(d)
        return (lambda u: self.R(u, q)), torch.zeros_like(q)

    @eager
    def _solve(self, T: Callable[[Tensor], Tensor], start: Tensor) -> Solution:
        self.last = self.solver(T, start)
        return self.last

    def extra_repr(self) -> str:
        """The solver and the rule, for `print(network)`."""
        return f"solver={self.solver}, gradient={self.gradient}"
