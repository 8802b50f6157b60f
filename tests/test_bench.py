"""The bench against counts and gradients taken by hand."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from problems import Block, Layer
from torch import nn

from jfb_tutorial import bench
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, NeumannSeries, Unrolled, UnrolledPhantom
from jfb_tutorial.network import ImplicitNetwork
from jfb_tutorial.solvers import FixedPointIteration


def network():
    torch.manual_seed(0)
    R = Layer(6)
    R.scale = 0.7
    solver = FixedPointIteration(tol=1e-13, max_steps=500)
    return ImplicitNetwork(nn.Linear(3, 6), R, nn.Linear(6, 2), solver=solver).double()


D, Y = torch.linspace(-1, 1, 12).reshape(4, 3).double(), torch.tensor([0, 1, 1, 0])
LOSS = nn.functional.cross_entropy


def by_hand(net, rule):
    net.gradient = rule
    theta = [*net.Q.parameters(), *net.R.parameters()]
    return torch.cat([part.flatten() for part in torch.autograd.grad(LOSS(net(D), Y), theta)])


def test_every_row_is_what_it_says():
    rules: list[Callable] = [*bench.RULES, NeumannSeries(2)]
    table = bench.compare(network(), D, Y, LOSS, rules)
    net = network()
    exact = by_hand(net, ImplicitDifferentiation(tol=1e-13))
    for rule in rules:
        row = table[rule]
        gradient = by_hand(net, rule)
        assert row.cosine == pytest.approx((gradient @ exact / gradient.norm() / exact.norm()).item(), abs=1e-8)
        assert row.bias == pytest.approx(((gradient - exact).norm() / exact.norm()).item(), abs=1e-7)
        evaluations = {Unrolled: 50, UnrolledPhantom: 5}.get(type(rule), 1)
        assert row.evaluations == evaluations
        if isinstance(rule, NeumannSeries):
            assert row.products == rule.terms - 1
        elif isinstance(rule, ImplicitDifferentiation):
            assert row.products > 3
        else:
            assert row.products == 0
    assert table.residual <= 1e-13
    assert table.steps == len(net.solve(D).residuals)
    with net.using(solver=dataclasses.replace(net.solver, check_every=7)):
        unchecked = bench.compare(net, D, Y, LOSS, [JFB()])
        assert unchecked.steps == 7 * len(net.solve(D).residuals)  # evaluations, not checks
    with pytest.raises(KeyError, match="was not compared; compared were"):
        table[NeumannSeries(17)]


def test_saved_bytes_are_those_of_what_is_kept():
    x = torch.ones(10, 10, requires_grad=True)
    with bench.saved_bytes() as saved:
        y = x.exp()  # keeps its result
        z = y * y  # keeps y, twice
    assert saved.total == y.untyped_storage().nbytes() == 400
    with bench.saved_bytes([x]) as saved:
        z = x * 2.0 * x
    assert saved.total == 400  # 2x, but not x
    z.sum().backward()


def test_memory_of_unrolling_grows_by_a_latent_a_step_and_the_others_are_flat():
    net = network()
    rows = bench.compare(net, D, Y, LOSS, [Unrolled(10), Unrolled(20), JFB(), ImplicitDifferentiation("cg")])
    assert rows[Unrolled(20)].saved - rows[Unrolled(10)].saved == 10 * (2 * 4 * 6 * 8)  # tanh's result, scale's input
    assert rows[JFB()].saved <= rows[ImplicitDifferentiation("cg")].saved < rows[Unrolled(10)].saved / 3


def test_the_network_is_left_as_it_was():
    torch.manual_seed(0)
    R = Block(nn.BatchNorm2d(4)).train()
    R.scale = 0.3
    net = ImplicitNetwork(nn.Identity(), R, nn.Sequential(nn.Flatten(), nn.Linear(36, 2)))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    bench.compare(net, torch.randn(4, 4, 3, 3), Y, LOSS, [JFB(), NeumannSeries(2)], reference=ImplicitDifferentiation())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in net.parameters())
    assert net.gradient == JFB()


def test_a_table_reads_in_text_and_in_html():
    table = bench.compare(network(), D, Y, LOSS)
    text = repr(table).splitlines()
    assert len(text) == 1 + len(bench.RULES)
    assert len({len(line) for line in text}) == 1
    assert max(map(len, text)) <= 80
    assert text[1].startswith("exact, gmres")
    html = table._repr_html_()
    assert html.count('<th scope="row">') == len(bench.RULES)
    assert bench.name(ImplicitDifferentiation("cg", per_sample=True)) == "exact, cg per sample"
    assert bench.name(JFB()) == "JFB"


def test_nothing_to_compare():
    net = ImplicitNetwork(nn.Identity(), lambda u, q: 0.5 * u + q, nn.Linear(3, 2)).double()
    with pytest.raises(ValueError, match="network must have parameters in Q or R"):
        bench.compare(net, D, Y, LOSS)


def test_a_cosine_of_many_float32_parameters_is_not_rounded_away():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1_000_000))

        def forward(self, d):
            return d @ self.w[:, None] / 1e3

    class Half(nn.Module):
        def forward(self, u, q):
            return u / 2 + q

    network = ImplicitNetwork(Sum(), Half(), nn.Identity(), solver=FixedPointIteration(tol=1.0))
    d = torch.randn(1, 1_000_000, generator=torch.Generator().manual_seed(0))
    (row,) = bench.compare(network, d, d[:, :1], lambda a, b: (a - b).sum(), [JFB()]).rows
    # JFB's gradient is half of the exact one
    assert abs(row.cosine - 1) < 1e-6
    assert abs(row.bias - 0.5) < 1e-6
