"""How far a positive definite matrix turns a vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["antieigenvalue"]


def antieigenvalue(G: Tensor) -> float:
    """The first antieigenvalue of G, the smallest cosine between x and Gx: min ⟨x, Gx⟩ / (‖Gx‖ ‖x‖) = 2√κ/(1 + κ).

    κ = λmax/λmin is the condition number of G, symmetric and positive definite (Gustafson 1968). It is the sine of the angle by
    which a contraction may turn a gradient before JFB's direction can stop descending; chapter 5 uses it.

    Args:
        G: `(n, n)`, symmetric positive definite, float32 or float64.

    Raises:
        TypeError: G is no dense tensor of float32 or float64.
        ValueError: G is not square, not finite, not symmetric to rounding, or not positive definite.

    Example:
        >>> G = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))
        >>> round(antieigenvalue(G), 6)  # κ = 4, and 2 · 2 / (1 + 4) = 0.8
        0.8
    """
    if not isinstance(G, Tensor):
        raise TypeError(f"G must be a tensor, got {type(G).__name__}; write torch.as_tensor(G)")
    if G.layout != torch.strided or G.is_meta:
        kind = "one of the device meta" if G.is_meta else G.layout
        raise TypeError(f"G must be a dense tensor with numbers, got {kind}; write G.to_dense(), or load its numbers")
    if G.ndim != 2 or G.shape[0] != G.shape[1] or not G.numel():
        raise ValueError(f"G must be a square matrix, got shape {tuple(G.shape)}")
    if G.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"G must be float32 or float64, got {G.dtype}; convert it first")
    if not bool(G.isfinite().all()):
        raise ValueError("G must be finite; remove NaN and inf first")
    scale = G.abs().max()
    # room for the rounding of a computed MᵀM
    if (G - G.T).abs().max() > 100 * torch.finfo(G.dtype).eps * scale:
        raise ValueError("G must be symmetric; for a matrix M of full column rank, pass M.T @ M")
    eigenvalues = torch.linalg.eigvalsh((G + G.T) / 2)
    low, high = eigenvalues[0].item(), eigenvalues[-1].item()
    # an eigenvalue below this is not told from 0 by eigvalsh, whose error is of the size n ε λmax
    if not low > len(G) * torch.finfo(G.dtype).eps * high:
        raise ValueError(
            f"G must be positive definite, but its smallest eigenvalue is {low:.3g}; M lacks full column rank?"
        )
    kappa = high / low
    return 2 * math.sqrt(kappa) / (1 + kappa)
