"""One sample of an implicit network at its fixed point, with every Jacobian of JFB Appendix A as a dense matrix."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._jacobian import graph_nodes
from ..network import ImplicitNetwork
from ..solvers.anderson import Anderson
from ..solvers.iteration import FixedPointIteration

__all__ = ["Linearised"]

Loss = Callable[[Tensor, Tensor], Tensor]


class Linearised:
    """One sample of a network at its fixed point, on the CPU, in float64 and eval mode, with every Jacobian as a dense matrix.

    In the layout of JFB Appendix A, the transpose of PyTorch's: a column for each output. n unknowns, c inferences.

    Args:
        network: its own solver and rule play no part; it is copied.
        d: the sample, batch size 1.
        y: its target, as `loss` takes it.
        loss: `loss(prediction, y)`, a scalar.

    Attributes:
        u: `(1, *latent)`, the fixed point, to 1e-12; packed, `(1, n)`, where Q(d) is a tuple.
        T: u ↦ T(u; d).
        dT: `(n, n)`, dT/du.
        M_T: `(p_T, n)`, ∂T/∂θ_T, the parameters of Q and R in the order of `network.parameters()`.
        M_S: `(p_S, c)`, ∂S/∂θ_S; without parameters in S, p_S = 0.
        dS: `(n, c)`, dS/du.
        dl: `(c,)`, ∂ℓ/∂y at the inference.

    Raises:
        TypeError, ValueError, RuntimeError: as `descent_check`.
    """

    def __init__(self, network: ImplicitNetwork, d: Tensor, y: Tensor, loss: Loss) -> None:
        if not isinstance(network, ImplicitNetwork):
            raise TypeError(f"network must be an ImplicitNetwork, got {type(network).__name__}")
        if not isinstance(d, Tensor) or d.ndim == 0 or len(d) != 1:
            shape = tuple(d.shape) if isinstance(d, Tensor) else type(d).__name__
            raise ValueError(f"d must have batch size 1, got {shape}: the theorem is about one sample; pass d[:1]")
        # a copy, so that the caller's keeps its dtype, its mode and its gradients
        network = _on_the_cpu(copy.deepcopy(network)).eval()
        d, y = (_on_the_cpu(x) if isinstance(x, Tensor) else x for x in (d, y))
        self._parameters = list(network.parameters())
        self._theta_S, self._theta_T = partition(network)
        with torch.inference_mode(False), torch.enable_grad():
            for parameter in self._parameters:
                # frozen ones too: the theorems are about all of θ
                parameter.requires_grad_()
            self.T = network.operator(d)
            self.u = solved(self.T, self.T.zeros())
            u = self.u.clone().requires_grad_()
            v = self.T(u)
            refuse_strangers("Q or R", v, u, self._theta_T, self._theta_S)
            self.dT, self.M_T = _derivative(v, [u]), _derivative(v, self._theta_T)
            prediction = network.S(self.T.unpack(u))
            refuse_strangers("S", prediction, u, self._theta_S, self._theta_T)
            self.dS, self.M_S = _derivative(prediction, [u]), _derivative(prediction, self._theta_S)
            # a leaf of its own, so that ∂ℓ/∂y is had without S
            output = prediction.detach().requires_grad_()
            # a loss that is a module may have numbers of its own, such as class weights, in float32
            value = (_on_the_cpu(copy.deepcopy(loss)) if isinstance(loss, nn.Module) else loss)(output, y)
            if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
                what = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"loss must return a scalar tensor with a graph, got {what}; reduce it by mean or sum")
            self.dl = _grad(value.reshape(()), [output])

    @property
    def M(self) -> Tensor:
        """`(p_S + p_T, c + n)`, JFB (17); without parameters in S only the T block."""
        return torch.block_diag(self.M_S, self.M_T) if self._theta_S else self.M_T

    @property
    def g(self) -> Tensor:
        """`(n,)`, the gradient of the loss by u, dS/du ∂ℓ/∂y."""
        return self.dS @ self.dl

    @property
    def z(self) -> Tensor:
        """`(n,)`, the adjoint (I − dT/du)⁻¹ g."""
        return torch.linalg.solve(torch.eye(len(self.dT), dtype=torch.float64) - self.dT, self.g)

    def theta_T_rows(self, value: Tensor) -> Tensor:
        """`(p_T, n)`, what reaches θ_T through the graph of `value` from each basis vector: A of [5] for a rule's value."""
        return _derivative(value, self._theta_T)

    def flat(self, blocks: dict[str, Tensor]) -> Tensor:
        """The blocks of θ_S and θ_T in the order of the network's parameters."""
        parts: dict[int, Tensor] = {}
        for name, theta in (("S", self._theta_S), ("T", self._theta_T)):
            sizes = [parameter.numel() for parameter in theta]
            parts |= dict(zip(map(id, theta), blocks[name].split(sizes) if sizes else (), strict=True))
        # a parameter of no part has the derivative 0
        return torch.cat([parts.get(id(p), torch.zeros(p.numel(), dtype=torch.float64)) for p in self._parameters])


def partition(network: ImplicitNetwork) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters of S, and those of Q and R; refuses shared ones, and none at all."""
    # parameters are told apart by identity: == compares their numbers
    in_S = _identities(network.S)
    in_T = _identities(network.Q) | _identities(network.R)
    if in_S & in_T:
        raise ValueError("S must not share parameters with Q or R: that breaks Assumption 3.2")
    theta_S = [p for p in network.parameters() if id(p) in in_S]
    theta_T = [p for p in network.parameters() if id(p) in in_T]
    if not theta_T:
        raise ValueError("Q and R must have parameters: without any there is no gradient to check")
    return theta_S, theta_T


def refuse_strangers(name: str, value: Tensor, u: Tensor, own: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """Refuse parameters that reach `value` through a closure, which `network.parameters()` would miss."""
    known = {id(p) for p in own} | {id(u)}
    for node in graph_nodes(value):
        leaf = getattr(node, "variable", None)
        if leaf is None or id(leaf) in known:
            continue
        if any(leaf is p for p in others):
            raise ValueError(f"{name} must not use a parameter of the other part: that breaks Assumption 3.2")
        raise ValueError(f"{name} uses a parameter that the network does not know of; make it a torch.nn.Module")


def rows(v: Tensor, inputs: Sequence[Tensor], cotangents: Tensor) -> Tensor:
    """The products of the rows of `cotangents` with dv/d(inputs), `(rows, inputs)`, a backward pass for each."""
    return torch.stack([_grad(v, inputs, row.reshape(v.shape)) for row in cotangents])


def _derivative(v: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """dv/d(inputs), `(inputs, v.numel())`: the transpose makes it a column for each output, as in JFB's layout."""
    return rows(v, inputs, torch.eye(v.numel(), dtype=v.dtype)).T


def _on_the_cpu(x: Any) -> Any:
    """A tensor or a module there, what is floating point in float64: dense matrices of many sizes gain nothing by a GPU."""
    return x.to("cpu", torch.float64) if isinstance(x, nn.Module) or x.is_floating_point() else x.cpu()


def _identities(part) -> set[int]:
    return {id(p) for p in part.parameters()} if isinstance(part, nn.Module) else set()


def solved(T: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """The fixed point to 1e-12, absolute or relative to its size, whichever is larger."""
    tried = []
    for solver in (FixedPointIteration, Anderson):
        # relative too: the rounding of a large u exceeds 1e-12
        for relative in (False, True):
            try:
                solution = solver(tol=1e-12, max_steps=5000, relative=relative)(T, start)
            except FloatingPointError as error:
                # it runs away, however the tolerance is meant: on to the next solver
                tried.append(str(error))
                break
            if bool(solution.converged.all()):
                return solution.u
            tried.append(f"residual {solution.residual.max():.1e}")
    raise RuntimeError(f"no fixed point found to 1e-12 ({tried[-1]}); is T a contraction in eval mode?")


def _grad(v: Tensor, inputs: Sequence[Tensor], g: Tensor | None = None) -> Tensor:
    """gᵀ dv/d(inputs), flat; 0 where v does not depend on them."""
    if not inputs or not v.requires_grad:
        return v.new_zeros(sum(x.numel() for x in inputs))
    parts = torch.autograd.grad(v, inputs, g, retain_graph=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])
