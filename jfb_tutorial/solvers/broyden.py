"""Broyden's method, with limited memory, for every sample on its own; T is still called with the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._checks import integer
from .iteration import FixedPointIteration, Monitor, Solution, eager, evaluate, rows

__all__ = ["Broyden"]


@dataclass(frozen=True)
class Broyden(FixedPointIteration):
    """Broyden's (good) method for f(u) = T(u) − u = 0, C. G. Broyden (1965), with limited memory.

    It keeps B ≈ (df/du)⁻¹ as −I plus `memory` rank-one terms for every sample, starts from −I, which makes its first step
    the plain T(u), and after each step s with the change y of f corrects B so that B y = s. When the memory is full, and
    for a sample whose residual exceeds a hundred times its smallest so far, it starts again from −I. Where two memories in
    a row full of steps have not made the residual of the batch smaller by a tenth, plain steps do the rest. That happens
    when T couples its samples strongly, since every sample blames its own step for what the others did to it. So on a
    contraction the method converges in any case. `tol`, `max_steps`, `relative` and `check_every` mean what they mean for
    `FixedPointIteration`, and so does what is returned.

    Args:
        memory: number of rank-one terms before a new start, at least 1; each costs two copies of the latent.
    """

    memory: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("memory", self.memory, 1, "20 is the default")

    @eager
    @torch.no_grad()
    def __call__(self, T: Callable[[Tensor], Tensor], u0: Tensor) -> Solution:
        """Iterate from `u0`; arguments and errors as for `FixedPointIteration`."""
        monitor = Monitor(self, u0)
        u, work = u0.detach(), torch.promote_types(u0.dtype, torch.float32)
        left = right = f_old = s = best = None  # B = −I + Σ left rightᵀ; left, right: (batch, memory, n)
        kept, failures, smallest = 0, 0, None
        for step in range(self.max_steps):
            v = evaluate(T, u)
            if monitor.finished(u, v):
                break
            f = rows(v).to(work) - rows(u).to(work)
            size = f.norm(dim=1, keepdim=True)
            if step == 0:
                left, right = (f.new_empty(len(f), self.memory, f.shape[1]) for _ in range(2))
                best, s, smallest = size, f, f.norm()
            elif failures > 1:
                s = f
            else:
                y = f - f_old
                if kept == self.memory:
                    kept, By, sB, Bf = 0, -y, -s, -f
                    failures = failures + 1 if f.norm() > 0.9 * smallest else 0
                    smallest = torch.minimum(smallest, f.norm())
                else:
                    By, sB = _apply(left[:, :kept], right[:, :kept], y), _apply(right[:, :kept], left[:, :kept], s)
                    Bf = By - s  # since s = −B f_old
                pivot = (sB * y).sum(dim=1, keepdim=True)
                # a sample that no longer moves, or whose pivot is noise, keeps the B it has
                noise = torch.finfo(work).eps * sB.norm(dim=1, keepdim=True) * y.norm(dim=1, keepdim=True)
                steady = pivot.abs() <= noise
                column = torch.where(steady, 0.0, (s - By) / torch.where(steady, 1.0, pivot))
                left[:, kept], right[:, kept] = column, sB
                kept += 1
                s = -(Bf + column * (sB * f).sum(dim=1, keepdim=True))
                # a sample that has gone astray starts again from B = −I, a plain step
                astray = size > 100 * best
                if astray.any():
                    left[:, :kept].masked_fill_(astray[:, :, None], 0.0)
                    s = torch.where(astray, f, s)
                best = torch.minimum(best, size)
            f_old = f
            u = (rows(u).to(work) + s).to(u0.dtype).reshape(u0.shape)
        return monitor.solution(v)


def _apply(left: Tensor, right: Tensor, x: Tensor) -> Tensor:
    """(−I + Σ left rightᵀ) x for every sample."""
    return ((right @ x[:, :, None]).mT @ left)[:, 0] - x
