"""The folder of a run: it removes and replaces only what it has made, belongs to one run at a time, and believes no file."""

import contextlib
import errno
import functools
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from jfb_tutorial.__main__ import main
from jfb_tutorial.training import checkpoints, data, files, folder, locks, records, train
from jfb_tutorial.training.forms import COUNT, NUMBER, check_form
from jfb_tutorial.training.recipes import recipe

PLAN = recipe("digits", "smoke", epochs=3, images=60, batch=30, reestimate=0, probe=0)
COMMAND = ["train", "digits", "--scale", "smoke", "--epochs", "3", "--images", "60", "--batch", "30"]
COMMAND += ["--reestimate", "0", "--probe", "0", "--quiet", "--out"]
ODD: tuple[Any, ...] = (None, "", -1, math.inf, [], {}, "long " * 50, True)


class Stop(Exception):
    pass


def stop_in_third_epoch(row, network):
    if row["epoch"] == 3:
        raise Stop


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run that was stopped after two epochs, in `under_way`, and the same run finished, in `finished`."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.raises(Stop):
        train(PLAN, root / "under_way", callback=stop_in_third_epoch)
    shutil.copytree(root / "under_way", root / "finished")
    train(PLAN, root / "finished", resume=True)
    return root


@pytest.fixture
def under_way(runs, tmp_path):
    return Path(shutil.copytree(runs / "under_way", tmp_path / "run"))


@pytest.fixture
def finished(runs, tmp_path):
    return Path(shutil.copytree(runs / "finished", tmp_path / "run"))


def names(out):
    return {path.name for path in out.iterdir()}


def contents(out):
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


# What is the user's


@pytest.mark.parametrize(
    "name", ["model.safetensors", "record.json", "state.json", "curves.png", "checkpoint-0001.safetensors"]
)
@pytest.mark.parametrize("resume", [False, True])
def test_files_that_a_run_would_write_over_are_refused(tmp_path, capsys, name, resume):
    (tmp_path / name).write_text("mine")
    assert main([*COMMAND, str(tmp_path), *["--resume"] * resume]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert name in error or "holds a" in error
    assert "remove" not in error
    assert contents(tmp_path) == {name: b"mine"}


def test_other_files_are_left_alone(tmp_path):
    mine = {"checkpoint-best.safetensors", ".notes.part", ".model.safetensors.1.part", "state.json.old", "a.txt"}
    mine.add(f".model.safetensors.{'0' * 32}.part")
    for name in mine:
        (tmp_path / name).write_text("mine")
    with pytest.raises(Stop):
        train(PLAN, tmp_path, callback=stop_in_third_epoch)
    assert names(tmp_path) == mine | {"checkpoint-0002.safetensors", "state.json"}
    (tmp_path / "checkpoint-9999.safetensors").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds checkpoint-9999.safetensors, which this run has not made"):
        train(PLAN, tmp_path, resume=True)
    (tmp_path / "checkpoint-9999.safetensors").unlink()
    train(PLAN, tmp_path, resume=True)
    assert names(tmp_path) == mine | {"model.safetensors", "record.json"}
    assert {(tmp_path / name).read_text() for name in mine} == {"mine"}


def test_a_run_that_dies_at_once_has_removed_nothing(tmp_path):
    (tmp_path / "a.txt").write_text("mine")
    with pytest.raises(ValueError, match="images must be at most"):
        train(PLAN.replace(images=5000), tmp_path)
    assert contents(tmp_path) == {"a.txt": b"mine"}


def test_what_a_killed_run_left_is_its_own(under_way, runs, monkeypatch):
    """In the middle of a write; between a checkpoint and the state that names it; between the network and the record."""
    (under_way / files._make_part_name("model.safetensors")).write_text("half")
    kept = files._make_part_name("notes.txt")
    (under_way / kept).write_text("another command's, which may be at work")
    orphan = (under_way / "checkpoint-0002.safetensors").read_bytes()
    (under_way / "checkpoint-0001.safetensors").write_bytes(orphan)
    shutil.copy(runs / "finished" / "model.safetensors", under_way)
    train(PLAN, under_way, resume=True)
    assert names(under_way) == {kept, "model.safetensors", "record.json"}


def test_a_run_that_was_killed_before_its_first_state_begins_anew(under_way):
    (under_way / "state.json").unlink()
    with pytest.raises(FileExistsError, match=r"holds checkpoint-0002.safetensors, which this run has not made"):
        train(PLAN.replace(seed=1), under_way, resume=True)  # it is another run's
    with pytest.raises(FileExistsError, match=r"holds checkpoint-0002.safetensors"):
        train(PLAN, under_way)
    run = train(PLAN, under_way, resume=True)
    assert run.record["resumed_after"] == []
    assert names(under_way) == {"model.safetensors", "record.json"}


def test_a_record_that_was_altered_is_not_believed(finished, capsys):
    path = finished / "record.json"
    record = json.loads(path.read_text())
    record["result"]["test_accuracy"] = 0.999
    path.write_text(json.dumps(record))
    assert main([*COMMAND, str(finished), "--resume"]) == 1
    found = capsys.readouterr()
    assert "record.json was altered, or is of another run: its result is not the one in" in found.err
    assert "99.90" not in found.out


def test_a_run_that_was_killed_after_its_record_is_finished(runs, finished):
    for path in (runs / "under_way").iterdir():
        shutil.copy(path, finished)
    train(PLAN, finished, resume=True)
    assert names(finished) == {"model.safetensors", "record.json"}
    # the state of another run is not removed
    (finished / "state.json").write_text("{}")
    train(PLAN, finished, resume=True)
    assert names(finished) == {"model.safetensors", "record.json", "state.json"}


def test_a_checkpoint_of_before_they_named_their_run_goes_on(under_way):
    path = under_way / "checkpoint-0002.safetensors"
    tensors, _ = checkpoints.load(path)
    checkpoints.save(path, tensors, {"kind": "state", "epoch": 2})
    # as an older commit could leave it, killed between two renames
    checkpoints.save(under_way / "checkpoint-0003.safetensors", tensors, {"kind": "state", "epoch": 3})
    train(PLAN, under_way, resume=True)
    assert names(under_way) == {"model.safetensors", "record.json"}


def test_a_folder_must_have_a_name(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*COMMAND, ""])
    assert "--out: give it a name; the current folder is '.'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="out must name a folder"):
        train(PLAN, "")


def test_the_picture_of_a_finished_run_is_drawn_again(finished, capsys):
    assert main([*COMMAND, str(finished), "--resume"]) == 0
    picture = (finished / "curves.png").read_bytes()
    (finished / "curves.png").write_bytes(b"cut off")
    assert main([*COMMAND, str(finished), "--resume"]) == 0
    assert (finished / "curves.png").read_bytes() == picture


@pytest.mark.parametrize("name", ["state.json", "record.json", "model.safetensors", "curves.png"])
def test_outputs_are_files(tmp_path, capsys, name):
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "elsewhere")
    assert main([*COMMAND, str(tmp_path / "run"), "--resume"]) == 1
    error = capsys.readouterr().err
    assert f"{name} is a link, and only a file can be written over" in error
    assert error.count("\n") == 1
    assert (tmp_path / "elsewhere").read_text() == "mine"
    assert names(tmp_path / "run") == {name}


def test_nothing_but_files_is_written_over(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for path, kind in (("pipe", "a device or a pipe"), ("folder", "a folder"), ("link", "a link")):
        with pytest.raises(FileExistsError, match=kind):
            files.write(tmp_path / path, b"x")
    # only asked for: were the check broken, a write would take the device away from the whole machine
    with pytest.raises(FileExistsError, match="a device"):
        files.check_target(Path("/dev/zero"))
    assert names(tmp_path) == {"pipe", "folder", "link"}


def test_a_report_is_not_written_over_a_link(finished, capsys):
    (finished / "mine").write_text("mine")
    (finished / "link.png").symlink_to("mine")
    for option in ("--out", "--picture"):
        assert main(["inspect", str(finished / "model.safetensors"), option, str(finished / "link.png")]) == 1
        shown = capsys.readouterr()
        assert "link.png is a link, and only a file can be written over" in shown.err
        assert not shown.out  # before the images are looked at
        with pytest.raises(SystemExit, match="2"):
            main(["inspect", str(finished / "model.safetensors"), option, ""])
    assert (finished / "mine").read_text() == "mine"


def test_temporary_names_are_new_and_cannot_be_prepared(tmp_path, monkeypatch):
    seen = []
    rename = os.replace

    def watch(part, path):
        seen.append(part.name)
        rename(part, path)

    monkeypatch.setattr(files.os, "replace", watch)
    for _ in range(2):
        files.write(tmp_path / "a", b"x")
    assert len(set(seen)) == 2
    assert [files.read_part_name(name) for name in seen] == ["a", "a"]
    assert files.read_part_name(seen[0].replace(".a.", ".b.")) is None
    monkeypatch.setattr(files, "_make_part_name", lambda name: ".guessed")
    (tmp_path / "victim").write_text("mine")
    (tmp_path / ".guessed").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="could not write"):
        files.write(tmp_path / "a", b"y")
    assert (tmp_path / "victim").read_text() == "mine"


# One run at a time


def test_a_second_run_is_locked_out_from_the_beginning(tmp_path):
    def second(row, network):
        with pytest.raises(FileExistsError, match=r"another run is at work in .*; choose another folder, or wait"):
            train(PLAN.replace(seed=1), tmp_path, resume=True)
        raise Stop

    with pytest.raises(Stop):
        train(PLAN, tmp_path, callback=second)  # in its first epoch, before it has written anything
    assert not names(tmp_path)
    with locks.hold(tmp_path):  # what ended holds nothing
        pass


HOLD = """
import runpy, sys, time
from pathlib import Path
# the file alone: the package would take seconds
with runpy.run_path(sys.argv[1])["hold"](Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_killed_process_holds_nothing(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, locks.__file__, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(FileExistsError, match="another run is at work"), locks.hold(tmp_path):
            pass
        other.kill()
        other.wait()
        with locks.hold(tmp_path):
            pass
    assert not names(tmp_path)


@pytest.mark.parametrize("where", ["NFS", "Windows"])
def test_where_folders_cannot_be_locked_a_file_is(tmp_path, monkeypatch, where):
    def refuse(*_):
        raise OSError(errno.EBADF, "Bad file descriptor")

    if where == "Windows":
        monkeypatch.setattr(locks, "fcntl", None)
    else:
        monkeypatch.setattr(locks, "_lock_descriptor", refuse)
    with locks.hold(tmp_path), pytest.raises(FileExistsError, match="another run is at work"), locks.hold(tmp_path):
        pass
    with locks.hold(tmp_path):
        pass


# A network and its record


def test_a_record_names_its_network(finished, tmp_path, capsys):
    record = records.read(finished / "record.json")
    assert record["model"] == checkpoints.digest(finished / "model.safetensors")
    another = checkpoints.load_network(finished / "model.safetensors")
    torch.nn.init.zeros_(next(another.parameters()))
    checkpoints.save_network(finished / "model.safetensors", another, PLAN)
    for command in ([*COMMAND, str(finished), "--resume"], ["evaluate", str(finished / "model.safetensors")]):
        assert main(command) == 1
        error = capsys.readouterr().err
        assert "are of two runs" in error
        assert error.count("\n") == 1
    shutil.copy(finished / "model.safetensors", tmp_path / "kept.safetensors")
    checkpoints.load_network(tmp_path / "kept.safetensors")
    shutil.copy(finished / "record.json", tmp_path / "kept.json")
    with pytest.raises(ValueError, match="are of two runs"):
        checkpoints.load_network(tmp_path / "kept.safetensors")
    # older records do not name theirs
    del record["model"]
    records.save(finished / "record.json", record)
    checkpoints.load_network(finished / "model.safetensors")


# What files say is not believed


def mutants(value, path=()):
    """Copies of a value with one of its parts replaced by something odd, or missing, and where that is."""
    # the fields of a recipe are compared alike
    for odd in ODD[:2] if path[:-1] in (("recipe",), ("config",)) else ODD:
        if odd != value or type(odd) is not type(value):
            yield path, odd
    if path:
        yield path, mutants  # stands for: delete it
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from mutants(inner, (*path, key))


def changed(value, path, new):
    if not path:
        return new
    copy = json.loads(json.dumps(value))
    place = copy
    for key in path[:-1]:
        place = place[key]
    if new is mutants:
        del place[path[-1]]
    else:
        place[path[-1]] = new
    return copy


@pytest.fixture
def no_training(monkeypatch):
    """A run that would begin or go on raises, which `main` does not catch."""

    class Begun(BaseException):
        pass

    def begin(self, *_):
        raise Begun

    monkeypatch.setattr("jfb_tutorial.training.loop._Training._epoch", begin)
    monkeypatch.setattr(data, "load", functools.cache(data.load))  # once, and not for each case
    return Begun


def run_in_a_line(command, capsys):
    """The status of a command; what it says of an error is one line, which moves no cursor."""
    status = main(command)
    error = capsys.readouterr().err
    assert status in (0, 1)
    assert error.count("\n") == status, error
    assert error.rstrip("\n").isprintable()
    return status, error


def fault_of(action):
    """What a call says is wrong, as `main` would print it; "" where nothing is."""
    fault = ""
    try:
        action()
    except (ValueError, OSError) as error:
        fault = str(error)
    assert fault.isprintable()
    return fault


@pytest.mark.parametrize(
    ("value", "form", "fault"),
    [
        (math.inf, NUMBER, "what it holds must be a number, got inf"),
        (True, NUMBER, "must be a number, got True"),
        (-1, COUNT, "must be a whole number from 0 on, got -1"),
        (1.0, COUNT, "must be a whole number from 0 on"),
        ({"a": [{"b": 1}, {}]}, {"a": [{"b": COUNT}]}, r"a\[1\].b is missing"),
        ({"a": [{"b": 1}, {"b": "x"}]}, {"a": [{"b": COUNT}]}, r"a\[1\].b must be a whole number"),
        ({"x\x1b": "long " * 50}, {"*": COUNT}, r"x\\x1b must be .*got 'long .{0,60}…;"),
        ([], {"a?": COUNT}, "must be an object"),
    ],
)
def test_a_fault_names_the_file_and_the_field(value, form, fault):
    with pytest.raises(ValueError, match=f"^file.json is damaged or was altered: .*{fault}"):
        check_form("file.json", value, form)


def test_no_altered_state_goes_on(under_way, no_training, capsys):
    state = json.loads((under_way / "state.json").read_text())
    with pytest.raises(no_training):
        main([*COMMAND, str(under_way), "--resume"])
    cases = list(mutants(state))
    assert len(cases) > 300
    longer = state["rows"] + [{**state["rows"][-1], "epoch": 3}]
    for path, new in [*cases, (("rows",), longer), (("seconds",), 1.0), (("rows", 0, "loss"), 1.0)]:
        altered = changed(state, path, new)
        (under_way / "state.json").write_text(json.dumps(altered, indent=1) + "\n")
        status, error = run_in_a_line([*COMMAND, str(under_way), "--resume"], capsys)
        assert status == 1, path
        assert "state.json" in error or str(under_way) in error, path
        assert names(under_way) == {"checkpoint-0002.safetensors", "state.json"}


def test_no_forged_state_raises_what_is_not_caught(under_way, no_training, capsys):
    """As above, with a checkpoint that confirms what the state says, as somebody could make it, and as older commits did."""
    state = json.loads((under_way / "state.json").read_text())
    tensors, about = checkpoints.load(under_way / "checkpoint-0002.safetensors")
    checkpoints.save(under_way / "checkpoint-0002.safetensors", tensors, {"kind": "state", "epoch": 2})
    # the other columns are not looked at
    state["rows"] = [{key: row[key] for key in ("epoch", "loss", "gamma") if key in row} for row in state["rows"]]
    went_on = set()
    for path, new in mutants(state):
        (under_way / "state.json").write_text(json.dumps(changed(state, path, new)))
        try:
            run_in_a_line([*COMMAND, str(under_way), "--resume"], capsys)
        except no_training:
            went_on.add(path)
    # numbers of the past, none of which decides what is trained
    past = {(key,) for key in ("seconds", "resumed", "training_version", "scalars")}
    # and what is compared once the data are read, see test_own
    later = {("identity",), ("identity", "train"), ("identity", "test")}
    assert went_on <= past | later | {("rows", row, column) for row in (0, 1) for column in ("loss", "gamma")}
    (under_way / "state.json").write_text(json.dumps(state))
    for path, new in mutants(about):
        checkpoints.save(under_way / "checkpoint-0002.safetensors", tensors, changed(about, path, new))
        with contextlib.suppress(no_training):
            assert str(under_way) in fault_of(lambda: train(PLAN, under_way, resume=True))


@pytest.mark.parametrize("content", [b"", b"[", b"[" * 100_000, b"1" * 5000, b"\xff\xfe", b"null", b"NaN"])
def test_what_is_no_state_is_named(under_way, no_training, capsys, content):
    (under_way / "state.json").write_bytes(content)
    _, error = run_in_a_line([*COMMAND, str(under_way), "--resume"], capsys)
    assert "state.json" in error
    assert "choose another folder" in error
    assert names(under_way) == {"checkpoint-0002.safetensors", "state.json"}


def test_a_state_names_no_file_elsewhere(under_way, no_training, capsys):
    shutil.copy(under_way / "checkpoint-0002.safetensors", under_way.parent / "checkpoint-0002.safetensors")
    state = json.loads((under_way / "state.json").read_text())
    state["checkpoint"] = "../checkpoint-0002.safetensors"
    (under_way / "state.json").write_text(json.dumps(state))
    _, error = run_in_a_line([*COMMAND, str(under_way), "--resume"], capsys)
    assert "names no checkpoint of a run" in error


def test_only_what_gives_way_gives_way(under_way):
    """A forged `gave_way` does not pass another recipe off as this one."""
    state = json.loads((under_way / "state.json").read_text())
    state |= {"recipe": state["recipe"] | {"lr": 7}, "gave_way": {"lr": 5}}
    (under_way / "state.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match="another recipe: lr was 7"):
        train(PLAN.replace(lr=5), under_way, resume=True)
    state["recipe"] |= {"lr": PLAN.lr, "batch": 20}
    state["gave_way"] = {"batch": 30}
    text = json.dumps(state)
    (under_way / "state.json").write_text(text)
    tensors, about = checkpoints.load(under_way / "checkpoint-0002.safetensors")
    about |= {"recipe": state["recipe"], "gave_way": state["gave_way"]}
    about["state"] = hashlib.sha256(text.encode()).hexdigest()
    checkpoints.save(under_way / "checkpoint-0002.safetensors", tensors, about)
    with pytest.raises(ValueError, match="another recipe: batch was 20 and is 30"):
        train(PLAN, under_way, resume=True)


def test_no_altered_record_is_a_traceback(finished):
    record = json.loads((finished / "record.json").read_text())
    record["epochs"] = record["epochs"][:1]
    for path, new in mutants(record):
        (finished / "record.json").write_text(json.dumps(changed(record, path, new)))
        fault = fault_of(lambda: train(PLAN, finished, resume=True))
        assert not fault or str(finished) in fault, path


@pytest.mark.parametrize("path", [("parameters",), ("result", "test_images"), ("result", "seconds")])
def test_a_finished_record_has_what_is_told_of_it(finished, capsys, path):
    record = json.loads((finished / "record.json").read_text())
    (finished / "record.json").write_text(json.dumps(changed(record, path, mutants)))
    status, error = run_in_a_line([*COMMAND, str(finished), "--resume"], capsys)
    assert status == 1
    assert f"record.json is damaged or was altered: {'.'.join(path)} is missing" in error


def test_no_forged_network_is_a_traceback(finished):
    (finished / "record.json").unlink()
    path = finished / "model.safetensors"
    tensors, about = checkpoints.load(path)
    for where, new in mutants(about):
        checkpoints.save(path, tensors, changed(about, where, new))
        fault = fault_of(lambda: (checkpoints.load_network(path), checkpoints.recall(path)))
        assert not fault or str(path) in fault, where


@pytest.mark.parametrize("build", [{"classes": 10**12}, {"size": 10**7}, {"depth": 3}, {"channels": 0}])
def test_a_network_that_cannot_be_is_refused_before_it_takes_memory(finished, build):
    path = finished / "model.safetensors"
    tensors, about = checkpoints.load(path)
    (finished / "record.json").unlink()
    checkpoints.save(path, tensors, about | {"build": build})
    with pytest.raises(ValueError, match=r"model.safetensors (is a checkpoint of another network|cannot be built)"):
        checkpoints.load_network(path)


def test_weights_of_another_kind_are_refused(finished):
    path = finished / "model.safetensors"
    tensors, about = checkpoints.load(path)
    (finished / "record.json").unlink()
    name = next(iter(tensors))
    checkpoints.save(path, tensors | {name: tensors[name].to(torch.int64)}, about)
    with pytest.raises(ValueError, match=r"has the dtype torch.int64, not torch.float32"):
        checkpoints.load_network(path)


def test_what_a_checkpoint_says_moves_no_cursor(finished, capsys):
    path = finished / "model.safetensors"
    tensors, about = checkpoints.load(path)
    (finished / "record.json").unlink()
    checkpoints.save(path, tensors, about | {"device": "\x1b[2Ja GPU\n", "date": "\r"})
    assert main(["evaluate", str(path)]) == 0
    printed = capsys.readouterr().out
    assert r"on \x1b[2Ja GPU\n, torch" in printed
    assert "\x1b" not in printed


def test_a_solver_without_an_end_is_told_of(finished):
    path = finished / "model.safetensors"
    tensors, about = checkpoints.load(path)
    (finished / "record.json").unlink()
    endless = about["recipe"] | {"evaluation": "FixedPointIteration(max_steps=1000000000)"}
    checkpoints.save(path, tensors, about | {"recipe": endless})
    with pytest.warns(RuntimeWarning, match=r"the evaluation of .* takes very long; .*--solver"):
        checkpoints.load_network(path)


def test_a_state_that_is_not_the_optimisers_is_refused(under_way):
    path = under_way / "checkpoint-0002.safetensors"
    tensors, about = checkpoints.load(path)
    odd = {name.replace("optimiser.0.", "optimiser.first."): tensor for name, tensor in tensors.items()}
    checkpoints.save(path, odd, about)
    with pytest.raises(ValueError, match=r"the state of the optimiser in .*checkpoint-0002.* does not fit the recipe"):
        train(PLAN, under_way, resume=True)


def test_read_state_is_what_is_written(runs):
    state = folder.read_state(runs / "under_way" / "state.json")
    assert [row["epoch"] for row in state["rows"]] == [1, 2]
