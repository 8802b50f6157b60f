"""Backward rules: what the gradient of a loss does when it arrives at a fixed point u* = T(u*).

A rule is a frozen dataclass, called as `rule(T, u_star) -> u`. It returns a value with a graph, on which the loss is computed;
the backward pass through that graph is the rule. T is a function of u alone and carries graphs of its own to whatever
else it depends on: its parameters, the encoded input Q(d). Every rule evaluates T with the whole batch, in the mode and the
precision in which it finds it, and each parameter receives its gradient once, from the outer backward pass, so that hooks
on parameters (DistributedDataParallel) see what they see in any network.

In the notation of JFB (12), with J = ∂T/∂u at u* and g the gradient of the loss by u: the gradient that a parameter θ of T
receives is w ∂T/∂θ, where

    exact            w = g (I − J)⁻¹                         ImplicitDifferentiation, JFB (14)
    JFB              w = g                                   JFB, JFB (20)
    NPG              w = λ g (I + B + … + Bᵏ⁻¹), B = λJ + (1 − λ)I   NeumannSeries, phantom gradient [17]
    UPG              the same, each B at its own iterate     UnrolledPhantom, phantom gradient [16]
"""

from ._adjoint import Tally, tally
from .implicit import ImplicitDifferentiation
from .published import PublishedCG
from .recorded import JFB, Unrolled, UnrolledPhantom
from .series import NeumannSeries

__all__ = [
    "JFB",
    "ImplicitDifferentiation",
    "NeumannSeries",
    "PublishedCG",
    "Tally",
    "Unrolled",
    "UnrolledPhantom",
    "tally",
]
