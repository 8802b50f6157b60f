"""The descent explorer, alone on a page opened from disk with the network cut."""

import html
import json
import re

import numpy as np
import pytest
from conftest import at_settings, grave_violations, grip, match, number, pull, slider, words

from jfb_tutorial.pages import explorers

SLIDERS = ("gamma", "kappa", "angle", "turn")
STAGE, HALF, CENTRE = 400, 166, (222, 190)  # the drawing, half its box, the box's centre; in units of the drawing


@pytest.fixture
def show(show_explorers):
    """Opens a page with explorers; returns the first figure."""

    def show(*settings, dark=False, width=1280, motion="no-preference", touch=False, **parameters):
        figures = [explorers.descent(**setting) for setting in settings or [parameters]]
        return show_explorers(*figures, dark=dark, width=width, motion=motion, touch=touch)

    return show


def value(figure, name):
    return float(slider(figure, name).input_value())


def numbers(text):
    return [number(part) for part in text.strip("()").split(", ")]


READ = """(figure) => ({
  rows: [...figure.querySelectorAll("tbody tr")].map((row) => [...row.children].map((cell) => cell.textContent)),
  lamps: [...figure.querySelectorAll(".jfb-lamps li")].map((line) => line.textContent),
  words: figure.querySelector(".jfb-words").textContent,
  grips: [...figure.querySelectorAll(".jfb-handle")].map((grip) => grip.getAttribute("transform")),
  dashes: figure.querySelector(".jfb-p").getAttribute("stroke-dasharray"),
  color: figure.querySelector("svg").style.getPropertyValue("--jfb-p"),
  paths: Object.fromEntries(["ellipse", "beyond", "edge"].map((name) =>
    [name, figure.querySelector(`.jfb-${name}`).getAttribute("d")])),
})"""


def seen(figure):
    return figure.evaluate(READ)


def unit(degrees):
    return np.array([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))])


def expect(angle, turn, gamma, kappa):
    """Gradient, p and the least γ at which some Jacobian does not descend, from matrices and by brute force."""
    w, B = unit(angle), np.diag([np.sqrt(kappa), 1.0])
    A = gamma * np.outer(w, unit(turn))
    assert np.linalg.norm(A, 2) == pytest.approx(gamma)
    gradient = B @ w
    p = -B @ (np.eye(2) - A).T @ w
    most = (unit(np.linspace(0, 360, 4001)).T @ (B @ gradient)).max()
    return gradient, p, gradient @ gradient / most


def wide(angle, gamma, kappa):
    """Half the width of the drawing: the ellipse and a tenth."""
    x, y = abs(unit(angle) * [np.sqrt(kappa), 1])
    return 1.1 * max(x + gamma * np.sqrt(kappa), y + gamma, 1)


def sharp(kappa):
    """The least of c(w) over all w, by brute force."""
    w = unit(np.linspace(0, 90, 2001))
    Gw = np.diag([kappa, 1.0]) @ w
    return ((w * Gw).sum(0) / np.linalg.norm(Gw, axis=0)).min()


def place(transform):
    return np.array([float(part) for part in match(r"translate\((\S+) (\S+)\)", transform).groups()])


def corners(path):
    return np.array([[float(part) for part in point.split(",")] for point in re.findall(r"[\d.-]+,[\d.-]+", path)])


def check(state, angle, turn, gamma, kappa):
    """Everything that one explorer shows, against matrices."""
    gradient, p, every = expect(angle, turn, gamma, kappa)
    least, slope = sharp(kappa), gradient @ p
    cells = dict(state["rows"])
    assert numbers(cells["gradient ∇"]) == pytest.approx(gradient, rel=1e-4, abs=1e-4)
    assert numbers(cells["JFB's direction p"]) == pytest.approx(p, rel=1e-4, abs=1e-4)
    assert number(cells["⟨∇, p⟩"]) == pytest.approx(slope, rel=1e-4, abs=1e-4)
    if np.linalg.norm(p) > 1e-6:
        cosine = -slope / np.linalg.norm(gradient) / np.linalg.norm(p)
        assert number(cells["cosine between −∇ and p"]) == pytest.approx(cosine, rel=1e-4, abs=1e-4)
    assert number(cells["c(w), the cosine between w and wG"]) == pytest.approx(every, rel=1e-5)
    assert number(cells["least c(w) of all w, 2√κ/(1+κ)"]) == pytest.approx(least, rel=1e-5)
    assert number(cells["1/γ"]) == pytest.approx(1 / gamma if gamma else np.inf, rel=1e-5)

    pairs = [(kappa, 1 / gamma if gamma else np.inf), (gamma, least), (gamma, every)]
    for line, (a, b) in zip(state["lamps"], pairs, strict=True):
        if abs(a - b) > 1e-4:
            assert line.startswith("✓ yes – " if a < b else "✗ no – ")
        told = match(r"\((?:γ = )?(\S+) ([<=>]) (?:c\(w\) = )?(\S+)\)$", line)
        assert [number(told.group(1)), number(told.group(3))] == pytest.approx([a, b], rel=6e-3)
        if abs(a - b) > 1e-4:
            assert told.group(2) == ("<" if a < b else ">")
            assert told.group(1) != told.group(3)

    verdict = match(r"^⟨∇, p⟩ = (\S+): (descends|ascends|neither)", state["words"])
    assert number(verdict.group(1)) == pytest.approx(slope, rel=6e-3, abs=1e-6)
    if abs(slope) > 1e-6:
        assert verdict.group(2) == ("descends" if slope < 0 else "ascends")
        assert (state["dashes"] == "none") == (slope < 0)
        assert state["color"] == ("var(--jfb-green)" if slope < 0 else "var(--jfb-red)")

    # the drawing: from pixels back to the plane
    room = wide(angle, gamma, kappa)
    scale = room / HALF * np.array([1, -1])
    tip, at_p = [(place(grip) - CENTRE) * scale for grip in state["grips"]]
    assert tip == pytest.approx(-gradient, abs=1e-9)
    assert at_p == pytest.approx(p, abs=1e-9)
    rounding = 0.02 * abs(scale[0])
    if gamma:
        ellipse = (corners(state["paths"]["ellipse"]) - CENTRE) * scale
        assert np.linalg.norm((ellipse + gradient) / [np.sqrt(kappa), 1], axis=1) == pytest.approx(gamma, abs=rounding)
        assert 0.6 * room < max(1.0, abs(ellipse).max()) < room  # it fills the drawing, and stays inside
    edge = (corners(state["paths"]["edge"]) - CENTRE) * scale
    assert edge @ gradient == pytest.approx(0, abs=rounding * np.linalg.norm(gradient))
    if abs(gamma - every) > 1e-4:
        assert bool(state["paths"]["beyond"]) == (gamma > every)
    if gamma > every + 1e-4:  # the hatched part is all of the ellipse beyond the line, and nothing else
        beyond = (corners(state["paths"]["beyond"]) - CENTRE) * scale
        far = beyond @ gradient / np.linalg.norm(gradient)
        assert far.min() == pytest.approx(0, abs=rounding)
        assert far[[0, -1]] == pytest.approx([0, 0], abs=rounding)
        most = gamma * np.linalg.norm([kappa, 1] * unit(angle)) / np.linalg.norm(gradient) - np.linalg.norm(gradient)
        assert far.max() == pytest.approx(most, abs=rounding)
        assert np.linalg.norm((beyond + gradient) / [np.sqrt(kappa), 1], axis=1) == pytest.approx(gamma, abs=rounding)


def test_the_default_is_the_counterexample(show):
    figure = show()
    state = seen(figure)
    check(state, np.rad2deg(np.arctan(2)), np.rad2deg(np.arctan(0.5)), 0.9, 4)
    gradient, p = numbers(state["rows"][0][1]), numbers(state["rows"][1][1])
    assert gradient == pytest.approx(np.array([2, 2]) / np.sqrt(5), abs=1e-5)
    assert p == pytest.approx(np.array([1.6, -1.1]) / np.sqrt(5), abs=1e-5)
    assert state["words"].startswith("⟨∇, p⟩ = 0.2: ascends. ")
    assert state["lamps"] == [
        "✗ no – Assumption 3.3: κ < 1/γ (4 > 1.11)",
        "✗ no – sharp: γ < 2√κ/(1+κ) (0.9 > 0.8)",
        "✗ no – every Jacobian of norm ≤ γ descends for this gradient (γ = 0.9 > c(w) = 0.8)",
    ]


def test_the_numbers_and_the_drawing_agree_with_matrices_at_200_settings_of_the_sliders(show):
    figure = show()
    rng = np.random.default_rng(0)
    settings = [
        {
            "gamma": round(float(rng.uniform(0, 0.99)), 2),
            "kappa": round(float(rng.uniform(1, 20)) if i % 2 else float(rng.uniform(1, 3)), 1),
            "angle": int(rng.integers(0, 361)),
            "turn": int(rng.integers(0, 361)),
        }
        for i in range(200)
    ]
    states = at_settings(figure, settings, READ)
    for setting, state in zip(settings, states, strict=True):
        check(state, **setting)
    answers = {"".join(line[0] for line in state["lamps"]) + str("ascends" in state["words"][:30]) for state in states}
    assert answers == {"✓✓✓False", "✗✓✓False", "✗✗✓False", "✗✗✗False", "✗✗✗True"}


def test_explorers_begin_where_they_are_told_to_many_in_a_page(show):
    rng = np.random.default_rng(1)
    low, high = [0, 0, 0, 1], [360, 360, 0.99, 20]
    settings = [dict(zip(("angle", "turn", "gamma", "kappa"), rng.uniform(low, high), strict=True)) for _ in range(20)]
    settings += [{"gamma": 0}, {"angle": 0, "turn": 0, "gamma": 0.99, "kappa": 1}, {"angle": 360, "turn": 180}]
    settings += [{"angle": 90, "kappa": 20}, {"angle": 180, "turn": 360, "gamma": 0.99, "kappa": 20}]
    figures = show(*settings).page.locator(".jfb-explorer")
    defaults = {"angle": 63.43494882292201, "turn": 26.56505117707799, "gamma": 0.9, "kappa": 4.0}
    for state, setting in zip(figures.evaluate_all(f"(all) => all.map({READ})"), settings, strict=True):
        check(state, **{**defaults, **setting})
    assert not re.search("NaN|undefined|Infinity", figures.page.locator("main").inner_html().split("<script>")[0])
    ids = figures.page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))


def test_each_slider_by_keyboard_changes_the_drawing_and_the_words(show):
    figures = show(*[{"angle": 50, "turn": 20, "gamma": 0.7, "kappa": 5}] * 4).page.locator(".jfb-explorer")
    for name, figure in zip(SLIDERS, figures.all(), strict=True):
        handle = slider(figure, name)
        moves = figure.locator(".jfb-handle" if name == "turn" else ".jfb-ellipse").last
        attribute = "transform" if name == "turn" else "d"
        states = []
        for keys in (0, 5):
            for _ in range(keys):
                handle.press("ArrowRight")
            states.append((words(figure), moves.get_attribute(attribute), handle.get_attribute("aria-valuetext")))
        assert all(new != old for old, new in zip(*states, strict=True))
        for key in ("Home", "End"):  # no state is without words or with a broken number
            handle.press(key)
            assert len(words(figure)) > 40
            assert not re.search("NaN|undefined|∞", words(figure))
            assert not re.search("NaN|Infinity", figure.locator(".jfb-stage").inner_html())
            assert figure.get_by_role("slider", name=handle.get_attribute("aria-valuetext"), exact=True).count() == 1
            check(seen(figure), **{name: value(figure, name) for name in SLIDERS})


@pytest.mark.parametrize(("name", "grip"), [("angle", "tip of −gradient"), ("turn", "tip of p")])
def test_each_grip_by_keyboard(show, name, grip):
    figure = show(angle=50.4, turn=20.4, motion="reduce")
    hold = figure.get_by_role("slider", name=grip)
    at = round({"angle": 50.4, "turn": 20.4}[name])
    steps = {"ArrowRight": at + 1, "ArrowUp": at + 2, "ArrowLeft": at + 1, "ArrowDown": at, "PageUp": at + 10}
    for key, after in {**steps, "PageDown": at, "Home": 0, "End": 359}.items():
        hold.press(key)
        assert value(figure, name) == after
        assert hold.get_attribute("aria-valuenow") == str(after)
        assert hold.get_attribute("aria-valuetext").endswith(f" = {after}°")
    hold.press("ArrowRight")  # round and round
    assert value(figure, name) == 0
    assert hold.locator("circle").nth(2).get_attribute("visibility") == "visible"
    hold.press("a")
    assert value(figure, name) == 0
    hold.press("Tab")
    assert hold.locator("circle").nth(2).get_attribute("visibility") == "hidden"


@pytest.mark.parametrize("touch", [False, True])
def test_each_grip_by_pointer(show, touch):
    figure = show(angle=50, turn=200, gamma=0.8, kappa=3, width=360 if touch else 1280, touch=touch)
    page = figure.page

    def drag(which, to):
        """To where the grip belongs that stands at `to` in the plane; the pointer lands a little outside."""
        start, frame = grip(figure, which), figure.locator("svg").bounding_box()
        pixel = np.array(CENTRE) + np.array(to) * [1, -1] * HALF / wide(value(figure, "angle"), 0.8, 3)
        x, y = np.array([frame["x"], frame["y"]]) + pixel * frame["width"] / STAGE
        pull(page, start, (x, y), touch=touch)

    B = np.array([np.sqrt(3), 1])
    drag(0, -1.1 * B * unit(130))
    assert (value(figure, "angle"), value(figure, "turn")) == (130, 200)
    drag(1, -B * unit(130) + 0.9 * B * unit(310))
    assert (value(figure, "angle"), value(figure, "turn")) == (130, 310)
    check(seen(figure), 130, 310, 0.8, 3)
    drag(0, -0.9 * B * unit(265))
    assert (value(figure, "angle"), value(figure, "turn")) == (265, 310)
    page.keyboard.press("ArrowRight")  # the grip just dragged has the keyboard
    assert (value(figure, "angle"), value(figure, "turn")) == (266, 310)


def test_where_the_grips_meet_the_gradient_can_be_grasped(show):
    figure = show(angle=30, turn=100, gamma=0)
    page = figure.page
    box = figure.locator(".jfb-handle").nth(1).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y, steps=4)
    page.mouse.up()
    assert value(figure, "turn") == 100
    assert value(figure, "angle") > 40


def test_the_buttons_find_the_worst(show):
    kappas = 1.7, 4, 20
    figures = show(*({"angle": 20, "turn": 300, "gamma": 0.5, "kappa": kappa} for kappa in kappas)).page
    for kappa, figure in zip(kappas, figures.locator(".jfb-explorer").all(), strict=True):
        figure.get_by_role("button", name="worst Jacobian").click()
        turn = np.rad2deg(np.arctan2(unit(20)[1], kappa * unit(20)[0]))
        check(seen(figure), 20, turn, 0.5, kappa)
        found = number(seen(figure)["rows"][2][1])
        for e in range(0, 360, 5):
            gradient, p, _ = expect(20, e, 0.5, kappa)
            assert gradient @ p <= found + 1e-5
        figure.get_by_role("button", name="worst gradient").click()
        check(seen(figure), np.rad2deg(np.arctan(np.sqrt(kappa))), turn, 0.5, kappa)  # not rounded
        cells = dict(seen(figure)["rows"])
        assert cells["c(w), the cosine between w and wG"] == cells["least c(w) of all w, 2√κ/(1+κ)"]


def test_every_regime_has_its_words(show):
    regimes = [
        ({"gamma": 0}, "descends", "With γ = 0 the ellipse is a point"),
        ({"gamma": 0.2}, "descends", "Assumption 3.3 holds: for every gradient the whole ellipse lies on"),
        ({"gamma": 0.25}, "descends", "Assumption 3.3 fails, but the sharp condition holds: for every gradient"),
        ({"gamma": 0.79}, "descends", "the sharp condition holds"),
        ({"gamma": 0.8}, "neither descends nor ascends", "The ellipse touches the line: every p descends but one"),
        ({"gamma": 0.8, "turn": 0}, "descends", "The ellipse touches the line"),
        ({"gamma": 0.81}, "ascends", "some Jacobians of norm ≤ γ turn p uphill, and this is one of them."),
        ({"gamma": 0.81, "turn": 0}, "descends", "some Jacobians of norm ≤ γ turn p uphill, but not this one."),
        (
            {"angle": 0},
            "descends",
            "The sharp condition fails: for the worst gradient not every p descends. But for this",
        ),
        ({"angle": 0, "turn": 0, "gamma": 0.99, "kappa": 1}, "descends", "Assumption 3.3 holds"),
    ]
    lines = show(*(setting for setting, _, _ in regimes)).page.locator(".jfb-words")
    assert {line.get_attribute("role") for line in lines.all()} == {"status"}
    for text, (setting, outcome, more) in zip(lines.all_inner_texts(), regimes, strict=True):
        assert re.match(rf"⟨∇, p⟩ = [−\d.]+: {outcome}\. ", text), setting
        assert more in text, setting


def test_close_numbers_are_told_apart(show):
    figure = show(gamma=0.80004)
    assert "(0.80004 > 0.8)" in seen(figure)["lamps"][1]
    slider(figure, "kappa").fill("2")
    slider(figure, "gamma").fill("0.5")
    assert seen(figure)["lamps"][0] == "✗ no – Assumption 3.3: κ < 1/γ (2 = 2)"


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("dark", [False, True])
def test_no_serious_accessibility_violation(show, dark, width):
    figure = show(dark=dark, width=width)
    page = figure.page
    page.evaluate("document.querySelector('details').open = true")
    assert not grave_violations(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    color = figure.locator(".jfb-p").evaluate("(node) => getComputedStyle(node).stroke")
    assert color == ("rgb(255, 143, 77)" if dark else "rgb(192, 74, 0)")
    for handle in figure.locator("input").all():
        assert handle.bounding_box()["width"] > 100


@pytest.mark.parametrize("width", [1280, 360])
def test_the_names_keep_apart(show, width):
    rng = np.random.default_rng(2)
    settings = [
        {
            "angle": rng.uniform(0, 360),
            "turn": rng.uniform(0, 360),
            "gamma": rng.uniform(0.1, 0.99),
            "kappa": rng.uniform(1, 20),
        }
        for _ in range(30)
    ]
    figures = show(*settings, width=width).page.locator(".jfb-explorer")
    boxes = figures.evaluate_all(
        """(all) => all.map((figure) => {
          const box = (node) => { const b = node.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; };
          const find = (text) => [...figure.querySelectorAll("svg text")].find((node) => node.textContent === text);
          return [box(find("−gradient")), box(find("p")), ...[...figure.querySelectorAll(".jfb-handle")].map((grip) =>
            box(grip.querySelectorAll("circle")[1])), box(figure.querySelector("svg"))];
        })"""
    )
    for gradient, p, *dots, frame in boxes:
        for one, other in [(gradient, p), *((name, dot) for name in (gradient, p) for dot in dots)]:
            overlap = [min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1)]
            assert min(overlap) < 2
        for name in (gradient, p):
            assert name[0] >= frame[0]
            assert name[1] >= frame[1]
            assert name[2] <= frame[2]
            assert name[3] <= frame[3]


def test_it_works_where_a_notebook_inserts_it_twice(inserted_twice):
    figures = inserted_twice(explorers.descent(angle=40, turn=10))
    for figure in figures.all():
        assert figure.locator("svg").count() == 1
        assert figure.get_by_role("slider").count() == 6
    figures.nth(1).get_by_role("slider", name="tip of p").press("ArrowRight")
    assert [value(figure, "turn") for figure in figures.all()] == [10, 11]
    check(seen(figures.nth(0)), 40, 10, 0.9, 4)
    check(seen(figures.nth(1)), 40, 11, 0.9, 4)


def test_it_says_what_it_shows_without_a_script(words_without_script):
    explorer = explorers.descent()
    assert explorer.label == "Descent explorer: JFB's direction p and the gradient"
    assert "the ellipse stays on the side of descent for every gradient" in repr(explorer)
    assert "The figure answers to the hand where its script runs" in words_without_script(explorer)


def test_its_markup_is_one_script_and_always_the_same():
    markup = explorers.descent(angle=1, gamma=0.5)._repr_html_()
    parameters = match(r'data-parameters="([^"]*)"', markup).group(1)
    expected = {"angle": 1.0, "turn": 26.56505117707799, "gamma": 0.5, "kappa": 4.0}
    assert json.loads(html.unescape(parameters)) == expected
    assert markup.count("<script>") == markup.count("</script>") == 1
    assert not re.search(r"""(src|href)=|https?://(?!www\.w3\.org/2000/svg)|type=.module""", markup)
    assert markup == explorers.descent(angle=1, gamma=0.5)._repr_html_()


@pytest.mark.parametrize(
    "arguments",
    [
        *({"angle": -1}, {"angle": 361}, {"turn": 360.5}, {"gamma": 1}, {"gamma": -0.1}, {"gamma": float("nan")}),
        *({"kappa": 0.9}, {"kappa": 20.1}, {"kappa": float("inf")}),
    ],
)
def test_it_refuses_what_its_sliders_cannot_reach(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must lie in .* sliders reach no further"):
        explorers.descent(**arguments)
