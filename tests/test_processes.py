"""The processes that train together: their environment, what they share, and that none waits for one that has failed."""

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import distributed

from jfb_tutorial.architectures import build
from jfb_tutorial.training import data, train
from jfb_tutorial.training.evaluation import evaluate
from jfb_tutorial.training.processes import Processes, read_environment
from jfb_tutorial.training.recipes import recipe


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "1"},
        {"WORLD_SIZE": "2"},
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "-1", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "0"},
        {"RANK": "one", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "2.0"},
        {"RANK": "0", "WORLD_SIZE": ""},
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"},
    ],
    ids=str,
)
def test_half_an_environment_is_refused(tmp_path, monkeypatch, environment):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(
        ValueError, match=r"the environment has RANK.*WORLD_SIZE.*`torchrun .*unset RANK and WORLD_SIZE"
    ):
        train(recipe("digits", "smoke"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_whole_environments(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert read_environment() == (0, 1)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert read_environment() == (0, 1)


def test_a_process_without_a_gpu_of_its_own_says_so(monkeypatch):
    for name, text in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for text in ("", "1", "first"):
        monkeypatch.setenv("LOCAL_RANK", text)
        with pytest.raises(ValueError, match="LOCAL_RANK must be the number of one of the 1 GPUs"):
            Processes(torch.device("cuda"))


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("batch", [50, 120])
def test_an_evaluation_is_shared(explicit, batch):
    """Three processes take every third batch each; of 120 images in batches of 120, two take none."""
    torch.manual_seed(0)
    network, images = build("digits", explicit=explicit), data.load("digits", "test")[:120]
    alone = evaluate(network, images, batch=batch)
    parts: list[list] = []
    copied: list[torch.nn.Module] = []

    def pretend(rank, take_turns):
        return SimpleNamespace(rank=rank, world=3, take_turns=take_turns, copy_buffers=copied.append)

    class Sent(Exception):
        pass

    def send(mine):
        parts.append(mine)
        raise Sent

    for rank in range(3):
        with pytest.raises(Sent):
            evaluate(network, images, batch=batch, processes=pretend(rank, send))
    assert [len(mine) for mine in parts] == ([1, 1, 1] if batch == 50 else [1, 0, 0])
    everyone = [part for mine in parts for part in mine]
    shared = evaluate(network, images, batch=batch, processes=pretend(2, lambda mine: everyone))
    assert torch.equal(shared.predictions, alone.predictions)
    for name in ("accuracy", "loss", "residual", "steps", "unconverged"):
        assert getattr(shared, name) == getattr(alone, name), name
    assert copied == [network] * 4
    # in training mode each would draw other masks: all do everything
    evaluate(network, images, batch=batch, training_mode=True, processes=pretend(1, pytest.fail))


def test_what_processes_exchange(monkeypatch):
    """The batches of three processes come in their order, though the last ones have one less; buffers are the first one's."""
    processes = Processes(torch.device("cpu"))
    processes.rank, processes.world = 1, 3
    five: list[tuple[torch.Tensor, ...]] = [(torch.tensor(number),) for number in range(5)]
    sent = []

    def gather(everyone, mine):
        everyone[:] = [five[rank::3] for rank in range(3)]

    monkeypatch.setattr(distributed, "all_gather_object", gather)
    monkeypatch.setattr(distributed, "broadcast", lambda buffer, source: sent.append((buffer, source)))
    assert processes.take_turns(five[1::3]) == five
    norm = torch.nn.BatchNorm1d(2)
    processes.copy_buffers(norm)
    assert [source for _, source in sent] == [0, 0, 0]
    assert all(buffer is own for (buffer, _), own in zip(sent, norm.buffers(), strict=True))


FAILING = """
import os, sys, time
from jfb_tutorial.training import loop, train
from jfb_tutorial.training.recipes import recipe
step, calls = loop._Training._step, []

def fail(self, *rest):
    calls.append(1)
    if len(calls) == 3 and self.processes.rank == 1:
        raise FloatingPointError("the loss is nan")
    step(self, *rest)

loop._Training._step = fail
try:
    train(recipe("digits", "smoke", images=200, probe=0, reestimate=0), sys.argv[1])
except Exception:
    time.sleep(600)  # a script that goes on, and leaves the others waiting
"""


def test_no_process_waits_for_one_that_has_failed(tmp_path):
    """Started without torchrun, which would end them all."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", FAILING, str(tmp_path)],
            env=os.environ | shared | {"RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        errors = [each.communicate(timeout=300)[1] for each in both]
    finally:
        for each in both:
            each.kill()
    assert [each.returncode for each in both] == [1, 1]
    assert "process 1 of 2: in batch 3 of epoch 1: the loss is nan" in errors[1]
    assert "process 0 of 2: in batch " in errors[0]
