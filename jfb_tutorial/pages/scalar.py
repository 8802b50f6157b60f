"""The fixed points of y = d + y⁵ by methods that know nothing of contractions, for the claims about it to be tested against."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import brentq

from .. import toy

__all__ = ["bracketed", "fixed_points", "steepest"]


def bracketed(d: float, low: float = -toy.ALPHA, high: float = toy.ALPHA) -> float:
    """The fixed point between `low` and `high`, by Brent's method, which closes in on a change of sign."""
    return float(brentq(lambda y: d + y**5 - y, low, high, xtol=1e-16, rtol=8.9e-16))


def fixed_points(d: float, half_width: float = math.inf) -> list[float]:
    """All real fixed points of absolute value at most `half_width`, as the roots of a polynomial."""
    roots = np.roots([1, 0, 0, 0, -1, d])
    return [float(y.real) for y in roots if abs(y.imag) < 1e-9 and abs(y.real) <= half_width]


def steepest(half_width: float, points: int = 1001) -> float:
    """The largest |T(y) − T(z)| / |y − z| over a grid of [−half_width, half_width]; d cancels."""
    y = torch.linspace(-half_width, half_width, points, dtype=torch.float64)
    # no chord is steeper than the steepest of those between neighbours that it spans
    return ((y**5).diff() / y.diff()).max().item()
