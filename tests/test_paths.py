"""The shortest-path layer of chapter 14: its grid, its projection, its exact answers, and which parts it records."""

import itertools
import json

import pytest
import torch
from conftest import BOOK
from torch import nn

from jfb_tutorial import theory
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation
from jfb_tutorial.pages import paths
from jfb_tutorial.solvers import FixedPointIteration

REST = FixedPointIteration(tol=1e-11, max_steps=20_000)


def every_path(side):
    """All ways to the right and down, each as the flow on its edges."""
    number = {tuple(edge): k for k, edge in enumerate(paths.grid(side)[0].tolist())}
    for moves in itertools.product((1, side), repeat=2 * (side - 1)):
        if moves.count(1) == side - 1:
            cells = list(itertools.accumulate(moves, initial=0))
            flow = torch.zeros(len(number), dtype=torch.float64)
            flow[[number[pair] for pair in itertools.pairwise(cells)]] = 1
            yield flow


def test_edges_and_incidence():
    edges, A = paths.grid(8)
    assert len(edges) == 112
    assert A.sum(dim=0).eq(0).all()
    assert A.abs().sum(dim=0).eq(2).all()
    assert all(b - a in (1, 8) for a, b in edges.tolist())


def test_shortest_paths_are_the_best_of_all():
    costs = torch.rand(5, len(paths.grid(4)[0]), generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.3
    ways = torch.stack(list(every_path(4)))
    assert len(ways) == 20
    best = paths.shortest(costs, 4)
    torch.testing.assert_close((best * costs).sum(dim=1), (costs @ ways.T).min(dim=1).values)


def test_the_projection_gives_flows_and_is_the_nearest():
    N, x0 = paths.flows(4)
    A = paths.grid(4)[1].double()
    v = torch.randn(3, len(N), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = v @ N + x0
    b = torch.zeros(16, dtype=torch.float64)
    b[0], b[-1] = 1, -1
    torch.testing.assert_close(y @ A.T, b.expand(3, -1), rtol=0, atol=1e-12)
    ways = torch.stack(list(every_path(4)))
    # what was moved is at right angles to every difference of flows
    torch.testing.assert_close((v - y) @ (ways[1:] - ways[0]).T, torch.zeros(3, 19).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(N @ N, N, rtol=0, atol=1e-12)


def at_rest(network, d):
    with network.using(solver=REST):
        return network.solve(d)


def test_the_fixed_point_solves_the_regularised_problem():
    """It is feasible, and better than what mixing in any path makes of it."""
    network = paths.doubled(paths.network(0))
    d = paths.maps(4, seed=0)[0].double()
    solution = at_rest(network, d)
    assert solution.all_converged
    x, c = torch.relu(solution.u), network.Q(d).detach()
    A = paths.grid()[1].double()
    assert ((x @ A.T)[:, 1:-1]).abs().max() < 1e-9
    gradient = c + paths.EPSILON * x
    best = paths.shortest(gradient)
    # no flow is better in the direction of the gradient: the condition of the first order
    assert ((best - x) * gradient).sum(dim=1).min() > -1e-8


def test_the_norm_is_one_and_the_direction_exact_where_the_target_is_in_use():
    network = paths.doubled(paths.network(0))
    d, cells = (x.double() for x in paths.maps(40, seed=3))
    best = paths.shortest(paths.entering(cells))
    u = at_rest(network, d).u
    in_use = ((u > 0) | (best == 0)).all(dim=1)
    assert in_use.any()
    assert not in_use.all()
    T = network.operator(d[:1])
    assert theory.contraction_factor(T, u[:1]) == pytest.approx(1, abs=1e-9)
    one: list[torch.Tensor] = []
    true: list[torch.Tensor] = []
    for i in (int(in_use.int().argmax()), int((~in_use).int().argmax())):
        for rule, found in ((JFB(), one), (ImplicitDifferentiation(tol=1e-10), true)):
            with network.using(solver=REST, gradient=rule):
                loss = (network(d[i : i + 1]) - best[i]).square().sum()
                found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*network.parameters()])]))
    torch.testing.assert_close(one[0], paths.ALPHA * paths.EPSILON * true[0], rtol=1e-6, atol=1e-9)
    assert nn.functional.cosine_similarity(one[1], true[1], dim=0) < 0.99


def test_what_is_passed_by_leaves_the_value_alone():
    z, c = torch.randn(3, 112, generator=torch.Generator().manual_seed(0)), torch.ones(3, 112, requires_grad=True)
    whole, step = paths.Flow(), paths.Flow(recorded=False)
    torch.testing.assert_close(whole(z, c), step(z, c))
    g = torch.randn(3, 112, generator=torch.Generator().manual_seed(1))
    (of_whole,) = torch.autograd.grad(whole(z, c), c, g)
    (of_step,) = torch.autograd.grad(step(z, c), c, g)
    torch.testing.assert_close(of_whole, -paths.ALPHA * g @ whole.N)
    torch.testing.assert_close(of_step, -paths.ALPHA * g)
    z.requires_grad_()
    (of_read,) = torch.autograd.grad(paths.Read(recorded=False)(z), z, g)
    assert torch.equal(of_read, g)


def test_training_lowers_the_regret():
    network = paths.network(0)
    d, cells = paths.maps(200, seed=0)
    new = paths.maps(200, seed=1)
    before = paths.regret(network, *new)["regret"]
    seen: list[int] = []
    best = paths.shortest(paths.entering(cells))
    paths.train(network, 0, d, best, updates=60, watch=lambda update, seconds: seen.append(update))
    assert seen == list(range(61))
    assert paths.regret(network, *new)["regret"] < 0.2 * before


def test_the_chapter_trains_this_layer():
    """What the chapter shows is what its record was measured with."""
    cells = json.loads((BOOK / "14-layers-that-solve-problems.ipynb").read_text())["cells"]
    source = next("".join(cell["source"]) for cell in cells if "paths.Costs()" in "".join(cell["source"]))
    names: dict = {"paths": paths}
    start = "import torch\nfrom torch import nn\nfrom jfb_tutorial import FixedPointIteration, ImplicitNetwork\n"
    exec(start + source, names)
    shown, ours = names["layer"], paths.doubled(paths.network(0))
    assert shown.solver == ours.solver
    assert shown.gradient == ours.gradient
    for left, right in zip(shown.parameters(), ours.parameters(), strict=True):
        assert torch.equal(left, right)
    d = paths.maps(5, seed=0)[0].double()
    z = torch.randn(5, 112, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(shown.operator(d)(z), ours.operator(d)(z))
