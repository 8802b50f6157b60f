"""The networks: parameters, shapes, a first step under every rule, the explicit twin, the normalisations of R."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from jfb_tutorial import architectures
from jfb_tutorial.architectures import ARCHITECTURES, NORMS, build
from jfb_tutorial.bench import saved_bytes
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, NeumannSeries, Unrolled, UnrolledPhantom
from jfb_tutorial.normalisation import POLICIES, LatentBatchNorm2d, Rescaling, reestimate
from jfb_tutorial.solvers import FixedPointIteration

# image, latent, parameters of Q, R and S: those of the JFB paper's code, and ours
FACTS = {
    "mnist": ((1, 28, 28), (32, 9, 9), (4_896, 36_992, 12_464)),
    "svhn": ((3, 32, 32), (64, 8, 8), (74_640, 73_856, 14_992)),
    "cifar10": ((3, 32, 32), (35, 10, 10), (713_020, 110_600, 19_810)),
    "digits": ((1, 8, 8), (32, 4, 4), (9_696, 18_496, 5_264)),
    "fast_cifar10": ((3, 32, 32), (96, 8, 8), (500_400, 249_120, 84_106)),
}
RULES = (
    JFB(),
    NeumannSeries(3),
    NeumannSeries(3, 0.5),
    UnrolledPhantom(2, 0.5),
    ImplicitDifferentiation(tol=1e-3),
    ImplicitDifferentiation("cg", tol=1e-2),
    Unrolled(3),
)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def images(name: str, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, *FACTS[name][0], generator=torch.Generator().manual_seed(0))


def seeded(name: str, **settings):
    torch.manual_seed(0)
    return build(name, **settings)


def test_every_network_is_known_here():
    # the multiscale network, whose latent is a tuple and whose R has no batch normalisation, is known in test_multiscale.py
    assert {*FACTS, "multiscale"} == set(ARCHITECTURES)


@pytest.mark.parametrize("name", FACTS)
def test_parameters_and_latent_shapes(name):
    network = getattr(architectures, name)()
    assert tuple(map(count, (network.Q, network.R, network.S))) == FACTS[name][2]
    assert f"{count(network):,} parameters" in getattr(architectures, name).__doc__
    d = images(name)
    assert network.Q(d).shape == (2, *FACTS[name][1])
    assert network(d).shape == (2, 10)
    assert network.last.u.shape == (2, *FACTS[name][1])
    assert bool(network.last.converged.all())
    for settings in ({"batch_norm": False}, {"explicit": True}, {"norm": "every-step"}):
        assert count(build(name, **settings)) == count(network)
    assert count(build(name, norm="group")) == count(network)


@pytest.mark.parametrize("name", FACTS)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_first_step_under_every_rule(name, rule):
    network = seeded(name, gradient=rule)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    loss = F.cross_entropy(network(images(name)), torch.tensor([3, 7]))
    loss.backward()
    optimiser.step()
    assert bool(loss.isfinite())
    for (label, parameter), old in zip(network.named_parameters(), before, strict=True):
        assert bool(parameter.isfinite().all()), label
        if not label.startswith("Q.") or "bias" not in label:  # a bias before a batch norm has no gradient but rounding
            assert not torch.equal(parameter, old), label


@pytest.mark.parametrize("name", FACTS)
def test_the_explicit_twin_is_one_step_from_zero(name):
    network = seeded(name, on_unconverged="ignore").eval()
    twin = seeded(name, explicit=True).eval()
    d = images(name)
    q = network.Q(d)
    torch.testing.assert_close(twin(d), network.S(network.R(torch.zeros_like(q), q)), rtol=0, atol=0)
    assert twin.last is None
    assert not torch.allclose(twin(d), network(d), atol=1e-4)


@pytest.mark.parametrize("name", FACTS)
def test_no_normalisation_in_r(name):
    network = build(name, batch_norm=False)
    assert not any(isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm) for module in network.R.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.Q.modules())


@pytest.mark.parametrize("name", FACTS)
def test_group_normalisation_keeps_samples_apart(name):
    three: dict[str, Any] = {"solver": FixedPointIteration(max_steps=3, check_every=0), "on_unconverged": "ignore"}
    network = seeded(name, norm="group", **three)
    for module in network.modules():
        assert not isinstance(module, nn.modules.batchnorm._NormBase)
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    d = images(name, 3)
    torch.testing.assert_close(network(d)[:1], network(d[:1]), rtol=1e-4, atol=1e-5)
    # while batch normalisation couples them
    coupled = seeded(name, **three).train()
    assert not torch.allclose(coupled.R(*2 * [coupled.Q(d)])[:2], coupled.R(*2 * [coupled.Q(d[:2])]), atol=1e-3)


def test_gamma_scales_what_leaves_or_what_enters():
    q = torch.ones(2, 32, 4, 4)
    one, two = seeded("digits", gamma=0.3).eval(), seeded("digits", gamma=0.6).eval()
    torch.testing.assert_close(2 * one.R(q, q), two.R(q, q))
    q = torch.ones(1, 35, 10, 10)
    one, two = seeded("cifar10", gamma=0.3).eval(), seeded("cifar10", gamma=0.6).eval()
    torch.testing.assert_close(one.R(2 * q, q), two.R(q, q))


def test_the_mnist_network_of_the_papers_code():
    """R written out: γ (x ← BN(x + leaky(leaky(conv(leaky(conv x))))))², x = u + v."""
    network = seeded("mnist").eval()
    u, v = torch.randn(2, 2, 32, 9, 9, generator=torch.Generator().manual_seed(1))
    x = u + v
    for block in network.R.blocks:
        y = F.leaky_relu(block.branch[0](x), 0.1)
        y = F.leaky_relu(F.leaky_relu(block.branch[2](y), 0.1), 0.1)
        x = F.batch_norm(x + y, block.after.running_mean, block.after.running_var)
    torch.testing.assert_close(network.R(u, v), 0.5 * x)


def test_images_of_another_kind_are_refused():
    network = build("mnist")
    with pytest.raises(ValueError, match=r"shape \(batch, 1, 28, 28\), got \(2, 3, 32, 32\); is it another"):
        network(torch.rand(2, 3, 32, 32))
    with pytest.raises(ValueError, match="28, 28"):
        network(torch.rand(28, 28))
    with pytest.raises(TypeError, match=r"torch.uint8; write d.float\(\) / 255"):
        network(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "mnits"}, "did you mean 'mnist'"),
        ({"norm": "groups"}, "did you mean 'group'"),
        ({"batch_norm": False, "norm": "every-step"}, "batch_norm=False leaves out"),
        ({"explicit": True, "gradient": NeumannSeries(5)}, "leave gradient out"),
        ({"gamma": -0.5}, "gamma must be positive"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**{"name": "digits", **settings})
    wrong: Any = "no"
    with pytest.raises(TypeError, match="batch_norm must be True or False"):
        build("digits", batch_norm=wrong)


# Images of other kinds, and other classes

SMALLEST = {"mnist": 9, "svhn": 9, "cifar10": 1, "digits": 6, "fast_cifar10": 1}


@pytest.mark.parametrize("name", FACTS)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_images_of_other_sizes_and_channels_and_other_classes(name, channels):
    own = FACTS[name][0][1]
    for size in (SMALLEST[name], own - 1, own + 1, own + 5):
        network = seeded(name, classes=3, channels=channels, size=size, on_unconverged="ignore")
        d = torch.rand(2, channels, size, size)
        loss = F.cross_entropy(network(d), torch.tensor([0, 2]))
        loss.backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
        assert network(d).shape == (2, 3)
        normalise = network.Q[0]
        assert normalise.mean.shape == normalise.std.shape == (channels, 1, 1)
    if SMALLEST[name] > 1:
        with pytest.raises(ValueError, match=f"size must be at least {SMALLEST[name]} for '{name}', got .*Q makes the"):
            build(name, size=SMALLEST[name] - 1)
    with pytest.raises(ValueError, match=f"3, {own}, {own}"):
        build(name, channels=3)(torch.rand(2, 2, own, own))


@pytest.mark.parametrize("name", FACTS)
def test_what_is_said_is_what_is_the_default(name):
    channels, size, _ = FACTS[name][0]
    told, silent = (seeded(name, **keywords) for keywords in ({}, {"classes": 10, "channels": channels, "size": size}))
    for (one, a), (other, b) in zip(told.state_dict().items(), silent.state_dict().items(), strict=True):
        assert one == other
        assert torch.equal(a, b)


def test_the_normalisation_of_other_channels_is_the_mean_of_the_own():
    grey, own = build("svhn", channels=1).Q[0], build("svhn").Q[0]
    torch.testing.assert_close(grey.mean, own.mean.mean(dim=0, keepdim=True))
    torch.testing.assert_close(grey.std, own.std.mean(dim=0, keepdim=True))
    colour = build("mnist", channels=3).Q[0]
    assert colour.mean.flatten().tolist() == pytest.approx(3 * [0.1307])


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"classes": 0}, ValueError, "classes must be at least 1, got 0"),
        ({"channels": 0}, ValueError, "channels must be at least 1, got 0"),
        ({"size": 0}, ValueError, "size must be at least 1, got 0"),
        ({"size": (8, 8)}, TypeError, "size must be an integer, got .* side of a square image"),
        ({"size": 4}, ValueError, "or choose a network for smaller ones: cifar10, fast_cifar10"),
        ({"on_unconverged": "print"}, ValueError, "on_unconverged must be one of"),
    ],
)
def test_images_that_cannot_be(settings, error, message):
    with pytest.raises(error, match=message):
        build("digits", **settings)


def test_on_unconverged_is_passed_on():
    assert build("digits").on_unconverged == "warn"
    assert build("digits", on_unconverged="raise").on_unconverged == "raise"


def norms_of(network):
    return [module for module in network.R.modules() if isinstance(module, LatentBatchNorm2d)]


def test_fixed_point_statistics_learn_at_the_fixed_point_only():
    network = seeded("digits", solver=FixedPointIteration(tol=1e-6, max_steps=100)).train()
    (norm,) = norms_of(network)
    d = images("digits", 20)
    with torch.no_grad():
        network(d)
    assert int(norm.num_batches_tracked) == 0  # nothing is recorded
    network(d)
    assert int(norm.num_batches_tracked) == 1
    u, q = network.last.u, network.Q(d)
    before = network.R.blocks[0].branch(u + q) + u + q
    torch.testing.assert_close(norm.running_mean, 0.1 * before.mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-5)


def test_the_naive_policy_averages_the_way_there():
    network = seeded("digits", norm="every-step").train()
    network(images("digits", 20))
    (norm,) = norms_of(network)
    assert int(norm.num_batches_tracked) == int(network.last.steps.max()) + 1


def test_the_last_step_policy_solves_another_equation():
    network = seeded("digits", norm="last-step").train()
    d = images("digits", 20)
    for _ in range(3):
        network(d)
    with torch.no_grad():
        network(d)  # learns nothing
        u, q = network.last.u, network.Q(d)
        elsewhere = torch.linalg.vector_norm(network.R(u, q) - u)  # running statistics
    here = torch.linalg.vector_norm(network.R(u, q) - u)  # those of the batch
    assert elsewhere < 1e-2 < 1 < here


def test_policies_agree_in_eval_mode():
    d = images("digits", 5)
    outputs = [seeded("digits", norm=policy).eval()(d) for policy in POLICIES]
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    with pytest.raises(ValueError, match="policy must be one of"):
        LatentBatchNorm2d(4, "never")
    assert set(POLICIES) < set(NORMS)


def test_rescaling_is_that_of_the_published_code():
    d = images("digits", 20)
    settings = {"batch_norm": False, "norm": "rescaling", "on_unconverged": "ignore"}
    network, plain = seeded("digits", **settings), seeded("digits", batch_norm=False)
    for each in (network, plain):
        each.train()
        with torch.no_grad():
            for parameter in each.R.parameters():
                parameter.mul_(3)
    weights = [parameter.detach().clone() for parameter in network.R.parameters()]

    def same():
        return all(torch.equal(a, b) for a, b in zip(network.R.parameters(), weights, strict=True))

    with torch.no_grad():
        network(d)  # a pass without a graph, as when a data set is evaluated in training mode
    network.eval()
    network(d)
    network.solve(d)
    assert same()
    network.train()
    torch.manual_seed(3)
    q = network.Q(d).detach()
    noise, shifted = torch.randn_like(q), q + torch.randn_like(q)
    zero = torch.zeros_like(q)
    ratio = (plain.R(noise, shifted) - plain.R(zero, shifted)).norm(dim=1).mean() / noise.norm(dim=1).mean()
    assert ratio > 0.5
    torch.manual_seed(3)
    network(d).sum().backward()
    factor = (0.5 / ratio).item()  # one block
    for new, old in zip(network.R.parameters(), weights, strict=True):
        torch.testing.assert_close(new, factor * old)
    assert all(torch.equal(a, b) for a, b in zip(network.S.parameters(), plain.S.parameters(), strict=True))
    # what stretches less than γ is left as it is
    damped = seeded("digits", batch_norm=False).train()
    damped.before_solve = Rescaling(0.9)
    weights = [parameter.detach().clone() for parameter in damped.R.parameters()]
    assert Rescaling.stretch(damped.R, zero, q) < 0.9
    damped(d)
    assert all(torch.equal(a, b) for a, b in zip(damped.R.parameters(), weights, strict=True))
    for bad in ({"norm": "rescaling"}, {**settings, "explicit": True}):
        with pytest.raises(ValueError, match="norm='rescaling' is for an implicit network without batch"):
            build("digits", **bad)


def test_reestimation_is_the_average_at_the_fixed_point():
    network = seeded("digits", solver=FixedPointIteration(tol=1e-6, max_steps=100))
    network.train()
    network.S.eval()
    batches = [images("digits", 20), 1 - images("digits", 20)]
    modes = [module.training for module in network.modules()]
    (norm,) = norms_of(network)
    norm.running_mean.fill_(17)
    assert reestimate(network, batches) == 2
    assert [module.training for module in network.modules()] == modes
    assert norm.momentum == 0.1
    # by hand: Q and R with the statistics of each batch, no dropout
    means = []
    for d in batches:
        network.train()
        with torch.no_grad():
            q = network.Q(d)
            u = network.solver(lambda u, q=q: network.R(u, q), torch.zeros_like(q)).u
            means.append((network.R.blocks[0].branch(u + q) + u + q).mean(dim=(0, 2, 3)))
    torch.testing.assert_close(norm.running_mean, sum(means) / 2, rtol=1e-3, atol=1e-5)
    assert reestimate(build("digits", norm="group"), batches) == 0
    kept = norm.running_mean.clone()
    assert reestimate(network, []) == 0
    assert torch.equal(norm.running_mean, kept)


def test_what_jfb_saves_does_not_grow_with_the_steps():
    d, saved = images("mnist", 10), []
    for steps in (10, 200):
        solver = FixedPointIteration(max_steps=steps, check_every=0)
        network = seeded("mnist", solver=solver, on_unconverged="ignore")
        with saved_bytes([d, *network.parameters(), *network.buffers()]) as count:
            network(d)
        saved.append(count.total)
    assert saved[0] == saved[1] > 0
