"""Maps of the plane and layers beside them: what chapter 2 draws of contractions, and what it measures on 2×2 cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..theory import lipschitz_estimate
from .figures import BLUE, GREEN, GREY, VERMILION
from .instances import norm

__all__ = [
    "bounds",
    "directions",
    "images",
    "least_descent",
    "monotone_layers",
    "rates",
    "ring",
    "stretches",
    "szlenk",
]


def least_descent(J: Tensor, D: Tensor) -> tuple[float, Tensor]:
    """The smallest ⟨∇, −p⟩ / ‖∇‖² that JFB's direction p has for any loss, and the g = ∂ℓ/∂u for which it has it.

    With ∂T/∂θ = D the gradient is ∇ = wD, w(I − J) = g, and −p = gD. So the quotient is that of x ↦ ⟨x, (I − D⁻¹JD)x⟩ and ‖x‖² at
    x = wD, and its least value 1 − λ, λ the largest eigenvalue of the symmetric part of D⁻¹JD.

    Args:
        J: ∂T/∂u, `(n, n)`.
        D: ∂T/∂θ, `(n, n)`, symmetric and invertible; for a layer the slopes of its units on the diagonal.
    """
    inverse = torch.linalg.inv(D)
    K = inverse @ J @ D
    values, vectors = torch.linalg.eigh((K + K.T) / 2)
    w = vectors[:, -1] @ inverse
    return 1 - values[-1].item(), w - w @ J


def monotone_layers(count: int, n: int = 4) -> tuple[Tensor, float, float]:
    """Layers relu(Wu + x) whose sym W has the largest eigenvalue ½, of large norms, solved by small steps from two starts each.

    The step u ← relu(u + α(Wu + x − u)) converges for every α < 2m/L², with m = ½ and L = ‖I − W‖.

    Returns:
        W `(count, n, n)`, the largest residual at the ends, and the largest distance between the two ends of a layer.
    """
    generator = torch.Generator().manual_seed(7)
    S, K = torch.randn(2, count, n, n, generator=generator)
    S = (S + S.mT) / norm(S + S.mT)[:, None, None]
    W = S + (0.5 - torch.linalg.eigvalsh(S)[:, -1])[:, None, None] * torch.eye(n) + K - K.mT
    x = torch.randn(count, n, 1, generator=generator)
    u = 5 * torch.rand(2, count, n, 1, generator=generator)
    alpha = 0.5 / norm(torch.eye(n) - W)[:, None, None] ** 2
    for _ in range(5_000):
        u = torch.relu(u + alpha * (W @ u + x - u))
    return W, (torch.relu(W @ u + x) - u).abs().max().item(), (u[1] - u[0]).abs().max().item()


def szlenk(u: Tensor) -> Tensor:
    """W. Szlenk's map of the plane `(2,)`: its spectral radius is below 1 at every point, and yet (√10, 0) goes round four points."""
    return 1.1 * torch.stack([-(u[1] ** 3), u[0] ** 3]) / (1 + u @ u)


def images(curves: Tensor, ends: Sequence[int], star: Tensor) -> Figure:
    """A closed curve and its images, with the same two points of each joined.

    Args:
        curves: `(4, points, 2)`.
        ends: which two points.
        star: `(2,)`, the fixed point.
    """
    fig, ax = plt.subplots(figsize=(4.8, 5.2))
    names, shades = ("curve", "$T$", "$T∘T$", "$T^3$"), (GREY, BLUE, GREEN, VERMILION)
    for curve, name, shade, dashes in zip(curves, names, shades, ("-", "--", "-.", "-"), strict=True):
        ax.fill(*curve.T, color=shade, alpha=0.13, linewidth=0)
        ax.plot(*curve.T, color=shade, linestyle=dashes, linewidth=1.6, label=name)
        ax.plot(*curve[list(ends)].T, "o:", color=shade, linewidth=1, markersize=4)
    ax.plot(*star, "*", color="black", markersize=11, label="$u^*$", linestyle="")
    ax.set(aspect="equal", xlabel="first component of $u$", ylabel="second component of $u$")
    ax.legend(loc="lower center", bbox_to_anchor=(0.45, 1), ncols=5, fontsize=9, columnspacing=1.2, handlelength=1.6)
    return fig


def bounds(errors: Tensor, one: Mapping[str, Tensor]) -> Figure:
    """The errors of many paths, thin, `(steps, paths)`, and of one of them what is named, `(steps,)`."""
    fig, ax = plt.subplots()
    ax.semilogy(errors, BLUE, linestyle="-", linewidth=0.6, alpha=0.22)
    for name, row in one.items():
        ax.semilogy(row, label=name)
    ax.set(xlabel="step $k$", ylabel="distance from $u^*$", ylim=(1e-14, 1e4), xlim=(0, len(errors) - 1))
    ax.legend(loc="lower left")
    return fig


def ring(plain: Tensor, gentle: Tensor) -> Figure:
    """Two paths of the plane `(steps, 2)`: one that ends on a ring of points, one that winds into a fixed point."""
    fig, ax = plt.subplots(figsize=(4.8, 3.6))
    ax.plot(*plain.T, VERMILION, linestyle="--", marker="o", linewidth=1.2, label="whole steps")
    ax.plot(*gentle.T, BLUE, linestyle="-", marker=".", markersize=4, linewidth=1.2, label="a tenth of each")
    ax.plot(*gentle[-1], "*", color="black", markersize=11, linestyle="", label="$u^*$")
    ax.set(xlabel="first component of $u$", ylabel="second component of $u$")
    ax.legend(loc="lower center", bbox_to_anchor=(0.45, 1), ncols=3)
    return fig


def stretches(T: Callable[[Tensor], Tensor], shape: Sequence[int]) -> tuple[list[float], float, float]:
    """What 300 random directions see of T at a random point, its norm there, and the root mean square of its singular values."""
    u = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    seen = [lipschitz_estimate(T, u, generator=generator) for _ in range(300)]
    J = cast(Tensor, torch.autograd.functional.jacobian(T, u)).reshape(u.numel(), u.numel())
    return seen, norm(J).item(), (J.square().sum() / u.numel()).sqrt().item()


def rates(x: Tensor) -> list[tuple[str, float, float, float]]:
    """Three layers tanh(Wu + x) with ‖W‖₂ = 0.9: what W is, ‖J‖₂ and ρ(J) at the fixed point, and the rate at which it is reached."""
    n, rows = x.shape[1], []
    G = torch.randn(n, n, generator=torch.Generator().manual_seed(5))
    for kind, W in {"gaussian": G, "symmetric": G + G.T, "triangular": torch.triu(G)}.items():
        W, path = 0.9 * W / norm(W), [torch.zeros(1, n)]
        for _ in range(2000):
            path.append(torch.tanh(path[-1] @ W.T + x))
        J = (1 - path[-1].T ** 2) * W  # tanh' = 1 − tanh²
        error = (torch.cat(path) - path[-1]).norm(dim=1)
        last = int((error > 1e-11).sum()) - 1  # the last steps above rounding
        rate = (error[last] / error[last // 2]) ** (1 / (last - last // 2))
        rows.append((kind, norm(J).item(), torch.linalg.eigvals(J).abs().max().item(), rate.item()))
    return rows


def directions(found: Mapping[int, tuple[Sequence[float], float, float]]) -> Figure:
    """What random directions see of maps: by the number of unknowns, what `stretches` returns."""
    fig, ax = plt.subplots(figsize=(4.8, 3.4))
    for x, (dots, largest, middle) in enumerate(found.values()):
        jitter = np.random.default_rng(0).uniform(-0.18, 0.18, len(dots))
        ax.plot(x + jitter, dots, ".", color=BLUE, markersize=3)
        ax.plot([x - 0.3, x + 0.3], [largest, largest], VERMILION, linestyle="-")
        ax.plot([x - 0.3, x + 0.3], [middle, middle], GREY, linestyle="-", linewidth=1)
    ax.set_xticks(range(len(found)), [f"n = {n:,}" for n in found])
    ax.set(xlabel="unknowns of the latent", ylabel="stretch of a direction", ylim=(0.42, 0.7))
    names = ["one random direction", "true norm", "root mean square"]
    ax.legend(ax.lines[:3], names, loc="lower center", bbox_to_anchor=(0.45, 1), ncols=3, fontsize=9)
    return fig
