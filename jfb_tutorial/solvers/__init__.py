"""Solvers of the fixed point equation u = T(u): JFB Algorithm 1, two faster methods, and what they report.

A solver is a frozen dataclass, called as `solver(T, u0) -> Solution`. T is called with the whole batch, always, because it
may couple its samples (batch normalisation does); no sample is dropped or frozen when it has converged.
"""

from .anderson import Anderson
from .broyden import Broyden
from .iteration import FixedPointIteration, Solution

__all__ = ["Anderson", "Broyden", "FixedPointIteration", "Solution"]
