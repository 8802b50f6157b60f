"""The walk explorer, alone on a page opened from disk with the network cut."""

import html
import json
import re
import time

import numpy as np
import pytest
from conftest import at_settings, drag, grave_violations, match, number, slider, words

from jfb_tutorial.pages import explorers

DEFAULTS = {"x": 0.4, "y": 0.5, "shear": 0.0, "terms": 1, "damping": 1.0, "angle": 20.0}


@pytest.fixture
def show(show_explorers):
    """Opens a page with explorers; returns the first figure."""

    def show(*settings, dark=False, width=1280, motion="no-preference", touch=False, **parameters):
        figures = [explorers.walk(**setting) for setting in settings or [parameters]]
        return show_explorers(*figures, dark=dark, width=width, motion=motion, touch=touch)

    return show


def value(figure, name):
    return float(slider(figure, name).input_value())


def expect(x, y, shear, terms, damping, angle):
    """J, w and the sums, from matrices."""
    b = y + shear
    J = np.array([[x, b], [-(y**2) / b if b else 0.0, x]])
    g = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
    sums = [np.zeros(2)]
    for _ in range(terms):
        sums.append((1 - damping) * sums[-1] + damping * (g + sums[-1] @ J))
    return J, np.linalg.solve((np.eye(2) - J).T, g), np.array(sums[1:])


READ = r"""(figure) => JSON.stringify({
  rows: [...figure.querySelectorAll("tbody tr")].map((row) => [...row.children].map((cell) => cell.textContent)),
  words: figure.querySelector(".jfb-words").textContent,
  stage: figure.querySelector(".jfb-stage").innerHTML,
  heads: [...figure.querySelectorAll('.jfb-terms path[stroke="none"]')].map((head) => head.getAttribute("d")),
  tip: Object.fromEntries([...figure.querySelector(".jfb-tip").attributes].map(({ name, value }) => [name, value])),
  unit: Number(figure.querySelector('circle[stroke-dasharray="1 5"]').getAttribute("r")),
})"""


def check(state, **setting):
    """Everything that one explorer shows, against matrices."""
    J, w, sums = expect(**setting)
    table = np.array([[number(cell) for cell in row[1:]] for row in state["rows"][:-1]])
    sizes, length = np.linalg.norm(sums, axis=1), np.linalg.norm(w)
    cosines = sums @ w / sizes / length
    steps = np.linalg.norm(np.diff(np.vstack([np.zeros(2), sums]), axis=0), axis=1)
    expected = np.column_stack([steps, sums, cosines, sizes / length])
    assert table == pytest.approx(expected, rel=1e-6, abs=1e-6)
    told = state["rows"][-1]
    assert [number(cell) for cell in told[2:]] == pytest.approx([*w, 1, 1], rel=1e-6, abs=1e-6)

    first, verdict, story, *_ = state["words"].split("\n")
    assert first.startswith(f"k = {setting['terms']}")
    said = match(r"cosine with w is (\S+), its length (\S+) of w", first)
    assert [number(part) for part in said.groups()] == pytest.approx([cosines[-1], sizes[-1] / length], rel=6e-3)
    assert verdict == ("✓ −v descends." if cosines[-1] > 0 else "✗ −v climbs.")
    rho, norm = abs(np.linalg.eigvals(J)).max(), np.linalg.norm(J, 2)
    said = match(r"ρ\(J\) = (\S+), ‖J‖ = ([\d.]*\d)", story)
    assert [number(part) for part in said.groups()] == pytest.approx([rho, norm], rel=6e-3, abs=1e-12)
    radius = abs(np.linalg.eigvals((1 - setting["damping"]) * np.eye(2) + setting["damping"] * J)).max()
    assert ("the walk ends" in story or "w is g itself" in story) == (radius < 1)

    # the drawing: the radius of the dotted circle is the length of g
    def place(v):
        return np.array([222 + state["unit"] * v[0], 190 - state["unit"] * v[1]])

    assert [float(state["tip"]["cx"]), float(state["tip"]["cy"])] == pytest.approx(place(sums[-1]), abs=1e-6)
    assert state["tip"]["data-good"] == str(bool(cosines[-1] > 0)).lower()
    if radius < 1:
        seen = [k for k in range(setting["terms"]) if steps[k] * state["unit"] >= 0.3]
        ends = [[float(part) for part in head[1:].split("L")[0].split(",")] for head in state["heads"]]
        assert len(ends) == len(seen)
        for end, k in zip(ends, seen, strict=True):
            assert end == pytest.approx(place(sums[k]), abs=1e-6)


def test_the_sums_and_the_drawing_agree_with_matrices_at_100_settings_of_the_sliders(show):
    figure = show()
    rng = np.random.default_rng(0)
    settings: list[dict[str, float]] = [
        {
            "x": int(rng.integers(-120, 121)) / 100,
            "y": int(rng.integers(1, 121)) / 100,
            "shear": int(rng.integers(0, 81)) / 20 if i % 3 else 0,
            "terms": int(rng.integers(1, 41)),
            "damping": int(rng.integers(5, 101)) / 100 if i % 2 else 1,
            "angle": int(rng.integers(0, 361)),
        }
        for i in range(100)
    ]
    states = at_settings(figure, settings, READ)
    stories = set()
    for setting, state in zip(settings, map(json.loads, states), strict=True):
        check(state, **setting)
        stories.add(state["words"].split("\n")[2].split(". ", 1)[1])
        assert not re.search("NaN|Infinity|undefined", state["stage"])
    assert len(stories) >= 4


def test_explorers_begin_where_they_are_told_to_many_in_a_page(show):
    settings: list[dict[str, float]] = [
        {},
        {"terms": 6},
        {"x": 0.5, "y": 0, "shear": 4, "angle": 100, "terms": 3},
        {"x": -1.1, "y": 0.3, "damping": 0.4, "terms": 8},
        {"x": 0.123456, "y": 0.654321, "shear": 0.777, "terms": 5, "damping": 0.333, "angle": 222.2},
        {"x": 0, "y": 0},
        {"x": 0.99, "y": 0, "angle": 90},
    ]
    figures = show(*settings).page.locator(".jfb-explorer")
    states = map(json.loads, figures.evaluate_all(f"(all) => all.map({READ})"))
    for state, setting in zip(states, settings, strict=True):
        check(state, **{**DEFAULTS, **setting})
    ids = figures.page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("setting", "lines"),
    [
        (
            {},
            [
                "k = 1, JFB: v is g itself. Its cosine with w is 0.768, its length 0.781 of w’s.",
                "✓ −v descends.",
                "ρ(J) = 0.64, ‖J‖ = 0.64. Each term is shorter than the one before it, and the walk ends at w.",
            ],
        ),
        ({"x": 0.5, "y": 0, "shear": 4, "angle": 100}, ["✗ −v climbs.", "(‖J‖ ≥ 1), and yet the walk ends at w"]),
        ({"x": 0.8, "y": 0.9}, ["ρ(J) = 1.2, ", "The terms grow; w still exists, but no sum reaches it."]),
        ({"x": 0.8, "y": 0.9, "terms": 9}, ["The sum has left the picture."]),
        ({"x": 0, "y": 1}, ["The terms do not die out; w still exists, but the sums never settle there."]),
        ({"x": -1.1, "y": 0.3, "damping": 0.4}, ["v is λg", "damped ρ(B) = 0.2", "damped the walk ends there."]),
        ({"x": 1, "y": 0}, ["k = 1, JFB: v is g itself.", "I − J is singular: no w is there to walk to"]),
        ({"x": 1, "y": 0, "shear": 1, "terms": 4}, ["I − J is singular"]),
        ({"x": 0.97, "y": 0}, ["w, of length 33.3, lies outside of the picture."]),
        ({"x": 0, "y": 0}, ["J = 0, so w is g itself."]),
        ({"x": -1, "y": 0, "terms": 2}, ["the terms cancel: v = 0 points nowhere"]),
    ],
)
def test_every_regime_has_its_words(show, setting, lines):
    figure = show(**setting)
    for line in lines:
        assert line in words(figure)
    assert not re.search("NaN|undefined|Infinity", words(figure) + figure.locator(".jfb-stage").inner_html())


def test_each_slider_by_keyboard_changes_the_drawing_and_the_words(show):
    figure = show(x=0.3, y=0.2, shear=1, terms=4, damping=0.8, angle=50)
    for name in DEFAULTS:
        handle = slider(figure, name)
        before = words(figure), figure.locator(".jfb-stage").inner_html(), handle.get_attribute("aria-valuetext")
        for _ in range(3):
            handle.press("ArrowRight")
        after = words(figure), figure.locator(".jfb-stage").inner_html(), handle.get_attribute("aria-valuetext")
        assert all(new != old for old, new in zip(before, after, strict=True)), name
    for name in DEFAULTS:
        for key in ("Home", "End"):
            slider(figure, name).press(key)
            assert not re.search("NaN|undefined|∞", words(figure))
            assert not re.search("NaN|Infinity|undefined", figure.locator(".jfb-stage").inner_html())
            spoken = slider(figure, name).get_attribute("aria-valuetext")
            assert figure.get_by_role("slider", name=spoken, exact=True).count() == 1


@pytest.mark.parametrize("touch", [False, True])
def test_g_and_J_by_pointer(show, touch):
    figure = show(width=390 if touch else 1280, touch=touch)

    drag(figure, 0, -60, -40, touch=touch)  # the first grip is g's
    assert 60 < value(figure, "angle") < 140
    assert (value(figure, "x"), value(figure, "y")) == (0.4, 0.5)
    drag(figure, 1, -40, 10, touch=touch)
    assert value(figure, "x") < 0.1
    assert 0.1 < value(figure, "y") < 0.5
    drag(figure, 1, 0, 100, touch=touch)  # below the real axis there is only the mirror image
    assert value(figure, "y") == 0


def test_the_buttons_and_motion(show):
    figure = show(motion="reduce", terms=3)
    for button, terms in (("one term fewer", 2), ("one term more", 3), ("JFB", 1), ("one term fewer", 1)):
        figure.get_by_role("button", name=button).click()
        assert value(figure, "terms") == terms
    figure.get_by_role("button", name="Play").click()  # at once to where nothing more is to be seen
    reached = value(figure, "terms")
    assert 5 < reached < 40
    figure = show(terms=2)
    figure.get_by_role("button", name="Play").click()
    deadline = time.monotonic() + 20
    while value(figure, "terms") < 4:
        assert time.monotonic() < deadline
    figure.get_by_role("button", name="Pause").click()
    assert figure.get_by_role("button", name="Play").count() == 1
    slider(figure, "terms").fill(str(int(reached) - 1))
    figure.get_by_role("button", name="Play").click()
    figure.get_by_role("button", name="Play").wait_for()  # it ends by itself
    assert value(figure, "terms") == reached


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("dark", [False, True])
def test_no_serious_accessibility_violation(show, dark, width):
    figure = show(dark=dark, width=width, terms=5, damping=0.7)
    page = figure.page
    page.evaluate("document.querySelector('details').open = true")
    assert not grave_violations(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    walk, pad = (panel.bounding_box() for panel in figure.locator("svg").all())
    assert walk["width"] > 280
    assert (pad["x"] > walk["x"] + walk["width"] - 1) == (width == 1280)
    # no two texts of a drawing meet
    boxes = figure.locator("svg").evaluate_all(
        """(all) => all.map((drawing) => [...drawing.querySelectorAll("text")].map((node) => {
          const b = node.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; }))"""
    )
    for texts in boxes:
        for i, one in enumerate(texts):
            for other in texts[:i]:
                assert min(min(one[n + 2], other[n + 2]) - max(one[n], other[n]) for n in (0, 1)) < 2
    assert figure.locator(".jfb-words").get_attribute("role") == "status"


def test_it_works_where_a_notebook_inserts_it_twice(inserted_twice):
    figures = inserted_twice(explorers.walk(terms=3))
    figures.nth(1).get_by_role("button", name="one term more").click()
    assert [value(figure, "terms") for figure in figures.all()] == [3, 4]
    check(json.loads(figures.nth(1).evaluate(READ)), **{**DEFAULTS, "terms": 4})


def test_it_says_what_it_shows_without_a_script(words_without_script):
    explorer = explorers.walk()
    assert explorer.label == "Walk explorer: from g, arrow by arrow, to the adjoint w"
    assert "JFB stops at the end of the first arrow" in repr(explorer)
    assert "The figure answers to the hand where its script runs" in words_without_script(explorer)


def test_its_markup_is_one_script_and_always_the_same():
    markup = explorers.walk(terms=2, x=-0.5)._repr_html_()
    parameters = match(r'data-parameters="([^"]*)"', markup).group(1)
    assert json.loads(html.unescape(parameters)) == {**DEFAULTS, "terms": 2, "x": -0.5}
    assert markup.count("<script>") == markup.count("</script>") == 1
    assert not re.search(r"""(src|href)=|https?://(?!www\.w3\.org/2000/svg)|type=.module""", markup)
    assert markup == explorers.walk(terms=2, x=-0.5)._repr_html_()
    assert len(explorers._read("walk.js").encode()) <= 20_000


@pytest.mark.parametrize(
    "arguments",
    [
        *({"x": -1.3}, {"x": 1.3}, {"y": -0.1}, {"y": float("nan")}, {"shear": 4.5}, {"shear": -1}),
        *({"terms": 41}, {"damping": 0}, {"damping": 1.1}, {"angle": 361}, {"angle": -1}),
    ],
)
def test_it_refuses_what_its_sliders_cannot_reach(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must lie in .* sliders reach no further"):
        explorers.walk(**arguments)


def test_it_refuses_what_is_no_number_of_terms():
    with pytest.raises(ValueError, match="terms must be at least 1, got 0; the slider goes from 1 to 40"):
        explorers.walk(terms=0)
    with pytest.raises(TypeError, match=r"terms must be an integer, got 2\.5 of type float"):
        explorers.walk(terms=2.5)  # type: ignore[arg-type]
