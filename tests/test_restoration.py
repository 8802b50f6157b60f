"""The deblurring layer of chapter 14: its blur, its pictures, its step and its measure."""

import json

import pytest
import torch
from conftest import BOOK
from torch import nn

from jfb_tutorial.pages import restoration


def test_the_blur_is_symmetric_and_spreads_a_pixel_over_its_neighbours():
    A = restoration.blur()
    torch.testing.assert_close(A, A.T)
    assert torch.linalg.matrix_norm(A, 2) < 1
    pixel = A[27].reshape(8, 8)  # in the middle, so that nothing leaves
    assert pixel.sum() == pytest.approx(1)
    assert (pixel > 0).sum() == 25
    assert pixel[3, 3] == pixel.max()


def test_validation_pictures_are_not_trained_on():
    parts = {name: restoration.pictures(name) for name in ("training", "validation", "test")}
    assert [len(part) for part in parts.values()] == [1137, 300, 360]
    assert all(part.min() >= 0 and part.max() <= 1 for part in parts.values())
    shown, sharp = restoration.held_out("test")
    again, _ = restoration.held_out("test")
    assert torch.equal(shown, again)
    noise = (shown - sharp @ restoration.blur()).std()
    assert noise == pytest.approx(restoration.NOISE, rel=0.05)


def test_without_a_correction_the_step_goes_downhill_on_the_mismatch():
    network = restoration.network(0)
    nn.init.zeros_(network.R.two.weight)
    y, x = restoration.held_out("test")
    A = restoration.blur()
    u = x[:3].clone().requires_grad_()
    mismatch = (u @ A - y[:3]).square().sum() / 2
    (gradient,) = torch.autograd.grad(mismatch, u)
    torch.testing.assert_close(network.operator(y[:3])(x[:3]), x[:3] - restoration.ETA * gradient)


def test_psnr_and_the_best_linear_map():
    x = torch.zeros(2, 64)
    assert restoration.psnr(x + 0.1, x) == pytest.approx(20, abs=1e-4)
    y, sharp = restoration.held_out("test")
    best = restoration.psnr(restoration.best_linear(y), sharp)
    assert best > restoration.psnr(y, sharp) + 4


def test_training_sharpens():
    network = restoration.network(0)
    y, x = restoration.held_out("validation")
    before = restoration.quality(network, y, x)
    seen: list[int] = []
    restoration.train(network, 0, updates=15, watch=lambda update, seconds: seen.append(update))
    after = restoration.quality(network, y, x)
    assert seen == list(range(16))
    assert before["rested"] == after["rested"] == 1
    assert after["psnr"] > before["psnr"] + 2
    found = restoration.size(network)
    assert found["at rest of 32"] == 32
    assert all(radius <= norm + 1e-6 for radius, norm in zip(found["radii"], found["norms"], strict=True))
    assert 0 < found["cosine"] < 1


def test_the_chapter_shows_this_step():
    cells = json.loads((BOOK / "14-layers-that-solve-problems.ipynb").read_text())["cells"]
    source = next("".join(cell["source"]) for cell in cells if "class Correct(nn.Module)" in "".join(cell["source"]))
    names: dict = {"restoration": restoration, "torch": torch, "nn": nn}
    exec(source, names)
    shown, ours = names["Correct"](), restoration.network(0).R
    shown.load_state_dict({k: v for k, v in ours.state_dict().items() if k != "H"})
    u, q = torch.rand(3, 64), torch.rand(3, 64)
    torch.testing.assert_close(shown(u, q), ours(u, q))
