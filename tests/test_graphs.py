"""Implicit graph networks: the loader of the sets, the batches, the bound on W, the equilibrium, and each rule against a dense oracle."""

import gzip
import inspect
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from jfb_tutorial import theory
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, NeumannSeries, Unrolled, UnrolledPhantom
from jfb_tutorial.pages import graph_record, graphs
from jfb_tutorial.solvers import FixedPointIteration
from jfb_tutorial.training import graph_sets
from jfb_tutorial.training.data import DataNotFoundError

FIVE: dict[str, Any] = {  # a path, a triangle, a single node, a star, a ring of five: from 1, both directions
    "A": [(1, 2), (2, 1), (2, 3), (3, 2), (4, 5), (5, 4), (5, 6), (6, 5), (4, 6), (6, 4)]
    + [edge for leaf in (9, 10, 11) for edge in ((8, leaf), (leaf, 8))]
    + [edge for i in range(5) for edge in ((12 + i, 12 + (i + 1) % 5), (12 + (i + 1) % 5, 12 + i))],
    "graph_indicator": [1] * 3 + [2] * 3 + [3] + [4] * 4 + [5] * 5,
    "graph_labels": [-1, 1, -1, -1, 1],
    "node_labels": [2, 2, 5, 2, 2, 2, 5, 2, 4, 4, 4, 2, 2, 2, 2, 5],
}
TIGHT = FixedPointIteration(tol=1e-12, max_steps=3000, relative=True)


def put(folder, name, content=FIVE, *, end="\n", packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in content.items():
        text = end.join(", ".join(map(str, row)) if isinstance(row, tuple) else str(row) for row in rows) + end
        data, path = text.encode(), folder / f"{name}_{part}.txt"
        if packed:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(data))
        else:
            path.write_bytes(data)


def changed(**parts):
    return {**FIVE, **parts}


@pytest.fixture
def five(tmp_path):
    put(tmp_path / "FIVE", "FIVE")
    return graph_sets.load_graphs("FIVE", root=tmp_path)


@pytest.fixture
def small(five):
    """A network of width 4 in float64, with W at the bound and little cut off by relu, so that the rules differ; and the five graphs."""
    torch.manual_seed(3)
    network = graphs.IGNN(five.features, width=4, layers=3, dropout=0.0, solver=TIGHT).double()
    for Q, R in zip(network.inputs, network.steps, strict=True):
        Q.omega.data.add_(0.2)
        R.W.data.copy_(graphs.project(torch.rand(4, 4).double() + 0.2, 0.8))
    network.head.hidden.weight.data.add_(0.2)
    return network, graphs.batch(five).double()


# --- the loader


@pytest.mark.parametrize("place", ["FIVE", "graphs/FIVE", "TUDataset/FIVE/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_set_is_read_from_each_place(tmp_path, place, packed):
    put(tmp_path / place, "FIVE", packed=packed, end="\r\n" if packed else "\n")
    found = graph_sets.load_graphs("FIVE", root=tmp_path)
    assert (len(found), found.edges.shape, found.features, found.classes) == (5, (2, 26), 4, 2)
    assert found.labels.tolist() == [0, 1, 0, 0, 1]
    assert found.node_labels.tolist()[:3] == [0, 0, 3], "shifted, not renumbered"
    assert found.starts.tolist() == [0, 3, 6, 7, 11, 16]


def test_a_missing_set_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("JFB_DATA", str(tmp_path))
    with pytest.raises(DataNotFoundError, match=r"(?s)MUTAG_A\.txt.*graphs.*TUDataset.*JFB_DATA.*Two ways.*MUTAG\.zip"):
        graph_sets.load_graphs("MUTAG")
    with pytest.raises(DataNotFoundError, match=r"known are COX2"):
        graph_sets.load_graphs("MUTAGG")
    put(tmp_path / "HALF", "HALF")
    (tmp_path / "HALF" / "HALF_node_labels.txt").unlink()
    with pytest.raises(DataNotFoundError, match=r"is there but for .*HALF_node_labels\.txt"):
        graph_sets.load_graphs("HALF")
    with pytest.raises(TypeError, match="name must be a text"):
        graph_sets.load_graphs(7)  # type: ignore[arg-type]


def test_a_known_set_with_other_numbers_is_refused(tmp_path):
    put(tmp_path / "MUTAG", "MUTAG")
    with pytest.raises(ValueError, match="MUTAG is damaged"):
        graph_sets.load_graphs("MUTAG", root=tmp_path)


def test_the_sum_is_of_the_numbers(tmp_path, monkeypatch):
    """Neither the line ends nor the order of the edges changes it; a label does."""
    put(tmp_path / "a" / "FIVE", "FIVE", changed(A=FIVE["A"][::-1]), packed=True, end="\r\n")
    parts = [np.array(FIVE[part]) for part in graph_sets.FILES]
    monkeypatch.setitem(graph_sets.SHA256, "FIVE", graph_sets._digest(*parts))
    graph_sets.load_graphs("FIVE", root=tmp_path / "a")
    put(tmp_path / "b" / "FIVE", "FIVE", changed(graph_labels=[1, 1, -1, -1, 1]))
    with pytest.raises(ValueError, match="FIVE is damaged"):
        graph_sets.load_graphs("FIVE", root=tmp_path / "b")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (changed(A=FIVE["A"][:-1]), "one direction only"),
        (changed(A=[*FIVE["A"], (1, 5), (5, 1)]), "joins two graphs"),
        (changed(A=[*FIVE["A"], (1, 17), (17, 1)]), "the nodes 1 to 17, of 16"),
        (changed(node_labels=FIVE["node_labels"][:-1]), "16 nodes have a graph and 15 a label"),
        (changed(graph_labels=[1, 1]), "the graphs 1 to 2"),
        (changed(graph_labels=["x"] * 5), "cannot be read as integers"),
    ],
)
def test_files_that_do_not_fit_together(tmp_path, content, fault):
    put(tmp_path / "FIVE", "FIVE", content)
    with pytest.raises(ValueError, match=fault):
        graph_sets.load_graphs("FIVE", root=tmp_path)


# --- batches


def test_a_batch_is_its_graphs_side_by_side(five):
    A = graphs.batch(five).A.matrix.to_dense()
    both = graphs.batch(five, [3, 0])
    assert torch.equal(both.A.matrix.to_dense(), torch.block_diag(A[7:11, 7:11], A[:3, :3]))
    assert both.graph.tolist() == [0] * 4 + [1] * 3
    assert both.labels.tolist() == [0, 0]
    assert both.x.argmax(dim=1).tolist() == [0, 2, 2, 2, 0, 0, 3]
    with pytest.raises(ValueError, match="positions from 0 to 4"):
        graphs.batch(five, [5])


def test_the_largest_eigenvalue_of_the_normalised_adjacency_is_1(five):
    A = graphs.batch(five).double().A.matrix.to_dense()
    assert torch.equal(A, A.T)
    values = torch.linalg.eigvalsh(A)
    assert values[-5:].allclose(torch.ones(5).double()), "once a graph, of which this set has five"
    degrees = (A > 0).sum(dim=1).double().sqrt()
    assert (A @ degrees).allclose(degrees), "its eigenvector"
    assert values[0] > -1


def test_the_product_with_the_adjacency_and_its_gradients(five):
    batch = graphs.batch(five).double()
    x, q = torch.randn(2, 16, 3, dtype=torch.float64).requires_grad_()
    assert batch.A(x, q).allclose(batch.A.matrix.to_dense() @ x + q)
    assert torch.autograd.gradcheck(lambda x, q: batch.A(x, q), (x, q))
    assert torch.autograd.gradgradcheck(lambda x: batch.A(x).square(), (x,))


# --- the bound on W


def test_the_projection_is_the_nearest_point_of_the_ball():
    torch.manual_seed(0)
    W = torch.randn(6, 5, dtype=torch.float64)
    W[0] *= 0.05
    found = graphs.project(W, 0.9)
    assert found[0].equal(W[0]), "inside already"
    assert found[1:].abs().sum(dim=1).allclose(torch.full((5,), 0.9).double())
    for _ in range(500):  # ⟨W − P(W), V − P(W)⟩ ≤ 0 for every V of the ball, row by row
        V = torch.distributions.Dirichlet(torch.full((5,), 0.3)).sample((6,)).double() * 0.9 * torch.randn(6, 5).sign()
        assert ((W - found) * (V - found)).sum(dim=1).max() < 1e-12


def test_training_keeps_the_bound(five):
    torch.manual_seed(0)
    network = graphs.IGNN(five.features, width=8)
    losses = graphs.train(network, [graphs.batch(five)], epochs=12, rate=3e-2)
    assert losses[-1] < 0.8 * losses[0]
    for step in network.steps:
        assert step.W.abs().sum(dim=1).max() <= network.kappa * (1 + 1e-6)
        assert step.W.abs().sum(dim=1).max() > 0.5, "it is used"


def test_well_posed_for_random_weights(five):
    """ρ(J) ≤ ρ(|W|) ≤ ‖W‖_∞ ≤ κ whatever the weights; two starts find one equilibrium; and ‖J‖₂ may be above 1 all the same."""
    batch, norms = graphs.batch(five).double(), []
    for seed in range(4):
        torch.manual_seed(seed)
        network = graphs.IGNN(five.features, width=6, layers=1, solver=TIGHT).double()
        # rows that all lean on one node's feature: the 2-norm is near √6 κ, the ∞-norm κ
        W = torch.randn(6, 6).double() * torch.tensor([20.0, 1, 1, 1, 1, 1]).double()
        network.steps[0].W.data.copy_(graphs.project(W, 0.9))
        (equilibrium,) = network.equilibria(batch)
        one = equilibrium.solve(batch.x)
        other = equilibrium.solve(batch.x, 100 * torch.rand_like(one.u))
        assert one.u.allclose(other.u, atol=1e-9)
        T = equilibrium.operator(batch.x)
        assert theory.spectral_radius(T, one.u) <= 0.9 + 1e-6, "to the rounding of Â in float32"
        norms.append(theory.contraction_factor(T, one.u))
    assert max(norms) > 1.2, "so Theorem 3.1's contraction in the 2-norm is not what the bound gives"


# --- the equilibrium


def test_without_relu_it_is_a_linear_system(five):
    batch = graphs.batch(five).double()
    torch.manual_seed(0)
    network = graphs.IGNN(five.features, width=4, layers=1, phi=lambda x: x, solver=TIGHT).double()
    network.steps[0].W.data.fill_(0.9 / 4)  # ρ(W) = κ
    (equilibrium,) = network.equilibria(batch)
    found, q = equilibrium.solve(batch.x), equilibrium.Q(batch.x).detach()
    assert found.converged.all()
    system = torch.eye(q.numel()).double() - torch.kron(batch.A.matrix.to_dense(), network.steps[0].W.detach())
    assert found.u.allclose(torch.linalg.solve(system, q.flatten()).reshape(q.shape), atol=1e-11)


def test_each_graph_on_its_own_gives_the_same(small, five):
    network, batch = small
    network.eval()
    alone = torch.cat([network(graphs.batch(five, [i]).double()) for i in range(5)])
    assert network(batch).allclose(alone, atol=1e-9)
    assert network.on(batch)(batch.x).allclose(alone, atol=1e-9)


def test_the_order_of_the_nodes_plays_no_part(small):
    network, batch = small
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    A = batch.A.matrix.to_dense()[order][:, order].to_sparse_coo().coalesce()
    rows = torch.searchsorted(A.indices()[0], torch.arange(17))
    turned = graphs.Neighbours(rows, A.indices()[1], A.values())
    other = graphs.Graphs(turned, batch.x[order], batch.graph[order], batch.labels)
    assert network(batch).allclose(network(other), atol=1e-9)


def test_a_warm_start_changes_the_steps_alone(small):
    network, batch = small
    cold = network(batch)
    steps = [int(solution.steps.max()) for solution in network.last]
    warm = network(batch, network.found)
    assert warm.allclose(cold, atol=1e-10)
    assert all(int(solution.steps.max()) <= 2 < before for solution, before in zip(network.last, steps, strict=True))


def test_the_published_numbers_of_parameters():
    """33,538 on PROTEINS and 37,634 on COX2, the 34K and 38K of Table 4, of which a second Ω and a bias a layer are never read."""
    for features, used, published in ((3, 24_962, 33_538), (35, 27_010, 37_634)):
        network = graphs.IGNN(features)
        count = sum(parameter.numel() for parameter in network.parameters())
        assert (count, count + graphs.unused_parameters(network)) == (used, published)


def test_bad_settings():
    with pytest.raises(ValueError, match="kappa must be"):
        graphs.IGNN(3, kappa=1.0)
    with pytest.raises(ValueError, match="layers must be"):
        graphs.IGNN(3, layers=0)


# --- the rules, against dense matrices


def dense(batch, network, rule_adjoint):
    """The gradient by `rule_adjoint(g, J) -> w` in every equilibrium, by hand: relu's mask, Kronecker products, no solver of the package."""
    A, xs, us = batch.A.matrix.to_dense(), [batch.x], []
    for Q, R in zip(network.inputs, network.steps, strict=True):
        W, q = R.W.detach(), A @ xs[-1] @ Q.omega.detach().T
        u = torch.zeros_like(q)
        for _ in range(300):
            u = torch.relu(A @ u @ W.T + q)
        us.append(u)
        xs.append(u)
    u = us[-1].clone().requires_grad_()
    loss = nn.functional.cross_entropy(network.head(batch.graph, len(batch), u), batch.labels)
    g, *of_head = torch.autograd.grad(loss, [u, *network.head.parameters()])
    of_omega: list[torch.Tensor] = []
    of_W: list[torch.Tensor] = []
    for i in reversed(range(len(us))):
        W, omega, u, x = network.steps[i].W.detach(), network.inputs[i].omega.detach(), us[i], xs[i]
        mask = (u > 0).double()
        J = mask.flatten()[:, None] * torch.kron(A, W)
        w = rule_adjoint(g.flatten(), J).reshape(u.shape) * mask
        of_W.insert(0, (A @ w).T @ u)
        of_omega.insert(0, (A @ w).T @ x)
        g = A @ w @ omega
    return torch.cat([part.flatten() for part in [*of_omega, *of_W, *of_head]])


def exact_adjoint(g, J):
    return torch.linalg.solve(torch.eye(len(J)).double() - J.T, g)


def series_adjoint(k, damping):
    def adjoint(g, J):
        B = damping * J.T + (1 - damping) * torch.eye(len(J)).double()
        return damping * sum(torch.linalg.matrix_power(B, i) @ g for i in range(k))

    return adjoint


@pytest.mark.parametrize(
    ("rule", "adjoint"),
    [
        (ImplicitDifferentiation("neumann", tol=1e-12, max_steps=3000), exact_adjoint),
        (ImplicitDifferentiation("gmres", tol=1e-11), exact_adjoint),
        (ImplicitDifferentiation("cg", tol=1e-11), exact_adjoint),
        (Unrolled(400), exact_adjoint),
        (JFB(), series_adjoint(1, 1.0)),
        (NeumannSeries(5, 0.5), series_adjoint(5, 0.5)),
        *[(UnrolledPhantom(5, damping), series_adjoint(5, damping)) for damping in (0.5, 0.8, 1.0)],
    ],
    # a function is shown with its address, which every process has its own of
    ids=lambda value: "formula" if inspect.isfunction(value) else str(value),
)
def test_each_rule_is_its_formula(small, rule, adjoint):
    network, batch = small
    network.gradient = rule
    loss = nn.functional.cross_entropy(network(batch), batch.labels)
    found = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(network.parameters()))])
    true = dense(batch, network, adjoint)
    assert (found - true).norm() < 1e-8 * true.norm()


def test_the_formulas_differ(small):
    """Else the test above would say little."""
    network, batch = small
    true, one, five = (
        dense(batch, network, adjoint) for adjoint in (exact_adjoint, series_adjoint(1, 1.0), series_adjoint(5, 1.0))
    )
    assert (true - one).norm() > 0.3 * true.norm()
    assert 0.05 * true.norm() < (true - five).norm() < 0.7 * (true - one).norm()


def test_the_exact_gradient_by_differences(small):
    network, batch = small
    network.gradient = ImplicitDifferentiation("gmres", tol=1e-11)
    parameters = list(network.parameters())
    found = torch.autograd.grad(nn.functional.cross_entropy(network(batch), batch.labels), parameters)
    for seed in range(2):
        generator, values = torch.Generator().manual_seed(seed), []
        directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
        for h in (1e-5, -2e-5):
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.data.add_(direction, alpha=h)
            values.append(nn.functional.cross_entropy(network(batch), batch.labels).item())
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter.data.add_(direction, alpha=1e-5)
        slope = sum(float((g * v).sum()) for g, v in zip(found, directions, strict=True))
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(slope, rel=1e-5)


def test_the_criterion_runs_on_it(small):
    network, batch = small
    x = network.equilibria(batch)[0].solve(batch.x).u
    x = network.equilibria(batch)[1].solve(x).u
    assert theory.criterion(network.equilibria(batch, head=True)[-1], x).K.shape == (10, 10)


# --- folds and the record


def test_folds_are_stratified_and_apart():
    labels = np.repeat([0, 1], [130, 60])
    tested: list[int] = []
    for fold in graphs.folds(labels, seed=0):
        parts = [fold.train, fold.held_out, fold.test]
        assert sorted(np.concatenate(parts)) == list(range(190))
        assert [len(part) for part in parts] == [152, 19, 19]
        assert all(abs(labels[part].mean() - 60 / 190) < 0.03 for part in parts)
        tested.extend(fold.test)
    assert sorted(tested) == list(range(190))


ROWS = [
    {"set": "S", "rule": rule, "seed": 0, "fold": fold, "tested": 10, "right": right, "curve": curve}
    for rule, fold, right, curve in (
        ("a", 1, 6, "6 6 9"),
        ("a", 0, 7, "8 7 5"),
        ("b", 0, 5, "5 5 5"),
        ("b", 1, 5, "5 5 5"),
    )
]


def test_the_three_protocols():
    rows = graph_record.of(ROWS, "S", "a")
    assert [row["fold"] for row in rows] == [0, 1]
    assert graph_record.fold_accuracies(rows).tolist() == [0.7, 0.6]
    assert graph_record.fold_accuracies(rows, "one epoch").tolist() == [0.8, 0.6], (
        "0.7, 0.65 and 0.7: the first of the best"
    )
    assert graph_record.fold_accuracies(rows, "best of each").tolist() == [0.8, 0.9]
    assert graph_record.summary(rows) == (pytest.approx(65), pytest.approx(5), 2)
    gap, half = graph_record.difference(rows, graph_record.of(ROWS, "S", "b"))
    assert (gap, half) == (pytest.approx(15), pytest.approx(12.706 * 5, rel=1e-3))
    with pytest.raises(ValueError, match="protocol must be one of"):
        graph_record.fold_accuracies(rows, "best")
    with pytest.raises(ValueError, match="same seeds and folds"):
        graph_record.difference(rows, rows[:1])


def test_the_record_is_told_set_by_set():
    rows = [row | {"set": "MUTAG", "rule": new} for row in ROWS for new in graph_rules(row["rule"])]
    missing = [row for row in rows if not (row["rule"] == "one step" and row["fold"] == 1)]
    equilibrium = {"norm": 0.5, "radius": 0.25, "steps": 6, "W_zero": 0.5}
    looks = [
        {
            "set": "MUTAG",
            "rule": rule,
            "seed": 0,
            "epoch": epoch,
            "equilibria": [equilibrium],
            "cosines": {"JFB": 1 - epoch / 100},
        }
        for rule, epoch in (("exact", 20), ("exact", 0), ("JFB", 30))
    ]
    molecules = graph_record.Molecules({"runs": [row | {"epochs": 3} for row in missing], "theory": looks})
    assert molecules.sets == ["MUTAG"]
    # of fold 1 one rule has no run, so that no rule is shown with it
    assert [len(molecules.of("MUTAG", rule)) for rule in molecules.rules] == [1] * len(molecules.rules)
    assert molecules.gap("exact") == pytest.approx(10)
    named = molecules.values()
    assert (named["graph_cosine_first"], named["graph_cosine_last"], named["graph_zero"]) == ("1.000", "0.800", "50")
    assert named["graph_epochs"] == "3 (MUTAG)"
    figure = graph_record.protocols(molecules)
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == [*molecules.rules[:-1], "without W"]
    plt.close(figure)
    both = graph_record.Molecules({"runs": [row | {"epochs": 3} for row in rows], "theory": looks})
    (line,) = both.difference_rows()
    assert line[:2] == ["MUTAG", "2"]
    assert line[2].startswith("−15.0 ± ")
    named = both.values()
    assert (named["graph_cells"], named["graph_outside"], named["graph_which"]) == ("5", "0", "none")
    assert (named["graph_runs"], named["graph_seeds"], named["graph_cosine_least"]) == ("12", "1", "0.80")
    assert named["graph_widest"] in line[2]


def graph_rules(name):
    """The rules that a made-up row stands for."""
    return ("exact", "UPG 5, 0.5") if name == "a" else ("JFB", "UPG 5, 1.0", "NPG 5, 0.5", "one step")


def test_a_step_shrinks_by_kappa_in_its_own_norm():
    within, beyond = (graph_record.ratio(seed, kappa=kappa) for seed, kappa in ((0, 0.9), (0, 1.2)))
    assert 0.7 < within.own <= 0.9
    assert within.radius <= within.row == pytest.approx(0.9)
    assert beyond.own > 1
