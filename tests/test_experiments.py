"""The runs that chapters read, the ledger of reproductions, and the panel for training live."""

import dataclasses
import itertools
import json
import math
import re
import sys

import pytest
import torch
import yaml
from conftest import BOOK

from jfb_tutorial.__main__ import main
from jfb_tutorial.gradients import NeumannSeries
from jfb_tutorial.pages.live import Panel
from jfb_tutorial.pages.provenance import sources
from jfb_tutorial.training import checkpoints, data, experiments, records
from jfb_tutorial.training.evaluation import evaluate
from jfb_tutorial.training.experiments import Experiment, at_scale, missing, read_suites, reproduce
from jfb_tutorial.training.locks import hold
from jfb_tutorial.training.recipes import recipe

sys.path.insert(0, str(BOOK / "_ext"))
import chapters
import reproductions
from reproductions import Answer

SUITES = reproductions.SUITES
ROWS = yaml.safe_load((BOOK / "_reproductions.yml").read_text())


LIST = """
from jfb_tutorial.training.experiments import Experiment
from jfb_tutorial.training.recipes import recipe

plan = recipe("digits", "smoke", epochs=1, images=100, reestimate=0, probe=0)
twin = Experiment("twin", "smoke", plan.replace(explicit=True), range(1))
SUITES = {"digits": (Experiment("jfb", "smoke", plan, range(2)), twin)}
"""


@pytest.fixture
def listed(tmp_path_factory):
    """A list of two short experiments, in a file."""
    path = tmp_path_factory.mktemp("list") / "runs.py"
    path.write_text(LIST)
    return path


@pytest.fixture
def tiny(listed):
    """The suite of two short experiments."""
    return read_suites(listed)["digits"]


def test_reproducing_makes_what_is_missing_and_nothing_else(tiny, listed, tmp_path, monkeypatch, capsys):
    reproduce(tiny, tmp_path, labels=("twin",))
    assert [path.name for path in tmp_path.iterdir()] == ["digits-twin-smoke-0.json"]
    with pytest.raises(
        FileNotFoundError, match=r"no record .*digits-jfb-smoke-0.json; python -m jfb_tutorial reproduce digits"
    ):
        tiny[0].records(tmp_path)
    assert main(["reproduce", "digits", "--runs", str(listed), "--out", str(tmp_path), "--list"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "digits-jfb-smoke-0.json: there is no record",
        "digits-jfb-smoke-1.json: there is no record",
    ]
    assert main(["reproduce", "digits", "--runs", str(listed), "--out", str(tmp_path)]) == 0
    assert not list(missing(tiny, tmp_path))
    made = tiny[0].records(tmp_path)
    assert [record["seed"] for record in made] == [0, 1]
    assert all(record.recipe == tiny[0].recipe.replace(seed=record["seed"]) for record in made)
    before = (tmp_path / "digits-jfb-smoke-0.json").read_bytes()
    reproduce(tiny, tmp_path)
    assert (tmp_path / "digits-jfb-smoke-0.json").read_bytes() == before
    monkeypatch.setattr(records, "TRAINING_VERSION", 0)
    assert {why for _, _, why in missing(tiny, tmp_path)} == {
        "its record was made by an older version of the training code"
    }
    suite = (Experiment("jfb", "smoke", tiny[0].recipe.replace(lr=0.1), range(1)),)
    assert [why for _, _, why in missing(suite, tmp_path)] == ["its record is of another recipe"]


def test_a_suite_keeps_the_trained_network_it_is_asked_to_keep(tiny, tmp_path, monkeypatch):
    plan = tiny[0].recipe
    suite = (Experiment("jfb", "smoke", plan, range(2), "kept.safetensors"),)
    reproduce(suite, tmp_path)
    network = checkpoints.load_network(tmp_path / "kept.safetensors")
    found = evaluate(network, data.load("digits", "test"))
    assert found.accuracy == records.read(tmp_path / "digits-jfb-smoke-0.json")["result"]["test_accuracy"]
    assert (tmp_path / "kept.json").read_text() == (tmp_path / "digits-jfb-smoke-0.json").read_text()
    assert not list(missing(suite, tmp_path))
    kept = (tmp_path / "kept.safetensors").read_bytes()
    (tmp_path / "kept.safetensors").write_bytes(kept[:-9])
    assert [(seed, why) for _, seed, why in missing(suite, tmp_path)] == [(0, "its trained network is damaged")]
    checkpoints.save_network(tmp_path / "kept.safetensors", network, plan)
    assert [(seed, why) for _, seed, why in missing(suite, tmp_path)] == [(0, "its trained network is of another run")]
    (tmp_path / "kept.safetensors").unlink()
    assert [(seed, why) for _, seed, why in missing(suite, tmp_path)] == [(0, "its trained network is not there")]
    reproduce(suite, tmp_path)
    assert (tmp_path / "kept.safetensors").is_file()
    assert (tmp_path / "kept.safetensors").read_bytes() != kept[:-9]


def test_without_a_gpu_the_runs_for_a_gpu_are_not_begun(tiny, tmp_path, monkeypatch):
    suite = tuple(Experiment("jfb", scale, tiny[0].recipe, range(1)) for scale in ("cpu", "full"))
    assert [each.scale for each, *_ in missing(suite, tmp_path)] == ["full" if torch.cuda.is_available() else "cpu"]
    assert [at_scale(suite, "", device) for device in ("cpu", "cuda")] == ["cpu", "full"]
    assert at_scale(SUITES["svhn"], "", "cpu") == "full"  # there is no smaller scale of it
    reproduce(suite, tmp_path, device="cpu")
    assert [path.name for path in tmp_path.glob("*.json")] == ["digits-jfb-cpu-0.json"]
    with pytest.raises(ValueError, match="scale must be one of 'cpu', 'full', got 'ful'; did you mean 'full'"):
        reproduce(suite, tmp_path, scale="ful")


def test_a_killed_reproduction_goes_on(tiny, tmp_path):
    class Stop(Exception):
        pass

    def stop(row, network):
        raise Stop

    with pytest.raises(Stop):
        reproduce(tiny, tmp_path, callback=stop)
    assert (tmp_path / ".runs" / "digits-jfb-smoke-0").is_dir()
    reproduce(tiny, tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 3
    assert not (tmp_path / ".runs").exists()


@pytest.mark.parametrize("name", ["state.json", "record.json"])
@pytest.mark.parametrize("content", ["[]", "null", '{"recipe": 3}', '{"config": {}, "rows": 1}', "", "\x00"])
def test_what_is_odd_under_way_is_begun_anew(tiny, tmp_path, monkeypatch, name, content):
    begun = []
    for label in ("jfb-smoke-0", "twin-smoke-0"):
        (tmp_path / ".runs" / f"digits-{label}").mkdir(parents=True)
        (tmp_path / ".runs" / f"digits-{label}" / name).write_text(content)

    def fail(wanted, under_way, **_):
        begun.append((under_way.name, under_way.exists()))
        raise RuntimeError("not tried here")

    monkeypatch.setattr(experiments, "train", fail)
    with pytest.raises(RuntimeError, match="3 of 3 runs failed"):
        reproduce(tiny, tmp_path)
    assert begun == [(f"digits-{label}", False) for label in ("jfb-smoke-0", "jfb-smoke-1", "twin-smoke-0")]


def test_a_run_that_another_process_makes_is_left_to_it(tiny, tmp_path):
    under_way = tmp_path / ".runs" / "digits-jfb-smoke-0"
    under_way.mkdir(parents=True)
    with hold(under_way), pytest.raises(FileExistsError, match="another run is at work"):
        reproduce(tiny, tmp_path)
    assert under_way.is_dir()


def test_reproduce_is_one_process(tiny, tmp_path, monkeypatch):
    for name, text in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setattr(experiments, "train", pytest.fail)  # which would wait for the other process
    with pytest.raises(ValueError, match="reproduce trains in one process, and WORLD_SIZE is 2"):
        reproduce(tiny, tmp_path)


def test_the_list_is_of_the_experiments_that_are_asked_for(listed, tmp_path, capsys):
    command = ["reproduce", "digits", "--runs", str(listed), "--out", str(tmp_path), "--list", "--only"]
    assert main([*command, "twin"]) == 0
    assert capsys.readouterr().out == "digits-twin-smoke-0.json: there is no record\n"
    assert main([*command, "twni"]) == 1
    assert "did you mean 'twin'" in capsys.readouterr().err


def test_too_little_memory_is_no_failure_of_the_run(tiny, tmp_path, monkeypatch):
    def too_large(*args, **kwargs):
        raise torch.OutOfMemoryError("batch 50 needs more memory than the GPU has; 12 fits: --batch 12")

    monkeypatch.setattr(experiments, "train", too_large)
    with pytest.raises(torch.OutOfMemoryError, match="12 fits"):
        reproduce(tiny, tmp_path)
    assert not (tmp_path / "failed").exists()


def test_what_other_code_left_half_done_is_begun_anew(tiny, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stop(row, network):
        if row["epoch"] > 1:
            raise Stop

    plan = tiny[0].recipe.replace(epochs=2)
    suite = (Experiment("jfb", "smoke", plan, range(1)),)
    with monkeypatch.context() as patch:
        patch.setattr(records, "TRAINING_VERSION", 0)
        with pytest.raises(Stop):
            reproduce(suite, tmp_path, callback=stop)
    reproduce(suite, tmp_path)
    assert not records.read(tmp_path / "digits-jfb-smoke-0.json").stale


def test_a_run_that_fails_does_not_stop_the_others(tiny, tmp_path, monkeypatch):
    bad = tiny[0].recipe.replace(rule="ImplicitDifferentiation(max_steps=1)")
    suite: tuple[Experiment, ...] = (Experiment("bad", "smoke", bad, range(1)), tiny[1])
    with pytest.raises(RuntimeError, match=r"1 of 2 runs failed:\ndigits-bad-smoke-0.json: in batch 1 of epoch 1"):
        reproduce(suite, tmp_path)
    assert not any((tmp_path / ".runs").iterdir())
    assert [path.name for path in tmp_path.glob("*.json")] == ["digits-twin-smoke-0.json"]
    failure = suite[0].failure(tmp_path)
    assert failure is not None
    assert failure["result"]["failed"].startswith("in batch 1 of epoch 1: ")
    assert failure.recipe == bad
    assert suite[1].failure(tmp_path) is None
    reproduce(suite, tmp_path)  # a known failure is not tried again
    suite = (Experiment("bad", "smoke", tiny[0].recipe, range(1)),)
    assert [why for *_, why in missing(suite, tmp_path)] == ["its record is of another recipe"]
    reproduce(suite, tmp_path)
    assert suite[0].failure(tmp_path) is None
    assert (tmp_path / "digits-bad-smoke-0.json").is_file()


def test_unknown_names_are_refused(tiny, listed, tmp_path, capsys):
    assert main(["reproduce", "digit", "--runs", str(listed)]) == 1
    assert "did you mean 'digits'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="did you mean 'jfb'"):
        reproduce(tiny, tmp_path, labels=("jbf",))
    with pytest.raises(FileNotFoundError, match=r"there is no list of runs .*nowhere.py; .* name one by --runs"):
        read_suites(tmp_path / "nowhere.py")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ValueError, match=r"empty.py must define SUITES"):
        read_suites(tmp_path / "empty.py")
    for text, words in {
        "raise SystemExit(3)": "SystemExit: 3",
        "def (": r"SyntaxError: invalid syntax \(.*line 1\)",
        "1 / 0": "ZeroDivisionError: division by zero",
    }.items():
        (tmp_path / "bad.py").write_text(text)
        with pytest.raises(ValueError, match=rf"the list of runs .*bad\.py cannot be read \({words}\); mend it"):
            read_suites(tmp_path / "bad.py")


def test_file_names_are_those_of_one_experiment_each():
    names = [each.file(seed) for suite in SUITES.values() for each in suite for seed in each.seeds]
    assert len(names) == len(set(names))
    for suite in SUITES.values():
        for each in suite:
            assert each.recipe.seed == 0
            assert re.fullmatch(r"[a-z0-9]+-[a-z0-9.-]+-(cpu|full)-0\.json", each.file(0))


def test_the_suite_of_chapter_11():
    suite = SUITES["phantom"]
    labels = [(each.label, each.scale) for each in suite]
    assert len(set(labels)) == len(labels), "--only would mean two experiments"
    assert {each.recipe.dataset for each in suite} == {"digits", "fashion-mnist", "cifar10"}
    assert {each.suite for each in suite} == {"phantom"}
    # every other one is found under the name of its data set
    for name in SUITES.keys() - {"phantom"}:
        assert {(each.suite, each.recipe.dataset) for each in SUITES[name]} == {("", name)}
    sweep = [each for each in suite if each.label.startswith("sweep-")]
    # two rules, six numbers of steps, three dampings; at one step undamped both rules are JFB; two series that stop by themselves
    assert len(sweep) == 2 * 6 * 3 - 1 + 2
    assert len({each.recipe.rule for each in sweep}) == len(sweep)
    assert all(each.recipe.radius and len(each.seeds) >= 2 for each in suite)
    with pytest.raises(FileNotFoundError, match="reproduce phantom --out nowhere makes it"):
        sweep[0].records("nowhere")


def test_every_record_of_the_book_is_of_its_experiment_and_in_the_ledger(site):
    page = (site / "reproductions.html").read_text()
    for path in sorted((BOOK / "records").glob("*-*-*-[0-9].json")):
        record = records.read(path)
        (experiment,) = (
            each for suite in SUITES.values() for each in suite if path.name in [each.file(seed) for seed in each.seeds]
        )
        # also as `reproduce` compares them, which would make again what differs
        wanted = experiment.recipe.replace(seed=record["seed"])
        assert not wanted.differences(record["config"], record.get("gave_way", {})), path.name
        assert "with changes" not in record["commit"], path.name
        assert path.name.rpartition("-")[0] in page, path.name
    for path in sorted((BOOK / "records" / "failed").glob("*.json")):
        failure = records.read(path)
        (experiment,) = (each for suite in SUITES.values() for each in suite if path.name == each.file(failure["seed"]))
        assert failure.recipe == experiment.recipe.replace(seed=failure["seed"]), path.name
        assert "with changes" not in failure["commit"], path.name
        assert path.name.rpartition("-")[0] in page, path.name
    assert "Every record of this book" in page


def test_every_kept_network_has_its_record_beside_it():
    # those of chapters 13 and 14 are of no experiment: scripts of tests/benchmarks write them beside their own records
    of_chapters = {"parity.safetensors", "labyrinth.safetensors", "sudoku.safetensors"}
    files = {path.name for path in (BOOK / "records").glob("*.safetensors")} - of_chapters
    kept = [each for suite in SUITES.values() for each in suite if each.keeps]
    assert len({each.keeps for each in kept}) == len(kept), "two experiments would overwrite each other's network"
    assert files <= {each.keeps for each in kept}
    assert {each.keeps for each in kept if each.scale == "cpu"} <= files
    for name in files:
        beside = records.read((BOOK / "records" / name).with_suffix(".json"))
        _, about = checkpoints.load(BOOK / "records" / name)
        assert about["recipe"] == beside["config"], name
        # the same weights give the same results; they may have been made twice
        assert about["result"] | {"seconds": 0} == beside["result"] | {"seconds": 0}, name
        same = [each for suite in SUITES.values() for each in suite if each.keeps == name]
        assert any(
            (BOOK / "records" / each.file(0)).is_file()
            and (BOOK / "records" / each.file(0)).read_text()
            == (BOOK / "records" / name).with_suffix(".json").read_text()
            for each in same
        ), name


def test_the_network_of_chapter_07_reproduces_its_record():
    network = checkpoints.load_network(BOOK / "records" / "digits.safetensors")
    record = records.read(BOOK / "records" / "digits-jfb-cpu-0.json")
    _, about = checkpoints.load(BOOK / "records" / "digits.safetensors")
    assert about["recipe"] == record["config"]
    assert evaluate(network, data.load("digits", "test")).accuracy == record["result"]["test_accuracy"]


def test_every_published_table_and_figure_has_a_row(site):
    listed = set()
    for row in ROWS:
        paper, _, places = row["source"].partition(", ")
        if found := re.match(r"(Table|Figure)s? ", places):
            listed |= {(paper, found[1], int(number)) for number in re.findall(r"\d+", places)}
    for paper, kind, count in (
        ("JFB", "Table", 2),
        ("JFB", "Figure", 10),
        ("Phantom", "Table", 4),
        ("Phantom", "Figure", 3),
    ):
        assert {(paper, kind, number) for number in range(1, count + 1)} <= listed
    # each source is one table of the page
    groups = [source for source, _ in itertools.groupby(row["source"] for row in ROWS)]
    assert len(groups) == len(set(groups))
    page = (site / "reproductions.html").read_text()
    for row in ROWS:
        assert len({"runs", "claim", "none", "timing"} & set(row)) == 1, row
        found = reproductions.answer(row)
        assert found.ours in page
        if found.ours == "not yet run":
            command = found.command.split()
            assert command[:4] == ["python", "-m", "jfb_tutorial", "reproduce"]
            names, _, scale = " ".join(command[6:]).partition(" --scale ")
            labels = {each.label for each in SUITES[command[4]] if each.scale == (scale or each.scale)}
            assert set(names.split()) <= labels
            assert (found.value, found.gap, found.provenance) == (None, None, "")


@pytest.mark.parametrize(
    ("verdict", "held", "shown"),
    [
        ("holds", [True, True], "holds"),
        ("fails", [False, False], "fails"),
        ("fails", [True, False, True], "not always: 2 of 3 checks hold"),
        ("silent", [True], "says nothing"),
    ],
)
def test_the_ledger_says_what_was_found_of_a_claim(verdict, held, shown):
    assert chapters.verdict({"verdict": verdict, "concluded": [{"holds": each} for each in held]}) == shown


def test_a_claim_that_fails_is_not_called_measured():
    found = {row["claim"]: reproductions.answer(row).ours for row in ROWS if "claim" in row}
    assert found["jfb-table-2-products"] == found["jfb-figure-7-same-network"] == "fails"
    assert found["phantom-figure-2"].startswith("not always: ")
    assert found["jfb-figure-3"] == "holds"


def test_the_ledger_reads_what_a_script_has_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(reproductions, "TIMINGS", tmp_path)
    rows = [
        {"set": "a", "right": 15, "tested": 20, "loss": 0.0},
        {"set": "a", "right": 17, "tested": 20, "loss": math.log(3)},
    ]
    found = {"device": "two cores", "result": {"runs": [*rows, {"set": "b", "right": 1, "tested": 20, "loss": 9.0}]}}
    (tmp_path / "graphs.json").write_text(json.dumps(found))
    timing = {"file": "graphs", "part": "runs", "of": {"set": "a"}, "note": "3 epochs"}
    row = {"published": 81.0, "timing": timing | {"accuracy": "right", "tested": "tested"}}
    found = reproductions.answer(row)
    assert (found.ours, found.value, found.gap) == ("80.00 ± 7.07 %", pytest.approx(80), pytest.approx(-1))
    assert (found.provenance, found.command) == (
        "2 runs, 3 epochs, two cores",
        "python tests/benchmarks/measure_graphs.py",
    )
    text = reproductions.answer({"published": "24.0, 1.0×", "timing": timing | {"perplexity": "loss"}})
    assert (text.ours, text.gap) == ("2.00 ± 1.41", None)
    with pytest.raises(ValueError, match=r"no row of the part 'runs' of graphs\.json has"):
        reproductions.answer({"timing": timing | {"of": {"set": "c"}}})


def test_the_ledger_computes_gaps_and_ratios(tmp_path, monkeypatch):
    monkeypatch.setattr(reproductions, "RECORDS", tmp_path)
    monkeypatch.setattr(reproductions, "TIMINGS", tmp_path / "timings")
    row = {
        "source": "a",
        "what": "b",
        "published": 98.0,
        "runs": {"dataset": "digits", "label": "jfb", "quantity": "accuracy"},
    }
    command = "python -m jfb_tutorial reproduce digits --only jfb"
    assert reproductions.answer(row) == Answer("not yet run", command=command)
    jfb, exact = (next(e for e in SUITES["digits"] if e.label == label) for label in ("jfb", "exact"))
    for experiment, seconds in ((jfb, 1.0), (exact, 3.0)):
        for seed, accuracy in ((0, 0.97), (1, 0.99)):
            made = {
                "config": experiment.recipe.to_json(),
                "seed": seed,
                **records.provenance(),
                "epochs": [
                    {"seconds": {"training": seconds * factor, "rest": 9}, "products": 30 * factor}
                    for factor in (1, 2, 3)
                ],
                "result": {"test_accuracy": accuracy},
            }
            records.save(tmp_path / experiment.file(seed), made)
    found = reproductions.answer(row)
    assert (found.ours, found.command, found.scale) == ("98.00 ± 1.41 %", command, "cpu")
    assert (found.value, found.gap) == pytest.approx((98.0, 0.0))
    assert found.provenance.startswith("2 seeds, 20 epochs, ")
    assert "images" not in found.provenance
    fewer = dataclasses.replace(jfb, recipe=jfb.recipe.replace(images=1200, width=12))
    complete = [records.read(tmp_path / jfb.file(0))]
    assert reproductions.describe(fewer, complete).startswith("1 seed, 20 epochs, 1,200 images, width 12, ")
    assert [cell[0].astext() for cell in reproductions.line(row, found, {})[1:4]] == ["98.0", found.ours, "+0.00"]
    row["runs"] = {"dataset": "digits", "label": "exact", "quantity": "time", "to": "jfb"}
    row["published"] = 2.5
    found = reproductions.answer(row)
    assert (found.ours, found.value, found.gap) == ("3.00", 3.0, 0.5)
    assert found.command == "python -m jfb_tutorial reproduce digits --only exact jfb"
    (tmp_path / "timings").mkdir()
    (tmp_path / "timings" / "digits.json").write_text(
        json.dumps({"result": {"ratio_to_jfb": {"exact": 2.0}}, "device": "2 CPU cores", "date": "2026-11-21"})
    )
    in_turns = Answer("2.00", 2.0, -0.5, "training steps in turns, 2 CPU cores, 2026-11-21", "make timings")
    assert reproductions.answer(row) == in_turns  # better than from records
    row["runs"] = {"dataset": "digits", "label": "exact", "quantity": "products", "images": 1437}
    assert reproductions.answer(row).value == pytest.approx(60 / 29)
    # printed in other units: shown, and no gap
    assert reproductions.answer(row | {"published": "6.0·10⁶ in all"}).gap is None
    assert reproductions.answer(row).ours == f"{60 / 29:.1f}"
    twin = next(e for e in SUITES["digits"] if e.label == "explicit")
    about = {"config": twin.recipe.to_json(), "seed": 0, **records.provenance()}
    (tmp_path / "failed").mkdir()
    records.save(tmp_path / "failed" / twin.file(0), about | {"epochs": [], "result": {"failed": "in batch 1: …"}})
    row["runs"] = {"dataset": "digits", "label": "explicit", "quantity": "accuracy"}
    found = reproductions.answer(row)
    assert (found.ours, found.value, found.gap) == ("failed", None, None)
    assert found.provenance == "1 of 5 seeds stopped"
    assert found.command.startswith("python -m jfb_tutorial reproduce digits")
    (tmp_path / "digits-odd-cpu-0.json").write_text(json.dumps({"epochs": []}))
    with pytest.raises(ValueError, match=r"records of no experiment: digits-odd-cpu-0\.json"):
        reproductions.all_records()


def test_the_panel_trains_shows_and_stops():
    panel = Panel(recipe("digits", "smoke", epochs=2, images=200, reestimate=100, probe=2))
    assert "running kernel" in repr(panel)
    bundle = panel._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert data["text/plain"] == repr(panel)
    assert "application/vnd.jupyter.widget-view+json" in data
    panel.rule.value = "NeumannSeries(terms=6)"
    panel.start().join()
    assert "Epoch 2 of 2: loss" in panel.words.value
    assert "Test accuracy" in panel.words.value
    assert bytes(panel.picture.value).startswith(b"\x89PNG")
    assert panel.button.description == "Train"
    assert panel.records[0].recipe.rule == NeumannSeries(6)
    panel.epochs.value = 50
    thread = panel.start()
    panel.stop()
    thread.join()
    assert "Stopped." in panel.words.value
    assert len(panel.records[1]["epochs"]) < 50
    assert f"From 1 recorded run: {panel.records[1]['device']}" in repr(sources(panel.records[1:]))
    panel.gamma.value, panel.rule.value = 3.0, "ImplicitDifferentiation(tol=1e-4)"
    panel.recipe = panel.recipe.replace(batch_norm=False)
    panel.start().join()
    assert panel.button.description == "Train"
    panel.seed.value = -1
    panel.start().join()
    assert "seed must be at least 0, got -1" in panel.words.value
    assert panel.button.description == "Train"
    assert Panel(recipe("digits", epochs=61)).epochs.value == 61


def test_the_networks_of_chapter_08_are_those_of_their_records():
    keeping = [each for each in SUITES["mnist"] if each.keeps]
    assert {each.keeps for each in keeping} == {path.name for path in (BOOK / "records").glob("mnist*.safetensors")}
    for each in keeping:
        record = records.read(BOOK / "records" / each.file(0))
        tensors, about = checkpoints.load(BOOK / "records" / each.keeps)
        assert about["recipe"] == record["config"]
        assert about["result"] == record["result"]
        assert sum(t.numel() for t in tensors.values()) > 54_352
