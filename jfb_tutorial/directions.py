"""Whether a backward rule's direction descends: the hypotheses and the conclusion of JFB Theorem 3.1, measured.

Both checks are imported from `jfb_tutorial.theory`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .accelerated import Anderson
from .iteration import FixedPointIteration
from .network import ImplicitNetwork

__all__ = ["DescentCheck", "PhantomCheck", "descent_check", "phantom_check"]

Loss = Callable[[Tensor, Tensor], Tensor]


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

    Works on a copy of the network in float64 and eval mode, with the fixed point solved to 1e-12 and dense Jacobians: memory is
    that of latent × parameters numbers.

    Args:
        network: its own solver and rule play no part.
        d: the sample, batch size 1.
        y: its target, as `loss` takes it.
        loss: `loss(prediction, y)`, a scalar.

    Raises:
        ValueError: d has another batch size, S shares parameters with Q or R (against Assumption 3.2), or Q and R have none.
        RuntimeError: no fixed point was found to 1e-12.
    """
    case = _Instance(network, d, y, loss)
    J_S, n_S = case.theta_derivative(case.prediction, case.theta_S), len(case.theta_S)
    J_T = case.M
    gradient = case.flat({"S": case.gradient_S, "T": case.w @ J_T})
    p = -case.flat({"S": case.gradient_S, "T": case.g @ J_T})
    grams = [J_T @ J_T.T] + ([J_S @ J_S.T] if n_S else [])
    spectra = [_spectrum(gram) for gram in grams]
    # Mᵀ gradient, block by block
    image = torch.cat([J_T @ (case.w @ J_T)] + ([J_S @ case.gradient_S] if n_S else []))
    low, high = min(low for low, _ in spectra), max(high for _, high in spectra)
    full = all(low > 0 for low, _ in spectra) and low > len(image) * torch.finfo(torch.float64).eps * high
    kappa, kappa_T = (high / low if full else math.inf), _kappa(*spectra[0])
    gamma = torch.linalg.matrix_norm(case.J, 2).item()
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
        bound=-(1 / high - gamma / low) * (image @ image).item() if full else math.inf,
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
        RuntimeError: no fixed point was found to 1e-12, or the rule fails.
    """
    case = _Instance(network, d, y, loss)
    value = rule(case.T, case.u)
    A = torch.stack([case.theta_row(value, row) for row in torch.eye(value.numel(), dtype=torch.float64)])
    sigma = torch.linalg.svdvals(case.M)
    largest = sigma[0].item()
    smallest = sigma[-1].item() if case.M.shape[0] <= case.M.shape[1] else 0.0
    if smallest <= max(case.M.shape) * torch.finfo(torch.float64).eps * largest:
        smallest = 0.0
    threshold = smallest**2 / largest if largest else 0.0
    tol = getattr(rule, "tol", 0.0)
    if tol and tol > threshold / 10:
        raise ValueError(
            f"rule.tol must be at most a tenth of the threshold, {threshold / 10:.1e}, for the residual to mean anything, "
            f"got {tol:.1e}; lower it"
        )
    identity = torch.eye(len(case.J), dtype=torch.float64)
    residual = torch.linalg.matrix_norm((identity - case.J) @ A - case.M, 2).item()
    gradient, phantom = case.w @ case.M, case.g @ A
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


class _Instance:
    """One sample at its fixed point, in float64, with its dense Jacobians in PyTorch's layout.

    J is ∂T/∂u `(n, n)`, M is ∂T/∂θ_T `(n, p)` (the transpose of the paper's), g is ∂ℓ/∂u and w = g (I − J)⁻¹, both `(n,)`.
    """

    def __init__(self, network: ImplicitNetwork, d: Tensor, y: Tensor, loss: Loss) -> None:
        if not isinstance(network, ImplicitNetwork):
            raise TypeError(f"network must be an ImplicitNetwork, got {type(network).__name__}")
        if not isinstance(d, Tensor) or d.ndim == 0 or len(d) != 1:
            shape = tuple(d.shape) if isinstance(d, Tensor) else type(d).__name__
            raise ValueError(f"d must have batch size 1, got {shape}: the theorem is about one sample; pass d[:1]")
        network = copy.deepcopy(network).double().eval()
        d, y = (x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in (d, y))
        self.parameters = list(network.parameters())
        in_S = _identities(network.S)
        in_T = _identities(network.Q) | _identities(network.R)
        if in_S & in_T:
            raise ValueError("S must not share parameters with Q or R: that breaks Assumption 3.2")
        self.theta_S = [p for p in self.parameters if id(p) in in_S]
        self.theta_T = [p for p in self.parameters if id(p) in in_T]
        if not self.theta_T:
            raise ValueError("Q and R must have parameters: without any there is no gradient to check")
        with torch.enable_grad(), torch.inference_mode(False):
            for parameter in self.parameters:
                parameter.requires_grad_()
            self.T, start = network._operator(d)
            self.u = _solved(self.T, start)
            u = self.u.clone().requires_grad_()
            v = self.T(u)
            eye = torch.eye(v.numel(), dtype=torch.float64)
            self.J = torch.stack([_grad(v, [u], row.reshape(v.shape)) for row in eye])
            self.M = self.theta_derivative(v, self.theta_T)
            start = self.u.clone().requires_grad_()
            self.prediction = network.S(start)
            value = loss(self.prediction, y)
            self.g = _grad(value, [start])
            self.gradient_S = _grad(value, self.theta_S)
            self.w = torch.linalg.solve((eye - self.J).T, self.g)

    def theta_row(self, v: Tensor, row: Tensor) -> Tensor:
        return _grad(v, self.theta_T, row.reshape(v.shape))

    @staticmethod
    def theta_derivative(v: Tensor, theta: list[Tensor]) -> Tensor:
        """dv/dθ, `(v.numel(), p)`."""
        return torch.stack([_grad(v, theta, row.reshape(v.shape)) for row in torch.eye(v.numel(), dtype=v.dtype)])

    def flat(self, blocks: dict[str, Tensor]) -> Tensor:
        """The blocks of θ_S and θ_T in the order of the network's parameters."""
        parts = {}
        for name, theta in (("S", self.theta_S), ("T", self.theta_T)):
            sizes = [parameter.numel() for parameter in theta]
            parts |= dict(zip(map(id, theta), blocks[name].split(sizes) if sizes else (), strict=True))
        return torch.cat([parts[id(parameter)] for parameter in self.parameters])


def _identities(part) -> set[int]:
    return {id(p) for p in part.parameters()} if isinstance(part, nn.Module) else set()


def _solved(T: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """The fixed point to 1e-12, absolute or relative to its size, whichever is larger."""
    tried = []
    for solver in (FixedPointIteration, Anderson):
        for relative in (False, True):
            try:
                solution = solver(tol=1e-12, max_steps=5000, relative=relative)(T, start)
            except FloatingPointError as error:
                tried.append(str(error))
                break
            if bool(solution.converged.all()):
                return solution.u
            tried.append(f"residual {solution.residuals[-1].max():.1e}")
    raise RuntimeError(f"no fixed point found to 1e-12 ({tried[-1]}); is T a contraction in eval mode?")


def _grad(v: Tensor, inputs: list[Tensor], g: Tensor | None = None) -> Tensor:
    """gᵀ dv/d(inputs), flat; 0 where v does not depend on them."""
    if not inputs:
        return torch.zeros(0, dtype=torch.float64)
    if not v.requires_grad:
        return torch.cat([torch.zeros(x.numel(), dtype=torch.float64) for x in inputs])
    parts = torch.autograd.grad(v, inputs, g, retain_graph=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])


def _spectrum(gram: Tensor) -> tuple[float, float]:
    """The smallest and the largest eigenvalue; the smallest is 0 if it is nothing but rounding."""
    values = torch.linalg.eigvalsh(gram)
    low, high = values[0].item(), values[-1].item()
    return (low if low > len(gram) * torch.finfo(gram.dtype).eps * high else 0.0), high


def _kappa(low: float, high: float) -> float:
    return high / low if low > 0 else math.inf


def _cosine(a: Tensor, b: Tensor) -> float:
    size = (a.norm() * b.norm()).item()
    return (a @ b).item() / size if size else math.nan


def _word(holds: bool) -> str:
    return "holds" if holds else "fails"
