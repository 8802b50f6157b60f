"""The bytes that a piece of work moves, if nothing stays in a cache::

with Traffic() as moved:
    network.Q(d)
moved.bytes
"""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Traffic"]


class Traffic(TorchDispatchMode):
    """Counts what PyTorch calls, and the bytes that the calls read and write; views move nothing.

    Attributes:
        calls: how many.
        bytes: what they read and write.
        convolutions: those of the bytes that convolutions do.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.bytes = self.convolutions = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if not function.is_view:
            tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
            size = sum(x.numel() * x.element_size() for x in tensors)
            self.calls += 1
            self.bytes += size
            self.convolutions += size * ("convolution" in str(function))
        return out
