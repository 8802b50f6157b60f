"""Neural ordinary differential equations (Chen et al. 2018), plain and augmented (Dupont, Doucet and Teh 2019).

A network whose depth is a time: the state starts at u(0) = Q(d), moves with the speed u'(t) = f(u(t), t), and u(1) is read by S. In the
language of this book it is an implicit network whose unknown is the whole path, with one part for each time:

    R(u, q)(t) = q + ∫₀ᵗ f(u(s), s) ds,                                  `Picard`

the map of Picard and Lindelöf. Its J is lower triangular in time, with zeros on the diagonal: the spectral radius is 0 whatever f is, the norm
may be anything, and the adjoint equation w (I − J) = g is the adjoint ODE, solved from the last time to the first.

The network for MNIST follows the published code (EmilienDupont/augmented-neural-odes, commit 175c4d6, `anode/conv_models.py`): f is a 1×1, a 3×3 and
a 1×1 convolution with relu between, each of which sees the time as one more channel; dopri5 at a tolerance of 1e-3 (Dormand and Prince's method,
whose steps are as long as the tolerance allows), the adjoint method; augmenting adds channels of zeros to the picture. The solver is torchdiffeq's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._blocks import Normalise
from .._checks import check_flag, check_integer, check_positive
from ..gradients import JFB
from ..network import ImplicitNetwork
from ..solvers import FixedPointIteration

__all__ = ["Augment", "Convolutions", "NeuralODE", "Perceptron", "Picard", "integrate", "network", "picard_network"]

FILTERS = {0: 88, 5: 48}
"""With pictures folded 4×4, by the channels of zeros added to a picture: 81,450 and 77,770 parameters. Published are 92 and 64, without folding."""


def integrate(
    field: Callable[[Tensor, Tensor], Tensor],
    u: Tensor,
    *,
    tol: float = 1e-3,
    adjoint: bool = False,
    adjoint_tol: float | None = None,
    method: str = "dopri5",
    steps: int | None = None,
    times: Tensor | None = None,
) -> Tensor:
    """u(1) of u' = f(t, u), u(0) = u, by torchdiffeq.

    Args:
        field: called as field(t, u); for the adjoint method an `nn.Module`, whose parameters get gradients.
        u: `(batch, *state)`.
        tol: of the error that the solver estimates for a step, relative and absolute.
        adjoint: the gradient by the adjoint method, which keeps u(1) alone, and solves backwards for the path again together with the
            adjoint; otherwise by backpropagation through the steps that the solver took.
        adjoint_tol: of that second solve; `tol` if not given.
        method: of torchdiffeq.
        steps: of equal length, for a method that takes such: "rk4", "midpoint" or "euler"; `tol` plays no part then.
        times: `(k,)`, increasing from 0: the path `(k, batch, *state)` at these times is returned instead.

    Raises:
        ModuleNotFoundError: torchdiffeq is not installed.
        ValueError, TypeError: bad settings.
    """
    tol = check_positive("tol", tol, "1e-3 is the published choice")
    back = tol if adjoint_tol is None else check_positive("adjoint_tol", adjoint_tol, "as small as tol, or smaller")
    check_flag("adjoint", adjoint)
    try:
        import torchdiffeq
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            'torchdiffeq is not installed, and solves the ODEs; pip install "jfb_tutorial[notebooks]"'
        ) from None
    at = torch.tensor([0.0, 1.0], dtype=u.dtype, device=u.device) if times is None else times
    settings: dict[str, Any] = {"rtol": tol, "atol": tol, "method": method}
    if steps is not None:
        settings["options"] = {"step_size": 1 / check_integer("steps", steps, 1, "more are more accurate")}
    if adjoint:
        path = torchdiffeq.odeint_adjoint(field, u, at, adjoint_rtol=back, adjoint_atol=back, **settings)
    else:
        path = torchdiffeq.odeint(field, u, at, **settings)
    return path[-1] if times is None else path


class WithTime(nn.Module):
    """A convolution that sees the time as one more channel, the same in all pixels.

    That channel has a kernel of its own here, and is applied to one picture instead of a batch, which gives the same numbers in less time.
    """

    def __init__(self, inner: int, outer: int, side: int) -> None:
        super().__init__()
        # made as the one layer that it is, so that its weights start as those of `inner + 1` channels do
        whole = nn.Conv2d(inner + 1, outer, side)
        self.of_time, self.weight = (
            nn.Parameter(whole.weight[:, :1].detach()),
            nn.Parameter(whole.weight[:, 1:].detach()),
        )
        self.bias, self.frame = whole.bias, side // 2

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        """`(batch, inner, *)` to `(batch, outer, *)`."""
        time = F.conv2d(t.expand(1, 1, *u.shape[2:]), self.of_time, self.bias, padding=self.frame)
        return F.conv2d(u, self.weight, padding=self.frame) + time


class Convolutions(nn.Module):
    """f: three convolutions, 1×1, 3×3 and 1×1, each with the time as one more channel; u `(batch, channels, side, side)`.

    Attributes:
        evaluations: how often it was called.
    """

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.one, self.two = WithTime(channels, filters, 1), WithTime(filters, filters, 3)
        self.three = WithTime(filters, channels, 1)
        self.evaluations = 0

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        """The speed, like u."""
        self.evaluations += 1
        h = F.relu(self.one(t, u), inplace=True)
        h = F.relu(self.two(t, h), inplace=True)
        return self.three(t, h)


class Perceptron(nn.Module):
    """f(t, u) = V tanh(Wu + a t + b), u `(batch, n)`: a small and smooth one, for the plane and for tests."""

    def __init__(self, n: int, hidden: int = 16, strength: float = 1.0) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(n + 1, hidden), nn.Linear(hidden, n, bias=False)
        with torch.no_grad():
            self.one.weight.mul_(strength)
        self.evaluations = 0

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        """The speed, like u."""
        self.evaluations += 1
        return self.two(torch.tanh(self.one(torch.cat([t.expand_as(u[:, :1]), u], dim=1))))


class Augment(nn.Module):
    """Adds `channels` channels of zeros to each picture: room for paths to pass one another."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = check_integer("channels", channels, 0, "0 adds none")

    def forward(self, d: Tensor) -> Tensor:
        """`(batch, c, *)` to `(batch, c + channels, *)`."""
        return torch.cat([d, d.new_zeros(len(d), self.channels, *d.shape[2:])], dim=1)


class NeuralODE(nn.Module):
    """S(u(1)), u' = f(t, u), u(0) = Q(d).

    Args:
        Q: from data to the state at time 0.
        field: f, which counts its `evaluations`.
        S: from the state at time 1 to what is wanted.
        settings: those of `integrate`.
    """

    def __init__(self, Q: nn.Module, field: nn.Module, S: nn.Module, **settings: Any) -> None:
        super().__init__()
        self.Q, self.field, self.S, self.settings = Q, field, S, settings

    def forward(self, d: Tensor) -> Tensor:
        """What S makes of u(1)."""
        return self.S(integrate(self.field, self.Q(d), **self.settings))


def network(
    seed: int,
    *,
    augment: int = 0,
    filters: int | None = None,
    fold: int = 4,
    adjoint: bool = True,
    tol: float = 1e-3,
    adjoint_tol: float | None = None,
) -> NeuralODE:
    """The untrained network for MNIST: the state is the picture itself, for the augmented one with `augment` channels of zeros.

    Args:
        seed: of the weights.
        augment: channels of zeros added to the picture; 5 as published.
        filters: width of f; by default what gives 83 thousand parameters. As published, with `fold=1`: 92, or 64 with `augment=5`, and 85,316 or
            85,462 parameters.
        fold: 1, 2 or 4: squares of fold × fold pixels become channels, after augmenting, so that the state has the same numbers, in 28/fold × 28/fold
            places, and an evaluation of f costs fold² times less; 1 as published.
        adjoint: whether the gradient is the adjoint method's, as published, or that of backpropagation through the solver.
        tol: see `integrate`.
        adjoint_tol: see `integrate`.

    Raises:
        ValueError: bad settings.
    """
    if fold not in (1, 2, 4):
        raise ValueError(f"fold must be 1, 2 or 4, got {fold}; 1 leaves the picture as it is")
    if filters is None:
        if augment not in FILTERS:
            raise ValueError(f"filters must be given with augment={augment}; 64 is the published width for 5")
        filters = FILTERS[augment]
    torch.manual_seed(seed)
    channels = (1 + augment) * fold**2
    Q = nn.Sequential(Normalise((0.1307,), (0.3081,), 28), Augment(augment), nn.PixelUnshuffle(fold))
    S = nn.Sequential(nn.Flatten(), nn.Linear((1 + augment) * 784, 10))
    return NeuralODE(Q, Convolutions(channels, filters), S, adjoint=adjoint, tol=tol, adjoint_tol=adjoint_tol)


class Picard(nn.Module):
    """R of a neural ODE: from a path to that of the speeds along it, R(u, q)ₖ = q + h Σ_{j<k} f(tⱼ, uⱼ), h = 1/steps.

    The state is `(batch, steps + 1, *state)`, at the times 0, h, …, 1, and q is u(0), repeated. Its fixed point is Euler's path, and k applications
    have the first k steps of it right.

    Args:
        field: f.
        steps: of Euler's method.
    """

    def __init__(self, field: nn.Module, steps: int) -> None:
        super().__init__()
        self.field = field
        self.steps = check_integer("steps", steps, 1, "more are more accurate")

    def forward(self, u: Tensor, q: Tensor) -> Tensor:
        """One application, `(batch, steps + 1, *state)`."""
        times = torch.arange(self.steps, dtype=u.dtype, device=u.device) / self.steps
        speeds = torch.stack([self.field(t, u[:, k]) for k, t in enumerate(times)], dim=1)
        way = speeds.cumsum(dim=1) / self.steps
        return q + torch.cat([torch.zeros_like(way[:, :1]), way], dim=1)


class Start(nn.Module):
    """Q: u(0) at all times."""

    def __init__(self, Q: nn.Module, steps: int) -> None:
        super().__init__()
        self.Q, self.steps = Q, steps

    def forward(self, d: Tensor) -> Tensor:
        """`(batch, steps + 1, *state)`."""
        q = self.Q(d)
        return q.unsqueeze(1).expand(-1, self.steps + 1, *q.shape[1:]).contiguous()


class End(nn.Module):
    """S: what is read from the last time."""

    def __init__(self, S: nn.Module) -> None:
        super().__init__()
        self.S = S

    def forward(self, u: Tensor) -> Tensor:
        """From `(batch, steps + 1, *state)`."""
        return self.S(u[:, -1])


def picard_network(
    Q: nn.Module,
    field: nn.Module,
    S: nn.Module,
    *,
    steps: int = 20,
    gradient: Callable[..., Tensor] = JFB(),  # noqa: B008
) -> ImplicitNetwork:
    """A neural ODE as the implicit network that it is, by Euler's method; every backward rule of the package works on it."""
    solver = FixedPointIteration(tol=1e-12, max_steps=steps + 2, relative=True)
    return ImplicitNetwork(
        Start(Q, steps), Picard(field, steps), End(S), solver=solver, gradient=gradient, on_unconverged="warn"
    )
