"""The labyrinth explorer: the trained network of chapter 13 runs in a page, opened from disk with the network cut."""

import pytest
import torch
from conftest import ROOT, grave_violations, match, number, pull, ready, rows, slider, words

from jfb_tutorial.pages import explorers, labyrinth


@pytest.fixture(scope="module")
def network():
    return labyrinth.recorded(ROOT / "book" / "records" / "labyrinth.safetensors")


def random_grid(size, seed):
    d, _ = labyrinth.grids(1, size, torch.Generator().manual_seed(seed))
    return written(d)


def written(d, wet=None):
    """A grid in letters, with the water."""
    lines = []
    for y in range(d.shape[2]):
        cells = range(d.shape[3])
        lines.append(
            "".join(
                "o" if d[0, 1, y, x] else "#" if d[0, 0, y, x] else "~" if wet is not None and wet[0, 0, y, x] else "."
                for x in cells
            )
        )
    return "\n".join(lines)


def followed(network, text, u=None):
    """The steps of the package: the state, the relative residual, what is wet."""
    d = labyrinth.read(text)
    T, path = network.operator(d), []
    u, residual = T.zeros() if u is None else u, float("nan")
    with torch.no_grad():
        while True:
            path.append((u, residual, network.S(u) > 0))
            if residual <= 1e-4:
                return path
            v = T(u)
            residual = ((v - u).norm() / v.norm()).item()
            u = v


def letters(figure):
    return figure.locator("textarea").input_value()


def agrees(figure, text, path):
    """Step by step the counts and the residual, and at the end every cell."""
    d = labyrinth.read(text)
    truth, _ = labyrinth.flood(d)
    truth, shown = truth > 0.5, rows(figure)
    # the last residual may fall on either side of the tolerance
    assert abs(len(shown) - len(path)) <= 1
    for k, (_, residual, wet) in enumerate(path[: len(shown)]):
        counts = [wet.sum(), (truth & ~wet).sum(), (wet & ~truth).sum()]
        assert [int(cell) for cell in shown[k][:4]] == [k, *map(int, counts)], k
        if k:
            # the table has four digits, and below a thousandth two; single precision has its floor
            digits = 1e-3 if residual > 1.1e-3 else 0.06
            assert number(shown[k][4]) == pytest.approx(residual, rel=digits, abs=2e-6), k
            assert abs(number(shown[k][4]) - residual) < 1e-4
    slider(figure, "steps").press("End")
    assert letters(figure) == written(d, path[-1][2])


def put(figure, text):
    figure.locator("details.jfb-text").evaluate("(details) => { details.open = true; }")
    figure.locator("textarea").fill(text)
    figure.locator("textarea").blur()
    return ready(figure)


def toggle(figure):
    figure.get_by_role("button", name="Build or take away a wall here").click()
    ready(figure)


def test_the_page_computes_what_the_package_does(network, show_explorers):
    figure = ready(show_explorers(explorers.labyrinth(network), motion="reduce"))
    agrees(figure, labyrinth.DRAWN, followed(network, labyrinth.DRAWN))
    for text in ("o.\n.#", "o.#.\n.##.\n...#", random_grid(11, 0), random_grid(24, 1)):
        put(figure, text)
        agrees(figure, text, followed(network, text))


def test_the_dam(network, show_explorers):
    """A wall taken away lets the water go on; built again, it does not dry what it cuts off; from zero, all is right."""
    figure = ready(show_explorers(explorers.labyrinth(network), motion="reduce"))
    closed = labyrinth.DRAWN.strip()
    lines = closed.split("\n")
    row, column = labyrinth.DAM
    assert lines[row - 1][column - 1] == "#"
    lines[row - 1] = lines[row - 1][: column - 1] + "." + lines[row - 1][column:]
    opened = "\n".join(lines)
    first = followed(network, closed)
    toggle(figure)
    assert f"A wall taken away at row {row}, column {column}, on from where it was." in words(figure)
    assert "127 of 127 open cells are wet: that is right in every cell" in words(figure)
    second = followed(network, opened, first[-1][0])
    agrees(figure, opened, second)
    toggle(figure)
    third = followed(network, closed, second[-1][0])
    agrees(figure, closed, third)
    assert "126 of 126 open cells are wet: 61 are wet where no water comes." in words(figure)
    assert "is then wrong at 61 cells" in words(figure)
    figure.get_by_label("go on from where it was").uncheck()
    toggle(figure)
    toggle(figure)
    agrees(figure, closed, first)
    assert "again from zero" in words(figure)


@pytest.mark.parametrize("touch", [False, True])
def test_walls_by_hand(network, show_explorers, touch):
    figure = ready(
        show_explorers(
            explorers.labyrinth(network, "o" + "." * 9 + "\n.........." * 9), touch=touch, motion="reduce", width=400
        )
    )
    canvas = figure.locator("canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()

    def cell(row, column):
        return box["x"] + box["width"] * (column - 0.5) / 10, box["y"] + box["height"] * (row - 0.5) / 10

    pull(figure.page, cell(4, 1), cell(4, 10), touch=touch)
    ready(figure)
    assert letters(figure).split("\n")[3] == "##########"
    assert "10 cells of wall built" in words(figure)
    # what it cuts off stays wet; begun again, it is dry
    assert "60 are wet where no water comes" in words(figure)
    figure.get_by_label("go on from where it was").uncheck()
    pull(figure.page, cell(1, 1), cell(8, 5), touch=touch)  # the spring, and no wall
    ready(figure)
    assert letters(figure).split("\n")[7][4] == "o"
    assert "The spring moved to row 8, column 5, again from zero." in words(figure)
    assert "right in every cell" in words(figure)
    # taken away from the first wall on, every cell that the hand passes
    pull(figure.page, cell(4, 7), cell(4, 9), touch=touch)
    ready(figure)
    assert letters(figure).replace("~", ".").split("\n")[3] == "######...#"


def test_by_the_keyboard(network, show_explorers):
    figure = ready(show_explorers(explorers.labyrinth(network, "o...\n....\n...."), motion="reduce"))
    slider(figure, "row").press("ArrowRight")
    slider(figure, "column").press("ArrowRight")
    figure.get_by_role("button", name="Build or take away a wall here").press("Enter")
    ready(figure)
    assert letters(figure) == "o~~~\n~#~~\n~~~~"
    slider(figure, "row").press("End")
    slider(figure, "column").press("End")
    figure.get_by_role("button", name="Move the spring here").press("Enter")
    ready(figure)
    assert letters(figure) == "~~~~\n~#~~\n~~~o"
    steps = slider(figure, "steps")
    assert steps.get_attribute("max") == steps.input_value() == str(len(rows(figure)) - 1)
    # a spring is no place for a wall
    toggle(figure)
    assert letters(figure) == "~~~~\n~#~~\n~~~o"


def test_the_words_follow_the_steps(network, show_explorers):
    figure = ready(show_explorers(explorers.labyrinth(network)))
    shown, steps = rows(figure), slider(figure, "steps")
    steps.press("Home")
    assert "After 0 steps" in words(figure)
    for _ in range(20):
        steps.press("ArrowRight")
    assert f"After 20 steps {shown[20][1]} of 126 open cells are wet: {shown[20][2]} are still to come." in words(
        figure
    )
    said = match(r"moved u by (\S+) % of its norm", words(figure))
    assert number(said[1]) == pytest.approx(100 * number(shown[20][4]), rel=6e-3)
    assert "64 moves from the spring" in words(figure)


@pytest.mark.parametrize("name", ["Spiral", "Comb", "Random", "No walls"])
def test_labyrinths_to_begin_with(network, show_explorers, name):
    figure = ready(show_explorers(explorers.labyrinth(network, random_grid(24, 2)), motion="reduce"))
    figure.get_by_role("button", name=name).click()
    ready(figure)
    text = letters(figure).replace("~", ".")
    agrees(figure, text, followed(network, text))
    assert "and is then right in every cell" in words(figure)
    assert int(rows(figure)[-1][1]) >= 60


def test_a_change_is_seen_to_flow(network, show_explorers):
    figure = ready(show_explorers(explorers.labyrinth(network)))
    figure.get_by_role("button", name="Build or take away a wall here").click()
    ready(figure)
    status = figure.locator(".jfb-words")
    assert status.get_attribute("aria-live") == "off"  # spoken once, at the end
    figure.page.wait_for_function("!document.querySelector('.jfb-words').hasAttribute('aria-live')")
    assert "127 of 127 open cells are wet" in words(figure)


def test_what_is_no_labyrinth_changes_nothing(network, show_explorers):
    figure = ready(show_explorers(explorers.labyrinth(network), motion="reduce"))
    before = letters(figure)
    for text in ("..\n..", "oo\n..", "o", "o.\n...", "o" + "." * 24 + "\n" + "." * 25, ""):
        put(figure, text)
        assert letters(figure) == before


@pytest.mark.parametrize("dark", [False, True])
def test_for_everybody(network, show_explorers, dark):
    figure = ready(show_explorers(explorers.labyrinth(network, random_grid(24, 3)), width=375, dark=dark))
    figure.locator("details.jfb-text").evaluate("(details) => { details.open = true; }")
    assert not grave_violations(figure.page)
    assert figure.page.evaluate("document.documentElement.scrollWidth") <= 375


def test_in_a_notebook(network, inserted_twice):
    figures = inserted_twice(explorers.labyrinth(network, "o.\n.#"))
    for i in range(2):
        figures.nth(i).get_by_text("right in every cell").wait_for()


def test_without_a_script(network, words_without_script):
    assert "the walls of a labyrinth and the place of a spring" in words_without_script(explorers.labyrinth(network))


def test_it_stays_small(network):
    assert len(explorers.labyrinth(network)._repr_html_()) < 50_000


def test_what_is_no_grid(network):
    with pytest.raises(ValueError, match="lines of one length and one spring"):
        explorers.labyrinth(network, "..\n..")
    with pytest.raises(ValueError, match="2 to 24 rows and columns, got 1 by 2"):
        explorers.labyrinth(network, "o.")
    with pytest.raises(ValueError, match="2 to 24 rows and columns, got 2 by 25"):
        explorers.labyrinth(network, "o" + "." * 24 + "\n" + "." * 25)
    with pytest.raises(ValueError, match=r"cell must lie in a grid of 2 by 2, got \(3, 1\)"):
        explorers.labyrinth(network, "o.\n..", (3, 1))
    with pytest.raises(TypeError, match="grid must be a text, got int"):
        explorers.labyrinth(network, 3)  # type: ignore[arg-type]


def test_another_network(network):
    with pytest.raises(TypeError, match="got an R of type Identity"):
        explorers.labyrinth(labyrinth.network(0, R=torch.nn.Identity()))
