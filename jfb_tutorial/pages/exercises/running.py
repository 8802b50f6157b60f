"""A student's code, run so that nothing of the session changes and that what goes wrong is said in words."""

from __future__ import annotations

import inspect
import linecache
import os
import random
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np
import torch
from torch import Tensor

_HERE = os.path.dirname(os.path.abspath(__file__))


class Stopped(Exception):
    """A student's answer could not be tried to the end; the message says why, for the student."""


@contextmanager
def guard(seed: int = 0) -> Iterator[None]:
    """Run with fixed seeds, in float64 and with gradients; the generators, the grad mode and the default dtype are as before after.

    What is printed inside is not shown, since a function is called many times, and warnings are not either.
    """
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(True)
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        random.setstate(states[2])


class Nothing(Stopped):
    """A function returned nothing, so that its part counts as open."""


class Student:
    """A function that a student has handed in: called as it is, and what it raises becomes `Stopped`.

    Args:
        function: the student's.
        name: what the exercise calls it.
    """

    def __init__(self, function: Callable[..., Any], name: str):
        self.function, self.name = function, name

    def __call__(self, *args: Any) -> Any:
        """What it returns; nothing at all is `Nothing`."""
        try:
            value = self.function(*args)
        except Stopped:
            raise
        except Exception as error:
            raise Stopped(_in_a_call(self.name, args, error)) from error
        if value is None or value is ...:
            raise Nothing(f"`{self.name}` returns nothing yet: does it end in a `return`?")
        return value

    def number(self, *args: Any) -> float:
        """What it returns, as one number."""
        value = self(*args)
        try:
            number = complex(value.detach() if isinstance(value, Tensor) else value)
        except (TypeError, ValueError, RuntimeError):
            raise Stopped(f"`{self.name}` has to return one number, and returns {kind_of(value)}.") from None
        if number.imag:
            raise Stopped(f"`{self.name}` has to return a real number, and returns a complex one.")
        return number.real

    def tensor(self, shape: tuple[int, ...], *args: Any) -> Tensor:
        """What it returns, as a tensor of this shape, with its graph."""
        value = as_tensor(self(*args), f"what `{self.name}` returns")
        if tuple(value.shape) != tuple(shape):
            raise Stopped(f"`{self.name}` has to return the shape {tuple(shape)}, and returns {tuple(value.shape)}.")
        return value


def as_tensor(value: Any, what: str) -> Tensor:
    """Numbers in any form as a float64 tensor; a tensor keeps its graph."""
    try:
        tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value, dtype=float))
        if tensor.is_complex():
            raise TypeError
        return tensor.to(torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise Stopped(f"{what} has to be numbers (a list, an array or a tensor), and is {kind_of(value)}.") from None


def kind_of(value: Any) -> str:
    """What a value is, in a few words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    names = {"str": "text", "function": "a function", "bool": "True or False", "list": "a list", "dict": "a dictionary"}
    return names.get(type(value).__name__, f"of type {type(value).__name__}")


def accepts(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many positional arguments; True if Python cannot tell."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def in_words(error: Exception) -> str:
    """Which error, and the line of the student in which it was raised, if it was one of theirs."""
    words = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    if len(words) > 160:
        words = words[:157].rsplit(" ", 1)[0] + " …"
    line = _line_of(error)
    # a message may end in a full stop, and then gets no comma after it
    joined = words.rstrip(".") if line else words
    return f"{joined}, at the line `{line}`." if line else joined.rstrip(".") + "."


def _in_a_call(name: str, args: tuple, error: Exception) -> str:
    """The same for a call of a student's function."""
    shown = ", ".join(_short(value) for value in args)
    said = f"`{name}` stopped with {in_words(error)}"
    return f"{said} It was called as `{name}({shown})`." if len(shown) <= 90 else said


def _line_of(error: Exception) -> str:
    """The innermost line of the student: of no file of this package, of Python's library or of a package that is installed."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if _of_student(frame.filename)]
    if not own:
        return ""
    return (own[-1].line or linecache.getline(own[-1].filename, own[-1].lineno or 0)).strip()


def _of_student(file: str) -> bool:
    package = os.path.dirname(os.path.dirname(_HERE))
    return not file.startswith((package + os.sep, sys.prefix + os.sep, sys.base_prefix + os.sep + "lib")) and (
        "site-packages" not in file
    )


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Tensor):
        return f"{value.item():.4g}" if value.ndim == 0 else "×".join(map(str, value.shape)) + " tensor"
    if isinstance(value, int | str):
        return repr(value)
    return type(value).__name__ if not callable(value) else getattr(value, "__name__", "T").replace("<lambda>", "T")
