"""Neural ODEs: the solution, the adjoint method, the path as a fixed point, the MNIST network."""

import copy
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from jfb_tutorial import theory
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, NeumannSeries, Unrolled, UnrolledPhantom
from jfb_tutorial.pages import odes
from jfb_tutorial.pages.instances import by_differences, gradient_of, off

STEPS = 6


def field(n=3, **settings):
    torch.manual_seed(0)
    return odes.Perceptron(n, hidden=5, **settings).double()


class Linear(nn.Module):
    """u' = Au."""

    def __init__(self, A):
        super().__init__()
        self.A = nn.Parameter(A)

    def forward(self, t, u):
        return u @ self.A.T


def test_a_linear_ode_is_the_exponential():
    A = torch.tensor([[0.0, -2.0], [2.0, -0.3]], dtype=torch.float64)
    u = torch.randn(4, 2, dtype=torch.float64)
    found = odes.integrate(Linear(A), u, tol=1e-9)
    torch.testing.assert_close(found, u @ torch.linalg.matrix_exp(A).T, atol=1e-7, rtol=0)
    coarse, fine = (odes.integrate(Linear(A), u, method="euler", steps=steps) for steps in (1, 400))
    torch.testing.assert_close(coarse, u + u @ A.T)
    assert off(fine, found) < 0.01
    path = odes.integrate(Linear(A), u, tol=1e-9, times=torch.linspace(0, 1, 3).double())
    assert path.shape == (3, 4, 2)
    torch.testing.assert_close(path[1], u @ torch.linalg.matrix_exp(A / 2).T, atol=1e-7, rtol=0)


@pytest.mark.parametrize("adjoint", [True, False])
def test_the_gradient_is_that_of_finite_differences(adjoint):
    f, u = field(), torch.randn(2, 3, dtype=torch.float64)
    start = u.clone().requires_grad_()

    def loss():
        return odes.integrate(f, start, tol=1e-9, adjoint=adjoint).sin().sum()

    found = torch.autograd.grad(loss(), [*f.parameters(), start])
    numbers = [*(p.data for p in f.parameters()), start.data]
    expected = by_differences(loss, numbers, every=7)
    thinned = torch.cat([part.flatten()[::7] for part in found])
    torch.testing.assert_close(thinned, expected, atol=1e-6, rtol=1e-5)


def test_a_looser_adjoint_is_less_accurate():
    f, u = field(strength=4.0), torch.randn(2, 3, dtype=torch.float64)

    def gradient(tol, adjoint, back=None):
        value = odes.integrate(f, u, tol=tol, adjoint=adjoint, adjoint_tol=back).square().sum()
        return torch.cat([part.flatten() for part in torch.autograd.grad(value, [*f.parameters()])])

    true = gradient(1e-11, False)
    errors = [off(gradient(tol, True), true) for tol in (1e-2, 1e-5, 1e-8)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[0] > 5e-4
    # after a tight solve it is the second one that counts
    assert off(gradient(1e-10, True, 1e-2), true) > 100 * off(gradient(1e-10, True), true)


def test_paths_on_a_line_keep_their_order_and_can_be_walked_back():
    f = field(1, strength=8.0)
    u = torch.linspace(-2, 2, 9, dtype=torch.float64).unsqueeze(1)
    end = odes.integrate(f, u, tol=1e-8)
    assert (end.diff(dim=0) > 0).all()
    assert off(end, u) > 0.05
    back = odes.integrate(lambda t, u: -f(1 - t, u), end, tol=1e-9)
    torch.testing.assert_close(back, u, atol=1e-5, rtol=0)


def test_time_is_one_more_channel():
    torch.manual_seed(0)
    layer = odes.WithTime(2, 3, 3)
    torch.manual_seed(0)
    whole = nn.Conv2d(3, 3, 3, padding=1)
    u, t = torch.randn(4, 2, 5, 5), torch.tensor(0.3)
    expected = whole(torch.cat([t.expand(4, 1, 5, 5), u], dim=1))
    torch.testing.assert_close(layer(t, u), expected)


def picard(**settings):
    torch.manual_seed(1)
    return odes.picard_network(nn.Linear(2, 3), field(strength=3.0), nn.Linear(3, 2), steps=STEPS, **settings).double()


def data():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, 2, generator=generator, dtype=torch.float64), torch.tensor([0, 1])


def euler(network, d):
    u, f = network.Q.Q(d), network.R.field
    path = [u]
    for k in range(STEPS):
        u = u + f(torch.tensor(k / STEPS, dtype=u.dtype), u) / STEPS
        path.append(u)
    return torch.stack(path, dim=1)


def test_the_path_of_euler_is_the_fixed_point_and_k_steps_have_its_first_k():
    network = picard()
    d, _ = data()
    path = euler(network, d)
    found = network.solve(d)
    torch.testing.assert_close(found.u, path)
    assert int(found.steps.max()) <= STEPS + 2
    T = network.operator(d)
    u = T.zeros()
    for k in range(1, STEPS + 1):
        u = T(u)
        torch.testing.assert_close(u[:, :k], path[:, :k])


def test_the_spectral_radius_of_a_path_is_zero_whatever_the_norm():
    network = picard()
    with torch.no_grad():
        network.R.field.two.weight.mul_(20)
    d = data()[0][:1]
    T, u = network.operator(d), network.solve(d).u
    J = torch.autograd.functional.jacobian(lambda x: T(x), u).reshape(u.numel(), u.numel())
    assert torch.linalg.matrix_power(J, STEPS + 1).abs().max() == 0
    assert theory.contraction_factor(T, u) > 1


def test_every_rule_on_the_path_against_backpropagation_through_euler():
    network = picard()
    d, y = data()
    loss = F.cross_entropy(network.S.S(euler(network, d)[:, -1]), y)
    parameters = [p for part in (network.S, network.Q, network.R) for p in part.parameters()]
    true = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
    for solver in ("gmres", "neumann"):
        assert off(gradient_of(network, ImplicitDifferentiation(solver, tol=1e-12), d, y), true) < 1e-10
    for rule in (Unrolled(STEPS + 1), NeumannSeries(STEPS + 1), UnrolledPhantom(STEPS + 1, 1.0)):
        assert off(gradient_of(network, rule, d, y), true) < 1e-12, rule
    assert 0.01 < off(gradient_of(network, JFB(), d, y), true) < 1


def test_jfb_on_the_path_takes_the_adjoint_for_constant():
    network = picard()
    d, y = data()
    path = euler(network, d).detach()
    end = path[:, -1].clone().requires_grad_()
    (a,) = torch.autograd.grad(F.cross_entropy(network.S.S(end), y), end)
    f = network.R.field
    total = sum((a * f(torch.tensor(k / STEPS).double(), path[:, k])).sum() / STEPS for k in range(STEPS))
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(total, [*f.parameters()])])
    torch.testing.assert_close(gradient_of(network, JFB(), d, y, parts="R"), expected)


PUBLISHED = [({"fold": 1, "filters": 92}, 85_316), ({"fold": 1, "filters": 64, "augment": 5}, 85_462)]


@pytest.mark.parametrize(("settings", "count"), [({}, 81_450), ({"augment": 5}, 77_770), *PUBLISHED])
def test_the_mnist_network_has_its_size(settings, count):
    network = odes.network(0, **settings)
    assert sum(p.numel() for p in network.parameters()) == count
    fold, channels = settings.get("fold", 4), 1 + settings.get("augment", 0)
    u = network.Q(torch.rand(2, 1, 28, 28))
    assert u.shape == (2, channels * fold**2, 28 // fold, 28 // fold)
    assert (u == 0).double().mean() == pytest.approx(1 - 1 / channels, abs=1e-3)


def evaluated(network) -> int:
    return network.field.evaluations


def test_the_mnist_network_has_one_gradient_both_ways():
    torch.manual_seed(0)
    d, y = torch.rand(2, 1, 28, 28, dtype=torch.float64), torch.tensor([3, 7])
    network = odes.network(0, filters=4, adjoint=True, tol=1e-4).double()
    other = copy.deepcopy(network)
    other.settings["adjoint"] = False
    found = []
    for each in (network, other):
        value = F.cross_entropy(each(d), y)
        count = evaluated(each)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(value, [*each.parameters()])]))
        assert count >= 14
        assert (evaluated(each) > count) == each.settings["adjoint"]
    assert off(found[0], found[1]) < 0.01


def test_bad_input_is_refused(monkeypatch):
    u = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="tol must be positive"):
        odes.integrate(field(2), u, tol=0)
    with pytest.raises(ValueError, match="adjoint_tol must be positive"):
        odes.integrate(field(2), u, adjoint_tol=-1.0)
    with pytest.raises(TypeError, match="adjoint must be True or False"):
        odes.integrate(field(2), u, adjoint=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fold must be 1, 2 or 4"):
        odes.network(0, fold=3)
    with pytest.raises(ValueError, match="filters must be given with augment=2"):
        odes.network(0, augment=2)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        odes.Picard(field(), 0)
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ModuleNotFoundError, match="torchdiffeq is not installed"):
        odes.integrate(field(2), u)
