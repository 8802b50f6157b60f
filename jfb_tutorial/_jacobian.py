"""Products with the Jacobian of one recorded evaluation: what backward rules and measurements share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Product = Callable[[Tensor], Tensor]


def products(v: Tensor, u: Tensor) -> tuple[Product, Product]:
    """Products with J = dv/du from the graph of v = T(u): `apply(x)` is J x, `transposed(w)` is Jᵀ w.

    Both take and return tensors of the shape of u. J x is the derivative by w of ⟨Jᵀw, x⟩, JFB (76), so that two reverse
    passes serve where forward-mode differentiation is missing; the second graph is recorded when `apply` is first called.

    Args:
        v: the value T(u), `(batch, *latent)`, with its graph. One without a graph does not depend on u: then J = 0.
        u: the argument, a leaf that requires a gradient.
    """
    twice = None  # w and wJ, with a graph

    def transposed(w: Tensor) -> Tensor:
        if not v.requires_grad:
            return torch.zeros_like(w)
        # PyTorch advises against autocast in a backward pass: its operations have the dtypes of the forward pass
        with torch.autocast(u.device.type, enabled=False):
            # one graph serves every product, so it is retained; None where v depends on parameters but not on u
            (product,) = torch.autograd.grad(v, u, w, retain_graph=True, allow_unused=True)
        return torch.zeros_like(w) if product is None else product

    def apply(x: Tensor) -> Tensor:
        nonlocal twice
        if not v.requires_grad:
            return torch.zeros_like(x)
        with torch.autocast(u.device.type, enabled=False):
            try:
                if twice is None:
                    twice = _record(v, u)
                w, image = twice
                if image is None:  # v does not depend on u
                    return torch.zeros_like(x)
                (product,) = torch.autograd.grad(image, w, x, retain_graph=True, allow_unused=True)
            except RuntimeError as error:
                # PyTorch's words about a compiled graph; any other error is of T's own making
                if "double backward" not in str(error):
                    raise
                raise TypeError(f"{_ONCE}; is T compiled? An operator that is not will do") from error
        if product is None:
            raise TypeError(f"{_ONCE}; is it once_differentiable?")
        return product

    return apply, transposed


_ONCE = "the backward pass of T cannot be differentiated, so J x is not to be had"


def _record(v: Tensor, u: Tensor) -> tuple[Tensor, Tensor | None]:
    """w, and w J with its graph."""
    with torch.inference_mode(False), torch.enable_grad():
        # Jᵀw is linear in w, so its derivative by w is the same at every w: zeros will do
        w = torch.zeros_like(v, requires_grad=True)
        (image,) = torch.autograd.grad(v, u, w, create_graph=True, allow_unused=True)
        if image is not None and not image.requires_grad:
            # rounding and comparing have the derivative 0, and no graph of it either: Jᵀw = 0 for a w at random
            if not torch.autograd.grad(v, u, noise(v.shape).to(v), retain_graph=True)[0].any():
                return w, None
            raise TypeError(f"{_ONCE}; is it once_differentiable?")
        return w, image


def graph_nodes(v: Tensor) -> Iterator:
    """Every node of the graph of v, once; those of leaves have the leaf as `variable`."""
    # a stack and no recursion, for which graphs of many steps are too deep
    stack, seen = [v.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            stack.extend(parent for parent, _ in node.next_functions)


@contextmanager
def buffers_kept(T):
    """A module's buffers, its running statistics, are put back afterwards."""
    buffers = dict(T.named_buffers()) if isinstance(T, nn.Module) else {}
    saved = {name: buffer.detach().clone() for name, buffer in buffers.items()}
    try:
        yield
    finally:
        with torch.no_grad():
            # a buffer that has not changed keeps its version, which graphs recorded meanwhile rely on
            changed = [_differ(buffer, saved[name]) for name, buffer in buffers.items()]
            for (name, buffer), restore in zip(buffers.items(), _read(changed), strict=True):
                if restore:
                    buffer.data = saved[name]


def _differ(x: Tensor, y: Tensor) -> Tensor:
    """Whether they differ, a bool on their device; a version does not tell, since batch normalisation writes without one."""
    return (x != y).any() if x.shape == y.shape else torch.ones((), dtype=torch.bool, device=x.device)


def _read(flags: list[Tensor]) -> list[bool]:
    """All at once: torch.equal would wait for the device each time."""
    return torch.stack([flag.to(flags[0].device) for flag in flags]).tolist() if flags else []


def noise(shape: tuple[int, ...]) -> Tensor:
    """Standard normal, float64 and on the CPU: the same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
