"""The parity explorer: the trained network of chapter 13 runs in a page, opened from disk with the network cut."""

import pytest
import torch
from conftest import ROOT, grave_violations, match, number, ready, rows, slider, words

from jfb_tutorial.pages import explorers, parity
from jfb_tutorial.solvers import FixedPointIteration

BITS = "1011001110001111010000101101110010100111"


@pytest.fixture(scope="module")
def network():
    return parity.recorded(ROOT / "book" / "records" / "parity.safetensors")


def tensor(bits):
    return torch.tensor([float(bit) for bit in bits]).reshape(1, 1, -1)


def followed(network, bits, u=None, steps=None):
    """The steps of the package: the state, the relative residual, right up to which bit, how many are wrong."""
    d = tensor(bits)
    y, T, path = d.cumsum(dim=-1) % 2 > 0.5, network.operator(d), []
    u = T.zeros() if u is None else u
    residual = float("nan")
    with torch.no_grad():
        while True:
            wrong = ((network.S(u) > 0) != y).flatten()
            path.append((u, residual, int(wrong.nonzero()[0]) if wrong.any() else len(bits), int(wrong.sum())))
            if residual <= 1e-5 or len(path) - 1 == steps:
                return path
            v = T(u)
            residual = ((v - u).norm() / v.norm()).item()
            u = v


def agrees(figure, path):
    shown = rows(figure)
    # the last residual may fall on either side of the tolerance
    assert abs(len(shown) - len(path)) <= 1
    for k, (_, residual, up_to, wrong) in enumerate(path[: len(shown)]):
        assert [int(cell) for cell in shown[k][:3]] == [k, up_to, wrong], k
        if k:
            # the table has four digits, and below a thousandth two; single precision has its floor
            digits = 1e-3 if residual > 1.1e-3 else 0.06
            assert number(shown[k][3]) == pytest.approx(residual, rel=digits, abs=2e-6), k
            assert abs(number(shown[k][3]) - residual) < 1e-4


def kind(figure, bits):
    figure.locator('input[name="bits"]').fill(bits)
    figure.locator('input[name="bits"]').press("Enter")
    figure.locator('input[name="bits"]').blur()
    return ready(figure)


def test_the_page_computes_what_the_package_does(network, show_explorers):
    figure = ready(show_explorers(explorers.parity(network, BITS)))
    agrees(figure, followed(network, BITS))
    generator = torch.Generator().manual_seed(0)
    for count in (1, 2, 17, 120):
        bits = "".join(map(str, torch.randint(2, (count,), generator=generator).tolist()))
        agrees(kind(figure, bits), followed(network, bits))
    solver = FixedPointIteration(tol=1e-5, max_steps=1000, relative=True)
    with network.using(solver=solver):
        assert abs(int(network.solve(tensor(bits)).steps) - len(rows(figure)) + 1) <= 1


def test_two_hundred_bits(network, show_explorers):
    figure = ready(show_explorers(explorers.parity(network, "1" * 200)))
    assert "right in every bit" in words(figure)
    assert len(rows(figure)) > 200


def test_a_flip_goes_on_from_where_it_was(network, show_explorers):
    figure = ready(show_explorers(explorers.parity(network, BITS)))
    path = followed(network, BITS)
    place = slider(figure, "place")
    place.fill("31")
    assert figure.get_by_text(f"bit 31 is {BITS[30]}").count() == 1
    figure.get_by_role("button", name="Flip this bit").click()
    flipped = BITS[:30] + ("0" if BITS[30] == "1" else "1") + BITS[31:]
    ready(figure)
    assert figure.locator('input[name="bits"]').input_value() == flipped
    warm = followed(network, flipped, path[-1][0])
    agrees(figure, warm)
    assert "Bit 31 flipped, on from where it was." in words(figure)
    # only the end of the string has to be worked out again
    assert len(warm) < 0.6 * len(path)
    figure.get_by_label("go on from where it was").uncheck()
    figure.get_by_role("button", name="Flip this bit").click()
    agrees(ready(figure), path)
    assert "again from zero" in words(figure)


def test_a_press_flips_a_bit(network, show_explorers):
    figure = ready(show_explorers(explorers.parity(network, BITS), touch=True, width=375))
    canvas = figure.locator("canvas").first
    box = canvas.bounding_box()
    canvas.tap(position={"x": box["width"] * 6.5 / len(BITS), "y": box["height"] / 2})
    ready(figure)
    assert figure.locator('input[name="bits"]').input_value() == BITS[:6] + "0" + BITS[7:]
    assert slider(figure, "place").input_value() == "7"


def test_steps_by_the_keyboard(network, show_explorers):
    figure = ready(show_explorers(explorers.parity(network, BITS)))
    shown, steps = rows(figure), slider(figure, "steps")
    assert steps.input_value() == str(len(shown) - 1) == steps.get_attribute("max")
    steps.press("Home")
    assert "After 0 steps" in words(figure)
    for k in (1, 2):
        steps.press("ArrowRight")
        assert (
            f"After {k} steps the answer is right up to bit {shown[k][1]} of 40, and wrong at {shown[k][2]}"
            in words(figure)
        )
    steps.press("End")
    odd = "odd" if BITS.count("1") % 2 else "even"
    assert f"right in all 40 bits: the number of ones is {odd}" in words(figure)
    said = match(r"moved u by (\S+) % of its norm", words(figure))
    assert number(said[1]) == pytest.approx(100 * number(shown[-1][3]), rel=6e-3)


def test_what_is_no_bit_is_left_out(network, show_explorers):
    figure = ready(show_explorers(explorers.parity(network, BITS)))
    kind(figure, "10 2x1" + "0" * 300)
    assert figure.locator('input[name="bits"]').input_value() == "101" + "0" * 197
    kind(figure, "no bits")
    assert figure.locator('input[name="bits"]').input_value() == "101" + "0" * 197


def test_a_run_is_spoken_once(network, show_explorers):
    figure = ready(show_explorers(explorers.parity(network, BITS[:10])))
    slider(figure, "steps").press("Home")
    figure.get_by_role("button", name="Run", exact=True).click()
    status = figure.locator(".jfb-words")
    assert status.get_attribute("aria-live") == "off"
    figure.page.wait_for_function("document.querySelector('.jfb-words').textContent.includes('right in all 10 bits')")
    figure.page.wait_for_function("!document.querySelector('.jfb-words').hasAttribute('aria-live')")


def test_motion_is_unwelcome(network, show_explorers):
    figure = ready(show_explorers(explorers.parity(network, BITS), motion="reduce"))
    steps = slider(figure, "steps")
    steps.press("Home")
    figure.get_by_role("button", name="Run", exact=True).click()
    assert steps.input_value() == steps.get_attribute("max")


@pytest.mark.parametrize("dark", [False, True])
def test_for_everybody(network, show_explorers, dark):
    figure = ready(show_explorers(explorers.parity(network, BITS * 4), width=375, dark=dark))
    assert not grave_violations(figure.page)
    assert figure.page.evaluate("document.documentElement.scrollWidth") <= 375


def test_in_a_notebook(network, inserted_twice):
    figures = inserted_twice(explorers.parity(network, BITS[:12]))
    for i in range(2):
        figures.nth(i).get_by_text("right in every bit").wait_for()


def test_without_a_script(network, words_without_script):
    assert "reads a string of bits" in words_without_script(explorers.parity(network))


def test_it_stays_small(network):
    assert len(explorers.parity(network)._repr_html_()) < 120_000


@pytest.mark.parametrize("bits", ["", "012", "1" * 201, 11, None])
def test_what_is_no_string_of_bits(network, bits):
    with pytest.raises(ValueError, match="bits must be a string of 1 to 200 zeros and ones"):
        explorers.parity(network, bits)


def test_another_network(network):
    with pytest.raises(TypeError, match="got an R of type Identity"):
        explorers.parity(parity.network(0, R=torch.nn.Identity()))
