"""The puzzles of chapter 14, its network, and the one that the page carries."""

import json
import random

import pytest
import torch
from conftest import BOOK, ROOT
from torch import nn

from jfb_tutorial.gradients import Unrolled, UnrolledPhantom
from jfb_tutorial.pages import sudoku

NETWORK = ROOT / "book" / "records" / "sudoku.safetensors"


def breaks_no_rule(grid):
    return all({grid[cell] for cell in unit} == {1, 2, 3, 4, 5, 6} for unit in sudoku.UNITS)


def test_every_cell_is_in_a_row_a_column_and_a_box():
    assert len(sudoku.UNITS) == 18
    for cell in range(36):
        row, column, box = (unit for unit in sudoku.UNITS if cell in unit)
        assert {p // 6 for p in row} == {cell // 6}
        assert {p % 6 for p in column} == {cell % 6}
        assert {(p // 12, p % 6 // 3) for p in box} == {(cell // 12, cell % 6 // 3)}
        assert sudoku.PEERS[cell] == sorted({*row, *column, *box} - {cell})


def test_a_puzzle_has_the_givens_it_should_and_one_solution():
    for givens in (20, 14, 11):
        given, solved = (grid.flatten(1).tolist() for grid in sudoku.puzzles(3, givens, seed=givens))
        for puzzle, solution in zip(given, solved, strict=True):
            assert sum(digit > 0 for digit in puzzle) == givens
            assert all(digit in (0, right) for digit, right in zip(puzzle, solution, strict=True))
            assert breaks_no_rule(solution)
            assert sudoku.solutions(puzzle) == [solution]


def test_solutions_are_all_found():
    """Against a search that knows nothing: the solved grid with the digits of two rows open."""
    solution = sudoku.puzzle(20, random.Random(0))[1]
    for cells in (range(12), [c for c in range(36) if c % 6 < 2]):
        grid = [0 if cell in cells else digit for cell, digit in enumerate(solution)]

        def count(grid, left):
            if not left:
                return int(breaks_no_rule(grid))
            cell, total = left[0], 0
            for digit in range(1, 7):
                if all(grid[peer] != digit for peer in sudoku.PEERS[cell]):
                    total += count([*grid[:cell], digit, *grid[cell + 1 :]], left[1:])
            return total

        assert len(sudoku.solutions(grid, most=1000)) == count(grid, list(cells)) > 1


def test_no_solution_and_very_many():
    assert sudoku.solutions([1, 1] + [0] * 34) == []
    # row 1 lacks a 6, and the column of its last cell has one: nothing clashes at sight
    assert sudoku.solutions([1, 2, 3, 4, 5, 0] + [0] * 5 + [6] + [0] * 24) == []
    assert len(sudoku.solutions([0] * 36, most=50)) == 50


def test_two_rules_solve_what_they_can():
    shuffle = random.Random(1)
    for givens, least in ((20, 20), (11, 1)):
        grids = [sudoku.puzzle(givens, shuffle)[0] for _ in range(20)]
        assert least <= sum(map(sudoku.singles, grids)) <= 20
    assert not sudoku.singles([0] * 36)
    assert not sudoku.singles([1, 1] + [0] * 34)
    # a puzzle with two solutions: two digits may change places
    solution = sudoku.puzzle(20, shuffle)[1]
    open_cells = [cell for cell in range(36) if solution[cell] in (1, 2)]
    assert not sudoku.singles([0 if cell in open_cells else digit for cell, digit in enumerate(solution)])


def test_one_hot():
    given = torch.zeros(1, 6, 6, dtype=torch.long)
    given[0, 2, 5] = 4
    d = sudoku.one_hot(given)
    assert d.shape == (1, 6, 6, 6)
    assert d.nonzero().tolist() == [[0, 3, 2, 5]]


def test_a_node_hears_of_its_row_column_box_and_cell():
    T = sudoku.network(0).operator(torch.zeros(1, 6, 6, 6))
    u = torch.zeros(1, 6, 6, 6, sudoku.CHANNELS, requires_grad=True)
    T(u)[0, 4, 3, 1].sum().backward()
    assert u.grad is not None
    heard = u.grad.abs().sum(dim=(0, 4)).flatten(1) > 0
    cell = 6 * 3 + 1
    for digit in range(6):
        expected = {cell, *sudoku.PEERS[cell]} if digit == 4 else {cell}
        assert set(heard[digit].nonzero().flatten().tolist()) == expected


def test_the_step_knows_no_digit_from_another():
    given, _ = sudoku.puzzles(2, 16, 0)
    d, order = sudoku.one_hot(given), torch.tensor([3, 0, 5, 1, 4, 2])
    network = sudoku.network(0)
    with torch.no_grad():
        torch.testing.assert_close(network(d[:, order]), network(d)[:, order])


def test_the_recorded_network_solves():
    network = sudoku.recorded(NETWORK)
    given, solved = sudoku.puzzles(20, sudoku.GIVENS, 11)
    with torch.no_grad(), network.using(solver=sudoku.solver()):
        assert sudoku.right(network(sudoku.one_hot(given)), solved).sum() >= 17


@pytest.mark.parametrize("segments", [1, 3])
def test_training_may_be_watched_and_ended(segments, monkeypatch):
    monkeypatch.setattr(sudoku, "BATCH", 2)
    given, solved = sudoku.puzzles(4, 20, 0)
    seen, starts, found = [], [], []
    network = sudoku.network(1, steps=2)
    solve = network.solver

    def spy(T, start):
        solution = solve(T, start)
        starts.append(start.clone())
        with torch.no_grad():
            found.append(T(solution.u))
        return solution

    network.solver = spy

    def watch(update, loss):
        seen.append(update)
        return update == 5

    before = nn.utils.parameters_to_vector(network.parameters()).clone()
    assert len(sudoku.train(network, 1, given, solved, segments=segments, watch=watch)) == 5
    assert seen == [0, 1, 2, 3, 4, 5]
    assert not torch.equal(before, nn.utils.parameters_to_vector(network.parameters()))
    # a segment starts where the last one ended; the first of a batch at zero
    for i, start in enumerate(starts):
        if i % segments:
            torch.testing.assert_close(start, found[i - 1])
        else:
            assert not start.any()


def test_training_with_every_step_recorded(monkeypatch):
    monkeypatch.setattr(sudoku, "BATCH", 2)
    given, solved = sudoku.puzzles(4, 20, 0)
    losses = sudoku.train(sudoku.network(0, gradient=Unrolled(3)), 0, given, solved, updates=2)
    assert len(losses) == 2


def test_the_chapter_trains_this_network():
    """What the chapter shows is what its record was measured with."""
    notebooks = [json.loads(path.read_text())["cells"] for path in sorted(BOOK.glob("14-*.ipynb"))]
    sources = ["".join(cell["source"]) for cells in notebooks for cell in cells if cell["cell_type"] == "code"]
    source = next(source for source in sources if "class Step" in source and "self.box" in source)
    names: dict = {"sudoku": sudoku}
    start = "import torch\nfrom torch import nn\nfrom jfb_tutorial import FixedPointIteration, ImplicitNetwork, UnrolledPhantom\n"
    exec(start + source, names)
    shown, ours = names["network"], sudoku.network(0, gradient=UnrolledPhantom(5, 0.5))
    assert repr(shown.solver) == repr(ours.solver)
    assert shown.gradient == ours.gradient
    for ours_one, shown_one in zip(ours.parameters(), shown.parameters(), strict=True):
        assert torch.equal(ours_one, shown_one)
    d = sudoku.one_hot(sudoku.puzzles(2, 18, 0)[0])
    with torch.no_grad():
        torch.testing.assert_close(shown(d), ours(d))


def test_a_damped_step_keeps_a_share_of_the_state():
    u, q = torch.randn(2, 1, 6, 6, 6, sudoku.CHANNELS, generator=torch.Generator().manual_seed(0))
    plain, damped = sudoku.network(0), sudoku.network(0, damping=0.25)
    with torch.no_grad():
        torch.testing.assert_close(damped.R(u, q), 0.25 * u + 0.75 * plain.R(u, q))
