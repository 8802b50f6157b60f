"""What the package does on a device that is not the CPU, with one that is not there, see `fake_accelerator`.

Nothing may mix devices, every number must be the CPU's, and the device is waited for as seldom as stated: on a GPU each wait leaves it
idle. The page "On a GPU" of the book quotes these counts.
"""

import pytest
import torch
from fake_accelerator import NAME, Accelerator, Missing
from torch.nn import functional as F

from jfb_tutorial import bench, gradients, normalisation, solvers, theory
from jfb_tutorial.architectures import ARCHITECTURES, build
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, NeumannSeries, PublishedCG, Unrolled, UnrolledPhantom
from jfb_tutorial.network import ImplicitNetwork
from jfb_tutorial.solvers import Anderson, Broyden, FixedPointIteration
from jfb_tutorial.timing import step_times
from jfb_tutorial.training import data, train
from jfb_tutorial.training.evaluation import evaluate
from jfb_tutorial.training.inspection import inspect
from jfb_tutorial.training.loop import _Training
from jfb_tutorial.training.recipes import recipe

READS_AN_EPOCH = 4  # a loss that is not finite, the sums, the maxima, the weights that are not finite
UPLOADS_AN_EPOCH = 2  # the order of the images, and the draws for their augmentation
ADJOINT = {"tol": 1e-4}
RULES = [
    JFB(),
    UnrolledPhantom(3, 0.5),
    Unrolled(5),
    NeumannSeries(3),
    *(ImplicitDifferentiation(method, **ADJOINT) for method in ("gmres", "bicgstab", "neumann", "cg")),
    ImplicitDifferentiation(per_sample=True, on_failure="warn", **ADJOINT),
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
    # not when the file is read: a registered device stays, and files that come before this one need not have it
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


def step(device: str, solver, rule) -> tuple[ImplicitNetwork, torch.Tensor]:
    """A forward and a backward pass on eight digits; the network, and its gradient on the CPU."""
    model, images = network(device, solver=solver), digits(8)
    model.gradient = rule
    F.cross_entropy(model(images.images.to(device).float() / 255), images.labels.to(device)).backward()
    return model, torch.cat([p.grad.cpu().flatten() for p in model.parameters() if p.grad is not None])


# The device itself


def test_the_device_refuses_what_a_gpu_refuses(accelerator):
    x = torch.ones(3, device=NAME)
    assert (x + torch.tensor(1.0)).tolist() == [2, 2, 2]  # a number of the CPU may stand beside it
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.ones(3)
    with pytest.raises(RuntimeError, match="numpy"):
        x.numpy()
    with pytest.raises(RuntimeError, match="no Accelerator is open"):
        accelerator.__exit__(None, None, None)
        try:
            x + 1
        finally:
            accelerator.__enter__()


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
def test_a_rule_gives_the_gradient_of_the_cpu(accelerator, rule):
    solver = FixedPointIteration(1e-3, 50)
    model, gradient = step(NAME, solver, rule)
    waits, model.last = accelerator.waits.copy(), model.last
    _, expected = step("cpu", solver, rule)
    assert torch.equal(gradient, expected)
    evaluations = 0 if model.last is None else len(model.last.residuals)
    reads = waits["_local_scalar_dense"] + waits["is_nonzero"]
    if isinstance(rule, JFB | UnrolledPhantom | Unrolled | NeumannSeries):
        assert reads == evaluations
    else:
        assert reads > evaluations  # how many, see the next test
    assert not waits["equal"] + waits["nonzero"] + waits["index by a mask"]


def test_every_rule_and_every_solver_is_in_the_lists():
    assert {type(rule).__name__ for rule in RULES} == set(gradients.__all__) - {"Tally", "tally"}
    assert {type(solver).__name__ for solver in SOLVERS} == set(solvers.__all__) - {"Solution"}
