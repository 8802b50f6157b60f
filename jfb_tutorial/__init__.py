"""Jacobian-Free Backpropagation, from y = d + y⁵ to CIFAR-10: the package that the book's notebooks import."""

from importlib.metadata import version

from .gradients import JFB, ImplicitDifferentiation, NeumannSeries, Unrolled, UnrolledPhantom
from .network import ImplicitNetwork
from .solvers import Anderson, Broyden, FixedPointIteration

__version__ = version("jfb_tutorial")

__all__ = [
    "JFB",
    "Anderson",
    "Broyden",
    "FixedPointIteration",
    "ImplicitDifferentiation",
    "ImplicitNetwork",
    "NeumannSeries",
    "Unrolled",
    "UnrolledPhantom",
]
