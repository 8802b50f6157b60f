"""The command line where it is used badly, or in a place that it does not expect: consoles, pipes, devices, odd values."""

import io
import os
import signal
import subprocess
import sys
import threading
from dataclasses import fields

import pytest
import torch
from torch import nn

from jfb_tutorial import architectures, bench
from jfb_tutorial.__main__ import main
from jfb_tutorial.gradients import JFB, NeumannSeries, tally
from jfb_tutorial.network import ImplicitNetwork
from jfb_tutorial.training import checkpoints, data, devices, train
from jfb_tutorial.training.evaluation import evaluate
from jfb_tutorial.training.inspection import inspect
from jfb_tutorial.training.output import in_a_line, say
from jfb_tutorial.training.recipes import Recipe, recipe

TINY = {"epochs": 1, "images": 40, "batch": 20, "reestimate": 0, "probe": 0}


def tiny(**changes):
    return recipe("digits", "smoke", **{**TINY, **changes})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A trained network's file."""
    out = tmp_path_factory.mktemp("run") / "out"
    train(tiny(), out)
    return out / "model.safetensors"


# Consoles and pipes


class Full(io.RawIOBase):
    """A stream that nobody reads any more, or a disk that is full."""

    def __init__(self, error):
        self.error = error

    def writable(self):
        return True

    def write(self, content):
        raise self.error


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_a_console_without_utf8_ends_nothing(tmp_path, monkeypatch, checkpoint, encoding):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding=encoding))
    say("γ 0.72 × 3")
    assert main(["evaluate", str(checkpoint)]) == 0
    assert main(["inspect", str(checkpoint), "--steps", "2"]) == 0
    assert main(["bench", str(checkpoint), "--rules", "NeumannSeries(2)", "--rounds", "1", "--batch", "2"]) == 0
    sys.stdout.flush()
    text = shown.getvalue().decode(encoding)
    assert r"\u03b3 0.72" in text
    assert "accuracy" in text
    assert r"\u03bb = 1" in text


@pytest.mark.parametrize(
    "error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device")], ids=type
)
def test_no_result_is_lost_where_nothing_can_be_printed(tmp_path, monkeypatch, error):
    # buffered=False, so that the print itself fails, and not some later one
    stream = io.TextIOWrapper(io.BufferedWriter(Full(error), 1), write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    train(tiny(), tmp_path / "run", progress=True)
    monkeypatch.undo()
    assert (tmp_path / "run" / "record.json").is_file()
    stream.detach()


@pytest.mark.parametrize(("target", "status"), [("a closed pipe", 0), ("/dev/full", 1)])
def test_what_cannot_be_written_at_the_end(monkeypatch, capfd, target, status):
    """Python flushes its output when it ends, and would fail there."""
    if target == "/dev/full":
        stream = open(target, "w")  # noqa: SIM115  (closed below, which is what is tested)
    else:
        read, write = os.pipe()
        os.close(read)
        stream = os.fdopen(write, "w")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert main(["data", "digits"]) == status
        stream.close()  # raises nothing
    wanted = "python -m jfb_tutorial data: the output cannot be written (No space left on device)\n"
    assert capfd.readouterr().err == wanted * status


def test_a_finished_training_whose_line_is_lost_says_so_by_its_status(tmp_path, monkeypatch, capfd):
    command = ["train", "digits", "--scale", "smoke", "--quiet", "--out", str(tmp_path)]
    command += [part for name, value in TINY.items() for part in (f"--{name}", str(value))]
    with monkeypatch.context() as patch, open("/dev/full", "w") as stream:
        patch.setattr(sys, "stdout", stream)
        assert main(command) == 1
    assert capfd.readouterr().err == (
        "python -m jfb_tutorial train: the output cannot be written (No space left on device)\n"
    )
    assert (tmp_path / "record.json").is_file()
    with monkeypatch.context() as patch:
        # what was lost before is not this command's fault
        full = io.TextIOWrapper(io.BufferedWriter(Full(OSError(28, "No space left")), 1))
        patch.setattr(sys, "stdout", full)
        say("a line")
        full.detach()
    assert main([*command, "--resume"]) == 0


def test_a_home_folder_that_nobody_has(monkeypatch, capsys):
    monkeypatch.setenv("JFB_DATA", "~no-such-user/data")
    assert main(["data", "digits"]) == 1
    assert capsys.readouterr().err == (
        "python -m jfb_tutorial data: $JFB_DATA must be a folder, and of '~no-such-user/data' there is no such home folder; give "
        "a whole path\n"
    )
    with pytest.raises(ValueError, match="root must be a folder, and of '~no-such-user' there is no such home folder"):
        data.load("digits", root="~no-such-user")


# Surroundings


def test_a_second_training_in_another_thread_is_refused():
    faults = []

    def other():
        try:
            train(tiny())
        except RuntimeError as error:
            faults.append(str(error))

    def meanwhile(row, network):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    def another(row, network):
        train(tiny(seed=1))

    run = train(tiny(), callback=meanwhile)
    assert len(faults) == 1
    assert "another thread of this process is training" in faults[0]
    # it has disturbed nothing, and one in the same thread is allowed: what it draws is put back
    again = train(tiny(), callback=another)
    assert again.record.curve("loss") == run.record.curve("loss")


def test_a_tally_counts_what_its_own_thread_does():
    u = torch.ones(1, 2)

    def backward():
        NeumannSeries(3)(lambda u: 0.5 * u * weight, u).sum().backward()

    weight = torch.ones(1, 2, requires_grad=True)
    counts = {}

    def count(name, turn):
        with tally() as record:
            backward()
            turn.wait()  # both tallies are open before either ends
        counts[name] = record.products

    turn = threading.Barrier(2)
    threads = [threading.Thread(target=count, args=(name, turn)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == {"a": 2, "b": 2}
    # a thread without a tally, as autograd's for a GPU, counts for those who wait for it
    with tally() as record:
        thread = threading.Thread(target=backward)
        thread.start()
        thread.join()
    assert record.products == 2


def test_a_run_is_what_its_recipe_says_whatever_surrounds_it():
    plain = train(tiny(epochs=2)).record
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        surrounded = train(tiny(epochs=2)).record
    assert surrounded.curve("loss") == plain.curve("loss")
    assert surrounded["result"]["test_loss"] == plain["result"]["test_loss"]
    # and the casts of a step are not those of the next one
    plain = train(tiny(precision="bfloat16")).record
    with torch.autocast("cpu", torch.bfloat16):
        assert train(tiny(precision="bfloat16")).record.curve("loss") == plain.curve("loss")


def test_evaluation_is_in_full_precision_inside_autocast(checkpoint):
    network, test = checkpoints.load_network(checkpoint), data.load("digits", "test")[:50]
    plain = evaluate(network, test).loss
    with torch.autocast("cpu", torch.bfloat16):
        assert evaluate(network, test).loss == plain


# Numbers that are none


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_give_no_answer(tmp_path, capsys, explicit, value):
    torch.manual_seed(0)
    network = architectures.digits(explicit=explicit).eval()
    last = list(network.S.named_parameters())[-1]
    with torch.no_grad():
        last[1].view(-1)[0] = value
    words = f"S.{last[0]} is not finite in 1 of "
    test = data.load("digits", "test")[:20]
    d, y = test.images.float() / 255, test.labels
    for measure in (
        lambda: evaluate(network, test),
        lambda: inspect(network, test, steps=2),
        lambda: bench.compare(network, d, y, nn.functional.cross_entropy, [JFB()]),
    ):
        with pytest.raises(FloatingPointError, match=words):
            measure()
    file = tmp_path / "network.safetensors"
    checkpoints.save_network(file, network, recipe("digits", "smoke", explicit=explicit))
    for command in ("evaluate", "inspect", "bench"):
        assert main([command, str(file)]) == 1
        out, err = capsys.readouterr()
        assert "accuracy" not in out
        assert words in err
        assert err.count("\n") == 1


def test_answers_that_overflow_are_none():
    torch.manual_seed(0)
    network = architectures.digits()
    with torch.no_grad():
        for parameter in network.S.parameters():
            parameter.fill_(1e38)
    for measure in (evaluate, inspect):
        with pytest.raises(FloatingPointError, match="not finite"):
            measure(network, data.load("digits", "test")[:20])


# Devices


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cuda", "is not to be had"),
        ("cuda:9", "is not to be had"),
        ("mps", "this torch has no such device, or the device has no float64"),
        ("meta", "it holds no numbers"),
        ("gpu", "device must be cpu, cuda, or cuda:N, got 'gpu'"),
        ("", "device must be cpu, cuda, or cuda:N, got ''"),
        ("cuda:-1", "device must be cpu, cuda, or cuda:N"),
    ],
)
def test_a_device_that_is_not_there(monkeypatch, tmp_path, capsys, checkpoint, device, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for command in (
        ["train", "digits", "--out", str(tmp_path / "x")],
        ["evaluate", str(checkpoint)],
        ["bench", "digits"],
    ):
        assert main([*command, f"--device={device}"]) == 1
        error = capsys.readouterr().err
        assert words in error
        assert "here there is cpu" in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("cuda", "words"), [(None, "is a build for the CPU"), ("13.0", "is a GPU build, but finds no GPU")]
)
def test_why_there_is_no_gpu(monkeypatch, cuda, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    with pytest.raises(ValueError, match=words):
        devices.choose("cuda")


def test_a_gpu_is_the_default_and_has_a_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.choose() == torch.device("cuda")
    assert devices.choose("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="no GPU of this number; here there is cpu and cuda:0 to cuda:1"):
        devices.choose("cuda:2")


# Odd values: what is accepted is not tried here, since it trains

ODD = (
    "",
    " ",
    "-1",
    "nan",
    "-inf",
    "1e400",
    "1e30",
    "1" + "0" * 400,
    "9" * 5000,
    "abc",
    "γ",
    "a\nb",
    "[]",
    "JFB(",
    "-" * 50_000 + "1",
    "JFB(" + "[" * 900,
    "Anderson(memory=-1)",
    "FixedPointIteration(tol=nan)",
    "NeumannSeries(0)",
)
SWITCHES = [f.name for f in fields(Recipe) if f.metadata.get("parse") is None]
VALUED = [f.name for f in fields(Recipe) if f.name not in ("dataset", "seed", *SWITCHES)]


class Accepted(Exception):
    """Training would begin."""


def accept(recipe, out, *, device, **settings):
    devices.choose(device)
    raise Accepted


@pytest.mark.parametrize("name", [*VALUED, "scale", "device", "seeds"])
def test_odd_values_of_every_option_of_train(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    # what gets so far has been accepted
    monkeypatch.setattr("jfb_tutorial.__main__.train", accept)
    for value in ODD:
        check_one_line(
            capsys, ["train", "digits", "--scale", "smoke", "--out", "x", f"--{name.replace('_', '-')}={value}"]
        )


def status_of(command):
    """As a shell sees it; None where training would begin."""
    try:
        return main(command)
    except SystemExit as stopped:
        return stopped.code
    except Accepted:
        return None


def check_one_line(capsys, command):
    status = status_of(command)
    if status is not None:
        error = capsys.readouterr().err
        assert status in (1, 2), command
        assert error.count("\n") == 1, (command, error[:500])
        assert len(error) < 1000, (command, error[:500])
        assert "Traceback" not in error


@pytest.mark.parametrize(
    "option",
    [f"evaluate --{name}" for name in ("solver", "split", "dataset")]
    + [f"inspect --{name}" for name in ("steps", "tol", "picture", "device")]
    + [f"bench --{name}" for name in ("batch", "rounds", "rules", "device")],
)
def test_odd_values_of_the_other_commands(tmp_path, monkeypatch, capsys, checkpoint, option):
    monkeypatch.chdir(tmp_path)
    command, name = option.split()
    for value in ODD:
        check_one_line(capsys, [command, str(checkpoint), f"{name}={value}"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train digits --crop 99", "crop must be at most 7 for images of 8 pixels, got 99"),
        ("train digits --crop 9 --fill mean", "crop must be at most 8"),
        ("train digits --cutout 9", "cutout must be at most 8, the side of the images"),
        ("train digits --cutout 1" + "0" * 30, "cutout must be below 2⁶³"),
        ("train digits --epochs 1" + "0" * 400, "epochs must be below 2⁶³, got one of about"),
        ("train digits --solver Anderson(memory=1000000000000)", "there is not enough memory"),
        ("inspect CHECKPOINT --picture a.xyz", "--picture must end in one of .eps"),
        ("inspect CHECKPOINT --steps 1000000000", "steps must be at most 10,000"),
        ("bench CHECKPOINT --rounds 0", "rounds must be at least 1"),
        ("bench CHECKPOINT --batch 0", "batch must be at least 1"),
        ("train digits --seeds x", "argument --seeds: invalid int value: 'x'; --help lists what there is"),
    ],
)
def test_what_leaked_once(tmp_path, monkeypatch, capsys, checkpoint, arguments, words):
    monkeypatch.chdir(tmp_path)
    command = arguments.replace("CHECKPOINT", str(checkpoint)).split()
    if command[0] == "train":
        command += ["--out", "x", "--scale", "smoke", "--quiet"]
    assert status_of(command) in (1, 2)
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_picture_in_any_format(tmp_path, checkpoint):
    for name in ("a.svg", "a.pdf", "a.PNG"):
        assert main(["inspect", str(checkpoint), "--steps", "2", "--picture", str(tmp_path / name)]) == 0
        assert (tmp_path / name).stat().st_size > 1000


def test_an_error_of_torch_in_a_line():
    stack = "shapes differ\nException raised from fail at a.cpp:7 (most recent call first):\nframe #0: c10::Error"
    assert in_a_line(RuntimeError(stack)) == "shapes differ"
    assert in_a_line(RuntimeError("CUDA error: no\nCUDA kernel errors might be asynchronous")) == "CUDA error: no"
    assert "not enough memory" in in_a_line(
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: no\n#0 x")
    )
    assert "not enough memory" in in_a_line(torch.OutOfMemoryError("CUDA out of memory. Tried"))
    assert in_a_line(torch.OutOfMemoryError("batch 9 needs more; 4 fits")) == "batch 9 needs more; 4 fits"
    assert in_a_line(ValueError()) == "ValueError"


def test_bench_counts_the_classes_of_the_network(tmp_path):
    network = architectures.build("digits", classes=3)
    file = tmp_path / "three.safetensors"
    checkpoints.save_network(file, network, recipe("digits", "smoke"), build={"classes": 3})
    assert main(["bench", str(file), "--rules", "JFB", "--rounds", "1", "--batch", "8"]) == 0


def test_the_name_of_a_rule_is_text_in_html():
    class Rule(JFB):
        def __repr__(self):
            return "<script>alert(1)</script>"

    torch.manual_seed(0)
    network = ImplicitNetwork(nn.Linear(3, 4), lambda u, q: 0.1 * torch.tanh(u) + q, nn.Linear(4, 2))
    table = bench.compare(network, torch.randn(2, 3), torch.tensor([0, 1]), nn.functional.cross_entropy, [Rule()])
    assert "<script>" not in table._repr_html_()
    assert "&lt;script&gt;" in table._repr_html_()


def test_train_says_how_many_test_images_did_not_converge(capsys):
    train(tiny(evaluation="FixedPointIteration(tol=1e-9, max_steps=2)"))
    assert "360 of the 360 test images did not meet the solver's tolerance" in capsys.readouterr().out


def test_an_interrupt_before_the_package_is_there_shows_no_traceback():
    """While torch is imported, seconds on a slow disk; `-X importtime` tells when that is."""
    command = [sys.executable, "-X", "importtime", "-m", "jfb_tutorial", "data", "digits"]

    def listen():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job, as the tests may be, ignores it

    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=listen
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "torch._C" in line or "torch.version" in line:
                process.send_signal(2)
                break
        rest = process.stderr.read()
    assert process.returncode == -2
    assert "KeyboardInterrupt" not in rest
