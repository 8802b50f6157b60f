"""ImplicitNetwork: what it evaluates, how often, and what it refuses."""

import pytest
import torch
from problems import Layer
from torch import nn

from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, NeumannSeries, Unrolled, UnrolledPhantom
from jfb_tutorial.network import ImplicitNetwork
from jfb_tutorial.solvers import Anderson, FixedPointIteration, Solution

RULES = [JFB(), ImplicitDifferentiation(), NeumannSeries(3), UnrolledPhantom(), Unrolled(7)]


class Counting(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module, self.calls, self.with_graph = module, 0, 0

    def forward(self, *arguments):
        self.calls += 1
        self.with_graph += torch.is_grad_enabled()
        return self.module(*arguments)


def network(**keywords):
    torch.manual_seed(0)
    R = Layer(5)
    R.scale = 0.5
    return ImplicitNetwork(Counting(nn.Linear(3, 5)), Counting(R), Counting(nn.Linear(5, 2)), **keywords).double()


def data(batch=4):
    return torch.randn(batch, 3, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("train", [True, False])
def test_a_forward_pass_is_S_of_the_rule_at_what_the_solver_found(rule, train):
    net = network(gradient=rule).train(train)
    d = data()
    out = net(d)
    assert net.Q.calls == net.S.calls == 1
    q = net.Q.module(d)
    u = torch.zeros_like(q)
    if not isinstance(rule, Unrolled):
        u = FixedPointIteration()(lambda u: net.R.module(u, q), u).u
    expected = net.S.module(rule(lambda u: net.R.module(u, q), u))
    torch.testing.assert_close(out, expected, rtol=0, atol=0)
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_the_solve_records_no_graph_and_the_rule_evaluates_R_once_more():
    net = network(solver=FixedPointIteration(tol=1e-300, max_steps=9))
    net(data())
    assert (net.R.calls, net.R.with_graph) == (10, 1)


def test_unrolling_skips_the_solve():
    net = network(gradient=Unrolled(7))
    net(data())
    assert (net.R.calls, net.R.with_graph) == (7, 7)
    assert net.last is None


def test_last_is_the_latest_solution_without_a_graph():
    net = network(solver=Anderson(tol=1e-10))
    assert net.last is None
    net(data())
    assert isinstance(net.last, Solution)
    assert net.last.converged.all()
    assert not net.last.u.requires_grad
    first = net.last
    found = net.solve(data(2))
    assert found is net.last is not first
    assert found.u.shape == (2, 5)
    assert not found.u.requires_grad


def test_the_operator_evaluates_Q_once_and_keeps_its_graph():
    net = network()
    T = net.operator(data())
    u = torch.zeros(4, 5).double()
    T(T(u)).sum().backward()
    assert net.Q.calls == 1
    assert net.Q.module.weight.grad.norm() > 0


def test_plain_functions_and_replaced_parts():
    net = ImplicitNetwork(lambda d: d, lambda u, q: 0.5 * u + q, lambda u: 2 * u, solver=FixedPointIteration(tol=1e-12))
    torch.testing.assert_close(net(data()), 4 * data(), rtol=1e-6, atol=1e-8)
    net.gradient = Unrolled(3)
    torch.testing.assert_close(net(data()), 3.5 * data())


BAD = [
    ({"Q": None}, "Q must be callable, got NoneType"),
    ({"S": 3}, "S must be callable, got int"),
    ({"gradient": JFB}, r"gradient must be an object, got the class JFB; write JFB\(\)"),
    ({"solver": "anderson"}, "solver must be callable, got str"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message[:20] for _, message in BAD])
def test_bad_parts(change, message):
    parts = {"Q": nn.Identity(), "R": lambda u, q: u, "S": nn.Identity()} | change
    with pytest.raises(TypeError, match=message):
        ImplicitNetwork(parts.pop("Q"), parts.pop("R"), parts.pop("S"), **parts)


def test_a_borrowed_network_is_given_back_as_it_was():
    net = network()
    net.Q.eval()
    net(data())
    before = net.solver, net.gradient, net.last, [module.training for module in net.modules()]
    other = FixedPointIteration(tol=1e-2)
    with (
        pytest.raises(RuntimeError, match="stop"),
        net.using(solver=other, gradient=Unrolled(3), mode="eval") as borrowed,
    ):
        assert borrowed is net
        assert (net.solver, net.gradient) == (other, Unrolled(3))
        assert not any(module.training for module in net.modules())
        net.solve(data())
        raise RuntimeError("stop")
    after = net.solver, net.gradient, net.last, [module.training for module in net.modules()]
    assert after == before
    with (
        pytest.raises(ValueError, match="mode must be one of 'train', 'eval', got 'evl'; did you mean 'eval'"),
        net.using(mode="evl"),
    ):
        pass
