"""Checks of arguments that several modules share: an error names the argument, the fault and the remedy."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Real

import torch
from torch import Tensor, nn


def store(settings, **checked) -> None:
    """Set fields of a frozen dataclass to what the checks returned: plain Python numbers, whatever NumPy's or PyTorch's were given."""
    for name, value in checked.items():
        object.__setattr__(settings, name, value)


def check_integer(name: str, value, least: int, remedy: str) -> int:
    """`value` as an int of at least `least`; `remedy` says what to give instead."""
    try:
        # to Python True is the integer 1; given as a number of steps it is a slip
        if isinstance(value, bool):
            raise TypeError
        # takes the integers of NumPy and PyTorch too, and refuses 3.0, which int() would take
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}; {remedy}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {shown(number)}; {remedy}")
    # beyond, neither a tensor nor a float holds it
    if number >= 2**63:
        raise ValueError(f"{name} must be below 2⁶³, got {shown(number)}; {remedy}")
    return number


def shown(number) -> str:
    """A number in a line: Python refuses to write out an integer of several thousand digits."""
    if not isinstance(number, int) or abs(number) < 10**30:
        return str(number)
    return f"one of about {number.bit_length() * 3 // 10:,} digits"


def check_positive(name: str, value, remedy: str, below: float = math.inf) -> float:
    """`value` as a finite float above 0, and below `below`."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}; {remedy}")
    try:
        number = float(value)
    except OverflowError:  # an integer of more than 308 digits
        number = math.inf
    if not 0 < number < below:  # false for NaN too
        limit = "finite" if below == math.inf else f"below {below:g}"
        raise ValueError(f"{name} must be positive and {limit}, got {shown(value)}; {remedy}")
    return number


def check_callable(name: str, value):
    """`value`, if it can be called and is no class, which can be called too."""
    if isinstance(value, type):
        raise TypeError(f"{name} must be an object, got the class {value.__name__}; write {value.__name__}()")
    if not callable(value):
        raise TypeError(f"{name} must be callable, got {type(value).__name__}")
    return value


def check_flag(name: str, value) -> bool:
    """`value`, if it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r} of type {type(value).__name__}")
    return value


def check_latent(name: str, u) -> None:
    """Refuse what is not a batch of latents, `(batch, *latent)` and floating point."""
    if not isinstance(u, Tensor) or not u.is_floating_point():
        kind = u.dtype if isinstance(u, Tensor) else type(u).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {kind}; give torch.zeros(batch, *latent)")
    if u.ndim == 0:
        raise ValueError(f"{name} must have a batch dimension, got a scalar; pass {name}.reshape(1)")


def check_image(name: str, u: Tensor, v) -> None:
    """Refuse v = T(u) if T is no map from the space of u to itself; `name` is what the caller calls u."""
    if not isinstance(v, Tensor):
        raise TypeError(f"T must return a tensor, got {type(v).__name__}; return the new latent alone")
    if v.shape != u.shape:
        raise ValueError(f"T must keep the shape of u: it maps {tuple(u.shape)} to {tuple(v.shape)}; mend T or {name}")
    if v.device != u.device:
        raise ValueError(f"T must keep the device of u: it maps {u.device} to {v.device}; move its weights or {name}")
    if v.dtype != u.dtype:
        raise TypeError(f"T must keep the dtype of u: it maps {u.dtype} to {v.dtype}; convert its weights or {name}")


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every number is finite, by one read of the device."""
    flags = [tensor.isfinite().all() for tensor in tensors]
    return not flags or bool(torch.stack(flags).all())


def check_finite(network: nn.Module) -> None:
    """FloatingPointError, naming the first such parameter or buffer, if a number in a network is NaN or infinite."""
    named = [*network.named_parameters(), *network.named_buffers()]
    named = [(name, tensor.detach()) for name, tensor in named if tensor.is_floating_point()]
    if all_finite(tensor for _, tensor in named):
        return
    name, bad, size = next(
        (name, int((~tensor.isfinite()).sum()), tensor.numel()) for name, tensor in named if not tensor.isfinite().all()
    )
    raise FloatingPointError(
        f"{name} is not finite in {bad:,} of {size:,} numbers, so the network has no answers; take a checkpoint of before, or "
        "train again with a lower learning rate"
    )


def check_damping(value) -> float:
    """`value` as a float in (0, 1]."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"damping must be a number, got {value!r} of type {type(value).__name__}; 1.0 is no damping")
    if not 0 < float(value) <= 1:
        nearest = "1.0, no damping" if float(value) > 1 else "a small positive number such as 0.1"
        raise ValueError(f"damping must be in (0, 1], got {value}; the nearest valid choice is {nearest}")
    return float(value)


def check_choice(name: str, value, valid) -> str:
    """`value`, if it is one of `valid`; else the error offers the nearest one."""
    # a tuple, since `in` a dictionary fails on a value without a hash, such as a list
    if value not in tuple(valid):
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, valid))}, got {value!r}; did you mean {nearest(value, valid)!r}?"
        )
    return next(choice for choice in valid if choice == value)  # and not a string of NumPy's


def nearest(value, valid) -> str:
    """The one of `valid` that is spelt most like `value`, in capitals or not."""
    lower = {name.lower(): name for name in valid}
    # a cutoff of 0 has a nearest one for any value, however unlike
    return lower[get_close_matches(str(value).lower(), lower, n=1, cutoff=0.0)[0]]
