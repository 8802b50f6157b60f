"""What a network answers after each step of its iteration."""

import json

import pytest
import torch
from conftest import BOOK

from jfb_tutorial import architectures
from jfb_tutorial.__main__ import main
from jfb_tutorial.pages.extremes import extremes
from jfb_tutorial.solvers import FixedPointIteration
from jfb_tutorial.training import checkpoints, data, records
from jfb_tutorial.training.evaluation import evaluate
from jfb_tutorial.training.inspection import Inspection, inspect
from jfb_tutorial.training.recipes import recipe


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "test")[:60]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return architectures.digits().train()


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_the_answer_after_k_steps_is_that_of_an_iteration_of_k_steps(network, digits, steps):
    found = inspect(network, digits, steps=8, batch=25)
    assert found.predictions.shape == found.confidence.shape == found.residuals.shape == (8, 60)
    # the solver returns u_k, and JFB takes one step more
    solver = FixedPointIteration(max_steps=steps - 1, check_every=0) if steps > 1 else None
    if solver is None:
        twin = architectures.digits(explicit=True)
        twin.load_state_dict(network.state_dict())
        assert found.right[0].double().mean().item() == evaluate(twin, digits).accuracy
        assert torch.equal(found.predictions[0], evaluate(twin, digits).predictions)
    else:
        answer = evaluate(network, digits, solver=solver)
        assert torch.equal(found.predictions[steps - 1], answer.predictions)


def test_steps_are_those_of_the_solver(network, digits):
    found = inspect(network, digits, steps=30, tol=1e-3)
    network.eval()
    with torch.no_grad():
        network.solver = FixedPointIteration(tol=1e-3, max_steps=30, relative=True)
        last = network.solve(digits.images.float() / 255)
    network.train()
    assert torch.equal(found.steps, last.steps)
    assert torch.allclose(found.residuals[0], torch.ones(60))  # from zero the first step is all there is


def test_the_network_is_left_as_it_was(network, digits):
    network.Q.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    inspect(network, digits, steps=2)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network.train()


def test_a_summary_by_hand():
    found = Inspection(
        labels=torch.tensor([0, 1, 2]),
        predictions=torch.tensor([[0, 2, 0], [0, 1, 1], [0, 1, 1]]),
        confidence=torch.tensor([[0.5, 0.5, 0.5], [0.9, 0.9, 0.6], [1.0, 1.0, 0.7]]),
        residuals=torch.tensor([[1.0, 1.0, 1.0], [0.01, 0.1, 0.5], [0.02, 0.01, 0.5]]),
        tol=0.01,
    )
    assert found.steps.tolist() == [2, 3, 0]
    summary = found.summary()
    assert summary["images"] == 3
    assert [row["accuracy"] for row in summary["after"]] == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert [row["still_to_change"] for row in summary["after"]] == [2, 0, 0]
    assert summary["after"][2]["confidence"] == pytest.approx(0.9)
    assert summary["needed"] == [
        {"steps": 0, "images": 1, "right": 0},
        {"steps": 2, "images": 1, "right": 1},
        {"steps": 3, "images": 1, "right": 1},
    ]
    assert summary["classes"] == [
        {"class": 0, "images": 1, "right": 1, "steps": 2.0},
        {"class": 1, "images": 1, "right": 1, "steps": 3.0},
        {"class": 2, "images": 1, "right": 0, "steps": None},
    ]


def test_bad_input(network, digits):
    for settings, words in (({"steps": 0}, "steps"), ({"batch": 0}, "batch"), ({"tol": -1.0}, "tol")):
        with pytest.raises(ValueError, match=words):
            inspect(network, digits, **settings)
    with pytest.raises(ValueError, match="at least one image"):
        inspect(network, digits[:0])


def test_the_quickest_and_the_slowest_are_shown(network, digits):
    found = inspect(network, digits, steps=6)
    order = found.residuals[2].argsort(stable=True)
    figure = extremes(found, digits, after=3)
    shown = [ax.images[0].get_array() for ax in figure.axes]
    assert len(shown) == 16
    assert torch.equal(torch.as_tensor(shown[0]), digits.images[order[0], 0])
    assert torch.equal(torch.as_tensor(shown[-1]), digits.images[order[-1], 0])
    for ax, index in zip(figure.axes, torch.cat([order[:8], order[-8:]]).tolist(), strict=True):
        assert ax.get_title().startswith(digits.classes[digits.labels[index]])
        assert ("(" in ax.get_title()) != bool(found.right[-1][index])
    for settings, words in (({"after": 7}, "at most the 6 steps"), ({"after": 0}, "after")):
        with pytest.raises(ValueError, match=words):
            extremes(found, digits, **settings)
    with pytest.raises(ValueError, match="sixteen"):
        extremes(inspect(network, digits[:9], steps=6), digits[:9])


def test_an_iteration_that_runs_away_says_so(digits):
    torch.manual_seed(0)
    network = architectures.digits(batch_norm=False, gamma=50.0)
    with pytest.raises(FloatingPointError, match="leaves the finite numbers at step"):
        inspect(network, digits, steps=100)


def test_what_chapter_10_shows_is_of_its_network():
    seen = json.loads((BOOK / "records" / "cifar10-inspected.json").read_text())
    record = records.read(BOOK / "records" / "cifar10.json")
    assert seen["digest"] == checkpoints.digest(BOOK / "records" / "cifar10.safetensors")
    assert "with changes" not in seen["commit"]
    assert seen["result"]["images"] == record["result"]["test_images"] == 10_000
    # evaluation stops when its batch has met the tolerance, a step or so earlier or later
    assert seen["result"]["after"][-1]["accuracy"] == pytest.approx(record["result"]["test_accuracy"], abs=5e-4)
    assert sum(row["right"] for row in seen["result"]["needed"]) == sum(
        row["right"] for row in seen["result"]["classes"]
    )


def test_nan_is_no_fixed_point(digits):
    torch.manual_seed(0)
    network = architectures.digits()
    with torch.no_grad():
        network.R.blocks[0].branch[0].bias[0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"R.blocks.0.branch.0.bias is not finite in 1 of "):
        inspect(network, digits, steps=3)


def test_from_a_shell(network, tmp_path, capsys):
    file = tmp_path / "network.safetensors"
    checkpoints.save_network(file, network, recipe("digits", "smoke"))
    assert (
        main(
            [
                "inspect",
                str(file),
                "--steps",
                "5",
                "--out",
                str(tmp_path / "seen.json"),
                "--picture",
                str(tmp_path / "seen.png"),
            ]
        )
        == 0
    )
    assert (tmp_path / "seen.png").stat().st_size > 1000
    shown = capsys.readouterr().out
    seen = json.loads((tmp_path / "seen.json").read_text())
    accuracy = evaluate(
        network, data.load("digits", "test"), solver=FixedPointIteration(max_steps=4, check_every=0)
    ).accuracy
    assert seen["result"]["after"][4]["accuracy"] == pytest.approx(accuracy)
    assert f"{100 * accuracy:.2f}%" in shown
    assert seen["digest"] == checkpoints.digest(file)
    assert {"commit", "versions", "device", "date"} <= set(seen)
    assert main(["inspect", str(tmp_path / "none.safetensors")]) == 1
