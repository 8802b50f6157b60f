"""The instances that chapters test their claims on, and the drawings and curves they share."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, UnrolledPhantom
from jfb_tutorial.network import ImplicitNetwork
from jfb_tutorial.pages import diagrams, figures, instances, plots
from jfb_tutorial.theory import Linearised, antieigenvalue, descent_check

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(0.2 * torch.randn(3, 3))

    def forward(self, u, q):
        return torch.tanh(u @ self.W.T + q)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ImplicitNetwork(nn.Linear(2, 3), Layer(), nn.Linear(3, 2))


def test_contractions_have_the_norm_that_is_said(generator):
    for edge in (False, True):
        A, gamma = instances.contractions(50, 4, generator, edge=edge)
        assert torch.allclose(instances.norm(A), gamma)
        assert gamma.min() > 0
        assert gamma.max() < 1
    # at the edge every direction is stretched alike
    assert torch.allclose(torch.linalg.svdvals(A), gamma[:, None].expand(50, 4))


def test_what_is_turned_most_is_turned_by_the_antieigenvalue(generator):
    B = torch.randn(20, 4, 4, generator=generator)
    G = B @ B.mT + torch.eye(4)
    x = instances.most_turned(G)
    cosine = (x * (G @ x)).sum(dim=(1, 2)) / x.norm(dim=(1, 2)) / (G @ x).norm(dim=(1, 2))
    assert torch.allclose(cosine, torch.tensor([antieigenvalue(g) for g in G]))
    assert torch.allclose(cosine, instances.sharp_bound(torch.linalg.cond(G)))


@pytest.mark.parametrize("terms", [1, 3])
def test_the_worst_instances_sit_on_the_sharp_bound(generator, terms):
    kappa = 1.5 + 20 * torch.rand(500, generator=generator)
    edge = instances.sharp_bound(kappa) ** (1 / terms)
    how = {"malice": 1.0, "part": 1 / terms, "terms": terms}
    below, _ = instances.inner_and_bound(kappa, edge * (1 - 1e-6), generator, **how)
    above, _ = instances.inner_and_bound(kappa, edge * (1 + 1e-6), generator, **how)
    assert (below < 0).all()
    assert (above > 0).all()


def test_the_bound_of_the_proof_holds(generator):
    kappa = 1 + 3 * torch.rand(500, generator=generator)
    gamma = 0.99 / kappa
    inner, bound = instances.inner_and_bound(kappa, gamma, generator)
    assert (inner <= bound + 1e-9 * bound.abs()).all()
    assert (bound < 0).all()


def test_perturbations_are_as_bad_as_can_be(generator):
    M = torch.randn(200, 6, 3, generator=generator)
    smallest = torch.linalg.svdvals(M)[:, -1]
    w, always = torch.linalg.svd(M)[2][:, -1, :, None], torch.ones(200, 1, 1, dtype=torch.bool)
    assert instances.perturbed(M, w, always, generator, 0.999 * smallest).all()
    assert not instances.perturbed(M, w, always, generator, 1.001 * smallest).any()
    bound = instances.sharp_bound(torch.linalg.cond(M) ** 2)
    w = instances.most_turned(M.mT @ M)
    assert instances.replaced(M, w, always, generator, 0.999 * bound).all()
    assert not instances.replaced(M, w, always, generator, 1.001 * bound).any()
    assert instances.rotations_ascend(4.0, 0.799)
    assert not instances.rotations_ascend(4.0, 0.801)


def test_an_affine_map_is_as_ill_conditioned_as_it_is_made():
    check = instances.affine_check([[0.0, 0.9], [0.9, 0.0]], [[2.0, 0.0], [0.0, 1.0]], [-0.8, 1.1])
    assert check.kappa == pytest.approx(4)
    assert check.gamma == pytest.approx(0.9)
    assert check.inner_product == pytest.approx(1)


def test_a_saturated_layer_descends():
    assert max(instances.saturated_layer(seed) for seed in range(20)) < 0


def test_gradients_by_a_rule_leave_the_network_as_it_was(network):
    d, y, own = torch.randn(4, 2), torch.tensor([0, 1, 0, 1]), network.gradient
    jfb = instances.gradient_of(network, JFB(), d, y)
    exact = instances.gradient_of(network, ImplicitDifferentiation(tol=1e-12), d, y)
    assert network.gradient is own
    assert len(jfb) == sum(p.numel() for p in network.parameters())
    # the block of S is the same under every rule
    assert torch.allclose(jfb[:8], exact[:8], atol=1e-4)
    assert not torch.allclose(jfb[8:], exact[8:], atol=1e-4)
    assert torch.equal(instances.gradient_of(network, JFB(), d, y, parts="QR"), jfb[8:])
    # in the order of Linearised's blocks
    case = Linearised(network, d[:1], y[:1], nn.functional.cross_entropy)
    one = instances.gradient_of(network, JFB(), d[:1], y[:1])
    assert instances.off(one, case.M @ torch.cat([case.dl, case.g])) < 1e-3


def test_differences_agree_with_autograd(network):
    d, y = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
    network.solver = type(network.solver)(tol=1e-13, max_steps=500)
    loss = lambda: nn.functional.cross_entropy(network(d), y)  # noqa: E731
    every = instances.by_differences(loss, instances.blocks(network))
    exact = instances.gradient_of(network, ImplicitDifferentiation(tol=1e-13), d, y)
    assert instances.off(every, exact) < 1e-8
    some = instances.by_differences(loss, [network.R.W], 2)
    assert len(some) == 5


def test_the_unrolled_matrix_is_that_of_the_rule(network):
    case = Linearised(network, torch.randn(1, 2), torch.tensor([1]), nn.functional.cross_entropy)
    start = 1.1 * case.u
    by_rule = case.theta_T_rows(UnrolledPhantom(3, 0.5)(case.T, start))
    assert instances.off(instances.unrolled_matrix(case, start, 3, 0.5), by_rule) < 1e-12


def test_small_numbers():
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0])
    assert instances.cosine(a, b) == pytest.approx(0.6)
    assert instances.off(a, b) == pytest.approx(4 / 3)
    assert instances.violated(torch.tensor([1.0, 2.0]), torch.tensor([1.5, 1.0])) == 0.5
    assert instances.coercivity(torch.diag(torch.tensor([2.0, 1.0]))) == 1
    assert instances.central(lambda t: torch.tensor(math.exp(2 * t))).item() == pytest.approx(2)
    assert instances.fixed_point(lambda u: u / 2 + 1, torch.zeros(1, 1)).item() == pytest.approx(2)


def test_the_drawing_has_a_panel_for_each_scheme():
    figure = diagrams.backward_schemes()
    assert len(figure.axes) == 3
    assert not plt.get_fignums()
    figures.show(figure, alt="Three chains of arrows, and what passes back through each of them.")


def test_the_plane_has_both_curves():
    fig, ax = plt.subplots()
    plots.descent_plane(ax, 100, "Theorem 3.1")
    first, second = (np.asarray(line.get_ydata(), float) for line in ax.lines)
    assert (first <= second + 1e-12).all()
    assert ax.lines[0].get_label() == "Theorem 3.1"
    plt.close(fig)


def test_a_descent_check_agrees_with_the_layer(network):
    check = descent_check(network, torch.randn(1, 2), torch.tensor([0]), nn.functional.cross_entropy)
    assert check.inner_product < 0
