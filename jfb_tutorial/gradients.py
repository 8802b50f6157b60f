"""Backward rules: what the gradient of a loss does when it arrives at a fixed point u* = T(u*).

A rule is a frozen dataclass, called as `rule(T, u_star) -> u`. It returns a value with a graph, on which the loss is computed;
the backward pass through that graph is the rule. T is a function of u alone and carries graphs of its own to whatever
else it depends on: its parameters, the encoded input Q(d). Every rule evaluates T with the whole batch, in the mode and the
precision in which it finds it, and each parameter receives its gradient once, from the outer backward pass, so that hooks
on parameters (DistributedDataParallel) see what they see in any network.

In the notation of JFB (12), with J = ∂T/∂u at u* and g the gradient of the loss by u: the gradient that a parameter θ of T
receives is w ∂T/∂θ, where

    exact            w = g (I − J)⁻¹                         ImplicitDifferentiation, JFB (14)
    JFB              w = g                                   JFB, JFB (20)
    NPG              w = λ g (I + B + … + Bᵏ⁻¹), B = λJ + (1 − λ)I   NeumannSeries, phantom gradient [17]
    UPG              the same, each B at its own iterate     UnrolledPhantom, phantom gradient [16]
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ._checks import choice, damping, flag, integer, latent, positive
from ._jacobian import products
from .iteration import eager, recorded, rows
from .linear import METHODS, solve

__all__ = ["JFB", "ImplicitDifferentiation", "NeumannSeries", "Tally", "Unrolled", "UnrolledPhantom", "tally"]

Operator = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class JFB:
    """Jacobian-free backpropagation, JFB (20): one recorded step T(u*), as if u* were a constant.

    The loss sees T(u*). No product with a Jacobian.
    """

    @eager
    def __call__(self, T: Operator, u_star: Tensor) -> Tensor:
        """T(u*), `(batch, *latent)`; arguments and errors as for `ImplicitDifferentiation`."""
        return recorded(T, _constant(u_star), "u_star")


@dataclass(frozen=True)
class ImplicitDifferentiation:
    """The exact gradient, JFB (14): solves the adjoint equation w (I − J) = g when g arrives.

    The loss sees T(u*). The whole batch is one system with inner products over all of it, which is right whether or not T
    couples its samples (batch normalisation does). It is exact as far as u* is a fixed point and the solve succeeds: a
    system counts as solved when its residual, measured with w itself, is at most tol ‖g‖ + 8 ε ‖w‖, where ε is the rounding
    of the precision in which T was evaluated (of the lower one, inside autocast). A gradient g that is not finite
    passes through as it is, for `torch.amp.GradScaler` to see.

    Args:
        solver: "gmres", started afresh every 50 steps, for which it keeps 51 vectors of the size of the latent; "bicgstab";
            "neumann", the series (22) summed until the tolerance is met; "cg", the paper's conjugate gradients on the
            normal equations (74), which need the backward pass of T to be differentiable.
        tol: relative to ‖g‖₂, > 0.
        max_steps: largest number of steps of the solver. A step costs one vector-Jacobian product ("gmres", "neumann"), two
            ("bicgstab"), or one and a Jacobian-vector product ("cg").
        per_sample: solve one system a sample, right only where T does not couple the samples. The residual is measured for
            each sample, relative to its own ‖g‖, and with T as it is, so that coupling is found out.
        on_failure: "raise" a RuntimeError from the backward pass where a system is not solved, or "warn" with a
            RuntimeWarning and go on with what there is.

    Raises:
        ValueError, TypeError: bad settings; an unknown solver is answered with the nearest one.
    """

    solver: str = "gmres"
    tol: float = 1e-6
    max_steps: int = 1000
    per_sample: bool = False
    on_failure: str = "raise"

    def __post_init__(self) -> None:
        choice("solver", self.solver, METHODS)
        positive("tol", self.tol, "1e-6 is the default")
        integer("max_steps", self.max_steps, 1, "1000 is the default")
        flag("per_sample", self.per_sample)
        choice("on_failure", self.on_failure, ("raise", "warn"))

    @eager
    def __call__(self, T: Operator, u_star: Tensor) -> Tensor:
        """T(u*), whose backward pass solves the adjoint equation.

        Args:
            T: maps `(batch, *latent)` to the same shape, dtype and device (inside autocast T(u) is cast to u's dtype).
            u_star: `(batch, *latent)`, the fixed point, floating point; its own graph is ignored.

        Returns:
            `(batch, *latent)`. Where nothing needs a gradient, it has no graph.

        Raises:
            TypeError, ValueError: u_star is no such tensor, or T changes its shape, dtype or device.
            RuntimeError: from the backward pass, a solve that failed; the message names the residual and the remedy.
        """
        low = _roundoff(u_star)

        def adjoint(g: Tensor, v: Tensor, u: Tensor) -> Tensor:
            if not bool(g.isfinite().all()):
                return g
            work = torch.promote_types(g.dtype, torch.float32)
            apply, transposed = _counted(*products(v, u))
            flat = rows(g).to(work) if self.per_sample else g.reshape(1, -1).to(work)

            def shaped(product):
                return lambda w: product(w.reshape(g.shape).to(g.dtype)).reshape(flat.shape).to(work)

            settings = {"tol": self.tol, "max_steps": self.max_steps, "roundoff": low}
            solution = solve(self.solver, flat, shaped(transposed), shaped(apply), **settings)
            for record in _tallies:
                record.residuals.append(solution.residual.max().item())
            if not bool(solution.converged.all()):
                self._failed(solution)
            return solution.w.reshape(g.shape).to(g.dtype)

        return _with_adjoint(T, u_star, adjoint, twice=self.solver == "cg")

    def _failed(self, solution) -> None:
        missed = int((~solution.converged).sum())
        which = f"{missed} of {len(solution.converged)} systems" if self.per_sample else "the adjoint equation"
        if solution.steps >= self.max_steps:
            remedy = f"max_steps = {self.max_steps} was reached: raise it, or choose another solver"
        else:
            remedy = "it got no better: is T a contraction at u*? Is tol within the precision? Try solver='cg'"
        if self.per_sample:
            remedy += ". If T couples its samples (batch normalisation does), only per_sample=False is right"
        message = (
            f"{self.solver} left {which} unsolved after {solution.steps} steps, relative residual "
            f"{solution.residual.max():.1e}, tol {self.tol:.1e}; {remedy}"
        )
        if self.on_failure == "raise":
            raise RuntimeError(message)
        warnings.warn(message, RuntimeWarning, stacklevel=2)


@dataclass(frozen=True)
class NeumannSeries:
    """The Neumann phantom gradient, phantom gradient [17]: w = λ g (I + B + … + Bᵏ⁻¹), B = λJ + (1 − λ)I.

    The loss sees T(u*). It costs k − 1 vector-Jacobian products. JFB is `NeumannSeries(1, 1.0)`, bit for bit; JFB's
    "Neumann order K" is `terms = K + 1`, since that paper counts the powers of J.

    Args:
        terms: k, at least 1.
        damping: λ in (0, 1].
    """

    terms: int = 1
    damping: float = 1.0

    def __post_init__(self) -> None:
        integer("terms", self.terms, 1, "the nearest valid choice is 1, which with damping=1.0 is JFB")
        damping(self.damping)

    @eager
    def __call__(self, T: Operator, u_star: Tensor) -> Tensor:
        """T(u*), `(batch, *latent)`; arguments and errors as for `ImplicitDifferentiation`."""
        if self.terms == 1 and self.damping == 1:
            return JFB()(T, u_star)

        def adjoint(g: Tensor, v: Tensor, u: Tensor) -> Tensor:
            _, transposed = _counted(*products(v, u))
            w = term = g
            for _ in range(self.terms - 1):
                term = self.damping * transposed(term) + (1 - self.damping) * term
                w = w + term
            return self.damping * w

        return _with_adjoint(T, u_star, adjoint)


@dataclass(frozen=True)
class UnrolledPhantom:
    """The unrolled phantom gradient, phantom gradient [16]: k recorded steps u ← (1 − λ)u + λT(u), from u*.

    The loss sees the k-th iterate. Memory grows with k. At an exact fixed point it is NeumannSeries(k, λ).

    Args:
        steps: k, at least 1.
        damping: λ in (0, 1].
    """

    steps: int = 5
    damping: float = 0.5

    def __post_init__(self) -> None:
        integer("steps", self.steps, 1, "the nearest valid choice is 1, which with damping=1.0 is JFB")
        damping(self.damping)

    @eager
    def __call__(self, T: Operator, u_star: Tensor) -> Tensor:
        """The k-th iterate, `(batch, *latent)`; arguments and errors as for `ImplicitDifferentiation`."""
        u = _constant(u_star)
        for _ in range(self.steps):
            v = recorded(T, u, "u_star")
            u = v if self.damping == 1 else (1 - self.damping) * u + self.damping * v
        return u


@dataclass(frozen=True)
class Unrolled:
    """Ordinary backpropagation through `steps` recorded iterations u ← T(u) from zero; u* is ignored but for its shape.

    The loss sees the last iterate. Memory grows with the steps. `ImplicitNetwork` skips the solve for it.

    Args:
        steps: at least 1.
    """

    steps: int = 50

    def __post_init__(self) -> None:
        integer("steps", self.steps, 1, "50 is the default")

    @eager
    def __call__(self, T: Operator, u_star: Tensor) -> Tensor:
        """The last iterate, `(batch, *latent)`; arguments and errors as for `ImplicitDifferentiation`."""
        u = torch.zeros_like(_constant(u_star))
        for _ in range(self.steps):
            u = recorded(T, u, "u_star")
        return u


@dataclass
class Tally:
    """What backward passes cost while `tally()` was counting.

    Attributes:
        products: products with J in either direction: one for each vector-Jacobian and for each Jacobian-vector product. The
            last reverse pass, from w to the parameters, is none of them: every rule makes it.
        residuals: the relative residual with which each solve of `ImplicitDifferentiation` ended (the largest, per sample).
    """

    products: int = 0
    residuals: list[float] = field(default_factory=list)


@contextmanager
def tally() -> Iterator[Tally]:
    """Count the products of all backward passes inside: `with tally() as count: loss.backward()`."""
    record = Tally()
    _tallies.append(record)
    try:
        yield record
    finally:
        _tallies.remove(record)


_tallies: list[Tally] = []  # of the whole process, since on a GPU the backward pass runs in a thread of its own


class _Adjoint(torch.autograd.Function):
    """The identity; its backward pass hands the gradient to `adjoint` and passes on what that returns."""

    @staticmethod
    def forward(ctx, v: Tensor, adjoint: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.adjoint = adjoint
        return v.view_as(v)

    @staticmethod
    def backward(ctx, g: Tensor):
        if torch.is_grad_enabled():
            # the result depends on the parameters through J as well, which no graph of this pass would record
            raise RuntimeError(
                "this backward rule cannot be differentiated again (create_graph=True); use Unrolled for second derivatives"
            )
        return ctx.adjoint(g), None


@eager
def _with_adjoint(
    T: Operator, u_star: Tensor, adjoint: Callable[[Tensor, Tensor, Tensor], Tensor], *, twice: bool = False
):
    """T(u*), the gradient of which goes through `adjoint(g, v, u)` first; T is evaluated once, for both.

    `twice` asks for a graph that can be differentiated twice, which a compiled one cannot.
    """
    u = _constant(u_star)
    if not torch.is_grad_enabled():
        return recorded(T, u, "u_star")
    u = u.clone().requires_grad_()
    v = torch.compiler.disable(recorded)(T, u, "u_star") if twice else recorded(T, u, "u_star")
    if not _reaches_other_leaves(v, u):
        return v.detach()
    return _attach(v, lambda g: adjoint(g, v, u))


@torch.compiler.disable
def _attach(v: Tensor, adjoint: Callable[[Tensor], Tensor]) -> Tensor:
    return _Adjoint.apply(v, adjoint)


@torch.compiler.disable
def _constant(u_star: Tensor) -> Tensor:
    """u* without its graph, and fit to be recorded."""
    latent("u_star", u_star)
    return u_star.clone() if u_star.is_inference() and not torch.is_inference_mode_enabled() else u_star.detach()


@torch.compiler.disable
def _reaches_other_leaves(v: Tensor, u: Tensor) -> bool:
    """Whether a gradient of v would reach anything but u."""
    stack, seen = [v.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if getattr(node, "variable", u) is not u:
            return True
        stack.extend(parent for parent, _ in node.next_functions)
    return False


def _counted(*pair):
    """The same products, each call of which every open tally counts."""

    def counting(product):
        def counted(x: Tensor) -> Tensor:
            for record in _tallies:
                record.products += 1
            return product(x)

        return counted

    return tuple(counting(product) for product in pair)


def _roundoff(u: Tensor) -> float:
    """The rounding of the precision in which T will be evaluated at u."""
    device = u.device.type if isinstance(u, Tensor) else "cpu"
    dtypes = [u.dtype] if isinstance(u, Tensor) and u.is_floating_point() else []
    if torch.is_autocast_enabled(device):
        dtypes.append(torch.get_autocast_dtype(device))
    return max((torch.finfo(dtype).eps for dtype in dtypes), default=0.0)
