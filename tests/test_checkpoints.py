"""Checkpoints: whole or not at all, and refused when they are not what they were."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from jfb_tutorial.architectures import build
from jfb_tutorial.gradients import NeumannSeries
from jfb_tutorial.solvers import FixedPointIteration
from jfb_tutorial.training import files, records
from jfb_tutorial.training.checkpoints import load, load_network, restore, save, save_network
from jfb_tutorial.training.files import write
from jfb_tutorial.training.recipes import recipe


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    network = build("digits")
    path = tmp_path / "model.safetensors"
    made = recipe("digits", rule=NeumannSeries(3), evaluation=FixedPointIteration(tol=1e-5, max_steps=77))
    save_network(path, network, made, result={"test_accuracy": 0.5})
    return path, network


def test_a_network_comes_back(saved):
    path, network = saved
    back = load_network(path)
    assert not back.training
    assert back.gradient == NeumannSeries(3)
    assert back.solver == FixedPointIteration(tol=1e-5, max_steps=77)
    own, loaded = network.state_dict(), back.state_dict()
    assert list(own) == list(loaded)
    assert all(torch.equal(own[name], loaded[name]) for name in own)
    tensors, about = load(path)
    assert about["result"] == {"test_accuracy": 0.5}
    assert about["recipe"]["dataset"] == "digits"
    assert set(tensors) == set(own)


def test_in_double_precision_too(tmp_path):
    network = build("digits", explicit=True).double()
    save_network(tmp_path / "a.safetensors", network, recipe("digits", precision="float64", explicit=True))
    back = load_network(tmp_path / "a.safetensors")
    d = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    assert torch.equal(back(d), network.eval()(d))


def test_truncated_files_are_refused(saved):
    path, _ = saved
    content = path.read_bytes()
    for length in (0, 5, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"model.safetensors is truncated or no safetensors file"):
            load(path)


def test_edited_files_are_refused(saved):
    path, _ = saved
    content = path.read_bytes()
    path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])  # one bit of one weight
    with pytest.raises(ValueError, match="was altered after it was written"):
        load(path)
    path.write_bytes(content.replace(b'\\"lr\\": 0.005', b'\\"lr\\": 0.006'))  # a setting
    with pytest.raises(ValueError, match="was altered after it was written"):
        load(path)
    path.write_bytes(content)
    load(path)


def test_files_of_others_are_refused(tmp_path):
    save_file({"weight": torch.ones(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="was not written by this package"):
        load(tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load(tmp_path / "none.safetensors")
    save(tmp_path / "state.safetensors", {"weight": torch.ones(3)}, {"kind": "state"})
    with pytest.raises(ValueError, match="holds the state of a run, not a network"):
        load_network(tmp_path / "state.safetensors")


def test_a_checkpoint_of_another_network_is_refused(saved):
    path, _ = saved
    tensors, _ = load(path)
    network = build("mnist")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"is a checkpoint of another network: .*, and \d+ more"):
        restore(network, tensors, path)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    with pytest.raises(ValueError, match=r"Q.0.mean has the shape \(1, 1, 1\), not \(3, 1, 1\)"):
        restore(build("svhn"), tensors, path)


def test_writing_replaces_whole_files_only(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write(path, b"older")
    with path.open("rb") as reading:
        write(path, b"old")
        assert reading.read() == b"older"  # who had opened it still has the whole old file
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(
        OSError, match=r"could not write .*file.*No space left on device.*is untouched. Free some space"
    ):
        write(path, b"new")
    with pytest.raises(OSError, match="nothing was left behind"):
        write(tmp_path / "another", b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"
    with pytest.raises(OSError, match=r"No such file or directory.*Is the folder there"):
        write(tmp_path / "nowhere" / "file", b"new")
    with pytest.raises(OSError, match=r"Is the folder there"):
        write(path / "below a file", b"new")


def test_what_is_not_finite_is_null_in_lists_too(tmp_path):
    values = [float("nan"), 1.0, [float("inf")], {"x": (float("-inf"), 2)}]
    about = {"config": {}, "seed": 0, **records.provenance()}
    records.save(tmp_path / "a.json", about | {"epochs": [], "result": {"values": values}})
    assert records.read(tmp_path / "a.json")["result"]["values"] == [None, 1.0, [None], {"x": [None, 2]}]


FULL = """
import resource, signal, sys, torch
from pathlib import Path
from jfb_tutorial.training.checkpoints import save
path = Path(sys.argv[1])
save(path, {"x": torch.zeros(10)}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    save(path, {"x": torch.ones(100_000)}, {})
except OSError as error:
    print(error)
"""


def test_a_file_system_that_takes_no_more(tmp_path):
    """A real limit, which the operating system enforces in the middle of the write."""
    path = tmp_path / "model.safetensors"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert "could not write" in done.stdout
    assert "what was there before is untouched" in done.stdout
    assert torch.equal(load(path)[0]["x"], torch.zeros(10))
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]
