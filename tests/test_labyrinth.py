"""The second network of chapter 13, its grids, and the one that the page carries."""

import json
from collections import deque

import numpy as np
import pytest
import torch
from conftest import BOOK, ROOT

from jfb_tutorial.pages import labyrinth, labyrinth_record

RECORD = ROOT / "book" / "records" / "labyrinth.safetensors"
SMALL = """
o.#.
.##.
...#
##..
"""


def reached(walls, spring):
    """How many moves each cell is from the spring, by a queue."""
    rows, columns = walls.shape
    away, queue = {spring: 0}, deque([spring])
    while queue:
        y, x = queue.popleft()
        for there in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
            inside = 0 <= there[0] < rows and 0 <= there[1] < columns
            if inside and not walls[there] and there not in away:
                away[there] = away[y, x] + 1
                queue.append(there)
    return away


def test_the_water_goes_to_four_neighbours_and_not_into_walls():
    d = labyrinth.read(SMALL)
    assert d.shape == (1, 2, 4, 4)
    wet, farthest = labyrinth.flood(d)
    assert wet[0, 0].tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1]]
    assert farthest.tolist() == [6]


@pytest.mark.parametrize("size", [5, 12])
def test_flood_agrees_with_a_queue(size):
    d, y = labyrinth.grids(20, size, torch.Generator().manual_seed(size), least=0, most=1)
    assert d.shape == (20, 2, size, size)
    assert y.shape == (20, 1, size, size)
    _, farthest = labyrinth.flood(d)
    for grid, wet, far in zip(d, y, farthest.tolist(), strict=True):
        row, column = divmod(int(grid[1].argmax()), size)
        away = reached(grid[0], (row, column))
        assert {(int(i), int(j)) for i, j in wet[0].nonzero()} == set(away)
        assert far == max(away.values())


def test_grids_are_neither_all_wet_nor_all_dry():
    d, y = labyrinth.grids(50, 10, torch.Generator().manual_seed(0))
    share = y.sum(dim=(1, 2, 3)) / (1 - d[:, :1]).sum(dim=(1, 2, 3))
    assert 0.2 <= share.min() <= share.max() <= 0.8
    assert (d.sum(dim=1) <= 1).all()  # no spring in a wall
    assert (d[:, 1].sum(dim=(1, 2)) == 1).all()
    assert labyrinth.right(2 * y - 1, y).all()
    assert not labyrinth.right(1 - 2 * y, y).any()


@pytest.mark.parametrize("text", ["..\n#.", "oo\n..", "o.\n..."])
def test_what_is_no_labyrinth(text):
    with pytest.raises(ValueError, match="lines of one length and one spring"):
        labyrinth.read(text)


def test_a_step_hears_of_its_four_neighbours():
    torch.manual_seed(0)
    u = torch.rand(1, 16, 7, 7)
    # the largest values of a cell's neighbourhood are in one cell, so that the gradient goes there alone
    for there, heard in (((3, 3), True), ((2, 3), True), ((3, 4), True), ((2, 2), False), ((3, 5), False)):
        v = u.clone()
        v[0, :, *there] = 2
        v.requires_grad_(True)
        T = labyrinth.network(0).operator(torch.zeros(1, 2, 7, 7))
        T(v)[0, :, 3, 3].sum().backward()
        assert v.grad is not None
        assert bool(v.grad[0, :, *there].abs().sum() > 0) is heard, there


def test_the_recorded_network_goes_on_beyond_its_training():
    network = labyrinth.recorded(RECORD)
    assert sum(weight.numel() for weight in network.parameters()) == 1_649
    d, y = labyrinth.grids(10, 30, torch.Generator().manual_seed(5))
    with torch.no_grad(), network.using(solver=labyrinth.solver(30)):
        assert labyrinth.right(network(d), y).all()
        assert network.last is not None
        assert network.last.all_converged
        _, farthest = labyrinth.flood(d)
        assert (network.last.steps >= farthest).all()
        assert (network.last.steps <= farthest + 20).all()


def test_cut_off_water_stays():
    network = labyrinth.recorded(RECORD)
    closed = labyrinth.read(labyrinth.DRAWN)
    opened = closed.clone()
    opened[0, 0, labyrinth.DAM[0] - 1, labyrinth.DAM[1] - 1] = 0
    (dry, near), (wet, far) = labyrinth.flood(closed), labyrinth.flood(opened)
    assert [int(near), int(far), int(dry.sum()), int(wet.sum())] == [64, 126, 65, 127]
    with torch.no_grad(), network.using(solver=labyrinth.solver(15)):
        full = network.solve(opened)
        assert labyrinth.right(network.S(full.u), wet).all()
        again = network.solve(closed, full.u)
        assert again.converged.all()
        assert int((network.S(again.u) > 0).sum()) == 126
        assert labyrinth.right(network.S(network.solve(closed).u), dry).all()


def test_training_learns():
    network = labyrinth.network(1)
    losses = labyrinth.train(network, 1, updates=12)
    assert len(losses) == 12
    assert losses[-1] < losses[0]


def test_the_chapter_trains_this_network():
    """What the chapter shows is what its record was measured with."""
    cells = json.loads((BOOK / "13-what-an-equilibrium-is-for.ipynb").read_text())["cells"]
    source = next("".join(cell["source"]) for cell in cells if "class Flow" in "".join(cell["source"]))
    names: dict = {}
    start = "import torch\nfrom torch import nn\nfrom torch.nn.functional import max_pool2d\n"
    exec(start + source[: source.index("\n\n\n", source.index("class Flow"))], names)
    torch.manual_seed(0)
    shown = names["Flow"]()
    torch.manual_seed(0)
    ours = labyrinth.Step()
    u, q = torch.randn(2, 2, 16, 9, 9)
    assert torch.equal(shown(u, q), ours(u, q))


def test_when_the_water_came():
    network, d = labyrinth.recorded(RECORD), labyrinth.read(labyrinth.DRAWN)
    arrived, steps = labyrinth_record.arrivals(network, d)
    wet = labyrinth.flood(d)[0][0, 0] > 0
    assert (~np.isnan(arrived) == wet.numpy()).all()
    away = reached(d[0, 0], (0, 0))
    for (y, x), moves in away.items():
        assert moves <= arrived[y, x] <= moves + 8
    assert max(away.values()) == 64 <= steps <= 75


def test_shares_of_a_record():
    rows = [
        {"size": 8, "grids": 10, "right": 9, "steps": [12, 30], "farthest": [9, 20]},
        {"size": 8, "grids": 10, "right": 7, "steps": [5], "farthest": [1]},
        {"size": 12, "grids": 4, "right": 4, "steps": [7], "farthest": [7]},
    ]
    assert labyrinth_record.share(rows, 8) == 0.8
    assert labyrinth_record.of_size(rows, 12, "grids") == 4
    assert labyrinth_record.later(rows) == [3, 10, 4, 0]
