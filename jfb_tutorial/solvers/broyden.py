"""Broyden's method, with limited memory, for every sample on its own; T is still called with the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._checks import check_integer, store
from .iteration import FixedPointIteration, Monitor, Solution, eager, evaluate, rows

__all__ = ["Broyden"]

ASTRAY = 100.0
"""A sample whose residual exceeds its smallest so far by this factor starts again. Broyden's residuals may well rise by ten
before they fall; a hundred is rarely made good."""
PROGRESS = 0.9
"""A full memory must have brought the batch's residual below this part of the smallest at earlier such times."""
PATIENCE = 1
"""Full memories in a row without progress that are put up with; after one more, plain steps do the rest."""


@dataclass(frozen=True)
class Broyden(FixedPointIteration):
    """Broyden's (good) method for f(u) = T(u) − u = 0, C. G. Broyden (1965), with limited memory.

    It keeps B ≈ (df/du)⁻¹ as −I plus `memory` rank-one terms for every sample, starts from −I, which makes its first step
    the plain T(u), and after each step s with the change y of f corrects B so that B y = s. When the memory is full, and
    for a sample whose residual exceeds a hundred times its smallest so far, it starts again from −I. Where two memories in
    a row full of steps have not made the residual of the batch smaller by a tenth, plain steps do the rest. That happens
    when T couples its samples strongly, since every sample blames its own step for what the others did to it. So on a
    contraction the method converges in any case. `tol`, `max_steps`, `relative` and `check_every` mean what they mean for
    `FixedPointIteration`. The residual may rise and fall on the way: a sample that misses the tolerance at the last evaluation
    gets T(u) of the check at which it came nearest to it, see `Solution`.

    Args:
        memory: number of rank-one terms before a new start, at least 1; each costs two copies of the latent.
    """

    memory: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        store(self, memory=check_integer("memory", self.memory, 1, "20 is the default"))

    @eager
    @torch.no_grad()
    def __call__(self, T: Callable[[Tensor], Tensor], u0: Tensor) -> Solution:
        """Iterate from `u0`; arguments and errors as for `FixedPointIteration`."""
        monitor = Monitor(self, u0, keep_best=True)
        u, work = u0.detach(), torch.promote_types(u0.dtype, torch.float32)
        B, progress = _Inverse(rows(u).to(work), self.memory), _Progress()
        s = f_old = rows(u).to(work)  # before the first step, of no meaning
        for step in range(self.max_steps):
            v = evaluate(T, u)
            if monitor.finished(u, v):
                break
            f = rows(v).to(work) - rows(u).to(work)
            if step == 0:
                progress.begin(f)
                s = f  # −B f with B = −I: a plain step
            elif progress.given_up:
                s = f
            else:
                if B.full:
                    # judged at full memories only: on the way the residuals rise and fall
                    progress.judge(f)
                    B.restart()
                s = -B.update(s, f - f_old, f)
                astray = progress.astray(f)
                # on a GPU to look whether any is takes longer than to do it for none
                if astray.device.type != "cpu" or astray.any():
                    B.restart_samples(astray)
                    s = torch.where(astray, f, s)  # −B f with B = −I again
            f_old = f
            u = (rows(u).to(work) + s).to(u0.dtype).reshape(u0.shape)
        return monitor.solution(v)


class _Inverse:
    """B ≈ (df/du)⁻¹ of every sample, as −I + Σ left rightᵀ; left and right are `(batch, memory, n)`, of which `terms` count."""

    def __init__(self, start: Tensor, memory: int) -> None:
        self.left, self.right = (start.new_empty(len(start), memory, start.shape[1]) for _ in range(2))
        self.terms = 0
        self.restarted = False

    @property
    def full(self) -> bool:
        """Whether there is room for no further term."""
        return self.terms == self.left.shape[1]

    def apply(self, x: Tensor) -> Tensor:
        """B x, `(batch, n)`."""
        return _minus_identity_plus(self.left[:, : self.terms], self.right[:, : self.terms], x)

    def apply_transposed(self, x: Tensor) -> Tensor:
        """Bᵀ x, `(batch, n)`."""
        return _minus_identity_plus(self.right[:, : self.terms], self.left[:, : self.terms], x)

    def update(self, s: Tensor, y: Tensor, f: Tensor) -> Tensor:
        """Correct B by (s − B y)(sᵀB) / (sᵀB y), so that B y = s, and return B f for the new B; all `(batch, n)`.

        s is the step that was just made, y the change of f along it, f its new value.
        """
        By, sB = self.apply(y), self.apply_transposed(s)
        # the step was s = −B f_old, so that B f = B y + B f_old = B y − s; a B that has been restarted did not make it
        Bf = -f if self.restarted else By - s
        pivot = (sB * y).sum(dim=1, keepdim=True)
        # a sample that no longer moves, or whose pivot is noise, keeps the B it has
        noise = torch.finfo(y.dtype).eps * sB.norm(dim=1, keepdim=True) * y.norm(dim=1, keepdim=True)
        steady = pivot.abs() <= noise
        column = torch.where(steady, 0.0, (s - By) / torch.where(steady, 1.0, pivot))
        self.left[:, self.terms], self.right[:, self.terms] = column, sB
        self.terms += 1
        self.restarted = False
        return Bf + column * (sB * f).sum(dim=1, keepdim=True)

    def restart(self) -> None:
        """B = −I for all samples; the memory is empty."""
        self.terms, self.restarted = 0, True

    def restart_samples(self, samples: Tensor) -> None:
        """B = −I for some samples, `(batch, 1)` bool, whose terms become zero; the others keep theirs."""
        # left rightᵀ with left = 0 is 0, whatever is in right
        self.left[:, : self.terms].masked_fill_(samples[:, :, None], 0.0)


class _Progress:
    """When Broyden's method starts again, and when it is given up: the policies of the restarts, from the residuals."""

    def __init__(self) -> None:
        # of no meaning before `begin`
        self.smallest = self.smallest_of_batch = torch.empty(0)
        self.failures = 0

    def begin(self, f: Tensor) -> None:
        """The first f, `(batch, n)`."""
        self.smallest, self.smallest_of_batch = f.norm(dim=1, keepdim=True), f.norm()

    def judge(self, f: Tensor) -> None:
        """A full memory is a trial: count those in a row that have not brought the batch forward."""
        missing = f.norm()
        self.failures = self.failures + 1 if missing > PROGRESS * self.smallest_of_batch else 0
        self.smallest_of_batch = torch.minimum(self.smallest_of_batch, missing)

    @property
    def given_up(self) -> bool:
        """Whether plain steps do the rest."""
        return self.failures > PATIENCE

    def astray(self, f: Tensor) -> Tensor:
        """`(batch, 1)` bool: samples that are far worse than they have been. It remembers how good they have been."""
        size = f.norm(dim=1, keepdim=True)
        astray = size > ASTRAY * self.smallest
        self.smallest = torch.minimum(self.smallest, size)
        return astray


def _minus_identity_plus(left: Tensor, right: Tensor, x: Tensor) -> Tensor:
    """(−I + Σ left rightᵀ) x for every sample."""
    # (batch, terms, n) by (batch, n, 1), then (batch, 1, terms) by (batch, terms, n): never an n × n matrix
    return ((right @ x[:, :, None]).mT @ left)[:, 0] - x
