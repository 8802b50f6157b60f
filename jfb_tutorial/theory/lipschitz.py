"""How much T stretches: the norm and the spectral radius of its Jacobian, one random direction, and a penalty to train with."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, LinearOperator, eigs, eigsh
from torch import Tensor

from .._checks import check_image, check_integer, check_latent, check_positive
from .._jacobian import Product, buffers_kept, noise, products
from ..solvers.iteration import recorded

__all__ = ["contraction_factor", "jacobian_penalty", "jacobian_products", "lipschitz_estimate", "spectral_radius"]

DENSE_LIMIT = 4096
"""Unknowns up to which `contraction_factor` and `spectral_radius` build the Jacobian."""
LARGEST = 6
"""Eigenvalues that ARPACK is asked for: those of one size, a complex pair or ±μ, are then found together."""


def contraction_factor(T: Callable[[Tensor], Tensor], u: Tensor, *, tol: float = 1e-6) -> float:
    """‖dT/du‖₂ at u, the largest singular value of the Jacobian: the contraction factor γ of JFB (9) near u.

    The Jacobian is that of the whole batch, `u.numel()` unknowns, so that coupled samples (batch normalisation) count. Up
    to 4,096 unknowns by a dense SVD, beyond by Lanczos iteration (ARPACK) on JᵀJ; to a relative accuracy of 1e-6, or what u's
    dtype allows. With a looser `tol` by Lanczos always, which then takes some tens of products and errs downwards.

    Measuring leaves a module as it was: if T is one, its buffers (running statistics) are put back. Autocast is switched off.

    Args:
        T: maps `(batch, *latent)` to itself; beyond 4,096 unknowns its backward pass must be differentiable too.
        u: `(batch, *latent)`, floating point; the result is computed in its dtype.
        tol: relative accuracy, in (0, 1).

    Raises:
        TypeError, ValueError: u is not a floating-point tensor with a batch dimension, or T changes its shape or dtype, or
            T(u) carries no graph although it depends on u; by Lanczos, the backward pass of T cannot be differentiated, or in
            parts only.
        FloatingPointError: the Jacobian has entries that are not finite.

    Example:
        >>> A = torch.tensor([[0.3, 0.4], [0.0, 0.5]], dtype=torch.float64)
        >>> factor = contraction_factor(lambda u: u @ A.T, torch.zeros(1, 2, dtype=torch.float64))
        >>> round(factor, 4)  # its eigenvalues are 0.3 and 0.5
        0.6708
    """
    check_positive("tol", tol, "1e-6 is the default", below=1)
    apply, transposed = jacobian_products(T, u)
    n = u.numel()
    # small ones are always dense: ARPACK finds fewer eigenvalues than there are unknowns, so none for n = 1
    if n <= DENSE_LIMIT and (tol <= 1e-6 or n < 32):
        J = _dense(transposed, u)
        return torch.linalg.matrix_norm(J.to(torch.promote_types(J.dtype, torch.float32)), 2).item()

    def normal(x):
        image = apply(torch.as_tensor(x.reshape(u.shape), dtype=u.dtype, device=u.device)).double() / scale
        return (transposed(image.to(u.dtype)).flatten().double() / scale).cpu().numpy()

    # scaled by a first estimate of the norm: ARPACK's test is absolute for small eigenvalues
    start = noise((n,)).numpy()
    first = apply(torch.as_tensor(start.reshape(u.shape), dtype=u.dtype, device=u.device))
    # a standard normal vector has a length of about √n
    scale = _norm(first.double()).item() / math.sqrt(n)
    _check_finite(math.isfinite(scale))
    _check_adjoint(torch.as_tensor(start), first, transposed)
    if scale == 0:
        return 0.0
    tolerance = max(tol, torch.finfo(u.dtype).eps)
    largest = eigsh(LinearOperator((n, n), matvec=normal, dtype="float64"), k=1, which="LA", v0=start, tol=tolerance)[0]
    return scale * math.sqrt(max(float(largest[0]), 0.0))  # rounding may leave it below 0


def spectral_radius(T: Callable[[Tensor], Tensor], u: Tensor, *, tol: float = 1e-4) -> float:
    """ρ(dT/du) at u, the largest absolute value of an eigenvalue: below 1, plain iteration converges from starts near u.

    The Jacobian is that of the whole batch. Up to 4,096 unknowns from a dense matrix, beyond by Arnoldi iteration (ARPACK) on
    products with Jᵀ; to a relative accuracy of 1e-4, or what u's dtype allows. With a looser `tol` by Arnoldi always. ρ is never
    above `contraction_factor`; a Jacobian that is far from normal has a ρ that its rounding changes by more than these 1e-4.

    Measuring leaves a module as it was: if T is one, its buffers (running statistics) are put back. Autocast is switched off.

    Args:
        T: maps `(batch, *latent)` to itself.
        u: `(batch, *latent)`, floating point.
        tol: relative accuracy, in (0, 1).

    Raises:
        TypeError, ValueError: u is not a floating-point tensor with a batch dimension, or T changes its shape or dtype, or
            T(u) carries no graph although it depends on u.
        FloatingPointError: the Jacobian has entries that are not finite.
        RuntimeError: Arnoldi iteration found no eigenvalue.

    Example:
        >>> A = torch.tensor([[0.3, 0.4], [0.0, 0.5]], dtype=torch.float64)
        >>> radius = spectral_radius(lambda u: u @ A.T, torch.zeros(1, 2, dtype=torch.float64))
        >>> round(radius, 4)  # its norm is 0.6708
        0.5
    """
    check_positive("tol", tol, "1e-4 is the default", below=1)
    _, transposed = jacobian_products(T, u)
    n = u.numel()
    if n <= DENSE_LIMIT and (tol <= 1e-4 or n < 32):
        return torch.linalg.eigvals(_dense(transposed, u).double()).abs().max().item()

    def product(x):
        w = torch.as_tensor(x.reshape(u.shape), dtype=u.dtype, device=u.device)
        return transposed(w).flatten().double().cpu().numpy()

    start = noise((n,)).numpy()
    first = product(start)
    _check_finite(bool(np.isfinite(first).all()))
    if not first.any():
        return 0.0
    tolerance = max(tol, torch.finfo(u.dtype).eps)
    # the eigenvalues of Jᵀ are those of J
    operator = LinearOperator((n, n), matvec=product, dtype="float64")
    try:
        found = eigs(operator, k=LARGEST, which="LM", v0=start, tol=tolerance, return_eigenvectors=False)
    except ArpackError as error:
        raise RuntimeError(
            f"Arnoldi iteration found no eigenvalue of dT/du to {tolerance:.0e} ({error}); try a looser tol, such as 1e-2"
        ) from error
    return float(abs(found).max())


def jacobian_penalty(
    T: Callable[[Tensor], Tensor], u: Tensor, *, samples: int = 1, generator: torch.Generator | None = None
) -> Tensor:
    """An estimate of ‖dT/du‖_F² / n at u, to be added to a loss: the Jacobian regularisation of Bai, Koltun and Kolter (2021).

    The mean of ‖εᵀ dT/du‖² / u.numel() over Gaussian ε; its expectation is the squared Frobenius norm of the batch's Jacobian over
    the number of its unknowns. u counts as a constant: the derivative is by the parameters of T, with u held where it is.

    Args:
        T: maps `(batch, *latent)` to itself; its backward pass must be differentiable.
        u: `(batch, *latent)`, floating point.
        samples: number of ε, at least 1; each costs one product and, in the backward pass, its derivative.
        generator: source of ε; the default generator of u's device without.

    Returns:
        A scalar with a graph.

    Raises:
        TypeError, ValueError: u is not a floating-point tensor with a batch dimension, T changes its shape, or samples < 1.

    Example:
        >>> A = torch.tensor([[0.3, 0.4], [0.0, 0.5]], dtype=torch.float64, requires_grad=True)
        >>> penalty = jacobian_penalty(lambda u: u @ A.T, torch.zeros(1, 2, dtype=torch.float64), samples=5)
        >>> penalty.backward()
        >>> A.grad.shape
        torch.Size([2, 2])
    """
    _check_latent(u)
    check_integer("samples", samples, 1, "1 is what training takes")
    with torch.enable_grad():
        u = u.detach().clone().requires_grad_()
        v = T(u)
        check_image("u", u, v)
        total = v.new_zeros(())
        if not v.requires_grad:  # T is constant, and so is the penalty
            return total
        for _ in range(samples):
            if generator is None:
                epsilon = torch.randn_like(v)
            else:
                epsilon = torch.randn(v.shape, generator=generator, device=generator.device).to(v)
            (row,) = torch.autograd.grad(v, u, epsilon, create_graph=True, materialize_grads=True)
            total = total + row.square().sum()
    return total / (samples * u.numel())


def _dense(transposed: Product, u: Tensor) -> Tensor:
    """dT/du, `(n, n)`, one row a product; a batch of identity columns would change what batch normalisation does."""
    J = torch.stack(
        [transposed(row.reshape(u.shape)).flatten() for row in torch.eye(u.numel(), dtype=u.dtype, device=u.device)]
    )
    _check_finite(bool(J.isfinite().all()))
    return J


def jacobian_products(T: Callable[[Tensor], Tensor], u: Tensor):
    """Products with J = dT/du at u, from one evaluation of T: `apply(x)` is J x, `transposed(w)` is Jᵀ w.

    Both take and return tensors of the shape of u. J x is the derivative by w of ⟨Jᵀw, x⟩, so two reverse passes serve where
    forward-mode differentiation is missing.

    Raises:
        TypeError, ValueError: u is not a floating-point tensor with a batch dimension, or T changes its shape; from `apply`,
            the backward pass of T cannot be differentiated.
    """
    _check_latent(u)
    with torch.inference_mode(False), torch.enable_grad(), _measuring(T, u):
        u = u.detach().clone().requires_grad_()
        v = T(u)
        check_image("u", u, v)
        # a constant T has no graph either: another u tells the two apart (not u + 1, which a periodic T maps to the same)
        if not v.requires_grad and not torch.equal(v, T(u + noise(u.shape).to(u))):
            raise ValueError("T(u) carries no graph although it depends on u; is T decorated with torch.no_grad?")
    return products(v, u)


def _check_adjoint(x: Tensor, image: Tensor, transposed: Product) -> None:
    """Refuse products that belong to two matrices: ⟨Jx, w⟩ = ⟨x, Jᵀw⟩ at w = Jx, which is `image`.

    J x is made by differentiating Jᵀw, and lacks those parts of T of which the backward pass leaves no graph.
    """
    # an image of zeros would agree with anything
    # of size one, and so is what is compared: of a very small J the products would vanish
    size = image.abs().max().double() if bool(image.any()) else torch.ones((), dtype=torch.float64, device=image.device)
    w = (image / size).to(image) if bool(image.any()) else x.reshape(image.shape).to(image)
    back = transposed(w).flatten().double() / size
    one = torch.dot(image.flatten().double() / size, w.flatten().double()).item()
    other = torch.dot(x.to(back), back).item()
    # rounding is of the size of the terms of a sum, and not of the sum
    noise = math.sqrt(torch.finfo(image.dtype).eps) * (torch.linalg.vector_norm(x.to(back)) * back.norm()).item()
    if abs(one - other) > noise:
        raise TypeError(
            f"the backward pass of T cannot be differentiated in all its parts, so J x is not to be had: ⟨Jx, w⟩ = {one:.3g}, but "
            f"⟨x, Jᵀw⟩ = {other:.3g}; is a part of T once_differentiable? A dense SVD, up to {DENSE_LIMIT:,} unknowns, needs no J x"
        )


def _norm(x: Tensor) -> Tensor:
    """‖x‖₂, whose squares would overflow or vanish for numbers near the ends of the range."""
    size = x.abs().max()
    return torch.where(size > 0, size * torch.linalg.vector_norm(x / size), size)


def _check_finite(finite: bool) -> None:
    if not finite:
        raise FloatingPointError("the Jacobian of T at u is not finite; T may not be differentiable there, or overflow")


def _check_latent(u: Tensor) -> None:
    check_latent("u", u)
    if u.numel() == 0:
        raise ValueError(f"u must have at least one number, got shape {tuple(u.shape)}")


@contextmanager
def _measuring(T, u: Tensor):
    """Autocast off, and a module's buffers as they were before."""
    with buffers_kept(T), torch.autocast(u.device.type, enabled=False):
        yield


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

    With one direction it is a clean version of the check in the JFB paper's code, which takes standard normal noise for x, moves
    Q(d) by such noise too, averages lengths over the pixels, and compares with γ‖x‖ (`normalisation.Rescaling.stretch` does that).
    In many dimensions a random direction is nearly orthogonal to the one that is stretched most, so the estimate is near
    ‖J‖_F / √n and far below ‖J‖₂; see `contraction_factor`.

    Args:
        T: maps `(batch, *latent)` to itself.
        u: `(batch, *latent)`, floating point. The batch counts as one vector.
        directions: number of random directions, at least 1.
        radius: length of x, > 0.
        generator: source of the directions, on the CPU; seed 0 by default.

    Raises:
        TypeError, ValueError: u is not a floating-point tensor with a batch dimension, or `radius` drowns in its rounding.
        FloatingPointError: T is not finite at u or beside it.
    """
    _check_latent(u)
    check_integer("directions", directions, 1, "1 is what the paper's code does")
    check_positive("radius", radius, "1e-3 is the default")
    generator = generator or torch.Generator().manual_seed(0)
    largest = 0.0
    with _measuring(T, u):
        # a copy, since T may return the same memory again
        here = recorded(T, u, "u").clone()
        for _ in range(directions):
            # on the CPU in float64: the same directions whatever the device and the dtype of u
            x = torch.randn(u.shape, generator=generator, dtype=torch.float64)
            moved = u + (x * (radius / x.norm())).to(u)
            # the length that rounding has left of the step
            step = torch.linalg.vector_norm((moved - u).double()).item()
            if abs(step - radius) > 0.1 * radius:
                raise ValueError(f"radius {radius} drowns in the rounding of u ({u.dtype}); raise it, or use float64")
            ratio = torch.linalg.vector_norm((recorded(T, moved, "u") - here).double()).item() / step
            if not math.isfinite(ratio):
                raise FloatingPointError(
                    "T is not finite at u or beside it; its Lipschitz constant cannot be estimated"
                )
            largest = max(largest, ratio)
    return largest
