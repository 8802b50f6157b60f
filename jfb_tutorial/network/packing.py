"""States that are tuples of tensors, as the one tensor `(batch, n)` that solvers and backward rules see."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from ..solvers.iteration import rows

State = Tensor | tuple[Tensor, ...]
"""A latent: `(batch, *latent)`, or a tuple of such tensors of one batch size, dtype and device."""


class LatentOperator:
    """T(·; d) = R(·, Q(d)), JFB (6), with the state packed: what solvers, rules and measurements call.

    Where Q(d) is a tensor, packing does nothing. Where it is a tuple, the parts are flattened and concatenated sample by sample.

    Args:
        R: maps u and q to a state like q.
        q: Q(d), with its graph.

    Raises:
        TypeError, ValueError: q is no state.
    """

    def __init__(self, R: Callable[[State, State], State], q: State) -> None:
        check_state("Q(d)", q)
        self.R, self.q = R, q

    def __call__(self, u: Tensor) -> Tensor:
        """T(u), packed like u."""
        q = self.q
        version = _version(q)
        # what comes back as one tensor is checked by whoever called T
        v = cast(Tensor, self.R(u, q)) if isinstance(q, Tensor) else self.pack("R(u, q)", self.R(self.unpack(u), q))
        if _version(q) != version:
            raise ValueError(
                "R must not write into q: it changed Q(d) in place, and each step would be one of another T; use out-of-place "
                "operations"
            )
        return v

    def zeros(self) -> Tensor:
        """The start u⁰ = 0, packed."""
        if isinstance(self.q, Tensor):
            return torch.zeros_like(self.q)
        # concatenated to have the packed shape and, under autocast, the widest dtype of the parts
        return torch.zeros_like(_concatenated(tuple(part.detach() for part in self.q)))

    def start(self, u0: State) -> Tensor:
        """A start `u0` of the caller's, packed; one that is packed already, such as `network.last.u`, is taken as it is.

        Raises:
            TypeError, ValueError: it is not like Q(d) in structure, shape, dtype or device.
        """
        if isinstance(self.q, Tensor):
            return check_like("u0", u0, "Q(d)", self.q)
        if isinstance(u0, Tensor):
            return check_like("u0", u0, "Q(d), packed", self.zeros())
        return self.pack("u0", u0)

    def pack(self, name: str, state: State) -> Tensor:
        """A tuple like Q(d) as one tensor `(batch, n)`; what is called `name` in the error if it is not like Q(d)."""
        if isinstance(self.q, Tensor):
            return check_like(name, state, "Q(d)", self.q)
        if not isinstance(state, tuple) or len(state) != len(self.q):
            got = f"a tuple of {len(state)}" if isinstance(state, tuple) else type(state).__name__
            raise TypeError(
                f"{name} must be a tuple of {len(self.q)} tensors like Q(d), got {got}; return one for each"
            )
        for number, (part, like) in enumerate(zip(state, self.q, strict=True)):
            check_like(f"{name}[{number}]", part, f"Q(d)[{number}]", like)
        return _concatenated(state)

    def unpack(self, u: Tensor) -> State:
        """What R and S see of the packed u, `(batch, n)`: views of its parts in their shapes."""
        if isinstance(self.q, Tensor):
            return u
        # a part (batch,) has one column: the product of no numbers is 1
        parts = u.split([math.prod(part.shape[1:]) for part in self.q], dim=1)
        return tuple(part.reshape(like.shape) for part, like in zip(parts, self.q, strict=True))


def _version(q: State) -> int:
    """What autograd counts as written into q in place; tensors of inference mode have no such count."""
    if isinstance(q, Tensor):  # asked first, since this is called twice in every step
        return 0 if q.is_inference() else q._version
    return sum(_version(part) for part in q)


def check_state(name: str, q: State) -> None:
    """Refuse what is neither a tensor nor a tuple of floating-point tensors of one batch size, dtype and device."""
    if isinstance(q, Tensor):
        return  # its dtype and shape are the solver's to check
    if not isinstance(q, tuple) or not q:
        what = "an empty tuple" if isinstance(q, tuple) else type(q).__name__
        raise TypeError(f"{name} must be a tensor or a tuple of tensors, got {what}; let Q return one of these")
    for number, part in enumerate(q):
        if not isinstance(part, Tensor) or not part.is_floating_point():
            kind = part.dtype if isinstance(part, Tensor) else type(part).__name__
            raise TypeError(f"{name}[{number}] must be a floating-point tensor, got {kind}; tuples are not nested")
        # q[0] comes first, so that one without a batch is refused before its length is asked
        if part.ndim == 0 or len(part) != len(q[0]):
            raise ValueError(
                f"{name}[{number}] must be (batch, …) with the batch of {name}[0], {len(q[0]) if q[0].ndim else 'none'}, "
                f"got shape {tuple(part.shape)}; expand it"
            )
        _check_type_and_device(f"{name}[{number}]", part, f"{name}[0]", q[0])


def check_like(name: str, state: State, other: str, like: Tensor) -> Tensor:
    """`state`, if it is a tensor of the shape, dtype and device of `like`, which is called `other`."""
    if not isinstance(state, Tensor):
        raise TypeError(f"{name} must be a tensor like {other}, got {type(state).__name__}; give one of its shape")
    if state.shape != like.shape:
        raise ValueError(
            f"{name} must have the shape of {other}, {tuple(like.shape)}, got {tuple(state.shape)}; reshape or expand it"
        )
    _check_type_and_device(name, state, other, like)
    return state


def _check_type_and_device(name: str, part: Tensor, other: str, like: Tensor) -> None:
    if part.device != like.device:
        raise ValueError(
            f"{name} must be on the device of {other}, {like.device}, got {part.device}; "
            f'write .to("{like.device}") after it'
        )
    # autocast gives its layers dtypes of its own; concatenating takes the wider one then
    if part.dtype != like.dtype and not torch.is_autocast_enabled(like.device.type):
        raise TypeError(f"{name} must have the dtype of {other}, {like.dtype}, got {part.dtype}; convert it")


def _concatenated(parts: tuple[Tensor, ...]) -> Tensor:
    """`(batch, n)`; a part that is `(batch,)` takes one column."""
    return torch.cat([rows(part) for part in parts], dim=1)
