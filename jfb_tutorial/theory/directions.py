"""Whether a backward rule's direction descends: the hypotheses and the conclusion of JFB Theorem 3.1, measured.

Both checks are imported from `jfb_tutorial.theory`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._checks import check_callable
from ..network import ImplicitNetwork
from .linearised import Linearised, Loss

__all__ = ["DescentCheck", "PhantomCheck", "descent_check", "phantom_check"]


@dataclass(frozen=True)
class DescentCheck:
    """What `descent_check` measured. Vectors are flat, in the order of `network.parameters()`; θ_T are the parameters of Q and R.

    Attributes:
        gradient: dℓ/dΘ, JFB (14).
        p: JFB's direction (16), with its minus sign.
        inner_product: ⟨gradient, p⟩; p descends where it is negative.
        cosine: between the gradient and −p; NaN where one of them is 0.
        gamma: ‖∂T/∂u‖₂ at u*.
        kappa: κ(MᵀM), M of (17); inf where M lacks full column rank. An S without parameters adds no columns.
        kappa_T: the same for the block ∂T/∂θ_T alone.
        assumption_holds: κ < 1/γ, Assumption 3.3 with a strict sign, and full column rank.
        sharp_holds: γ < 2√κ_T / (1 + κ_T), the first antieigenvalue of the T block of MᵀM, and full column rank of M.
        bound: −(λ₋ − γλ₊)‖Mᵀ gradient‖², λ± the extreme eigenvalues of (MᵀM)⁻¹: what the proof bounds inner_product by, with its
            constant put right. inf where M lacks full column rank.
    """

    gradient: Tensor
    p: Tensor
    inner_product: float
    cosine: float
    gamma: float
    kappa: float
    kappa_T: float
    assumption_holds: bool
    sharp_holds: bool
    bound: float

    def __repr__(self) -> str:
        return (
            f"DescentCheck(⟨gradient, p⟩ = {self.inner_product:.4g}, bound {self.bound:.4g}, cosine {self.cosine:.4f}; "
            f"γ = {self.gamma:.4f}, κ = {self.kappa:.4g}, κ_T = {self.kappa_T:.4g}; "
            f"Assumption 3.3 {_word(self.assumption_holds)}, sharp condition {_word(self.sharp_holds)})"
        )


def descent_check(network: ImplicitNetwork, d: Tensor, y: Tensor, loss: Loss) -> DescentCheck:
    """Measure the hypotheses and the conclusion of JFB Theorem 3.1 for one sample.

    Works on a copy of the network on the CPU, in float64 and eval mode, with the fixed point solved to 1e-12 and dense Jacobians:
    memory is that of latent × parameters numbers.

    Args:
        network: its own solver and rule play no part. Frozen parameters count like the others.
        d: the sample, batch size 1.
        y: its target, as `loss` takes it.
        loss: `loss(prediction, y)`, a scalar.

    Raises:
        ValueError: d has another batch size; S shares parameters with Q or R (against Assumption 3.2); Q and R have none; a part
            uses parameters that the network does not know of; the loss is no scalar with a graph.
        RuntimeError: no fixed point was found to 1e-12.
    """
    case = Linearised(network, d, y, loss)
    g, z, M_T, M_S = case.g, case.z, case.M_T, case.M_S
    # the two differ in the block of θ_T alone: JFB takes g for z = (I − dT/du)⁻¹ g
    gradient = case.flat({"S": M_S @ case.dl, "T": M_T @ z})
    p = -case.flat({"S": M_S @ case.dl, "T": M_T @ g})
    # block by block: the extreme singular values of M, and Mᵀ gradient
    spectra = [_spectrum(M) for M in [M_T] + ([M_S] if M_S.numel() else [])]
    image = torch.cat([M_T.T @ (M_T @ z)] + ([M_S.T @ (M_S @ case.dl)] if M_S.numel() else []))
    low, high = min(low for low, _ in spectra), max(high for _, high in spectra)
    # what torch.linalg.matrix_rank takes for rounding by default
    full = low > _SMALL * max(len(gradient), len(image)) * high
    kappa, kappa_T = (_kappa(low, high) if full else math.inf), _kappa(*spectra[0])
    gamma = torch.linalg.matrix_norm(case.dT, 2).item()
    return DescentCheck(
        gradient=gradient,
        p=p,
        inner_product=(gradient @ p).item(),
        cosine=_cosine(gradient, -p),
        gamma=gamma,
        kappa=kappa,
        kappa_T=kappa_T,
        assumption_holds=full and kappa * gamma < 1,
        sharp_holds=full and gamma < 2 * math.sqrt(kappa_T) / (1 + kappa_T),
        # the eigenvalues of (MᵀM)⁻¹ are the 1/σ² of M
        bound=-(1 / high**2 - gamma / low**2) * (image @ image).item() if full else math.inf,
    )


@dataclass(frozen=True)
class PhantomCheck:
    """What `phantom_check` measured, in the phantom gradient paper's terms: θ are the parameters of Q and R.

    Attributes:
        gradient: ∂L/∂θ, phantom gradient [4], flat, in the order of `network.parameters()`.
        phantom: A ∂L/∂h, [5], without a minus sign.
        inner_product: ⟨phantom, gradient⟩, [7]; an ascent direction of the loss where it is positive.
        cosine: between the two; NaN where one of them is 0.
        residual: ‖A(I − ∂F/∂h) − ∂F/∂θ‖₂, the left side of [6].
        threshold: σ_min²/σ_max of ∂F/∂θ, its right side; σ_min is the n-th singular value, 0 with fewer than n parameters.
        sigma_min: σ_min.
        holds: residual < threshold, Theorem 1's condition.
        sharp_holds: residual < σ_min, which suffices, and cannot be improved for a general A.
    """

    gradient: Tensor
    phantom: Tensor
    inner_product: float
    cosine: float
    residual: float
    threshold: float
    sigma_min: float
    holds: bool
    sharp_holds: bool

    def __repr__(self) -> str:
        return (
            f"PhantomCheck(⟨phantom, gradient⟩ = {self.inner_product:.4g}, cosine {self.cosine:.4f}; residual "
            f"{self.residual:.4g}, threshold {self.threshold:.4g}, σ_min {self.sigma_min:.4g}; Theorem 1's condition "
            f"{_word(self.holds)}, sharp condition {_word(self.sharp_holds)})"
        )


def phantom_check(network: ImplicitNetwork, d: Tensor, y: Tensor, loss: Loss, rule: Callable) -> PhantomCheck:
    """Measure the condition and the conclusion of the phantom gradient paper's Theorem 1 for one sample and one rule.

    A is built column by column, by running the rule's backward pass on basis vectors. Otherwise as `descent_check`.

    Args:
        network: its own solver and rule play no part.
        d: the sample, batch size 1.
        y: its target, as `loss` takes it.
        loss: `loss(prediction, y)`, a scalar.
        rule: a backward rule of `jfb_tutorial.gradients`.

    Raises:
        ValueError: as for `descent_check`; or the rule iterates to a tolerance above threshold/10, to within which the residual
            means nothing.
        TypeError: the rule cannot be called, or is a class.
        RuntimeError: no fixed point was found to 1e-12, or the rule fails.
    """
    check_callable("rule", rule)
    case = Linearised(network, d, y, loss)
    with torch.enable_grad():
        # at a fixed point found to 1e-12, so that A shows the error of the rule and not that of a solver
        A = case.theta_T_rows(rule(case.T, case.u))
    smallest, largest = _spectrum(case.M_T)
    # 0 / 0 where ∂F/∂θ = 0: then no residual is below it
    threshold = smallest**2 / largest if largest else 0.0
    tol = getattr(rule, "tol", 0.0)
    if tol and tol > threshold / 10:
        raise ValueError(
            f"rule.tol must be at most a tenth of the threshold, {threshold / 10:.1e}, for the residual to mean anything, "
            f"got {tol:.1e}; lower it"
        )
    identity = torch.eye(len(case.dT), dtype=torch.float64)
    residual = torch.linalg.matrix_norm(A @ (identity - case.dT) - case.M_T, 2).item()
    gradient, phantom = case.M_T @ case.z, A @ case.g
    return PhantomCheck(
        gradient=gradient,
        phantom=phantom,
        inner_product=(gradient @ phantom).item(),
        cosine=_cosine(gradient, phantom),
        residual=residual,
        threshold=threshold,
        sigma_min=smallest,
        holds=residual < threshold,
        sharp_holds=residual < smallest,
    )


_SMALL = torch.finfo(torch.float64).eps


def _spectrum(M: Tensor) -> tuple[float, float]:
    """The smallest and the largest singular value of M `(p, n)`; the smallest is 0 with p < n, or if it is but rounding."""
    # descending, and min(p, n) of them: with p < n the n-th is 0 and not among them
    values = torch.linalg.svdvals(M)
    low, high = values[-1].item(), values[0].item()
    return (low if len(M) >= M.shape[1] and low > _SMALL * max(M.shape) * high else 0.0), high


def _kappa(low: float, high: float) -> float:
    """κ(MᵀM) from the singular values of M."""
    return (high / low) ** 2 if low > 0 else math.inf  # the eigenvalues of MᵀM are σ²


def _cosine(a: Tensor, b: Tensor) -> float:
    size = (a.norm() * b.norm()).item()
    return (a @ b).item() / size if size else math.nan


def _word(holds: bool) -> str:
    return "holds" if holds else "fails"
