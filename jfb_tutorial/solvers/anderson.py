"""Anderson acceleration: fewer evaluations of T for more work and memory around each.

Every sample is treated on its own, with small batched matrices; T is still called with the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._checks import integer, positive
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
    and `check_every` mean what they mean for `FixedPointIteration`, and so does what is returned: T(u) of the last
    evaluation.

    Args:
        memory: number of differences kept, at least 1; each costs two copies of the latent.
        regularization: added to the diagonal of ΔFᵀΔF, relative to its mean; 0 < it < 1. None takes 1e-10 for float64
            and 1e-6 otherwise.
    """

    memory: int = 5
    regularization: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("memory", self.memory, 1, "5 is the default")
        if self.regularization is not None:
            positive("regularization", self.regularization, "None chooses by precision")

    @eager
    @torch.no_grad()
    def __call__(self, T: Callable[[Tensor], Tensor], u0: Tensor) -> Solution:
        """Iterate from `u0`; arguments and errors as for `FixedPointIteration`."""
        monitor = Monitor(self, u0)
        u, work = u0.detach(), torch.promote_types(u0.dtype, torch.float32)
        small = self.regularization or (1e-10 if work == torch.float64 else 1e-6)
        # the last differences of f and of T(u) = u + f, oldest overwritten first: (batch, memory, n)
        F = V = f_old = v_old = None
        for step in range(self.max_steps):
            v = evaluate(T, u)
            if monitor.finished(u, v):
                break
            flat = rows(v).to(work)
            f, new = flat - rows(u).to(work), flat
            if step == 0:
                F, V = (flat.new_empty(len(flat), self.memory, flat.shape[1]) for _ in range(2))
            else:
                slot, kept = (step - 1) % self.memory, min(step, self.memory)
                torch.sub(f, f_old, out=F[:, slot])
                torch.sub(flat, v_old, out=V[:, slot])
                gram = F[:, :kept] @ F[:, :kept].mT
                diagonal = gram.diagonal(dim1=1, dim2=2)
                diagonal += diagonal.mean(dim=1, keepdim=True) * small + torch.finfo(work).tiny
                gamma = torch.linalg.solve(gram, F[:, :kept] @ f[:, :, None])
                new = flat - (gamma.mT @ V[:, :kept])[:, 0]
            f_old, v_old = f, flat
            u = new.to(u0.dtype).reshape(u0.shape)
        return monitor.solution(v)
