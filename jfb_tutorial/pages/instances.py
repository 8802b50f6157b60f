"""What the chapters' claims are tested on: random instances of a theorem's hypotheses, and the worst of them.

Vectors are columns, `(count, n, 1)`; matrices `(count, n, n)`. All in the default dtype, which the chapters set to float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..network import ImplicitNetwork
from ..solvers import FixedPointIteration
from ..theory import DescentCheck, Linearised, descent_check

__all__ = [
    "affine_check",
    "blocks",
    "by_differences",
    "central",
    "coercivity",
    "contractions",
    "cosine",
    "fixed_point",
    "gradient_of",
    "inner_and_bound",
    "most_turned",
    "norm",
    "off",
    "perturbed",
    "replaced",
    "rotations_ascend",
    "saturated_layer",
    "sharp_bound",
    "sym",
    "top",
    "unrolled_matrix",
    "violated",
]


def norm(A: Tensor) -> Tensor:
    """The spectral norm of matrices."""
    return torch.linalg.matrix_norm(A, 2)


def off(a: Tensor, b: Tensor) -> float:
    """How far a is from b, relative to the size of b."""
    return ((a - b).norm() / b.norm()).item()


def cosine(a: Tensor, b: Tensor) -> float:
    """Of the angle between two vectors."""
    return torch.cosine_similarity(a, b, dim=0).item()


def blocks(network: ImplicitNetwork, parts: str = "SQR") -> list[nn.Parameter]:
    """The parameters of the parts named; by default in the order of JFB (17): θ_S, then θ_T, those of Q and R."""
    return [parameter for name in parts for parameter in getattr(network, name).parameters()]


def gradient_of(
    network: ImplicitNetwork,
    rule: Callable,
    d: Tensor,
    y: Tensor,
    *,
    loss: Callable = nn.functional.cross_entropy,
    parts: str = "SQR",
) -> Tensor:
    """The gradient of `loss(network(d), y)` by a backward rule, flat, in the order of `blocks`; the network keeps its own rule."""
    own, network.gradient = network.gradient, rule
    value = loss(network(d), y)
    found = torch.autograd.grad(value, blocks(network, parts))
    network.gradient = own
    return torch.cat([part.flatten() for part in found])


def central(f: Callable[[float], Tensor], h: float = 1e-3) -> Tensor:
    """f'(0) by central differences, with an error of order h⁴."""
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


def by_differences(loss: Callable[[], Tensor], parameters: Sequence[Tensor], every: int = 1) -> Tensor:
    """The derivatives of a loss by every so many-th number of each parameter, by `central`."""
    found = []
    with torch.no_grad():
        for flat in (parameter.view(-1) for parameter in parameters):
            for i in range(0, len(flat), every):
                found.append(central(partial(_moved, loss, flat, i)))
    return torch.stack(found)


def _moved(loss: Callable[[], Tensor], flat: Tensor, i: int, step: float) -> Tensor:
    """The loss with one number moved by a step."""
    old = flat[i].item()
    flat[i] = old + step
    value = loss()
    flat[i] = old
    return value


def fixed_point(T: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """By plain iteration, as exact as float64 allows."""
    return FixedPointIteration(tol=1e-14, max_steps=5000)(T, start).u


def sharp_bound(kappa: Any) -> Any:
    """2√κ/(1 + κ), below which γ must be in the sharp condition; of a number, an array or a tensor."""
    return 2 * kappa**0.5 / (1 + kappa)


def sym(A: Tensor) -> Tensor:
    """The symmetric part of matrices."""
    return (A + A.mT) / 2


def coercivity(B: Tensor) -> Tensor:
    """The smallest ⟨u, Bu⟩ / ‖u‖², over all u: the smallest eigenvalue of the symmetric part."""
    return torch.linalg.eigvalsh(sym(B))[..., 0]


def top(A: Tensor) -> Tensor:
    """The largest eigenvalue of the symmetric part of matrices."""
    return torch.linalg.eigvalsh(sym(A))[..., -1]


def violated(left: Tensor, right: Tensor) -> Tensor:
    """By how much, at most, left ≥ right fails."""
    return (right - left).clamp(min=0).max()


def contractions(count: int, n: int, generator: torch.Generator, *, edge: bool = True) -> tuple[Tensor, Tensor]:
    """Matrices of norm γ, and γ, uniform in (0.01, 0.99); with `edge` every direction is stretched by γ."""
    gamma = torch.rand(count, generator=generator) * 0.98 + 0.01
    A = torch.randn(count, n, n, generator=generator)
    if edge:
        A = torch.linalg.qr(A)[0]
    return A * (gamma / norm(A))[:, None, None], gamma


def most_turned(G: Tensor) -> Tensor:
    """The vectors that symmetric positive definite matrices turn most, by the angle whose cosine is `sharp_bound(κ)`."""
    values, vectors = torch.linalg.eigh(G)
    return (vectors[:, :, [0, -1]] / values[:, None, [0, -1]].sqrt()).sum(dim=2, keepdim=True)


def inner_and_bound(
    kappa: Tensor,
    gamma: Tensor,
    generator: torch.Generator,
    *,
    malice: float = 0.5,
    n: int = 5,
    part: float = 1.0,
    terms: int = 1,
) -> tuple[Tensor, Tensor]:
    """⟨dℓ/dΘ, p⟩ on instances of the T block of Theorem 3.1, and what its proof bounds it by.

    M has 8 rows and n columns with κ(MᵀM) = kappa, the Jacobian is gamma times an orthogonal matrix. Of them a share `malice`
    is as bad as can be: the adjoint is what MᵀM turns most, and the Jacobian turns it the same way, by `part` of the angle.

    Args:
        kappa: `(count,)`, the condition numbers, at least 1.
        gamma: `(count,)`, the norms of the Jacobians.
        generator: the source of all that is drawn.
        malice: in [0, 1].
        n: latents, from 2 to 8.
        part: in [0, 1]; 1/k for a direction p of k terms.
        terms: of the Neumann series in p; one is JFB.
    """
    count = len(kappa)
    logs = torch.rand(count, n, generator=generator)
    logs[:, 0], logs[:, -1] = 0, 1
    shapes = ((8, n), (n, n), (n, n), (n, 1))
    *matrices, z = (torch.randn(count, *shape, generator=generator) for shape in shapes)
    left, right, A = (torch.linalg.qr(matrix)[0] for matrix in matrices)
    M = left * kappa[:, None, None].pow(logs[:, None] / 2) @ right.mT
    G = M.mT @ M
    worst = most_turned(G)
    chosen = torch.rand(count, 1, 1, generator=generator) < malice
    A = gamma[:, None, None] * torch.where(chosen, _rotation(_unit(worst), _unit(G @ worst), part), A)
    z = torch.where(chosen, worst, z)

    term = z - A @ z
    v = term
    for _ in range(terms - 1):
        term = A @ term
        v = v + term
    gradient = M @ z
    eigenvalues = torch.linalg.eigvalsh(G)
    size = (M.mT @ gradient).square().sum(dim=(1, 2))
    bound = -(1 / eigenvalues[:, -1] - gamma / eigenvalues[:, 0]) * size
    return -(gradient * (M @ v)).sum(dim=(1, 2)), bound


def perturbed(M: Tensor, w: Tensor, malice: Tensor, generator: torch.Generator, size: Tensor) -> Tensor:
    """Whether ⟨(M + E)w, Mw⟩ > 0 for random E of norm `size`; where `malice` is true, E is as bad as can be."""
    E = torch.randn(M.shape, generator=generator)
    E = torch.where(malice, -_unit(M @ w) @ _unit(w).mT, E / norm(E)[:, None, None])
    return ((M + E * size[:, None, None]) @ w * (M @ w)).sum(dim=(1, 2)) > 0


def replaced(M: Tensor, w: Tensor, malice: Tensor, generator: torch.Generator, size: Tensor) -> Tensor:
    """Whether ⟨w, Gw⟩ > ⟨Gw, Kw⟩, G = MᵀM, for K of norm `size` times a rotation; where `malice` is true, the worst K."""
    Gw = M.mT @ M @ w
    K = torch.linalg.qr(torch.randn(len(M), M.shape[2], M.shape[2], generator=generator))[0]
    K = torch.where(malice, _unit(Gw) @ _unit(w).mT, K) * size[:, None, None]
    return (w * Gw - Gw * (K @ w)).sum(dim=(1, 2)) > 0


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True)


def _rotation(a: Tensor, b: Tensor, part: float) -> Tensor:
    """Rotations that turn the unit columns a towards b, by a part of the angle."""
    cosine = a.mT @ b
    across = _unit(b - cosine * a)
    angle = torch.arccos(cosine.clamp(-1, 1)) * part
    plane, turn = a @ a.mT + across @ across.mT, across @ a.mT - a @ across.mT
    return torch.eye(a.shape[1]) + (angle.cos() - 1) * plane + angle.sin() * turn


class _Affine(nn.Module):
    """T(u; θ) = Au + Bθ."""

    A: Tensor
    B: Tensor

    def __init__(self, A: Tensor, B: Tensor):
        super().__init__()
        self.register_buffer("A", A)
        self.register_buffer("B", B)
        self.theta = nn.Parameter(torch.zeros(B.shape[1]))

    def forward(self, u: Tensor, q: Tensor) -> Tensor:
        return u @ self.A.T + self.theta @ self.B.T + q


def affine_check(A: Sequence | Tensor, B: Sequence | Tensor, c: Sequence | Tensor) -> DescentCheck:
    """`descent_check` of T(u; θ) = Au + Bθ, with S the identity and the loss c·u: every γ and every κ, by hand.

    Example:
        >>> affine_check([[0.5]], [[1.0]], [1.0]).inner_product  # the gradient is 1/(1 − ½), and p is −1
        -2.0
    """
    A, B, c = (torch.as_tensor(x) for x in (A, B, c))
    network = ImplicitNetwork(nn.Identity(), _Affine(A, B), nn.Identity())
    return descent_check(network, torch.zeros(1, len(c)), c, lambda u, c: (u[0] * c).sum())


def saturated_layer(seed: int, n: int = 4) -> float:
    """⟨dℓ/dΘ, p⟩ / ‖dℓ/dΘ‖² of a saturated layer and its worst adjoint; the symmetric part of D Wᵀ goes up to 0.9999."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(n, n, generator=generator)
    D = torch.diag(10 ** (-4 * torch.rand(n, generator=generator)))
    values, vectors = torch.linalg.eigh((D @ W.T + W @ D) / 2)
    W = W * (1 - 1e-4) / values[-1]
    z = torch.linalg.inv(D) @ vectors[:, -1]
    g = z - W.T @ D @ z  # what the loss must send
    inputs = torch.randn(n + 1, generator=generator)
    gradient, p = torch.outer(D @ z, inputs), -torch.outer(D @ g, inputs)
    return ((gradient * p).sum() / gradient.square().sum()).item()


def rotations_ascend(kappa: float, size: float) -> bool:
    """Whether ⟨w, Gw⟩ > ⟨Gw, Kw⟩ for G = diag(κ, 1), every w in the plane and every K that is `size` times a rotation."""
    angle = torch.linspace(0, math.pi / 2, 200_001)
    w = torch.stack([angle.cos(), angle.sin()], dim=1)
    Gw = torch.tensor([kappa, 1.0]) * w
    # the worst rotation turns w into the direction of Gw
    return bool(((w * Gw).sum(dim=1) - size * Gw.norm(dim=1)).min() > 0)


def unrolled_matrix(case: Linearised, start: Tensor, steps: int, damping: float) -> Tensor:
    """The phantom gradient's A of [16], from dense Jacobians at each damped iterate."""
    identity = torch.eye(len(case.dT))
    u, A = start, torch.zeros_like(case.M_T)
    for _ in range(steps):
        at = u.clone().requires_grad_()
        value = case.T(at)
        # (∂a/∂b)ᵢⱼ = ∂aⱼ/∂bᵢ, as everywhere in the case
        J = torch.autograd.functional.jacobian(lambda x: case.T(x)[0], u).reshape(identity.shape).T
        A = damping * case.theta_T_rows(value) + A @ (damping * J + (1 - damping) * identity)
        u = (damping * value + (1 - damping) * at).detach()
    return A
