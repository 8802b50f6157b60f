"""Measurements of what the theorems assume and conclude: contraction factors, antieigenvalues, directions of descent."""

from .angles import antieigenvalue
from .directions import DescentCheck, PhantomCheck, descent_check, phantom_check
from .linearised import Linearised
from .lipschitz import contraction_factor, jacobian_products, lipschitz_estimate

__all__ = [
    "DescentCheck",
    "Linearised",
    "PhantomCheck",
    "antieigenvalue",
    "contraction_factor",
    "descent_check",
    "jacobian_products",
    "lipschitz_estimate",
    "phantom_check",
]
