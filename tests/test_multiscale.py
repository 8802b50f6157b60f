"""The multiscale network of the phantom-gradient paper: what it is made of, dropout in R, a step and a gradient under every rule."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from jfb_tutorial import architectures
from jfb_tutorial._multiscale import Injection
from jfb_tutorial.architectures import build
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, NeumannSeries, Unrolled, UnrolledPhantom
from jfb_tutorial.network import ImplicitNetwork
from jfb_tutorial.solvers import FixedPointIteration
from jfb_tutorial.training import checkpoints, data, train
from jfb_tutorial.training.recipes import recipe

TINY: dict[str, Any] = {"width": 6, "size": 8, "channels": 1, "on_unconverged": "ignore"}
TIGHT = FixedPointIteration(tol=1e-12, max_steps=100)
RULES = (
    JFB(),
    NeumannSeries(5, 0.5),
    UnrolledPhantom(5, 0.5),
    ImplicitDifferentiation(tol=1e-3),
    Unrolled(3),
)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def seeded(**settings: Any) -> ImplicitNetwork:
    torch.manual_seed(0)
    return build("multiscale", **settings)


@torch.no_grad()
def tamed(**settings: Any) -> ImplicitNetwork:
    """One whose R contracts, which fresh weights do not make it do; group normalisation undoes any factor of u.

    What is normalised together with u, or handed on beside it, is made large: in a block the data, between the resolutions what the
    low one gets from the high one.
    """
    network = seeded(**TINY | settings)
    for stream in network.R.streams:
        stream.inside.weight.mul_(10)
        stream.narrow.parametrizations.weight.original0.mul_(0.01)
    network.R.down[1].weight.mul_(10)
    network.R.up[1].weight.mul_(0.1)
    return network


def images(batch: int = 3, size: int = 8, channels: int = 1) -> torch.Tensor:
    return torch.rand(batch, channels, size, size, generator=torch.Generator().manual_seed(0))


def test_parameters_are_those_of_the_published_code():
    network = architectures.multiscale()
    # by hand, at 24 channels: two 3×3 convolutions, with 120 and 24 norms, and three normalisations in each of two blocks
    block = 2 * (24 * 120 * 9) + 120 + 24 + 2 * (120 + 24 + 24)
    down, up, after = 24 * 24 * 9 + 48, 24 * 24 + 48, 24 * 24 + 24 + 48
    assert count(network.R) == 2 * block + down + up + 2 * after == 111_792
    assert count(network.Q) == (3 + 24) * 24 * 9 + 2 * 48 == 5_928
    assert count(network.S) == 41_266
    assert count(network) == 158_986
    assert "158,986 parameters" in (architectures.multiscale.__doc__ or "")
    # a norm for each output of the six convolutions in R that have weight normalisation
    assert count(build("multiscale", weight_norm=False)) == 158_986 - 2 * (120 + 24 + 24)
    assert count(build("multiscale", width=12)) == 40_986


def test_the_state_is_a_pair_of_resolutions():
    network = seeded(width=6, on_unconverged="ignore").eval()
    d = images(2, 32, 3)
    q = network.Q(d)
    assert [part.shape for part in q] == [(2, 6, 32, 32), (2, 6, 16, 16)]
    assert not q[1].any()  # the data enter at the high resolution
    assert [part.shape for part in network.R(q, q)] == [part.shape for part in q]
    assert network(d).shape == (2, 10)
    assert network.last is not None
    assert network.last.u.shape == (2, 6 * (32**2 + 16**2))


@pytest.mark.parametrize("size", [1, 7, 9, 12])
def test_other_sizes_channels_and_classes(size):
    network = seeded(width=3, size=size, channels=2, classes=3, on_unconverged="ignore")
    loss = F.cross_entropy(network(images(2, size, 2)), torch.tensor([0, 2]))
    loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_r_written_out():
    """One step by hand, in eval mode: the block of each resolution, what each gets of the other, and the 1×1 convolution."""
    network = seeded(**TINY).eval()
    R = network.R
    for parameter in R.parameters():  # away from the ones and zeros that they start with
        nn.init.normal_(parameter, std=0.3)
    generator = torch.Generator().manual_seed(1)
    u = [torch.randn(2, 6, side, side, generator=generator) for side in (8, 4)]
    q = [torch.randn(2, 6, side, side, generator=generator) for side in (8, 4)]

    def norm(x, layer, number):
        return F.group_norm(x, number, layer.weight, layer.bias)

    own = []
    for stream, x, enters in zip(R.streams, u, q, strict=True):
        first, inner = stream.widen[0], stream.widen[1]
        y = F.relu(norm(F.conv2d(x, first.weight, padding=1), inner, 6))  # of 30 channels, 6 groups
        y = norm(F.conv2d(y, stream.narrow.weight, padding=1) + enters, stream.inside, 6)
        own.append(norm(F.relu(y + x), stream.outside, 6))
    down = norm(F.conv2d(own[0], R.down[0].weight, stride=2, padding=1), R.down[1], 6)
    up = norm(F.conv2d(own[1], R.up[0].weight), R.up[1], 6)
    up = up.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = []
    for after, fused in zip(R.after, (own[0] + up, own[1] + down), strict=True):
        expected.append(norm(F.conv2d(F.relu(fused), after[1].weight), after[2], 3))  # at most 4 groups: 3 of 6
    for part, by_hand in zip(R(tuple(u), tuple(q)), expected, strict=True):
        torch.testing.assert_close(part, by_hand)


def test_weight_normalisation_separates_norms_from_directions():
    network = seeded(**TINY)
    convolution = network.R.streams[0].narrow
    norms = convolution.parametrizations.weight.original0
    torch.testing.assert_close(convolution.weight.flatten(1).norm(dim=1), norms.flatten())
    assert not any("original" in name for name in seeded(**TINY, weight_norm=False).state_dict())


def test_dropout_is_the_same_in_every_step_and_another_in_every_pass():
    network = seeded(**TINY).train()
    d = images()
    q = network.Q(d)
    assert isinstance(q, Injection)
    masks = [mask for mask in q.masks if mask is not None]
    assert [mask.shape for mask in masks] == 2 * [(3, 6, 1, 1)]
    for mask in masks:
        assert set(mask.flatten().tolist()) <= {0.0, torch.tensor(1 / 0.75).item()}
    T = network.operator(d)
    u = torch.randn(T.zeros().shape)  # at zero no block has anything to leave out
    assert torch.equal(T(u), T(u))
    assert not torch.equal(T(u), network.operator(d)(u))
    # so that there is a fixed point: the iteration meets a tolerance that masks drawn anew would not let it meet
    contracting = tamed(solver=FixedPointIteration(tol=1e-4)).train()
    contracting(d)
    assert contracting.last is not None
    assert contracting.last.all_converged
    assert network.eval().Q(d).masks == (None, None)


def test_dropout_leaves_out_channels_of_the_blocks():
    network = seeded(**TINY).train()
    q = network.Q(images())
    plain = Injection(q)
    ones = torch.ones(3, 6, 1, 1)
    plain.masks = (ones, ones)
    zeros = Injection(q)
    zeros.masks = (0 * ones, 0 * ones)
    u = tuple(torch.randn_like(part) for part in q)
    without = tuple(q)  # no masks at all: nothing is left out
    for part, same in zip(network.R(u, plain), network.R(u, without), strict=True):
        assert torch.equal(part, same)
    stream = network.R.streams[0]
    torch.testing.assert_close(stream(u[0], q[0], 0 * ones), stream.outside(F.relu(u[0] + stream.inside(q[0]))))
    assert not torch.equal(network.R(u, zeros)[0], network.R(u, plain)[0])


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_step_under_every_rule(rule, mode):
    network = tamed(gradient=rule).train(mode == "train")
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    loss = F.cross_entropy(network(images()), torch.tensor([3, 7, 1]))
    loss.backward()
    optimiser.step()
    assert bool(loss.isfinite())
    for (label, parameter), old in zip(network.named_parameters(), before, strict=True):
        assert bool(parameter.isfinite().all()), label
        if label not in ("S.down.0.bias", "S.last.0.bias"):  # before a batch normalisation, which takes them off again
            assert not torch.equal(parameter, old), label


def along(network: nn.Module, direction: list[torch.Tensor]) -> torch.Tensor:
    """The derivative of the loss along a direction of all parameters, from their gradients."""
    terms = [(p.grad * v).sum() for p, v in zip(network.parameters(), direction, strict=True) if p.grad is not None]
    assert len(terms) == len(direction)
    return torch.stack(terms).sum()


def test_the_exact_rule_against_a_finite_difference():
    """In float64 at the fixed point: the derivative along one direction of all parameters, by the rule and by a difference."""
    network = tamed(solver=TIGHT, gradient=ImplicitDifferentiation(tol=1e-10)).double().eval()
    d, y = images().double(), torch.tensor([3, 7, 1])
    generator = torch.Generator().manual_seed(2)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in network.parameters()]

    def loss() -> torch.Tensor:
        return F.cross_entropy(network(d), y)

    loss().backward()
    assert network.last is not None
    assert network.last.all_converged
    exact = along(network, direction)
    values = []
    step = 1e-6  # small enough that few of the rectifiers change sides, which a difference does not forgive
    for sign in (1, -1):
        with torch.no_grad():
            for p, v in zip(network.parameters(), direction, strict=True):
                p.add_(v, alpha=sign * step)
            values.append(loss())
            for p, v in zip(network.parameters(), direction, strict=True):
                p.sub_(v, alpha=sign * step)
    torch.testing.assert_close(exact, (values[0] - values[1]) / (2 * step), rtol=1e-4, atol=0)
    jfb = tamed(solver=TIGHT).double().eval()
    F.cross_entropy(jfb(d), y).backward()
    assert not torch.allclose(along(jfb, direction), exact, rtol=1e-3)


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute"
)  # PyTorch's compiler hides this of itself, but not from pytest
def test_compiled_parts_see_the_masks():
    network = seeded(**TINY).train()
    q = network.Q(images())
    u = tuple(torch.randn_like(part) for part in q)
    expected = network.R(u, q)
    for part in (network.Q, network.R, network.S):
        part.compile(backend="aot_eager")
    for part, same in zip(network.R(u, q), expected, strict=True):
        torch.testing.assert_close(part, same)
    assert not torch.allclose(network.R(u, tuple(q))[0], expected[0], atol=1e-3)
    assert isinstance(network.Q(images()), Injection)


def test_no_sample_knows_of_the_others():
    few = TINY | {"solver": FixedPointIteration(max_steps=3, check_every=0)}
    d = images(4)
    network = seeded(**few).eval()
    torch.testing.assert_close(network(d)[:1], network(d[:1]))
    # in train mode only the batch normalisation of Q and S couples them, which norm="group" replaces
    grouped = seeded(**few, norm="group")
    checkpoints.drop_nothing(grouped)
    torch.testing.assert_close(grouped(d)[:1], grouped(d[:1]))
    coupled = seeded(**few)
    checkpoints.drop_nothing(coupled)
    assert not torch.allclose(coupled(d)[:1], coupled(d[:1]), atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"width": 2}, ValueError, "width must be at least 3, got 2; the head has a third of it"),
        ({"width": 6.0}, TypeError, "width must be an integer"),
        ({"weight_norm": "no"}, TypeError, "weight_norm must be True or False"),
        (
            {"batch_norm": False},
            ValueError,
            "batch_norm=False is about batch normalisation in R, where 'multiscale' has",
        ),
        ({"gamma": 0.5}, ValueError, "gamma is no setting of 'multiscale'"),
        ({"norm": "every-step"}, ValueError, "norm='every-step' is about .*; leave it out"),
        ({"name": "digits", "width": 12}, ValueError, "width is no setting of 'digits'; .* has it: multiscale"),
        ({"name": "mnist", "weight_norm": True}, ValueError, "weight_norm is no setting of 'mnist'"),
    ],
)
def test_bad_settings_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        build(**{"name": "multiscale", **settings})


def test_it_trains_is_saved_and_comes_back(tmp_path):
    noise = torch.randint(256, (20, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shapes = data.Images("noise", noise, torch.arange(20) % 10, tuple("0123456789"))
    plan = recipe("noise", "smoke", network="multiscale", width=6, batch=10, epochs=3, pretrain=1, probe=1)
    run = train(plan, tmp_path / "run", data=(shapes, shapes))
    assert run.record["config"]["width"] == 6
    assert "weight_norm" not in run.record["config"]
    assert ["steps_mean" in row for row in run.record["epochs"]] == [False, True, True]
    back = checkpoints.load_network(tmp_path / "run" / "model.safetensors")
    d = images()
    with back.using(on_unconverged="ignore"), run.network.using(on_unconverged="ignore"):
        assert torch.equal(back(d), run.network(d))
    # without dropout nothing is drawn
    still = train(plan.replace(dropout=False, epochs=1, pretrain=0), data=(shapes, shapes))
    assert still.network.train().Q(d).masks == (None, None)
