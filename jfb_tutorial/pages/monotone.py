"""Monotone operator networks (Winston and Kolter 2020): an equilibrium that exists however large W is.

The state is the u with u = relu(Wu + q), q = Q(d), and W = (1 − m) I − AᵀA + B − Bᵀ, so that the symmetric part of W is at most
1 − m: ⟨v, Wv⟩ ≤ (1 − m)‖v‖². The skew part B − Bᵀ is free, and with it the norm of W. That is enough for one u, and only
one, to exist. Three steps R have this u as their fixed point:

    plain              R(u, q) = relu(Wu + q)                            need not converge
    forward–backward   R(u, q) = relu((1 − α)u + α(Wu + q))              contracts for 0 < α < 2m/L², L = ‖I − W‖
    Peaceman–Rachford  R(v, q) = 2V(|v| + αq) − |v|, u = relu(v)         contracts for every α > 0; V = (I + α(I − W))⁻¹

(their Algorithms 1 and 2; |v| is 2 relu(v) − v, and −v where u is held at zero). With two dimensions of pixels W is a circular convolution, and all of this is done frequency
by frequency (their Section 4). As in their code (locuslab/monotone_op_net, commit fdbf22c, `mon.py`) a frame of one pixel around the
image is held at zero, so that what leaves on one side does not come back on the other, and A and B are divided by their norms and multiplied by a
learned number each. There AᵀA is multiplied by that number itself, which training may make negative; here by its square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._blocks import Normalise
from .._checks import check_choice, check_integer, check_positive
from ..gradients import JFB
from ..network import ImplicitNetwork
from ..solvers import FixedPointIteration, Solution

__all__ = [
    "STEPS",
    "Circular",
    "Dense",
    "Measures",
    "Splitting",
    "Step",
    "dense_network",
    "measures",
    "network",
    "tuned",
]

STEPS = ("plain", "forward-backward", "peaceman-rachford")


class Monotone(nn.Module):
    """What the two kinds of W share: W = (1 − m) I − AᵀA + B − Bᵀ as a stack of matrices, one a frequency, or a single one.

    Args:
        m: how far the symmetric part of W stays below 1, positive.
    """

    def __init__(self, m: float) -> None:
        super().__init__()
        self.m = check_positive("m", m, "1 is the published choice: then W is −AᵀA + B − Bᵀ")

    def factors(self) -> tuple[Tensor, Tensor]:
        """A and B as stacks of matrices `(…, c, c)`."""
        raise NotImplementedError

    def times(self, M: Tensor, u: Tensor) -> Tensor:
        """Mu for a stack of matrices M like those of W; u `(batch, *latent)`."""
        raise NotImplementedError

    def matrices(self) -> Tensor:
        """W as a stack of matrices `(…, c, c)`, with its graph."""
        A, B = self.factors()
        identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        return (1 - self.m) * identity - A.mH @ A + B - B.mH

    def resolvent(self, alpha: float) -> Tensor:
        """V = (I + α(I − W))⁻¹, as such a stack."""
        W = self.matrices()
        identity = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
        return torch.linalg.inv((1 + alpha) * identity - alpha * W)

    def forward(self, u: Tensor) -> Tensor:
        """Wu."""
        return self.times(self.matrices(), u)


class Dense(Monotone):
    """A full matrix W `(n, n)`, u `(batch, n)`; A and B start as the weights of `nn.Linear` do, B times `skew`."""

    def __init__(self, n: int, m: float = 1.0, *, skew: float = 1.0) -> None:
        super().__init__(m)
        self.A = nn.Parameter((2 * torch.rand(n, n) - 1) / n**0.5)
        self.B = nn.Parameter(skew * (2 * torch.rand(n, n) - 1) / n**0.5)

    def factors(self) -> tuple[Tensor, Tensor]:
        """A and B."""
        return self.A, self.B

    def times(self, M: Tensor, u: Tensor) -> Tensor:
        """Mu, samples in rows."""
        return u @ M.T


class Circular(Monotone):
    """A 3×3 convolution on a torus of `side` × `side` pixels, u `(batch, channels, side, side)`.

    A matrix `(channels, channels)` for each frequency: `(side, side // 2 + 1, channels, channels)`, complex. The learned number in front of B/‖B‖
    starts at `skew`.
    """

    def __init__(self, channels: int, side: int, m: float = 1.0, *, skew: float = 1.0) -> None:
        super().__init__(m)
        self.side = check_integer("side", side, 3, "a 3×3 convolution needs 3 pixels to go around")
        self.A, self.B = (
            nn.Parameter((2 * torch.rand(channels, channels, 3, 3) - 1) / (9 * channels) ** 0.5) for _ in range(2)
        )
        self.a, self.b = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(float(skew)))

    def factors(self) -> tuple[Tensor, Tensor]:
        """a A/‖A‖ and b B/‖B‖, as their transforms."""
        A, B = (size * kernel / kernel.norm() for size, kernel in ((self.a, self.A), (self.b, self.B)))
        return self._transformed(A), self._transformed(B)

    def _transformed(self, kernel: Tensor) -> Tensor:
        # the kernel's middle to the pixel (0, 0); conj, since a "convolution" of PyTorch does not mirror its kernel
        frame = self.side - 3
        wide = F.pad(kernel, (0, frame, 0, frame)).roll((-1, -1), (2, 3))
        return torch.fft.rfft2(wide).conj().permute(2, 3, 0, 1)

    def times(self, M: Tensor, u: Tensor) -> Tensor:
        """Mu, frequency by frequency."""
        waves = torch.fft.rfft2(u).permute(2, 3, 0, 1)  # (side, side // 2 + 1, batch, channels)
        return torch.fft.irfft2((waves @ M.mT).permute(2, 3, 0, 1), s=u.shape[-2:])


class Positive(nn.Module):
    """relu, and zero on the frame of an image: the nearest point of the states that are allowed.

    Args:
        frame: pixels on each side that are held at zero; 0 for states that are no images.
    """

    def __init__(self, frame: int = 0) -> None:
        super().__init__()
        self.frame = check_integer("frame", frame, 0, "0 holds none at zero")

    def forward(self, v: Tensor) -> Tensor:
        """Like v."""
        if not self.frame:
            return F.relu(v)
        inside = (slice(self.frame, -self.frame),) * 2
        return F.pad(F.relu(v[(..., *inside)]), (self.frame,) * 4)


class Step(nn.Module):
    """R of one of the three steps; its fixed point is u, or for Peaceman–Rachford a v with relu(v) = u.

    Args:
        W: the linear part.
        kind: one of `STEPS`.
        alpha: α; the plain step is forward–backward with α = 1, and has no other.
        frame: see `Positive`.
    """

    def __init__(self, W: Monotone, kind: str = "forward-backward", alpha: float = 1.0, frame: int = 0) -> None:
        super().__init__()
        self.kind = check_choice("kind", kind, STEPS)
        self.alpha = check_positive("alpha", alpha, "1 is the plain step, less is safer")
        if kind == "plain" and self.alpha != 1:
            raise ValueError(f"alpha is 1 in the plain step, got {alpha}; take kind='forward-backward'")
        self.W, self.nearest = W, Positive(frame)
        self._held: Tensor | None = None

    def linear(self) -> Tensor:
        """What is applied in every step: (1 − α) I + αW, or 2V."""
        if self.kind == "peaceman-rachford":
            return 2 * self.W.resolvent(self.alpha)
        W = self.W.matrices()
        return W if self.alpha == 1 else (1 - self.alpha) * torch.eye(W.shape[-1]).to(W) + self.alpha * W

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, the linear part is computed once, without a graph: for a solver, which changes no weight."""
        with torch.no_grad():
            self._held = self.linear()
        try:
            yield
        finally:
            self._held = None

    def forward(self, u: Tensor, q: Tensor) -> Tensor:
        """One step; u and q `(batch, *latent)`."""
        M = self.linear() if self._held is None else self._held
        if self.kind != "peaceman-rachford":
            return self.nearest(self.W.times(M, u) + (q if self.alpha == 1 else self.alpha * q))
        mirrored = 2 * self.nearest(u) - u
        return self.W.times(M, mirrored + self.alpha * q) - mirrored

    def extra_repr(self) -> str:
        """The settings, for `print(network)`."""
        return f"kind={self.kind!r}, alpha={self.alpha}"


@dataclass(frozen=True)
class Splitting:
    """Plain iteration of a `Step` with its linear part computed once a solve: operator splitting.

    Args:
        tol: relative to ‖R(u)‖, a sample; the published code stops at 1e-2, relative to the batch.
        max_steps: evaluations of R at most; 300 there.
    """

    tol: float = 1e-2
    max_steps: int = 300
    relative = True

    def __call__(self, T: Any, u0: Tensor) -> Solution:
        """As `FixedPointIteration`."""
        solver = FixedPointIteration(self.tol, self.max_steps, relative=True)
        R = getattr(T, "R", None)
        if not isinstance(R, Step):
            return solver(T, u0)
        with R.held():
            return solver(T, u0)


class Read(nn.Module):
    """S: u = relu(v), which leaves a u that is positive as it is, then a linear map of all of u inside the frame to the logits."""

    def __init__(self, step: Step, features: int, pool: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.nearest, self.pool = step.nearest, pool
        self.linear = nn.Linear(features, classes)

    def forward(self, v: Tensor) -> Tensor:
        """`(batch, *latent)` to `(batch, classes)`."""
        u, frame = self.nearest(v), self.nearest.frame
        if frame:
            u = u[..., frame:-frame, frame:-frame]
        if self.pool > 1:
            u = F.avg_pool2d(u, self.pool)
        return self.linear(u.flatten(1))


def network(
    seed: int,
    *,
    kind: str = "forward-backward",
    alpha: float = 1.0,
    m: float = 1.0,
    skew: float = 1.0,
    channels: int = 52,
    fold: int = 4,
    gradient: Callable[..., Tensor] = JFB(),  # noqa: B008
    solver: Callable[..., Solution] = Splitting(),
) -> ImplicitNetwork:
    """The untrained network for MNIST: a single convolution, the published `SingleConvNet` but for the folding.

    81,704 parameters as it is, and 79,500, those of the published code, with `channels=54, fold=1`; the paper's table says 84K. What is read there
    is the mean of 4×4 pixels, with the frame; here the frame is left out.

    Args:
        seed: of the weights.
        kind: which step is R.
        alpha: α of the step.
        m: see `Monotone`; 1 as published.
        skew: see `Circular`; 1 as published, for which ‖W‖ starts at about 0.4.
        channels: of the latent; 54 as published.
        fold: 1, 2 or 4: squares of fold × fold pixels become channels, so that a picture of 28×28 is one of 28/fold and a step costs
            fold² times less; 1 as published.
        gradient: the backward rule.
        solver: how the fixed point is found.

    Raises:
        ValueError: bad settings.
    """
    if fold not in (1, 2, 4):
        raise ValueError(f"fold must be 1, 2 or 4, got {fold}; 1 leaves the picture as it is")
    torch.manual_seed(seed)
    side = 28 // fold + 2
    Q = nn.Sequential(
        Normalise((0.1307,), (0.3081,), 28), nn.PixelUnshuffle(fold), nn.Conv2d(fold**2, channels, 3, padding=2)
    )
    R = Step(Circular(channels, side, m, skew=skew), kind, alpha, frame=1)
    S = Read(R, channels * 49, pool=4 // fold)
    return ImplicitNetwork(Q, R, S, solver=solver, gradient=gradient, on_unconverged="ignore")


def dense_network(
    seed: int,
    *,
    n: int = 12,
    inputs: int = 5,
    kind: str = "forward-backward",
    alpha: float = 1.0,
    m: float = 1.0,
    skew: float = 1.0,
    gradient: Callable[..., Tensor] = JFB(),  # noqa: B008
    solver: Callable[..., Solution] = Splitting(1e-10, 20_000),
) -> ImplicitNetwork:
    """A small one with a full W `(n, n)`, for d `(batch, inputs)`, in the default dtype; `skew` multiplies B, and with it mostly ‖W‖."""
    torch.manual_seed(seed)
    R = Step(Dense(n, m, skew=skew), kind, alpha)
    return ImplicitNetwork(
        nn.Linear(inputs, n), R, Read(R, n, classes=3), solver=solver, gradient=gradient, on_unconverged="raise"
    )


class Measures(NamedTuple):
    """How large a W is.

    Attributes:
        norm: ‖W‖₂; above 1 the plain step need not contract.
        one_sided: the largest eigenvalue of the symmetric part of W, at most 1 − m.
        lipschitz: L = ‖I − W‖₂; forward–backward contracts for α below 2(1 − one_sided)/L².
        radius: the largest |eigenvalue| of W.
        real: the largest real part of an eigenvalue of W.
    """

    norm: float
    one_sided: float
    lipschitz: float
    radius: float
    real: float

    @property
    def largest_alpha(self) -> float:
        """2(1 − one_sided)/L², below which the forward–backward step is sure to contract."""
        return 2 * (1 - self.one_sided) / self.lipschitz**2


@torch.no_grad()
def measures(W: Monotone) -> Measures:
    """Exact, in float64: on a torus the matrices of the frequencies have all of W's singular values and eigenvalues."""
    M = W.matrices()
    M = M.to(torch.promote_types(M.dtype, torch.float64))
    identity = torch.eye(M.shape[-1], dtype=M.dtype)
    values = torch.linalg.eigvals(M)

    def norm(X: Tensor) -> float:
        return torch.linalg.matrix_norm(X, 2).max().item()

    one_sided = torch.linalg.eigvalsh((M + M.mH) / 2).max().item()
    return Measures(norm(M), one_sided, norm(identity - M), values.abs().max().item(), values.real.max().item())


def tuned(network: ImplicitNetwork, d: Tensor, *, largest: float = 1.0, smallest: float = 1e-3) -> float:
    """The α with the fewest steps of the network's solver on d, among `largest`, half of that, a quarter and so on; it is set.

    As in the published code (`train.py`, `run_tune_alpha`): halved for as long as the steps do not become more.

    Raises:
        RuntimeError: with no α do all samples come to rest.
    """
    step: Step = network.R
    own, best, fewest = step.alpha, 0.0, float("inf")
    alpha = largest
    while alpha >= smallest:
        step.alpha = alpha
        try:
            found = network.solve(d)
            steps = float(found.steps.max()) if found.converged.all() else float("inf")
        except FloatingPointError:
            steps = float("inf")
        if steps > fewest:
            break
        if steps < float("inf"):
            best, fewest = alpha, steps
        alpha /= 2
    step.alpha = best or own
    if not best:
        raise RuntimeError(
            f"no α between {smallest:g} and {largest:g} brings all samples to rest; raise max_steps or tol"
        )
    return best
