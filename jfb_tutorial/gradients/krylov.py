"""Krylov solvers for the adjoint equation w (I − J) = g: several systems at once, from products alone.

A vector is a row, as in JFB Appendix C: `(systems, n)`, each row a system of its own. Whether the batch is one system of
`batch · latent` unknowns or every sample one of its own is a matter of the shape in which g is handed over. SciPy has these
methods for one system on the CPU; here they run where the network is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

__all__ = ["METHODS", "LinearSolution", "solve"]

Product = Callable[[Tensor], Tensor]
Cycle = Callable[[Tensor, Tensor, int], tuple[Tensor, int]]
"""(r, target, max_steps) ↦ (w, steps): some steps of a method from w = 0 for w (I − J) = r, `(systems, n)`, until the method's
own residual is at most `target`, `(systems,)`, or the method has come to its end."""

MEMORY = 50
"""Steps after which GMRES starts again; it keeps one vector more than it has made steps."""
BASIS = 8
"""Vectors for which GMRES makes room at first, and doubles it when they are used: most solves take few of the 51."""

PROGRESS = 0.9999
"""A cycle has brought a system forward if it left less than this part of the residual. So near to 1 because a slow method that
still moves should be stopped by max_steps alone; not 1 because rounding makes a residual that stands still flicker."""
PATIENCE = 2
"""Cycles in a row without progress after which a system is left as it is; the second may start from a better place."""
UNEVEN = 1.37
"""Rounding is measured as the difference between wJ and (c · w)J / c. c = 1.37 is nothing but a number that is not a power of
two: those change exponents alone, and every digit of the two products would be the same."""
ROUNDING = 8.0
"""A residual is explained by rounding up to this multiple of what was measured: two samples of a rounding error can
agree by chance, and the residual is a sum over a whole cycle of them."""
EXPLICABLE = 0.05
"""However coarse the products are, a residual above this part of ‖g‖ is a failure, and so is one that stands for more than this
part of ‖w‖: a 5% error of the gradient is one to report."""
REMEASURED = 1.01
"""A residual that was measured a second time, along with the other systems, may exceed the tolerance by a hundredth, since
rounding makes the two differ."""
RUNAWAY = 1e6
"""The series and "cg" end a cycle whose residual has grown by this factor. Beyond it the sum would be mostly rounding: 1e6 times
machine epsilon, relative to the r of the cycle, is 0.1 in float32."""
ASTRAY = 100.0
"""BiCGStab, whose residual jumps on the way to the solution, stops where it is a hundred times its best."""
EXHAUSTED = 10.0
"""GMRES: a new direction shorter than this multiple of machine epsilon, relative to the product it came from, is rounding."""


@dataclass(frozen=True)
class LinearSolution:
    """What `solve` found.

    Attributes:
        w: `(systems, n)`.
        residual: `(systems,)`, ‖g − w(I − J)‖₂ / ‖g‖₂, from a product with w itself and not from a recursion; 0 where g = 0.
        converged: `(systems,)` bool.
        steps: steps of the method, the same for all systems.
    """

    w: Tensor
    residual: Tensor
    converged: Tensor
    steps: int


def solve(method: str, g: Tensor, wJ: Product, wJt: Product, *, tol: float, max_steps: int) -> LinearSolution:
    """Solve w (I − J) = g.

    The method runs until its own residual is at most tol ‖g‖. Then the true one is measured; if it is larger, the method starts
    again on what is missing. A system that two such cycles in a row have not brought forward is left as it is. It still counts
    as solved if what is missing is no more than what the products' rounding explains, at most 5% of ‖g‖, and would change w by
    at most 5%: the rounding is measured, by a product with a multiple of w, and the change by a cycle of GMRES on what is
    missing, since near an eigenvalue 1 of J a small residual is no small error. Each g is scaled to size 1 before, so that its units play no part. The products
    are those of the vectors as they were: they may couple the systems, and the residual is then that of the coupled equation.

    Args:
        method: one of `METHODS`.
        g: `(systems, n)`, float32 or float64, finite.
        wJ: w ↦ w J.
        wJt: w ↦ w Jᵀ; only "cg" calls it.
        tol: relative to ‖g‖ of each system, in (0, 1).
        max_steps: largest number of steps: one product each for "neumann" and "gmres", two for "cg" and "bicgstab".
    """
    if not g.numel():
        none = g.new_zeros(len(g))
        return LinearSolution(g, none, none == 0, 0)
    scale, relative = _scales(g)
    wJ = _with_rows_scaled(wJ, relative)
    cycle = _cycle(method, wJ, _with_rows_scaled(wJt, relative))
    systems = _Systems(g / scale, wJ, tol)
    steps = 0
    while True:
        going = systems.measure()
        if steps >= max_steps or not bool(going.any()):
            break
        # what is solved, or stuck, stands still: it gets nothing to do
        start = torch.where(going[:, None], systems.best_r, 0.0)
        correction, used = cycle(start, tol * systems.size, max_steps - steps)
        steps += used
        systems.correct(correction)
    systems.measure_together()
    systems.forgive_rounding()
    return LinearSolution(systems.best_w * scale, systems.relative_residual(), systems.converged, steps)


def _scales(g: Tensor) -> tuple[Tensor, Tensor]:
    """`(systems, 1)` each: what every row of g is divided by, and the same in units of the largest."""
    scale = g.abs().amax(dim=1, keepdim=True)
    # a row of zeros is told the largest scale, which couples it to the others as they are; all zeros, 1
    scale = torch.where(scale > 0, scale, torch.where(scale.amax() > 0, scale.amax(), 1.0))
    # the floor keeps x · relative / relative exact where the quotient of two scales is zero or a subnormal number
    return scale, (scale / scale.amax()).clamp_min(torch.finfo(g.dtype).eps ** 2)


def _with_rows_scaled(product: Product, factors: Tensor) -> Product:
    """The product in units of each row's own: what it couples keeps its size."""
    return lambda x: product(x * factors) / factors


class _Systems:
    """Where several systems w (I − J) = g stand between the cycles of a method: the best w of each, and what that misses.

    Attributes:
        best_w, best_r: `(systems, n)`, the w with the smallest residual so far, and g − w(I − J) for it.
        best: `(systems,)`, the norm of that.
        size: `(systems,)`, ‖g‖.
        converged: `(systems,)` bool.
    """

    def __init__(self, g: Tensor, wJ: Product, tol: float) -> None:
        self.g, self.wJ, self.tol = g, wJ, tol
        self.size = _norm(g)
        self.w = self.best_w = torch.zeros_like(g)
        self.r = self.best_r = g
        self.best = torch.full_like(self.size, math.inf)  # so that w = 0, measured first, counts as progress
        self.idle = torch.zeros_like(self.size)  # cycles in a row without progress
        self.converged = torch.zeros_like(self.size, dtype=torch.bool)
        self.mixed = False  # whether the rows of best_w come from different cycles

    def measure(self) -> Tensor:
        """Take note of the residuals of w; which systems are to go on, `(systems,)` bool."""
        missing = _norm(self.r)
        better = missing < self.best  # never for NaN
        self.mixed = not bool(better.all())
        self.best_w = torch.where(better[:, None], self.w, self.best_w)
        self.best_r = torch.where(better[:, None], self.r, self.best_r)
        self.idle = torch.where(missing < PROGRESS * self.best, 0.0, self.idle + 1)
        self.best = torch.fmin(self.best, missing)  # passes over NaN, which minimum would keep
        self.converged = self.best <= self.tol * self.size
        return ~self.converged & (self.idle < PATIENCE)

    def correct(self, correction: Tensor) -> None:
        """w = best_w + correction, and its residual by a product."""
        self.w = self.best_w + correction
        self.r = self.g - (self.w - self.wJ(self.w))

    def measure_together(self) -> None:
        """Measure best_w as a whole if its rows are of several cycles: if they are coupled, none of those had this residual."""
        if self.mixed and len(self.g) > 1:
            self.best = _norm(self.g - (self.best_w - self.wJ(self.best_w)))
            self.converged = self.best <= REMEASURED * self.tol * self.size

    def forgive_rounding(self) -> None:
        """Count as solved what stands still at a residual that the rounding of the products explains."""
        if bool(self.converged.all()):
            return
        # the dtype does not tell how coarse a product is: TF32, or autocast inside T, round to ten or eight bits
        difference = self.wJ(UNEVEN * self.best_w) / UNEVEN - self.wJ(self.best_w)
        rounding = _norm(difference) + torch.finfo(self.g.dtype).eps * _norm(self.best_w)
        explained = self.best <= torch.minimum(ROUNDING * rounding, EXPLICABLE * self.size)
        # what ran out of steps was still on its way, and its residual is no matter of rounding
        stuck = ~self.converged & (self.idle >= PATIENCE) & explained
        if bool(stuck.any()):
            # two solves: what rounding hides is missing as well, and near an eigenvalue 1 of J it may be the larger error
            missing = self.g - (self.best_w - self.wJ(self.best_w))
            self.converged |= stuck & self._is_small(missing) & self._is_small(difference)

    def _is_small(self, missing: Tensor) -> Tensor:
        """`(systems,)` bool: whether what is missing, `(systems, n)`, stands for a small part of best_w: an estimate, no bound."""
        # not by the method itself, which has come to its end; GMRES always gives its best
        error, _ = _gmres(self.wJ, missing, self.tol * _norm(missing), MEMORY)
        return _norm(error) <= EXPLICABLE * _norm(self.best_w)

    def relative_residual(self) -> Tensor:
        return torch.where(self.size > 0, self.best / torch.where(self.size > 0, self.size, 1.0), 0.0)


def _neumann(wJ: Product, r: Tensor, target: Tensor, max_steps: int) -> tuple[Tensor, int]:
    """The Neumann series r + rJ + rJ² + …, JFB (22); what is missing after k terms is rJᵏ."""
    w = torch.zeros_like(r)
    limit = RUNAWAY * _norm(r)
    for step in range(1, max_steps + 1):
        w = w + r
        r = wJ(r)
        if _done(r, target, limit):
            return w, step
    return w, max_steps


def _cg(wJ: Product, wJt: Product, r: Tensor, target: Tensor, max_steps: int) -> tuple[Tensor, int]:
    """Conjugate gradients on the normal equations, JFB (74), as Björck's CGLS: it keeps the residual of the original system."""
    w = torch.zeros_like(r)
    limit = RUNAWAY * _norm(r)
    s = r - wJt(r)
    # s = r(I − J)ᵀ is the residual of the normal equations; w starts at 0, so r is that of the original ones
    p, rho = s, _dot(s, s)
    for step in range(1, max_steps + 1):
        q = p - wJ(p)
        alpha = _ratio(rho, _dot(q, q))
        w, r = w + alpha * p, r - alpha * q
        if _done(r, target, limit):
            return w, step
        s = r - wJt(r)
        rho, old = _dot(s, s), rho
        p = s + _ratio(rho, old) * p
    return w, max_steps


def _bicgstab(wJ: Product, r: Tensor, target: Tensor, max_steps: int) -> tuple[Tensor, int]:
    """BiCGStab, H. A. van der Vorst (1992). It hands back its best point, and stops where it breaks down or runs away."""
    # the shadow residual stays what it is at the start; r is the usual choice
    w, shadow, p = torch.zeros_like(r), r, r
    rho = _dot(shadow, r)
    best_w, best = w, _norm(r)
    for step in range(1, max_steps + 1):
        q = p - wJ(p)
        alpha = _ratio(rho, _dot(shadow, q))
        s = r - alpha * q
        t = s - wJ(s)
        omega = _ratio(_dot(t, s), _dot(t, t))  # minimises ‖s − ωt‖
        w, r = w + alpha * p + omega * s, s - omega * t
        missing = _norm(r)
        best_w = torch.where((missing < best)[:, None], w, best_w)
        best = torch.fmin(best, missing)
        rho, old = _dot(shadow, r), rho
        # with ρ = 0 the next directions are r alone; a fresh cycle does better, with a shadow of its own
        broken = (rho == 0)[:, 0] & (missing > target)
        # written with ~ so that NaN counts as run away
        if bool(((best <= target) | broken | ~(missing < ASTRAY * best)).all()):
            return best_w, step
        p = r + _ratio(rho * alpha, old * omega) * (p - omega * q)
    return best_w, max_steps


def _gmres(wJ: Product, r: Tensor, target: Tensor, max_steps: int) -> tuple[Tensor, int]:
    """GMRES, Y. Saad and M. H. Schultz (1986), for at most `MEMORY` steps."""
    arnoldi = _Arnoldi(r, min(MEMORY, max_steps))
    while arnoldi.steps < arnoldi.max_steps:
        arnoldi.extend(wJ)
        if bool((arnoldi.residual() <= target).all()):
            break
    return arnoldi.minimiser(), arnoldi.steps


class _Arnoldi:
    """An orthonormal basis v₀, v₁, … of the span of r, rA, rA², …, with A = I − J, and A in it.

    After k steps vⱼ A = Σᵢ H[i, j] vᵢ for j < k, where H, `(k + 1, k)`, is upper Hessenberg: zero below its first subdiagonal.
    So the w = Σⱼ yⱼ vⱼ that minimises ‖r − wA‖₂ has the y that minimises ‖βe₀ − Hy‖₂, with β = ‖r‖.

    Attributes:
        steps: k.
        H: `(systems, max_steps + 1, max_steps)`, of which the leading part counts.
        basis: `(systems, room, n)`, the vectors v, of which k + 1 count.
    """

    def __init__(self, r: Tensor, max_steps: int) -> None:
        systems, n = r.shape
        self.steps, self.max_steps = 0, max_steps
        self.beta = _norm(r)
        self.basis = r.new_zeros(systems, min(BASIS, max_steps + 1), n)
        # a system at rest, r = 0, has a basis of zero vectors
        self.basis[:, 0] = r * _inverse(self.beta)[:, None]
        self.H = r.new_zeros(systems, max_steps + 1, max_steps)
        # z of `residual`, which needs no y: the textbook updates a QR factorisation of H by rotations instead
        self.null = r.new_zeros(systems, max_steps + 1)
        self.null[:, 0] = 1
        self.exhausted = torch.zeros_like(self.beta, dtype=torch.bool)

    def extend(self, wJ: Product) -> None:
        """One more vector, and one more column of H."""
        k = self.steps
        self._make_room()
        basis = self.basis[:, : k + 1]
        x = basis[:, k] - wJ(basis[:, k])
        size = _norm(x)
        # classical Gram-Schmidt, one matrix product for all vectors; twice is enough (Kahan and Parlett): once leaves
        # what rounding put in, which is much where x lies nearly in their span
        for _ in range(2):
            h = basis @ x[:, :, None]  # (systems, k + 1, 1), ⟨vᵢ, x⟩
            x = x - (h.mT @ basis)[:, 0]
            self.H[:, : k + 1, k] += h[:, :, 0]
        length = _norm(x)
        # the space of a system is exhausted where nothing new is left: its basis goes on with zero vectors
        alive = length > EXHAUSTED * torch.finfo(x.dtype).eps * size
        self.H[:, k + 1, k] = torch.where(alive, length, 0.0)
        self.basis[:, k + 1] = x * torch.where(alive, _inverse(length), 0.0)[:, None]
        # a zero vector has a zero column; a one on the diagonal keeps the least-squares problem regular, with y = 0 there
        self.H[:, k, k] += (size == 0).to(x.dtype)
        self._extend_null(alive)
        self.steps += 1

    def _make_room(self) -> None:
        room = self.basis.shape[1]
        if self.steps + 1 == room:
            more = min(room, self.max_steps + 1 - room)
            self.basis = torch.cat([self.basis, torch.zeros_like(self.basis[:, :more])], dim=1)

    def _extend_null(self, alive: Tensor) -> None:
        """One more entry of the row z with z₀ = 1 and zH = 0, the equation of the new column solved for its last."""
        k = self.steps
        above = (self.null[:, : k + 1] * self.H[:, : k + 1, k]).sum(dim=1)
        self.null[:, k + 1] = -_ratio(above, self.H[:, k + 1, k])
        self.exhausted = self.exhausted | ~alive

    def residual(self) -> Tensor:
        """`(systems,)`, min ‖βe₀ − Hy‖₂ = β / ‖z‖₂, since what is left of βe₀ is its part along z, where zH = 0 and z₀ = 1.

        An exhausted space contains the solution, unless A is singular: `solve` finds that out, with a product.
        """
        left = self.beta / _norm(self.null[:, : self.steps + 1])
        return torch.where(self.exhausted, 0.0, left)

    def minimiser(self) -> Tensor:
        """w, `(systems, n)`, by a QR factorisation of H."""
        k = self.steps
        Q, R = torch.linalg.qr(self.H[:, : k + 1, :k])
        # the right side is βe₀, so that Qᵀβe₀ is β times the first row of Q
        y = torch.linalg.solve_triangular(R, self.beta[:, None, None] * Q[:, :1].mT, upper=True)
        return (y.mT @ self.basis[:, :k])[:, 0]


METHODS = ("cg", "gmres", "bicgstab", "neumann")
_FROM_ONE_PRODUCT = {"gmres": _gmres, "bicgstab": _bicgstab, "neumann": _neumann}


def _cycle(method: str, wJ: Product, wJt: Product) -> Cycle:
    """The method with its products."""
    return partial(_cg, wJ, wJt) if method == "cg" else partial(_FROM_ONE_PRODUCT[method], wJ)


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=1)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """`(systems, 1)`"""
    # a batched product, which makes no tensor of the size of x on the way
    return (x[:, None] @ y[:, :, None])[:, :, 0]


def _ratio(x: Tensor, y: Tensor) -> Tensor:
    """x / y, and 0 where y is 0: a system that is solved, or has broken down, stands still."""
    zero = y == 0
    return torch.where(zero, 0.0, x / torch.where(zero, 1.0, y))


def _inverse(x: Tensor) -> Tensor:
    """1 / x, and 0 where x is 0."""
    return _ratio(torch.ones_like(x), x)


def _done(r: Tensor, target: Tensor, limit: Tensor) -> bool:
    """Whether every system has met its target or run away beyond the limit."""
    missing = _norm(r)
    return bool(((missing <= target) | ~(missing <= limit)).all())  # with ~, so that NaN has run away
