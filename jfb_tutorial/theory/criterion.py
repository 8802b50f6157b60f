"""Whether JFB descends for every loss at once: an exact criterion of the size of the output.

With a = ∂ℓ/∂y, one row for each output, b its derivative dS/du and z the adjoint of that, z (I − dT/du) = b:

    gradient = Σ aᵢ (z ∂T/∂θ)ᵢ,   −p = Σ aⱼ (b ∂T/∂θ)ⱼ,   so   ⟨gradient, p⟩ = −aᵀ K a,   Kᵢⱼ = ⟨(z ∂T/∂θ)ᵢ, (b ∂T/∂θ)ⱼ⟩,

and the parameters of S add the same to both. Neither the loss nor the label is part of K.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from .._jacobian import products
from ..gradients import krylov
from ..network import ImplicitNetwork
from .linearised import partition, refuse_strangers, rows, solved

__all__ = ["Criterion", "criterion"]

TOLERANCE = 1e-10
"""Of the adjoints, relative: K is then right to about as much, times the condition of I − dT/du."""
MAX_STEPS = 20_000
KERNEL = 1e-14
"""Eigenvalues of the Gram matrix of the gradients, relative to the largest, below which a loss has no gradient but rounding."""
ROUNDING = TOLERANCE
"""Eigenvalues of K, and its size between losses with a gradient and losses without, relative to ‖gradients‖ ‖directions‖, below
which they are taken for zero: K may be far smaller than the two, and then its sign says nothing."""


@dataclass(frozen=True)
class Criterion:
    """What `criterion` measured.

    Attributes:
        K: `(m, m)`, m the number of outputs of all samples: ⟨gradient, p⟩ = −aᵀ K a for a loss with ∂ℓ/∂y = a, flat.
        smallest: the smallest eigenvalue of the symmetric part of K, over its largest, where the gradient is not zero: on the
            complement of the kernel of a ↦ gradient. (If K couples the two, no complement is safe, and the whole of K counts.)
            0 where it is no more than rounding, 1e-10 of the sizes of gradients and directions; NaN where no loss has a gradient.
            A gradient below 1e-7 of the largest, for a of the same length, counts as none: keep the outputs in like units.
    """

    K: Tensor
    smallest: float

    @property
    def holds(self) -> bool:
        """JFB descends for every loss of these samples whose gradient is not zero. Where `smallest` is negative some loss ascends;
        at 0 none is sure to, and nothing is certified."""
        return self.smallest > 0

    def __repr__(self) -> str:
        if self.holds:
            word = "JFB descends for every loss"
        elif self.smallest < 0:
            word = "some loss ascends"
        else:
            word = "zero to rounding, no certificate" if self.smallest == 0 else "no loss has a gradient"
        return f"Criterion(smallest {self.smallest:.4g}, {len(self.K)} outputs: {word})"


def criterion(network: ImplicitNetwork, d: Tensor) -> Criterion:
    """Whether JFB's direction descends for every loss of these samples, from one adjoint solve for each output.

    Works on a copy of the network in float64 and eval mode, on its device, with the fixed point solved to 1e-12 and the adjoints by
    GMRES to 1e-10. The samples of a batch count as one loss of all their outputs. Memory is that of outputs × parameters numbers.

    Args:
        network: its own solver and rule play no part. Frozen parameters count like the others.
        d: `(batch, …)`, of any batch size.

    Raises:
        TypeError, ValueError: network is no ImplicitNetwork; d is no batch; S gives no tensor, or one without numbers; S shares
            parameters with Q or R; Q and R have none; a part uses parameters that the network does not know of.
        RuntimeError: no fixed point was found to 1e-12, or I − dT/du is singular there.
    """
    if not isinstance(network, ImplicitNetwork):
        raise TypeError(f"network must be an ImplicitNetwork, got {type(network).__name__}")
    if not isinstance(d, Tensor) or not d.ndim or not len(d):
        got = f"shape {tuple(d.shape)}" if isinstance(d, Tensor) else type(d).__name__
        raise ValueError(f"d must be a tensor (batch, …) with at least one sample, got {got}")
    # a copy, so that the caller's keeps its dtype, its mode and its gradients
    network = copy.deepcopy(network).double().eval()
    theta_S, theta_T = partition(network)
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(d.device.type, enabled=False):
        for parameter in network.parameters():
            parameter.requires_grad_()
        T = network.operator(d.double() if d.is_floating_point() else d)
        u = solved(T, T.zeros()).requires_grad_()
        v, y = T(u), network.S(T.unpack(u))
        _check_outputs(y)
        refuse_strangers("Q or R", v, u, theta_T, theta_S)
        refuse_strangers("S", y, u, theta_S, theta_T)
        basis = torch.eye(y.numel(), dtype=y.dtype, device=y.device)
        b = rows(y, [u], basis)
        through_b = rows(v, theta_T, b)
        through_z = rows(v, theta_T, _adjoints(v, u, b))
        of_S = rows(y, theta_S, basis)
    gradients, directions = torch.cat([through_z, of_S], 1), torch.cat([through_b, of_S], 1)
    return Criterion(gradients @ directions.T, _smallest(gradients, directions))


def _check_outputs(y: object) -> None:
    """Refuse a head without outputs: there is no loss to speak of."""
    if not isinstance(y, Tensor):
        raise TypeError(
            f"network.S must return one tensor, got {type(y).__name__}; pick the output that the loss is computed on"
        )
    if not y.numel():
        raise ValueError(
            f"network.S must return at least one number, got shape {tuple(y.shape)}: without an output there is no loss to certify; "
            "give the head an output, as nn.Linear(n, 1) does"
        )


def _adjoints(v: Tensor, u: Tensor, b: Tensor) -> Tensor:
    """The z with z (I − dT/du) = b, row by row."""
    _, transposed = products(v, u)

    def wJ(w: Tensor) -> Tensor:
        return torch.stack([transposed(row.reshape(u.shape)).flatten() for row in w])

    # "gmres" needs no products with J
    solution = krylov.solve("gmres", b, wJ, wJ, tol=TOLERANCE, max_steps=MAX_STEPS)
    if not bool(solution.converged.all()):
        raise RuntimeError(
            f"the adjoint equation was not solved to {TOLERANCE:.0e} (worst residual {solution.residual.max().item():.1e}); "
            "is 1 an eigenvalue of dT/du?"
        )
    return solution.w


def _smallest(gradients: Tensor, directions: Tensor) -> float:
    """The smallest eigenvalue of sym K relative to its largest, where the gradient is not zero; a row of each for each output."""
    K, gram = gradients @ directions.T, gradients @ gradients.T
    sizes, vectors = torch.linalg.eigh((gram + gram.T) / 2)
    seen = sizes > KERNEL * len(gram) * sizes[-1]
    if not bool(seen.any()):
        return float("nan")  # no loss has a gradient
    V, kernel = vectors[:, seen], vectors[:, ~seen]
    rounding = ROUNDING * gradients.norm() * directions.norm()
    # a loss without a gradient may have a direction p all the same, which then turns p of any other loss around
    if kernel.numel() and torch.linalg.matrix_norm(V.T @ K @ kernel) > rounding:
        V = vectors
    eigenvalues = torch.linalg.eigvalsh(V.T @ (K + K.T) @ V / 2)
    if eigenvalues[0].abs() <= rounding:
        return 0.0
    return (eigenvalues[0] / eigenvalues.abs().max()).item()
