"""The network of chapter 13, its strings, and the one that the page carries."""

import json

import torch
from conftest import BOOK, ROOT
from torch import nn

from jfb_tutorial.pages import parity


def test_strings_and_their_parities():
    d, y = parity.strings(20, 9, torch.Generator().manual_seed(0))
    assert d.shape == y.shape == (20, 1, 9)
    for bits, odd in zip(d.flatten(1).tolist(), y.flatten(1).tolist(), strict=True):
        assert odd == [sum(bits[: i + 1]) % 2 for i in range(9)]
    assert parity.right(2 * y - 1, y).all()
    assert parity.right(1 - 2 * y, y).sum() == 0


def test_a_step_hears_of_two_positions_on_either_side():
    T = parity.network(0).operator(torch.zeros(1, 1, 11))
    u = torch.zeros(1, 32, 11, requires_grad=True)
    T(u)[0, :, 5].sum().backward()
    assert u.grad is not None
    assert (u.grad.abs().sum(dim=(0, 1)) > 0).tolist() == [3 <= i <= 7 for i in range(11)]


def test_the_recorded_network_goes_on_beyond_its_training():
    network = parity.recorded(ROOT / "book" / "records" / "parity.safetensors")
    assert sum(weight.numel() for weight in network.parameters()) == 18_625
    d, y = parity.strings(10, 96, torch.Generator().manual_seed(5))
    with torch.no_grad(), network.using(solver=parity.solver(96)):
        assert parity.right(network(d), y).all()
        assert network.last is not None
        assert network.last.all_converged


def test_training_may_be_watched_and_ended():
    seen = []

    def watch(update, loss):
        seen.append(update)
        return update == 2

    network = parity.network(1)
    before = nn.utils.parameters_to_vector(network.parameters()).clone()
    assert len(parity.train(network, 1, watch=watch)) == 2
    assert seen == [0, 1, 2]
    assert not torch.equal(before, nn.utils.parameters_to_vector(network.parameters()))


def test_the_chapter_trains_this_network():
    """What the chapter shows is what its record was measured with."""
    cells = json.loads((BOOK / "13-what-an-equilibrium-is-for.ipynb").read_text())["cells"]
    source = next("".join(cell["source"]) for cell in cells if "class Step" in "".join(cell["source"]))
    names: dict = {}
    start = "import torch\nfrom torch import nn\nfrom jfb_tutorial import FixedPointIteration, ImplicitNetwork, JFB\n"
    exec(start + source, names)
    shown, ours = names["network"], parity.network(0)
    assert shown.solver == ours.solver
    assert shown.gradient == ours.gradient
    for left, right in zip(shown.parameters(), ours.parameters(), strict=True):
        assert torch.equal(left, right)
