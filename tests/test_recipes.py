"""Recipes: what they refuse, how they are written down, and the learning rates that they mean."""

import json
from dataclasses import fields

import numpy as np
import pytest

from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, NeumannSeries, UnrolledPhantom
from jfb_tutorial.solvers import Anderson, FixedPointIteration
from jfb_tutorial.training.recipes import RULES, SCALES, SOLVERS, Recipe, parse, recipe


@pytest.mark.parametrize("network", ["digits", "mnist", "svhn", "cifar10", "fast_cifar10", "multiscale"])
@pytest.mark.parametrize("scale", SCALES)
def test_the_books_recipes_come_back_from_json(network, scale):
    dataset = "cifar10" if network == "multiscale" else network.removeprefix("fast_")
    made = recipe(dataset, scale, network=network)
    assert made.network == network
    assert Recipe.from_json(json.loads(json.dumps(made.to_json()))) == made
    changed = made.replace(rule="UnrolledPhantom(steps=3, damping=0.7)", solver=Anderson(memory=3), seed=4)
    assert changed.rule == UnrolledPhantom(3, 0.7)
    assert Recipe.from_json(json.loads(json.dumps(changed.to_json()))) == changed


def test_the_settings_of_the_papers_code():
    mnist, svhn, cifar10 = recipe("mnist", "full"), recipe("svhn", "full"), recipe("cifar10", "full", network="cifar10")
    assert (mnist.lr, mnist.weight_decay, mnist.epochs, mnist.batch) == (2e-4, 1e-6, 100, 100)
    assert (svhn.lr, svhn.weight_decay, svhn.epochs, svhn.batch) == (1e-4, 2e-4, 100, 100)
    assert (cifar10.lr, cifar10.weight_decay, cifar10.epochs, cifar10.batch) == (1e-3, 1e-3, 1000, 100)
    assert {made.optimiser for made in (mnist, svhn, cifar10)} == {"adam"}
    assert (cifar10.flip, cifar10.crop, cifar10.fill, cifar10.erase) == ("random", 2, "mean", 0.95)
    assert [cifar10.rate(step, 500_000, 500) for step in (0, 99_999, 100_000, 499_999)] == [1e-3, 1e-3, 5e-4, 6.25e-5]
    assert recipe("cifar10", "full").network == "fast_cifar10"


def test_fields_that_came_later_are_written_down_where_they_are_set():
    """So that what was recorded before them is still of the same recipe."""
    later = {"width", "weight_norm", "pretrain", "pretrain_steps", "radius", "criterion"}
    made = recipe("cifar10", "full", network="multiscale")
    assert not later & set(made.to_json())
    assert {f.name for f in fields(Recipe)} == set(made.to_json()) | later
    changed = made.replace(width=12, weight_norm=False, pretrain=8, pretrain_steps=6, radius=True, criterion=True)
    assert {name: changed.to_json()[name] for name in later} == {
        "width": 12,
        "weight_norm": False,
        "pretrain": 8,
        "pretrain_steps": 6,
        "radius": True,
        "criterion": True,
    }
    assert Recipe.from_json(json.loads(json.dumps(changed.to_json()))) == changed
    assert made.differences(made.to_json(), {}) == []
    assert set(changed.differences(made.to_json(), {})) == later
    assert set(made.differences(changed.to_json(), {})) == later


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrain": 20}, r"pretrain must be below epochs, 20, got 20: .*rule='Unrolled\(10\)'"),
        ({"pretrain": 3, "explicit": True}, "an explicit network has nothing to be pretrained for"),
        ({"pretrain_steps": 5}, "pretrain_steps is about the epochs that pretrain counts, and there are none, got 5"),
        ({"pretrain": -1}, "pretrain must be at least 0, got -1"),
        ({"pretrain": 1, "pretrain_steps": 0}, "pretrain_steps must be at least 1, got 0"),
    ],
)
def test_pretraining_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        recipe("digits", **changes)


def test_every_option_says_what_it_is():
    assert all(f.metadata.get("help") for f in fields(Recipe) if f.name != "dataset")


def test_learning_rates():
    made = recipe("digits", lr=1.0)
    rates = {
        name: [made.replace(schedule=name).rate(step, 100, 10) for step in range(100)]
        for name in ("constant", "cosine", "triangular")
    }
    assert set(rates["constant"]) == {1.0}
    assert rates["cosine"][0] == 1
    assert rates["cosine"][50] == pytest.approx(0.5)
    assert rates["cosine"] == sorted(rates["cosine"], reverse=True)
    peak = rates["triangular"].index(max(rates["triangular"]))
    assert peak in (19, 20)
    assert 0.95 <= max(rates["triangular"]) <= 1
    assert 0 < rates["triangular"][-1] < 0.02
    assert 0 < rates["triangular"][0] < 0.06


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 10**400}, "lr must be a number that a float holds, got one of about 398 digits"),
        ({"lr": 1e300}, r"lr must be positive and below 1e\+15, got 1e\+300; 1e-3 is usual for Adam"),
        ({"weight_decay": 10**5000}, "weight_decay must be a number that a float holds, got one of about 4,983 digits"),
        ({"weight_decay": 1e300}, r"weight_decay must be at least 0 and below 1e\+15, got 1e\+300"),
        ({"gamma": -(10**400)}, "gamma must be a number that a float holds"),
        ({"erase": 10**400}, "erase must be a number that a float holds"),
    ],
)
def test_numbers_beyond_floats_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        recipe("digits", **changes)


def test_a_tolerance_beyond_floats_is_refused():
    with pytest.raises(ValueError, match=r"tol must be positive and .*, got one of about 398 digits"):
        FixedPointIteration(tol=10**400)


def test_parsing():
    assert parse("rule", "JFB", RULES) == JFB()
    assert parse("rule", " jfb() ", RULES) == JFB()
    assert parse("rule", "NeumannSeries(6, damping=0.5)", RULES) == NeumannSeries(6, 0.5)
    assert parse("rule", "ImplicitDifferentiation(solver='cg')", RULES) == ImplicitDifferentiation("cg")
    assert parse("solver", "FixedPointIteration(tol=1e-2, relative=True)", SOLVERS).relative
    with pytest.raises(ValueError, match="did you mean 'JFB'"):
        parse("rule", "JBF", RULES)
    with pytest.raises(ValueError, match="did you mean 'Anderson'"):
        parse("solver", "andersson(memory=2)", SOLVERS)
    for text in ("", "JFB)", "__import__('os').getcwd()", "JFB(**{})", "NeumannSeries(2+3)", "JFB; JFB"):
        with pytest.raises(ValueError, match="rule must be a name"):
            parse("rule", text, RULES)
    with pytest.raises(TypeError, match=r"NeumannSeries\(k=3\)'.*unexpected keyword argument 'k'"):
        parse("rule", "NeumannSeries(k=3)", RULES)
    with pytest.raises(ValueError, match=r"damping must be in \(0, 1\]"):
        parse("rule", "NeumannSeries(3, 2.0)", RULES)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"epoch": 3}, ValueError, "did you mean 'epochs'"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"lr": 0.0}, ValueError, "lr must be positive"),
        ({"optimiser": "adamm"}, ValueError, "did you mean 'adam'"),
        ({"rule": JFB}, TypeError, "rule must be one of"),
        ({"rule": None}, TypeError, "rule must be one of"),
        ({"solver": JFB()}, TypeError, "solver must be one of"),
        ({"average": 1.0}, ValueError, "average must be at least 0 and below 1, got 1.0"),
        ({"weight_decay": -1.0}, ValueError, r"weight_decay must be at least 0 and below 1e\+15, got -1.0"),
        ({"compile": 1}, TypeError, "compile must be True or False"),
        ({"network": "resnet"}, ValueError, "network must be one of"),
        ({"flip": "up"}, ValueError, "flip must be one of"),
        ({"label_smoothing": "much"}, TypeError, "label_smoothing must be a number, got 'much'"),
        ({"average": True}, TypeError, "average must be a number"),
        ({"gamma": "half"}, TypeError, "gamma must be a number"),
        ({"erase": [0.5]}, TypeError, "erase must be a number"),
        (
            {"batch_norm": False, "norm": "fixed-point"},
            ValueError,
            "norm='fixed-point' is about the batch normalisation",
        ),
    ],
)
def test_bad_settings_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        recipe("digits", "cpu", **changes)


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        recipe("digts")
    with pytest.raises(ValueError, match="did you mean 'full'"):
        recipe("digits", "ful")
    assert recipe("zoo", "smoke", network="svhn").dataset == "zoo"
    with pytest.raises(ValueError, match="unknown fields: depth"):
        Recipe.from_json({"dataset": "digits", "depth": 3})
    assert FixedPointIteration in SOLVERS.values()


NUMBERS = {
    "epochs": np.int64(3),
    "seed": np.uint8(1),
    "batch": np.int32(20),
    "crop": np.int64(1),
    "lr": np.float32(0.5),
    "gamma": np.float16(0.25),
    "average": np.float64(0.5),
    "weight_decay": np.float32(0.125),
    "label_smoothing": np.float64(0.1),
    "erase": np.float32(0.5),
}


def test_numbers_of_numpy_become_plain_ones():
    made = recipe("digits", "smoke", **NUMBERS)
    for name, value in NUMBERS.items():
        assert type(getattr(made, name)) in (int, float), name
        assert getattr(made, name) == value
    assert Recipe.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_a_solver_that_could_not_be_read_again_is_refused():
    odd = FixedPointIteration()
    object.__setattr__(odd, "tol", np.float64(1e-3))  # a solver of the package would store a plain number
    with pytest.raises(TypeError, match=r"solver cannot be written down and read again: .*np.float64"):
        recipe("digits", solver=odd)
    with pytest.raises(TypeError, match="dataset must be a name, got None"):
        Recipe.from_json({"dataset": None})


def test_the_default_norm_passes_where_it_was_not_asked_for():
    made = recipe("digits", batch_norm=False)
    assert made.norm == "fixed-point"
    assert made.replace(seed=3).norm == "fixed-point"
    assert Recipe.from_json(made.to_json()) == made
