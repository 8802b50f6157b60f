"""`doctor`, on machines that we have and on some that we have not."""

import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BOOK
from PIL import Image

from jfb_tutorial.__main__ import main
from jfb_tutorial.training import data, devices, doctor
from jfb_tutorial.training.recipes import recipe

REAL_PACE = doctor.seconds_an_image
CPU = torch.device("cpu")
RUNS = str(BOOK / "runs.py")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Another folder, no data but the digits, no nvidia-smi, and a pace that is given and not measured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JFB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(doctor, "_driver", lambda: "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "seconds_an_image", lambda made, device: 0.001)
    return tmp_path


def examine(capsys, *arguments):
    """The exit status and the lines of a report."""
    status = main(["doctor", *arguments])
    out, err = capsys.readouterr()
    assert not err
    assert "Traceback" not in out
    return status, out.splitlines()


def put_cifar10(folder: Path) -> None:
    """An image folder in the place of CIFAR-10."""
    for split in ("train", "test"):
        for label in range(2):
            path = folder / "cifar10" / split / str(label)
            path.mkdir(parents=True)
            Image.fromarray(np.full((32, 32, 3), 9 * label, np.uint8)).save(path / "a.png")


def test_without_data_it_says_how_to_get_them(capsys):
    status, lines = examine(capsys)
    assert status == 1
    assert "FAULT  cifar10 is not there" in lines
    assert "note   svhn is not there, and chapter 10 does not need it" in lines
    assert "ok     digits: 1,437 training and 360 test images, whole" in lines
    assert lines[-1] == (
        "FAULT  not fit for chapter 10 yet, 1 fault above. Next: python -m jfb_tutorial data cifar10 --download"
    )


def test_with_data_it_says_how_long_training_takes(capsys, elsewhere):
    put_cifar10(elsewhere / "data")
    status, lines = examine(capsys)
    assert status == 0
    # 10 epochs of 8,000 images at a thousandth of a second
    assert "time   train cifar10 --scale cpu: 10 epochs, about 80 s" in lines
    assert any("there is no book/runs.py here; the preset alone" in line for line in lines)
    assert any(
        "as measured now without torch.compile, on 10 images of noise in each precision" in line for line in lines
    )
    assert "ok     cifar10: 2 training and 2 test images, in folders, listed and not opened" in lines
    assert lines[-1] == (
        "ok     fit for chapter 10, without a GPU, at the smaller scale. Next: "
        "python -m jfb_tutorial train cifar10 --scale cpu --device cpu --out runs/cifar10"
    )
    # a mark and a sentence, on any console
    assert all(line.isascii() and line.split()[0] in ("ok", "note", "time") for line in lines)


def test_the_times_of_the_books_runs(capsys):
    _, lines = examine(capsys, "--runs", RUNS)
    # 18 epochs of 49,000 images, and 10 of 8,000
    assert "time   fast-jfb: 18 epochs, about 14.7 min" in lines
    assert "time   ablation-none: 3 runs of 10 epochs, about 80 s each" in lines
    assert any(line.startswith("time   reproduce cifar10 --scale cpu: about ") for line in lines)
    _, lines = examine(capsys, "--runs", RUNS, "--scale", "full")
    assert "time   fast-jfb: 3 runs of 100 epochs, about 83.3 min each" in lines
    assert any("labels of another network are not estimated" in line for line in lines)


def test_the_pace_is_measured_in_real_steps():
    made = recipe("cifar10", "cpu")
    before = torch.get_rng_state()
    assert 1e-5 < REAL_PACE(made, CPU) < 100
    assert torch.equal(torch.get_rng_state(), before)


def test_a_busy_machine_says_so(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_load", lambda: 1e3)
    assert any("other programs keep this machine busy" in line for line in examine(capsys)[1])


def test_what_chapter_10_does_not_need_is_not_read(capsys, monkeypatch, elsewhere):
    for name in ("t10k-images-idx3", "t10k-labels-idx1", "train-images-idx3", "train-labels-idx1"):
        path = elsewhere / "data" / "MNIST" / "raw" / f"{name}-ubyte"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("tens of megabytes")
    _, lines = examine(capsys)
    assert "ok     mnist: its files are there, and were not read, since chapter 10 does not need them" in lines


def test_damaged_data_are_a_fault(capsys, monkeypatch):
    def load(name, split):
        raise ValueError(f"{name} is damaged: some file.\nRemove it")

    monkeypatch.setattr(data, "load", load)
    status, lines = examine(capsys)
    assert status == 1
    assert "FAULT  cifar10 is damaged: some file. Remove it" in lines


def test_an_old_torch_is_a_fault(capsys, monkeypatch):
    assert doctor._least("torch") >= (2, 11)
    monkeypatch.setattr(torch, "__version__", "1.13.1")
    status, lines = examine(capsys)
    assert status == 1
    assert any(line.startswith("FAULT  torch 1.13.1, a build for") for line in lines)
    assert "pip install 'torch>=" in lines[-1]


def test_what_breaks_down_is_a_fault_and_the_rest_is_looked_at(capsys, monkeypatch):
    def broken():
        raise KeyError("inside")

    monkeypatch.setattr(doctor, "_cpu", broken)
    status, lines = examine(capsys)
    assert status == 1
    assert "FAULT  the CPU cannot be examined: KeyError: 'inside'" in lines
    assert any(line.startswith("time") for line in lines)


@pytest.mark.parametrize(
    ("cuda", "words"), [(None, "is a build for the CPU"), ("13.0", "is a GPU build, but finds no GPU, or no driver")]
)
def test_without_a_gpu(capsys, monkeypatch, cuda, words):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(doctor, "_driver", lambda: "580.1")
    _, lines = examine(capsys)
    (line,) = (line for line in lines if line.startswith("note   no GPU"))
    assert words in line
    assert "NVIDIA's driver 580.1 is there" in line
    assert main(["doctor", "--device", "cuda"]) == 1
    assert words in capsys.readouterr().err


def pretend(monkeypatch, name, capability, gib, bfloat16, built):
    """A machine with one GPU."""
    about = types.SimpleNamespace(name=name, major=capability[0], minor=capability[1])
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(doctor, "_driver", lambda: "580.1")
    for attribute, value in {
        "is_available": True,
        "device_count": 1,
        "get_device_properties": about,
        "mem_get_info": (gib * 2**30 // 2, gib * 2**30),
        "is_bf16_supported": bfloat16,
        "get_arch_list": built,
    }.items():
        monkeypatch.setattr(torch.cuda, attribute, lambda *a, value=value, **k: value)


def test_a_gpu_that_is_fit(capsys, monkeypatch, elsewhere):
    put_cifar10(elsewhere / "data")
    pretend(monkeypatch, "NVIDIA H100", (9, 0), 80, True, ["sm_80", "sm_90"])
    status, lines = examine(capsys)
    assert status == 0
    assert "ok     NVIDIA H100, 40.0 of 80.0 GiB free, compute capability 9.0, driver 580.1" in lines
    assert "ok     bfloat16 and TF32: yes" in lines
    assert "time   train cifar10 --scale full: 100 epochs, about 83.3 min" in lines
    assert lines[-1].endswith(
        "in full. Next: python -m jfb_tutorial train cifar10 --scale full --device cuda --out runs/cifar10"
    )


def test_an_old_gpu_with_little_memory(capsys, monkeypatch, elsewhere):
    put_cifar10(elsewhere / "data")
    pretend(monkeypatch, "GTX 1050", (6, 1), 4, False, ["sm_60"])

    def too_large(made, device):
        raise torch.OutOfMemoryError("batch 512 needs more memory than GTX 1050 has; 128 fits: --batch 128")

    monkeypatch.setattr(doctor, "seconds_an_image", too_large)
    status, lines = examine(capsys)
    assert status == 1
    assert "note   no bfloat16 and no TF32 of its own: --precision float32 is likely faster there" in lines
    assert "note   torch.compile needs compute capability 7.0: add --no-compile" in lines
    assert "FAULT  batch 512 needs more memory than GTX 1050 has; 128 fits: --batch 128" in lines
    assert lines[-1].endswith("Next: python -m jfb_tutorial train cifar10 --scale full --batch 128 --out runs/cifar10")


def test_a_gpu_that_this_torch_has_no_code_for(capsys, monkeypatch):
    pretend(monkeypatch, "GTX 1050", (6, 1), 4, False, ["sm_75", "sm_90", "compute_120"])
    status, lines = examine(capsys)
    assert status == 1
    # and it is not tried
    assert not any(line.startswith("time") for line in lines)
    assert "this torch has no code for it" in lines[-2]


@pytest.mark.parametrize(
    ("capability", "fits"),
    [((8, 0), True), ((8, 9), True), ((7, 5), False), ((9, 0), True), ((10, 0), False), ((12, 0), False)],
)
def test_which_code_runs_on_which_gpu(capability, fits):
    assert doctor._is_built_for(capability, ["sm_80", "sm_90a"]) == fits
    assert doctor._is_built_for(capability, ["sm_80", "compute_80"]) == (capability >= (8, 0))


def test_a_gpu_that_is_sick(capsys, monkeypatch):
    pretend(monkeypatch, "NVIDIA H100", (9, 0), 80, True, ["sm_90"])

    def sick(device):
        raise RuntimeError("CUDA error: an illegal memory access\nCUDA kernel errors might be asynchronously reported")

    monkeypatch.setattr(torch.cuda, "mem_get_info", sick)
    status, lines = examine(capsys)
    assert status == 1
    assert "FAULT  the GPU cannot be examined: RuntimeError: CUDA error: an illegal memory access" in lines
    assert devices.choose() == torch.device("cuda")
