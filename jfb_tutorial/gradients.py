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
from dataclasses import dataclass

import torch
from torch import Tensor

from ._adjoint import Operator, Tally, constant, counted_products, tallies, tally, with_adjoint
from ._checks import choice, damping, flag, integer, positive
from ._jacobian import products
from .iteration import eager, recorded, rows
from .linear import METHODS, _ratio, solve

__all__ = [
    "JFB",
    "ImplicitDifferentiation",
    "NeumannSeries",
    "PublishedCG",
    "Tally",
    "Unrolled",
    "UnrolledPhantom",
    "tally",
]


@dataclass(frozen=True)
class JFB:
    """Jacobian-free backpropagation, JFB (20): one recorded step T(u*), as if u* were a constant.

    The loss sees T(u*). No product with a Jacobian.
    """

    @eager
    def __call__(self, T: Operator, u_star: Tensor) -> Tensor:
        """T(u*), `(batch, *latent)`; arguments and errors as for `ImplicitDifferentiation`."""
        return recorded(T, constant(u_star), "u_star")


@dataclass(frozen=True)
class ImplicitDifferentiation:
    """The exact gradient, JFB (14): solves the adjoint equation w (I − J) = g when g arrives.

    The loss sees T(u*). The whole batch is one system with inner products over all of it, which is right whether or not T
    couples its samples (batch normalisation does). It is exact as far as u* is a fixed point and the solve succeeds: a
    system counts as solved when its residual, measured with w itself, is at most tol ‖g‖, or where the precision in which
    T was evaluated does not allow that, when the residual is explained by rounding and at most 5% of ‖g‖. A gradient g that
    is not finite passes through as it is, for `torch.amp.GradScaler` to see.

    The products use the one recorded evaluation of T again and again: hooks on modules inside T fire at each, and a
    checkpoint around the network recomputes it each time.

    Args:
        solver: "gmres", started afresh every 50 steps, with up to 51 vectors of the size of the latent; "bicgstab";
            "neumann", the series (22) summed until the tolerance is met; "cg", the paper's conjugate gradients on the
            normal equations (74), which need the backward pass of T to be differentiable.
        tol: relative to ‖g‖₂, in (0, 1).
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
        if not positive("tol", self.tol, "1e-6 is the default") < 1:
            raise ValueError(f"tol must be below 1, got {self.tol}: w = 0 would do; 1e-6 is the default")
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

        def adjoint(g: Tensor, v: Tensor, u: Tensor) -> Tensor:
            if not bool(g.isfinite().all()):
                return g
            work = torch.promote_types(g.dtype, torch.float32)
            apply, transposed = counted_products(*products(v, u))
            flat = rows(g).to(work) if self.per_sample else g.reshape(1, -1).to(work)

            def shaped(product):
                return lambda w: product(w.reshape(g.shape).to(g.dtype)).reshape(flat.shape).to(work)

            solution = solve(
                self.solver, flat, shaped(transposed), shaped(apply), tol=self.tol, max_steps=self.max_steps
            )
            for record in tallies:
                record.residuals.append(max(solution.residual.tolist(), default=0.0))
            if not bool(solution.converged.all()):
                self._failed(solution)
            return solution.w.reshape(g.shape).to(g.dtype)

        return with_adjoint(T, u_star, adjoint, twice=self.solver == "cg")

    def _failed(self, solution) -> None:
        missed = int((~solution.converged).sum())
        which = f"{missed} of {len(solution.converged)} systems" if self.per_sample else "the adjoint equation"
        if solution.steps >= self.max_steps:
            remedy = f"max_steps = {self.max_steps} was reached: raise it, or choose another solver"
        else:
            remedy = "it got no better: is T a contraction at u*, in this precision? Another solver may do: gmres, cg"
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
class PublishedCG:
    """The Jacobian-based rule as the JFB paper's code has it, to compare with: conjugate gradients that stop early.

    The loss sees T(u*). The normal equations w𝒥𝒥ᵀ = g𝒥ᵀ, JFB (74), are solved for every sample by itself, from w = g𝒥ᵀ, in at
    least one step, until ‖w𝒥𝒥ᵀ − g𝒥ᵀ‖₂ ≤ tol for each. tol is absolute, and g is that of a mean over the batch, hence small: on
    MNIST the first step meets the code's 0.1, whatever is missing. For an exact gradient there is `ImplicitDifferentiation`.

    A step takes four products here (the code makes six, and counts one), and there are three before the first.

    Args:
        tol: absolute, for each sample.
        max_steps: largest number of steps. Where the code would leave out a batch that has not met tol by then, the backward pass
            raises a RuntimeError.
    """

    tol: float = 0.1
    max_steps: int = 50

    def __post_init__(self) -> None:
        positive("tol", self.tol, "0.1 is the default")
        integer("max_steps", self.max_steps, 1, "50 is the default")

    @eager
    def __call__(self, T: Operator, u_star: Tensor) -> Tensor:
        """T(u*), `(batch, *latent)`; arguments and errors as for `ImplicitDifferentiation`."""

        def adjoint(g: Tensor, v: Tensor, u: Tensor) -> Tensor:
            if not bool(g.isfinite().all()):
                return g
            apply, transposed = counted_products(*products(v, u))
            b = g - apply(g)
            w, w_J = b, b - transposed(b)
            r = p = b - (w_J - apply(w_J))
            rho = _dots(r, r)
            for _ in range(self.max_steps):
                p_J = p - transposed(p)
                p_JJt = p_J - apply(p_J)
                alpha = _ratio(rho, _dots(p, p_JJt))
                w, r = w + alpha * p, r - alpha * p_JJt
                w_J = w - transposed(w)
                missing = rows(w_J - apply(w_J) - b).norm(dim=1)
                if bool((missing <= self.tol).all()):
                    break
                rho, old = _dots(r, r), rho
                p = r + _ratio(rho, old) * p
            else:
                raise RuntimeError(
                    f"conjugate gradients left {missing.max():.1e} unsolved after {self.max_steps} steps, tol {self.tol:.1e}; "
                    "the JFB paper's code would leave this batch out; ImplicitDifferentiation() has solvers that may do"
                )
            for record in tallies:
                left = _ratio(rows(g - w_J).norm(dim=1), rows(g).norm(dim=1))
                record.residuals.append(max(left.tolist(), default=0.0))
            return w

        return with_adjoint(T, u_star, adjoint, twice=True)


def _dots(x: Tensor, y: Tensor) -> Tensor:
    """The inner products of the samples, fit to be multiplied by a batch."""
    return (rows(x) * rows(y)).sum(dim=1).reshape(-1, *[1] * (x.ndim - 1))


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
            _, transposed = counted_products(*products(v, u))
            w = term = g
            for _ in range(self.terms - 1):
                term = self.damping * transposed(term) + (1 - self.damping) * term
                w = w + term
            return self.damping * w

        return with_adjoint(T, u_star, adjoint)


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
        u = constant(u_star)
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
        u = torch.zeros_like(constant(u_star))
        for _ in range(self.steps):
            u = recorded(T, u, "u_star")
        return u
