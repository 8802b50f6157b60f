"""Measurements of what the theorems assume: contraction factors, Lipschitz estimates, antieigenvalues."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from ._checks import integer, positive

__all__ = ["antieigenvalue", "contraction_factor", "jacobian_products", "lipschitz_estimate"]

DENSE_LIMIT = 4096
"""Unknowns up to which `contraction_factor` builds the Jacobian and takes its SVD."""


def contraction_factor(T: Callable[[Tensor], Tensor], u: Tensor) -> float:
    """‖dT/du‖₂ at u, the largest singular value of the Jacobian: the contraction factor γ of JFB (9) near u.

    The Jacobian is that of the whole batch, `u.numel()` unknowns, so that coupled samples (batch normalisation) count. Up
    to 4,096 unknowns by a dense SVD, beyond by Lanczos iteration (ARPACK) on JᵀJ; to a relative accuracy of 1e-6, or what u's
    dtype allows.

    Args:
        T: maps `(batch, *latent)` to itself; differentiable at u twice as far as autograd knows (piecewise linear will do).
        u: `(batch, *latent)`, floating point; the result is computed in its dtype.

    Raises:
        TypeError, ValueError: u is not a floating-point tensor with a batch dimension, or T changes its shape.
        FloatingPointError: the Jacobian has entries that are not finite.
    """
    apply, transposed = jacobian_products(T, u)
    n = u.numel()
    if n <= DENSE_LIMIT:
        # one row a product; a batch of identity columns would change what batch normalisation does
        J = torch.stack(
            [transposed(row.reshape(u.shape)).flatten() for row in torch.eye(n, dtype=u.dtype, device=u.device)]
        )
        if not J.isfinite().all():
            raise FloatingPointError(
                "the Jacobian of T at u is not finite; T may not be differentiable there, or overflow"
            )
        return torch.linalg.matrix_norm(J.to(torch.promote_types(J.dtype, torch.float32)), 2).item()

    def normal(x):
        x = torch.as_tensor(x.reshape(u.shape), dtype=u.dtype, device=u.device)
        return transposed(apply(x)).flatten().to("cpu", torch.float64).numpy()

    start = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    image = normal(start)
    if not math.isfinite(float(abs(image).sum())):
        raise FloatingPointError("the Jacobian of T at u is not finite; T may not be differentiable there, or overflow")
    if not image.any():
        return 0.0
    tolerance = max(1e-6, torch.finfo(u.dtype).eps)
    largest = eigsh(LinearOperator((n, n), matvec=normal, dtype="float64"), k=1, which="LA", v0=start, tol=tolerance)[0]
    return math.sqrt(max(float(largest[0]), 0.0))


def jacobian_products(T: Callable[[Tensor], Tensor], u: Tensor):
    """Products with J = dT/du at u, from one evaluation of T: `apply(x)` is J x, `transposed(w)` is Jᵀ w.

    Both take and return tensors of the shape of u. J x is the derivative by w of ⟨Jᵀw, x⟩, so two reverse passes serve where
    forward-mode differentiation is missing.

    Raises:
        TypeError, ValueError: u is not a floating-point tensor with a batch dimension, or T changes its shape.
    """
    if not isinstance(u, Tensor) or not u.is_floating_point():
        raise TypeError(f"u must be a floating-point tensor, got {getattr(u, 'dtype', type(u).__name__)}")
    if u.ndim == 0:
        raise ValueError("u must have a batch dimension, got a scalar; pass u.reshape(1)")
    with torch.enable_grad():
        u = u.detach().clone().requires_grad_()
        v = T(u)
        if v.shape != u.shape:
            raise ValueError(f"T must keep the shape of u: it maps {tuple(u.shape)} to {tuple(v.shape)}; mend T or u")
        w = torch.zeros_like(v, requires_grad=True)
        g = None
        if v.requires_grad:
            (g,) = torch.autograd.grad(v, u, w, create_graph=True, allow_unused=True)

    def transposed(x: Tensor) -> Tensor:
        if g is None:  # T does not depend on u
            return torch.zeros_like(x)
        return torch.autograd.grad(v, u, x, retain_graph=True)[0]

    def apply(x: Tensor) -> Tensor:
        if g is None:
            return torch.zeros_like(x)
        return torch.autograd.grad(g, w, x, retain_graph=True)[0]

    return apply, transposed


@torch.no_grad()
def lipschitz_estimate(
    T: Callable[[Tensor], Tensor],
    u: Tensor,
    *,
    directions: int = 1,
    radius: float = 1e-3,
    generator: torch.Generator | None = None,
) -> float:
    """The largest ‖T(u + x) − T(u)‖ / ‖x‖ over random x of length `radius`: a lower bound of the Lipschitz constant.

    With one direction it is the check in the papers' code. In many dimensions a random direction is nearly orthogonal to the
    one that is stretched most, so the estimate is near ‖J‖_F / √n and far below ‖J‖₂; see `contraction_factor`.

    Args:
        T: maps `(batch, *latent)` to itself.
        u: `(batch, *latent)`, floating point. The batch counts as one vector.
        directions: number of random directions, at least 1.
        radius: length of x, > 0.
        generator: source of the directions, on the CPU; seed 0 by default.
    """
    integer("directions", directions, 1, "1 is what the papers' code does")
    positive("radius", radius, "1e-3 is the default")
    generator = generator or torch.Generator().manual_seed(0)
    here, largest = T(u), 0.0
    for _ in range(directions):
        x = torch.randn(u.shape, generator=generator, dtype=torch.float64)
        x = (x * (radius / x.norm())).to(u)
        moved = u + x
        ratio = torch.linalg.vector_norm(T(moved) - here) / torch.linalg.vector_norm(moved - u)
        largest = max(largest, ratio.item())
    return largest


def antieigenvalue(G: Tensor) -> float:
    """The first antieigenvalue of G, the smallest cosine between x and Gx: min ⟨x, Gx⟩ / (‖Gx‖ ‖x‖) = 2√κ/(1 + κ).

    κ = λmax/λmin is the condition number of G, symmetric and positive definite (Gustafson 1968). It is the sine of the angle by
    which a contraction may turn a gradient before JFB's direction can stop descending; chapter 5 uses it.

    Args:
        G: `(n, n)`, symmetric positive definite, float32 or float64.

    Raises:
        ValueError: G is not square, not symmetric to rounding, or not positive definite.
    """
    if G.ndim != 2 or G.shape[0] != G.shape[1] or not G.numel():
        raise ValueError(f"G must be a square matrix, got shape {tuple(G.shape)}")
    scale = G.abs().max()
    if not (G - G.T).abs().max() <= 100 * torch.finfo(G.dtype).eps * scale:
        raise ValueError("G must be symmetric; for a matrix M of full column rank, pass M.T @ M")
    eigenvalues = torch.linalg.eigvalsh((G + G.T) / 2)
    low, high = eigenvalues[0].item(), eigenvalues[-1].item()
    if low <= 0:
        raise ValueError(
            f"G must be positive definite, but its smallest eigenvalue is {low:.3g}; M lacks full column rank?"
        )
    kappa = high / low
    return 2 * math.sqrt(kappa) / (1 + kappa)
