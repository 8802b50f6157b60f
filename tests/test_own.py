"""Training what is one's own: a network, tensors, an image folder of any size, and presets that give way to few images."""

import hashlib
import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from jfb_tutorial.__main__ import main
from jfb_tutorial.gradients import JFB, UnrolledPhantom
from jfb_tutorial.network import ImplicitNetwork
from jfb_tutorial.solvers import Anderson, FixedPointIteration
from jfb_tutorial.training import checkpoints, data, prepare, records, train
from jfb_tutorial.training.evaluation import evaluate
from jfb_tutorial.training.identity import describe
from jfb_tutorial.training.own_data import as_images
from jfb_tutorial.training.recipes import OWN, Recipe, recipe

SHORT = {"epochs": 2, "images": 200, "batch": 50, "reestimate": 0, "probe": 2}


class Cell(nn.Module):
    """tanh(W u + q), W small enough for a contraction."""

    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)
        with torch.no_grad():
            self.linear.weight.mul_(0.3)

    def forward(self, u, q):
        return torch.tanh(self.linear(u) + q)


def own_network(**settings):
    torch.manual_seed(4)
    Q = nn.Sequential(nn.Flatten(), nn.Linear(64, 24))
    return ImplicitNetwork(Q, Cell(24), nn.Linear(24, 10), **settings)


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_network_of_the_callers_is_trained_in_place(tmp_path):
    rule, solver = UnrolledPhantom(3, 0.5), Anderson(tol=1e-3, max_steps=30)
    network = own_network(gradient=rule, solver=solver)
    before = state(network)
    run = train(recipe("digits", "smoke", lr=5e-3, **{**SHORT, "epochs": 6}), tmp_path, network=network)
    assert run.network is network
    assert not same(before, network.state_dict())
    assert (network.gradient, network.solver) == (rule, FixedPointIteration(tol=1e-4, max_steps=100, relative=True))
    assert run.record["result"]["test_accuracy"] > 0.5
    record = records.read(tmp_path / "record.json")
    assert record["config"]["network"] == OWN
    assert (record.recipe.rule, record.recipe.solver) == (rule, solver)
    assert record["own"]["gradient"] == repr(rule)
    # its checkpoint goes into a network that is built alike, and into no other
    path = tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match=r"build one like it, and give load_network\(path, network\)"):
        checkpoints.load_network(path)
    again = checkpoints.load_network(path, own_network(gradient=rule))
    assert same(again.state_dict(), network.state_dict())
    test = data.load("digits", "test")
    assert evaluate(again, test).accuracy == run.record["result"]["test_accuracy"]
    with pytest.raises(ValueError, match="is a checkpoint of another network"):
        checkpoints.load_network(path, ImplicitNetwork(nn.Flatten(), Cell(64), nn.Linear(64, 10)))
    # and the finished run gives it back
    fresh = own_network(gradient=rule, solver=solver)
    back = train(recipe("digits", "smoke", lr=5e-3, **{**SHORT, "epochs": 6}), tmp_path, network=fresh, resume=True)
    assert back.network is fresh
    assert same(fresh.state_dict(), network.state_dict())


def test_the_recipes_rule_and_solver_go_before_the_networks():
    solver = FixedPointIteration(tol=1e-2, max_steps=7)
    network = own_network(gradient=JFB(), solver=Anderson())
    plan = recipe("digits", "smoke", **SHORT, rule=UnrolledPhantom(2), solver=solver, evaluation=None)
    train(plan, network=network)
    assert (network.gradient, network.solver) == (UnrolledPhantom(2), solver)


def test_the_average_is_what_the_caller_gets():
    network = own_network()
    plan = recipe("digits", "smoke", **{**SHORT, "batch": 20}, average=0.9)  # 20 steps, four averaged
    run = train(plan, network=network)
    assert run.network is network
    found = evaluate(network, data.load("digits", "test"))
    assert found.loss == pytest.approx(run.record["result"]["test_loss"], rel=1e-12)
    assert not same(state(network), train(plan.replace(average=0.0), network=own_network()).network.state_dict())


def test_a_run_of_ones_own_network_goes_on(tmp_path):
    plan = recipe("digits", "smoke", **SHORT)

    def stop(row, network):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    whole = train(plan, network=own_network())
    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path, network=own_network(), callback=stop)
    other = own_network()
    with torch.no_grad():
        other.S.weight.zero_()  # what it starts with is of no matter
    assert same(train(plan, tmp_path, network=other, resume=True).network.state_dict(), whole.network.state_dict())


class Damped:
    """A rule that no recipe can name."""

    def __init__(self, damping):
        self.damping, self.calls = damping, []

    def __call__(self, T, u):
        self.calls.append(1)
        return (1 - self.damping) * u + self.damping * T(u)


def damped(T, u):
    return Damped(0.5)(T, u)


def lasting(damping):
    def rule(T, u):
        return Damped(damping)(T, u)

    return rule


def stop_in_second_epoch(row, network):
    if row["epoch"] == 2:
        raise KeyboardInterrupt


def test_another_rule_or_solver_of_the_callers_is_not_gone_on_with(tmp_path):
    plan, out = recipe("digits", "smoke", **SHORT), tmp_path / "run"

    def go(gradient, **settings):
        return train(plan, out, network=own_network(gradient=gradient, solver=solve_well), resume=True, **settings)

    with pytest.raises(KeyboardInterrupt):
        go(Damped(0.5), callback=stop_in_second_epoch)
    for other, words in {Damped(0.9): r"Damped\(damping=0.9\)", damped: "damped", lasting(0.5): "rule"}.items():
        with pytest.raises(
            ValueError, match=rf"run in .*run was begun with another rule: .*Damped\(damping=0.5\) and is .*{words}"
        ):
            go(other)
    other_solver = own_network(gradient=Damped(0.5), solver=solve_thrice)
    with pytest.raises(ValueError, match=r"with another solver: .*solve_well and is .*solve_thrice"):
        train(plan, out, network=other_solver, resume=True)
    run = go(Damped(0.5))
    assert run.record["identity"]["rule"].endswith("Damped(damping=0.5)")
    whole = train(plan, network=own_network(gradient=Damped(0.5), solver=solve_well))
    assert same(run.network.state_dict(), whole.network.state_dict())
    with pytest.raises(ValueError, match="with another rule"):  # a finished run neither
        go(Damped(0.9))


def solve_well(T, u):
    return FixedPointIteration()(T, u)


def solve_thrice(T, u):
    return FixedPointIteration(max_steps=3)(T, u)


def test_what_is_told_of_a_rule_is_the_same_in_every_process():
    shown = describe(partial(damped, T=Damped(0.5)))
    assert "0x" not in shown
    assert describe(lasting(0.5)).endswith("rule(damping=0.5)")
    assert describe(lasting(0.5)) != describe(lasting(0.6))
    assert describe(UnrolledPhantom(2)) == "UnrolledPhantom(steps=2, damping=0.5)"


@pytest.mark.parametrize(
    ("changes", "network", "error", "message"),
    [
        ({"network": OWN}, None, ValueError, r"stands for a network of yours; give it, train\(recipe, network=…\)"),
        ({}, nn.Linear(2, 2), TypeError, "network must be an ImplicitNetwork, got Linear"),
        ({"gamma": 0.3}, own_network(), ValueError, "gamma is about this package's architectures"),
        ({"explicit": True}, own_network(), ValueError, "explicit is about"),
        (
            {},
            ImplicitNetwork(nn.Flatten(), Cell(49), nn.Linear(49, 10)),
            ValueError,
            r"network cannot take images of the shape \(2, 1, 8, 8\)",
        ),
        (
            {},
            ImplicitNetwork(nn.Flatten(), Cell(64), nn.Linear(64, 9)),
            ValueError,
            r"one for each of the 10 classes, got the shape \(2, 9\); change S",
        ),
        ({"optimiser": "muon"}, own_network(), ValueError, "this Q has none; take sgd or adam"),
        ({}, own_network().requires_grad_(False), ValueError, r"network has no parameter .*requires_grad_\(True\)"),
        (
            {},
            ImplicitNetwork(nn.Flatten(), lambda u, q: 0.3 * torch.tanh(u) + q, lambda u: u),
            ValueError,
            "network has no parameter that can be trained",
        ),
    ],
)
def test_networks_that_do_not_fit_are_refused(changes, network, error, message):
    with pytest.raises(error, match=message):
        train(recipe("digits", "smoke", **SHORT, **changes), network=network)


def tensors(count=60, shape=(8, 8), classes=10, dtype=torch.uint8):
    """A bright spot whose place is the class."""
    noise = torch.Generator().manual_seed(count)
    labels = torch.arange(count) % classes
    images = torch.randint(80, (count, *shape), generator=noise, dtype=torch.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = divmod(label, 4)
        image[..., 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 150
    return (images if dtype == torch.uint8 else images.to(dtype) / 255), labels


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_tensors_of_the_callers_train(dtype):
    train_set, test_set = tensors(200, dtype=dtype), tensors(50, (1, 8, 8), dtype=dtype)
    plan = recipe("spots", "smoke", network="digits", epochs=10)
    run = train(plan, data=(train_set, test_set))
    assert run.record["config"]["dataset"] == "spots"
    assert run.record["result"]["test_images"] == 50
    assert run.record["result"]["test_accuracy"] > 0.8
    images, labels = tensors(200, (1, 8, 8))
    both = (data.Images("spots", images, labels, tuple("0123456789")), tensors(50))
    if dtype == torch.uint8:
        with pytest.raises(ValueError, match="same classes"):
            train(plan, data=((train_set[0], train_set[1].clamp(max=8)), both[0]))


def test_other_data_of_the_callers_are_not_gone_on_with(tmp_path):
    plan, out = recipe("spots", "smoke", network="digits", probe=0), tmp_path / "run"
    images, labels = tensors(60)
    test_set = tensors(50)

    def go(train_set=(images, labels), test_set=test_set, **settings):
        return train(plan, out, data=(train_set, test_set), resume=True, **settings)

    with pytest.raises(KeyboardInterrupt):
        go(callback=stop_in_second_epoch)
    odd = images.clone()
    odd[7, 3, 3] += 1
    others = [
        ("training", {"train_set": (odd, labels)}),
        ("training", {"train_set": (images, labels.roll(1))}),
        ("training", {"train_set": tensors(100)}),
        ("test", {"test_set": tensors(40)}),
    ]
    for _ in range(2):  # of a run under way, and of a finished one
        for which, changes in others:
            with pytest.raises(ValueError, match=f"begun with other {which} images, or other labels of them; give"):
                go(**changes)
        run = go()
    assert run.record["identity"].keys() == {"train", "test"}
    assert run.record["resumed_after"] == [1]


def test_a_run_of_before_there_were_digests_goes_on(tmp_path):
    plan = recipe("spots", "smoke", network="digits", probe=0)
    images, labels = tensors(60)
    pair = ((images, labels), tensors(50))
    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path, data=pair, callback=stop_in_second_epoch)
    # as an older version has left it: without them, and with what was asked for of `reestimate`
    left = json.loads((tmp_path / "state.json").read_text())
    del left["identity"], left["gave_way"]["reestimate"]
    left["recipe"]["reestimate"] = 500
    rewrite(tmp_path, left)
    assert train(plan, tmp_path, data=pair, resume=True).record["resumed_after"] == [1]


def rewrite(out, left):
    """Put another state into a run's folder, and the checkpoint that goes with it."""
    text = (json.dumps(left, indent=1) + "\n").encode()
    (out / "state.json").write_bytes(text)
    path = out / left["checkpoint"]
    held, about = checkpoints.load(path)
    config = {name: left[name] for name in ("recipe", "gave_way")}
    checkpoints.save(path, held, about | config | {"state": hashlib.sha256(text).hexdigest()})


def test_tensors_and_a_network_of_ones_own_together():
    network = ImplicitNetwork(nn.Sequential(nn.Flatten(), nn.Linear(48, 24)), Cell(24), nn.Linear(24, 3))
    images = torch.rand(90, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(90) % 3
    images[torch.arange(90), labels] /= 3
    plan = Recipe(dataset="colours", network=OWN, epochs=20, batch=30, lr=1e-2, probe=2)
    run = train(plan, network=network, data=((images[:60], labels[:60]), (images[60:], labels[60:])))
    assert run.record["result"]["test_accuracy"] > 0.6


def test_floats_become_the_nearest_byte_and_nothing_else_happens():
    values = torch.tensor([0.0, 1.0, 0.5, 100.4 / 255]).reshape(1, 2, 2).repeat(2, 1, 1)
    (images, test) = as_images("x", ((values, torch.tensor([0, 1])), (values.double(), torch.tensor([1, 0]))))
    assert images.images[0].flatten().tolist() == test.images[0].flatten().tolist() == [0, 255, 128, 100]
    assert images.classes == test.classes == ("0", "1")


@pytest.mark.parametrize(
    ("part", "error", "message"),
    [
        ((torch.rand(4, 8, 8) * 2, torch.arange(4)), ValueError, r"in \[0, 1\].*divide by 255"),
        ((torch.full((4, 8, 8), float("nan")), torch.arange(4)), ValueError, r"NaN in 256 of 256 .*nan_to_num"),
        ((torch.full((4, 8, 8), float("inf")), torch.arange(4)), ValueError, r"in \[0, 1\]"),
        ((torch.zeros(4, 8, 8).to_sparse(), torch.arange(4)), TypeError, r"images of .* dense.*images.to_dense\(\)"),
        ((torch.zeros(4, 8, 8), torch.arange(4).to_sparse()), TypeError, r"labels of .* dense.*labels.to_dense\(\)"),
        (
            (torch.zeros(4, 8, 8), torch.tensor([0, 1, 2, 200_000])),
            ValueError,
            "go up to 200000, and there are 8 images",
        ),
        ((torch.zeros(4, 8, 8, dtype=torch.int64), torch.arange(4)), TypeError, r"images.to\(torch.uint8\)"),
        ((torch.zeros(4, 64), torch.arange(4)), ValueError, r"\(N, channels, height, width\), got \(4, 64\)"),
        ((torch.zeros(4, 8, 8, 3), torch.arange(4)), ValueError, r"give images.permute\(0, 3, 1, 2\)"),
        ((torch.zeros(0, 8, 8), torch.arange(0)), ValueError, "must have the shape"),
        ((torch.zeros(4, 8, 8), torch.arange(3)), ValueError, r"must have the shape \(4,\), one an image, got \(3,\)"),
        ((torch.zeros(4, 8, 8), torch.zeros(4, 10, dtype=torch.long)), ValueError, r"give labels.argmax\(dim=1\)"),
        ((torch.zeros(4, 8, 8), torch.arange(4.0)), TypeError, r"give labels.long\(\)"),
        ((torch.zeros(4, 8, 8), torch.arange(4) - 1), ValueError, "count the classes from 0"),
        ((np.zeros((4, 8, 8)), np.arange(4)), TypeError, "torch.from_numpy makes tensors of arrays"),
        (torch.zeros(4, 8, 8), TypeError, r"must be Images or a pair \(images, labels\)"),
    ],
)
def test_tensors_that_are_no_images_are_refused(part, error, message):
    good = (torch.zeros(4, 8, 8), torch.arange(4))
    for pair in ((part, good), (good, part)):
        with pytest.raises(error, match=message):
            as_images("x", pair)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, torch.int8])
def test_labels_of_any_integers(dtype):
    images, labels = tensors()
    train_part, _ = as_images("x", ((images, labels.to(dtype)), (images, labels)))
    assert train_part.labels.dtype == torch.int64
    assert torch.equal(train_part.labels, labels)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16])
def test_images_of_few_bits(dtype):
    values = torch.tensor([0.0, 0.25, 0.5, 1.0]).reshape(1, 2, 2).repeat(2, 1, 1)
    part = (values.to(dtype), torch.tensor([0, 1]))
    assert as_images("x", (part, part))[0].images[0].flatten().tolist() == [0, 64, 128, 255]


def test_classes_are_names_and_each_has_one(tmp_path):
    images, labels = tensors(classes=3)

    def named(classes, labels=labels):
        return data.Images("x", images.unsqueeze(1), labels, classes)

    for classes in ((0, 1, 2), ("a", "b", None), "abc"):
        with pytest.raises(TypeError, match=r"classes must be a tuple of texts, got .*; give"):
            named(classes)
    with pytest.raises(
        ValueError, match="classes must differ, and 'a' is there twice; give each label a name of its own"
    ):
        named(("a", "b", "a"))
    assert named(["a", "b", "c"]).classes == ("a", "b", "c")
    for labels_, most in ((labels, 2), (labels + 1, 3)):
        short = named(("a", "b"), labels_)
        with pytest.raises(ValueError, match=f"labels of data .* below 2, the number of its classes, got {most}"):
            train(recipe("x", "smoke", network="digits"), data=(short, short))
    # what was trained with names of any kind of text can be read
    part = named(np.array(["a", "b", "c"]))
    plan = recipe("x", "smoke", network="digits", epochs=1, probe=0)
    assert train(plan, tmp_path, data=(part, part)).record["result"]["test_images"] == 60
    assert checkpoints.recall(tmp_path / "model.safetensors")[1] == ["a", "b", "c"]


def test_data_that_are_no_pair_are_refused():
    with pytest.raises(TypeError, match=r"data must be a pair \(train, test\)"):
        train(recipe("x", "smoke", network="digits"), data=tensors()[0])
    with pytest.raises(ValueError, match="must have one shape"):
        as_images("x", (tensors(), tensors(shape=(9, 9))))


def test_the_classes_are_those_of_train_and_test_together():
    images, labels = tensors(classes=3)
    for pair in (
        ((images[labels < 2], labels[labels < 2]), (images, labels)),
        ((images, labels), (images[:1], labels[:1])),
    ):
        train_part, test_part = as_images("x", pair)
        assert train_part.classes == test_part.classes == ("0", "1", "2")
    with pytest.raises(ValueError, match=r"must have the shape \(60,\), one an image, got \(60, 1\)"):
        as_images("x", ((images, labels[:, None]), (images, labels)))
    named = [data.Images("x", images.unsqueeze(1), labels, names) for names in (("a", "b", "c"), ("a", "b", "c", "d"))]
    for one_order in (named, named[::-1]):
        with pytest.raises(ValueError, match="the same classes in train and test, but d is in one of them only"):
            as_images("x", one_order)


# Image folders


def write_folder(root, name="shapes", *, classes=10, train=30, test=10, size=(8, 8), colour=False):
    """Images of noise with a bright spot whose place is the class."""
    noise = np.random.default_rng(0)
    for split, number in (("train", train), ("test", test)):
        for label in range(classes):
            place = root / name / split / f"class{label}"
            place.mkdir(parents=True)
            for index in range(number):
                pixels = noise.integers(60, size=(*size, 3) if colour else size, dtype=np.uint8)
                row, column = divmod(label, 4)
                tall, wide = size[0] // 4, size[1] // 4
                pixels[row * tall : (row + 1) * tall, column * wide : (column + 1) * wide] += 180
                Image.fromarray(pixels).save(place / f"{index:03}.png")


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("JFB_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_an_own_folder_of_large_images_from_the_shell(root, tmp_path, capsys):
    write_folder(root, train=9, test=5, size=(40, 32))
    command = ["train", "shapes", "--network", "digits", "--epochs", "20", "--quiet", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert f"90 of the 90 images in {root}/shapes/train were resized to 8×8 pixels" in printed
    assert "reestimate: the preset's 1000 gives way to 90" in printed
    assert "batch: the preset's" not in printed
    record = records.read(tmp_path / "out" / "record.json")
    assert record["config"]["reestimate"] == 90
    assert record["gave_way"] == {"reestimate": 1000}
    assert record["result"]["test_accuracy"] > 0.5
    assert main(["evaluate", str(tmp_path / "out" / "model.safetensors")]) == 0
    assert capsys.readouterr().out.count(f"accuracy {100 * record['result']['test_accuracy']:.2f}%") == 2
    assert main(["inspect", str(tmp_path / "out" / "model.safetensors"), "--steps", "3"]) == 0
    assert main([*command, "--resume"]) == 0


def test_three_classes_of_64_pixels_in_colour_from_the_shell(root, tmp_path, capsys):
    write_folder(root, classes=3, size=(64, 64), colour=True)
    out = tmp_path / "out"
    assert main(["train", "shapes", "--network", "digits", "--quiet", "--out", str(out)]) == 0
    record = records.read(out / "record.json")
    assert record["result"]["test_accuracy"] > 0.6
    assert record["parameters"] != 33_456
    network = checkpoints.load_network(out / "model.safetensors")
    assert network(torch.rand(2, 3, 8, 8)).shape == (2, 3)
    capsys.readouterr()
    assert main(["evaluate", str(out / "model.safetensors")]) == 0
    assert capsys.readouterr().out.count(f"accuracy {100 * record['result']['test_accuracy']:.2f}%") == 2


def test_what_is_typed_is_a_demand(root, tmp_path, capsys):
    write_folder(root, train=3, test=2)
    command = ["train", "shapes", "--network", "digits", "--scale", "smoke", "--quiet", "--out", str(tmp_path / "out")]
    assert main([*command, "--batch", "50"]) == 1
    assert "batch must be at most the number of training images, 30, got 50" in capsys.readouterr().err
    assert main([*command, "--images", "500"]) == 1
    assert "images must be at most the 30" in capsys.readouterr().err
    assert main([*command, "--held-out", "10"]) == 0
    printed = capsys.readouterr().out
    for line in ("images: the preset's 500 gives way to 20", "batch: the preset's 50 gives way to 20"):
        assert line in printed
    # a run that gave way is the same run, another one is not
    assert main([*command, "--held-out", "10", "--resume"]) == 0
    assert main([*command, "--held-out", "10", "--batch", "10", "--resume"]) == 1
    assert "batch was 20 and is '10'" in capsys.readouterr().err.replace("is 10", "is '10'")


def test_proposals_of_a_run_under_way_give_way_again(root, tmp_path):
    write_folder(root, train=3, test=2)
    plan = recipe("shapes", "smoke", network="digits", probe=0)

    def stop(row, network):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path / "out", callback=stop)
    left = json.loads((tmp_path / "out" / "state.json").read_text())
    assert left["gave_way"] == {"batch": 50, "images": 500, "reestimate": 500}
    run = train(plan, tmp_path / "out", resume=True)
    assert run.record["resumed_after"] == [1]
    assert same(run.network.state_dict(), train(plan).network.state_dict())


@pytest.mark.parametrize("name", ["reestimate", "probe"])
def test_no_more_images_are_asked_for_than_there_are(name, capsys):
    settings = {"epochs": 1, "images": 60, "batch": 30, "reestimate": 0, "probe": 0}
    with pytest.raises(
        ValueError, match=f"{name} must be at most the 60 images that there are for it, got 61; lower it"
    ):
        train(recipe("digits", "smoke", **settings | {name: 61}))
    del settings[name]
    record = train(recipe("digits", "smoke", **settings | {"held_out": 10} if name == "probe" else settings)).record
    # 500 of the preset and 60 in use; 16 by default and 10 held out
    assert (record["config"][name], record["gave_way"]) == ((10, {name: 16}) if name == "probe" else (60, {name: 500}))
    assert f"{name}: the preset's" in capsys.readouterr().out
    made = Recipe(dataset="digits", images=60, batch=30, held_out=10, epochs=1)
    assert train(made).record["gave_way"] == {"probe": 16}


def test_a_recipe_knows_what_it_proposes():
    plan = recipe("digits", "smoke", batch=7)
    assert plan.proposals == {"images", "held_out", "reestimate", "probe"}
    assert plan.replace(images=3, seed=2).proposals == {"held_out", "reestimate", "probe"}
    assert not Recipe.from_json(plan.to_json()).proposals
    assert Recipe.from_json(plan.to_json()) == plan
    assert "proposals" not in plan.to_json()
    assert plan.differences(plan.to_json(), {}) == []
    lowered = {**plan.to_json(), "images": 30}
    assert plan.differences(lowered, {}) == ["images"]
    assert plan.differences(lowered, {"images": 500}) == []
    assert plan.replace(images=20).differences(lowered, {"images": 500}) == ["images"]


def image_file(root, image, name="a.png", split="train", label="one", **settings):
    place = root / "files" / split / label
    place.mkdir(parents=True, exist_ok=True)
    image.save(place / name, **settings)
    return place / name


def test_sixteen_bits_are_scaled_and_never_clipped(tmp_path):
    levels = np.array([[0, 257, 65535], [32768, 300, 12345]], dtype=np.uint16)
    image_file(tmp_path, Image.fromarray(levels))
    images = data.load("files", root=tmp_path)
    assert images.images[0, 0].tolist() == [[0, 1, 255], [128, 1, 48]]
    assert "1 of the 1 images" in images.notes[0]
    assert "scaled from 16 bits to 8" in images.notes[0]
    image_file(tmp_path, Image.fromarray(levels), "a.tiff")
    assert data.load("files", root=tmp_path).images[1].tolist() == images.images[0].tolist()


@pytest.mark.parametrize(("mode", "words"), [("I", "32-bit integers"), ("F", "floating-point numbers")])
def test_numbers_without_a_range_are_refused(tmp_path, mode, words):
    path = image_file(tmp_path, Image.new(mode, (4, 4), 3), "a.tiff")
    with pytest.raises(ValueError, match=rf"{path.name} holds {words}.*save it with 8 or 16 bits"):
        data.load("files", root=tmp_path)


def test_transparency_is_laid_on_white(tmp_path):
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    image.putpixel((1, 0), (10, 20, 30, 0))
    image_file(tmp_path, image)
    images = data.load("files", root=tmp_path)
    assert images.images[0, :, 0].tolist() == [[10, 255], [20, 255], [30, 255]]
    assert "laid on white" in images.notes[0]
    grey = Image.new("LA", (2, 1), (10, 255))
    image_file(tmp_path / "grey", grey)
    opaque = data.load("files", root=tmp_path / "grey")
    assert opaque.images.tolist() == [[[[10, 10]]]]
    assert not opaque.notes


def test_palettes_and_black_and_white(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 100, 50, 1, 2, 3])
    palette.putpixel((1, 0), 1)
    image_file(tmp_path, palette)
    assert data.load("files", root=tmp_path).images[0, :, 0].tolist() == [[200, 1], [100, 2], [50, 3]]
    one_bit = Image.new("1", (2, 1))
    one_bit.putpixel((1, 0), 1)
    image_file(tmp_path / "bits", one_bit)
    assert data.load("files", root=tmp_path / "bits").images.tolist() == [[[[0, 255]]]]


def test_the_cameras_rotation_is_applied(tmp_path):
    image = Image.fromarray(np.array([[0, 0, 0, 255]] * 2, dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image_file(tmp_path, image, "a.png", exif=exif)
    turned = data.load("files", root=tmp_path).images[0, 0]
    assert turned.shape == (32, 16)
    assert torch.equal(turned, torch.from_numpy(np.rot90(np.asarray(image), k=-1).copy()))


def test_any_size_is_cut_to_a_square_and_resized(tmp_path):
    wide = np.zeros((8, 24), dtype=np.uint8)
    wide[:, 8:16] = 200  # the square in the middle
    image_file(tmp_path, Image.fromarray(wide), "a.png")
    image_file(tmp_path, Image.new("L", (4, 4), 90), "b.png")
    image_file(tmp_path, Image.new("RGB", (5, 5), (1, 2, 3)), "c.png")
    with pytest.raises(ValueError, match=r"must have one size.*give load a size"):
        data.load("files", root=tmp_path)
    images = data.load("files", root=tmp_path, size=4)
    assert images.images.shape == (3, 3, 4, 4)
    assert images.images[:, 0, 1, 1].tolist() == [200, 90, 1]
    notes = " ".join(images.notes)
    assert "2 of the 3 images" in notes
    assert "given three equal colours" in notes
    grey = data.load("files", root=tmp_path, size=4, channels=1)
    assert grey.images.shape == (3, 1, 4, 4)
    assert "1 of the 3 images" in " ".join(note for note in grey.notes if "turned grey" in note)
    with pytest.raises(ValueError, match="only those of an image folder are resized"):
        data.load("digits", size=9)
    with pytest.raises(ValueError, match="channels must be 1, grey, or 3"):
        data.load("files", root=tmp_path, channels=2)


def test_both_splits_have_the_colours_of_the_training_images(root):
    image_file(root, Image.new("RGB", (8, 8), (1, 2, 3)), split="train")
    image_file(root, Image.new("L", (8, 8), 9), split="test")
    plan = recipe("files", "smoke", network="digits", reestimate=0)
    with pytest.raises(ValueError, match="has one class, one, so that any answer is right; add images of another"):
        prepare.prepare_data(plan, None, torch.device("cpu"))
    for split in ("train", "test"):
        image_file(root, Image.new("L", (8, 8), 9), split=split, label="two")
    _, prepared = prepare.prepare_data(plan, None, torch.device("cpu"))
    assert prepared.test.images.shape == (2, 3, 8, 8)
    assert prepared.build == {"classes": 2, "channels": 3}


# What a run says at its end


def test_the_unconverged_test_images_are_counted_aloud(capsys):
    plan = recipe("digits", "smoke", **SHORT, evaluation=FixedPointIteration(tol=1e-9, max_steps=3))
    run = train(plan)
    assert run.record["result"]["unconverged_images"] == 360
    assert "360 of the 360 test images did not meet the solver's tolerance" in capsys.readouterr().out
    # the network that comes back solves as it was tested, and so does the one in the file
    assert run.network.solver == FixedPointIteration(tol=1e-9, max_steps=3)
    train(plan.replace(evaluation=FixedPointIteration(tol=1e-3, max_steps=100)))
    assert "did not meet" not in capsys.readouterr().out
