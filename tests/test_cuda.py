"""What only a GPU can show. Without one these tests are skipped; CUDA_TESTS_ON=cpu tries what they do on the CPU."""

import warnings

import pytest
import torch
from conftest import refuse_skip
from problems import Layer
from torch.nn import functional as F

from jfb_tutorial.architectures import build
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, NeumannSeries, PublishedCG, Unrolled, UnrolledPhantom
from jfb_tutorial.network import ImplicitNetwork
from jfb_tutorial.solvers import Anderson, Broyden, FixedPointIteration
from jfb_tutorial.theory import contraction_factor, descent_check
from jfb_tutorial.training import data, train
from jfb_tutorial.training.evaluation import evaluate
from jfb_tutorial.training.inspection import inspect
from jfb_tutorial.training.recipes import recipe

cuda = pytest.mark.cuda

TIGHT = FixedPointIteration(1e-12, 500)
EXACT = [ImplicitDifferentiation(method, tol=1e-11) for method in ("gmres", "bicgstab", "neumann", "cg")]
RULES = [
    JFB(),
    UnrolledPhantom(3, 0.7),
    Unrolled(4),
    NeumannSeries(60),
    *EXACT,
    ImplicitDifferentiation(tol=1e-11, per_sample=True),
    PublishedCG(1e-12, 100),
]
SOLVERS = [FixedPointIteration(1e-9, 200), Anderson(1e-9, 200), Broyden(1e-9, 200)]


def digits(count: int) -> data.Images:
    return data.load("digits")[:count]


def network(device: torch.device | str, **settings) -> ImplicitNetwork:
    """The same weights on every device, in float64."""
    torch.manual_seed(0)
    return build("digits", **settings).to(device, torch.float64)


def small_run(**settings):
    quick = {"epochs": 1, "images": 50, "batch": 25, "reestimate": 0, "probe": 0}
    return recipe("digits", "smoke", **(quick | settings))


def largest_difference(one: ImplicitNetwork, other: ImplicitNetwork) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max((x.double() - y.double()).abs().max().item() for x, y in pairs)


@cuda
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_gradcheck_of_a_rule(gpu, rule):
    noise = torch.Generator().manual_seed(0)
    W, q = (torch.randn(6, n, generator=noise, dtype=torch.float64) for n in (6, 2))
    W, q = (0.3 * W / torch.linalg.matrix_norm(W, 2)).to(gpu), q.T.to(gpu)
    start = torch.zeros_like(q)

    def value(weight):
        def T(u):
            return torch.tanh(u @ weight.T + q)

        # JFB and the unrolled phantom gradient differentiate steps from a constant; the others a fixed point that moves with W
        moves = not isinstance(rule, JFB | UnrolledPhantom | Unrolled)
        return rule(T, TIGHT(T, start).u if moves else start)

    assert torch.autograd.gradcheck(value, W.requires_grad_(), atol=1e-7, nondet_tol=1e-10)


@cuda
@pytest.mark.parametrize("rule", [*RULES[:3], RULES[4]], ids=repr)
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_step_is_that_of_the_cpu_in_float64(gpu, rule, solver):
    def gradient(device) -> torch.Tensor:
        model, images = network(device, solver=solver, gradient=rule), digits(8)
        d, labels = images.images.to(device).double() / 255, images.labels.to(device)
        F.cross_entropy(model(d), labels).backward()
        return torch.cat([p.grad.cpu().flatten() for p in model.parameters() if p.grad is not None])

    torch.testing.assert_close(gradient(gpu), gradient("cpu"), rtol=1e-6, atol=1e-8)


@cuda
def test_what_is_measured_is_what_the_cpu_measures(gpu):
    images = digits(60)
    found, expected = evaluate(network(gpu), images), evaluate(network("cpu"), images)
    assert found.loss == pytest.approx(expected.loss)
    assert torch.equal(found.predictions.cpu(), expected.predictions)
    seen, expected_seen = inspect(network(gpu), images, steps=5), inspect(network("cpu"), images, steps=5)
    torch.testing.assert_close(seen.residuals, expected_seen.residuals)
    torch.manual_seed(0)
    cell = Layer(5)
    cell.scale = 0.3
    model = ImplicitNetwork(torch.nn.Linear(3, 5), cell, torch.nn.Linear(5, 2)).double()
    sample, target = torch.ones(1, 3, dtype=torch.float64), torch.tensor([1])
    checked = descent_check(model, sample, target, F.cross_entropy)
    factor = contraction_factor(model.operator(sample), model.solve(sample).u)
    model, sample, target = model.to(gpu), sample.to(gpu), target.to(gpu)
    assert repr(descent_check(model, sample, target, F.cross_entropy)) == repr(checked)
    assert contraction_factor(model.operator(sample), model.solve(sample).u) == pytest.approx(factor)


@cuda
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_run_in_bfloat16(gpu, channels_last):
    solver = FixedPointIteration(3e-2, 20, relative=True)
    run = train(small_run(precision="bfloat16", channels_last=channels_last, solver=solver), device=gpu)
    row = run.record["epochs"][-1]
    assert row["unconverged"] == 0
    assert 0 < row["loss"] < 10
    assert {p.dtype for p in run.network.parameters()} == {torch.float32}
    assert 0 < run.record["result"]["saved_bytes"] < row["peak_memory"]
    if gpu.type == "cuda":
        assert row["peak_memory"] < torch.cuda.get_device_properties(gpu).total_memory


@cuda
def test_channels_last_is_a_layout_and_no_other_network(gpu):
    d = digits(8).images.to(gpu).double() / 255
    plain, model = (network(gpu).eval() for _ in range(2))  # where nothing is dropped at random
    model.to(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(model(d.contiguous(memory_format=torch.channels_last)), plain(d))


@cuda
@pytest.mark.filterwarnings("ignore")  # the compiler's own, which differ from GPU to GPU
def test_a_compiled_T_is_the_same_T(gpu):
    plain, compiled = (network(gpu, gradient=NeumannSeries(3)).eval() for _ in range(2))
    torch.compiler.reset()
    compiled.R.compile()
    d, labels = digits(8).images.to(gpu).double() / 255, digits(8).labels.to(gpu)
    for model in (plain, compiled):
        F.cross_entropy(model(d), labels).backward()
    for p, q in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


@cuda
def test_a_batch_that_is_too_large_says_which_one_fits(gpu):
    if gpu.type == "cpu":
        pytest.skip("the CPU has no limit of its own")
    torch.cuda.empty_cache()
    # a part of the memory that the weights and a few images fit into, and a batch does not
    torch.cuda.set_per_process_memory_fraction(1e9 / torch.cuda.get_device_properties(gpu).total_memory)
    images = torch.zeros(2000, 3, 32, 32, dtype=torch.uint8), torch.arange(2000) % 10
    plan = recipe("grey", "smoke", network="fast_cifar10", images=1990, batch=1990, held_out=0, probe=0, reestimate=0)
    try:
        with pytest.raises(
            torch.OutOfMemoryError, match=r"batch 1990 needs more memory than .* has; \d+ fits: --batch"
        ):
            train(plan, data=(images, images), device=gpu)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@cuda
def test_a_run_that_was_resumed_ends_where_another_whole_one_does(gpu, tmp_path):
    plan = small_run(epochs=2)

    def stop(row, network):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        whole, again = (train(plan, device=gpu).network for _ in range(2))
        with pytest.raises(KeyboardInterrupt):
            train(plan, tmp_path, device=gpu, callback=stop)
        resumed = train(plan, tmp_path, device=gpu, resume=True)
    assert resumed.record["resumed_after"] == [1]
    # on a GPU sums may be added up in an order that changes; what is lost at a restart would be far more than that
    assert largest_difference(resumed.network, whole) <= 1e-4 + 10 * largest_difference(again, whole)


@cuda
def test_no_tf32_while_measuring_and_the_settings_are_the_callers(gpu):
    model, seen = network(gpu), []
    model.R.register_forward_hook(lambda *_: seen.append((torch.get_float32_matmul_precision(), backend.allow_tf32)))
    backend, own = torch.backends.cudnn, torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        with backend.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
            evaluate(model, digits(8))
            inspect(model, digits(8), steps=2)
            assert set(seen) == {("highest", False)}
            # for whoever wants them in training
            assert (torch.get_float32_matmul_precision(), backend.allow_tf32, backend.benchmark) == ("high", True, True)
    finally:
        torch.set_float32_matmul_precision(own)


@cuda
def test_the_gpu_waits_as_often_as_was_counted_without_one(gpu):
    """What tests/test_accelerator.py counts on a device that is not there, as the driver sees it."""
    model = network(gpu, solver=FixedPointIteration(1e-6, 50), on_unconverged="ignore")
    d, labels = digits(8).images.to(gpu).double() / 255, digits(8).labels.to(gpu)
    F.cross_entropy(model(d), labels).backward()  # the first step also loads and chooses kernels
    model.zero_grad()
    with warnings.catch_warnings(record=True) as waits:
        warnings.simplefilter("always")
        if gpu.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            F.cross_entropy(model(d), labels).backward()
        finally:
            if gpu.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    assert model.last is not None
    evaluations = len(model.last.residuals)
    assert evaluations > 1
    assert len([wait for wait in waits if "synchronizing" in str(wait.message)]) <= evaluations


def test_ci_refuses_a_skip_but_for_want_of_a_gpu():
    def skipped() -> pytest.TestReport:
        where = ("file", 1, "Skipped: no Chromium found")
        return pytest.TestReport("a test", ("file", 1, "a test"), {}, "skipped", where, "setup")

    report = skipped()
    refuse_skip(report, may_skip=True)
    assert report.skipped
    refuse_skip(report, may_skip=False)
    assert report.failed
    assert "no Chromium found" in str(report.longrepr)
    expected_to_fail = skipped()
    expected_to_fail.wasxfail = "known"
    refuse_skip(expected_to_fail, may_skip=False)
    assert expected_to_fail.skipped
