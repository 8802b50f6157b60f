"""Figures that compute while one watches, in Jupyter: they take a map or a network of the reader's own.

They need ipywidgets and a kernel. The published page shows the picture that they begin with, and a sentence that says how to wake them.
"""

from .descent import Descent
from .panel import Panel
from .rules import Rules
from .solvers import Solvers

__all__ = ["Descent", "Panel", "Rules", "Solvers"]
