"""Monotone operator networks: W, the three steps, what all backward rules make of them, the MNIST network."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from jfb_tutorial import theory
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, NeumannSeries, Unrolled, UnrolledPhantom
from jfb_tutorial.pages import monotone
from jfb_tutorial.pages.instances import by_differences, gradient_of, off
from jfb_tutorial.pages.peer_record import ring_by_factors, smallest_rate
from jfb_tutorial.solvers import FixedPointIteration

EXACT = ImplicitDifferentiation("gmres", tol=1e-11, max_steps=4000)
STEPS = [("forward-backward", None), ("peaceman-rachford", 0.3), ("peaceman-rachford", 3.0)]


def dense(kind="forward-backward", alpha=None, skew=4.0, **more):
    """In float64, with ‖W‖ about 5 and, unless told otherwise, the α at which forward–backward contracts best."""
    network = monotone.dense_network(0, kind=kind, skew=skew, **more).double()
    network.R.alpha = monotone.measures(network.R.W).largest_alpha / 2 if alpha is None else alpha
    return network


def sample(batch=1):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 5, generator=generator, dtype=torch.float64), torch.arange(batch) % 3


def full(W, shape):
    """W as a matrix, from its images of the unit vectors."""
    n = torch.Size(shape).numel()
    return W(torch.eye(n, dtype=torch.float64).reshape(n, *shape)).reshape(n, n).T


def scrambled(W):
    for parameter in W.parameters():
        nn.init.normal_(parameter, std=2.0)
    if isinstance(W, monotone.Circular):
        nn.init.constant_(W.b, -7.0)
    return W.double()


@pytest.mark.parametrize("m", [0.05, 1.0, 2.5])
@pytest.mark.parametrize("seed", range(3))
def test_w_is_monotone_for_random_parameters(m, seed):
    torch.manual_seed(seed)
    for W, shape in ((monotone.Dense(6, m), (6,)), (monotone.Circular(3, 5, m), (3, 5, 5))):
        M = full(scrambled(W), shape)
        largest = torch.linalg.eigvalsh((M + M.T) / 2)[-1]
        assert largest <= 1 - m + 1e-9
        assert torch.linalg.matrix_norm(M, 2) > 5  # and large all the same


@pytest.mark.parametrize("side", [4, 5])
def test_the_measures_of_a_convolution_are_those_of_its_matrix(side):
    W = scrambled(monotone.Circular(2, side))
    M, found = full(W, (2, side, side)).detach(), monotone.measures(W)
    identity, values = torch.eye(len(M)), torch.linalg.eigvals(M)
    assert found.norm == pytest.approx(float(torch.linalg.matrix_norm(M, 2)))
    assert found.lipschitz == pytest.approx(float(torch.linalg.matrix_norm(identity - M, 2)))
    assert found.one_sided == pytest.approx(float(torch.linalg.eigvalsh((M + M.T) / 2)[-1]), abs=1e-9)
    assert found.radius == pytest.approx(float(values.abs().max()))
    assert found.real == pytest.approx(float(values.real.max()), abs=1e-7)


def test_the_convolution_is_pytorchs_around_a_torus():
    W = scrambled(monotone.Circular(2, 6, m=0.3))
    u = torch.randn(3, 2, 6, 6, dtype=torch.float64, requires_grad=True)

    def around(kernel, x):
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), kernel)

    def transposed(kernel, x):
        (found,) = torch.autograd.grad(around(kernel, u), u, x)
        return found

    A, B = (size * kernel / kernel.norm() for size, kernel in ((W.a, W.A), (W.b, W.B)))
    expected = 0.7 * u - transposed(A, around(A, u)) + around(B, u) - transposed(B, u)
    torch.testing.assert_close(W(u), expected)


def test_the_resolvent_undoes():
    for W, u in (
        (scrambled(monotone.Dense(4)), torch.randn(2, 4).double()),
        (scrambled(monotone.Circular(2, 4)), torch.randn(2, 2, 4, 4).double()),
    ):
        v = W.times(W.resolvent(0.7), u)
        torch.testing.assert_close(v + 0.7 * (v - W(v)), u)


@pytest.mark.parametrize(("kind", "alpha"), STEPS)
def test_each_step_finds_the_equilibrium_where_the_plain_one_runs_away(kind, alpha):
    network = dense(kind, alpha)
    d, _ = sample(4)
    u = F.relu(network.solve(d).u)
    expected = F.relu(network.R.W(u) + network.Q(d))
    torch.testing.assert_close(u, expected, atol=1e-8, rtol=0)
    assert monotone.measures(network.R.W).norm > 5
    plain = dense("plain", 1.0, solver=FixedPointIteration(1e-8, 2000))
    with pytest.raises((RuntimeError, FloatingPointError)):
        plain(d)


def test_splitting_agrees_with_plain_iteration_where_that_settles():
    d, _ = sample(4)
    plain = dense("plain", 1.0, skew=0.3)
    assert monotone.measures(plain.R.W).norm < 1.5
    u = plain.solve(d).u
    for kind, alpha in STEPS:
        torch.testing.assert_close(F.relu(dense(kind, alpha, skew=0.3).solve(d).u), u, atol=1e-8, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_peaceman_rachford_contracts_for_every_alpha_and_forward_backward_for_small_ones(seed):
    generator = torch.Generator().manual_seed(seed)
    d = torch.randn(1, 5, generator=generator, dtype=torch.float64)
    u = torch.randn(1, 12, generator=generator, dtype=torch.float64)
    for alpha in (0.01, 0.3, 1.0, 30.0):
        assert theory.contraction_factor(dense("peaceman-rachford", alpha).operator(d), u) < 1
    for share in (0.1, 0.9):
        network = dense()
        network.R.alpha = share * monotone.measures(network.R.W).largest_alpha
        assert theory.contraction_factor(network.operator(d), u.abs()) < 1


def oracle(network, d, y):
    """The gradient by way of the equation of the active unknowns, solved densely and differentiated by autograd."""
    u = F.relu(network.solve(d).u)
    W, q = full(network.R.W, (12,)), network.Q(d)
    states = []
    for i in range(len(d)):
        on = (u[i] > 0).nonzero().flatten()
        active = torch.linalg.solve(torch.eye(len(on)) - W[on][:, on], q[i, on])
        states.append(torch.zeros(12, dtype=torch.float64).index_put((on,), active))
    loss = F.cross_entropy(network.S.linear(torch.stack(states)), y)
    parameters = [p for part in (network.S, network.Q, network.R) for p in part.parameters()]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])


@pytest.mark.parametrize(("kind", "alpha"), STEPS)
def test_every_rule_against_the_dense_equation(kind, alpha):
    network = dense(kind, alpha, skew=2.0)
    d, y = sample(3)
    true = oracle(network, d, y)
    assert off(gradient_of(network, EXACT, d, y), true) < 1e-7
    assert off(gradient_of(network, ImplicitDifferentiation("neumann", tol=1e-11, max_steps=9000), d, y), true) < 1e-7
    for rule in (NeumannSeries(400, 1.0), UnrolledPhantom(400, 1.0), Unrolled(400)):
        assert off(gradient_of(network, rule, d, y), true) < 1e-3, rule
    one = gradient_of(network, JFB(), d, y)
    assert 0 < torch.cosine_similarity(one, true, dim=0) < 0.99


def test_the_gradient_is_that_of_finite_differences():
    network = dense("peaceman-rachford", 0.3, gradient=EXACT)
    d, y = sample(2)
    found = gradient_of(network, EXACT, d, y)
    network.gradient = JFB()  # the value is the same, and quicker
    parameters = [p for part in (network.S, network.Q, network.R) for p in part.parameters()]
    expected = by_differences(lambda: F.cross_entropy(network(d), y), [p.data for p in parameters], every=31)
    thinned = torch.cat([part[::31] for part in found.split([p.numel() for p in parameters])])
    torch.testing.assert_close(thinned, expected, atol=1e-6, rtol=1e-5)


def test_jfb_of_forward_backward_is_alpha_times_that_of_the_plain_step():
    d, y = sample()
    plain, split = dense("plain", 1.0, skew=0.3), dense(alpha=0.2, skew=0.3)
    one, other = (gradient_of(network, JFB(), d, y, parts="QR") for network in (plain, split))
    torch.testing.assert_close(other, 0.2 * one)


def test_jfb_of_peaceman_rachford_goes_through_the_resolvent():
    d, y = sample()
    network = dense("peaceman-rachford", 0.3)
    v = network.solve(d).u
    u = F.relu(v).requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(network.S.linear(u), y), u)
    V = network.R.W.resolvent(0.3)
    towards = 2 * 0.3 * (g * (v > 0)) @ V
    (bias,) = torch.autograd.grad(F.cross_entropy(network(d), y), network.Q.bias)
    torch.testing.assert_close(bias, towards[0].detach(), atol=1e-8, rtol=1e-6)


def test_with_relu_one_sample_never_ascends_and_otherwise_it_may():
    for m in (0.05, 1.0):
        relu = smallest_rate(5000, m=m)
        assert relu.rate >= m - 1e-9
        assert relu.outwards <= 1 - m + 1e-9
    assert smallest_rate(5000, slope=0.1).rate < -0.01
    assert smallest_rate(5000, m=-0.5).rate < 0
    assert ring_by_factors() == -12


def test_splitting_computes_the_linear_part_once_and_finds_the_same(monkeypatch):
    network = dense("peaceman-rachford", 0.3, solver=monotone.Splitting(1e-8, 5000))
    d, _ = sample()
    calls, linear = list[int](), network.R.linear

    def counted():
        calls.append(1)
        return linear()

    monkeypatch.setattr(network.R, "linear", counted)
    found = network.solve(d)
    assert len(calls) == 1 < int(found.steps.max())
    again = FixedPointIteration(1e-8, 5000, relative=True)(network.operator(d), torch.zeros(1, 12).double())
    torch.testing.assert_close(found.u, again.u)
    assert len(calls) > 2
    with torch.no_grad():
        network.R.W.A.mul_(0.5)  # nothing is held over from the solve before
    assert off(network.solve(d).u, found.u) > 1e-3


@pytest.fixture(scope="module")
def small():
    network = monotone.network(0, channels=3, skew=3.0, solver=monotone.Splitting(1e-10, 5000)).double()
    with torch.no_grad():
        network.Q[2].bias.normal_(generator=torch.Generator().manual_seed(0))
    return network


def test_the_mnist_network_of_each_step_has_one_gradient(small):
    d, y = torch.rand(2, 1, 28, 28, dtype=torch.float64), torch.tensor([3, 7])
    found = []
    best = monotone.measures(small.R.W).largest_alpha / 2
    for kind, alpha in (("forward-backward", best), ("peaceman-rachford", 1.0)):
        network = copy.deepcopy(small)
        network.R.kind, network.R.alpha = kind, alpha
        found.append((network(d), gradient_of(network, EXACT, d, y)))
        u = network.R.nearest(network.last.u)
        assert u[..., 0, :].abs().max() == u[..., -1].abs().max() == 0 < u[..., 1:-1, 1:-1].max()
    assert monotone.measures(small.R.W).norm > 1.2
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-7, rtol=0)
    assert off(found[0][1], found[1][1]) < 1e-6


@pytest.mark.parametrize(
    ("settings", "count"), [({}, 81_704), ({"channels": 54, "fold": 1}, 79_500), ({"fold": 2}, 76_088)]
)
def test_the_mnist_network_has_its_size(settings, count):
    network = monotone.network(0, **settings)
    assert sum(p.numel() for p in network.parameters()) == count
    side = 28 // settings.get("fold", 4) + 2
    assert network.Q(torch.rand(1, 1, 28, 28)).shape[2:] == (side, side)
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_tuning_takes_the_alpha_with_the_fewest_steps():
    network = dense(solver=monotone.Splitting(1e-6, 400), skew=2.0)
    d, _ = sample(3)
    network.on_unconverged = "ignore"
    alpha = monotone.tuned(network, d)
    assert network.R.alpha == alpha in [2.0**-k for k in range(9)]
    fewest = int(network.solve(d).steps.max())
    for other in (alpha / 2, 2 * alpha):
        network.R.alpha = other
        found = network.solve(d)
        assert not found.converged.all() or int(found.steps.max()) >= fewest
    network.solver = monotone.Splitting(1e-6, 2)
    with pytest.raises(RuntimeError, match="no α between"):
        monotone.tuned(network, d)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: monotone.Dense(3, m=0.0), "m must be positive"),
        (lambda: monotone.Circular(3, 2), "side must be at least 3"),
        (lambda: monotone.Step(monotone.Dense(3), "backward"), "kind must be one of"),
        (lambda: monotone.Step(monotone.Dense(3), alpha=-1), "alpha must be positive"),
        (lambda: monotone.Step(monotone.Dense(3), "plain", 0.5), "alpha is 1 in the plain step"),
        (lambda: monotone.network(0, fold=3), "fold must be 1, 2 or 4"),
    ],
)
def test_bad_settings_are_refused(make, fault):
    with pytest.raises(ValueError, match=fault):
        make()
