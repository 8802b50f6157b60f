"""Normalisation that is told what an evaluation is for, and layers with a bounded operator norm."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.checkpoint import checkpoint

from jfb_tutorial import _operator_norm
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, NeumannSeries, Unrolled, UnrolledPhantom
from jfb_tutorial.network import ImplicitNetwork
from jfb_tutorial.normalisation import LatentBatchNorm2d, Rescaling, operator_norm
from jfb_tutorial.solvers import Anderson, FixedPointIteration
from jfb_tutorial.theory import contraction_factor


class Normed(nn.Module):
    """norm(conv(u + q)) / 3, or the same with what is normed under a checkpoint."""

    def __init__(self, policy="fixed-point", reentrant=None):
        super().__init__()
        self.conv, self.norm, self.reentrant = nn.Conv2d(2, 2, 1), LatentBatchNorm2d(2, policy), reentrant

    def forward(self, u, q):
        if self.reentrant is None:
            return self.inner(u, q) / 3
        return checkpoint(self.inner, u, q, use_reentrant=self.reentrant) / 3

    def inner(self, u, q):
        return self.norm(self.conv(u + q))


def network(policy="fixed-point", reentrant=None, **keywords):
    torch.manual_seed(0)
    keywords.setdefault("solver", FixedPointIteration(tol=1e-6, max_steps=100))
    keywords.setdefault("on_unconverged", "ignore")
    return ImplicitNetwork(nn.Conv2d(1, 2, 1), Normed(policy, reentrant), nn.Flatten(), **keywords).double()


def data(batch=6):
    return torch.randn(batch, 1, 3, 3, generator=torch.Generator().manual_seed(1)).double()


def learnt(net) -> int:
    return int(net.R.norm.num_batches_tracked)


@pytest.mark.parametrize(
    ("rule", "steps"),
    [(JFB(), 1), (NeumannSeries(3), 1), (ImplicitDifferentiation(), 1), (UnrolledPhantom(3), 3), (Unrolled(4), 4)],
    ids=str,
)
def test_statistics_learn_in_what_the_rule_records(rule, steps):
    net = network(gradient=rule)
    net(data()).square().sum().backward()
    assert learnt(net) == steps
    with torch.no_grad():
        net(data())
    net.solve(data())
    assert learnt(net) == steps


class WithGradients(FixedPointIteration):
    """A solver that needs derivatives of T, as Newton's method does: it iterates where gradients are enabled."""

    def __call__(self, T, u0):
        def differentiable(u):
            with torch.enable_grad():
                return T(u).detach()

        return super().__call__(differentiable, u0)


@pytest.mark.parametrize("policy", ["fixed-point", "last-step"])
def test_a_solver_that_differentiates_T_is_still_the_iteration(policy):
    plain, newton = (
        network(policy, solver=kind(tol=1e-8, max_steps=100)) for kind in (FixedPointIteration, WithGradients)
    )
    for net in (plain, newton):
        net(data())
        assert learnt(net) == 1
    torch.testing.assert_close(newton.last.u, plain.last.u, rtol=0, atol=0)


@pytest.mark.parametrize("policy", ["fixed-point", "last-step", "every-step"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_in_R_changes_no_value_and_no_gradient(policy, reentrant):
    outputs, gradients = [], []
    for kind in (None, reentrant):
        net = network(policy, kind)
        outputs.append(net(data()))
        outputs[-1].square().sum().backward()
        gradients.append([net.R.conv.weight.grad, net.Q.weight.grad])
        if policy != "every-step":
            assert learnt(net) == (1 if kind is None else 2)  # and once more in the backward pass, as ever
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=0)
    torch.testing.assert_close(gradients[1], gradients[0])


def test_a_network_inside_R_does_not_disturb_the_outer_one():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.norm = network(), LatentBatchNorm2d(2)

        def forward(self, u, q):
            v = self.inner(u.mean(dim=1, keepdim=True)).reshape(u.shape)
            return self.norm(u + v) / 3 + q

    torch.manual_seed(0)
    R = Outer()
    net = ImplicitNetwork(nn.Conv2d(1, 2, 1), R, nn.Flatten(), solver=FixedPointIteration(max_steps=5)).double()
    net.on_unconverged = "ignore"
    net(data()).sum().backward()
    assert learnt(net) == learnt(R.inner) == 1


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo looks at it
def test_compiled_normalisation_is_told_too():
    compiled, plain = network(), network()
    torch.compiler.reset()
    compiled.R.compile(backend="aot_eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(data()), plain(data()))
    assert learnt(compiled) == learnt(plain) == 2
    torch.testing.assert_close(compiled.R.norm.running_mean, plain.R.norm.running_mean)


def test_a_network_that_fails_leaves_no_phase_behind():
    net = network(solver=FixedPointIteration(max_steps=1), on_unconverged="raise")
    with pytest.raises(RuntimeError, match="missed the tolerance"):
        net(data())
    before = learnt(net)
    net.R(torch.zeros(6, 2, 3, 3).double(), net.Q(data()))  # by hand, with gradients: recorded
    assert learnt(net) == before + 1
    with torch.no_grad():
        net.R(torch.zeros(6, 2, 3, 3).double(), net.Q(data()))
    assert learnt(net) == before + 1


def test_before_solve_is_called_once_where_gradients_are_recorded():
    net, calls = network(), []
    net.before_solve = lambda R, u0, q: calls.append((R, u0.abs().max().item(), torch.is_grad_enabled()))
    net(data())
    assert calls == [(net.R, 0.0, False)]
    net(data(), net.last.u)
    assert calls[1][1] > 0
    with torch.no_grad():
        net(data())
    net.solve(data())
    net.gradient = Unrolled(2)
    net(data())
    assert len(calls) == 2
    assert isinstance(copy.deepcopy(Rescaling(0.5)), Rescaling)


# A true operator norm


def convolution(channels=3, out=None, **settings):
    return nn.Conv2d(channels, out or channels, 3, **{"padding": 1, **settings})


def original(module: nn.Module) -> torch.Tensor:
    """The weight before it is bounded."""
    return dict(module.named_parameters())["parametrizations.weight.original"]


def bare(module):
    """The module without its bias, in float64 and eval mode."""
    module = copy.deepcopy(module).double().eval()
    if module.bias is not None:
        module.bias.data.zero_()
    return module


def measured(module, shape):
    return contraction_factor(bare(module), torch.zeros(1, *shape).double())


LAYERS = {
    "linear": (lambda: nn.Linear(20, 20), None, (20,)),
    "one": (lambda: nn.Linear(1, 1), None, (1,)),
    "zero padding": (convolution, (5, 4), (3, 5, 4)),
    "circular": (lambda: convolution(padding_mode="circular"), (4, 4), (3, 4, 4)),
    "reflect": (lambda: convolution(padding_mode="reflect"), (4, 4), (3, 4, 4)),
    "same": (lambda: convolution(padding="same", bias=False), (4, 4), (3, 4, 4)),
    "groups": (lambda: convolution(4, groups=2, dilation=2, padding=2), (4, 4), (4, 4, 4)),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("gamma", [0.5, 0.9])
def test_the_norm_is_gamma_before_and_after_training(kind, gamma):
    torch.manual_seed(0)
    make, shape, inputs = LAYERS[kind]
    module = make()
    with torch.no_grad():
        module.weight.mul_(10 / module.weight.norm())
    assert operator_norm(module, gamma, shape) is module
    assert gamma * (1 - 1e-3) < measured(module, inputs) <= gamma * (1 + 1e-3)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.1)
    x, y = torch.randn(2, 8, *inputs)
    for _ in range(6):
        optimiser.zero_grad()
        F.mse_loss(module(x), 3 * y).backward()
        optimiser.step()
        weight = module.weight.detach()  # as training uses it next
        other = copy.deepcopy(make())
        with torch.no_grad():
            other.weight.copy_(weight)
        assert measured(other, inputs) <= gamma * (1 + 1e-3)
    assert measured(module, inputs) <= gamma * (1 + 1e-3)


def test_pytorchs_own_misses_what_this_one_holds():
    torch.manual_seed(0)
    theirs = spectral_norm(convolution(8), n_power_iterations=50)
    ours = operator_norm(convolution(8), 1.0, (6, 6))
    with torch.no_grad():
        original(ours).mul_(10)
        original(theirs).mul_(10)
        theirs(torch.zeros(1, 8, 6, 6))
    assert measured(theirs, (8, 6, 6)) > 1.2
    assert measured(ours, (8, 6, 6)) == pytest.approx(1.0, rel=1e-3)


def test_a_weight_that_is_small_enough_is_left_as_it_is():
    linear = nn.Linear(8, 8)
    with torch.no_grad():
        linear.weight.mul_(0.1)
    weight = linear.weight.detach().clone()
    operator_norm(linear)
    assert torch.equal(linear.weight, weight)
    linear.weight = torch.eye(8) * 4
    torch.testing.assert_close(linear.weight, 0.9 * torch.eye(8))


def test_another_direction_that_overtakes_is_noticed():
    linear = operator_norm(nn.Linear(64, 64, bias=False), 0.9)
    weight, scales = original(linear), torch.linspace(1, 2, 64)
    for number in range(40):  # the largest direction moves on, a little each time
        scales[number] = scales.max() * 1.05
        with torch.no_grad():
            weight.copy_(torch.diag(scales))
        assert torch.linalg.matrix_norm(linear.weight.detach(), 2) <= 0.9 * (1 + 1e-3)


def test_the_gradient_flows_through_the_norm():
    torch.manual_seed(0)
    linear = operator_norm(nn.Linear(6, 6), 0.5).double()
    W_original = original(linear)
    with torch.no_grad():
        W_original.mul_(3)
    g = torch.randn(6, 6).double()
    (gradient,) = torch.autograd.grad((linear.weight * g).sum(), W_original)
    W = W_original.detach().clone().requires_grad_()
    (exact,) = torch.autograd.grad((0.5 * W / torch.linalg.matrix_norm(W, 2) * g).sum(), W)
    assert F.cosine_similarity(gradient.flatten(), exact.flatten(), dim=0) > 0.999


def test_the_weight_is_the_same_in_all_steps_of_an_iteration(monkeypatch):
    torch.manual_seed(0)
    linear = operator_norm(nn.Linear(5, 5), 0.9)
    iterations = []
    search = _operator_norm.OperatorNorm._singular_vector

    def counted(self, weight, x):
        iterations.append(1)
        return search(self, weight, x)

    monkeypatch.setattr(_operator_norm.OperatorNorm, "_singular_vector", counted)

    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear

        def forward(self, u, q):
            return torch.tanh(self.linear(u) + q)

    net = ImplicitNetwork(nn.Linear(3, 5), Cell(), nn.Linear(5, 2), solver=Anderson(tol=1e-5))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for number in range(3):
        net(torch.ones(2, 3)).square().sum().backward()
        assert len(iterations) == number  # found at creation, and once after each change
        optimiser.step()
    net.eval()(torch.ones(2, 3))
    assert len(iterations) == 3
    with torch.inference_mode():
        net(torch.ones(2, 3))


def test_a_copied_or_restored_layer_is_the_same():
    torch.manual_seed(0)
    one, other = (operator_norm(convolution(2), 0.3, (4, 4)) for _ in range(2))
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(other.weight, one.weight, rtol=1e-3, atol=0)
    assert measured(other, (2, 4, 4)) <= 0.3 * (1 + 1e-3)
    other.apply(lambda module: None)  # nn.Module's own
    again = copy.deepcopy(one)
    assert torch.equal(again.weight, one.weight)


def test_functional_calls_and_random_numbers():
    torch.manual_seed(0)
    linear = nn.Linear(5, 5)
    state = torch.get_rng_state()
    operator_norm(linear, 0.9)
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.ones(2, 5)
    expected = torch.autograd.grad(linear(x).sum(), list(linear.parameters()))
    parameters = dict(linear.named_parameters())
    got = torch.func.grad(lambda p: torch.func.functional_call(linear, p, (x,)).sum())(parameters)
    for value, name in zip(expected, parameters, strict=True):
        torch.testing.assert_close(got[name], value)


def test_what_is_not_finite_is_left_to_the_solver():
    linear = operator_norm(nn.Linear(5, 5))
    with torch.no_grad():
        original(linear).fill_(float("nan"))
    assert linear.weight.isnan().all()


def test_zero_and_half_precision():
    linear = nn.Linear(5, 5)
    with torch.no_grad():
        linear.weight.zero_()
    operator_norm(linear)
    (gradient,) = torch.autograd.grad(linear.weight.sum(), original(linear))
    assert gradient.isfinite().all()
    half = operator_norm(nn.Linear(16, 16).bfloat16(), 0.1)
    assert half.weight.dtype == torch.bfloat16
    assert torch.linalg.matrix_norm(half.weight.detach().double(), 2) <= 0.1 * (1 + 2**-7)
    with torch.autocast("cpu", torch.bfloat16):
        assert half(torch.ones(1, 16).bfloat16()).dtype == torch.bfloat16


def test_an_estimate_that_is_not_found_says_so(monkeypatch):
    monkeypatch.setattr(_operator_norm, "KRYLOV", 2)
    monkeypatch.setattr(_operator_norm, "MAX_CYCLES", 1)
    with pytest.warns(RuntimeWarning, match="operator norm was not found to 0.001 in 2 steps"):
        operator_norm(nn.Linear(50, 50))


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 10**6))
def test_linear_layers_of_any_shape(inner, outer, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        linear = nn.Linear(inner, outer)
    operator_norm(linear, 0.1)
    norm = torch.linalg.matrix_norm(linear.weight.detach().double(), 2)
    assert norm <= 0.1 * (1 + 1e-3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((nn.Tanh(),), TypeError, "module must be nn.Linear or nn.Conv2d, got Tanh"),
        ((nn.Linear(2, 2), 0.0), ValueError, "gamma must be positive"),
        ((nn.Linear(2, 2), 0.9, (3, 3)), ValueError, "shape is for convolutions; leave it out"),
        ((convolution(),), ValueError, r"shape must be given for a convolution.*\(height, width\)"),
        ((convolution(), 0.9, 8), TypeError, r"shape must be \(height, width\) of the images, got 8"),
        ((convolution(), 0.9, (8, 0)), ValueError, "shape must be at least 1, got 0"),
    ],
)
def test_layers_that_cannot_be_bounded(arguments, error, message):
    with pytest.raises(error, match=message):
        operator_norm(*arguments)


@pytest.mark.parametrize("gamma", [float("nan"), float("inf"), 0.0, -1.0, True, "0.9"])
def test_a_factor_that_is_no_positive_number(gamma):
    for call in (lambda: Rescaling(gamma), lambda: operator_norm(nn.Linear(2, 2), gamma)):
        with pytest.raises((TypeError, ValueError), match="gamma must be"):
            call()


def test_the_iteration_takes_the_eps_of_the_layer():
    net = network()
    net.R.norm.eps = 0.5
    u, q = torch.randn(6, 2, 3, 3, generator=torch.Generator().manual_seed(2)).double(), net.Q(data()).detach()
    recorded = net.R(u, q)
    with torch.no_grad():
        torch.testing.assert_close(net.R(u, q), recorded, rtol=0, atol=0)


def test_rescaling_shares_the_factor_among_the_blocks():
    class Blocks(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.Sequential(*(nn.Conv2d(2, 2, 1) for _ in range(3)))

        def forward(self, u, q):
            return self.blocks(u + q)

    torch.manual_seed(0)
    R, u = Blocks(), torch.zeros(4, 2, 3, 3)
    torch.manual_seed(1)
    with torch.no_grad():
        stretch, before = Rescaling.stretch(R, u, u), [p.clone() for p in R.parameters()]
        torch.manual_seed(1)
        Rescaling(0.001)(R, u, u)
    assert stretch > 0.001
    for new, old in zip(R.parameters(), before, strict=True):
        torch.testing.assert_close(new, old * (0.001 / stretch) ** (1 / 3))


@pytest.mark.parametrize(
    ("make", "shape", "error", "words"),
    [
        (lambda: nn.Linear(0, 3, bias=False), None, ValueError, "at least one input and one output"),
        (lambda: nn.Linear(3, 0, bias=False), None, ValueError, "at least one input and one output"),
        (lambda: nn.Conv2d(0, 2, 3, bias=False), (4, 4), ValueError, "at least one input and one output"),
        (lambda: nn.LazyLinear(3), None, ValueError, "call a lazy layer once"),
        (lambda: nn.Linear(3, 3, device="meta"), None, ValueError, "must have its numbers"),
        (lambda: nn.Linear(3, 3, dtype=torch.complex64), None, TypeError, "floating-point weight, got torch.complex64"),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.filterwarnings("ignore:Complex modules")
def test_a_layer_whose_weight_has_no_norm(make, shape, error, words):
    module = make()
    with pytest.raises(error, match=words):
        operator_norm(module, 0.9, shape)
    assert "parametrizations" not in dict(module.named_children())


def test_a_layer_made_in_inference_mode_is_bounded_and_follows_its_weight():
    torch.manual_seed(0)
    with torch.inference_mode():
        linear = operator_norm(nn.Linear(6, 5, bias=False, dtype=torch.float64), 0.5)
        assert torch.linalg.matrix_norm(linear.weight, 2).item() == pytest.approx(0.5, rel=1e-3)
        next(linear.parameters()).copy_(torch.randn(5, 6, dtype=torch.float64))
        assert torch.linalg.matrix_norm(linear.weight, 2).item() == pytest.approx(0.5, rel=1e-3)
    assert torch.linalg.matrix_norm(linear.weight, 2).item() == pytest.approx(0.5, rel=1e-3)
