"""What the package does on a device that is not the CPU, with one that is not there, see `fake_accelerator`.

Nothing may mix devices, every number must be the CPU's, and the device is waited for as seldom as stated: on a GPU each wait leaves it
idle. The page "On a GPU" of the book quotes these counts.
"""

import contextlib

import pytest
import torch
from fake_accelerator import NAME, Accelerator, Missing, register
from problems import Layer
from torch.nn import functional as F

from jfb_tutorial import bench, gradients, normalisation, solvers, theory
from jfb_tutorial._jacobian import buffers_kept
from jfb_tutorial.architectures import ARCHITECTURES, build
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, NeumannSeries, PublishedCG, Unrolled, UnrolledPhantom
from jfb_tutorial.network import ImplicitNetwork
from jfb_tutorial.solvers import Anderson, Broyden, FixedPointIteration
from jfb_tutorial.timing import step_times
from jfb_tutorial.training import data, train
from jfb_tutorial.training.checkpoints import load_network
from jfb_tutorial.training.evaluation import evaluate
from jfb_tutorial.training.inspection import inspect
from jfb_tutorial.training.loop import _Training
from jfb_tutorial.training.recipes import recipe

# when the file is read, before any test runs: at its first backward pass autograd makes a queue for each device that there is,
# and never one for a device that comes later
with contextlib.suppress(Missing):
    register()

READS_AN_EPOCH = 4  # a loss that is not finite, the sums, the maxima, the weights that are not finite
UPLOADS_AN_EPOCH = 2  # the order of the images, and the draws for their augmentation
RULES = [
    JFB(),
    UnrolledPhantom(3, 0.5),
    Unrolled(5),
    NeumannSeries(3),
    *(ImplicitDifferentiation(method, tol=1e-4) for method in ("gmres", "bicgstab", "neumann", "cg")),
    ImplicitDifferentiation(per_sample=True, on_failure="warn", tol=1e-4),
    PublishedCG(),
]
SOLVERS = [
    FixedPointIteration(1e-4, 50),
    FixedPointIteration(1e-3, 50, relative=True),
    FixedPointIteration(1e-4, 50, check_every=3),
    FixedPointIteration(max_steps=5, check_every=0),
    Anderson(1e-4, 50),
    Broyden(1e-4, 50),
    Broyden(1e-4, 50, memory=3),
]


@pytest.fixture
def accelerator():
    try:
        opened = Accelerator()
    except Missing as missing:
        pytest.skip(str(missing))
    with opened:
        yield opened


def digits(count: int) -> data.Images:
    return data.load("digits")[:count]


def network(device: str = NAME, **settings) -> ImplicitNetwork:
    torch.manual_seed(0)
    return build("digits", on_unconverged="ignore", **settings).to(device)


def step(device: str, solver, rule, accelerator: Accelerator | None = None) -> tuple[ImplicitNetwork, torch.Tensor]:
    """A forward and a backward pass on eight digits; the network, and its gradient on the CPU. `accelerator` counts the step alone."""
    model, images = network(device, solver=solver), digits(8)
    model.gradient = rule
    d, labels = images.images.to(device).float() / 255, images.labels.to(device)
    if accelerator:
        accelerator.clear()
    F.cross_entropy(model(d), labels).backward()
    if accelerator:
        accelerator.pause()
    return model, torch.cat([p.grad.cpu().flatten() for p in model.parameters() if p.grad is not None])


# The device itself


def test_the_device_refuses_what_a_gpu_refuses(accelerator):
    x = torch.ones(3, device=NAME)
    assert (x + torch.tensor(1.0)).tolist() == [2, 2, 2]  # a number of the CPU may stand beside it
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.ones(3)
    with pytest.raises(RuntimeError, match="same device"):
        torch.autograd.grad(x.requires_grad_() * 2, x, torch.ones(3))
    with pytest.raises(RuntimeError, match="numpy"):
        x.numpy()
    with torch.utils._python_dispatch._disable_current_modes(), pytest.raises(RuntimeError, match="is open"):
        x + 1


def test_the_device_counts_what_a_gpu_waits_for(accelerator):
    x = torch.arange(4.0, device=NAME)
    waiting = {
        "_local_scalar_dense": lambda: x.sum().item(),
        "is_nonzero": lambda: bool((x > 1).any()),
        "equal": lambda: torch.equal(x, x),
        "nonzero": lambda: x.nonzero(),
        "index by a mask": lambda: x[x > 1],
        "_linalg_check_errors": lambda: torch.linalg.solve(torch.eye(4, device=NAME), x),
        "download": lambda: x.cpu(),
        "upload": lambda: torch.tensor([1, 2], device=NAME),
    }
    for name, wait in waiting.items():
        accelerator.clear()
        wait()
        assert sum(accelerator.waits.values()) == 1, (name, accelerator.waits)
        assert accelerator.waits[name] or name == "is_nonzero"  # which is a read of a number
    accelerator.clear()
    torch.where(x > 1, x, 0.0).sort()
    assert not accelerator.waits


def test_the_device_has_views_and_versions_and_16_bits(accelerator):
    x = torch.zeros(4, device=NAME)
    x[1:].add_(1)
    x.data = x.data.double()
    assert x.tolist() == [0, 1, 1, 1]
    assert x.dtype == torch.float64
    assert x._version == 1
    with torch.autocast(NAME, torch.bfloat16):
        assert torch.nn.Linear(4, 4, device=NAME)(x.float()).dtype == torch.bfloat16


# Rules and solvers


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_rule_gives_the_gradient_of_the_cpu_and_reads_no_more_than_its_solve(accelerator, rule):
    solver = FixedPointIteration(1e-3, 50)
    with gradients.tally() as count:
        model, gradient = step(NAME, solver, rule, accelerator)
    _, expected = step("cpu", solver, rule)
    assert torch.equal(gradient, expected)
    evaluations = 0 if model.last is None else len(model.last.residuals)
    if isinstance(rule, ImplicitDifferentiation | PublishedCG):
        # a step of the adjoint's solver makes one product at least and reads once; the rest are starts and judgements
        assert evaluations < accelerator.reads <= evaluations + count.products + 10
    else:
        assert accelerator.reads == evaluations
    assert not accelerator.waits["upload"]


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_solver_gives_the_solution_of_the_cpu_and_reads_once_a_check(accelerator, solver):
    model, gradient = step(NAME, solver, JFB(), accelerator)
    expected, expected_gradient = step("cpu", solver, JFB())
    for name in ("u", "residuals", "steps", "converged"):
        assert torch.equal(getattr(model.last, name).cpu(), getattr(expected.last, name)), name
    assert torch.equal(gradient, expected_gradient)
    assert model.last is not None
    checks = len(model.last.residuals)
    # Broyden looks whether it gets on, each time that its memory is full
    restarts = (checks - 2) // solver.memory if isinstance(solver, Broyden) else 0
    assert accelerator.reads == checks + restarts
    assert not accelerator.waits["upload"]


def test_every_rule_and_every_solver_is_in_the_lists():
    assert {type(rule).__name__ for rule in RULES} == set(gradients.__all__) - {"Tally", "tally"}
    assert {type(solver).__name__ for solver in SOLVERS} == set(solvers.__all__) - {"Solution"}


# Training


def some_images(channels: int, side: int, count: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.Generator().manual_seed(channels * side)
    return torch.randint(256, (count, channels, side, side), generator=noise, dtype=torch.uint8), torch.arange(
        count
    ) % 10


FEW = FixedPointIteration(1e-3, 2)
QUICK: dict = {"solver": FEW, "evaluation": FEW, "batch": 10, "reestimate": 0}
SMALL: dict = {"epochs": 1, "images": 10, "batch": 5, "held_out": 0, "reestimate": 10, "probe": 0}
AUGMENTED: dict = {"flip": "alternate", "crop": 2, "cutout": 3, "erase": 0.9}
TRAININGS: dict[str, dict] = {
    **{name: {"network": name, **QUICK} for name in ARCHITECTURES},
    "explicit": {"explicit": True},
    "every step": {"norm": "every-step"},
    "last step": {"norm": "last-step"},
    "group": {"norm": "group"},
    "rescaling": {"norm": "rescaling", "batch_norm": False},
    "reflected": {"fill": "reflect", **AUGMENTED},
    "in the mean colour": {"fill": "mean", **AUGMENTED, "flip": "random"},
    "averaged": {"average": 0.9, "epochs": 3},
    "muon": {"network": "fast_cifar10", "optimiser": "muon", "channels_last": True, **QUICK},
    "watched": {"watch_test": True, "held_out": 10, "probe": 1},
    "Broyden": {"solver": Broyden(1e-3, 20), "evaluation": Anderson(1e-3, 20)},
    "bfloat16": {"precision": "bfloat16", "solver": FixedPointIteration(1e-1, 9, relative=True)},
}


@pytest.fixture
def counted_steps(monkeypatch, accelerator):
    """For each training step: (reads, evaluations of T, uploads)."""
    counts = []
    own = _Training._step

    def counted(self, *args):
        reads, uploads = accelerator.reads, accelerator.waits["upload"]
        own(self, *args)
        last = self.network.last
        checks = 0 if last is None else len(last.residuals)
        counts.append((accelerator.reads - reads, checks, accelerator.waits["upload"] - uploads))

    monkeypatch.setattr(_Training, "_step", counted)
    return counts


@pytest.mark.parametrize("name", TRAININGS)
def test_training_gives_the_run_of_the_cpu_and_reads_once_a_check(accelerator, counted_steps, name):
    plan = recipe("noise", "smoke", **{"network": "digits", **SMALL, **TRAININGS[name]})
    own = ARCHITECTURES[plan.network]
    images = some_images(len(own.mean), max(8, own.smallest))
    run = train(plan, data=(images, images), device=NAME)
    assert len(counted_steps) == plan.epochs * 10 // plan.batch
    assert all(reads == checks and not uploads for reads, checks, uploads in counted_steps), counted_steps
    if name == "bfloat16":  # what autocast computes in 16 bits is another list on the CPU
        assert run.record["epochs"][0]["steps_mean"] < 9
        return
    expected = train(plan, data=(images, images), device="cpu")
    for row, other in zip(run.record["epochs"], expected.record["epochs"], strict=True):
        assert {**row, "seconds": 0, "peak_memory": 0} == {**other, "seconds": 0, "peak_memory": 0}
    for p, q in zip(run.network.state_dict().values(), expected.network.state_dict().values(), strict=True):
        assert torch.equal(p.cpu(), q)


def test_an_epoch_waits_for_the_device_six_times_besides_its_steps(accelerator, counted_steps, monkeypatch):
    waits = []
    own = _Training._train_epoch

    def counted(self, epoch):
        before = accelerator.waits.copy()
        row = own(self, epoch)
        waits.append(accelerator.waits - before)
        return row

    monkeypatch.setattr(_Training, "_train_epoch", counted)
    images = some_images(1, 8)
    train(recipe("noise", "smoke", **SMALL, network="digits"), data=(images, images), device=NAME)
    (epoch,) = waits
    in_steps = sum(reads for reads, *_ in counted_steps)
    assert epoch.pop("upload") == UPLOADS_AN_EPOCH
    assert epoch.total() - in_steps == READS_AN_EPOCH


def test_a_run_on_the_device_leaves_files_for_any(accelerator, tmp_path):
    images = some_images(1, 8)
    plan = recipe("noise", "smoke", network="digits", **{**SMALL, "epochs": 2})
    whole = train(plan, tmp_path / "whole", data=(images, images), device=NAME)

    def stop(row, network):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path / "run", data=(images, images), device=NAME, callback=stop)
    resumed = train(plan, tmp_path / "run", data=(images, images), device=NAME, resume=True)
    assert resumed.record["resumed_after"] == [1]
    loaded = load_network(tmp_path / "run" / "model.safetensors")
    for p, q, r in zip(*(m.state_dict().values() for m in (whole.network, resumed.network, loaded)), strict=True):
        assert r.device.type == "cpu"
        assert torch.equal(p.cpu(), r)
        assert torch.equal(q.cpu(), r)


# Evaluation and measurements


def test_an_evaluation_reads_once_a_check_and_eight_times_more(accelerator):
    images, model = digits(60), network(solver=FixedPointIteration(1e-3, 50))
    for training_mode in (False, True):
        accelerator.clear()
        found = evaluate(model, images, batch=30, training_mode=training_mode)
        reads = accelerator.reads
        checks = sum(count for place, count in accelerator.places.items() if "iteration.py" in place)
        # what it reports, five numbers, whether buffers have changed, and whether weights and answers are finite
        assert reads == checks + 8
        expected = evaluate(network("cpu", solver=model.solver), images, batch=30, training_mode=training_mode)
        assert repr(found) == repr(expected)
        assert torch.equal(found.predictions.cpu(), expected.predictions)


def test_buffers_are_put_back_with_one_read(accelerator):
    model = network().train()
    before = {name: buffer.cpu() for name, buffer in model.named_buffers()}
    versions = {name: buffer._version for name, buffer in model.named_buffers()}
    accelerator.clear()
    with buffers_kept(model):
        list(model.buffers())[-1].add_(1)
        list(model.buffers())[-2].fill_(float("nan"))
    assert accelerator.reads == 1
    after = {name: buffer.cpu() for name, buffer in model.named_buffers()}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert sum(versions[name] != buffer._version for name, buffer in model.named_buffers()) == 2


def test_an_inspection_reads_once_a_step(accelerator):
    accelerator.clear()
    seen = inspect(network(), digits(20), steps=5, batch=10)
    assert accelerator.reads == 2 * 5 + 4  # and whether the weights are finite, and the three tables at the end
    assert seen.summary() == inspect(network("cpu"), digits(20), steps=5, batch=10).summary()


def test_the_bench_compares_on_the_device(accelerator):
    rules = (JFB(), NeumannSeries(6), ImplicitDifferentiation("cg", tol=1e-4), UnrolledPhantom(3))
    solver, images = FixedPointIteration(1e-3, 50), digits(4)

    def compare(device: str) -> bench.Comparison:
        model, d = network(device, solver=solver).eval(), images.images.to(device).float() / 255
        labels = images.labels.to(device)
        if device == NAME:
            assert step_times(model, d, labels, F.cross_entropy, rules[:1], rounds=1)
        reference = ImplicitDifferentiation(tol=1e-4)
        return bench.compare(model, d, labels, F.cross_entropy, rules, reference=reference)

    assert compare(NAME) == compare("cpu")


def small_problem(device: str, n: int = 5):
    """A network of a few numbers, a sample, and its target."""
    torch.manual_seed(0)
    cell = Layer(n)
    cell.scale = 0.3
    model = ImplicitNetwork(torch.nn.Linear(3, n), cell, torch.nn.Linear(n, 2)).to(device)
    return model, torch.ones(1, 3, device=device), torch.tensor([1], device=device)


@pytest.mark.parametrize(
    "check",
    [theory.descent_check, lambda network, d, y, loss: theory.phantom_check(network, d, y, loss, UnrolledPhantom(3))],
    ids=["descent_check", "phantom_check"],
)
@pytest.mark.parametrize(
    "loss", [F.cross_entropy, torch.nn.CrossEntropyLoss(torch.tensor([1.0, 2.0]))], ids=["function", "module"]
)
def test_a_check_is_made_on_the_cpu(accelerator, check, loss):
    on_device = loss.to(NAME) if isinstance(loss, torch.nn.Module) else loss
    problem = small_problem(NAME)
    accelerator.clear()
    found = check(*problem, on_device)
    # the parameters, the sample and the target are fetched once each, and a weight of the loss
    assert accelerator.reads <= len(list(problem[0].parameters())) + 3
    assert all(p.device.type == NAME and p.dtype == torch.float32 for p in problem[0].parameters())
    expected = check(*small_problem("cpu"), loss.to("cpu") if isinstance(loss, torch.nn.Module) else loss)
    assert repr(found) == repr(expected)
    assert found.gradient.device.type == "cpu"


def test_the_contraction_factor_is_measured_on_the_device(accelerator):
    def measure(device: str) -> list[float]:
        model, d, _ = small_problem(device, n=40)
        u, T = model.solve(d).u, model.operator(d)
        return [
            theory.contraction_factor(T, u),  # by a dense SVD
            theory.contraction_factor(T, u, tol=1e-2),  # by Lanczos
            theory.lipschitz_estimate(T, u, directions=2),
        ]

    assert measure(NAME) == measure("cpu")


def test_the_statistics_are_measured_again_on_the_device(accelerator):
    def measure(device: str) -> list[torch.Tensor]:
        model = network(device, solver=FixedPointIteration(1e-3, 50))
        normalisation.reestimate(model, (digits(40).images.to(device).float() / 255).split(20))
        return [buffer.cpu() for buffer in model.buffers()]

    assert all(torch.equal(x, y) for x, y in zip(measure(NAME), measure("cpu"), strict=True))


def test_an_operator_norm_is_found_on_the_device(accelerator, monkeypatch):
    # PyTorch has no generator for a device written in Python; a GPU's draws other numbers, so nothing hangs on which
    own = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": own("cpu" if str(device).startswith(NAME) else device))

    def bounded(device: str) -> torch.Tensor:
        torch.manual_seed(0)
        layer = normalisation.operator_norm(torch.nn.Conv2d(2, 2, 3, padding=1), 0.5, (5, 5)).to(device)
        with torch.no_grad():
            next(p for p in layer.parameters() if p.ndim == 4).mul_(1.5)
        accelerator.clear()
        layer(torch.ones(1, 2, 5, 5, device=device)).sum().backward()
        return layer.weight.detach().cpu()

    found = bounded(NAME)
    # whether W is finite, whether the eigenvalues were found, and the residual; one more is the test's own
    assert accelerator.reads == 3 + 1
    assert torch.equal(found, bounded("cpu"))
