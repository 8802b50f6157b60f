"""The phantom explorer, alone on a page opened from disk with the network cut."""

import html
import json
import re

import numpy as np
import pytest
from conftest import at_settings, grave_violations, match, number, slider, words

from jfb_tutorial.pages import explorers

SLIDERS = ("k", "damping", "gamma", "symmetry", "kappa")
DEFAULTS = {"k": 5, "damping": 0.5, "gamma": 0.9, "symmetry": 1.0, "kappa": 10.0}
STAGE, LEFT, TOP, SIDE = 400, 56, 24, 332  # the drawing, the corner and the side of its box; in units of the drawing
FEWEST = "fewest products with the sharp condition"


def open_all(page):
    """Opens all that is folded, and waits for what follows: the event comes later."""
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    page.wait_for_function(
        "[...document.querySelectorAll('.jfb-signs')].every((signs) => signs.getAttribute('visibility') === 'visible')"
    )


@pytest.fixture
def show(show_explorers):
    """Opens a page with explorers, each with what it keeps behind "More"; returns the first figure."""

    def show(*settings, dark=False, width=1280, touch=False, more=True, **parameters):
        figures = [explorers.phantom(**setting) for setting in settings or [parameters]]
        figure = show_explorers(*figures, dark=dark, width=width, touch=touch)
        if more:
            open_all(figure.page)
        return figure

    return show


def cell(figure):
    return int(slider(figure, "k").input_value()), float(slider(figure, "damping").input_value())


READ = r"""(figure) => {
  const circles = (name) => [...figure.querySelectorAll(`.jfb-${name} circle`)].map((circle) => ({
    at: ["cx", "cy"].map((key) => Number(circle.getAttribute(key))),
    fill: circle.getAttribute("fill"), stroke: circle.getAttribute("stroke"),
    shown: getComputedStyle(circle).visibility !== "hidden" }));
  const rows = [...figure.querySelectorAll("tbody tr")].map((row) => [...row.children].map((cell) => cell.textContent));
  return JSON.stringify({
    rows, signs: circles("signs"), mu: circles("mu").map(({ at }) => at), beta: circles("beta").map(({ at }) => at),
    words: figure.querySelector(".jfb-words").textContent.replaceAll("\u2060", ""),
    tiles: [...figure.querySelectorAll(".jfb-cells rect")].map((tile) => ({
      at: ["x", "y"].map((key) => Number(tile.getAttribute(key))), fill: tile.getAttribute("fill") })),
    frame: figure.querySelector(".jfb-frame").getAttribute("transform"),
    radius: Number(figure.querySelector(".jfb-bound").getAttribute("r")),
    kappa: figure.querySelector('input[name="kappa"]').getAttribute("aria-valuetext"),
    spoken: figure.querySelector(".jfb-map").getAttribute("aria-valuetext"),
  });
}"""


def seen(figure):
    return json.loads(figure.evaluate(READ))


def adjoint():
    hashed = np.sin(12.9898 * np.arange(1, 25)) * 43758.5453
    return hashed - np.floor(hashed) - 0.5


def jacobian(gamma, symmetry):
    J = np.zeros((24, 24))
    for j in range(12):
        theta = np.pi * (j + 0.5) / 12
        a, b = gamma * np.cos(theta), gamma * (1 - symmetry) * np.sin(theta)
        J[2 * j : 2 * j + 2, 2 * j : 2 * j + 2] = [[a, -b], [b, a]]
    return J


def expect(gamma, symmetry, kappa, exact=range(20)):
    """Cosine and norm of Bᵏ for each (row, k), from full matrices; B is normal, which spares the norms not in `exact`."""
    w, M = adjoint(), np.diag([kappa ** ((7 * i) % 24 / 23 / 2) for i in range(24)])
    damping = np.arange(1, 21)[:, None, None] / 20
    B = damping * jacobian(gamma, symmetry) + (1 - damping) * np.eye(24)
    powers = [B]
    while len(powers) < 20:
        powers.append(powers[-1] @ B)
    stacked = np.stack(powers, axis=1)
    norms = np.linalg.norm(B, 2, axis=(1, 2))[:, None] ** np.arange(1, 21)
    for k in exact:
        norms[:, k] = np.linalg.norm(stacked[:, k], 2, axis=(1, 2))
    true, kept = M @ w, (w - w @ stacked) @ M
    cosines = kept @ true / np.linalg.norm(kept, axis=2) / np.linalg.norm(true)
    return cosines, norms


def middle(k, row):
    """Where the cell (k, row) of the map is, in units of the drawing."""
    return LEFT + (k - 0.5) * SIDE / 20, TOP + (20.5 - row) * SIDE / 20


def tint(cosines):
    blue, white, red = np.array([[0, 114, 178], [245, 245, 240], [192, 74, 0]])
    at = np.arccos(np.clip(cosines, 0, 1))[..., None] / (np.pi / 4)
    return np.where(at < 1, blue + (white - blue) * at, white + (red - white) * (at - 1))


def check(state, k, damping, gamma, symmetry, kappa):
    """Everything that one explorer shows, against matrices."""
    cosines, norms = expect(gamma, symmetry, kappa, [k - 1])
    row = round(20 * damping)
    cosine, norm = cosines[row - 1, k - 1], norms[row - 1, k - 1]
    bounds = 1 / kappa, 2 * np.sqrt(kappa) / (1 + kappa)
    most = cosines[:, k - 1].max()

    cells = [value for _, value in state["rows"]]
    assert number(cells[0]) == pytest.approx(cosine, abs=1.1e-6)
    assert cells[1] == str(k - 1)
    assert number(cells[2]) == pytest.approx(norm, rel=1e-5, abs=1e-300)
    for bound, told, verdict in zip(bounds, cells[3::2], cells[4::2], strict=False):
        assert number(told) == pytest.approx(bound, rel=1e-5)
        if abs(norm - bound) > 1e-7:
            assert verdict == ("✓ holds" if norm < bound else "✗ fails")
    best = round(20 * float(cells[7]))
    assert cosines[best - 1, k - 1] > most - 2e-9
    assert number(cells[8]) == pytest.approx(most, abs=1.1e-6)

    lines = state["words"].split("\n")
    assert re.match(rf"k = {k}, λ = {damping:.2f}: the cosine is \S+, for {k - 1} products?\.$", lines[0])
    assert number(match(r"cosine is (\S+),", lines[0]).group(1)) == pytest.approx(cosine, abs=6e-4)
    for line, name, text, bound in zip(lines[1:], ("Paper's", "Sharp"), ("1/κ", "2√κ/(1+κ)"), bounds, strict=False):
        told = match(rf"^([✓✗]) {name} condition (\S+): ‖B\S+‖ = (\S+) ([<=>]) {re.escape(text)} = (\S+)\.$", line)
        assert [number(told.group(3)), number(told.group(5))] == pytest.approx(
            [norm, bound], rel=0.06 if norm < 1e-3 else 6e-3
        )
        if abs(norm - bound) > 1e-7:
            assert told.group(1, 2, 4) == (("✓", "holds", "<") if norm < bound else ("✗", "fails", ">"))
            assert told.group(3) != told.group(5)
    if np.ptp(cosines[:, k - 1]) < 1e-10:
        assert lines[3].startswith(f"For k = {k} every λ has this cosine")
        assert best == 20
    elif best == row:
        assert lines[3] == f"Of the 20 λ this one is best for k = {k}."
    else:
        told = match(rf"^Best of the 20 λ for k = {k}: λ = (\S+), with the cosine (\S+)\.$", lines[3])
        assert round(20 * float(told.group(1))) == best
        assert number(told.group(2)) == pytest.approx(most, abs=6e-4)

    # the map
    places = np.array([middle(at, line) for line in range(1, 21) for at in range(1, 21)])
    assert abs(np.array([tile["at"] for tile in state["tiles"]]) + SIDE / 40 - places).max() < 1e-9
    assert abs(np.array([sign["at"] for sign in state["signs"]]) - places).max() < 1e-9
    fills = np.array([tile["fill"][4:-1].split(", ") for tile in state["tiles"]], dtype=int)
    assert abs(fills - tint(cosines).reshape(400, 3)).max() < 0.51
    shown = np.array([sign["shown"] for sign in state["signs"]]).reshape(20, 20)
    filled = np.array([sign["fill"] != "none" for sign in state["signs"]]).reshape(20, 20)
    for drawn, bound in ((shown, bounds[1]), (filled & shown, bounds[0])):
        clear = abs(norms - bound) > 1e-7
        assert (drawn == (norms < bound))[clear].all()
    frame = [float(part) for part in match(r"translate\((\S+) (\S+)\)", state["frame"]).groups()]
    assert frame == pytest.approx(middle(k, row))
    assert state["spoken"].startswith(f"k = {k}, λ = {damping:.2f}, cosine ")

    # the spectrum
    scale, (cx, cy) = SIDE / 2.3, (LEFT + SIDE / 2, TOP + SIDE / 2)
    J = jacobian(gamma, symmetry)
    for drawn, matrix in ((state["mu"], J), (state["beta"], damping * J + (1 - damping) * np.eye(24))):
        points = (np.array(drawn) - [cx, cy]) / [scale, -scale]
        found = np.linalg.eigvals(matrix)
        found = np.stack([found.real, found.imag], axis=1)
        far = np.linalg.norm(points[:, None] - found[None], axis=2)
        assert max(far.min(0).max(), far.min(1).max()) < 1e-7
    assert state["radius"] / scale == pytest.approx(norms[row - 1, 0])


def test_the_matrices_are_what_the_explorer_says():
    weights = np.diag([7.0 ** ((7 * i) % 24 / 23 / 2) for i in range(24)])
    assert np.linalg.cond(weights.T @ weights) == pytest.approx(7)
    for symmetry in (0, 0.3, 1):
        J = jacobian(0.9, symmetry)
        assert pytest.approx(J @ J.T) == J.T @ J
        assert np.linalg.norm(J, 2) == pytest.approx(max(abs(np.linalg.eigvals(J))))
    assert jacobian(0.9, 0) @ jacobian(0.9, 0).T == pytest.approx(0.81 * np.eye(24))
    assert pytest.approx(jacobian(0.9, 1)) == jacobian(0.9, 1).T


@pytest.mark.parametrize("symmetry", [0, 0.4, 1])
@pytest.mark.parametrize("gamma", [0.3, 0.99])
def test_what_the_static_words_say_of_damping(gamma, symmetry):
    for kappa in (1, 10, 100):
        cosines, norms = expect(gamma, symmetry, kappa, [0, 1, 4, 10, 19])
        assert np.ptp(cosines[:, 0]) < 1e-12
        assert (norms >= norms[-1] - 1e-12).all()
        assert norms == pytest.approx(expect(gamma, symmetry, kappa, [])[1])
    assert (cosines[:, 4].argmax() < 19) or gamma == 0.3


def test_the_default(show):
    state = seen(show())
    check(state, **DEFAULTS)
    assert state["words"].split("\n") == [
        "k = 5, λ = 0.50: the cosine is 0.968, for 4 products.",
        "✗ Paper's condition fails: ‖B⁵‖ = 0.758 > 1/κ = 0.1.",
        "✗ Sharp condition fails: ‖B⁵‖ = 0.758 > 2√κ/(1+κ) = 0.575.",
        "Best of the 20 λ for k = 5: λ = 0.85, with the cosine 0.981.",
    ]


def test_a_first_reader_meets_three_sliders_two_lines_and_no_dots(show):
    figure = show(more=False)
    seen_by_a_reader = [handle.get_attribute("name") for handle in figure.locator("input").all() if handle.is_visible()]
    assert seen_by_a_reader == ["k", "damping", "symmetry"]
    assert words(figure).split("\n") == [
        "k = 5, λ = 0.50: the cosine is 0.968, for 4 products.",
        "Best of the 20 λ for k = 5: λ = 0.85, with the cosine 0.981.",
    ]
    assert not any(sign["shown"] for sign in seen(figure)["signs"])
    assert not figure.get_by_text("only the sharp one does").is_visible()
    figure.get_by_text("More: the conditions").focus()
    figure.page.keyboard.press("Enter")
    figure.get_by_text("only the sharp one does").wait_for()  # it comes with the dots
    assert any(sign["shown"] for sign in seen(figure)["signs"])
    assert len(words(figure).split("\n")) == 4
    assert slider(figure, "gamma").is_visible()
    figure.page.keyboard.press("Enter")
    figure.get_by_text("only the sharp one does").wait_for(state="hidden")
    assert len(words(figure).split("\n")) == 2


def test_the_numbers_and_the_drawing_agree_with_matrices_at_150_settings_of_the_sliders(show):
    figure = show()
    rng = np.random.default_rng(0)
    settings = [
        {
            "k": int(rng.integers(1, 21)),
            "damping": int(rng.integers(1, 21)) / 20,
            "gamma": round(float(rng.uniform(0, 0.99)), 2) if i % 2 else float(rng.choice([0.99, 0.9, 0.5, 0])),
            "symmetry": int(rng.integers(0, 21)) / 20,
            "kappa": int(rng.integers(0, 101)) / 50 if i % 5 else 0,  # log₁₀ κ
        }
        for i in range(150)
    ]
    states = at_settings(figure, settings, READ)
    answers = set()
    for setting, state in zip(settings, map(json.loads, states), strict=True):
        kappa = float(f"{10 ** setting['kappa']:.3g}")
        assert state["kappa"] == f"κ = {kappa:g}"
        check(state, **{**setting, "kappa": kappa})
        answers.add("".join(re.findall("[✓✗]", state["words"])))
    assert answers == {"✓✓", "✗✓", "✗✗"}


def test_explorers_begin_where_they_are_told_to_many_in_a_page(show):
    rng = np.random.default_rng(1)
    settings = [
        {
            "k": int(rng.integers(1, 21)),
            "damping": int(rng.integers(1, 21)) / 20,
            "gamma": float(rng.uniform(0, 0.99)),
            "symmetry": float(rng.uniform(0, 1)),
            "kappa": float(rng.uniform(1, 100)),
        }
        for _ in range(4)
    ]
    settings += [{"gamma": 0}, {"gamma": 0, "damping": 1}, {"kappa": 1}, {"k": 1, "damping": 1, "symmetry": 0}]
    settings += [{"k": 20, "damping": 0.05, "gamma": 0.99, "symmetry": 0, "kappa": 100}, {"damping": 0.1 + 0.2}]
    figures = show(*settings).page.locator(".jfb-explorer")
    states = map(json.loads, figures.evaluate_all(f"(all) => all.map({READ})"))
    for state, setting in zip(states, settings, strict=True):
        check(state, **{**DEFAULTS, **setting})
    assert not re.search("NaN|undefined|Infinity", figures.page.locator("main").inner_html().split("<script>")[0])
    ids = figures.page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))


def test_each_slider_by_keyboard_changes_the_drawing_and_the_words(show):
    figure = show(k=7, damping=0.6, gamma=0.7, symmetry=0.5, kappa=5)
    for name in SLIDERS:
        handle = slider(figure, name)
        states = []
        for keys in (0, 2):
            for _ in range(keys):
                handle.press("ArrowRight")
            state = seen(figure)
            drawing = state["frame"], state["mu"], state["signs"]
            states.append((state["words"], handle.get_attribute("aria-valuetext"), drawing))
        assert all(new != old for old, new in zip(*states, strict=True)), name
    for name in SLIDERS:
        for key in ("End", "Home"):
            slider(figure, name).press(key)
            assert not re.search("NaN|undefined|∞", words(figure))
            assert not re.search("NaN|Infinity|undefined", figure.locator(".jfb-stage").inner_html())
            spoken = slider(figure, name).get_attribute("aria-valuetext")
            assert figure.get_by_role("slider", name=spoken, exact=True).count() == 1
    check(seen(figure), 1, 0.05, 0, 0, 1)
    slider(figure, "kappa").press("End")
    check(seen(figure), 1, 0.05, 0, 0, 100)


def test_the_map_by_keyboard(show):
    figure = show(k=5, damping=0.5)
    board = figure.get_by_role("slider", name="selected cell of the map")
    steps = [("ArrowRight", (6, 0.5)), ("ArrowUp", (6, 0.55)), ("ArrowLeft", (5, 0.55)), ("ArrowDown", (5, 0.5))]
    steps += [("PageUp", (5, 0.75)), ("PageUp", (5, 1)), ("PageUp", (5, 1)), ("PageDown", (5, 0.75))]
    steps += [("End", (20, 0.75)), ("ArrowRight", (20, 0.75)), ("Home", (1, 0.75)), ("ArrowLeft", (1, 0.75))]
    steps += [("a", (1, 0.75)), ("Control+ArrowRight", (1, 0.75))]
    for key, (k, damping) in steps:
        board.press(key)
        assert cell(figure) == (k, damping), key
        assert board.get_attribute("aria-valuenow") == str(k)
        assert board.get_attribute("aria-valuetext").startswith(f"k = {k}, λ = {damping:.2f}, cosine 0.")
        assert words(figure).startswith(f"k = {k}, λ = {damping:.2f}: ")
    ring = figure.locator('rect[rx="3"]')
    assert ring.get_attribute("visibility") == "visible"
    board.press("Tab")
    assert ring.get_attribute("visibility") == "hidden"
    assert cell(figure) == (1, 0.75)


def place(figure, k, damping):
    """Where a cell is on the screen."""
    frame = figure.locator("svg").first.bounding_box()
    x, y = middle(k, 20 * damping)
    return frame["x"] + x * frame["width"] / STAGE, frame["y"] + y * frame["width"] / STAGE


def test_the_map_by_mouse(show):
    figure = show()
    page = figure.page
    page.mouse.click(*place(figure, 14, 0.85))
    assert cell(figure) == (14, 0.85)
    page.keyboard.press("ArrowRight")  # the map just clicked has the keyboard
    assert cell(figure) == (15, 0.85)
    page.mouse.move(*place(figure, 3, 0.2))
    assert cell(figure) == (15, 0.85)
    page.mouse.down()
    page.mouse.move(*place(figure, 8, 0.3), steps=3)
    assert cell(figure) == (8, 0.3)
    page.mouse.move(*place(figure, 30, 0.7))  # outside of the map
    assert cell(figure) == (20, 0.7)
    page.mouse.up()
    page.mouse.move(*place(figure, 2, 0.2))
    assert cell(figure) == (20, 0.7)
    page.mouse.click(*place(figure, 2, 0.2), button="right")
    assert cell(figure) == (20, 0.7)
    check(seen(figure), 20, 0.7, 0.9, 1.0, 10.0)


def test_the_map_by_touch(show):
    figure = show(width=360, touch=True, more=False)
    page = figure.page
    page.touchscreen.tap(*place(figure, 14, 0.85))
    assert cell(figure) == (14, 0.85)
    session = page.context.new_cdp_session(page)

    def stroke(*cells):
        points = [[dict(zip("xy", place(figure, *at), strict=True))] for at in cells]
        for kind, at in [("touchStart", points[0]), *(("touchMove", at) for at in points[1:]), ("touchEnd", [])]:
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    page.evaluate("events = []; document.addEventListener('touchstart', (e) => events.push(e.defaultPrevented))")
    stroke((14, 0.85), (9, 0.6), (5, 0.4))  # from the selected cell: it comes along
    assert cell(figure) == (5, 0.4)
    stroke((6, 0.45), (6, 0.8))  # a finger is wider than a cell
    assert cell(figure) == (6, 0.8)
    stroke((18, 0.1), (18, 0.5), (18, 0.9))  # from elsewhere: the page scrolls
    assert cell(figure) == (6, 0.8)
    assert page.evaluate("events") == [True, True, False]


def test_the_buttons(show):
    settings = [
        {"symmetry": s, "gamma": g, "kappa": kappa} for s, g, kappa in [(1, 0.9, 10), (0, 0.9, 10), (0.5, 0.5, 30)]
    ]
    for setting, figure in zip(settings, show(*settings).page.locator(".jfb-explorer").all(), strict=True):
        cosines, norms = expect(**{name: setting[name] for name in ("gamma", "symmetry", "kappa")})
        sharp = 2 * np.sqrt(setting["kappa"]) / (1 + setting["kappa"])
        figure.get_by_role("button", name="best λ for this k").click()
        assert cell(figure) == (5, (cosines[:, 4].argmax() + 1) / 20)
        assert words(figure).endswith("Of the 20 λ this one is best for k = 5.")
        figure.get_by_role("button", name=FEWEST).click()
        k = int(np.flatnonzero((norms < sharp).any(0))[0])
        row = int(np.where(norms[:, k] < sharp, cosines[:, k], -1).argmax())
        assert cell(figure) == (k + 1, (row + 1) / 20)
        assert "✓ Sharp condition holds" in words(figure)
        assert (norms[:, :k] >= sharp).all()
        figure.get_by_role("button", name="JFB").click()
        assert cell(figure) == (1, 1)
        assert words(figure).startswith("k = 1, λ = 1.00: the cosine is ")
        assert "for 0 products." in words(figure)
        assert words(figure).endswith("For k = 1 every λ has this cosine: damping only scales a single term.")


def test_it_says_when_no_cell_satisfies_the_sharp_condition(show):
    figure = show(gamma=0.99, kappa=100)
    assert not (expect(0.99, 1, 100)[1] < 20 / 101).any()
    figure.get_by_role("button", name=FEWEST).click()
    assert words(figure).startswith("No cell up to k = 20 satisfies the sharp condition; the selection stays.")
    assert cell(figure) == (5, 0.5)
    slider(figure, "gamma").press("ArrowLeft")
    assert words(figure).startswith("k = 5, λ = 0.50: ")
    figure.get_by_role("button", name=FEWEST).click()
    figure.locator(".jfb-map").press("ArrowLeft")
    assert words(figure).startswith("k = 4, λ = 0.50: ")


def test_where_κ_is_1_JFB_has_both_conditions_and_ties_go_to_no_damping(show):
    figure = show(kappa=1, gamma=0)
    figure.get_by_role("button", name=FEWEST).click()
    assert cell(figure) == (1, 1)
    assert words(figure).count("✓") == 2
    assert "the cosine is 1, for 0 products" in words(figure)
    slider(figure, "k").fill("4")
    assert words(figure).endswith("For k = 4 every λ has this cosine.")


def test_close_numbers_are_told_apart(show):
    figure = show(k=1, damping=1, symmetry=0, gamma=0.5, kappa=2.0004)
    assert "✗ Paper's condition fails: ‖B¹‖ = 0.5 > 1/κ = 0.4999." in words(figure)
    figure = show(k=1, damping=1, symmetry=0, gamma=0.5, kappa=2)
    assert "✗ Paper's condition fails: ‖B¹‖ = 0.5 = 1/κ = 0.5." in words(figure)
    figure = show(k=9, damping=0.85, gamma=0.5, symmetry=0)
    assert "the cosine is 0.999997, for 8" in words(figure)
    assert "λ = 1.00, with the cosine 0.999999." in words(figure)


def contrast(one, other):
    def luminance(color):
        channels = np.array(color) / 255
        return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ [
            0.2126,
            0.7152,
            0.0722,
        ]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_ink_stands_out_from_every_colour_of_the_scale(show):
    figure = show(gamma=0.7, symmetry=0.5)
    state = seen(figure)
    pens = {"#fff": (255, 255, 255), "#111": (17, 17, 17)}
    grounds = [np.array(tile["fill"][4:-1].split(", "), dtype=int) for tile in state["tiles"]]
    assert {sign["stroke"] for sign in state["signs"]} == set(pens)
    for ground, sign in zip(grounds, state["signs"], strict=True):
        assert contrast(ground, pens[sign["stroke"]]) > 4
    fills = figure.locator(".jfb-scale rect").evaluate_all("(all) => all.map((node) => node.getAttribute('fill'))")
    fills = np.array([[int(part) for part in re.findall(r"\d+", fill)] for fill in fills])
    assert fills[0] == pytest.approx([192, 74, 0], abs=4)
    assert fills[-1] == pytest.approx([0, 114, 178], abs=4)
    # the numbers stand where their colours are
    for text, cosine in (("≤ 0", 0), ("0.5", 0.5), ("0.8", 0.8), ("0.95", 0.95), ("1", 1)):
        x = float(figure.locator("svg").nth(1).get_by_text(text, exact=True).get_attribute("x"))
        index = min(int((x - LEFT) / SIDE * len(fills)), len(fills) - 1)
        assert fills[index] == pytest.approx(tint(cosine), abs=6)


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("dark", [False, True])
def test_no_serious_accessibility_violation(show, dark, width):
    figure = show(dark=dark, width=width)
    page = figure.page
    assert not grave_violations(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    color = figure.locator(".jfb-beta").evaluate("(node) => getComputedStyle(node).fill")
    assert color == ("rgb(86, 180, 233)" if dark else "rgb(0, 114, 178)")
    for handle in figure.locator("input").all():
        assert handle.bounding_box()["width"] > 100
    first, _, second = (panel.bounding_box() for panel in figure.locator("svg").all())
    assert (first["y"] == second["y"]) == (width == 1280)
    assert min(first["width"], second["width"]) > 290
    # no two texts of a drawing meet
    boxes = figure.locator("svg").evaluate_all(
        """(all) => all.map((drawing) => [...drawing.querySelectorAll("text")].map((node) => {
          const b = node.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; }))"""
    )
    for texts in boxes:
        for i, one in enumerate(texts):
            assert one[0] >= 0
            assert one[2] <= width
            for other in texts[:i]:
                assert min(min(one[n + 2], other[n + 2]) - max(one[n], other[n]) for n in (0, 1)) < 2
    assert figure.locator(".jfb-words").get_attribute("role") == "status"


def test_it_works_where_a_notebook_inserts_it_twice(inserted_twice):
    figures = inserted_twice(explorers.phantom(k=3, damping=0.9))
    for figure in figures.all():
        assert figure.locator("svg").count() == 3
        assert figure.get_by_role("slider").count() == 4  # the map and three; two are behind "More"
    open_all(figures.page)
    figures.nth(1).locator(".jfb-map").press("ArrowRight")
    assert [cell(figure) for figure in figures.all()] == [(3, 0.9), (4, 0.9)]
    check(seen(figures.nth(0)), **{**DEFAULTS, "k": 3, "damping": 0.9})
    check(seen(figures.nth(1)), **{**DEFAULTS, "k": 4, "damping": 0.9})


def test_it_says_what_it_shows_without_a_script(words_without_script):
    explorer = explorers.phantom()
    assert explorer.label == "Phantom explorer: k terms, damping λ, and the true gradient"
    assert "JFB is the upper left corner" in repr(explorer)
    assert "The figure answers to the hand where its script runs" in words_without_script(explorer)


def test_its_markup_is_one_script_and_always_the_same():
    markup = explorers.phantom(k=2, gamma=0.5)._repr_html_()
    parameters = match(r'data-parameters="([^"]*)"', markup).group(1)
    assert json.loads(html.unescape(parameters)) == {**DEFAULTS, "k": 2, "gamma": 0.5}
    assert markup.count("<script>") == markup.count("</script>") == 1
    assert not re.search(r"""(src|href)=|https?://(?!www\.w3\.org/2000/svg)|type=.module""", markup)
    assert markup == explorers.phantom(k=2, gamma=0.5)._repr_html_()


@pytest.mark.parametrize(
    "arguments",
    [
        *({"k": 21}, {"damping": 0}, {"damping": 1.05}, {"damping": float("nan")}, {"gamma": 1}, {"gamma": -0.1}),
        *({"symmetry": -0.1}, {"symmetry": 1.1}, {"kappa": 0.9}, {"kappa": 101}, {"kappa": float("inf")}),
    ],
)
def test_it_refuses_what_its_sliders_cannot_reach(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must lie in .* sliders reach no further"):
        explorers.phantom(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be at least 1, got 0; the slider goes from 1 to 20"),
        ({"k": 2.5}, TypeError, "k must be an integer, got 2.5 of type float"),
        ({"damping": 0.33}, ValueError, r"damping must be one of 0.05, 0.10, …, 1.00, got 0.33; the nearest is 0.35"),
    ],
)
def test_it_refuses_what_is_no_cell_of_the_map(arguments, error, message):
    with pytest.raises(error, match=message):
        explorers.phantom(**arguments)
