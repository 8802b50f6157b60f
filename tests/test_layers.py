"""The layers that chapter 03 tries its solvers on."""

import pytest
import torch

from jfb_tutorial import theory
from jfb_tutorial.pages.layers import KINDS, after, tanh_layer


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_a_contraction_with_its_factor(kind):
    with torch.random.fork_rng():
        zero = torch.zeros(1, 32)
        layer = tanh_layer(kind, 0.9, x=zero)
        assert abs(theory.contraction_factor(layer, zero) - 0.9) < 1e-5


def test_inputs_are_drawn_from_tiny_to_large():
    zeros = torch.zeros(32, 32)
    sizes = after(50, tanh_layer("gaussian", 0.5), zeros).norm(dim=1)
    assert sizes[0] < 0.2 < 2 < sizes[-1]


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be one of gaussian, orthogonal, symmetric, positive"):
        tanh_layer("triangular", 0.9)
