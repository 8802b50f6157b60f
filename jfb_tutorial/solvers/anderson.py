"""Anderson acceleration: fewer evaluations of T for more work and memory around each.

Every sample is treated on its own, with small batched matrices; T is still called with the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._checks import check_integer, check_positive, store
from .iteration import FixedPointIteration, Monitor, Solution, eager, evaluate, rows

__all__ = ["Anderson"]


@dataclass(frozen=True)
class Anderson(FixedPointIteration):
    """Anderson acceleration, D. G. Anderson (1965), in the form of Walker and Ni (2011).

    With f = T(u) − u, and ΔF, ΔU the last `memory` differences of f and u, the next point is

        T(u) − (ΔU + ΔF) γ, where γ minimises ‖f − ΔF γ‖₂,

    the fixed point of the affine map that agrees with T at the remembered points, as far as they determine it. On an
    affine T, with memory for every step, it is equivalent to GMRES in exact arithmetic. Where T couples its samples
    strongly, weights for each sample on its own can make it slower than plain iteration. `tol`, `max_steps`, `relative`
    and `check_every` mean what they mean for `FixedPointIteration`. The residual may rise and fall on the way: a sample that
    misses the tolerance at the last evaluation gets T(u) of the check at which it came nearest to it, see `Solution`.

    Args:
        memory: number of differences kept, at least 1; each costs two copies of the latent.
        regularization: added to the diagonal of ΔFᵀΔF, relative to its mean; 0 < it < 1. None takes 1e-10 for float64
            and 1e-6 otherwise.
    """

    memory: int = 5
    regularization: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        store(self, memory=check_integer("memory", self.memory, 1, "5 is the default"))
        if self.regularization is not None:
            remedy = "None chooses by precision"
            store(self, regularization=check_positive("regularization", self.regularization, remedy, below=1))

    @eager
    @torch.no_grad()
    def __call__(self, T: Callable[[Tensor], Tensor], u0: Tensor) -> Solution:
        """Iterate from `u0`; arguments and errors as for `FixedPointIteration`."""
        monitor = Monitor(self, u0, keep_best=True)
        u, work = u0.detach(), torch.promote_types(u0.dtype, torch.float32)
        history = _History(rows(u).to(work), self.memory, self._regularization(work))
        for _ in range(self.max_steps):
            v = evaluate(T, u)
            if monitor.finished(u, v):
                break
            flat = rows(v).to(work)
            history.append(flat - rows(u).to(work), flat)
            u = history.extrapolate().to(u0.dtype).reshape(u0.shape)
        return monitor.solution(v)

    def _regularization(self, work: torch.dtype) -> float:
        # the normal equations square the condition: beyond about √eps of a column's size, differences are noise
        return self.regularization or (1e-10 if work == torch.float64 else 1e-6)


class _History:
    """The last differences of f = T(u) − u and of v = T(u) = u + f, `(batch, memory, n)` each, oldest overwritten first."""

    def __init__(self, start: Tensor, memory: int, regularization: float) -> None:
        self.memory, self.regularization = memory, regularization
        self.points = 0
        self.F, self.V = (start.new_empty(len(start), memory, start.shape[1]) for _ in range(2))
        self.f = self.v = start  # of the latest point; until there is one, of no meaning

    def append(self, f: Tensor, v: Tensor) -> None:
        """One more point, with its f and v, `(batch, n)`."""
        if self.points:
            # in place of the oldest: the order of the columns plays no part in the least-squares problem
            slot = (self.points - 1) % self.memory
            torch.sub(f, self.f, out=self.F[:, slot])
            torch.sub(v, self.v, out=self.V[:, slot])
        self.f, self.v = f, v
        self.points += 1

    def extrapolate(self) -> Tensor:
        """v − ΔV γ, `(batch, n)`, with the γ that minimises ‖f − ΔF γ‖₂; v itself, a plain step, at the first point."""
        number = min(self.points - 1, self.memory)
        if number == 0:
            return self.v
        F, V = self.F[:, :number], self.V[:, :number]
        # by the normal equations, of `memory` unknowns: a batched QR of (n, memory) would be many times slower
        gram = F @ F.mT
        diagonal = gram.diagonal(dim1=1, dim2=2)  # a view: what is added to it is added to gram
        # `tiny` keeps the matrix of a sample that no longer moves, all zeros, from being singular: its γ is then 0
        diagonal += diagonal.mean(dim=1, keepdim=True) * self.regularization + torch.finfo(gram.dtype).tiny
        # solve_ex, since solve reads from the device whether a matrix is singular; what a sample has then shows in its residual
        gamma, _ = torch.linalg.solve_ex(gram, F @ self.f[:, :, None])
        return self.v - (gamma.mT @ V)[:, 0]
