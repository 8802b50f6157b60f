"""The adjoint solver of the JFB paper's code."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .._checks import check_integer, check_positive, store
from .._jacobian import products
from ..solvers.iteration import eager, rows
from ._adjoint import Operator, counted_products, tallies, with_adjoint
from .krylov import _ratio

__all__ = ["PublishedCG"]


@dataclass(frozen=True)
class PublishedCG:
    """The Jacobian-based rule as the JFB paper's code has it, to compare with: conjugate gradients that stop early.

    The loss sees T(u*). The normal equations w𝒥𝒥ᵀ = g𝒥ᵀ, JFB (74), are solved for every sample by itself, from w = g𝒥ᵀ, in at
    least one step, until ‖w𝒥𝒥ᵀ − g𝒥ᵀ‖₂ ≤ tol for each. tol is absolute, and g is that of a mean over the batch, hence small: on
    MNIST the first step meets the code's 0.1, whatever is missing. For an exact gradient there is `ImplicitDifferentiation`.

    A step takes four products here (the code makes six, and counts one), and there are three before the first.

    Args:
        tol: absolute, for each sample.
        max_steps: largest number of steps. Where the code would leave out a batch that has not met tol by then, the backward pass
            raises a RuntimeError.
    """

    tol: float = 0.1
    max_steps: int = 50

    def __post_init__(self) -> None:
        store(
            self,
            tol=check_positive("tol", self.tol, "0.1 is the default"),
            max_steps=check_integer("max_steps", self.max_steps, 1, "50 is the default"),
        )

    @eager
    def __call__(self, T: Operator, u_star: Tensor) -> Tensor:
        """T(u*), `(batch, *latent)`; arguments and errors as for `ImplicitDifferentiation`."""

        def adjoint(g: Tensor, v: Tensor, u: Tensor) -> Tensor:
            if not bool(g.isfinite().all()):
                return g
            apply, transposed = counted_products(*products(v, u))
            # 𝒥 = I − J, and a name such as w_J is w𝒥: b = g𝒥ᵀ is the right side, where w starts too, and not at zero
            b = g - apply(g)
            w, w_J = b, b - transposed(b)
            r = p = b - (w_J - apply(w_J))
            rho = _dots(r, r)
            for _ in range(self.max_steps):
                p_J = p - transposed(p)
                p_JJt = p_J - apply(p_J)
                # (batch, 1, …): a step length for each sample
                alpha = _ratio(rho, _dots(p, p_JJt))
                w, r = w + alpha * p, r - alpha * p_JJt
                w_J = w - transposed(w)
                # measured with w itself, at two products more, and not by r, which drifts from it by rounding
                missing = rows(w_J - apply(w_J) - b).norm(dim=1)
                if bool((missing <= self.tol).all()):
                    break
                rho, old = _dots(r, r), rho
                p = r + _ratio(rho, old) * p
            else:
                raise RuntimeError(
                    f"conjugate gradients left {missing.max():.1e} unsolved after {self.max_steps} steps, tol {self.tol:.1e}; "
                    "the JFB paper's code would leave this batch out; ImplicitDifferentiation() has solvers that may do"
                )
            for record in tallies:
                # of the adjoint equation w𝒥 = g, relative: not what the loop has looked at
                left = _ratio(rows(g - w_J).norm(dim=1), rows(g).norm(dim=1))
                record.residuals.append(max(left.tolist(), default=0.0))
            return w

        return with_adjoint(T, u_star, adjoint, twice=True)


def _dots(x: Tensor, y: Tensor) -> Tensor:
    """The inner products of the samples, fit to be multiplied by a batch."""
    return (rows(x) * rows(y)).sum(dim=1).reshape(-1, *[1] * (x.ndim - 1))
