"""What chapter 06 is tried on."""

import numpy as np
import pytest
import torch

from jfb_tutorial.pages import phantoms

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("kind", ["gaussian", "orthogonal", "negative"])
def test_a_layer_has_the_norm_and_the_eigenvalues_it_says(kind):
    torch.manual_seed(0)
    W = phantoms.Layer(12, 0.9, kind).W.detach()
    assert torch.linalg.matrix_norm(W, 2).item() == pytest.approx(0.9)
    if kind == "orthogonal":
        assert torch.allclose(W @ W.T, 0.81 * torch.eye(12))
    if kind == "negative":
        assert torch.linalg.eigvals(W).real.max() <= 1e-12


def test_the_instances_are_what_they_say():
    kappas, bad, descends = phantoms.only_D(300)
    bound = 2 * kappas.sqrt() / (1 + kappas)
    assert descends(0.999 * bound).all()
    assert not descends(1.001 * bound)[bad].any()
    M, sigma, descends = phantoms.any_A(300)
    assert torch.allclose(torch.linalg.svdvals(M), sigma)
    assert descends(0.999 * sigma[:, -1]).all()
    assert not descends(1.001 * sigma[:, -1]).all()


def test_the_formulas_of_the_biased_model_are_derivatives():
    model = phantoms.BiasedSGD()
    rng = np.random.default_rng(3)
    theta, x = rng.standard_normal(2), model.inputs(1, rng)
    target = model.shift + x[0] * [1.0, -1.0, 0.5, 2.0]

    def loss(theta):
        u = np.linalg.solve(np.eye(4) - model.W, model.C @ theta + x[0])
        return 0.5 * ((u - target) ** 2).sum()

    h = 1e-5
    slopes = [(loss(theta + h * e) - loss(theta - h * e)) / (2 * h) for e in np.eye(2)]
    assert model.adjoints(theta, x)[0] @ model.C == pytest.approx(slopes, rel=1e-6)


def test_the_mean_of_a_rule_vanishes_at_its_rest_point():
    model = phantoms.BiasedSGD()
    x = model.inputs(200_000, np.random.default_rng(0))
    for k in (1, 3):
        rest = model.rest_point(k)
        rule = model.adjoints(rest, np.concatenate([x, -x])) @ model.kept(k) @ model.C
        assert abs(rule.mean(axis=0)).max() < 1e-12
        assert model.slope_at(rest) > 1e-3
    assert model.slope_at(model.rest_point(0)) < 1e-20


def test_a_run_comes_down_and_tells_its_bias():
    path, mean, bias = phantoms.BiasedSGD().run(2, steps=400, runs=8)
    assert len(path) == 400
    assert path[-1] < path[0]
    assert path.min() < mean < path.max()
    assert bias > 0
    assert phantoms.BiasedSGD().run(0, steps=50, runs=2)[2] == 0
