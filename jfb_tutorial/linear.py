"""Krylov solvers for the adjoint equation w (I − J) = g: several systems at once, from products alone.

A vector is a row, as in JFB Appendix C: `(systems, n)`, each row a system of its own. Whether the batch is one system of
`batch · latent` unknowns or every sample one of its own is a matter of the shape in which g is handed over. SciPy has these
methods for one system on the CPU; here they run where the network is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["METHODS", "LinearSolution", "solve"]

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LinearSolution:
    """What `solve` found.

    Attributes:
        w: `(systems, n)`.
        residual: `(systems,)`, ‖g − w(I − J)‖₂ / ‖g‖₂, from a product with w itself and not from a recursion; 0 where g = 0.
        converged: `(systems,)` bool.
        steps: steps of the method, the same for all systems.
    """

    w: Tensor
    residual: Tensor
    converged: Tensor
    steps: int


def solve(
    method: str, g: Tensor, wJ: Product, wJt: Product, *, tol: float, max_steps: int, roundoff: float
) -> LinearSolution:
    """Solve w (I − J) = g.

    A system is solved when ‖g − w(I − J)‖ ≤ tol ‖g‖ + 8 ε ‖w‖, where ε is `roundoff`: the second term is what rounding leaves
    of a residual however exact w is, so that a tolerance below the precision does not count as a failure. The method runs
    until its own residual says so, then the true one is measured; if that says otherwise, the method starts again on what
    is missing, until it helps no more.

    Args:
        method: a key of `METHODS`.
        g: `(systems, n)`, float32 or float64, finite.
        wJ: w ↦ w J.
        wJt: w ↦ w Jᵀ; only "cg" calls it.
        tol: relative to ‖g‖ of each system.
        max_steps: largest number of steps: one product each for "neumann" and "gmres", two for "cg" and "bicgstab".
        roundoff: relative error of one product.
    """
    size = _norm(g)
    w, r, steps = torch.zeros_like(g), g, 0
    before = None
    while True:
        missing = _norm(r)
        target = tol * size + 8 * roundoff * _norm(w)
        converged = missing <= target
        stuck = before is not None and bool((~converged & ~(missing < 0.99 * before)).any())
        if bool(converged.all()) or stuck or steps >= max_steps:
            break
        correction, used = METHODS[method](r, wJ, wJt, target, max_steps - steps)
        steps += used
        w = w + correction
        r = g - (w - wJ(w))
        before = missing
    relative = torch.where(size > 0, missing / torch.where(size > 0, size, 1.0), missing)
    return LinearSolution(w, relative, converged, steps)


def _neumann(r: Tensor, wJ: Product, wJt: Product, target: Tensor, max_steps: int):
    """The Neumann series r + rJ + rJ² + …, JFB (22); what is missing after k terms is rJᵏ."""
    w = torch.zeros_like(r)
    for step in range(1, max_steps + 1):
        w = w + r
        r = wJ(r)
        if _done(r, target):
            return w, step
    return w, max_steps


def _cg(r: Tensor, wJ: Product, wJt: Product, target: Tensor, max_steps: int):
    """Conjugate gradients on the normal equations, JFB (74), as Björck's CGLS: it keeps the residual of the original system."""
    w = torch.zeros_like(r)
    s = r - wJt(r)
    p, rho = s, _dot(s, s)
    for step in range(1, max_steps + 1):
        q = p - wJ(p)
        alpha = _ratio(rho, _dot(q, q))
        w, r = w + alpha * p, r - alpha * q
        if _done(r, target):
            return w, step
        s = r - wJt(r)
        rho, old = _dot(s, s), rho
        p = s + _ratio(rho, old) * p
    return w, max_steps


def _bicgstab(r: Tensor, wJ: Product, wJt: Product, target: Tensor, max_steps: int):
    """BiCGStab, H. A. van der Vorst (1992)."""
    w, shadow, p = torch.zeros_like(r), r, r
    rho = _dot(shadow, r)
    for step in range(1, max_steps + 1):
        q = p - wJ(p)
        alpha = _ratio(rho, _dot(shadow, q))
        s = r - alpha * q
        t = s - wJ(s)
        omega = _ratio(_dot(t, s), _dot(t, t))
        w, r = w + alpha * p + omega * s, s - omega * t
        if _done(r, target):
            return w, step
        rho, old = _dot(shadow, r), rho
        p = r + _ratio(rho * alpha, old * omega) * (p - omega * q)
    return w, max_steps


def _gmres(r: Tensor, wJ: Product, wJt: Product, target: Tensor, max_steps: int, memory: int = 50):
    """GMRES, Y. Saad and M. H. Schultz (1986), started afresh every `memory` steps, for which it keeps as many vectors."""
    steps = min(memory, max_steps)
    beta = _norm(r)
    basis = r.new_zeros(len(r), steps + 1, r.shape[1])
    H = r.new_zeros(len(r), steps + 1, steps)
    basis[:, 0] = r * _ratio(torch.ones_like(beta), beta)[:, None]
    rhs = r.new_zeros(len(r), steps + 1, 1)
    rhs[:, 0, 0] = beta
    for step in range(1, steps + 1):
        old = basis[:, :step]
        x = old[:, -1] - wJ(old[:, -1])
        scale = _norm(x)
        for _ in range(2):  # Gram-Schmidt twice is enough
            h = (old @ x[:, :, None])[:, :, 0]
            x = x - (h[:, None] @ old)[:, 0]
            H[:, :step, step - 1] += h
        length = _norm(x)
        # a system whose Krylov space is exhausted gets zero vectors, and a one on the diagonal keeps H of full rank
        alive = length > 10 * torch.finfo(r.dtype).eps * scale
        H[:, step, step - 1] = torch.where(alive, length, 0.0)
        basis[:, step] = x * torch.where(alive, _ratio(torch.ones_like(length), length), 0.0)[:, None]
        H[:, step - 1, step - 1] += (scale == 0).to(r.dtype)
        small = H[:, : step + 1, :step]
        y = torch.linalg.lstsq(small, rhs[:, : step + 1]).solution
        left = torch.linalg.vector_norm(rhs[:, : step + 1] - small @ y, dim=(1, 2))
        if bool((left <= target).all()):
            break
    return (y.mT @ basis[:, :step])[:, 0], step


METHODS = {"cg": _cg, "gmres": _gmres, "bicgstab": _bicgstab, "neumann": _neumann}


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=1)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """`(systems, 1)`"""
    return (x[:, None] @ y[:, :, None])[:, :, 0]


def _ratio(x: Tensor, y: Tensor) -> Tensor:
    """x / y, and 0 where y is 0: a system that is solved, or has broken down, stands still."""
    zero = y == 0
    return torch.where(zero, 0.0, x / torch.where(zero, 1.0, y))


def _done(r: Tensor, target: Tensor) -> bool:
    """Whether every system has met its target, or the numbers have left the finite ones."""
    missing = _norm(r)
    return bool((missing <= target).all() | ~missing.isfinite().all())
