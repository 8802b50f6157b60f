"""Jacobian-Free Backpropagation, from y = d + y⁵ to CIFAR-10: the package that the book's notebooks import."""

import signal
import sys
from importlib.metadata import version

# `python -m jfb_tutorial` is on its way (Python calls the program "-m" until it is found): to import torch takes seconds, in
# which Ctrl-C has nothing to stop and no traceback to show. __main__ puts Python's own handler back. After nohup there is none
if (
    sys.argv[:1] == ["-m"]
    and __name__ in sys.orig_argv
    and signal.getsignal(signal.SIGINT) == signal.default_int_handler
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)

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
