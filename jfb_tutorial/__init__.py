"""Jacobian-Free Backpropagation, from y = d + y⁵ to CIFAR-10: the package that the book's notebooks import."""

from importlib.metadata import version

__version__ = version("jfb_tutorial")
