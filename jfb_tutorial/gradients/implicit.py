"""The exact gradient, by solving the adjoint equation."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from .._checks import check_choice, check_flag, check_integer, check_positive, store
from .._jacobian import products
from ..solvers.iteration import eager, rows
from ._adjoint import Operator, counted_products, tallies, with_adjoint
from .krylov import METHODS, LinearSolution, solve

__all__ = ["ImplicitDifferentiation"]


@dataclass(frozen=True)
class ImplicitDifferentiation:
    """The exact gradient, JFB (14): solves the adjoint equation w (I − J) = g when g arrives.

    The loss sees T(u*). The whole batch is one system with inner products over all of it, which is right whether or not T
    couples its samples (batch normalisation does). It is exact as far as u* is a fixed point and the solve succeeds: a
    system counts as solved when its residual, measured with w itself, is at most tol ‖g‖, or where the precision in which
    T was evaluated does not allow that, when the residual is explained by rounding and stands for at most 5% of ‖g‖ and of
    w. It is the gradient of T as T's own backward pass has it: where T contains another implicit network, that one's rule decides
    what J and ∂T/∂θ are, and with JFB inside the whole is exact no longer. A gradient g that is not finite passes through as it is, for `torch.amp.GradScaler` to see. Derivatives in forward mode
    (`torch.func.jvp`), of second order, and under the transforms of `torch.func` are refused: `Unrolled` has them.

    The products use the one recorded evaluation of T again and again: hooks on modules inside T fire at each, and a
    checkpoint around the network recomputes it each time.

    Where T does not couple its samples, a large batch is harder to solve as one system than sample by sample: one polynomial
    in J has to serve the eigenvalues of all samples. Those of one network may lie to both sides of 1 for a few samples, and
    "gmres", which starts afresh every 50 steps, may then stand still; `per_sample=True` needs at most as many steps as a sample
    has unknowns. It is not the default because it is wrong where samples are coupled.

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
        store(
            self,
            solver=check_choice("solver", self.solver, METHODS),
            tol=check_positive("tol", self.tol, "1e-6 is the default"),
            max_steps=check_integer("max_steps", self.max_steps, 1, "1000 is the default"),
            per_sample=check_flag("per_sample", self.per_sample),
            on_failure=check_choice("on_failure", self.on_failure, ("raise", "warn")),
        )
        if not self.tol < 1:
            raise ValueError(f"tol must be below 1, got {self.tol}: w = 0 would do; 1e-6 is the default")

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
            # half precision is for products; sums of hundreds of them, and small triangular solves, need float32
            work = torch.promote_types(g.dtype, torch.float32)
            apply, transposed = counted_products(*products(v, u))
            # `(systems, n)`: a row a sample, or the whole batch in one
            flat = rows(g).to(work) if self.per_sample else g.reshape(1, -1).to(work)

            def shaped(product):
                # the product in T's own shape and dtype, the solver's vectors in `work`
                return lambda w: product(w.reshape(g.shape).to(g.dtype)).reshape(flat.shape).to(work)

            solution = solve(
                self.solver, flat, shaped(transposed), shaped(apply), tol=self.tol, max_steps=self.max_steps
            )
            for record in tallies:
                # an empty batch has no residual: 0
                record.residuals.append(max(solution.residual.tolist(), default=0.0))
            if not bool(solution.converged.all()):
                self._report(solution, not self.per_sample and _looks_uncoupled(transposed, g))
            return solution.w.reshape(g.shape).to(g.dtype)

        # "cg" alone needs J x, the derivative of a derivative
        return with_adjoint(T, u_star, adjoint, twice=self.solver == "cg")

    def _report(self, solution: LinearSolution, uncoupled: bool) -> None:
        """Raise or warn, and say what may help; `uncoupled`: T does not seem to couple its samples."""
        missed = int((~solution.converged).sum())
        which = f"{missed} of {len(solution.converged)} systems" if self.per_sample else "the adjoint equation"
        remedies = "; ".join(self._remedies(solution, uncoupled))
        message = (
            f"{self.solver} left {which} unsolved after {solution.steps} steps, relative residual "
            f"{solution.residual.max():.1e}, tol {self.tol:.1e}; {remedies}"
        )
        if self.on_failure == "raise":
            raise RuntimeError(message)
        warnings.warn(message, RuntimeWarning, stacklevel=2)

    def _remedies(self, solution: LinearSolution, uncoupled: bool) -> list[str]:
        """What may help."""
        remedies = []
        if solution.steps >= self.max_steps:
            remedies.append(f"max_steps = {self.max_steps} was reached: raise it, or take a looser tol")
        else:
            remedies.append("it got no better: is T a contraction at u*, in this precision? A looser tol may do")
        if uncoupled:
            remedies.append("T seems not to couple its samples: then per_sample=True solves a small system for each")
        # the series needs a contraction and bicgstab luck; these two need neither
        others = " or ".join(repr(solver) for solver in ("gmres", "cg") if solver != self.solver)
        remedies.append(f"another solver may do: solver={others}")
        if self.per_sample:
            remedies.append("if T couples its samples (batch normalisation does), only per_sample=False is right")
        return remedies


def _looks_uncoupled(transposed: Operator, g: Tensor) -> bool:
    """Whether a random w, `(batch, *latent)` as g, with every second sample zero, stays so in w J; for both halves.

    A hint for an error message and no proof: samples of one half may still be coupled. With per_sample=True that is found out,
    since the residual is measured with T as it is.
    """
    if len(g) < 2:
        return False
    # not ones, which batch normalisation maps to 0, and from a generator of its own, so that a failure shifts no other draw
    w = torch.randn(g.shape, generator=torch.Generator().manual_seed(0)).to(g)
    even, odd = w.clone(), w
    even[1::2], odd[::2] = 0, 0
    return not bool(transposed(even)[1::2].any()) and not bool(transposed(odd)[::2].any())
