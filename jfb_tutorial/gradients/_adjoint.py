"""What all backward rules with an adjoint share: where it is attached to the graph, and what it costs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual
from torch.autograd.function import BackwardCFunction

from .._checks import check_latent
from .._jacobian import graph_nodes
from ..solvers.iteration import eager, recorded

__all__ = ["Tally", "tally"]

Operator = Callable[[Tensor], Tensor]


# eq=False: `tallies.remove` has to find this tally, not another with the same counts
@dataclass(eq=False)
class Tally:
    """What backward passes cost while `tally()` was counting.

    Attributes:
        products: products with J in either direction: one for each vector-Jacobian and for each Jacobian-vector product. The
            last reverse pass, from w to the parameters, is none of them: every rule makes it.
        residuals: the relative residual with which each solve of `ImplicitDifferentiation` ended (the largest, per sample).
    """

    products: int = 0
    residuals: list[float] = field(default_factory=list)


@contextmanager
def tally() -> Iterator[Tally]:
    """Count the products of the backward passes inside: `with tally() as count: loss.backward()`.

    Those of this thread, and of threads that count nothing themselves: on a GPU the backward pass runs in one of autograd's own.
    """
    record = Tally()
    tallies.opened.append((threading.get_ident(), record))
    try:
        yield record
    finally:
        tallies.opened.remove((threading.get_ident(), record))


class _Tallies:
    """The open tallies that a product of this thread counts for."""

    def __init__(self) -> None:
        self.opened: list[tuple[int, Tally]] = []

    def __iter__(self) -> Iterator[Tally]:
        # no context variable: autograd's threads for a GPU, which open no tally, have not the context of their caller
        own = threading.get_ident()
        mine = [record for thread, record in self.opened if thread == own]
        return iter(mine or [record for _, record in self.opened])


tallies = _Tallies()


class _Adjoint(torch.autograd.Function):
    """The identity; its backward pass hands the gradient to `adjoint` and passes on what that returns."""

    @staticmethod
    def forward(ctx, v: Tensor, adjoint: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.adjoint = adjoint
        return v.detach()  # not a view: what follows may write into it

    @staticmethod
    def backward(ctx, g: Tensor):
        if torch.is_grad_enabled():
            # in a backward pass gradients are enabled by create_graph=True only
            # the result depends on the parameters through J as well, which no graph of this pass would record
            raise RuntimeError(
                "this backward rule cannot be differentiated again (create_graph=True, or solver='cg' around it); use Unrolled"
            )
        if torch._C._functorch.is_batchedtensor(g) or torch._C._functorch.is_legacy_batchedtensor(g):
            raise RuntimeError(
                "this backward rule takes one gradient at a time (no vmap, is_grads_batched=True or vectorize=True): make a backward "
                "pass for each, or use Unrolled"
            )
        # None: `adjoint` is no tensor and has no gradient
        return ctx.adjoint(g), None


@eager
def with_adjoint(
    T: Operator, u_star: Tensor, adjoint: Callable[[Tensor, Tensor, Tensor], Tensor], *, twice: bool = False
):
    """T(u*), the gradient of which goes through `adjoint(g, v, u)` first; T is evaluated once, for both.

    `twice` asks for a graph that can be differentiated twice, which a compiled one cannot.
    """
    u = constant(u_star)
    if not torch.is_grad_enabled():
        return _without_tangent(recorded(T, u, "u_star"))
    if torch._C._are_functorch_transforms_active():
        # they differentiate functions, and the adjoint needs the graph of one evaluation
        raise RuntimeError(f"this backward rule does not run under the transforms of torch.func; {_OTHERS}")
    u.requires_grad_()  # a tensor of its own: u_star is not touched
    v = _without_tangent(torch.compiler.disable(recorded)(T, u, "u_star") if twice else recorded(T, u, "u_star"))
    # nothing behind v needs a gradient: no graph, and no adjoint equation to solve in the backward pass
    if not _reaches_other_leaves(v, u):
        return v.detach()
    return _attach(v, lambda g: adjoint(g, v, u))


_OTHERS = "JFB, UnrolledPhantom and Unrolled do, of which Unrolled is exact"


@torch.compiler.disable
def _without_tangent(v: Tensor) -> Tensor:
    """v, refused if it carries a tangent of forward-mode differentiation: that is ∂T alone, without the factor (I − J)⁻¹."""
    if unpack_dual(v).tangent is not None:
        raise RuntimeError(f"this backward rule has no forward mode (torch.autograd.forward_ad); {_OTHERS}")
    return v


@torch.compiler.disable
def _attach(v: Tensor, adjoint: Callable[[Tensor], Tensor]) -> Tensor:
    # not compiled: the adjoint calls autograd, in loops that may depend on the data
    return _Adjoint.apply(v, adjoint)


@torch.compiler.disable
def constant(u_star: Tensor) -> Tensor:
    """u* without its graph, and fit to be recorded."""
    check_latent("u_star", u_star)
    # autograd cannot save a tensor of inference mode; a clone made outside of it is an ordinary one
    return u_star.clone() if u_star.is_inference() and not torch.is_inference_mode_enabled() else u_star.detach()


@torch.compiler.disable
def _reaches_other_leaves(v: Tensor, u: Tensor) -> bool:
    """Whether a gradient of v would reach anything but u."""
    if v.grad_fn is None:
        return v.requires_grad and v is not u  # v is a leaf: a parameter that T returned as it is, or u
    # a function written in Python may hold parameters that the graph does not show (reentrant checkpoints do)
    # only nodes of leaves have a `variable`; the default makes all others pass for u
    return any(getattr(node, "variable", u) is not u or isinstance(node, BackwardCFunction) for node in graph_nodes(v))


def counted_products(*pair):
    """The same products, each call of which every open tally counts."""

    def counting(product):
        def call(x: Tensor) -> Tensor:
            for record in tallies:
                record.products += 1
            return product(x)

        return call

    return tuple(counting(product) for product in pair)
