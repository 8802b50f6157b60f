"""Plain fixed point iteration, and what every solver needs: evaluating T, reading residuals, stopping, reporting."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .._checks import check_flag, check_image, check_integer, check_latent, check_positive, store

__all__ = ["FixedPointIteration", "Solution"]

eager = torch.compiler.disable(recursive=False, reason="loops that depend on the data; leave out fullgraph=True")
"""For what torch.compile is to leave as it is, loops that depend on the data above all, while the T called there is compiled."""


# eq=False: tensors compare element by element, which has no truth value
@dataclass(frozen=True, repr=False, eq=False)
class Solution:
    """What a solver found.

    A sample that met the tolerance at the last evaluation gets T(u) of that evaluation. One that did not gets it from
    `FixedPointIteration` as well, but from `Anderson` and `Broyden`, whose residuals rise and fall, T(u) of the check at
    which it came nearest to the tolerance. Where T couples the samples, rows of several evaluations then stand side by side in
    `u`: each was good in the batch that it comes from, and `residual` need not be that of the batch so put together.

    Attributes:
        u: `(batch, *latent)`, T(u) as said above; no graph. It may share memory with the tensor that T returned last.
        residuals: `(checks, batch)`, ‖T(u) − u‖₂ of each sample at each check, in u's dtype (float32 at least).
        steps: `(batch,)` int64, evaluations of T until the sample first met the tolerance, else their total.
        converged: `(batch,)` bool, whether the sample met the tolerance at the last evaluation.
        all_converged: whether every sample did, as the solver knows it without another read of the device; None from a solver
            that does not say.
    """

    u: Tensor
    residuals: Tensor
    steps: Tensor
    converged: Tensor
    all_converged: bool | None = None
    _residual: Tensor | None = None  # what `residual` is; None stands for residuals[-1]

    @classmethod
    def _found(cls, monitor: Monitor, u: Tensor, residual: Tensor) -> Solution:
        """One of which the tables are made when they are first asked for: a training step that asks for none need not wait."""
        solution = cls.__new__(cls)
        vars(solution).update(u=u, all_converged=monitor.all_converged, _residual=residual, _monitor=monitor)
        return solution

    if not TYPE_CHECKING:  # for a type checker these are fields like the others, and there are no more

        def __getattr__(self, name: str) -> Tensor:
            # called only for what the object has not got: the tables, which may wait for a monitor to make them
            if name not in ("residuals", "steps", "converged") or "_monitor" not in vars(self):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            residuals, steps, converged = vars(self)["_monitor"].tables()
            vars(self).update(residuals=residuals, steps=steps, converged=converged)
            del vars(self)["_monitor"]
            return vars(self)[name]

    def __getstate__(self) -> dict[str, object]:
        """What is copied and pickled: the fields."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def residual(self) -> Tensor:
        """`(batch,)`, ‖T(u) − u‖₂ of each sample at the evaluation whose T(u) is returned, hence one of its `residuals`.

        The residual of the returned T(u) itself would take one more evaluation.
        """
        return self.residuals[-1] if self._residual is None else self._residual

    def __repr__(self) -> str:
        samples = len(self.steps)
        if not samples:
            return "Solution(no samples)"
        low, high = int(self.steps.min()), int(self.steps.max())
        steps = f"{high}" if low == high else f"{low} to {high}"
        return (
            f"Solution({int(self.converged.sum())} of {samples} samples converged, {steps} steps, "
            f"largest residual {self.residual.max():.1e})"
        )


@dataclass(frozen=True)
class FixedPointIteration:
    """Plain iteration u ← T(u), JFB (10) and Algorithm 1.

    The residual of a sample is ‖T(u) − u‖₂ over its latent coordinates. It is read every `check_every` evaluations and at
    the last; the loop ends at the first check at which every sample meets the tolerance, or after `max_steps`
    evaluations. Algorithm 1 then returns u; we return T(u), which has been computed anyway, of the last evaluation, converged
    or not. For a γ-contraction its own residual is at most γ times the one read last, and its distance from the fixed point at
    most γ/(1−γ) times. Where T is no contraction neither need hold, and a residual below the tolerance does not prove that
    there is a fixed point.

    Args:
        tol: tolerance on the residual, > 0; a sample meets it when residual ≤ tol.
        max_steps: largest number of evaluations of T, at least 1.
        relative: compare the residual with tol · ‖T(u)‖₂ instead.
        check_every: evaluations between two checks; with 0, all `max_steps` evaluations are made and the residual is read
            once, after the last.
    """

    tol: float = 1e-4
    max_steps: int = 50
    relative: bool = False
    check_every: int = 1

    def __post_init__(self) -> None:
        store(
            self,
            tol=check_positive("tol", self.tol, "1e-4 is the usual choice in float32"),
            max_steps=check_integer("max_steps", self.max_steps, 1, "50 is the default"),
            relative=check_flag("relative", self.relative),
            check_every=check_integer("check_every", self.check_every, 0, "1 checks every evaluation, 0 only the last"),
        )

    @eager
    @torch.no_grad()
    def __call__(self, T: Callable[[Tensor], Tensor], u0: Tensor) -> Solution:
        """Iterate from `u0`.

        Args:
            T: maps `(batch, *latent)` to the same shape, dtype and device, and leaves its argument as it is.
            u0: `(batch, *latent)`, floating point.

        Raises:
            FloatingPointError: a residual is not finite; the message names the step and the samples.
            TypeError: `u0` is not a floating-point tensor, or T returns another type or dtype (inside autocast T(u) is
                cast to u's dtype instead).
            ValueError: `u0` has no batch dimension, T changes the shape or the device, writes into its argument, or returns the
                memory that it returned before.
        """
        monitor = Monitor(self, u0)
        u = u0.detach()
        for _ in range(self.max_steps):
            v = evaluate(T, u)
            if monitor.finished(u, v):
                break
            u = v
        return monitor.solution(v)


class Monitor:
    """Reads residuals, decides when to stop, and makes the Solution; what all solvers share.

    Args:
        solver: whose tolerance and limits hold.
        u0: `(batch, *latent)`, where it starts.
        keep_best: what is returned for a sample that misses the tolerance at the end: T(u) of its best check, of which a copy
            is kept, or of the last.
    """

    @eager
    def __init__(self, solver: FixedPointIteration, u0: Tensor, *, keep_best: bool = False) -> None:
        check_latent("u0", u0)
        self.solver = solver
        self.step = 0
        self.tol: float | None = None  # in the dtype of the residuals, which the first one tells
        self.residuals: list[Tensor] = []
        # what is compared with `tol`, or where it is relative, by how much the residual exceeds tol ‖T(u)‖₂, compared with 0
        self.excess: list[Tensor] = [] if solver.relative else self.residuals
        self.best = _Best() if keep_best else None
        self.all_converged = False

    @eager
    def finished(self, u: Tensor, v: Tensor) -> bool:
        """Whether to stop, after one more evaluation v = T(u)."""
        self.step += 1
        solver, last = self.solver, self.step == self.solver.max_steps
        if not last and (not solver.check_every or self.step % solver.check_every):
            return False
        residual = excess = sample_norm(v, u)
        if self.tol is None:
            self.tol = _rounded(solver.tol, residual.dtype)
        self.residuals.append(residual)
        size, tol = None, self.tol
        if solver.relative:
            size = sample_norm(v)
            excess, tol = torch.sub(residual, size, alpha=tol), 0.0
            self.excess.append(excess)
        # the one read of the device; max() hands on NaN and inf. Which samples met the tolerance is asked once, at the end
        try:
            worst = excess.max().item() if excess.numel() else 0.0
        except RuntimeError as error:
            # PyTorch's words, in several sentences
            if "vmap" not in str(error):
                raise
            raise RuntimeError(
                "a solver cannot run inside vmap, where it may not read its residuals to stop; call it with the whole batch, or take "
                "the rule Unrolled, for which a network makes no solve"
            ) from error
        if not math.isfinite(worst):
            _raise_not_finite(u, v, residual, self.step)
        self.all_converged = worst <= tol
        # where all have met the tolerance, this v is returned as it is, and no copy is made of it
        if not self.all_converged and self.best is not None:
            self.best.see(v, residual, size)
        return self.all_converged or last

    @eager
    def solution(self, v: Tensor) -> Solution:
        """What the loop found, with v = T(u) of the last evaluation."""
        u, residual = v, self.residuals[-1]
        if self.best is not None and self.best.seen_at == len(self.residuals):  # the last check was not met by all
            u, residual = self.best.unless(self._met(self.excess[-1]), v, residual)
        self.best = None  # the solution keeps this monitor for a while, which need not keep another copy of the latent
        return Solution._found(self, u, residual)

    def _met(self, excess: Tensor) -> Tensor:
        return excess <= (0.0 if self.solver.relative else self.solver.tol)

    @eager
    @torch.no_grad()
    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """`residuals`, `steps` and `converged` of the solution."""
        met = self._met(torch.stack(self.excess))
        # earlier checks weigh more, so that the largest weight among those met is that of the first; 0 where there is none
        weights = torch.arange(len(met), 0, -1, device=met.device).unsqueeze(1)
        check = len(met) + 1 - (met * weights).amax(dim=0)
        # a check may come early, at max_steps; computed there, since a list of numbers would be copied to the device
        steps = (check * (self.solver.check_every or self.step)).clamp(max=self.step)
        return torch.stack(self.residuals), steps, met[-1]


def _rounded(tol: float, dtype: torch.dtype) -> float:
    """tol as residuals of this dtype are compared with it in `solution`, so that the loop stops at the same number."""
    return float(np.float32(min(tol, torch.finfo(torch.float32).max))) if dtype == torch.float32 else tol


class _Best:
    """A copy of T(u) of the check at which each sample came nearest to the tolerance; nothing here waits for the device."""

    def __init__(self) -> None:
        self.seen_at = 0
        self.v = self.residual = self.distance = torch.empty(0)

    def see(self, v: Tensor, residual: Tensor, size: Tensor | None) -> None:
        """One more check, with v = T(u); `size` is ‖T(u)‖ where the tolerance is relative to it."""
        # nearest in the measure of the tolerance: T(0) may have a small residual and be nowhere near in relation to its size
        distance = residual if size is None else residual / size.clamp_min(torch.finfo(size.dtype).tiny)
        self.seen_at += 1
        if self.seen_at == 1:
            # a clone: what T returned may be a tensor of its own, into which we must not write later
            self.v, self.residual, self.distance = v.clone(), residual, distance
            return
        nearer = distance < self.distance
        torch.where(_columns(nearer, v), v, self.v, out=self.v)
        self.residual = torch.where(nearer, residual, self.residual)
        self.distance = torch.where(nearer, distance, self.distance)

    def unless(self, met: Tensor, v: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """v and its residual for samples that have met the tolerance, else the best."""
        return torch.where(_columns(met, v), v, self.v), torch.where(met, residual, self.residual)


@eager
def evaluate(T: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    """T(u) without a graph, refused if T is not a map from the space of u to itself."""
    return recorded(T, u).detach()


@eager
def recorded(T: Callable[[Tensor], Tensor], u: Tensor, name: str = "u0") -> Tensor:
    """T(u) with its graph, if there is one; refused if T is not a map from the space of u, called `name`, to itself."""
    # autograd counts what is written in place into u; tensors of inference mode have no such count
    version = None if u.is_inference() else u._version
    v = T(u)
    # autocast chooses T's dtype and not the user, so that is no mistake to report; the dtypes are asked first, as what costs least
    if (
        isinstance(v, Tensor)
        and v.dtype != u.dtype
        and v.is_floating_point()
        and torch.is_autocast_enabled(u.device.type)
    ):
        v = v.to(u.dtype)
    check_image(name, u, v)
    if version is not None and u._version != version:
        raise ValueError("T must not write into its argument: it changed u in place; use out-of-place operations")
    # a T that returns u itself is the identity; one that returns u's memory has put T(u) where u was, so that v − u is 0
    if v is not u and v._base is not u and _share_memory(v, u):
        raise ValueError(
            "T must return memory of its own: T(u) lies where u was, as a replayed CUDA graph puts it; return T(u).clone()"
        )
    return v


def _share_memory(v: Tensor, u: Tensor) -> bool:
    """Whether v begins where u does; no read of the device."""
    try:
        return v.data_ptr() == u.data_ptr() != 0  # 0: without a number, or none but a shape
    except RuntimeError:
        return False  # inside torch.func tensors have no address


def sample_norm(v: Tensor, u: Tensor | None = None) -> Tensor:
    """‖v‖₂, or ‖v − u‖₂, of each sample, `(batch,)`, computed in float32 at least."""
    # a sum of squares overflows float16 beyond 65,504, and stops growing in bfloat16 after some 256 terms
    # asked first, since `to` takes a microsecond to find that there is nothing to do
    if v.dtype not in (torch.float32, torch.float64):
        v, u = v.float(), u if u is None else u.float()
    x = v if u is None else v - u
    return torch.linalg.vector_norm(x if x.ndim == 2 else rows(x), dim=1)


def rows(x: Tensor) -> Tensor:
    """`(batch, n)`: the latent coordinates of each sample in a row."""
    return x.unsqueeze(1) if x.ndim == 1 else x.flatten(1)  # flatten(1) needs a second dimension


def _columns(mask: Tensor, x: Tensor) -> Tensor:
    """A mask of the samples, shaped to choose among the latents of x."""
    return mask.reshape(-1, *[1] * (x.ndim - 1))


def _raise_not_finite(u: Tensor, v: Tensor, residual: Tensor, step: int) -> None:
    """Say which samples left the finite numbers, and where it began."""

    def samples(x: Tensor) -> Tensor:
        return ~rows(x).isfinite().all(dim=1)

    bad = ~residual.isfinite()
    if step == 1 and (samples(u) & bad).any():  # a later u is made by the solver
        bad &= samples(u)
        what, remedy = "u0 is", "remove NaN and inf from the start"
    elif (samples(v) & bad).any():
        bad &= samples(v)
        what, remedy = (
            "T(u) is",
            "T is probably no contraction there: check its Lipschitz constant, damp it, or shrink its weights",
        )
    else:
        what = "the norm of T(u) − u is"
        remedy = f"it overflows {residual.dtype}: the iteration runs away (is T a contraction?), or the latent needs rescaling"
    indices = bad.nonzero().flatten().tolist()
    shown = ", ".join(map(str, indices[:8])) + (", …" if len(indices) > 8 else "")
    raise FloatingPointError(
        f"{what} not finite at step {step} in {len(indices)} of {len(bad)} samples ({shown}); {remedy}"
    )
