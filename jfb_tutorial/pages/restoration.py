"""Digits out of focus: the pictures, the layer and the training of chapter 14."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .. import theory
from ..gradients import JFB, ImplicitDifferentiation
from ..network import ImplicitNetwork
from ..solvers import FixedPointIteration
from ..training import data
from . import instances
from .fitting import fit

__all__ = ["Physics", "Step", "best_linear", "blur", "blurred", "held_out", "network", "pictures", "psnr", "quality"]
__all__ += ["size", "train"]

NOISE = 0.03
"""Standard deviation of the noise on a pixel; pixels are in [0, 1]."""
ETA = 1.0
"""The step of the gradient; ‖A‖ is below 1, so that 1 is safe."""
HIDDEN = 128
UPDATES = 1000


def blur(sigma: float = 1.0) -> Tensor:
    """A, `(64, 64)`, symmetric: each pixel of an 8×8 picture spreads over the 5×5 around it, as a Gaussian; what leaves is lost."""
    near = torch.arange(-2, 3, dtype=torch.float64)
    kernel = torch.exp(-(near**2) / (2 * sigma**2))
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    pixels = torch.eye(64, dtype=torch.float64).reshape(64, 1, 8, 8)
    return nn.functional.conv2d(pixels, kernel[None, None], padding=2).flatten(1).to(torch.get_default_dtype())


def pictures(which: str) -> Tensor:
    """Digits of scikit-learn, `(pictures, 64)` in [0, 1]: "training", "validation" (300 of the training set) or "test"."""
    images = data.load("digits", "test" if which == "test" else "train").images
    found = images.reshape(-1, 64).to(torch.get_default_dtype()) / 255
    return {"training": found[:-300], "validation": found[-300:], "test": found}[which]


def blurred(x: Tensor, generator: torch.Generator, A: Tensor | None = None) -> Tensor:
    """y = A x + noise; A is `blur()` unless it is at hand."""
    return x @ (blur().to(x) if A is None else A) + NOISE * torch.randn(x.shape, generator=generator).to(x)


def held_out(which: str) -> tuple[Tensor, Tensor]:
    """Blurred pictures and the sharp ones, "validation" or "test", always with the same noise."""
    x = pictures(which)
    return blurred(x, torch.Generator().manual_seed(1000)), x


class Physics(nn.Module):
    """Q(y) = η Aᵀ y; nothing here is learned."""

    A: Tensor

    def __init__(self, A: Tensor, eta: float = ETA) -> None:
        super().__init__()
        self.register_buffer("A", A)
        self.eta = eta

    def forward(self, y: Tensor) -> Tensor:
        """What the data contribute to a step, `(batch, 64)`."""
        return self.eta * (y @ self.A)


class Step(nn.Module):
    """R(u, q): a step of the gradient of ½‖Au − y‖², then a learned correction v + V tanh(W v + b) + a."""

    H: Tensor

    def __init__(self, A: Tensor, eta: float = ETA, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.register_buffer("H", eta * A.T @ A)
        self.one, self.two = nn.Linear(64, hidden), nn.Linear(hidden, 64)
        with torch.no_grad():
            # V = −Wᵀ/10 at first: the correction pulls gently towards 0, and T is a contraction
            self.one.weight.normal_(0, hidden**-0.5)
            self.two.weight.copy_(-0.1 * self.one.weight.T)
            self.one.bias.zero_()
            self.two.bias.zero_()

    def forward(self, u: Tensor, q: Tensor) -> Tensor:
        """One step, `(batch, 64)`."""
        v = u - u @ self.H + q
        return v + self.two(torch.tanh(self.one(v)))


def network(seed: int, *, gradient: Callable[..., Tensor] = JFB()) -> ImplicitNetwork:  # noqa: B008
    """The untrained layer of a seed."""
    torch.manual_seed(seed)
    A = blur()
    trained_with = FixedPointIteration(tol=1e-3, max_steps=200, relative=True, check_every=5)
    parts = Physics(A), Step(A), nn.Identity()
    return ImplicitNetwork(*parts, solver=trained_with, gradient=gradient, on_unconverged="ignore")


def psnr(found: Tensor, x: Tensor) -> float:
    """The peak signal-to-noise ratio in decibels, −10 log₁₀ of the mean squared error of a picture, averaged over pictures."""
    return float((-10 * torch.log10((found - x).square().mean(dim=1))).mean())


def best_linear(y: Tensor) -> Tensor:
    """The best that a linear map can do on average (Wiener's filter), from the mean and the covariance of the training pictures."""
    x, A = pictures("training").to(y), blur().to(y)
    mean = x.mean(dim=0)
    C = (x - mean).T @ (x - mean) / len(x)
    noise = NOISE**2 * torch.eye(64).to(y)
    return mean + (y - mean @ A) @ torch.linalg.solve(A @ C @ A + noise, A @ C)


def quality(network: ImplicitNetwork, y: Tensor, x: Tensor, *, solver: Any = None) -> dict[str, float]:
    """PSNR, steps and the share at rest, run to a relative residual of 1e-4 in at most 2,000 steps, or by `solver`."""
    solver = solver or FixedPointIteration(tol=1e-4, max_steps=2000, relative=True, check_every=5)
    # `Unrolled` would not solve; JFB's value is that of one step more
    with torch.no_grad(), network.using(solver=solver, gradient=JFB()):
        value = psnr(network(y), x)
        assert network.last is not None
        steps, rested = network.last.steps.double().mean(), network.last.converged.double().mean()
        residual = (network.last.residual / network.last.u.norm(dim=1)).median()
    return {"psnr": value, "steps": float(steps), "rested": float(rested), "residual": float(residual)}


def size(network: ImplicitNetwork) -> dict[str, Any]:
    """Norm and radius of J at ten test pictures, and the cosine of JFB's direction with the exact gradient on 32."""
    mine = copy.deepcopy(network).double()
    mine.solver = FixedPointIteration(tol=1e-9, max_steps=20_000)
    y, x = (z[:32].double() for z in held_out("test"))
    solved = mine.solve(y)
    T = [mine.operator(y[i : i + 1]) for i in range(10)]
    norms = [theory.contraction_factor(T[i], solved.u[i : i + 1]) for i in range(10)]
    radii = [theory.spectral_radius(T[i], solved.u[i : i + 1]) for i in range(10)]
    exact = ImplicitDifferentiation("gmres", tol=1e-8, max_steps=5000, on_failure="warn")
    one, true = (instances.gradient_of(mine, rule, y, x, loss=nn.functional.mse_loss) for rule in (JFB(), exact))
    cosine = instances.cosine(one, true)
    rested = int(solved.converged.sum())
    return {"norms": norms, "radii": radii, "cosine": cosine, "at rest of 32": rested}


def train(
    network: ImplicitNetwork,
    seed: int,
    *,
    updates: int = UPDATES,
    rate: float = 1e-3,
    watch: Callable[[int, float], Any] = lambda update, seconds: None,
) -> None:
    """Adam on the squared error, 32 pictures an update with fresh noise; the rate falls to zero in a straight line.

    `watch(update, seconds)` is called before each update and after the last, with the processor time of training so far.
    """
    sharp, A = pictures("training"), blur()
    generator = torch.Generator().manual_seed(seed)

    def loss(update: int) -> Tensor:
        x = sharp[torch.randint(len(sharp), (32,), generator=generator)]
        return (network(blurred(x, generator, A)) - x).square().mean()

    fit(
        network,
        loss,
        updates=updates,
        rate=rate,
        factor=lambda update: 1 - update / updates,
        watch=lambda update, value, seconds: watch(update, seconds),
    )
