"""The layers that the solvers are tried on: contractions that differ in nothing but the eigenvalues of their matrix."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["KINDS", "after", "tanh_layer"]

KINDS = ("gaussian", "orthogonal", "symmetric", "positive")


def tanh_layer(
    kind: str, gamma: float, *, batch: int = 32, n: int = 32, x: Tensor | None = None, dtype: torch.dtype | None = None
) -> Callable[[Tensor], Tensor]:
    """u ↦ tanh(Wu + x) with ‖W‖₂ = γ, for rows u `(batch, n)`.

    Args:
        kind: where the eigenvalues of W lie. "gaussian": in a disc much smaller than γ; "symmetric": on a line, from about −γ to
            γ; "positive": on a line, from 0 to γ; "orthogonal": on the circle of radius γ.
        gamma: the norm of W, and a contraction factor of the layer.
        batch: how many inputs are drawn, from tiny to large.
        n: unknowns.
        x: inputs `(batch, n)` to use in their place.
        dtype: of the matrix and of the inputs that are drawn; PyTorch's default one if not given.

    Raises:
        ValueError: `kind` is not one of `KINDS`.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(n, n, generator=generator, dtype=dtype)
    if kind == "symmetric":
        W = W + W.T
    if kind == "positive":
        W = W @ W.T
    if kind == "orthogonal":
        W = torch.linalg.qr(W)[0]
    W = W * (gamma / torch.linalg.matrix_norm(W, 2))
    if x is None:
        x = torch.randn(batch, n, generator=generator, dtype=dtype) * torch.logspace(-2, 1, batch, dtype=dtype)[:, None]
    return lambda u: torch.tanh(u @ W.T + x)


def after(steps: int, step: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    """What plain iteration has reached from u."""
    for _ in range(steps):
        u = step(u)
    return u
