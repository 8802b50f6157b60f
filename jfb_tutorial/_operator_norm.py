"""A linear or convolutional layer with a bounded operator norm, from which contractions are built."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from ._checks import check_integer, check_positive
from .solvers.iteration import eager

__all__ = ["operator_norm"]

KRYLOV = 20
"""Products with WᵀW between two looks at the residual. Plain power iteration would need hundreds, since the largest singular values
of a convolution lie close together (neighbouring frequencies of the image)."""
NOISE = 0.1
"""Length of the random vector that is added to the last singular vector, of length 1, before looking again: a direction that a
training step has made the largest may be orthogonal to the one that was, and would then never be seen."""
TOLERANCE = 1e-3
"""On the residual of the largest eigenvalue of WᵀW, relative to it. σ = √λ then misses by at most half of it."""
MAX_CYCLES = 100

Map = Callable[[Tensor, Tensor], Tensor]
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def operator_norm(module: Layer, gamma: float = 0.9, shape: tuple[int, int] | None = None) -> Layer:
    """Keep the operator norm of a layer's weight at or below γ, whatever training does: u ↦ W u is then a γ-contraction.

    The layer uses W · min(1, γ/‖W‖₂) in place of its weight W, which becomes `module.parametrizations.weight.original`. ‖W‖₂ is
    the norm of the linear map itself, for a convolution that of the map between images, zero or circular padding included.
    (`torch.nn.utils.parametrizations.spectral_norm` divides by the norm of the weight reshaped to a matrix, which for a 3×3
    convolution may be up to 3 times smaller or larger.) The bias plays no part. The gradient flows through the norm.

    ‖W‖₂ is found by power iteration on WᵀW, Lanczos's form of it, from a persistent buffer: at once and again at the first use after
    each change of W, in train and eval mode alike. So the layer is the same in all steps of one iteration. Twenty products with
    WᵀW on one vector are made each time, and more where they do not suffice; the device is read three times then.

    The estimate errs low. It ends with a relative residual of 1e-3 in WᵀW, so the layer's norm is at most γ (1 + 5e-4), provided that
    what was found is the largest singular value and not another; the iteration starts from the last singular vector and a
    random one to that end. A weight made in inference mode has no count of its changes, and is searched at each use. What changes W unseen (`weight.data.mul_`), and passes under `torch.func`, keep the vector found last.

    Args:
        module: an `nn.Linear`, or an `nn.Conv2d`; changed in place. Register it before the optimiser is made.
        gamma: γ, > 0.
        shape: (height, width) of the images that the convolution gets. On smaller ones its norm is no larger with zero padding;
            on larger ones it may be.

    Returns:
        The module.

    Raises:
        TypeError: another kind of module, a weight that is not floating point, or shape is no pair of integers.
        ValueError: γ or shape is not positive; a layer without inputs or outputs; a convolution without a shape, or a linear layer with one.
    """
    gamma = check_positive("gamma", gamma, "0.9 is the default")
    if isinstance(module, nn.Linear | nn.Conv2d):
        _check_weight(module.weight)
    if isinstance(module, nn.Conv2d):
        parametrization = OperatorNorm(
            gamma, _convolution(module), (module.in_channels, *_height_and_width(shape)), module.weight
        )
    elif isinstance(module, nn.Linear):
        if shape is not None:
            raise ValueError(f"shape is for convolutions; leave it out for a linear layer, got {shape}")
        parametrization = OperatorNorm(gamma, F.linear, (module.in_features,), module.weight)
    else:
        raise TypeError(
            f"module must be nn.Linear or nn.Conv2d, got {type(module).__name__}; bound its layers one by one"
        )
    parametrize.register_parametrization(module, "weight", parametrization)
    return module


@dataclass(frozen=True)
class Convolution:
    """(x, weight) ↦ the convolution without its bias, linear in both; a dataclass, so that a layer can be copied and saved."""

    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int
    mode: str
    frame: tuple[int, ...]

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.mode == "zeros":
            return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)
        return F.conv2d(F.pad(x, self.frame, self.mode), weight, None, self.stride, 0, self.dilation, self.groups)


class OperatorNorm(nn.Module):
    """The parametrisation W ↦ W · min(1, γ/‖A‖₂) of `operator_norm`, where A is the map x ↦ linear_map(x, W).

    Args:
        gamma: γ.
        linear_map: linear in x, `(k, *inputs)`, and in W.
        inputs: the shape of one x.
        weight: W, for its dtype and device and the first estimate.
    """

    vector: Tensor

    def __init__(self, gamma: float, linear_map: Map, inputs: tuple[int, ...], weight: Tensor) -> None:
        super().__init__()
        self.gamma, self.linear_map = gamma, linear_map
        work = torch.promote_types(weight.dtype, torch.float32)
        # zeros: the first search starts from the random vector alone
        self.register_buffer("vector", torch.zeros(1, *inputs, dtype=work, device=weight.device))
        self._found_for: int | None = None  # the version of the weight that `vector` belongs to
        self._search(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """The bounded weight, differentiable by `weight`."""
        self._refresh(weight)
        # under autocast the map, and with it σ, would be computed in half precision
        with torch.autocast(weight.device.type, enabled=False):
            work = torch.promote_types(weight.dtype, torch.float32)
            x = self.vector.to(work)
            # normed, since half precision rounds it; a new tensor, since the buffer may change before the backward pass
            x = x / torch.linalg.vector_norm(x)
            # d‖Ax‖/dA = (Ax/‖Ax‖)xᵀ is the derivative of the norm of A at its largest singular vector x
            sigma = torch.linalg.vector_norm(self.linear_map(x, weight.to(work)))
        # where σ < γ the factor is 1, and the clamp lets no gradient through to σ
        return weight * (self.gamma / sigma.clamp(min=self.gamma)).to(weight.dtype)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What `module.weight = …` stores: the weight itself, bounded when it is used."""
        return weight

    @eager
    @torch.no_grad()
    def _refresh(self, weight: Tensor) -> None:
        """Iterate to the tolerance, if the weight has changed since."""
        if torch._C._functorch.is_functorch_wrapped_tensor(weight):
            return  # a buffer cannot keep what depends on it
        # a weight of inference mode has no version, and may have changed at any time
        if weight.is_inference() or weight._version != self._found_for:
            self._search(weight)

    @eager
    @torch.no_grad()
    def _search(self, weight: Tensor) -> None:
        """Iterate to the tolerance."""
        if not bool(weight.isfinite().all()):
            return  # what is not finite shows in the solver, which names the step and the samples
        if weight.is_inference():
            with torch.inference_mode(False):  # a tensor made there cannot be part of a graph, as `_gram` makes one
                weight = weight.clone()
        work = torch.promote_types(weight.dtype, torch.float32)
        with torch.autocast(weight.device.type, enabled=False):
            vector = self._singular_vector(weight.detach().to(work), self.vector.to(work)).to(self.vector.dtype)
        if self.vector.is_inference():  # into which nothing may be written outside of that mode
            self.vector = vector
        else:
            self.vector.copy_(vector)
        self._found_for = weight._version

    def _singular_vector(self, weight: Tensor, x: Tensor) -> Tensor:
        """The right singular vector of the largest singular value, of the shape of x, an earlier one."""
        # a generator of its own: that a layer is bounded changes no other random number of a run
        generator = torch.Generator(x.device).manual_seed(0)
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        x = x + NOISE * noise / torch.linalg.vector_norm(noise)
        for _ in range(MAX_CYCLES):
            x, miss = self._lanczos(weight, x)
            missed = miss.item()
            if missed <= TOLERANCE:
                return x
        warnings.warn(
            f"the operator norm was not found to {TOLERANCE:g} in {MAX_CYCLES * KRYLOV} steps, relative residual "
            f"{missed:.1e}; the bound γ holds to about that",
            RuntimeWarning,
            stacklevel=2,
        )
        return x

    def _lanczos(self, weight: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """The best vector of the Krylov space of WᵀW and `start`, of length 1, and its residual relative to its eigenvalue."""
        b = start.flatten() / torch.linalg.vector_norm(start)
        basis, products = b[None], b.new_empty(0, b.numel())
        for _ in range(min(KRYLOV, b.numel())):
            y = self._gram(weight, b.reshape(start.shape)).flatten()
            products = torch.cat([products, y[None]])
            size = torch.linalg.vector_norm(y)
            # against all vectors, where Lanczos's recurrence takes the last two: rounding would bring back the earlier ones
            for _ in range(2):  # once loses orthogonality to rounding, twice does not
                y = y - (basis @ y) @ basis
            rest = torch.linalg.vector_norm(y)
            # 0 where the space is invariant and only rounding is left; a basis vector of 0 does no harm
            b = torch.where(rest > 10 * torch.finfo(y.dtype).eps * size, y / rest, 0.0)
            basis = torch.cat([basis, b[None]])
        basis = basis[:-1]  # its last vector has no product yet
        H = products @ basis.T
        # WᵀW on the basis: symmetric (tridiagonal even) but for rounding, and eigh reads one triangle only
        values, vectors = torch.linalg.eigh((H + H.T) / 2)  # ascending
        # of W = 0 every vector is the largest, those of 0 in the basis too: take the first
        best = torch.where(values[-1] > 0, vectors[:, -1], torch.eye(len(values), dtype=y.dtype, device=y.device)[0])
        x, y = best @ basis, best @ products
        residual = torch.linalg.vector_norm(y - values[-1] * x)
        # 0 / 0 where W = 0
        return x.reshape(start.shape), torch.where(residual == 0, 0.0, residual / values[-1])

    def _gram(self, weight: Tensor, x: Tensor) -> Tensor:
        """WᵀW x, `(1, *inputs)`: the gradient of ‖Wx‖²/2 by x, a convolution and its transpose."""
        with torch.inference_mode(False), torch.enable_grad():
            # the clone is made outside inference mode, whose own tensors cannot require a gradient
            x = x.clone().requires_grad_()
            y = self.linear_map(x, weight)
            return torch.autograd.grad(y, x, y.detach())[0]

    def extra_repr(self) -> str:
        """γ, for `print(module)`."""
        return f"gamma={self.gamma}"


def _check_weight(weight: Tensor) -> None:
    """Refuse a weight that has no norm."""
    if isinstance(weight, nn.parameter.UninitializedParameter) or weight.is_meta:
        raise ValueError(
            "module must have its numbers, got a weight without any; call a lazy layer once, or load one of the device meta, first"
        )
    if not weight.is_floating_point():
        raise TypeError(f"module must have a floating-point weight, got {weight.dtype}; take real numbers")
    if not weight.numel():
        raise ValueError(
            f"module must have at least one input and one output, got a weight of shape {tuple(weight.shape)}"
        )


def _convolution(module: nn.Conv2d) -> Convolution:
    return Convolution(
        module.stride,
        module.padding,
        module.dilation,
        module.groups,
        module.padding_mode,
        tuple(module._reversed_padding_repeated_twice),  # what nn.Conv2d itself hands to F.pad
    )


def _height_and_width(shape: tuple[int, int] | None) -> tuple[int, int]:
    if shape is None:
        raise ValueError(
            "shape must be given for a convolution, whose norm depends on the size of its images; (height, width)"
        )
    if not isinstance(shape, tuple | list | torch.Size) or len(shape) != 2:
        raise TypeError(f"shape must be (height, width) of the images, got {shape!r}")
    height, width = (check_integer("shape", side, 1, "(height, width) in pixels") for side in shape)
    return height, width
