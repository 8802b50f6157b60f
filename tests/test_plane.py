"""Maps of the plane: what chapter 2 measures on them, against a search and by hand."""

import matplotlib.pyplot as plt
import pytest
import torch

from jfb_tutorial.pages import plane
from jfb_tutorial.pages.instances import affine_check, norm, top

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(autouse=True)
def no_open_figures():
    yield
    plt.close("all")


def quotient(J, D, g):
    check = affine_check(J, D, g)
    return -check.inner_product / check.gradient.square().sum().item()


def test_no_loss_does_worse_than_the_least_descent():
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        J = torch.randn(2, 2, generator=generator)
        J = 0.8 * J / norm(J)
        D = torch.diag(torch.rand(2, generator=generator) + 0.1)
        least, g = plane.least_descent(J, D)
        assert quotient(J, D, g) == pytest.approx(least)
        losses = torch.randn(20, 2, generator=generator)
        assert all(quotient(J, D, g) >= least - 1e-9 for g in losses)


def test_the_least_descent_by_hand():
    shear = torch.tensor([[0.5, 10.0], [0.0, 0.5]])
    assert plane.least_descent(shear, torch.eye(2))[0] == pytest.approx(-4.5)  # 1 − (½ + 10/2)
    assert top(shear) == pytest.approx(5.5)


def test_szlenks_map_goes_round_four_points_although_its_radius_is_below_one_there():
    u = start = torch.tensor([10**0.5, 0.0])
    for _ in range(4):
        J = torch.func.jacrev(plane.szlenk)(u)
        assert torch.linalg.eigvals(J).abs().max() < 1
        u = plane.szlenk(u)
    torch.testing.assert_close(u, start)


def test_layers_with_a_one_sided_bound_are_solved():
    W, residual, apart = plane.monotone_layers(20)
    assert top(W).max() == pytest.approx(0.5)
    assert norm(W).max() > 3
    assert max(residual, apart) < 1e-9


def test_layers_converge_at_their_spectral_radius():
    for _, size, radius, rate in plane.rates(torch.full((1, 8), 0.3)):
        assert rate == pytest.approx(radius, abs=0.03)
        assert radius <= size <= 0.9


def test_directions_see_less_than_the_norm():
    stretch = torch.full((100,), 0.3)
    stretch[0] = 1.1
    seen, true, mean = plane.stretches(lambda u: u * stretch, (1, 100))
    assert true == pytest.approx(1.1)
    assert mean == pytest.approx(((1.1**2 + 99 * 0.3**2) / 100) ** 0.5)
    assert max(seen) < 0.8
    assert len(seen) == 300
    assert len(plane.directions({100: (seen, true, mean)}).axes[0].lines) == 3
