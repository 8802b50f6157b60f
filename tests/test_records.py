"""Records: what they hold, how they are read, and when they are old."""

import json
import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from jfb_tutorial.pages.curves import curves
from jfb_tutorial.pages.provenance import sources
from jfb_tutorial.training import records
from jfb_tutorial.training.recipes import recipe


def record(seed=0, **changes):
    rows = [{"epoch": n, "loss": 1 / n, "accuracy": 0.5, "gamma": None} for n in (1, 2, 3)]
    made = {
        "config": recipe("digits", seed=seed).to_json(),
        "seed": seed,
        **records.provenance(),
        "epochs": rows,
        "result": {"test_accuracy": 0.975},
    }
    return records.Record(made | changes)


def test_a_record_comes_back(tmp_path):
    path = tmp_path / "record.json"
    records.save(path, record(seed=3, result={"test_accuracy": 0.9, "loss": math.nan}))
    back = records.read(path)
    assert back.recipe == recipe("digits", seed=3)
    assert not back.stale
    assert back["result"] == {"test_accuracy": 0.9, "loss": None}
    assert back.curve("loss") == [1, 1 / 2, 1 / 3]
    assert all(math.isnan(value) for value in back.curve("gamma"))
    assert repr(back) == "Record(digits, 3 epochs, seed 3: test accuracy 90.00%)"
    with pytest.raises(KeyError, match="no epoch has 'los'; there are epoch, loss"):
        back.curve("los")
    json.loads(path.read_text(), parse_constant=pytest.fail)  # NaN is no JSON


def test_a_record_of_another_version_of_training_is_old(monkeypatch):
    assert not record().stale
    assert record(training_version=records.TRAINING_VERSION - 1).stale
    first = record()
    del first["training_version"]  # as in the records made before there were versions
    assert first.stale == (records.TRAINING_VERSION != 1)
    monkeypatch.setattr(records, "TRAINING_VERSION", 2)
    assert first.stale


def test_what_is_no_record_is_refused(tmp_path):
    path = tmp_path / "record.json"
    with pytest.raises(FileNotFoundError, match=r"there is no record .*record.json; python -m jfb_tutorial train"):
        records.read(path)
    for content in (b'{"config": ', b"\xff\xfe\x00", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"record.json is not readable"):
            records.read(path)
    others: list[Any] = [[], {"config": {}}, 3]
    for value in others:
        path.write_text(json.dumps(value))
        with pytest.raises(ValueError, match=r"is not a record: it lacks .*epochs, result"):
            records.read(path)
    path.write_text(json.dumps(record(epochs="many")))
    with pytest.raises(ValueError, match="epochs must be a list"):
        records.read(path)


def test_old_records_say_so():
    text = sources([record(seed) for seed in (1, 0)])
    assert "From 2 recorded runs: " in repr(text)
    assert "seeds 0, 1." in repr(text)
    assert "older" not in repr(text)
    old = record(training_version=0)
    assert "1 of them was made by an older version of the training code" in repr(sources([record(), old]))
    assert "It was made by an older version" in sources([old])._repr_html_()
    with pytest.raises(ValueError, match="at least one record"):
        sources([])


def test_sources_escape_what_they_quote():
    assert "<b>" not in sources([record(device="<b>")])._repr_html_()


def test_provenance_names_the_commit_and_the_versions(monkeypatch):
    made = records.provenance()
    assert made["device"].endswith(("CPU core", "CPU cores"))
    assert set(made["versions"]) == {"Python", "torch", "torchvision"}
    monkeypatch.setenv("JFB_COMMIT", "abc1234")
    assert records.commit() == "abc1234"
    monkeypatch.delenv("JFB_COMMIT")
    assert records.commit(records.PACKAGE / "not there") == "unknown"
    assert (records.PACKAGE / "solvers" / "iteration.py").is_file()  # a change anywhere in the package is one


def test_curves():
    figure = curves([record(0), record(1)])
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "loss",
        "error (%)",
        "residual",
        "Lipschitz constant of T",
    ]
    (line,) = figure.axes[0].lines
    assert np.asarray(line.get_ydata()).tolist() == [1, 1 / 2, 1 / 3]
    assert np.asarray(figure.axes[1].lines[0].get_ydata()).tolist() == [50, 50, 50]
    assert not plt.get_fignums()
    with pytest.raises(ValueError, match="equally many epochs"):
        curves([record(), record(epochs=[])])
    with pytest.raises(ValueError, match="got none"):
        curves([])
