"""Refusing second derivatives of rules for which u* is a constant.

What JFB and the unrolled phantom gradient return are ordinary graphs, which autograd would differentiate again without a word.
But a second derivative by θ needs du*/dθ, and a constant has none: the result would be the derivative neither of the exact
gradient nor of JFB's. Whether there will be one is not known in the first backward pass (`torch.func.grad` always makes a graph
of its own), so a trap is laid there, which only a second one that goes through u* springs.
"""

from __future__ import annotations

import torch
from torch import Tensor

_REFUSAL = (
    "JFB and UnrolledPhantom hold u* constant, so that their gradient has no derivative by what u* depends on "
    "(create_graph=True, a Hessian-vector product, a gradient penalty); use Unrolled, which has all derivatives"
)


@torch.compiler.disable
def differentiable_once(v: Tensor) -> Tensor:
    """v, the gradient of which cannot be differentiated by what v depends on."""
    if not (torch.is_grad_enabled() and v.requires_grad):
        return v
    # no number of v, but its place in the graph: to keep v itself for the backward pass would cost the memory of a latent
    anchor = v[:0].clone()
    return (_OnceInTransforms if torch._C._are_functorch_transforms_active() else _Once).apply(v, anchor)


class _Identity(torch.autograd.Function):
    """(v, anchor) ↦ v, with the anchor saved; the gradient depends on it, as far as autograd is told, by way of the trap."""

    @staticmethod
    def backward(ctx, g: Tensor):
        if not torch.is_grad_enabled():
            return g, None  # no graph of this pass is made, and nothing can be differentiated again
        (anchor,) = ctx.saved_tensors
        return g + _Trap.apply(anchor).sum(), None  # the sum of nothing: g, with a second parent

    @staticmethod
    def jvp(ctx, tangent: Tensor, _: Tensor) -> Tensor:
        return tangent.view_as(tangent)


class _Once(_Identity):
    """In the form that costs less, a few parts in a hundred of a millisecond."""

    @staticmethod
    def forward(ctx, v: Tensor, anchor: Tensor) -> Tensor:
        ctx.save_for_backward(anchor)
        return v.detach()  # not a view: what follows may write into it


class _OnceInTransforms(_Identity):
    """In the form that torch.func asks for, which costs three times that."""

    generate_vmap_rule = True

    @staticmethod
    def forward(v: Tensor, anchor: Tensor) -> Tensor:
        return v.detach()

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])


class _Trap(torch.autograd.Function):
    """The identity; its own derivative, in either mode, is an error."""

    generate_vmap_rule = True

    @staticmethod
    def forward(v: Tensor) -> Tensor:
        return v.detach()

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx, g: Tensor):
        raise RuntimeError(_REFUSAL)

    @staticmethod
    def jvp(ctx, tangent: Tensor) -> Tensor:
        raise RuntimeError(_REFUSAL)
