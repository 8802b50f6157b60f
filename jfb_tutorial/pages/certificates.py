"""What chapter 12 tests its theorems on: random Jacobians, weights and heads, the matrix K of each, and matrices built to spoil or save.

Rows as in the book: w (I − J) = g, the gradient is w E with E = ∂T/∂θ, JFB sends g E, and the head sends g = a B.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from torch import Tensor, nn

from ..network import ImplicitNetwork
from ..solvers import FixedPointIteration
from ..theory import contraction_factor, spectral_radius
from .figures import BLUE, GREEN, GREY, VERMILION
from .instances import coercivity, most_turned, norm, sharp_bound, sym, top
from .plots import band

__all__ = [
    "Draws",
    "abscissa",
    "affine",
    "after_training",
    "arriving",
    "batch_of_two",
    "cone_and_plane",
    "converses",
    "copies",
    "corollaries",
    "draw",
    "flow",
    "lyapunov",
    "over_batches",
    "over_epochs",
    "penalised",
    "saturated",
    "slope_free",
    "spoiling",
    "typical",
    "worst_turn",
]


@dataclass(frozen=True)
class Draws:
    """Many instances at once, S without weights.

    Args:
        J: `(count, n, n)`, ∂T/∂u.
        E: `(count, n, p)`, ∂T/∂θ.
        B: `(count, c, n)`, ∂S/∂u.
    """

    J: Tensor
    E: Tensor
    B: Tensor

    @property
    def G(self) -> Tensor:
        """E Eᵀ."""
        return self.E @ self.E.mT

    @property
    def Z(self) -> Tensor:
        """The adjoints of the outputs, Z (I − J) = B."""
        return torch.linalg.solve(torch.eye(self.J.shape[-1]) - self.J, self.B, left=False)

    @property
    def K(self) -> Tensor:
        """Z G Bᵀ."""
        return self.Z @ self.G @ self.B.mT

    @property
    def kappa(self) -> Tensor:
        """The condition numbers of G."""
        sizes = torch.linalg.svdvals(self.E)
        return (sizes[:, 0] / sizes[:, -1]) ** 2

    def inner(self, a: Tensor) -> Tensor:
        """⟨gradient, p⟩ for losses a, `(count, losses, c)`, from the two vectors themselves."""
        return -((a @ self.Z @ self.E) * (a @ self.B @ self.E)).sum(-1)


def draw(
    count: int, *, generator: torch.Generator, n: int = 6, outputs: int = 2, radius: float = 0.95, spread: float = 1.0
) -> Draws:
    """Jacobians of a given spectral radius, and so of norm above it, derivatives by 8 weights (n, if that is more) with κ = 100 ** spread, random heads."""
    J = torch.randn(count, n, n, generator=generator)
    J = radius * J / torch.linalg.eigvals(J).abs().amax(1)[:, None, None]
    left, right = (torch.linalg.qr(torch.randn(count, m, n, generator=generator))[0] for m in (n, max(8, n)))
    E = left * torch.logspace(0, spread, n) @ right.mT
    return Draws(J, E, torch.randn(count, outputs, n, generator=generator))


def abscissa(J: Tensor, G: Tensor) -> Tensor:
    """ω_G, the largest w J G wᵀ / w G wᵀ: the numerical abscissa of J in the ruler ‖G^(−1/2) u‖."""
    inverse = torch.linalg.inv(torch.linalg.cholesky(G))
    return top(inverse @ J @ G @ inverse.mT)


def lyapunov(J: Tensor) -> Tensor:
    """The G with (I − J) G + G (I − J)ᵀ = I; positive definite if the eigenvalues of J, `(n, n)`, have real parts below 1."""
    identity = np.eye(len(J))
    return torch.from_numpy(scipy.linalg.solve_continuous_lyapunov(identity - J.numpy(), identity))


def spoiling(J: Tensor) -> Tensor:
    """A positive definite G for which some loss makes JFB climb, S the identity; J, `(n, n)`, keeps no multiple of (1, 0, …).

    Nearly of rank one: G = vvᵀ + εI, with a w for which w·v = 1 and w·(I − J)v = −1.
    """
    v = torch.eye(len(J))[0]
    x = v - J @ v
    aside = x - (x @ v) * v
    w = v - (1 + x @ v) / (aside @ aside) * aside
    epsilon = 0.25 / (w @ (w - w @ J)).abs()
    return torch.outer(v, v) + epsilon * torch.eye(len(J))


def worst_turn(G: Tensor) -> Tensor:
    """Matrices of norm 1 that turn the vector that G turns most, a row, the same way."""
    w = most_turned(G)
    Gw = G @ w
    return w @ Gw.mT / (w.norm(dim=1, keepdim=True) * Gw.norm(dim=1, keepdim=True))


def copies(block: Tensor, n: int, count: int, generator: torch.Generator) -> float:
    """The share of random g, in n dimensions, for which g (I − J)⁻¹ gᵀ < 0, J made of n/2 copies of a 2 × 2 block, G = I."""
    inverse, up = torch.linalg.inv(torch.eye(2) - block), 0
    for part in torch.arange(count).chunk(10):  # a few at a time, for the memory
        g = torch.randn(len(part), n // 2, 2, generator=generator)
        up += int((((g @ inverse) * g).sum((1, 2)) < 0).sum())
    return up / count


def flow(A: Tensor, start: Tensor, step: float, count: int) -> Tensor:
    """The path of u' = −A u from `start`, `(count + 1, n)`, by Euler's steps."""
    path = [start]
    for _ in range(count):
        path.append(path[-1] - step * A @ path[-1])
    return torch.stack(path)


def saturated(count: int, generator: torch.Generator, n: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """T = σ(a), slopes from 1 to 1e-4, ‖WD‖ just below the bound of κ_a, G_a = κ_a-conditioned.

    Returns:
        κ_T; how far ŵ G_a (I − WD)ᵀ ŵᵀ is from what gradient and p give, relative to their lengths; the least value of that over
        all ŵ; and the same least value for the worst W, a ten-thousandth beyond the bound.
    """
    draws = draw(count, generator=generator, n=n)
    D = torch.diag_embed(10 ** (-4 * torch.rand(count, n, generator=generator)))
    limit = sharp_bound(draws.kappa)[:, None, None]
    WD = 0.9999 * limit * torch.linalg.qr(draws.J)[0]
    turned, identity = 1.0001 * limit * worst_turn(draws.G), torch.eye(n)
    E, w = D @ draws.E, torch.randn(count, 1, n, generator=generator)
    hat = w @ D
    g = w - hat @ WD @ torch.linalg.inv(D)  # w (I − J), J = D W
    gradient, p = (w @ E).flatten(1), -(g @ E).flatten(1)
    formula = -(hat @ draws.G @ (identity - WD).mT @ hat.mT).flatten()
    apart = ((gradient * p).sum(1) - formula).abs() / gradient.norm(dim=1) / p.norm(dim=1)
    below, beyond = (coercivity(draws.G @ (identity - each).mT) for each in (WD, turned))
    return Draws(WD, E, WD).kappa, apart, below, beyond


def affine(count: int, generator: torch.Generator, n: int = 6, samples: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    """Batches for T = Wu + Ud + b with any head: W, the gradient by (W, U, b) and JFB's, as matrices."""
    W = torch.randn(count, n, n, generator=generator)
    W = W - (top(W) - 0.95)[:, None, None] * torch.eye(n)
    g, x = (torch.randn(count, samples, m, generator=generator) for m in (n, n + 3))
    w = torch.linalg.solve(torch.eye(n) - W, g, left=False)
    return W, w.mT @ x, g.mT @ x


def slope_free(W: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """⟨∇, g x⟩ and ⟨∇, −p⟩ over ‖x‖² for layers of matrices W `(count, n, n)`, slopes from 0.1 to 1 and random adjoints."""
    count, n, _ = W.shape
    D = torch.diag_embed(10 ** (-torch.rand(count, n, generator=generator)))
    w = torch.randn(count, 1, n, generator=generator)
    g, hat = w - w @ D @ W, w @ D
    return (hat * g).sum((1, 2)), (hat * (g @ D)).sum((1, 2))


class _Unit(nn.Module):
    """tanh(0.9u + q) with a trained 0.9."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.9))

    def forward(self, u: Tensor, q: Tensor) -> Tensor:
        return torch.tanh(self.w * u + q)


def batch_of_two() -> tuple[ImplicitNetwork, Tensor]:
    """T = tanh(0.9u + 10d + b), and the samples at which its slope is 1 and 0.1."""
    Q = nn.Linear(1, 1)
    with torch.no_grad():
        Q.weight.fill_(10.0)
        Q.bias.zero_()
    return ImplicitNetwork(Q, _Unit(), nn.Identity()), torch.tensor([[0.0], [0.09646]])


def penalised(
    strengths: Sequence[float], measured: Mapping[str, Sequence[float]], losses: Mapping[float, Sequence[float]]
) -> Figure:
    """What a penalty does: some sizes against its strength, the first of which stands for 0, and the losses step by step.

    Args:
        strengths: increasing, the first 0.
        measured: by name, one value for each strength.
        losses: by strength, one for each step.
    """
    fig, (ax, below) = plt.subplots(2, 1, figsize=(4.8, 5.2))
    places = range(len(strengths))
    for (name, found), mark in zip(measured.items(), "osD^", strict=False):
        ax.plot(places, found, marker=mark, label=name)
    ax.set_xticks(places, [f"{strength:g}" for strength in strengths])
    ax.set(xlabel="strength of the penalty", ylim=(0, 1.3))
    ax.legend()
    for strength, loss in losses.items():
        below.plot(loss, label=f"{strength:g}")
    below.set(xlabel="step", ylabel="loss, without the penalty", ylim=(0, None))
    below.legend(title="strength", loc="lower left", ncols=2)
    return fig


def cone_and_plane(
    A: Tensor, heads: Mapping[str, Tensor], *, view: tuple[float, float, float] = (-0.1, 1.0, 0.6)
) -> tuple[Figure, float, list[np.ndarray]]:
    """Where g A gᵀ < 0 on the sphere, and its values along the planes that heads send.

    Half the sphere is enough: g and −g have the same value.

    Args:
        A: `(3, 3)`.
        heads: by name, two orthonormal rows `(2, 3)`; two of them.
        view: where the sphere is seen from.

    Returns:
        The figure, the share of all directions with a negative value, and the values along each plane.
    """
    quadratic = sym(A).numpy()

    def rate(g: np.ndarray) -> np.ndarray:
        return np.einsum("...i,ij,...j->...", g, quadratic, g)

    towards = np.array(view) / np.linalg.norm(view)
    right = np.cross([0.0, 0.0, 1.0], towards)
    right /= np.linalg.norm(right)
    frame = np.stack([right, np.cross(towards, right), towards])
    fig, (ax, below) = plt.subplots(2, 1, figsize=(4.8, 5.6), height_ratios=(3, 2))
    # rings of equal area, so that their mean is one over the sphere
    radii, angles = np.sqrt(1 - np.linspace(1, 0, 401) ** 2), np.linspace(0, 2 * np.pi, 721)
    x, y = radii[:, None] * np.cos(angles), radii[:, None] * np.sin(angles)
    height = np.sqrt(np.maximum(1 - x**2 - y**2, 0))
    found = rate(np.stack([x, y, height], -1) @ frame)
    share = float((found[1:, 1:] < 0).mean())
    ax.contourf(x, y, found, levels=[-1e9, 0, 1e9], colors=[VERMILION, "#dddddd"], alpha=0.6)
    ax.plot(np.cos(angles), np.sin(angles), color=GREY, linestyle="-", linewidth=1)
    curves, turns = [], np.linspace(0, np.pi, 721)
    for (name, B), colour, dash in zip(heads.items(), (BLUE, GREEN), ("-", "--"), strict=True):
        a = np.stack([np.cos(turns), np.sin(turns)], -1)
        g = a @ B.numpy()
        seen = np.concatenate([g, -g]) @ frame.T
        seen[seen[:, 2] < 0] = np.nan  # the far side
        ax.plot(seen[:, 0], seen[:, 1], color=colour, linestyle=dash)
        curves.append(rate(g))
        below.plot(np.degrees(turns), curves[-1], color=colour, linestyle=dash, label=name)
    for k, axis in enumerate(np.eye(3)):
        tip = 1.25 * frame @ axis
        ax.annotate("", tip[:2], frame[:2] @ axis, arrowprops={"arrowstyle": "->", "color": GREY})
        ax.text(*(1.1 * tip[:2]), f"$g_{k + 1}$", ha="center", va="center")
    ax.set(aspect="equal", xlim=(-1.5, 1.5), ylim=(-1.05, 1.3))
    ax.axis("off")
    below.axhline(0, color=GREY, linestyle="-", linewidth=0.8)
    below.set(xlabel="direction $a$ of the loss [degrees]", ylabel="rate of descent")
    below.xaxis.set_ticks(range(0, 181, 45))
    below.legend(loc="upper center")
    return fig, share, curves


def corollaries(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, float, float]:
    """K under the sharp condition, just beyond it, for three Neumann terms and for one layer.

    Returns:
        The smallest eigenvalue of K with the worst J at 0.999 of the sharp bound and with the head the identity; the same at
        1.001; how far K with J³ is from K with the head's rows times I + J + J², and K of a layer from ŵ (I − WD)ᵀ ŵᵀ, relative.
    """
    draws = draw(count, generator=generator, spread=1.5)
    J, B, n = draws.J, draws.B, draws.J.shape[-1]
    identity, worst = torch.eye(n), sharp_bound(draws.kappa)[:, None, None] * worst_turn(draws.G)
    below, beyond = (coercivity(Draws(x * worst, draws.E, identity.expand_as(J)).K) for x in (0.999, 1.001))
    terms = draws.Z @ draws.G @ (B @ (identity + J + J @ J)).mT
    cubed = draws.Z @ draws.G @ (draws.Z @ (identity - torch.linalg.matrix_power(J, 3))).mT
    W, D = 1.5 * J, torch.diag_embed(torch.rand(count, n, generator=generator))
    layer = Draws(D @ W, D, B)
    hat = layer.Z @ D
    theorem = hat @ (identity - W @ D).mT @ hat.mT
    return below, beyond, *(((a - b).norm() / b.norm()).item() for a, b in ((cubed, terms), (layer.K, theorem)))


def converses(count: int, generator: torch.Generator, n: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """The smallest eigenvalue of K, the head the identity, for each J with a G built for it.

    Returns:
        For J of norm 0.1 with `spoiling`; for J whose eigenvalues have real parts up to 0.9, with `lyapunov`; and for J with real
        parts of at least 1.1, with the same G.
    """
    J = torch.randn(count, n, n, generator=generator)
    tame, identity = 0.1 * J / norm(J)[:, None, None], torch.eye(n)
    left = J - (torch.linalg.eigvals(J).real.amax(1) - 0.9)[:, None, None] * identity
    G = torch.stack([lyapunov(each) for each in left])
    pairs = (tame, torch.stack([spoiling(each) for each in tame])), (left, G), (2 * identity - left, G)
    spoilt, saved, beyond = (coercivity(torch.linalg.inv(identity - A) @ gram) for A, gram in pairs)
    return spoilt, saved, beyond


def over_epochs(names: Sequence[str], found: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """A panel for each quantity, one below the other, with a line at 1, and at 0 in the last.

    Args:
        names: of the quantities.
        found: by experiment, for each quantity the rows `(seeds, epochs)`; where there are few epochs, each has a mark.
    """
    fig, axes = plt.subplots(len(names), 1, figsize=(4.8, 1.9 * len(names) + 0.3), sharex=True)
    for k, (ax, name) in enumerate(zip(axes, names, strict=True)):
        for label, panels in found.items():
            epochs = panels[k].shape[1]
            band(ax, range(1, 1 + epochs), panels[k], label=label, marker="o" if epochs < 10 else None, markersize=4)
        ax.axhline(0 if ax is axes[-1] else 1, color=GREY, linestyle=":", linewidth=1)
        ax.set(ylabel=name)
    axes[-1].set(xlabel="epoch")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(found))
    return fig


def over_batches(found: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """The criterion of batches of growing size, a line for each network."""
    fig, ax = plt.subplots(figsize=(4.8, 4.6))
    for k, (name, batches) in enumerate(found.items()):
        line = {
            "marker": "osD^vPX*"[k % 8],
            "color": (BLUE, VERMILION, GREEN, GREY)[k % 4],
            "linestyle": ("-", "--")[k // 4 % 2],
        }
        ax.loglog([b["size"] for b in batches], [b["criterion"] for b in batches], label=name, **line)
    ax.set(xlabel="samples in one step", ylabel="$K$: smallest / largest")
    ax.set_xticks((1, 2, 5, 10, 20, 40), ("1", "2", "5", "10", "20", "40"))
    ax.xaxis.set_minor_locator(NullLocator())
    fig.legend(loc="outside lower center", ncols=2, fontsize=9)
    return fig


def typical(sizes: np.ndarray, shares: np.ndarray, dots: Mapping[int, float]) -> Figure:
    """The share of losses that climb, against the number of unknowns: exactly, and of random losses."""
    fig, ax = plt.subplots()
    ax.semilogx(sizes, 100 * shares, label="exactly")
    found = [100 * share for share in dots.values()]
    ax.semilogx(list(dots), found, "o", color=VERMILION, label="10,000 random losses")
    ax.set(xlabel="unknowns n", ylabel="losses that climb [%]", ylim=(-2, 52))
    ax.legend()
    return fig


def arriving(path: Tensor, G: Tensor, step: float) -> tuple[Figure, float]:
    """A path that comes in although its loss rises on the way: in the plane of δu, with level lines of the loss and of ‖p‖², and over time.

    Args:
        path: `(steps + 1, 2)`, of `flow`.
        G: `(2, 2)`.
        step: the time between two points.

    Returns:
        The figure, and the largest loss over the first.
    """
    loss, size = path.square().sum(1) / 2, ((path @ G) * path).sum(1)
    fig, (plane, ax) = plt.subplots(2, 1, figsize=(4.8, 6.4), height_ratios=(3, 2))
    low, high = path.amin(0).tolist(), path.amax(0).tolist()
    x, y = np.meshgrid(
        np.linspace(low[0] - 0.7, high[0] + 0.7, 300), np.linspace(min(low[1], 0) - 0.4, high[1] + 0.4, 300)
    )
    grid = torch.from_numpy(np.stack([x, y], -1))
    # a line of each family through the start, two places on the way up and the highest
    climb = [loss[0] + part * (loss.max() - loss[0]) for part in (0, 1 / 3, 2 / 3, 1)]
    places = [int((loss >= height).nonzero()[0]) for height in climb]
    levels = {
        "loss": (grid.square().sum(-1) / 2, loss, BLUE, "-"),
        r"$\|p\|^2$": (((grid @ G) * grid).sum(-1), size, VERMILION, "--"),
    }
    for name, (values, along, colour, dash) in levels.items():
        chosen = sorted({round(along[k].item(), 9) for k in places})
        plane.contour(x, y, values.numpy(), levels=chosen, colors=colour, linestyles=dash, linewidths=1)
        plane.plot(
            [],
            [],
            color=colour,
            linestyle=dash,
            linewidth=1,
            label=f"level lines of the {name}" if name == "loss" else f"of {name}",
        )
    plane.plot(*path.T, color="black", linestyle="-", linewidth=2.2)
    middle = places[1] // 2
    plane.annotate(
        "", path[middle + 1], path[middle], arrowprops={"arrowstyle": "-|>", "color": "black", "mutation_scale": 18}
    )
    plane.plot(*path[0], "o", color="black")
    plane.plot(0, 0, "*", color=GREEN, markersize=12)
    plane.set(aspect="equal", xlabel=r"$\delta u_1$", ylabel=r"$\delta u_2$")
    plane.grid(visible=False)
    times = step * torch.arange(1, len(path))
    ax.loglog(times, loss[1:], color=BLUE, linestyle="-", label="loss")
    ax.loglog(
        times,
        (size * loss[0] / size[0])[1:],
        color=VERMILION,
        linestyle="--",
        label=r"$\|p\|^2$, scaled to start there",
    )
    ax.set(xlabel="time, in units of the learning rate", ylim=(1e-4, 10))
    ax.legend(loc="lower left")
    fig.legend(*plane.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig, (loss.max() / loss[0]).item()


def after_training(network: ImplicitNetwork, x: Tensor) -> tuple[float, float, float, float]:
    """Norm and spectral radius of J at inputs, the mean slope of tanh units there, and the mean steps to a residual of 1e-4."""
    solver = FixedPointIteration(tol=1e-10, max_steps=5000)
    u, T = solver(network.operator(x), network.operator(x).zeros()).u, network.operator(x)
    steps = FixedPointIteration(tol=1e-4, max_steps=5000)(T, T.zeros()).steps
    return contraction_factor(T, u), spectral_radius(T, u), (1 - u**2).mean().item(), steps.double().mean().item()
