"""The playground, alone on a page opened from disk with the network cut, beside the package."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import grave_violations, match, number, slider, words
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from jfb_tutorial import ImplicitNetwork, gradients, solvers
from jfb_tutorial.pages import explorers

N, POINTS = 10, 200


class Cell(nn.Module):
    """R(u, q) = tanh(W u + q)."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(N, N, bias=False)

    def forward(self, u, q):
        return torch.tanh(self.linear(u) + q)


def shapes() -> dict[str, tuple[int, ...]]:
    """The parameters in the page's order."""
    return {"R.linear.weight": (N, N), "Q.weight": (N, 2), "Q.bias": (N,), "S.weight": (1, N), "S.bias": (1,)}


def network_of(state) -> ImplicitNetwork:
    """The package's network with the weights, the solver and the rule of the page."""
    settings = state["settings"]
    solver = {"plain": solvers.FixedPointIteration, "anderson": solvers.Anderson}[settings["solver"]]
    terms, damping = settings["terms"], settings["damping"]
    rule: Any = {
        "exact": gradients.ImplicitDifferentiation(tol=1e-13, per_sample=True),
        "jfb": gradients.JFB(),
        "neumann": gradients.NeumannSeries(terms),
        "npg": gradients.NeumannSeries(terms, damping),
        "upg": gradients.UnrolledPhantom(terms, damping),
        "unrolled": gradients.Unrolled(terms),
    }[settings["rule"]]
    network = ImplicitNetwork(
        nn.Linear(2, N),
        Cell(),
        nn.Linear(N, 1),
        solver=solver(tol=settings["tol"], max_steps=settings["most"]),
        gradient=rule,
        on_unconverged="ignore",
    ).double()
    parameters = dict(network.named_parameters())
    parts = np.split(np.array(state["theta"]), np.cumsum([np.prod(shape) for shape in shapes().values()])[:-1])
    with torch.no_grad():
        for (name, shape), part in zip(shapes().items(), parts, strict=True):
            parameters[name].copy_(torch.from_numpy(part).reshape(shape))
    return network


def double(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def data_of(state):
    return double(state["points"]).reshape(POINTS, 2), double(state["labels"])


def flat(network, gradient=False):
    parameters = dict(network.named_parameters())
    return torch.cat(
        [(parameters[name].grad if gradient else parameters[name]).flatten() for name in shapes()]
    ).detach()


def differentiate(network, state):
    d, labels = data_of(state)
    network.zero_grad()
    logits = network(d)[:, 0]
    loss = binary_cross_entropy_with_logits(logits, labels)
    loss.backward()
    return loss.item(), flat(network, gradient=True), ((logits > 0) == (labels > 0)).double().mean().item()


def close(found, expected, tol=1e-9):
    found, expected = (x if isinstance(x, torch.Tensor) else double(x) for x in (found, expected))
    assert (found - expected).norm() <= tol * (expected.norm() + 1e-12)


def state_of(figure):
    return figure.evaluate("(figure) => figure.jfbState()")


def press(figure, name, times=1):
    button = figure.get_by_role("button", name=name, exact=True)
    for _ in range(times):
        button.click()


def drawn(figure, view=21):
    """Waits until the picture is drawn in full, read after `view` steps."""
    figure.page.wait_for_function(
        "(view) => document.querySelector('.jfb-explorer').dataset.drawn === `${view} 80`", arg=view
    )


def train(figure, bursts):
    """Some bursts of 50 steps, in a page where motion is unwelcome."""
    for _ in range(bursts):
        press(figure, "Run")
        figure.get_by_role("button", name="Run", exact=True).wait_for()


@pytest.fixture
def show(show_explorers):
    def show(*, dark=False, width=1280, motion="no-preference", touch=False, **parameters):
        figure = explorers.playground(**parameters)
        return show_explorers(figure, dark=dark, width=width, motion=motion, touch=touch)

    return show


CASES = [
    {"rule": "exact"},
    {"rule": "jfb"},
    {"rule": "neumann", "terms": 4, "data": "circles"},
    {"rule": "npg", "terms": 6, "damping": 0.35, "data": "spirals"},
    {"rule": "upg", "terms": 7, "damping": 0.6, "seed": 3},
    {"rule": "unrolled", "terms": 12, "data": "circles", "seed": 1},
    {"rule": "npg", "damping": 0.5, "gamma": 2.0, "hold": False, "tol": 1e-6, "most": 15},  # cut off before it settles
    {"rule": "jfb", "tol": 1.0},
    {"rule": "jfb", "solver": "anderson", "tol": 1e-5},
]


@pytest.mark.parametrize("parameters", CASES, ids=lambda case: "-".join(str(value) for value in case.values()))
def test_the_page_computes_what_the_package_does(show, parameters):
    figure = show(**parameters)
    press(figure, "Step", 3)
    state = state_of(figure)
    network = network_of(state)
    d, _ = data_of(state)
    loose = 1e-9 if parameters.get("solver") != "anderson" else 1e-6  # it solves small, nearly singular systems

    loss, gradient, right = differentiate(network, state)
    close(state["loss"], loss, loose)
    close(state["gradient"], gradient, loose)
    assert state["right"] == pytest.approx(right)
    if parameters["rule"] != "unrolled":
        assert network.last is not None
        assert state["steps"] == network.last.steps.max()
        assert state["missed"] == (~network.last.converged).sum()
        close(network.last.u, double(state["u"]).reshape(POINTS, N), loose)
        assert (network.last.residual - double(state["residual"])).abs().max() < loose

    network.gradient = gradients.ImplicitDifferentiation(tol=1e-13, per_sample=True)
    _, exact, _ = differentiate(network, state)
    close(state["exact"], exact, max(loose, 1e-8))
    close(state["cosine"], torch.cosine_similarity(gradient, exact, dim=0), 1e-6)

    u, W = double(state["u"]).reshape(POINTS, N), network.R.linear.weight.detach()
    with torch.no_grad():
        J = (1 - network.operator(d)(u) ** 2)[:, :, None] * W
    close(state["norm"], torch.linalg.matrix_norm(J, 2).max())
    close(state["rho"], torch.linalg.eigvals(J).abs().max(), 1e-7)
    close(state["W"], torch.linalg.matrix_norm(W, 2))


@pytest.mark.parametrize("hold", [False, True])
def test_its_steps_are_those_of_torch(show, hold):
    figure = show(rule="neumann", lr=0.05, gamma=0.6, hold=hold)
    network = network_of(state_of(figure))
    close(torch.linalg.matrix_norm(network.R.linear.weight.detach(), 2), 0.6)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(6):
        state = state_of(figure)
        close(state["theta"], flat(network), 1e-8)
        differentiate(network, state)
        optimiser.step()
        weight = network.R.linear.weight
        with torch.no_grad():
            norm = torch.linalg.matrix_norm(weight, 2)
            weight.mul_(0.6 / norm if hold and norm > 0.6 else 1.0)
        press(figure, "Step")


def test_the_picture_is_what_the_network_says(show):
    figure = show(gamma=1.5, hold=False)
    for view in (1, 3):
        slider(figure, "view").fill(str(view))
        drawn(figure, view)
        pixels = figure.evaluate("""(figure) => {
            const canvas = figure.querySelector("canvas");
            return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]; }""")
        red, _, blue, _ = np.array(pixels).reshape(80, 80, 4).transpose(2, 0, 1)
        at = 1.4 * ((2 * torch.arange(80).double() + 1) / 80 - 1)
        y, x = torch.meshgrid(-at, at, indexing="ij")
        network = network_of(state_of(figure))
        with torch.no_grad():
            T = network.operator(torch.stack([x, y], dim=-1).reshape(-1, 2))
            u = T.zeros()
            for _ in range(view):
                u = T(u)
            logits = network.S(u).reshape(80, 80).numpy()
        sure = abs(logits) > 1e-9
        assert ((red > blue) == (logits > 0))[sure].all()
        assert 0 < (logits > 0).mean() < 1


def test_two_moons_are_learnt(show):
    figure = show(motion="reduce")
    train(figure, 3)
    state = state_of(figure)
    assert state["right"] >= 0.97
    assert match(r"After 150 training steps by JFB", words(figure))
    assert state["norm"] < 1
    assert "below 1 as the theorems ask" in words(figure)


@pytest.mark.parametrize("data", ["circles", "spirals"])
def test_the_others_are_learnt_too(show, data):
    figure = show(motion="reduce", data=data)
    train(figure, 6)
    assert state_of(figure)["right"] >= 0.97


def test_broken_and_repaired(show):
    figure = show(motion="reduce")
    press(figure, "γ = 3, let go")
    state = state_of(figure)
    assert state["W"] == pytest.approx(3)
    assert state["missed"] > POINTS / 2
    assert match(r"✗ Not settled: after 50 steps \d+ of the 200 points still move", words(figure))
    assert "what is striped has no answer" in words(figure)
    marked = figure.locator("b.jfb-bad").all_inner_texts()
    assert "✗ 50" in marked
    train(figure, 1)
    assert state_of(figure)["W"] > 1
    press(figure, "Repair")
    train(figure, 6)
    state = state_of(figure)
    assert state["W"] <= 0.9 + 1e-12
    assert not state["missed"]
    assert state["right"] >= 0.97
    assert "✗" not in words(figure)
    assert not figure.locator("b.jfb-bad").count()


def test_a_loose_tolerance_reads_before_it_settles(show):
    figure = show(motion="reduce")
    press(figure, "tolerance 1, let go")
    train(figure, 3)
    state = state_of(figure)
    assert state["settings"]["tol"] == 1
    assert not state["settings"]["hold"]
    assert not state["missed"]
    assert max(state["residual"]) > 0.1
    told = match(
        r"✗ Where it stops is not where it settles: (\S+)\s% of the points are right there, (\S+)\s%", words(figure)
    )
    assert float(told.group(1)) == pytest.approx(100 * state["right"])
    assert float(told.group(2)) < float(told.group(1))
    press(figure, "Repair")
    assert "✗" not in words(figure)


def test_by_the_keyboard(show):
    figure = show()
    view = slider(figure, "view")
    view.press("Home")
    assert "Read before the first step, every place of the plane gets the same answer" in words(figure)
    view.press("ArrowRight")
    assert "Read after 1 step of the iteration, as drawn" in words(figure)
    assert view.get_attribute("aria-valuetext") == "read: 1 step"
    before = state_of(figure)["theta"]
    figure.get_by_role("button", name="Step", exact=True).press("Enter")
    assert state_of(figure)["theta"] != before
    assert "After 1 training step by JFB" in words(figure)
    figure.get_by_label("hold ‖W‖").press("Space")
    assert state_of(figure)["settings"]["hold"] is False
    figure.get_by_label("gradient").select_option("upg")
    assert slider(figure, "terms").is_visible()
    assert slider(figure, "damping").is_visible()
    slider(figure, "terms").press("ArrowRight")
    assert state_of(figure)["settings"]["terms"] == 6
    slider(figure, "gamma").press("ArrowLeft")
    assert state_of(figure)["W"] == pytest.approx(0.8)
    for name, key, value in (("tol", "ArrowRight", 0.0032), ("most", "End", 100), ("lr", "Home", 0.001)):
        slider(figure, name).press(key)
        assert state_of(figure)["settings"][name] == pytest.approx(value)
    figure.get_by_role("button", name="Reset").press("Enter")
    assert "Not trained yet" in words(figure)
    assert state_of(figure)["W"] == pytest.approx(0.8)


def test_a_run_is_spoken_at_its_end(show):
    figure = show()
    drawn(figure)
    status = figure.locator(".jfb-words")
    press(figure, "Run")
    assert status.get_attribute("aria-live") == "off"
    figure.page.wait_for_function("document.querySelector('.jfb-words').textContent.includes('After')")
    press(figure, "Pause")
    assert status.get_attribute("aria-live") is None
    steps = int(match(r"After (\d+) training steps?", words(figure)).group(1))
    assert (
        figure.locator(".jfb-gauges b").first.inner_text()
        == str(steps)
        == figure.locator("tbody td").nth(1).text_content()
    )
    drawn(figure)


def test_the_answer_forms(show):
    figure = show()
    drawn(figure)
    press(figure, "Watch the answer form")
    figure.page.wait_for_function("Number(document.querySelector('input[name=view]').value) > 2")
    figure.page.wait_for_function("document.querySelector('input[name=view]').value === '21'")
    drawn(figure)
    assert "Settled" in words(figure)


def test_the_answer_forms_step_by_step_where_motion_is_unwelcome(show):
    figure = show(motion="reduce")
    for view in (0, 1, 2):
        press(figure, "Watch the answer form")
        assert slider(figure, "view").input_value() == str(view)


def test_by_touch(show):
    figure = show(touch=True, width=390)
    figure.get_by_role("button", name="circles").tap()
    assert state_of(figure)["settings"]["data"] == "circles"
    assert figure.get_by_role("button", name="circles").get_attribute("aria-pressed") == "true"
    figure.get_by_role("button", name="Step", exact=True).tap()
    assert "After 1 training step" in words(figure)
    # the picture comes first, across the figure
    plane, stage = (figure.locator(name).bounding_box() for name in (".jfb-plane", ".jfb-stage"))
    assert plane["y"] == pytest.approx(stage["y"], abs=1)
    assert plane["width"] > 0.95 * stage["width"]


@pytest.mark.parametrize("dark", [False, True])
def test_for_everybody(show, dark):
    figure = show(width=375, dark=dark)
    press(figure, "γ = 3, let go")
    drawn(figure)
    figure.locator("summary").click()
    assert not grave_violations(figure.page)
    assert figure.page.evaluate("document.documentElement.scrollWidth") <= 375


def test_the_table_says_the_numbers(show):
    figure = show()
    press(figure, "Step", 2)
    rows = dict(
        figure.evaluate(
            "(f) => [...f.querySelectorAll('tbody tr')].map((r) => [...r.children].map((c) => c.textContent))"
        )
    )
    state = state_of(figure)
    assert number(rows["loss"]) == pytest.approx(state["loss"], rel=1e-5)
    assert number(rows["largest ‖J‖ of the points"]) == pytest.approx(state["norm"], rel=1e-5)
    assert rows["steps of the solver"] == str(state["steps"])
    assert rows["points right, read after 0 steps"] == "50\u00a0%"


def test_the_same_in_a_notebook(inserted_twice):
    figures = inserted_twice(explorers.playground())
    press(figures.nth(1), "Step")
    assert "Not trained yet" in words(figures.nth(0))
    assert "After 1 training step" in words(figures.nth(1))


def test_without_a_script(words_without_script):
    assert "learns to tell two classes of points" in words_without_script(explorers.playground())


def test_it_stays_small():
    folder = explorers.files(explorers.__package__)
    own = sum(len(folder.joinpath(f"{name}.js").read_bytes()) for name in ("classifier", "playground"))
    assert own < 45_000
    assert "classifier" not in explorers.cobweb()._repr_html_()


@pytest.mark.parametrize(
    "arguments",
    [
        {"data": "xor"},
        {"rule": "JFB"},
        {"solver": "broyden"},
        {"terms": 0},
        {"terms": 31},
        {"damping": 0.0},
        {"gamma": 3.5},
        {"gamma": float("nan")},
        {"tol": 2.0},
        {"most": 101},
        {"lr": 1.0},
        {"seed": -1},
        {"hold": "no"},
    ],
)
def test_an_argument_that_it_has_not(arguments):
    with pytest.raises((TypeError, ValueError), match=next(iter(arguments))):
        explorers.playground(**arguments)
