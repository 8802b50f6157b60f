"""Figures that compute while one watches, on a map or a network of the reader's own."""

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from jfb_tutorial import FixedPointIteration, ImplicitNetwork
from jfb_tutorial.pages import live
from jfb_tutorial.pages.curves import curves
from jfb_tutorial.pages.live.sliders import Live
from jfb_tutorial.training.records import Record

ALT = "What the picture shows at first."


class Layer(nn.Module):
    def __init__(self, n: int, gamma: float) -> None:
        super().__init__()
        W = torch.randn(n, n, dtype=torch.float64)
        self.W = nn.Parameter(gamma * W / torch.linalg.matrix_norm(W, 2))

    def forward(self, u, q):
        return torch.tanh(u @ self.W.T + q)


@pytest.fixture
def network():
    torch.manual_seed(0)
    Q, S = nn.Linear(4, 6, dtype=torch.float64), nn.Linear(6, 3, dtype=torch.float64)
    return ImplicitNetwork(Q, Layer(6, 0.9), S, solver=FixedPointIteration(tol=1e-10, max_steps=500))


@pytest.fixture
def samples():
    torch.manual_seed(1)
    return torch.randn(5, 4, dtype=torch.float64), torch.randint(3, (5,))


def affine(u):
    return 0.5 * u + 1


START = torch.zeros(2, 3, dtype=torch.float64)


def is_png(figure: Live) -> bool:
    return bytes(figure.picture.value).startswith(b"\x89PNG")


def test_the_solvers_count_evaluations_and_the_step_changes_the_slope():
    figure = live.Solvers(affine, START, alt=ALT)
    assert is_png(figure)
    # 2⁻ᵏ√3 is at most 1e-8 from k = 28 on, and the residual is read of T(u) − u from u⁰ on
    assert "plain iteration: 29 evaluations" in figure.words.value
    assert "‖∂T/∂u‖₂ = 0.500" in figure.words.value
    figure.controls["damping"].value = 0.5
    assert "‖∂T/∂u‖₂ = 0.750" in figure.words.value


def test_an_expanding_map_is_told_as_not_solved():
    figure = live.Solvers(lambda u: 3 * u + 1, START, alt=ALT, max_steps=20)
    assert "plain iteration: not within 20 evaluations" in figure.words.value
    figure = live.Solvers(lambda u: u**3 + 10, START, alt=ALT, max_steps=100)
    assert "plain iteration: left the finite numbers" in figure.words.value


@pytest.mark.parametrize(
    ("T", "fault"),
    [
        (lambda u: u[:1], "must keep the shape of u"),
        (lambda u: None, "must return a tensor"),
        (lambda u: u @ torch.zeros(2, 2, dtype=torch.float64), "mat1 and mat2 shapes"),
    ],
)
def test_a_wrong_map_is_refused_in_one_sentence_and_a_right_one_taken_after_it(T, fault):
    figure = live.Solvers(T, START, alt=ALT)
    assert figure.words.value.startswith("This map cannot be used: ")
    assert fault in figure.words.value
    assert not figure.picture.value  # no picture of other values
    assert not plt.get_fignums()  # and none left open
    figure.T = affine
    figure.update()
    assert is_png(figure)


def test_a_fault_of_ours_is_no_fault_of_the_map(network, samples):
    def loss(y, target):
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        live.Rules(network, samples[0], samples[1], loss, alt=ALT)


def test_all_rules_on_a_network(network, samples):
    figure = live.Rules(network, samples[0], samples[1], nn.functional.cross_entropy, alt=ALT)
    assert is_png(figure)
    assert "unrolled, 10 steps 1.0000" in figure.words.value
    figure.controls["terms"].value = 1
    words = figure.words.value
    # JFB is the series of one term
    assert words.partition("JFB ")[2][:6] == words.partition("Neumann, 1 terms ")[2][:6]
    assert network.gradient == ImplicitNetwork(nn.Identity(), nn.Identity(), nn.Identity()).gradient


def test_without_a_gradient_there_is_no_angle(network, samples):
    figure = live.Rules(network, samples[0], samples[1], lambda y, target: (0 * y).sum(), alt=ALT)
    assert "the exact gradient by the parameters of Q and R is 0" in figure.words.value


def test_the_descent_check_of_a_sample_and_of_stretched_weights(network, samples):
    before = network.R.W.detach().clone()
    figure = live.Descent(network, samples[0], samples[1], nn.functional.cross_entropy, alt=ALT)
    assert "JFB descends" in figure.words.value
    gamma = figure.found[-1].gamma
    figure.controls["factor"].value = 0.1
    assert figure.found[-1].gamma < 0.2 * gamma
    figure.controls["sample"].value = 4
    assert len(figure.found) == 3
    assert is_png(figure)
    assert torch.equal(network.R.W, before)


def test_without_a_kernel_there_is_a_picture_and_a_sentence():
    figure = live.Solvers(affine, START, alt=ALT)
    data, metadata = figure._repr_mimebundle_()
    assert data["text/plain"] == f"{ALT} In Jupyter, run this cell to move its sliders."
    assert metadata["image/png"]["alt"] == data["text/plain"]
    assert data["image/png"].startswith("iVBOR")
    assert "application/vnd.jupyter.widget-view+json" in data


def test_earlier_runs_stay_beside_the_latest():
    rows = [{"loss": 1.0, "accuracy": 0.5}, {"loss": 0.5, "accuracy": 0.7}]
    alone = curves([Record(epochs=rows)])
    both = curves([Record(epochs=rows[:1])], beside=[Record(epochs=rows)])
    assert [len(ax.lines) for ax in both.axes[:2]] == [len(ax.lines) + 1 for ax in alone.axes[:2]]
