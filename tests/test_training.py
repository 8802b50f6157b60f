"""The trainer: what a run leaves, resuming, several processes, and what happens when things go wrong."""

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import types
import weakref
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch._dynamo.backends.registry import lookup_backend

from jfb_tutorial.__main__ import main
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, NeumannSeries, Unrolled, UnrolledPhantom
from jfb_tutorial.network import ImplicitNetwork
from jfb_tutorial.solvers import Anderson, Broyden, FixedPointIteration
from jfb_tutorial.training import checkpoints, data, files, loop, meter, prepare, probes, records, train
from jfb_tutorial.training.evaluation import evaluate, full_precision
from jfb_tutorial.training.recipes import recipe

HERE = Path(__file__).parent
SMALL = {"epochs": 2, "images": 200, "reestimate": 100, "probe": 2}


def small(**changes):
    return recipe("digits", "smoke", **{**SMALL, **changes})


def weights(path):
    return checkpoints.load(path / "model.safetensors")[0]


def same(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of the smoke recipe, with held-out images."""
    out = tmp_path_factory.mktemp("run")
    return train(recipe("digits", "smoke", held_out=200), out), out


def test_what_a_run_leaves(finished):
    run, out = finished
    assert sorted(path.name for path in out.iterdir()) == ["model.safetensors", "record.json"]
    record = records.read(out / "record.json")
    assert record == json.loads(json.dumps(run.record))
    assert record.recipe == recipe("digits", "smoke", held_out=200)
    assert not record.stale
    assert record["parameters"] == 33_456
    assert record["seed"] == 0
    assert [row["epoch"] for row in record["epochs"]] == [1, 2, 3]
    for row in record["epochs"]:
        assert 0 < row["residual_mean"] <= row["residual_worst"] <= 1e-3
        assert 5 < row["steps_mean"] <= row["steps_max"] < 50
        assert row["unconverged"] == row["products"] == 0
        assert 0 < row["gamma_one_direction"] < row["gamma"] < 2
        assert 0 < row["contraction"] < 1.5
        assert row["peak_memory"] > 2**20
        assert row["seconds"]["training"] > 0
    assert record["epochs"][-1]["loss"] < 0.5 * record["epochs"][0]["loss"]
    assert record["result"]["test_accuracy"] > 0.85
    assert record["result"]["validation_accuracy"] > 0.85
    assert record["result"]["saved_bytes"] > 1000


def test_evaluating_the_checkpoint_gives_the_recorded_accuracy(finished, capsys):
    run, out = finished
    network = checkpoints.load_network(out / "model.safetensors")
    test = data.load("digits", "test")
    found = evaluate(network, test)
    assert found.accuracy == run.record["result"]["test_accuracy"]
    assert found.loss == run.record["result"]["test_loss"]
    assert found.unconverged == 0
    assert evaluate(run.network, test).accuracy == found.accuracy
    assert main(["evaluate", str(out / "model.safetensors")]) == 0
    printed = capsys.readouterr().out
    assert printed.count(f"accuracy {100 * found.accuracy:.2f}%") == 2


def test_evaluation_leaves_the_network_as_it_was(finished):
    network = checkpoints.load_network(finished[1] / "model.safetensors").train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    test = data.load("digits", "test")[:50]
    clean = evaluate(network, test, solver=FixedPointIteration(tol=1e-6, max_steps=200))
    noisy = evaluate(network, test, training_mode=True)
    assert same(before, network.state_dict())
    assert network.training
    assert network.last is None
    assert clean.residual is not None
    assert clean.residual < 1e-6
    assert clean.loss != noisy.loss
    # in eval mode the size of the batch does not matter
    assert evaluate(network, test, batch=7).accuracy == evaluate(network, test, batch=50).accuracy


def test_the_same_seed_gives_the_same_weights_and_another_one_others():
    one, same_seed, other = (train(small(seed=seed)).network.state_dict() for seed in (0, 0, 1))
    assert same(one, same_seed)
    assert not same(one, other)


def test_training_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(small(epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_the_test_set_is_used_once(monkeypatch):
    seen = []

    def spy(network, images, **settings):
        seen.append(len(images))
        return evaluate(network, images, **settings)

    monkeypatch.setattr(probes, "evaluate", spy)
    train(small(held_out=100))
    assert seen == [100, 100, 360, 100]
    seen.clear()
    row = train(small(epochs=1, watch_test=True)).record["epochs"][0]
    assert seen == [360, 360, 360]
    assert {"test_accuracy", "test_accuracy_training_mode"} <= set(row)


def test_held_out_images_are_not_trained_on():
    everything = data.load("digits")
    kept, held = data.hold_out(everything.labels, 100)
    _, prepared = prepare.prepare_data(small(held_out=100, images=0), None, torch.device("cpu"))
    assert torch.equal(prepared.images.images, everything[kept].images)
    assert prepared.held is not None
    assert torch.equal(prepared.held.images, everything[held].images)
    few = prepare.prepare_data(small(images=57, reestimate=0), None, torch.device("cpu"))[1].images
    assert set(few.labels.bincount().tolist()) == {5, 6}


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": rule}
        for rule in (
            JFB(),
            ImplicitDifferentiation(tol=1e-3),
            ImplicitDifferentiation("cg", tol=1e-2),
            NeumannSeries(6),
            NeumannSeries(5, 0.5),
            UnrolledPhantom(5, 0.5),
            Unrolled(12),
        )
    ]
    + [{"explicit": True}, {"batch_norm": False}]
    + [{"norm": norm} for norm in ("every-step", "last-step", "group")]
    + [
        {"solver": solver}
        for solver in (Anderson(tol=1e-3), Broyden(tol=1e-3), FixedPointIteration(max_steps=6, check_every=0))
    ]
    + [{"optimiser": "sgd", "lr": 0.05}, {"optimiser": "adamw", "decay": "weights", "weight_decay": 0.1}]
    + [{"precision": "bfloat16", "solver": FixedPointIteration(tol=1e-2, relative=True)}, {"precision": "float64"}]
    + [{"channels_last": True}, {"average": 0.9}, {"dropout": False}, {"label_smoothing": 0.1, "schedule": "cosine"}]
    + [{"flip": "random", "crop": 1, "cutout": 2, "erase": 0.5}],
    ids=str,
)
def test_everything_that_a_recipe_offers_trains(changes):
    run = train(small(**{"epochs": 3, "images": 300, **changes}))
    losses = run.record.curve("loss")
    assert losses[-1] < losses[0]
    assert all(map(math.isfinite, losses))
    assert run.record["result"]["test_accuracy"] > 0.3
    row = run.record["epochs"][-1]
    exact = isinstance(changes.get("rule"), ImplicitDifferentiation)
    assert (row["products"] > 0) == (exact or isinstance(changes.get("rule"), NeumannSeries))
    assert (row["adjoint_residual"] is not None) == exact
    assert ("steps_mean" in row) == ("explicit" not in changes and not isinstance(changes.get("rule"), Unrolled))


def test_large_latents_are_probed_too():
    run = train(small(gamma=2.0, solver=FixedPointIteration(tol=1e-2)))
    assert all(row["gamma"] > row["gamma_one_direction"] > 0 for row in run.record["epochs"])
    # where there is nothing to measure, the row says why, and training goes on
    rows = train(small(gamma=30.0)).record["epochs"]
    assert any("probe_error" in row and row["gamma"] is None for row in rows)


def test_the_first_epochs_are_trained_unrolled_and_the_others_by_the_rule(tmp_path):
    rules = []

    def look(row, network):
        rules.append(network.gradient)

    run = train(small(epochs=3, pretrain=2, pretrain_steps=4), tmp_path / "run", callback=look)
    assert rules == 3 * [JFB()]  # the callback, and the probe, see the network's own rule
    assert [row["gamma"] is not None for row in run.record["epochs"]] == [True, True, True]
    # an unrolled network makes no iteration
    assert ["steps_mean" in row for row in run.record["epochs"]] == [False, False, True]
    assert run.record["config"]["pretrain"] == 2
    assert run.record["config"]["pretrain_steps"] == 4
    # what is pretrained for an epoch is what unrolling trains in it, and then the rule goes on
    one, other = (
        train(small(epochs=2, reestimate=0, **changes)) for changes in ({"pretrain": 1}, {"rule": Unrolled(10)})
    )
    assert one.record["epochs"][0]["loss"] == other.record["epochs"][0]["loss"]
    assert one.record["epochs"][1]["loss"] != other.record["epochs"][1]["loss"]
    # and a run that is stopped within goes on to the same weights
    plan = small(epochs=3, pretrain=2, reestimate=0)
    with pytest.raises(Stop):
        train(plan, tmp_path / "stopped", callback=stop_after(1))
    resumed = train(plan, tmp_path / "stopped", resume=True)
    assert same(train(plan).network.state_dict(), resumed.network.state_dict())


def test_the_rules_are_compared_on_the_probe():
    cosines = train(small(compare=True)).record["epochs"][-1]["cosines"]
    assert cosines["exact, gmres"] == pytest.approx(1, abs=1e-5)
    assert 0.8 < cosines["JFB"] < cosines["NeumannSeries(6), λ = 1"] < 1
    # the run's own rule as well, where that is none of the book's; an exact one would add nothing
    row = train(small(epochs=1, compare=True, radius=True, rule=NeumannSeries(3, 0.8))).record["epochs"][-1]
    assert row["cosines"].keys() - cosines.keys() == {"NeumannSeries(3), λ = 0.8"}
    assert row["cosines"]["JFB"] < row["cosines"]["NeumannSeries(3), λ = 0.8"] < 1
    assert 0 < row["spectral_radius"] <= row["gamma"]
    exact = train(small(epochs=1, compare=True, rule=ImplicitDifferentiation(tol=1e-3))).record["epochs"][-1]
    assert exact["cosines"].keys() == cosines.keys()
    assert "spectral_radius" not in exact


def test_statistics_are_measured_anew_and_weights_left_alone():
    lagging, anew = (train(small(reestimate=count)).network.state_dict() for count in (0, 100))
    changed = {name for name in lagging if not torch.equal(lagging[name], anew[name])}
    assert changed
    assert all("running" in name or "num_batches" in name for name in changed)


def test_the_average_of_the_last_fifth_is_what_is_tested():
    """Ten steps, the last two of which are averaged: the first is copied, the second mixed in with 1 − 0.9."""
    seen = []
    step = torch.optim.Adam.step

    def watched(self, closure=None):
        result = step(self, closure)
        seen.append(self.param_groups[0]["params"][0].detach().clone())
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", watched)
        run = train(small(epochs=1, images=500, average=0.9, batch=50))
    assert len(seen) == 10
    torch.testing.assert_close(next(run.network.parameters()).data, 0.9 * seen[8] + 0.1 * seen[9])


def test_the_average_of_a_single_step_is_its_weights():
    averaged, plain = (train(small(epochs=1, images=100, batch=100, average=average)).network for average in (0.9, 0.0))
    for mine, its in zip(averaged.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, its)


def test_products_are_those_of_the_rule():
    row = train(small(rule=NeumannSeries(6), epochs=1)).record["epochs"][0]
    assert row["products"] == 5 * 4  # four batches


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # PyTorch's own
def test_compiled(monkeypatch):
    compiled: list[nn.Module] = []
    modes: list[bool] = []

    def backend(graph, inputs):
        modes.append(compiled[0].training)
        return aot_eager(graph, inputs)

    def with_backend(module):
        compiled.append(module)
        original(module, backend=backend)

    original, aot_eager = nn.Module.compile, lookup_backend("aot_eager")
    monkeypatch.setattr(nn.Module, "compile", with_backend)
    torch.compiler.reset()
    run = train(small(compile=True, held_out=100))
    assert len(compiled) == 3
    assert len(modes) >= 3
    assert all(modes), "what is done between epochs and at the end is not worth compiling"
    plain = train(small(held_out=100))
    assert run.record.curve("loss") == pytest.approx(plain.record.curve("loss"), rel=1e-3)


def test_a_gpu_gets_its_number(monkeypatch):
    """`torch.cuda.set_device` refuses a device without one, which is what a run on the only GPU has."""
    seen = []

    def set_device(device):
        assert torch.device(device).index is not None
        seen.append(device)

    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert loop.Processes(torch.device("cuda")).device == torch.device("cuda", 0)
    assert loop.Processes(torch.device("cuda", 1)).device == torch.device("cuda", 1)
    assert seen == [torch.device("cuda", 0), torch.device("cuda", 1)]


@pytest.mark.parametrize("tuned", [False, True])
def test_full_precision_leaves_cudnn_on(tuned):
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=True, benchmark=tuned, allow_tf32=True):
        with full_precision():
            assert cudnn.enabled
            assert cudnn.benchmark == tuned
            assert not cudnn.allow_tf32
            assert torch.get_float32_matmul_precision() == "highest"
        assert cudnn.allow_tf32


class Stop(Exception):
    pass


def stop_after(epoch):
    def callback(row, network):
        if row["epoch"] > epoch:
            raise Stop

    return callback


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimiser": "sgd", "lr": 0.05},
        {"optimiser": "muon", "lr": 0.05},
        {"average": 0.9},
        {"rule": NeumannSeries(3)},
    ],
    ids=str,
)
def test_a_resumed_run_gives_the_same_weights_bit_for_bit(tmp_path, changes):
    made = small(epochs=4, crop=1, **changes)
    whole = train(made, tmp_path / "whole")
    for epoch in (1, 2):
        with pytest.raises(Stop):
            train(made, tmp_path / "parts", resume=True, callback=stop_after(epoch))
    run = train(made, tmp_path / "parts", resume=True)
    assert run.record["resumed_after"] == [1, 2]
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert run.record.curve("loss") == whole.record.curve("loss")
    # resuming what is finished gives it back
    again = train(made, tmp_path / "parts", resume=True)
    assert again.record == json.loads(json.dumps(run.record))
    assert same(again.network.state_dict(), run.network.state_dict())


def test_so_does_the_recipe_for_a_gpu(tmp_path, monkeypatch):
    """Our CIFAR-10 network: bfloat16, channels_last, augmentation, averaging, SGD."""
    noise = torch.Generator().manual_seed(0)
    for split in ("train", "test"):
        for name in ("dark", "light"):
            folder = tmp_path / "data" / "noise" / split / name
            folder.mkdir(parents=True)
            for i in range(20):
                pixels = torch.randint(128, (32, 32, 3), generator=noise) + 127 * (name == "light")
                Image.fromarray(pixels.to(torch.uint8).numpy()).save(folder / f"{i}.png")
    monkeypatch.setenv("JFB_DATA", str(tmp_path / "data"))
    small = {"epochs": 3, "batch": 10, "reestimate": 20, "probe": 0, "compile": False, "lr": 0.01}
    made = recipe("noise", "full", network="fast_cifar10", **small)
    assert made.precision == "bfloat16"
    assert made.channels_last
    assert made.average
    whole = train(made, tmp_path / "whole")
    with pytest.raises(Stop):
        train(made, tmp_path / "parts", callback=stop_after(1))
    run = train(made, tmp_path / "parts", resume=True)
    assert run.record["resumed_after"] == [1]
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert run.record["result"]["test_accuracy"] == whole.record["result"]["test_accuracy"]


def test_killed_at_random_moments(tmp_path):
    done = subprocess.run(
        [sys.executable, HERE / "killed.py", tmp_path, "10"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kills, _ = map(int, done.stdout.split())
    assert kills == 10
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == [
        "model.safetensors",
        "record.json",
    ]


def test_a_folder_that_is_in_use_is_not_overwritten(tmp_path, finished):
    _, out = finished
    before = (out / "record.json").read_bytes()
    with pytest.raises(FileExistsError, match=r"a finished run; choose another folder, or go on with it by --resume"):
        train(recipe("digits", "smoke", held_out=200), out)
    with pytest.raises(ValueError, match=r"has another recipe: lr was 0\.005 and is 0\.1; give the same"):
        train(recipe("digits", "smoke", held_out=200, lr=0.1), out, resume=True)
    assert (out / "record.json").read_bytes() == before
    with pytest.raises(Stop):
        train(small(), tmp_path, callback=stop_after(1))
    with pytest.raises(FileExistsError, match="a run under way"):
        train(small(), tmp_path)
    with pytest.raises(ValueError, match="seed was 0 and is 1"):
        train(small(seed=1), tmp_path, resume=True)


def test_damaged_states_are_named(tmp_path):
    with pytest.raises(Stop):
        train(small(), tmp_path, callback=stop_after(1))
    (file,) = tmp_path.glob("checkpoint-*.safetensors")
    content = file.read_bytes()
    file.write_bytes(content[:-10])
    with pytest.raises(ValueError, match=r"checkpoint-0001.safetensors is truncated"):
        train(small(), tmp_path, resume=True)
    file.write_bytes(content)
    state = (tmp_path / "state.json").read_text()
    (tmp_path / "state.json").write_text(state[:-20])
    with pytest.raises(ValueError, match=r"state.json is not readable"):
        train(small(), tmp_path, resume=True)
    (tmp_path / "state.json").write_text(state)
    (tmp_path / files._make_part_name("model.safetensors")).write_text("what a killed run left")
    train(small(), tmp_path, resume=True)
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "record.json"}


def test_only_the_latest_checkpoint_is_kept(tmp_path):
    folders = []

    def watch(row, network):
        folders.append({path.name for path in tmp_path.iterdir()})

    train(small(epochs=3, probe=0), tmp_path, callback=watch)
    # a row is looked at before its epoch is saved
    assert folders == [set(), *({f"checkpoint-000{n}.safetensors", "state.json"} for n in (1, 2))]


def test_a_run_that_code_of_two_versions_made_is_old(tmp_path, monkeypatch):
    with pytest.raises(Stop):
        train(small(), tmp_path, callback=stop_after(1))
    monkeypatch.setattr(records, "TRAINING_VERSION", records.TRAINING_VERSION + 1)
    record = train(small(), tmp_path, resume=True).record
    assert record["training_version"] == records.TRAINING_VERSION - 1
    assert record.stale


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    made = small(epochs=3)
    with pytest.raises(Stop):
        train(made, tmp_path, callback=stop_after(1))
    step = torch.optim.Adam.step
    calls = []

    def explode(self, closure=None):
        calls.append(1)
        if len(calls) == 3:
            for group in self.param_groups:
                for parameter in group["params"][-1:]:
                    parameter.grad.fill_(math.inf)
        return step(self, closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", explode)
        with pytest.raises(
            FloatingPointError, match="the loss is nan in batch 4 of epoch 2; the checkpoint of the epoch before"
        ):
            train(made, tmp_path, resume=True)
    assert json.loads((tmp_path / "state.json").read_text())["checkpoint"] == "checkpoint-0001.safetensors"
    run = train(made, tmp_path, resume=True)
    assert same(run.network.state_dict(), train(made).network.state_dict())


def test_a_loss_that_was_not_finite_earlier_is_found_where_losses_are_read_late():
    """On a GPU the loss is not read in every step, and the next step may fail in the solver."""
    late = meter.Meter(3)
    late.sums = {"loss": [torch.tensor(1.0), torch.tensor(math.nan)]}
    with pytest.raises(FloatingPointError, match="the loss is nan in batch 2 of epoch 3"):
        late.located(FloatingPointError("T(u) is not finite at step 1"), 2)


def test_contraction_is_a_bound_for_the_batch():
    """T couples the samples: a sample's own ratio is infinite, the batch's is that of T."""
    solver = FixedPointIteration(tol=1e-3, max_steps=20)
    last = solver(lambda u: 0.5 * u.flip(0) + 1, torch.tensor([[0.0], [2.0 - 1e-9]], dtype=torch.float64))
    assert float(meter._largest_ratio(last, solver)) == pytest.approx(0.5)
    assert float(meter._largest_ratio(last, Anderson(tol=1e-3))) == -math.inf
    assert train(small(epochs=1, solver=Anderson(tol=1e-3))).record["epochs"][0]["contraction"] is None


def test_the_seconds_of_a_resumed_run_are_all_of_them(tmp_path):
    with pytest.raises(Stop):
        train(small(), tmp_path, callback=stop_after(1))
    before = json.loads((tmp_path / "state.json").read_text())["seconds"]
    assert train(small(), tmp_path, resume=True).record["result"]["seconds"] > before > 0


def test_weights_that_are_not_finite_are_not_saved(tmp_path, monkeypatch):
    step = torch.optim.Adam.step
    calls = []

    def explode(self, closure=None):
        calls.append(1)
        if len(calls) == 4:  # the last step of the first epoch
            self.param_groups[0]["params"][-1].grad.fill_(math.nan)
        return step(self, closure)

    monkeypatch.setattr(torch.optim.Adam, "step", explode)
    with pytest.raises(FloatingPointError, match="after the last batch of epoch 1 the weights are not finite"):
        train(small(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_iteration_that_runs_away_says_in_which_batch():
    with pytest.raises(FloatingPointError, match=r"^in batch \d+ of epoch 1: .* not finite at step \d+"):
        train(small(batch_norm=False, gamma=50.0, solver=FixedPointIteration(max_steps=500)))
    with pytest.raises(RuntimeError, match=r"^in batch 1 of epoch 1: gmres left the adjoint equation unsolved"):
        train(small(rule=ImplicitDifferentiation(tol=1e-6, max_steps=1)))


def test_rescaling_is_for_one_process(monkeypatch):
    both = types.SimpleNamespace(world=2, rank=0, device=torch.device("cpu"), together=contextlib.nullcontext)
    monkeypatch.setattr(loop, "Processes", lambda device: both)
    with pytest.raises(ValueError, match="norm='rescaling' looks at the images of one process"):
        train(small(batch_norm=False, norm="rescaling"))


def test_running_out_of_memory_says_what_fits(monkeypatch):
    step = loop._Training._step
    held: list[weakref.ref] = []

    def small_memory(self, images, labels, *rest):
        assert not any(reference() is not None for reference in held)  # the failed step's tensors are gone
        if len(labels) > 13:
            graph = torch.ones(len(labels), requires_grad=True) * 2
            held.append(weakref.ref(graph))
            raise torch.OutOfMemoryError("CUDA out of memory")
        step(self, images, labels, *rest)

    monkeypatch.setattr(loop._Training, "_step", small_memory)
    with pytest.raises(torch.OutOfMemoryError, match=r"batch 50 needs more memory than .* has; 12 fits: --batch 12"):
        train(small())


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    write = checkpoints.write

    def full(path, content):
        if path.name == "checkpoint-0002.safetensors":
            raise OSError(28, f"could not write {path}")
        write(path, content)

    made = small(epochs=3)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write", full)
        with pytest.raises(OSError, match=r"could not write .*checkpoint-0002"):
            train(made, tmp_path)
    run = train(made, tmp_path, resume=True)
    assert run.record["resumed_after"] == [1]
    assert same(run.network.state_dict(), train(made).network.state_dict())


WORKER = """
import sys
from jfb_tutorial.training.recipes import recipe
from jfb_tutorial.training import train
train(
    recipe("digits", "smoke", epochs=2, images=210, batch=51, precision="float64", norm="group", dropout=False, crop=1,
           solver="FixedPointIteration(max_steps=8, check_every=0)", probe=0),
    sys.argv[1],
)
"""


def test_two_processes_give_one_processs_epoch(tmp_path):
    """Batches of 51 images, 26 and 25 for the two, and a last one of 6; 8 fixed steps, no dropout, float64."""
    (tmp_path / "worker.py").write_text(WORKER)
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for command, out in (([sys.executable], "one"), (two, "two")):
        done = subprocess.run(
            [*command, tmp_path / "worker.py", tmp_path / out],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    one, both = (records.read(tmp_path / out / "record.json") for out in ("one", "two"))
    assert (one["processes"], both["processes"]) == (1, 2)
    for key in ("loss", "accuracy", "residual_mean", "residual_worst"):
        assert one.curve(key) == pytest.approx(both.curve(key), rel=1e-10)
    alone, together = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert max(float((alone[name] - together[name]).abs().max()) for name in alone) < 1e-10
    assert one["result"]["test_loss"] == pytest.approx(both["result"]["test_loss"], rel=1e-10)


def test_several_seeds_under_torchrun(tmp_path):
    """A process group cannot be joined twice; the second run uses that of the first."""
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = ["-m", "jfb_tutorial", "train", "digits", "--scale", "smoke", "--epochs", "1", "--seeds", "2", "--quiet"]
    done = subprocess.run(
        [*two, *command, "--out", tmp_path],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 seeds: test accuracy") == 1
    assert done.stdout.count("seed 0: ") == 1


@pytest.fixture
def generated(tmp_path, monkeypatch):
    """Image folders under the names of the real data sets: ten classes, told apart by the position of a bright spot."""
    noise = torch.Generator().manual_seed(0)
    for name, size in (("mnist", (28, 28)), ("svhn", (32, 32, 3)), ("cifar10", (32, 32, 3))):
        for split, count in (("train", 22), ("test", 4)):
            for label in range(10):
                folder = tmp_path / "data" / name / split / str(label)
                folder.mkdir(parents=True)
                for number in range(count):
                    image = torch.randint(60, size, generator=noise, dtype=torch.uint8)
                    row, column = divmod(label, 4)
                    image[8 * row : 8 * row + 6, 7 * column : 7 * column + 6] += 150
                    Image.fromarray(image.numpy()).save(folder / f"{number}.png")
    monkeypatch.setenv("JFB_DATA", str(tmp_path / "data"))
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [["mnist"], ["svhn"], ["cifar10"], ["cifar10", "--network", "cifar10"], ["mnist", "--explicit"]],
    ids=" ".join,
)
def test_every_data_set_from_the_command_line(generated, capsys, arguments):
    out = generated / "out"
    assert main(["train", *arguments, "--out", str(out), "--scale", "smoke", "--quiet"]) == 0
    record = records.read(out / "record.json")
    assert record["result"]["test_images"] == 40
    assert math.isfinite(record["result"]["test_loss"])
    assert f"{arguments[0]}, seed 0: test accuracy" in capsys.readouterr().out
    assert main(["evaluate", str(out / "model.safetensors")]) == 0
    assert capsys.readouterr().out.count(f"accuracy {100 * record['result']['test_accuracy']:.2f}%") == 2


def test_a_network_of_another_shape_is_refused(generated, capsys):
    assert main(["train", "svhn", "--network", "mnist", "--out", str(generated / "x"), "--scale", "smoke"]) == 1
    assert "(batch, 1, 28, 28), got (1, 3, 32, 32)" in capsys.readouterr().err


def test_splits_with_other_classes_are_refused(generated, capsys):
    command = ["train", "mnist", "--scale", "smoke", "--quiet", "--out"]
    assert main([*command, str(generated / "whole")]) == 0
    shutil.rmtree(generated / "data" / "mnist" / "test" / "0")
    capsys.readouterr()
    assert main([*command, str(generated / "x")]) == 1
    assert "mnist must have the same classes in train and test, but 0 is in one of them only" in capsys.readouterr().err
    assert main(["evaluate", str(generated / "whole" / "model.safetensors")]) == 1
    assert "has other classes than the network was trained on" in capsys.readouterr().err


def test_several_seeds_from_the_command_line(tmp_path, capsys):
    command = [
        "train",
        "digits",
        "--scale",
        "smoke",
        "--epochs",
        "1",
        "--seeds",
        "2",
        "--quiet",
        "--out",
        str(tmp_path),
    ]
    assert main(command) == 0
    assert "2 seeds: test accuracy" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"seed-0", "seed-1", "curves.png"}
    assert main(command) == 1
    assert "a finished run" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "digts", "--out", "x"], "did you mean 'digits'"),
        (["train", "digits", "--out", "x", "--rule", "JBF"], "did you mean 'JFB'"),
        (["train", "digits", "--out", "x", "--scale", "ful"], "did you mean 'full'"),
        (["train", "digits", "--out", "x", "--seeds", "0"], "--seeds must be at least 1"),
        (["train", "digits", "--out", "x", "--seeds", "2", "--seed", "1"], "leave --seed out, or --seeds"),
        (["train", "digits", "--out", "x", "--explicit", "--rule", "NeumannSeries(3)"], "leave rule out"),
        (["train", "digits", "--out", "file"], "out must be a folder, but file is a file"),
        (["train", "digits", "--out", "x", "--held-out", "3"], "held_out must be between 10"),
        (["train", "digits", "--out", "x", "--images", "9999"], "images must be at most the 1437"),
        (["train", "digits", "--out", "x", "--batch", "9999"], "batch must be at most"),
        (["evaluate", "nowhere.safetensors"], "there is no checkpoint nowhere.safetensors"),
        (["data", "mnist"], "mnist was not found"),
        (["bench", "minst"], "did you mean 'mnist'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_on_the_command_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JFB_DATA", str(tmp_path))
    (tmp_path / "file").write_text("")
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"python -m jfb_tutorial {arguments[0]}: ")
    assert message in error
    assert error.count("\n") == 1


def test_the_data_and_bench_commands(tmp_path, monkeypatch, capsys, finished):
    monkeypatch.setenv("JFB_DATA", str(tmp_path))
    assert main(["data"]) == 0
    printed = capsys.readouterr().out
    assert f"data root: {tmp_path}" in printed
    assert "digits: 1,437 of 1×8×8" in printed
    assert "svhn is not there. Two ways" in printed
    checkpoint = str(finished[1] / "model.safetensors")
    assert main(["bench", checkpoint, "--rounds", "1", "--batch", "4", "--rules", "JFB", "NeumannSeries(3)"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("NeumannSeries(3), λ = 1") == 2
    assert "times the fastest" in printed
    assert main([]) == 0
    assert "train" in capsys.readouterr().out


def test_the_network_is_an_implicit_network(finished):
    assert isinstance(finished[0].network, ImplicitNetwork)
    assert not finished[0].network.training
