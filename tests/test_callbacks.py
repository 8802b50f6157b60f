"""The callback of a training: it may look and add to its row; a record that would be untrue, or unreadable, is refused."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from jfb_tutorial.gradients import NeumannSeries
from jfb_tutorial.solvers import FixedPointIteration
from jfb_tutorial.training import records, train
from jfb_tutorial.training.recipes import recipe

PLAN = recipe("digits", "smoke", epochs=2, images=60, batch=30, reestimate=0, probe=0)


def replace_head(row, network):
    network.S = copy.deepcopy(network.S)


def replace_weights(row, network):
    layer = next(module for module in network.R.modules() if isinstance(module, nn.Conv2d))
    layer.weight = nn.Parameter(layer.weight.detach().clone())


def replace_rule(row, network):
    network.gradient = NeumannSeries(3)


def replace_solver(row, network):
    network.solver = FixedPointIteration(max_steps=3)


def convert(row, network):
    network.double()


def clear(row, network):
    row.clear()


def set_epoch(row, network):
    row["epoch"] = 7


def empty_seconds(row, network):
    row["seconds"].clear()


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        (replace_head, r"callback has replaced S, .* of the network.*change copy.deepcopy\(network\)"),
        (replace_weights, "callback has replaced R.*weight of the network"),
        (replace_rule, r"callback has replaced the rule of the network.*let network.using\(…\) put back"),
        (replace_solver, "callback has replaced solver of the network"),
        (convert, "callback has moved or converted the network"),
        (clear, "callback has changed or removed epoch, lr, .* in its row; it may add entries"),
        (set_epoch, "callback has changed or removed epoch in its row"),
        (empty_seconds, "callback has changed or removed seconds in its row"),
    ],
)
def test_what_would_make_the_record_untrue_is_refused(tmp_path, callback, words):
    with pytest.raises(ValueError, match=words):
        train(PLAN, tmp_path, callback=callback)
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("x", torch.ones(1), "added 'x' to its row, a Tensor that JSON cannot hold"),
        ("x", np.int64(3), r"added 'x' to its row, a int64 that JSON cannot hold .*x.item\(\)"),
        ("x", {1, 2}, "added 'x' to its row, a set that JSON cannot hold"),
        ("x", "\ud800", "added 'x' to its row, a str that JSON cannot hold"),
        (1, 2, "added 1 to its row, a int that JSON cannot hold"),
    ],
)
def test_what_no_record_can_hold_is_refused(key, value, words):
    with pytest.raises(TypeError, match=f"callback has {words}"):
        train(PLAN, callback=lambda row, network: row.update({key: value}))
    with pytest.raises(TypeError, match="callback must be a function of a row and a network, got int"):
        train(PLAN, callback=3)  # type: ignore[arg-type]


def test_a_callback_adds_and_what_it_switches_is_put_back(tmp_path):
    def look(row, network):
        assert not network.training
        row |= {"pair": (1, np.float64(2)), "nothing": math.nan}
        with network.using(solver=FixedPointIteration(max_steps=3), gradient=NeumannSeries(2)):
            network.train()
        torch.set_grad_enabled(False)

    run = train(PLAN, tmp_path, callback=look)
    assert torch.is_grad_enabled()
    assert [row["pair"] for row in run.record["epochs"]] == [[1, 2.0]] * 2
    assert records.read(tmp_path / "record.json")["epochs"][0]["nothing"] is None
    assert run.record["result"] == train(PLAN).record["result"] | {"seconds": run.record["result"]["seconds"]}
