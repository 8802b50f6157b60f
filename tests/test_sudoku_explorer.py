"""The Sudoku explorer: the trained network of chapter 14 runs in a page, opened from disk with the network cut."""

import copy

import pytest
import torch
from conftest import ROOT, grave_violations, match, number, ready, rows, slider, words

from jfb_tutorial.pages import explorers, sudoku


def text(grid):
    return "".join(map(str, grid.flatten().tolist()))


@pytest.fixture(scope="module")
def network():
    return sudoku.recorded(ROOT / "book" / "records" / "sudoku.safetensors")


@pytest.fixture(scope="module")
def puzzles():
    easy, hard = sudoku.puzzles(1, 20, 5)[0], sudoku.puzzles(1, 13, 6)[0]
    two, none = "250460604120000030065000503614000002", "401056000100004060350042140635600001"
    return {"Easy": text(easy), "Hard": text(hard), "Two": two, "None": none}


def followed(network, grid, steps):
    """The steps of the package, in double precision: the relative residual, how many cells clash, the least probability, the digits."""
    network = copy.deepcopy(network).double()
    d = sudoku.one_hot(torch.tensor([int(digit) for digit in grid]).reshape(1, 6, 6)).double()
    T = network.operator(d)
    u, residual, path = T.zeros(), float("nan"), []
    with torch.no_grad():
        for _ in range(steps + 1):
            odds = network.S(u).softmax(dim=1)
            digits = (odds.argmax(dim=1) + 1).flatten().tolist()
            clashes = sum(any(digits[cell] == digits[peer] for peer in sudoku.PEERS[cell]) for cell in range(36))
            path.append((residual, clashes, odds.amax(dim=1).min().item(), "".join(map(str, digits))))
            v = T(u)
            residual, u = ((v - u).norm() / v.norm()).item(), v
    return path


def test_the_page_computes_what_the_package_does(network, puzzles, show_explorers):
    figure = ready(show_explorers(explorers.sudoku(network, puzzles)))
    for name in puzzles:
        figure.get_by_role("button", name=name, exact=True).click()
        shown = rows(ready(figure))
        path = followed(network, puzzles[name], len(shown) - 1)
        for k in range(1, len(path)):
            residual, clashes, least, digits = path[k]
            assert int(shown[k][0]) == k
            assert abs(number(shown[k][1]) - residual) < 1e-4, k
            assert number(shown[k][3]) == pytest.approx(least, abs=1e-3)
            # before the givens are heard everywhere, digits that nothing tells apart tie but for rounding
            if k > 2:
                assert shown[k][4] == digits, k
                assert int(shown[k][2]) == clashes


def test_it_comes_to_rest_at_the_solution(network, puzzles, show_explorers):
    figure = ready(show_explorers(explorers.sudoku(network, {"Easy": puzzles["Easy"]})))
    assert "This puzzle has one solution." in words(figure)
    said = match(
        r"After (\d+) steps every rule is kept: solved\. The last step moved u by (\S+) % of its norm\. It comes to rest",
        words(figure),
    )
    assert int(said[1]) == len(rows(figure)) - 1
    assert number(said[2]) <= 0.01
    solution = sudoku.solutions([int(digit) for digit in puzzles["Easy"]])[0]
    assert figure.locator(".jfb-cell").all_inner_texts() == list(map(str, solution))


def test_givens_by_the_keyboard(network, puzzles, show_explorers):
    figure = ready(show_explorers(explorers.sudoku(network, puzzles)))
    cells = figure.locator(".jfb-cell")
    figure.get_by_role("button", name="Empty", exact=True).click()
    ready(figure)
    assert "No givens. This puzzle has more than one solution." in words(figure)
    cells.first.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowUp", "ArrowLeft", "ArrowLeft", "5"):
        cells.page.keyboard.press(key)
    ready(figure)
    assert "5 is given at row 2, column 1." in words(figure)
    assert cells.nth(6).get_attribute("aria-label") == "row 2, column 1: given 5"
    cells.page.keyboard.press("ArrowRight")
    cells.page.keyboard.press("5")
    ready(figure)
    assert "5 is given at row 2, column 2. This puzzle has no solution." in words(figure)
    cells.page.keyboard.press("Delete")
    ready(figure)
    assert "No given at row 2, column 2. This puzzle has more than one solution." in words(figure)
    assert [cell.get_attribute("tabindex") for cell in cells.all()].count("0") == 1


def test_givens_by_touch(network, puzzles, show_explorers):
    figure = ready(show_explorers(explorers.sudoku(network, puzzles), touch=True, width=375))
    figure.get_by_role("button", name="Empty", exact=True).tap()
    ready(figure)
    figure.locator(".jfb-cell").nth(14).tap()
    figure.get_by_role("button", name="Set 3 in the chosen cell").tap()
    ready(figure)
    assert "3 is given at row 3, column 3." in words(figure)
    figure.get_by_role("button", name="Take away").tap()
    ready(figure)
    assert "No given at row 3, column 3." in words(figure)


def test_steps_by_the_keyboard(network, puzzles, show_explorers):
    figure = ready(show_explorers(explorers.sudoku(network, {"Easy": puzzles["Easy"]})))
    shown, steps = rows(figure), slider(figure, "steps")
    assert steps.input_value() == str(len(shown) - 1) == steps.get_attribute("max")
    steps.press("Home")
    assert "It comes to rest after" in words(figure)
    assert figure.locator(".jfb-cell").all_inner_texts() == [digit.replace("0", "") for digit in puzzles["Easy"]]
    for k in (1, 2):
        steps.press("ArrowRight")
        assert f"After {k} steps {shown[k][2]} cells clash with another" in words(figure)
        assert figure.locator(".jfb-clash").count() == int(shown[k][2])


def test_motion_is_unwelcome(network, puzzles, show_explorers):
    figure = ready(show_explorers(explorers.sudoku(network, puzzles), motion="reduce"))
    steps = slider(figure, "steps")
    steps.press("Home")
    figure.get_by_role("button", name="Run", exact=True).click()
    assert steps.input_value() == steps.get_attribute("max")


@pytest.mark.parametrize("dark", [False, True])
def test_for_everybody(network, puzzles, show_explorers, dark):
    figure = ready(show_explorers(explorers.sudoku(network, puzzles), width=375, dark=dark))
    assert not grave_violations(figure.page)
    assert figure.page.evaluate("document.documentElement.scrollWidth") <= 375


def test_in_a_notebook(network, puzzles, inserted_twice):
    figures = inserted_twice(explorers.sudoku(network, puzzles))
    for i in range(2):
        figures.nth(i).get_by_text("solved").wait_for()


def test_without_a_script(network, puzzles, words_without_script):
    assert "Sudoku of six by six cells" in words_without_script(explorers.sudoku(network, puzzles))


def test_it_stays_small(network, puzzles):
    assert len(explorers.sudoku(network, puzzles)._repr_html_()) < 60_000


@pytest.mark.parametrize("grid", ["", "0" * 35, "7" + "0" * 35, 36 * [0]])
def test_what_is_no_puzzle(network, grid):
    with pytest.raises(ValueError, match="a puzzle must be a string of 36 digits from 0 to 6"):
        explorers.sudoku(network, {"this": grid})


def test_no_sample_and_another_network(network):
    with pytest.raises(ValueError, match="at least one puzzle"):
        explorers.sudoku(network, {})
    other = sudoku.network(0)
    other.R = torch.nn.Identity()
    with pytest.raises(TypeError, match="got an R of type Identity"):
        explorers.sudoku(other, {"this": "0" * 36})
