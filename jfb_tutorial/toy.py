"""The scalar problem y = d + y⁵ of JFB, Section 1 and Appendix F.

Tensors, NumPy arrays or floats go in; float64 tensors of the same shape come out. The problem in one paragraph: for
|d| ≤ 1/2 the map T(y; d) = d + y⁵ is a ½-contraction of [−α, α], α = 10^(−1/4), so the equation has exactly one solution
there (Lemma F.1). The solution is also a power series in d, whose radius of convergence (256/3125)^(1/4) ≈ 0.535 is the
very |d| at which the fixed point meets its unstable neighbour and disappears.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ._checks import check_integer

__all__ = ["ALPHA", "RADIUS", "derivative", "hypergeometric", "iterate", "series", "solve"]

ALPHA = 10 ** (-1 / 4)
"""Half-width of the interval [−α, α] of Lemma F.1, on which T is a ½-contraction, since 5α⁴ = 1/2."""

RADIUS = (256 / 3125) ** (1 / 4)
"""Radius of convergence of the series (86), and the |d| at which two fixed points merge, 4/5 · 5^(−1/4)."""

_GROWTH = 3125 / 256  # the coefficients of (86) grow like this, per power of d⁴
_EPSILON = torch.finfo(torch.float64).eps


def iterate(d, steps: int, y0=0.0) -> Tensor:
    """The iterates y⁰, y¹, …, y^steps of y ← d + y⁵, JFB (5).

    Args:
        d: input of any shape.
        steps: number of applications of T, at least 0.
        y0: start, broadcast to the shape of d. The paper starts at 0 and calls it y₁.

    Returns:
        float64 tensor `(steps + 1, *d.shape)`; row k is yᵏ. Where the iteration escapes, rows end in ±inf. The graph is
        recorded if `d` or `y0` requires a gradient.

    Raises:
        TypeError: `steps` is not an integer, or `d` or `y0` is not real numbers.
        ValueError: `steps` < 0, `d` or `y0` is not finite, or `y0` does not broadcast to the shape of `d`.

    Example:
        >>> iterate(0.5, 3)
        tensor([0.0000, 0.5000, 0.5312, 0.5423], dtype=torch.float64)
    """
    steps = check_integer("steps", steps, 0, "steps=0 returns the start alone")
    d, y = _real("d", d), _real("y0", y0)
    try:
        y = y.to(d.device).expand(d.shape)
    except RuntimeError:
        raise ValueError(
            f"y0 of shape {tuple(y.shape)} does not broadcast to d of shape {tuple(d.shape)}; give one start, or one per d"
        ) from None
    rows = [y]
    for _ in range(steps):
        y = d + y**5
        rows.append(y)
    return torch.stack(rows)


def solve(d) -> Tensor:
    """The root of y = d + y⁵ in [−10^(−1/4), 10^(−1/4)], JFB Lemma F.1.

    Plain iteration from 0: the error shrinks by ½ or better a step, so 60 steps end below 1e-14.

    Args:
        d: input of any shape, |d| ≤ 1/2.

    Returns:
        float64 tensor of the shape of `d`, error below 1e-14. No graph is recorded; see `derivative`.

    Raises:
        TypeError: `d` is not real numbers.
        ValueError: some |d| > 1/2, or `d` is not finite.

    Example:
        >>> y = solve([0.0, 0.25, -0.5])
        >>> y
        tensor([ 0.0000,  0.2510, -0.5506], dtype=torch.float64)
        >>> bool((y - y**5 - torch.tensor([0.0, 0.25, -0.5])).abs().max() < 1e-14)
        True
    """
    d = _real("d", d).detach()
    _check_range(d, 0.5, inclusive=True, remedy="the lemma stops at 1/2; iterate(d, steps) shows what happens beyond")
    y = torch.zeros_like(d)
    for _ in range(60):
        y = d + y**5
    return y


def series(d, terms: int) -> Tensor:
    """The sum of the first `terms` terms of Σₖ C(5k, k)/(4k+1) d^(4k+1) = d + d⁵ + 5d⁹ + 35d¹³ + …, JFB (86).

    Args:
        d: input of any shape. The sum approaches the root only where |d| ≤ `RADIUS`.
        terms: number of terms, at least 1.

    Returns:
        float64 tensor of the shape of `d`.

    Raises:
        TypeError: `terms` is not an integer, or `d` is not real numbers.
        ValueError: `terms` < 1, or `d` is not finite.
    """
    terms = check_integer("terms", terms, 1, "terms=1 is the sum's first term, d")
    d = _real("d", d)
    # C(5k, k)/(4k+1), an integer, over (3125/256)^k, by which it grows: exact until it is rounded once
    over, under, scaled = 1, 1, []
    for k in range(terms):
        scaled.append(over / under)
        over = over * 5 * (5 * k + 1) * (5 * k + 2) * (5 * k + 3) * (5 * k + 4) * 256
        # without a remainder: `over` is the next coefficient times 256^(k + 1)
        over //= (4 * k + 2) * (4 * k + 3) * (4 * k + 4) * (4 * k + 5)
        under *= 3125
    z = d**4 * _GROWTH
    # in z = d⁴ · 3125/256, since the coefficients alone overflow float64 after some 280 terms
    total = torch.full_like(d, scaled.pop())
    while scaled:  # Horner's rule
        total = total * z + scaled.pop()
    return d * total


def hypergeometric(d, *, max_terms: int = 100_000) -> Tensor:
    """d · ₄F₃(1/5, 2/5, 3/5, 4/5; 1/2, 3/4, 5/4; 3125 d⁴/256), JFB (86).

    Summed by the ratio of consecutive terms until a term falls below machine epsilon: about 100 terms at |d| = 1/2, and
    some 20/(1 − z) near the radius, where z = 3125 d⁴/256 tends to 1. The error is below 1e-14 for |d| ≤ 1/2 and grows
    with the number of terms.

    Args:
        d: input of any shape, |d| < `RADIUS`.
        max_terms: where the sum gives up, so close to the radius that it would not end.

    Returns:
        float64 tensor of the shape of `d`.

    Raises:
        TypeError: `d` is not real numbers.
        ValueError: some |d| is at or beyond the radius, `d` is not finite, or `max_terms` did not suffice.
    """
    max_terms = check_integer(
        "max_terms", max_terms, 1, "the default suffices but for the last thousandth of the radius"
    )
    d = _real("d", d)
    _check_range(d, RADIUS, inclusive=False, remedy="the series diverges beyond it; for |d| ≤ 1/2 there is solve(d)")
    z = d**4 * _GROWTH
    term = torch.ones_like(d)
    total = term.clone()
    for k in range(max_terms):
        over = (k + 1 / 5) * (k + 2 / 5) * (k + 3 / 5) * (k + 4 / 5)
        under = (k + 1 / 2) * (k + 3 / 4) * (k + 5 / 4) * (k + 1)  # k + 1 is of the k! of the series
        term = term * (over / under) * z
        total = total + term
        # no term is negative and the first is 1, so a term below ε is below ε of the sum
        if not (term > _EPSILON).any():
            return d * total
    raise ValueError(
        f"max_terms = {max_terms} terms do not suffice: the largest |d| is {d.abs().max().item()!r}, the radius of "
        f"convergence {RADIUS!r}; raise max_terms, or move d inwards"
    )


def derivative(d) -> Tensor:
    """dy/dd = 1 / (1 − 5 y⁴) at the root y = solve(d), by the implicit function theorem.

    Args:
        d: input of any shape, |d| ≤ 1/2.

    Returns:
        float64 tensor of the shape of `d`, between 1 (at d = 0) and 1.85 (at |d| = 1/2). No graph is recorded.

    Raises:
        TypeError, ValueError: as `solve`.
    """
    return 1 / (1 - 5 * solve(d) ** 4)


def _real(name: str, value) -> Tensor:
    """`value` as a finite float64 tensor; a tensor keeps its graph and its device."""
    if isinstance(value, Tensor):
        tensor, real = value, not value.is_complex() and value.dtype != torch.bool
    else:
        # through NumPy, since torch alone would round a Python float to float32
        try:
            array = np.array(value)
            real = array.dtype.kind in "fiu"  # floats, and integers with a sign or without; no bool
            tensor = torch.from_numpy(array.astype(np.float64)) if real else torch.empty(0)
        except (TypeError, ValueError, RuntimeError):
            real = False
    if not real:
        kind = value.dtype if hasattr(value, "dtype") else type(value).__name__
        raise TypeError(f"{name} must be real numbers, got {kind}; give a float, an array or a tensor of floats")
    tensor = tensor.to(torch.float64)
    if not torch.isfinite(tensor).all():
        raise ValueError(
            f"{name} must be finite, got {_first(tensor, ~torch.isfinite(tensor))}; remove NaN and inf first"
        )
    return tensor


def _check_range(d: Tensor, limit: float, *, inclusive: bool, remedy: str) -> None:
    outside = d.abs() > limit if inclusive else d.abs() >= limit
    if outside.any():
        sign = "≤" if inclusive else "<"
        raise ValueError(f"d must satisfy |d| {sign} {limit!r}, got {_first(d, outside)}; {remedy}")


def _first(values: Tensor, where: Tensor) -> str:
    """The first offending value and how many there are, for an error message."""
    count = int(where.sum())
    more = f" (and {count - 1} more)" if count > 1 else ""
    return f"{values[where][0].item()!r}{more}"
