"""The random instances of chapter 12, and the matrices built to spoil or save them."""

import numpy as np
import pytest
import torch
from matplotlib.contour import ContourSet

from jfb_tutorial import theory
from jfb_tutorial.pages import certificates
from jfb_tutorial.pages.certificates import abscissa, draw
from jfb_tutorial.pages.instances import coercivity, norm, sym

pytestmark = pytest.mark.usefixtures("float64")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_draws_have_what_they_promise_and_K_is_minus_the_inner_product():
    draws = draw(50, generator=seeded(), spread=1.5)
    assert torch.allclose(torch.linalg.eigvals(draws.J).abs().amax(1), torch.tensor(0.95))
    assert torch.allclose(draws.kappa, torch.tensor(1000.0))
    assert torch.allclose(draws.Z @ (torch.eye(6) - draws.J), draws.B)
    a = torch.randn(50, 4, 2, generator=seeded(1))
    by_K = -((a @ draws.K) * a).sum(-1)
    assert torch.allclose(draws.inner(a), by_K, atol=1e-9 * by_K.abs().max().item())


def test_the_worst_turn_attains_the_sharp_bound():
    draws = draw(20, generator=seeded())
    below, beyond, *gaps = certificates.corollaries(20, seeded())
    assert torch.allclose(norm(certificates.worst_turn(draws.G)), torch.ones(20))
    assert bool((below > 0).all())
    assert bool((beyond < 0).all())
    assert max(gaps) < 1e-9


def test_lyapunov_saves_and_spoiling_spoils():
    J = torch.randn(5, 5, generator=seeded())
    J = J - (torch.linalg.eigvals(J).real.max() - 0.5) * torch.eye(5)
    saving, spoiling = certificates.lyapunov(J), certificates.spoiling(J)
    assert torch.allclose((torch.eye(5) - J) @ saving + saving @ (torch.eye(5) - J).T, torch.eye(5))
    assert torch.linalg.eigvalsh(spoiling)[0] > 0
    assert abscissa(J, saving) < 1 < abscissa(J, spoiling)
    spoilt, saved, beyond = certificates.converses(20, seeded())
    assert bool((spoilt < 0).all())
    assert bool((saved > 0).all())
    assert bool((beyond < 0).all())


def test_structure_decides_the_sign():
    _, apart, below, beyond = certificates.saturated(200, seeded())
    assert apart.max() < 1e-9
    assert below.min() > 0
    assert beyond.max() < 0
    W, true, jfb = certificates.affine(20, seeded())
    assert torch.allclose((torch.eye(6) - W).mT @ true, jfb)
    skew = 12 * torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    free, usual = certificates.slope_free(skew.expand(500, 2, 2), seeded())
    assert free.min() > 0 > usual.min()


def test_the_batch_of_two_is_that_of_chapter_5():
    network, pair = certificates.batch_of_two()
    K = theory.criterion(network, pair).K
    a = torch.tensor([1.0, -20.0])
    assert -(a @ K @ a).item() == pytest.approx(3.81, rel=1e-2)
    assert coercivity(K) < 0


def test_copies_and_flow():
    shear = torch.tensor([[0.5, 10.0], [0.0, 0.5]])
    shares = [certificates.copies(shear, n, 2000, seeded()) for n in (2, 200)]
    assert shares[0] == pytest.approx(0.468, abs=0.04)
    assert shares[1] == pytest.approx(0.157, abs=0.04)
    path = certificates.flow(torch.eye(2), torch.ones(2), 0.5, 3)
    assert torch.allclose(path[-1], torch.full((2,), 0.125))
    assert torch.allclose(sym(shear), sym(shear).T)


def test_the_sphere_knows_its_share():
    # x² < y² + z² on the sphere: |x| < 1/√2, by Archimedes a share of 1/√2
    heads = {name: torch.eye(3)[rows] for name, rows in (("xy", [0, 1]), ("yz", [1, 2]))}
    fig, share, (xy, yz) = certificates.cone_and_plane(torch.diag(torch.tensor([1.0, -1.0, -1.0])), heads)
    assert share == pytest.approx(2**-0.5, abs=0.01)
    assert (xy.min(), xy.max()) == pytest.approx((-1, 1))
    assert (yz.min(), yz.max()) == pytest.approx((-1, -1))
    assert len(fig.axes) == 2


def test_a_path_that_arrives_uphill_is_drawn_with_both_families_of_level_lines():
    A, G = torch.tensor([[10.0, 0.0], [22.0, 1.0]]), torch.tensor([100.0, 1.0]).diag()
    path = certificates.flow(A, torch.tensor([-0.55, 0.84]), 0.001, 8000)
    fig, rise = certificates.arriving(path, G, 0.001)
    assert rise == pytest.approx((path.square().sum(1).max() / path[0].square().sum()).item())
    assert rise > 2
    plane = fig.axes[0]
    loss, size = (np.asarray(each.levels) for each in plane.collections if isinstance(each, ContourSet))
    # a line of each family goes through the start, and the loss has another at its highest
    assert loss.min() == pytest.approx(path[0].square().sum().item() / 2)
    assert loss.max() == pytest.approx(rise * loss.min())
    assert size.max() == pytest.approx((path[0] @ G @ path[0]).item())


def test_runs_of_unequal_length_share_a_panel():
    runs = {"long": [torch.rand(3, 20).numpy()] * 2, "short": [torch.rand(1, 5).numpy()] * 2}
    fig = certificates.over_epochs(["one", "two"], runs)
    lengths = [len(np.asarray(line.get_xdata())) for line in fig.axes[0].lines]
    assert lengths == [20, 5, 2]  # and the line at 1
    assert [np.asarray(ax.lines[-1].get_ydata())[0] for ax in fig.axes] == [1, 0]
