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
    return (_OnceInTransforms if torch._C._are_functorch_transforms_active() else _Once).apply(v)[0]


class _Identity(torch.autograd.Function):
    """v ↦ (v, anchor), with the anchor saved; the gradient depends on it, as far as autograd is told, by way of the trap.

    The anchor has no numbers, but a place in the graph: to keep v itself for the backward pass would cost the memory of a latent.
    """

    @staticmethod
    def backward(ctx, g: Tensor | None, _: Tensor | None):
        if g is None or not torch.is_grad_enabled():
            return g  # no graph of this pass is made, and nothing can be differentiated again
        (anchor,) = ctx.saved_tensors
        return g + _Trap.apply(anchor).sum()  # the sum of nothing: g, with a second parent

    @staticmethod
    def jvp(ctx, tangent: Tensor) -> tuple[Tensor, Tensor]:
        return tangent.view_as(tangent), tangent.new_empty(0)


class _Once(_Identity):
    """In the form that costs less, a few parts in a hundred of a millisecond."""

    @staticmethod
    def forward(ctx, v: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)  # no zeros for the anchor
        anchor = v.new_empty(0)
        ctx.save_for_backward(anchor)
        return v.detach(), anchor  # not a view: what follows may write into it


class _OnceInTransforms(_Identity):
    """In the form that torch.func asks for, which costs three times that."""

    generate_vmap_rule = True

    @staticmethod
    def forward(v: Tensor) -> tuple[Tensor, Tensor]:
        return v.detach(), v.new_empty(0)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(output[1])


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
