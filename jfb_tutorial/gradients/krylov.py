"""Krylov solvers for the adjoint equation w (I − J) = g: several systems at once, from products alone.

A vector is a row, as in JFB Appendix C: `(systems, n)`, each row a system of its own. Whether the batch is one system of
`batch · latent` unknowns or every sample one of its own is a matter of the shape in which g is handed over. SciPy has these
methods for one system on the CPU; here they run where the network is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["METHODS", "LinearSolution", "solve"]

Product = Callable[[Tensor], Tensor]

MEMORY = 50
"""Steps after which GMRES starts again; it keeps one vector more than it has made steps."""


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


def solve(method: str, g: Tensor, wJ: Product, wJt: Product, *, tol: float, max_steps: int) -> LinearSolution:
    """Solve w (I − J) = g.

    The method runs until its own residual is at most tol ‖g‖. Then the true one is measured; if it is larger, the method starts
    again on what is missing. A system that two such cycles in a row have not brought forward is left as it is. It still counts
    as solved if what is missing is no more than what the products' rounding explains, at most 5% of ‖g‖: that rounding is
    measured, by a product with a multiple of w. Each g is scaled to size 1 before, so that its units play no part. The products
    are those of the vectors as they were: they may couple the systems, and the residual is then that of the coupled equation.

    Args:
        method: a key of `METHODS`.
        g: `(systems, n)`, float32 or float64, finite.
        wJ: w ↦ w J.
        wJt: w ↦ w Jᵀ; only "cg" calls it.
        tol: relative to ‖g‖ of each system, in (0, 1).
        max_steps: largest number of steps: one product each for "neumann" and "gmres", two for "cg" and "bicgstab".
    """
    if not g.numel():
        none = g.new_zeros(len(g))
        return LinearSolution(g, none, none == 0, 0)
    scale = g.abs().amax(dim=1, keepdim=True)
    scale = torch.where(scale > 0, scale, torch.where(scale.amax() > 0, scale.amax(), 1.0))
    g, relative = g / scale, (scale / scale.amax()).clamp_min(torch.finfo(g.dtype).eps ** 2)
    wJ, wJt = _with_rows_scaled(wJ, relative), _with_rows_scaled(wJt, relative)
    size = _norm(g)
    w = kept = torch.zeros_like(g)
    r = kept_r = g
    best, idle, steps, mixed = torch.full_like(size, math.inf), torch.zeros_like(size), 0, False
    while True:
        missing = _norm(r)
        better = missing < best  # never for NaN
        mixed = not bool(better.all())
        kept, kept_r = torch.where(better[:, None], w, kept), torch.where(better[:, None], r, kept_r)
        idle = torch.where(missing < 0.9999 * best, 0.0, idle + 1)
        best = torch.fmin(best, missing)
        converged = best <= tol * size
        going = ~converged & (idle < 2)
        if steps >= max_steps or not bool(going.any()):
            break
        # what is solved, or stuck, stands still: it gets nothing to do
        start = torch.where(going[:, None], kept_r, 0.0)
        correction, used = METHODS[method](start, wJ, wJt, tol * size, max_steps - steps)
        steps += used
        w = kept + correction
        r = g - (w - wJ(w))
    if mixed and len(g) > 1:  # rows of several cycles: if they are coupled, none of those had this residual
        best = _norm(g - (kept - wJ(kept)))
        converged = best <= 1.01 * tol * size
    if not bool(converged.all()):
        stuck = idle >= 2
        rounding = _norm(wJ(1.37 * kept) / 1.37 - wJ(kept)) + torch.finfo(g.dtype).eps * _norm(kept)
        converged |= stuck & (best <= torch.minimum(8 * rounding, 0.05 * size))
    residual = torch.where(size > 0, best / torch.where(size > 0, size, 1.0), 0.0)
    return LinearSolution(kept * scale, residual, converged, steps)


def _with_rows_scaled(product: Product, factors: Tensor) -> Product:
    """The product in units of each row's own: what it couples keeps its size."""
    return lambda x: product(x * factors) / factors


def _neumann(r: Tensor, wJ: Product, wJt: Product, target: Tensor, max_steps: int):
    """The Neumann series r + rJ + rJ² + …, JFB (22); what is missing after k terms is rJᵏ."""
    w = torch.zeros_like(r)
    limit = 1e6 * _norm(r)
    for step in range(1, max_steps + 1):
        w = w + r
        r = wJ(r)
        if _done(r, target, limit):
            return w, step
    return w, max_steps


def _cg(r: Tensor, wJ: Product, wJt: Product, target: Tensor, max_steps: int):
    """Conjugate gradients on the normal equations, JFB (74), as Björck's CGLS: it keeps the residual of the original system."""
    w = torch.zeros_like(r)
    limit = 1e6 * _norm(r)
    s = r - wJt(r)
    p, rho = s, _dot(s, s)
    for step in range(1, max_steps + 1):
        q = p - wJ(p)
        alpha = _ratio(rho, _dot(q, q))
        w, r = w + alpha * p, r - alpha * q
        if _done(r, target, limit):
            return w, step
        s = r - wJt(r)
        rho, old = _dot(s, s), rho
        p = s + _ratio(rho, old) * p
    return w, max_steps


def _bicgstab(r: Tensor, wJ: Product, wJt: Product, target: Tensor, max_steps: int):
    """BiCGStab, H. A. van der Vorst (1992). It hands back its best point, and stops where it breaks down or runs away."""
    w, shadow, p = torch.zeros_like(r), r, r
    rho = _dot(shadow, r)
    kept, best = w, _norm(r)
    for step in range(1, max_steps + 1):
        q = p - wJ(p)
        alpha = _ratio(rho, _dot(shadow, q))
        s = r - alpha * q
        t = s - wJ(s)
        omega = _ratio(_dot(t, s), _dot(t, t))
        w, r = w + alpha * p + omega * s, s - omega * t
        missing = _norm(r)
        kept = torch.where((missing < best)[:, None], w, kept)
        best = torch.fmin(best, missing)
        rho, old = _dot(shadow, r), rho
        broken = (rho == 0)[:, 0] & (missing > target)
        if bool(((best <= target) | broken | ~(missing < 100 * best)).all()):
            return kept, step
        p = r + _ratio(rho * alpha, old * omega) * (p - omega * q)
    return kept, max_steps


def _gmres(r: Tensor, wJ: Product, wJt: Product, target: Tensor, max_steps: int):
    """GMRES, Y. Saad and M. H. Schultz (1986), for at most `MEMORY` steps."""
    systems, n = r.shape
    steps = min(MEMORY, max_steps)
    beta = _norm(r)
    basis = r.new_zeros(systems, min(8, steps + 1), n)
    basis[:, 0] = r * _ratio(torch.ones_like(beta), beta)[:, None]
    # rotation @ H is triangular, column by column, as by Givens rotations
    rotation = torch.eye(steps + 1, dtype=r.dtype, device=r.device).repeat(systems, 1, 1)
    triangle = r.new_zeros(systems, steps, steps)
    for step in range(1, steps + 1):
        if step == basis.shape[1]:
            more = min(basis.shape[1], steps + 1 - step)
            basis = torch.cat([basis, r.new_zeros(systems, more, n)], dim=1)
        old = basis[:, :step]
        x = old[:, -1] - wJ(old[:, -1])
        scale, column = _norm(x), r.new_zeros(systems, step + 1, 1)
        for _ in range(2):  # Gram-Schmidt twice is enough
            h = old @ x[:, :, None]
            x = x - (h.mT @ old)[:, 0]
            column[:, :step] += h
        # a system whose Krylov space is exhausted gets zero vectors, and a one on the diagonal keeps the triangle regular
        length = _norm(x)
        alive = length > 10 * torch.finfo(r.dtype).eps * scale
        column[:, step, 0] = torch.where(alive, length, 0.0)
        basis[:, step] = x * torch.where(alive, _ratio(torch.ones_like(length), length), 0.0)[:, None]
        column[:, step - 1, 0] += (scale == 0).to(r.dtype)
        column = (rotation[:, : step + 1, : step + 1] @ column)[:, :, 0]
        upper, lower = column[:, step - 1], column[:, step]
        hypotenuse = torch.hypot(upper, lower)
        c, s = _ratio(upper, hypotenuse)[:, None], _ratio(lower, hypotenuse)[:, None]
        one, two = rotation[:, step - 1].clone(), rotation[:, step].clone()
        rotation[:, step - 1], rotation[:, step] = c * one + s * two, c * two - s * one
        triangle[:, : step - 1, step - 1] = column[:, : step - 1]
        triangle[:, step - 1, step - 1] = hypotenuse
        if bool(((beta * rotation[:, step, 0].abs()) <= target).all()):
            break
    rhs = (beta[:, None] * rotation[:, :step, 0])[:, :, None]
    y = torch.linalg.solve_triangular(triangle[:, :step, :step], rhs, upper=True)
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


def _done(r: Tensor, target: Tensor, limit: Tensor) -> bool:
    """Whether every system has met its target or run away beyond the limit."""
    missing = _norm(r)
    return bool(((missing <= target) | ~(missing <= limit)).all())
