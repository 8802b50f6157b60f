"""The Neumann phantom gradient."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .._checks import check_damping, check_integer, store
from .._jacobian import products
from ..solvers.iteration import eager
from ._adjoint import Operator, counted_products, with_adjoint
from .recorded import JFB

__all__ = ["NeumannSeries"]


@dataclass(frozen=True)
class NeumannSeries:
    """The Neumann phantom gradient, phantom gradient [17]: w = λ g (I + B + … + Bᵏ⁻¹), B = λJ + (1 − λ)I.

    The loss sees T(u*). It costs k − 1 vector-Jacobian products. JFB is `NeumannSeries(1, 1.0)`, bit for bit; JFB's
    "Neumann order K" is `terms = K + 1`, since that paper counts the powers of J. With more than one term, derivatives in forward
    mode (`torch.func.jvp`), of second order, and under the transforms of `torch.func` are refused.

    Args:
        terms: k, at least 1.
        damping: λ in (0, 1].
    """

    terms: int = 1
    damping: float = 1.0

    def __post_init__(self) -> None:
        terms = check_integer("terms", self.terms, 1, "the nearest valid choice is 1, which with damping=1.0 is JFB")
        store(self, terms=terms, damping=check_damping(self.damping))

    @eager
    def __call__(self, T: Operator, u_star: Tensor) -> Tensor:
        """T(u*), `(batch, *latent)`; arguments and errors as for `ImplicitDifferentiation`."""
        if self.terms == 1 and self.damping == 1:
            return JFB()(T, u_star)

        def adjoint(g: Tensor, v: Tensor, u: Tensor) -> Tensor:
            _, transposed = counted_products(*products(v, u))  # no J x is needed: any T will do
            w = term = g
            for _ in range(self.terms - 1):
                # g Bⁱ from g Bⁱ⁻¹: one product, and never B itself
                term = self.damping * transposed(term) + (1 - self.damping) * term
                w = w + term
            return self.damping * w

        return with_adjoint(T, u_star, adjoint)
