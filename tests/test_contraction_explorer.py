"""The contraction explorer, alone on a page opened from disk with the network cut."""

import re
import time

import numpy as np
import pytest
from conftest import drag, grave_violations, match, number, slider, words

from jfb_tutorial.pages import explorers

SLIDERS = ("re", "im", "c", "start", "steps")


@pytest.fixture
def show(show_explorers):
    """Opens a page with one explorer; returns its figure."""

    def show(*, dark=False, width=1280, motion="no-preference", touch=False, **parameters):
        return show_explorers(explorers.contraction(**parameters), dark=dark, width=width, motion=motion, touch=touch)

    return show


def value(figure, name):
    return float(slider(figure, name).input_value())


def matrix(re, im, c):
    return np.array([[re, im + c], [-(im**2) / (im + c) if im + c else 0.0, re]])


def said(figure, name):
    """The value of ρ or γ in the words; a normal map's are said to be equal."""
    return number(match(rf"{name} (?:= ρ )?= ([\d.]+\d|\d)", words(figure)).group(1))


@pytest.mark.parametrize("name", SLIDERS)
def test_each_slider_by_keyboard_changes_the_drawing_and_the_words(show, name):
    figure = show(re=0.5, im=0.3, c=1, steps=5)
    handle, fall = slider(figure, name), figure.locator(".jfb-fall")
    before = words(figure), fall.get_attribute("d"), handle.get_attribute("aria-valuetext")
    handle.focus()
    for _ in range(5):
        handle.press("ArrowRight")
    after = words(figure), fall.get_attribute("d"), handle.get_attribute("aria-valuetext")
    assert all(new != old for old, new in zip(before, after, strict=True))
    for key in ("Home", "End"):  # no state is without words or with a broken number
        handle.press(key)
        assert len(words(figure)) > 40
        assert not re.search("NaN|undefined|∞", words(figure))
        assert not re.search("NaN|Infinity", figure.locator(".jfb-stage").inner_html())
        assert figure.get_by_role("slider", name=handle.get_attribute("aria-valuetext")).count() == 1


def test_the_sliders_and_the_axes_use_the_letters_of_the_matrix(show):
    figure = show(re=0.6, im=0.3, c=2.0)
    said = {name: slider(figure, name).get_attribute("aria-valuetext").replace("\xa0", " ") for name in SLIDERS[:3]}
    assert said == {"re": "real part x = 0.60", "im": "imaginary part y = 0.30", "c": "non-normality c = 2.00"}
    text = figure.inner_text() + " ".join(figure.locator("svg text").all_text_contents())
    assert "μ = x ± iy" in text
    assert "λ" not in text  # which is the phantom gradient's damping in this book


@pytest.mark.parametrize(
    "setting",
    [{"re": 0.5, "im": 0.3, "c": 0.2}, {"re": 0.5, "im": 0.0, "c": 4.0}, {"re": -0.9, "im": 0.7, "c": 0.6}],
)
def test_the_words_say_the_spectral_radius_and_the_norm(show, setting):
    a = matrix(**setting)
    assert np.linalg.eigvals(a) == pytest.approx(np.array([1, 1]) * setting["re"] + np.array([1j, -1j]) * setting["im"])
    figure = show(**setting)
    assert said(figure, "ρ") == pytest.approx(abs(np.linalg.eigvals(a)).max(), rel=5e-3)
    assert said(figure, "γ") == pytest.approx(np.linalg.norm(a, 2), rel=5e-3)


@pytest.mark.parametrize("setting", [{"re": 0.6, "im": 0.5, "c": 0.0}, {"re": -0.8, "im": 0.4, "c": 2.5}])
def test_the_table_is_the_iteration(show, setting):
    figure = show(**setting, steps=40, angle=110)
    figure.locator("summary").click()
    rows = [row.locator("td").all_inner_texts() for row in figure.locator("tbody tr").all()]
    u = [np.array([np.cos(np.deg2rad(110)), np.sin(np.deg2rad(110))])]
    for _ in range(40):
        u.append(matrix(**setting) @ u[-1])
    far = np.linalg.norm(u, axis=1)
    assert [int(row[0]) for row in rows] == list(range(41))
    assert [number(row[1]) for row in rows] == pytest.approx(far, rel=0.05)  # below 0.001 two digits are said
    assert [number(row[2]) for row in rows[1:]] == pytest.approx(far[1:] / far[:-1], rel=1e-3)
    marks = figure.locator("svg").nth(2).locator("g circle").all()[:41]
    heights = np.array([float(mark.get_attribute("cy")) for mark in marks])
    assert np.diff(heights) / np.diff(np.log10(far)) == pytest.approx(-332 / 6)


@pytest.mark.parametrize("touch", [False, True])
def test_the_eigenvalue_and_the_start_by_pointer(show, touch):
    figure = show(re=0.6, im=0.5, c=0.5, width=390 if touch else 1280, touch=touch)

    drag(figure, 0, -60, 20, touch=touch)
    assert 0 <= value(figure, "re") < 0.2
    assert 0.2 <= value(figure, "im") < 0.4
    assert value(figure, "start") == 60
    where = value(figure, "re")
    drag(figure, 0, 0, 200, touch=touch)  # below the real axis there is only the mirror image
    assert value(figure, "im") == 0
    drag(figure, 1, -120, 0, touch=touch)
    assert 100 < value(figure, "start") < 150
    assert value(figure, "re") == pytest.approx(where, abs=0.02)


@pytest.mark.parametrize(
    ("setting", "outcome", "more"),
    [
        ({"re": 0.6, "im": 0.5}, "Contraction: γ = ρ = 0.781", "A is normal (c = 0), so each step multiplies every"),
        ({"re": 0.5, "im": 0.3, "c": 0.2}, "Contraction: γ = 0.765 < 1", "In the long run each step multiplies"),
        ({"re": 0.5, "im": 0, "c": 4}, "No contraction, and yet it converges: ρ = 0.5 < 1 ≤ γ", "3.74 times the start"),
        (
            {"re": 0.5, "im": 0, "c": 4, "steps": 1},
            "No contraction",
            "After 1 step the distance has grown to 3.74 times",
        ),
        ({"re": 0.5, "im": 0, "c": 4, "angle": 0}, "No contraction", "From a start at 83° the first step multiplies"),
        ({"re": 0, "im": 1}, "Never comes closer: γ = ρ = 1", "each step keeps every distance"),
        ({"re": 0.6, "im": 0.8, "c": 1}, "Never settles: ρ = 1", "Every path goes round on an ellipse"),
        ({"re": -1, "im": 0, "c": 1}, "Never settles: ρ = 1", "the distance grows without bound"),
        ({"re": 0.9, "im": 0.7}, "Diverges: γ = ρ = 1.14", "A is normal"),
        ({"re": 0.9, "im": 0.7, "c": 0.6}, "Diverges: 1 < ρ = 1.14 ≤ γ = 1.69", "20.3 times the start"),
        ({"re": 0, "im": 0}, "Contraction: γ = ρ = 0", "After 20 steps the fixed point is reached"),
        ({"re": 0, "im": 0, "c": 0.5}, "Two steps lead from every start", "so A is a contraction"),
        ({"re": 0, "im": 0, "c": 2}, "Two steps lead from every start", "γ = 2, so A is no contraction"),
        ({"re": 0.5, "im": 0, "c": 4, "steps": 0}, "No contraction", "No step is taken yet."),
        ({"re": 0.6, "im": 0.79987}, "Contraction: γ = ρ = 0.9999", "normal"),
    ],
)
def test_every_regime_has_its_words(show, setting, outcome, more):
    text = words(show(**setting))
    assert text.startswith(outcome)
    assert more in text
    assert text.count(". ") <= 3


def test_the_worst_start_is_the_one_that_gamma_belongs_to(show):
    figure = show(re=0.6, im=0.3, c=0.9, steps=0)
    worst = match(r"From a start at (\d+)°", words(figure)).group(1)
    slider(figure, "start").fill(worst)
    slider(figure, "steps").fill("1")
    figure.locator("summary").click()
    first = number(figure.locator("tbody tr").nth(1).locator("td").nth(1).inner_text())
    assert first == pytest.approx(np.linalg.norm(matrix(0.6, 0.3, 0.9), 2), rel=1e-3)


def test_the_buttons_and_motion(show):
    figure = show(motion="reduce", steps=3)
    for button, steps in (("− Step", 2), ("+ Step", 3), ("Start over", 0), ("− Step", 0), ("Run", 40), ("+ Step", 40)):
        figure.get_by_role("button", name=button).click()
        assert value(figure, "steps") == steps
    figure = show(steps=3)
    figure.get_by_role("button", name="Run").click()
    deadline = time.monotonic() + 20
    while value(figure, "steps") < 6:
        assert time.monotonic() < deadline
    figure.get_by_role("button", name="Pause").click()
    assert figure.get_by_role("button", name="Run").count() == 1


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_no_serious_accessibility_violation(show, dark, width):
    page = show(dark=dark, width=width, c=1).page
    page.evaluate("document.querySelector('details').open = true")
    assert not grave_violations(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_panels_stack_on_a_phone_and_stand_side_by_side_elsewhere(show):
    def corners(figure):
        return [panel.bounding_box() for panel in figure.locator("svg").all()]

    first, second, third = corners(show())
    assert first["y"] == second["y"] < third["y"]
    first, second, third = corners(show(width=390))
    assert first["y"] < second["y"] < third["y"]
    assert min(first["width"], second["width"], third["width"]) > 300


def test_it_says_what_it_shows_without_a_script():
    explorer = explorers.contraction()
    assert explorer.label == "Contraction explorer: ρ and γ of a map of the plane"
    assert "every step brings every point closer" in repr(explorer)


@pytest.mark.parametrize(
    "arguments",
    [{"re": -1.3}, {"im": -0.1}, {"im": float("nan")}, {"c": 4.5}, {"steps": -1}, {"steps": 41}, {"angle": 361}],
)
def test_it_refuses_what_its_sliders_cannot_reach(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        explorers.contraction(**arguments)
