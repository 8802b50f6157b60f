"""Measurements of what the theorems assume and conclude: contraction factors, spectral radii, directions of descent."""

from .angles import antieigenvalue
from .criterion import Criterion, criterion
from .directions import DescentCheck, PhantomCheck, descent_check, phantom_check
from .linearised import Linearised
from .lipschitz import contraction_factor, jacobian_penalty, jacobian_products, lipschitz_estimate, spectral_radius

__all__ = [
    "Criterion",
    "DescentCheck",
    "Linearised",
    "PhantomCheck",
    "antieigenvalue",
    "contraction_factor",
    "criterion",
    "descent_check",
    "jacobian_penalty",
    "jacobian_products",
    "lipschitz_estimate",
    "phantom_check",
    "spectral_radius",
]
