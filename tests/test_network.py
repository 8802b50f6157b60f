"""ImplicitNetwork: what it evaluates, how often, where it starts, what it says, and what it refuses."""

import copy

import pytest
import torch
from problems import Layer
from torch import nn
from torch.nn.functional import mse_loss

from jfb_tutorial import bench, theory
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, NeumannSeries, Unrolled, UnrolledPhantom
from jfb_tutorial.network import ImplicitNetwork
from jfb_tutorial.solvers import Anderson, Broyden, FixedPointIteration, Solution

RULES = [JFB(), ImplicitDifferentiation(), NeumannSeries(3), UnrolledPhantom(), Unrolled(7)]


class Counting(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module, self.calls, self.with_graph = module, 0, 0

    def forward(self, *arguments):
        self.calls += 1
        self.with_graph += torch.is_grad_enabled()
        return self.module(*arguments)


def network(**keywords):
    torch.manual_seed(0)
    R = Layer(5)
    R.scale = 0.5
    return ImplicitNetwork(Counting(nn.Linear(3, 5)), Counting(R), Counting(nn.Linear(5, 2)), **keywords).double()


def data(batch=4):
    return torch.randn(batch, 3, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("train", [True, False])
def test_a_forward_pass_is_S_of_the_rule_at_what_the_solver_found(rule, train):
    net = network(gradient=rule).train(train)
    d = data()
    out = net(d)
    assert net.Q.calls == net.S.calls == 1
    q = net.Q.module(d)
    u = torch.zeros_like(q)
    if not isinstance(rule, Unrolled):
        u = FixedPointIteration()(lambda u: net.R.module(u, q), u).u
    expected = net.S.module(rule(lambda u: net.R.module(u, q), u))
    torch.testing.assert_close(out, expected, rtol=0, atol=0)
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_the_solve_records_no_graph_and_the_rule_evaluates_R_once_more():
    net = network(solver=FixedPointIteration(tol=1e-300, max_steps=9), on_unconverged="ignore")
    net(data())
    assert (net.R.calls, net.R.with_graph) == (10, 1)


def test_unrolling_skips_the_solve():
    net = network(gradient=Unrolled(7))
    net(data())
    assert (net.R.calls, net.R.with_graph) == (7, 7)
    assert net.last is None


def test_last_is_the_latest_solution_without_a_graph():
    net = network(solver=Anderson(tol=1e-10))
    assert net.last is None
    net(data())
    assert isinstance(net.last, Solution)
    assert net.last.converged.all()
    assert not net.last.u.requires_grad
    first = net.last
    found = net.solve(data(2))
    assert found is net.last is not first
    assert found.u.shape == (2, 5)
    assert not found.u.requires_grad


def test_the_operator_evaluates_Q_once_and_keeps_its_graph():
    net = network()
    T = net.operator(data())
    u = torch.zeros(4, 5).double()
    T(T(u)).sum().backward()
    assert net.Q.calls == 1
    assert net.Q.module.weight.grad.norm() > 0


def test_plain_functions_and_replaced_parts():
    net = ImplicitNetwork(lambda d: d, lambda u, q: 0.5 * u + q, lambda u: 2 * u, solver=FixedPointIteration(tol=1e-12))
    torch.testing.assert_close(net(data()), 4 * data(), rtol=1e-6, atol=1e-8)
    net.gradient = Unrolled(3)
    torch.testing.assert_close(net(data()), 3.5 * data())


BAD = [
    ({"Q": None}, "Q must be callable, got NoneType"),
    ({"S": 3}, "S must be callable, got int"),
    ({"gradient": JFB}, r"gradient must be an object, got the class JFB; write JFB\(\)"),
    ({"solver": "anderson"}, "solver must be callable, got str"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message[:20] for _, message in BAD])
def test_bad_parts(change, message):
    parts = {"Q": nn.Identity(), "R": lambda u, q: u, "S": nn.Identity()} | change
    with pytest.raises(TypeError, match=message):
        ImplicitNetwork(parts.pop("Q"), parts.pop("R"), parts.pop("S"), **parts)


def test_a_borrowed_network_is_given_back_as_it_was():
    net = network()
    net.Q.eval()
    net(data())

    def settings():
        return net.solver, net.gradient, net.on_unconverged, net.last, [module.training for module in net.modules()]

    before = settings()
    other = FixedPointIteration(tol=1e-2)

    def borrow_and_fail():
        with net.using(solver=other, gradient=Unrolled(3), mode="eval", on_unconverged="raise") as borrowed:
            assert borrowed is net
            assert (net.solver, net.gradient, net.on_unconverged) == (other, Unrolled(3), "raise")
            assert not any(module.training for module in net.modules())
            net.solve(data())
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        borrow_and_fail()
    assert settings() == before
    with (
        pytest.raises(ValueError, match="mode must be one of 'train', 'eval', got 'evl'; did you mean 'eval'"),
        net.using(mode="evl"),
    ):
        pass
    with pytest.raises(ValueError, match="on_unconverged must be one of"), net.using(on_unconverged="stop"):
        pass


# Where the iteration starts


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_a_warm_start_is_where_the_iteration_begins(rule):
    net = network(gradient=rule, solver=FixedPointIteration(tol=1e-6, max_steps=200))
    cold = net(data())
    if isinstance(rule, Unrolled):
        torch.testing.assert_close(net(data(), torch.ones(4, 5).double()), cold, rtol=0, atol=0)  # starts at zero
        assert net.last is None
        return
    steps, u0 = int(net.last.steps.max()), net.last.u.clone().requires_grad_()
    warm = net(data(), u0)
    assert int(net.last.steps.max()) == 1 < steps
    torch.testing.assert_close(warm, cold, rtol=0, atol=1e-5)
    warm.sum().backward()
    assert u0.grad is None
    assert net.Q.calls == 2


def test_solving_from_a_start():
    net = network(solver=FixedPointIteration(tol=1e-300, max_steps=1), on_unconverged="ignore")
    u0 = torch.randn(4, 5).double()
    torch.testing.assert_close(net.solve(data(), u0).u, net.operator(data())(u0), rtol=0, atol=0)
    torch.testing.assert_close(net.solve(data()).u, net.solve(data(), 0 * u0).u, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("u0", "error", "message"),
    [
        (torch.zeros(4, 6).double(), ValueError, r"u0 must have the shape of Q\(d\), \(4, 5\), got \(4, 6\)"),
        (torch.zeros(5).double(), ValueError, r"u0 must have the shape of Q\(d\), \(4, 5\), got \(5,\)"),
        (torch.zeros(4, 5), TypeError, r"u0 must have the dtype of Q\(d\), torch.float64, got torch.float32"),
        (torch.zeros(4, 5, device="meta").double(), ValueError, r"u0 must be on the device of Q\(d\), cpu, got meta"),
        ([0.0], TypeError, r"u0 must be a tensor like Q\(d\), got list"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(u0, error, message):
    for call in (network(), network().solve, network(gradient=Unrolled(2))):
        with pytest.raises(error, match=message):
            call(data(), u0)


# States that are tuples


class Split(nn.Module):
    """Q of a tuple: (batch, 3) and (batch, 2, 2)."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 7)

    def forward(self, d):
        q = self.linear(d)
        return q[:, :3], q[:, 3:].reshape(-1, 2, 2)


class Coupled(nn.Module):
    """R of a tuple: each part depends on both."""

    def __init__(self):
        super().__init__()
        self.layer = Layer(7)
        self.layer.scale = 0.5

    def forward(self, u, q):
        joined = [torch.cat([a, b.flatten(1)], dim=1) for a, b in (u, q)]
        v = self.layer(*joined)
        return v[:, :3], v[:, 3:].reshape(-1, 2, 2)


class Joined(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(7, 2)

    def forward(self, u):
        return self.linear(torch.cat([u[0], u[1].flatten(1)], dim=1))


def tuple_and_single(**keywords):
    """A network with a state of two parts, and the same with a state of one."""
    torch.manual_seed(0)
    pair = ImplicitNetwork(Split(), Coupled(), Joined(), **keywords).double()
    one = ImplicitNetwork(pair.Q.linear, pair.R.layer, pair.S.linear, **keywords)
    return pair, one


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("solver", [FixedPointIteration(), Anderson()], ids=["plain", "anderson"])
def test_a_tuple_of_states_is_one_state_in_parts(rule, solver):
    pair, one = tuple_and_single(gradient=rule, solver=solver)
    torch.testing.assert_close(pair(data()), one(data()), rtol=0, atol=0)
    gradients = [torch.autograd.grad(net(data()).square().sum(), list(net.parameters())) for net in (pair, one)]
    assert len(gradients[0]) == 6
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    if not isinstance(rule, Unrolled):
        assert pair.last.u.shape == (4, 7)


def test_starts_and_the_operator_of_a_tuple():
    pair, one = tuple_and_single(solver=FixedPointIteration(tol=1e-9, max_steps=100))
    T, u = pair.operator(data()), pair.solve(data()).u
    torch.testing.assert_close(T(u), one.operator(data())(u), rtol=0, atol=0)
    parts = T.unpack(u)
    assert [tuple(part.shape) for part in parts] == [(4, 3), (4, 2, 2)]
    for start in (parts, u):
        assert int(pair.solve(data(), start).steps.max()) == 1
    with pytest.raises(ValueError, match=r"u0\[1\] must have the shape of Q\(d\)\[1\], \(4, 2, 2\), got \(4, 4\)"):
        pair(data(), (parts[0], parts[1].flatten(1)))
    with pytest.raises(TypeError, match=r"u0 must be a tuple of 2 tensors like Q\(d\), got a tuple of 1"):
        pair(data(), parts[:1])
    with pytest.raises(ValueError, match=r"u0 must have the shape of Q\(d\), packed, \(4, 7\), got \(4, 6\)"):
        pair.solve(data(), u[:, :6])
    assert pair(data(0)).shape == (0, 2)


def test_the_measurements_take_a_tuple():
    pair, one = tuple_and_single(solver=FixedPointIteration(tol=1e-12, max_steps=200))
    d, y = data(1), torch.ones(1, 2).double()
    checks = [theory.descent_check(net, d, y, mse_loss) for net in (pair, one)]
    assert checks[0].gamma == checks[1].gamma < 1
    torch.testing.assert_close(checks[0].p, checks[1].p, rtol=0, atol=0)
    first, second = (bench.compare(net, d, y, mse_loss, [JFB(), NeumannSeries(3)]) for net in (pair, one))
    assert [row.cosine for row in first.rows] == [row.cosine for row in second.rows]


a, b = torch.zeros(4, 3), torch.zeros(4, 2)
BAD_STATES = [
    ((), TypeError, "got an empty tuple"),
    ([a, b], TypeError, "must be a tensor or a tuple of tensors, got list"),
    ((a, (b, b)), TypeError, r"Q\(d\)\[1\] must be a floating-point tensor, got tuple; tuples are not nested"),
    ((a, b.long()), TypeError, r"Q\(d\)\[1\] must be a floating-point tensor, got torch.int64"),
    ((a, b.double()), TypeError, r"Q\(d\)\[1\] must have the dtype of Q\(d\)\[0\], torch.float32, got torch.float64"),
    ((a, b.to("meta")), ValueError, r"Q\(d\)\[1\] must be on the device of Q\(d\)\[0\], cpu, got meta"),
    ((a, b[:3]), ValueError, r"with the batch of Q\(d\)\[0\], 4, got shape \(3, 2\)"),
]


@pytest.mark.parametrize(("q", "error", "message"), BAD_STATES, ids=[message[:24] for _, _, message in BAD_STATES])
def test_states_that_are_none(q, error, message):
    with pytest.raises(error, match=message):
        ImplicitNetwork(lambda d: q, lambda u, q: q, lambda u: u)(a)


class Constant(nn.Module):
    """R(u, q) = v."""

    def __init__(self, v):
        super().__init__()
        self.v = v

    def forward(self, u, q):
        return self.v


def test_what_R_makes_of_a_tuple_must_be_like_it():
    for v, error, message in [
        (a, TypeError, r"R\(u, q\) must be a tuple of 2 tensors like Q\(d\), got Tensor"),
        ((a, a), ValueError, r"R\(u, q\)\[1\] must have the shape of Q\(d\)\[1\], \(4, 2\), got \(4, 3\)"),
        ((a, b.double()), TypeError, r"R\(u, q\)\[1\] must have the dtype"),
    ]:
        with pytest.raises(error, match=message):
            ImplicitNetwork(lambda d: (a, b), Constant(v), lambda u: u)(a)


def test_a_tuple_inside_autocast_may_have_two_dtypes():
    linear = nn.Linear(3, 3)
    net = ImplicitNetwork(lambda d: (d, linear(d)), lambda u, q: (0.1 * u[1], 0.1 * linear(u[0])), lambda u: u[0])
    with torch.autocast("cpu", torch.bfloat16):
        net(torch.randn(2, 3)).sum().backward()
    assert net.last is not None
    assert net.last.u.dtype == torch.float32
    assert linear.weight.grad is not None


# What is said where samples miss the tolerance

STOPPED = FixedPointIteration(tol=1e-12, max_steps=3)
MISSED = (
    r"4 of 4 samples missed the tolerance after 3 evaluations of R, worst residual \d.\de-\d\d, tol 1.0e-12; raise the"
)


def test_a_network_warns_once_that_it_did_not_converge():
    net = network(solver=STOPPED)
    with pytest.warns(RuntimeWarning, match=MISSED):
        net(data())
    net(data())  # warnings are errors here
    net.solve(data())
    with pytest.warns(RuntimeWarning, match=MISSED):
        network(solver=STOPPED).solve(data())
    net.on_unconverged = "raise"  # asked for later, it raises
    with pytest.raises(RuntimeError, match=MISSED):
        net(data())


def test_a_network_raises_each_time_or_ignores():
    net = network(solver=STOPPED, on_unconverged="raise")
    for _ in range(2):
        with pytest.raises(RuntimeError, match=MISSED):
            net(data())
    assert not net.last.converged.any()
    network(solver=STOPPED, on_unconverged="ignore")(data())
    for choice in ("warn", "raise"):
        network(solver=Anderson(tol=1e-10), on_unconverged=choice)(data())
        network(gradient=Unrolled(2), on_unconverged=choice)(data())
    with pytest.raises(ValueError, match=r"on_unconverged must be one of .* did you mean 'raise'"):
        network(on_unconverged="raises")


def test_some_samples_missed():
    net = network(solver=FixedPointIteration(tol=1e-2, max_steps=2, relative=True), on_unconverged="raise")
    with net.using(solver=FixedPointIteration(tol=1e-9)):
        start = net.solve(data()).u
    start[1] += 100
    with pytest.raises(RuntimeError, match=r"^1 of 4 samples missed .* relative tol 1.0e-02"):
        net(data(), start)


def test_dropout_in_R_is_named():
    R = nn.Dropout(0.5)
    net = ImplicitNetwork(nn.Identity(), lambda u, q: R(u) / 2 + q, nn.Identity(), on_unconverged="raise")
    with pytest.raises(RuntimeError, match="missed the tolerance") as plain:
        net(data())
    assert "dropout" not in str(plain.value)  # R is a function, whose modules nobody sees

    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout = R

        def forward(self, u, q):
            return self.dropout(u) / 2 + q

    net = ImplicitNetwork(nn.Identity(), Cell(), nn.Identity(), on_unconverged="raise")
    with pytest.raises(RuntimeError, match="dropout in R makes another T of every step"):
        net(data())
    net.eval()(data())


class Reading:
    """A tensor's `converged` that counts who reads it."""

    def __init__(self):
        self.reads = 0

    def all(self):
        self.reads += 1
        return True


def test_a_solver_that_says_so_spares_a_read_of_the_device():
    for told, reads in ((True, 0), (None, 1)):
        converged = Reading()

        def solver(T, u0, told=told, converged=converged):
            return Solution(T(u0), torch.zeros(1, 4), torch.ones(4), converged, told)

        network(solver=solver)(data())
        assert converged.reads == reads


def test_the_solution_knows_whether_all_converged():
    net = network()
    for solver in (FixedPointIteration(), Anderson(), Broyden()):
        for settings, expected in ((STOPPED, False), (FixedPointIteration(tol=1e-6, max_steps=99), True)):
            same = type(solver)(tol=settings.tol, max_steps=settings.max_steps)
            solution = same(net.operator(data()), torch.zeros(4, 5).double())
            assert solution.all_converged is bool(solution.converged.all()) is expected


def test_copies_and_saved_networks():
    pair, _ = tuple_and_single()
    twin = copy.deepcopy(pair)
    torch.testing.assert_close(twin(data()), pair(data()), rtol=0, atol=0)


class Writes(nn.Module):
    """R that has an operation in place on q, as `q.mul_` is written for `q.mul` by mistake."""

    def forward(self, u, q):
        if isinstance(q, tuple):
            return tuple(0.5 * v + p for v, p in zip(u, (q[0], q[1].mul_(0.9)), strict=True))
        return 0.5 * u + q.mul_(0.9)


@pytest.mark.parametrize("Q", [lambda d: 2 * d, lambda d: (2 * d, 3 * d)])
@pytest.mark.parametrize("gradient", [JFB(), Unrolled(3), ImplicitDifferentiation()])
def test_R_may_not_write_into_q(Q, gradient):
    network = ImplicitNetwork(Q, Writes(), lambda u: u, gradient=gradient, on_unconverged="ignore")
    for context in (torch.enable_grad, torch.no_grad):
        with context(), pytest.raises(ValueError, match=r"R must not write into q: it changed Q\(d\) in place"):
            network(torch.ones(2, 3))
    with torch.inference_mode():  # where nobody counts what is written
        network.solve(torch.ones(2, 3))


def test_q_may_change_between_the_evaluations_of_an_operator():
    network = ImplicitNetwork(nn.Identity(), lambda u, q: 0.5 * u + q, nn.Identity())
    d = torch.ones(2, 3)
    T = network.operator(d)
    T(d)
    d.mul_(2)
    assert T(d).tolist() == [[3.0] * 3] * 2


@pytest.mark.parametrize("setting", [{"gradient": JFB}, {"solver": FixedPointIteration}, {"gradient": 5}])
def test_a_borrowed_network_gets_no_class(setting):
    network = ImplicitNetwork(nn.Identity(), lambda u, q: 0.5 * u + q, nn.Identity())
    (name,) = setting
    words = f"{name} must be (an object, got the class {{}}; write {{}}|callable)".replace("{}", r"\w+")
    with pytest.raises(TypeError, match=words), network.using(**setting):
        pass
