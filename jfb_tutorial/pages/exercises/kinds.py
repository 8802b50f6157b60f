"""The forms that a part of an answer can have: each reads a value, or says what is asked for instead."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Number as AnyNumber
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .running import Stopped, Student, accepts, as_tensor, kind_of

__all__ = ["Array", "Function", "Kind", "Number", "Object", "Whole", "Words", "YesNo", "is_blank"]


class Kind(Protocol):
    """A form."""

    @property
    def form(self) -> str:
        """In words: "a whole number"."""

    def read(self, value: Any, name: str) -> Any:
        """The value as the check uses it; raises `Stopped` with what is asked for."""

    def same(self, value: Any, other: Any) -> bool:
        """Whether two values that were read, or observed, count as equal."""


def is_blank(value: Any) -> bool:
    """Whether nothing has been filled in: `...`, None, an empty text or an empty collection."""
    return value is None or value is ... or (isinstance(value, str | list | tuple | dict | set) and not value)


@dataclass(frozen=True)
class Number:
    """A real number.

    Args:
        rel: by how much it may be off, relative to the right one.
        abs: by how much it may be off in any case.
    """

    rel: float = 5e-3
    abs: float = 1e-9

    @property
    def form(self) -> str:
        """In words."""
        return "a number"

    def read(self, value: Any, name: str) -> float:
        """As a float."""
        if isinstance(value, Tensor | np.ndarray) and np.prod(value.shape) == 1:
            value = value.item()
        if isinstance(value, bool | np.bool_) or not isinstance(value, AnyNumber) or isinstance(value, complex):
            raise Stopped(f"`{name}` has to be {self.form}, and is {kind_of(value)}.")
        number = float(value)  # type: ignore[arg-type]
        if math.isnan(number):
            raise Stopped(f"`{name}` is not a number (nan): something on the way to it was 0/0, or ran away.")
        return number

    def same(self, value: Any, other: Any) -> bool:
        """Within the tolerance."""
        return math.isclose(value, other, rel_tol=self.rel, abs_tol=self.abs)


@dataclass(frozen=True)
class Whole(Number):
    """A whole number.

    Args:
        off: by how many it may be off, where the count is measured.
    """

    off: int = 0

    @property
    def form(self) -> str:
        """In words."""
        return "a whole number"

    def read(self, value: Any, name: str) -> float:
        """As a float without a fraction."""
        number = super().read(value, name)
        if number != round(number):
            raise Stopped(
                f"`{name}` counts something, so it has to be {self.form}; round it the way the question asks."
            )
        return number

    def same(self, value: Any, other: Any) -> bool:
        """At most `off` apart."""
        return abs(value - other) <= self.off


@dataclass(frozen=True)
class YesNo:
    """True or False."""

    @property
    def form(self) -> str:
        """In words."""
        return "True or False"

    def read(self, value: Any, name: str) -> bool:
        """As a bool; the words yes and no are understood too."""
        if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
            value = value.item()
        if isinstance(value, str) and value.strip().lower() in ("yes", "no", "true", "false"):
            return value.strip().lower() in ("yes", "true")
        if not isinstance(value, bool | np.bool_):
            raise Stopped(f"`{name}` has to be {self.form}, and is {kind_of(value)}.")
        return bool(value)

    def same(self, value: Any, other: Any) -> bool:
        """Equal."""
        return value == other


@dataclass(frozen=True)
class Words:
    """One of some words, or, with `many`, a set of them."""

    options: tuple[str, ...]
    many: bool = False

    @property
    def form(self) -> str:
        """In words."""
        listed = ", ".join(f'"{option}"' for option in self.options)
        return f"{'a list of some of' if self.many else 'one of'} {listed}"

    def read(self, value: Any, name: str) -> Any:
        """The option as it is spelt here, or the frozen set of them."""
        if self.many:
            if not isinstance(value, list | tuple | set | frozenset):
                raise Stopped(f"`{name}` has to be {self.form}, and is {kind_of(value)}.")
            return frozenset(self._one(each, name) for each in value)
        return self._one(value, name)

    def _one(self, value: Any, name: str) -> str:
        if isinstance(value, str):
            by_word = {option.lower(): option for option in self.options}
            word = " ".join(value.lower().split())
            if word in by_word:
                return by_word[word]
            # a slip of the finger, not another word
            if close := get_close_matches(word, by_word, n=1, cutoff=0.85):
                return by_word[close[0]]
        raise Stopped(f"`{name}` has to be {self.form}.")

    def same(self, value: Any, other: Any) -> bool:
        """Equal."""
        return value == (frozenset(other) if self.many else other)


@dataclass(frozen=True)
class Array:
    """Numbers in a given shape, as nested lists, an array or a tensor; -1 stands for any length."""

    shape: tuple[int, ...]
    rel: float = 5e-3
    off: float = 1e-9

    @property
    def form(self) -> str:
        """In words."""
        sizes = ["any" if size < 0 else str(size) for size in self.shape]
        if len(sizes) == 1:
            return "a list of numbers" if self.shape[0] < 0 else f"a list of {sizes[0]} numbers"
        return f"a {' × '.join(sizes)} matrix"

    def read(self, value: Any, name: str) -> Tensor:
        """As a float64 tensor without a graph."""
        try:
            tensor = as_tensor(value, f"`{name}`").detach()
        except Stopped:
            raise Stopped(f"`{name}` has to be {self.form}, and is {kind_of(value)}.") from None
        fits = tensor.ndim == len(self.shape) and all(
            size in (-1, found) for size, found in zip(self.shape, tensor.shape, strict=True)
        )
        if not fits:
            raise Stopped(f"`{name}` has to be {self.form}, and has the shape {tuple(tensor.shape)}.")
        if not torch.isfinite(tensor).all():
            raise Stopped(f"`{name}` holds a number that is not finite.")
        return tensor

    def same(self, value: Any, other: Any) -> bool:
        """Every number within the tolerance."""
        other = torch.as_tensor(other, dtype=torch.float64)
        return value.shape == other.shape and torch.allclose(value, other, rtol=self.rel, atol=self.off)


@dataclass(frozen=True)
class Function:
    """A function of given arguments. What it does is observed, and two observations are tensors to compare.

    Args:
        arguments: as the stub writes them, "d, count".
        returns: in words, what it returns.
    """

    arguments: str
    returns: str
    rel: float = 1e-6
    off: float = 1e-9

    @property
    def form(self) -> str:
        """In words."""
        return f"a function of ({self.arguments}) that returns {self.returns}"

    def read(self, value: Any, name: str) -> Student:
        """As a function whose errors are said in words."""
        if isinstance(value, Student):
            return value
        count = len(self.arguments.split(","))
        if isinstance(value, type) or not callable(value):
            got = f"the class {value.__name__}; make an object of it" if isinstance(value, type) else kind_of(value)
            raise Stopped(
                f"`{name}` has to be {self.form}, and is {got}. Hand in the function itself, without calling it."
            )
        if not accepts(value, count):
            raise Stopped(f"`{name}` has to take {count} argument{'s' if count > 1 else ''}, ({self.arguments}).")
        return Student(value, name)

    def same(self, value: Any, other: Any) -> bool:
        """Two observations agree."""
        value, other = (torch.as_tensor(each, dtype=torch.float64).detach() for each in (value, other))
        return value.shape == other.shape and torch.allclose(value, other, rtol=self.rel, atol=self.off, equal_nan=True)


@dataclass(frozen=True)
class Object:
    """Something else, which `accepts` knows.

    Args:
        form: in words.
        accepts: whether a value is one.
    """

    form: str
    accepts: Callable[[Any], bool]

    def read(self, value: Any, name: str) -> Any:
        """As it is."""
        if not self.accepts(value):
            raise Stopped(f"`{name}` has to be {self.form}, and is {kind_of(value)}.")
        return value

    def same(self, value: Any, other: Any) -> bool:
        """The same object."""
        return value is other
