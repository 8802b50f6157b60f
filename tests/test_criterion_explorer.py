"""The criterion explorer, alone on a page opened from disk with the network cut; its numbers are the package's."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from conftest import at_settings, grave_violations, grip, match, number, pull, slider, words
from test_criterion import Fixed
from test_directions import affine, linear_loss

from jfb_tutorial import theory
from jfb_tutorial.pages import explorers

HEAD, OTHER = ((0.6, 0.8, 0.0), (0.0, 0.0, 1.0)), ((-0.6, 0.8, 0.0), (0.0, 0.0, 1.0))
CENTRE, RADIUS = np.array([222, 190]), 332 / 2.4  # of the ball, in units of the drawing

READ = """(figure) => ({
  rows: Object.fromEntries([...figure.querySelectorAll("tbody tr")].map((row) => [...row.children].map((cell) => cell.textContent))),
  lamps: [...figure.querySelectorAll(".jfb-lamps li")].map((line) => line.textContent),
  words: figure.querySelector(".jfb-words").textContent,
  sliders: Object.fromEntries([...figure.querySelectorAll("input")].map((input) => [input.name, Number(input.value)])),
  grips: [...figure.querySelectorAll(".jfb-handle")].map((grip) => grip.getAttribute("transform")),
  paths: Object.fromEntries(["spot", "sent", "bad", "climbs", "arrived"].map((name) =>
    [name, [...figure.querySelectorAll(`.jfb-${name}`)].map((path) => path.getAttribute("d")).join(" ")])),
})"""


def frame():
    towards = np.array([-0.1, 1, 0.6]) / np.linalg.norm([-0.1, 1, 0.6])
    right = np.cross([0, 0, 1], towards)
    right /= np.linalg.norm(right)
    return np.array([right, np.cross(towards, right), towards])


def direction(across, up):
    s, t = np.deg2rad([across, up])
    return np.array([np.sin(s) * np.cos(t), np.sin(t), np.cos(s) * np.cos(t)]) @ frame()


def matrices(norm, kappa):
    J = np.array([[0, 0.5, 0], [1.3, 0, 0], [0, 0, 0.5]]) * norm / 1.3
    assert np.linalg.norm(J, 2) == pytest.approx(norm)
    return J, np.diag([kappa, 1.0, 1.0])


def numbers(text):
    return np.array([number(part) for part in text.strip("()").split(", ")])


def on_the_sphere(path):
    """The points of a path of the globe, on the half of the sphere that is seen."""
    at = [[float(x) for x in point.split(",")] for point in re.findall(r"[\d.-]+,[\d.-]+", path)]
    xy = (np.array(at) - CENTRE) / RADIUS * [1, -1]
    assert (np.hypot(*xy.T) < 1 + 2e-4).all()
    return np.c_[xy, np.sqrt(np.maximum(1 - (xy**2).sum(1), 0))] @ frame(), np.hypot(*xy.T)


def expect(B, norm, kappa):
    J, G = matrices(norm, kappa)
    A = np.linalg.inv(np.eye(3) - J) @ G
    return A, B @ A @ B.T


def check(state, B, norm, kappa, loss):
    """Everything that one explorer shows, against matrices."""
    A, K = expect(B, norm, kappa)
    cells, (low, high) = state["rows"], np.linalg.eigvalsh((K + K.T) / 2)
    every, turn = np.linalg.eigvalsh((A + A.T) / 2), np.deg2rad(loss)
    a = np.array([np.cos(turn), np.sin(turn)])
    assert np.array([numbers(cells["b₁"]), numbers(cells["b₂"])]) == pytest.approx(B, rel=1e-4, abs=1e-4)
    assert numbers(cells["K, row by row"]) == pytest.approx(K.flatten(), rel=1e-4, abs=1e-4)
    assert numbers(cells["eigenvalues of its symmetric part"]) == pytest.approx([low, high], rel=1e-4, abs=1e-4)
    assert numbers(cells["all directions: rates of descent"]) == pytest.approx(every, rel=1e-4, abs=1e-4)
    assert number(cells["⟨∇, −p⟩ = aKaᵀ"]) == pytest.approx(a @ K @ a, rel=1e-4, abs=1e-4)
    assert numbers(cells["g = aB"]) == pytest.approx(a @ B, rel=1e-4, abs=1e-4)
    lamps = [line[0] for line in state["lamps"]]
    limits = (2 * np.sqrt(kappa) / (1 + kappa) - norm, every[0], low)
    for lamp, value in zip(lamps, limits, strict=True):
        if abs(value) > 1e-4:
            assert lamp == ("✓" if value > 0 else "✗")
    if abs(low) > 1e-4:
        assert state["words"].startswith(
            "Certified for every loss" if low > 0 else "Not certified: JFB climbs for a = "
        )
        assert bool(state["paths"]["climbs"]) == bool(state["paths"]["bad"]) == (low < 0)
    told = match(r"a = \(([^)]+)\), (descends|climbs|neither)[^:]*: ⟨∇, −p⟩ = (\S+)\.$", state["words"])
    assert numbers(told[1]) == pytest.approx(a, abs=6e-4)
    assert number(told[3]) == pytest.approx(a @ K @ a, rel=6e-3, abs=1e-6)
    if abs(a @ K @ a) > 1e-6:
        assert told[2] == ("descends" if a @ K @ a > 0 else "climbs")

    # the drawing, from pixels back to the sphere
    rate = lambda g: np.einsum("ki,ij,kj->k", g, A, g)  # noqa: E731
    if state["paths"]["spot"].strip():
        rim, far = on_the_sphere(state["paths"]["spot"])
        # its border, and where the edge of the ball cuts it the inside
        assert rate(rim)[far < 0.97] == pytest.approx(0, abs=3e-3 * np.abs(every).max())
        assert rate(rim).max() < 0.05 * np.abs(every).max()
    assert bool(state["paths"]["spot"].strip()) == (every[0] < -1e-9)
    line, _ = on_the_sphere(state["paths"]["sent"])
    normal = np.cross(*B)
    assert line @ normal / np.linalg.norm(normal) == pytest.approx(0, abs=0.02)
    if state["paths"]["bad"]:
        assert rate(on_the_sphere(state["paths"]["bad"])[0]).max() < 0.02 * np.abs(every).max()


def sphere(count=400):
    """Points of equal area on the sphere."""
    z, t = np.linspace(-1, 1, 2 * count + 1)[1::2], np.linspace(0, 2 * np.pi, 2 * count + 1)[:-1]
    z, t = (x.flatten() for x in np.meshgrid(z, t))
    return np.c_[np.sqrt(1 - z**2) * np.cos(t), np.sqrt(1 - z**2) * np.sin(t), z]


@pytest.fixture
def show(show_explorers):
    def show(head=HEAD, *, dark=False, width=1280, touch=False, **parameters):
        return show_explorers(explorers.criterion(head, **parameters), dark=dark, width=width, touch=touch)

    return show


def seen(figure):
    return figure.evaluate(READ)


def test_it_begins_with_the_chapters_head(show):
    state = seen(show())
    check(state, np.array(HEAD), 1.3, 4, 30)
    assert [line[0] for line in state["lamps"]] == ["✗", "✗", "✓"]
    assert "nothing that arrives lies in it" in state["words"]
    A, _ = expect(np.array(HEAD), 1.3, 4)
    share = (np.einsum("ki,ij,kj->k", sphere(), A, sphere()) < 0).mean()
    assert number(state["rows"]["spot, share of all directions"]) == pytest.approx(share, abs=1e-3)


def test_the_page_and_the_package_agree(show):
    figure, rng = show(), np.random.default_rng(0)
    verdicts = set()
    for setting in [drawn(rng) for _ in range(12)]:
        state = at_settings(figure, [setting], READ)[0]
        B = torch.from_numpy(np.array([direction(setting[f"b{i}-across"], setting[f"b{i}-up"]) for i in (1, 2)]))
        J, G = matrices(setting["norm"], setting["kappa"])
        network = affine(J.tolist(), np.sqrt(G).tolist())
        network.S = Fixed(B)
        d = torch.zeros(1, 3, dtype=torch.float64)
        result = theory.criterion(network, d)
        assert numbers(state["rows"]["K, row by row"]) == pytest.approx(result.K.flatten().numpy(), rel=1e-4, abs=1e-4)
        assert number(state["rows"]["smallest over largest"]) == pytest.approx(result.smallest, rel=1e-4, abs=1e-4)
        assert state["words"].startswith("Certified for every loss") is result.holds
        assert (state["lamps"][2][0] == "✓") is result.holds
        turn = np.deg2rad(setting["loss"])
        checked = theory.descent_check(network, d, torch.tensor([[np.cos(turn), np.sin(turn)]]), linear_loss)
        told = number(state["rows"]["⟨∇, −p⟩ = aKaᵀ"])
        assert told == pytest.approx(-checked.inner_product, rel=1e-4, abs=1e-4)
        assert (state["lamps"][0][0] == "✓") is checked.sharp_holds
        verdicts.add(result.holds)
    assert verdicts == {True, False}


def drawn(rng):
    setting = {f"b{i}-{way}": int(rng.integers(-90, 91)) for i in (1, 2) for way in ("across", "up")}
    return setting | {
        "norm": round(float(rng.uniform(0, 1.5)), 2),
        "kappa": round(float(rng.uniform(1, 20)), 1),
        "loss": int(rng.integers(0, 361)),
    }


def test_the_numbers_and_the_drawing_agree_with_matrices_at_100_settings(show):
    rng = np.random.default_rng(1)
    settings = [drawn(rng) for _ in range(100)]
    found = set()
    for setting, state in zip(settings, at_settings(show(), settings, READ), strict=True):
        assert state["sliders"] == setting
        B = np.array([direction(setting[f"b{i}-across"], setting[f"b{i}-up"]) for i in (1, 2)])
        check(state, B, *(setting[name] for name in ("norm", "kappa", "loss")))
        found.add("".join(line[0] for line in state["lamps"]))
    assert found == {"✓✓✓", "✗✓✓", "✗✗✓", "✗✗✗"}


def test_the_dial_shows_which_losses_climb(show):
    state = seen(show(OTHER, loss=200))
    _, K = expect(np.array(OTHER), 1.3, 4)
    turns = np.linspace(0, np.pi, 20_001)
    a = np.c_[np.cos(turns), np.sin(turns)]
    climbing = np.einsum("ki,ij,kj->k", a, K, a) < 0
    assert number(state["rows"]["climbing losses, share of all"]) == pytest.approx(climbing.mean(), abs=1e-3)
    at = [[float(x) for x in point.split(",")] for point in re.findall(r"[\d.-]+,[\d.-]+", state["paths"]["climbs"])]
    edge = (np.array(at) - CENTRE) / RADIUS * [1, -1]
    values = np.einsum("ki,ij,kj->k", edge, K, edge)
    assert values.max() < 2e-3
    assert values.min() == pytest.approx(np.linalg.eigvalsh((K + K.T) / 2)[0], rel=1e-3)
    told = numbers(match(r"climbs for a = \(([^)]+)\)", state["words"])[1])
    assert told @ K @ told == pytest.approx(values.min(), rel=1e-2)


def test_each_slider_by_keyboard(show):
    figure = show(OTHER, norm=1.2, loss=200)
    for name in ("b1-across", "b1-up", "b2-across", "b2-up", "norm", "kappa", "loss"):
        before, handle = seen(figure), slider(figure, name)
        said = handle.get_attribute("aria-valuetext")
        for _ in range(5):
            handle.press("ArrowRight")
        after = seen(figure)
        assert after["rows"] != before["rows"], name
        assert after["grips"] != before["grips"] or after["paths"]["spot"] != before["paths"]["spot"], name
        assert handle.get_attribute("aria-valuetext") != said
        for key in ("Home", "End"):
            handle.press(key)
            assert not re.search(
                "NaN|undefined|Infinity|∞", figure.inner_text() + figure.locator("svg").first.inner_html()
            )
            assert figure.get_by_role("slider", name=handle.get_attribute("aria-valuetext"), exact=True).count() == 1
        handle.fill(str(before["sliders"][name]))


@pytest.mark.parametrize("touch", [False, True])
def test_each_grip_by_pointer(show, touch):
    figure = show(width=375 if touch else 1280, touch=touch, loss=10)
    for which in (0, 1):
        box = figure.locator(".jfb-globe svg").bounding_box()
        scale = box["width"] / 348  # units of the drawing, which begins at (48, −4)
        target = direction(30 - 50 * which, -20 + 30 * which)
        x, y = (frame() @ target)[:2]
        to = box["x"] + (CENTRE[0] + RADIUS * x - 48) * scale, box["y"] + (CENTRE[1] - RADIUS * y + 4) * scale
        start = grip(figure, which)
        moved = figure.locator(".jfb-globe svg").bounding_box()["y"] - box["y"]  # `grip` may scroll
        pull(figure.page, start, (to[0], to[1] + moved), touch=touch)
        state = seen(figure)
        assert abs(state["sliders"][f"b{which + 1}-across"] - (30 - 50 * which)) <= 1
        assert abs(state["sliders"][f"b{which + 1}-up"] - (-20 + 30 * which)) <= 1
    x, y = grip(figure, 2)
    box = figure.locator(".jfb-dial svg").bounding_box()
    middle = box["x"] + (222 - 50) * box["width"] / 344, box["y"] + (190 + 12) * box["width"] / 344
    pull(figure.page, (x, y), (middle[0], middle[1] + 60), touch=touch)  # straight down
    assert abs(seen(figure)["sliders"]["loss"] - 270) <= 1
    # beyond the ball, the nearest place of its edge
    x, y = grip(figure, 0)
    pull(figure.page, (x, y), (x, y + 400), touch=touch)
    assert abs(numbers(seen(figure)["rows"]["b₁"]) @ frame()[2]) < 0.1


def test_the_buttons(show):
    figure = show(norm=1.4)

    def press(name):
        figure.get_by_role("button", name=name, exact=True).click()
        return seen(figure)

    state = press("Another head")
    check(state, np.array(OTHER), 1.4, 4, 30)
    state = press("Worst loss")
    low = numbers(state["rows"]["eigenvalues of its symmetric part"])[0]
    assert number(state["rows"]["⟨∇, −p⟩ = aKaᵀ"]) == pytest.approx(low, rel=1e-4)
    assert ", climbs: " in state["words"]
    heads = set()
    for _ in range(4):
        state = press("Random head")
        B = np.array([numbers(state["rows"][name]) for name in ("b₁", "b₂")])
        assert pytest.approx(np.eye(2), abs=1e-4) == B @ B.T
        check(state, B, 1.4, 4, np.rad2deg(np.arctan2(*numbers(state["rows"]["a"])[::-1])))
        heads.add(state["rows"]["b₁"])
    assert len(heads) == 4
    check(press("This head"), np.array(HEAD), 1.4, 4, np.rad2deg(np.arctan2(*numbers(state["rows"]["a"])[::-1])))


def test_every_regime_has_its_words(show_explorers):
    below = np.sqrt(0.5)
    alike: dict[str, Any] = {"head": ((1, 0, 0.5), (2, 0, 1))}
    regimes: list[tuple[dict[str, Any], str]] = [
        ({"norm": 0.7}, "with this head and with any other: there is no spot"),
        ({}, "nothing that arrives lies in it: the blue line passes it by"),
        ({"head": OTHER}, "Not certified: JFB climbs for a = "),
        (alike, "a single direction arrives. Certified for every loss with a gradient. This loss"),
        (alike | {"head": ((-0.5, 0.86, 0), (-1, 1.72, 0))}, "It lies in the spot, or on its edge: not certified."),
        (alike | {"loss": 135}, f"a = (−{below:.3f}, {below:.3f}), sends nothing: it has no gradient."),
    ]
    page = show_explorers(*(explorers.criterion(**setting) for setting, _ in regimes)).page
    for figure, (setting, said) in zip(page.locator(".jfb-explorer").all(), regimes, strict=True):
        assert said in words(figure), setting
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("dark", [False, True])
def test_for_everybody(show, dark):
    figure = show(OTHER, width=375, dark=dark)
    assert not grave_violations(figure.page)
    assert figure.page.evaluate("document.documentElement.scrollWidth") <= 375
    for node in figure.locator("svg text").all():  # no letter is cut off by the edge of its drawing
        if node.text_content():
            box, edge = (each.bounding_box() for each in (node, node.locator("xpath=ancestor::*[name()='svg']")))
            assert box["x"] > edge["x"] - 1
            assert box["x"] + box["width"] < edge["x"] + edge["width"] + 1
            assert box["y"] > edge["y"] - 2


def test_in_a_notebook(inserted_twice):
    figures = inserted_twice(explorers.criterion(norm=1.25))
    for i in range(2):
        assert slider(figures.nth(i), "norm").input_value() == "1.25"
        figures.nth(i).get_by_text("Certified for every loss").wait_for()


def test_without_a_script(words_without_script):
    assert "In a spot of it JFB climbs" in words_without_script(explorers.criterion())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": 1.6}, r"norm must lie in \[0, 1.5\]"),
        ({"kappa": 0.5}, r"kappa must lie in \[1, 20\]"),
        ({"loss": -1}, r"loss must lie in \[0, 360\]"),
        ({"head": ((1, 0, 1),)}, "head must be two rows of three numbers"),
        ({"head": ((1, 0, 1), (0, 0, 0))}, "none of them all zero"),
        ({"head": ((1, 0), (0, 1))}, "head must be two rows of three numbers"),
        ({"head": ((0, -1, 0), (0, 0, 1))}, "multiply it by −1, which changes no verdict"),
    ],
)
def test_what_it_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        explorers.criterion(**arguments)
