"""The backward rules against dense matrices, against each other and against finite differences; what they refuse."""

import copy
import gc
import os
import pickle
import re
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.utils.checkpoint
from problems import KINDS, Problem, problem
from torch import nn

from jfb_tutorial.gradients import (
    JFB,
    ImplicitDifferentiation,
    NeumannSeries,
    PublishedCG,
    Unrolled,
    UnrolledPhantom,
    implicit,
    tally,
)
from jfb_tutorial.network import ImplicitNetwork
from jfb_tutorial.solvers import FixedPointIteration

CASES = [(kind, batch, mixed) for kind in KINDS for batch in (1, 7) for mixed in (False, True)]
RULES: list[Callable] = [
    JFB(),
    ImplicitDifferentiation(),
    NeumannSeries(3, 0.5),
    PublishedCG(),
    UnrolledPhantom(3, 0.5),
    Unrolled(5),
]


def with_more(*rules: Callable) -> list[Callable]:
    return [*RULES, *rules]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}{'-mixed' if case[2] else ''}")
def case(request):
    kind, batch, mixed = request.param
    found = problem(kind, batch, mixed=mixed)
    return found, *dense(found, found.u)


def dense(case: Problem, u: torch.Tensor):
    """∂T/∂u `(N, N)` and ∂T/∂θ `(N, p)` at u."""
    u = u.detach().clone().requires_grad_()
    v = case.T(u)
    parameters = list(case.R.parameters())
    J, M = [], []
    for row in torch.eye(v.numel(), dtype=v.dtype):
        du, *dtheta = torch.autograd.grad(v, [u, *parameters], row.reshape(v.shape), retain_graph=True)
        J.append(du.flatten())
        M.append(torch.cat([part.flatten() for part in dtheta]))
    return torch.stack(J), torch.stack(M)


def weight(u: torch.Tensor) -> torch.Tensor:
    return torch.linspace(-1, 1, u.numel(), dtype=u.dtype).reshape(u.shape)


def loss(u: torch.Tensor) -> torch.Tensor:
    return (weight(u) * u + 0.3 * (u - 0.1) ** 2).sum()


def cotangent(u: torch.Tensor) -> torch.Tensor:
    u = u.detach().clone().requires_grad_()
    return torch.autograd.grad(loss(u), u)[0].flatten()


def gradient(rule, case: Problem, u: torch.Tensor | None = None) -> torch.Tensor:
    value = rule(case.T, case.u if u is None else u)
    parts = torch.autograd.grad(loss(value), list(case.R.parameters()))
    return torch.cat([part.flatten() for part in parts])


def close(found, expected, tol=1e-9):
    error = (found - expected).norm() / expected.norm()
    assert error < tol, f"relative error {error:.2e}"


@pytest.mark.parametrize("solver", ["cg", "gmres", "bicgstab", "neumann"])
def test_the_exact_rules_agree_with_a_dense_solve(case, solver):
    found, J, M = case
    assert 0.1 < found.gamma <= 0.8
    # adding up 1/(1 − γ) at most, a residual of 1e-11 is worth 5e-11
    g = cotangent(found.u)
    expected = torch.linalg.solve(torch.eye(len(J), dtype=J.dtype) - J.T, g) @ M
    rule = ImplicitDifferentiation(solver, tol=1e-11)
    with tally() as count:
        close(gradient(rule, found), expected)
    assert count.residuals[0] <= 1e-11
    assert count.products > 0


def test_unrolling_agrees_with_a_dense_solve(case):
    found, J, M = case
    expected = torch.linalg.solve(torch.eye(len(J), dtype=J.dtype) - J.T, cotangent(found.u)) @ M
    close(gradient(Unrolled(200), found), expected)


@pytest.mark.parametrize(("terms", "damping"), [(1, 1.0), (1, 0.5), (2, 1.0), (5, 0.5), (6, 0.9)])
def test_the_neumann_phantom_is_17(case, terms, damping):
    found, J, M = case
    identity = torch.eye(len(J), dtype=J.dtype)
    B = damping * J + (1 - damping) * identity
    A = damping * sum(torch.linalg.matrix_power(B, j) for j in range(terms))
    with tally() as count:
        close(gradient(NeumannSeries(terms, damping), found), cotangent(found.u) @ A @ M, 1e-11)
    assert count.products == terms - 1


@pytest.mark.parametrize("shift", [0.0, 0.2])
@pytest.mark.parametrize(("steps", "damping"), [(1, 1.0), (1, 0.5), (2, 1.0), (4, 0.5), (3, 0.25)])
def test_the_unrolled_phantom_is_16(case, steps, damping, shift):
    found, J, _ = case
    identity = torch.eye(len(J), dtype=J.dtype)
    u = found.u + shift
    derivative = 0.0
    start = u
    for _ in range(steps):
        J_t, M_t = dense(found, u)
        B = damping * J_t + (1 - damping) * identity
        derivative = B @ derivative + damping * M_t if torch.is_tensor(derivative) else damping * M_t
        with torch.no_grad():
            u = (1 - damping) * u + damping * found.T(u)
    close(gradient(UnrolledPhantom(steps, damping), found, start), cotangent(u) @ derivative, 1e-11)


def test_both_phantoms_agree_at_an_exact_fixed_point_and_part_elsewhere(case):
    found, *_ = case
    for steps, damping in ((2, 1.0), (5, 0.5)):
        unrolled, neumann = UnrolledPhantom(steps, damping), NeumannSeries(steps, damping)
        close(gradient(unrolled, found), gradient(neumann, found), 1e-11)
        away = found.u * 1.2 + 0.1
        difference = gradient(unrolled, found, away) - gradient(neumann, found, away)
        assert difference.norm() > 1e-3 * gradient(neumann, found, away).norm()


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_jfb_is_its_special_cases_bit_for_bit(case, shift):
    found, *_ = case
    u = found.u + shift
    for rule in (NeumannSeries(1, 1.0), UnrolledPhantom(1, 1.0)):
        assert torch.equal(rule(found.T, u), JFB()(found.T, u))
        assert torch.equal(gradient(rule, found, u), gradient(JFB(), found, u))


def test_jfb_is_one_recorded_step(case):
    found, *_ = case
    value = found.T(found.u)
    expected = torch.autograd.grad(loss(value), list(found.R.parameters()))
    assert torch.equal(gradient(JFB(), found), torch.cat([part.flatten() for part in expected]))


@pytest.mark.parametrize("kind", ["tanh", "group"])
def test_the_exact_gradient_agrees_with_finite_differences(kind):
    found = problem(kind, 2, gamma=0.6)
    network = ImplicitNetwork(
        nn.Identity(),
        found.R,
        nn.Identity(),
        solver=FixedPointIteration(tol=1e-14, max_steps=500),
        gradient=ImplicitDifferentiation(tol=1e-12),
    )
    parameters = dict(network.named_parameters())

    def function(q, *values):
        return torch.func.functional_call(network, dict(zip(parameters, values, strict=True)), (q,))

    inputs = [found.q.requires_grad_(), *(value.detach().requires_grad_() for value in parameters.values())]
    assert torch.autograd.gradcheck(function, inputs, atol=1e-7, fast_mode=True)


# What a rule returns, and what it leaves alone


def test_the_value_is_T_of_u_star_or_the_last_iterate():
    found = problem("group", 2)
    u = found.u + 0.1
    for rule in (JFB(), ImplicitDifferentiation(), NeumannSeries(4, 0.7)):
        assert torch.equal(rule(found.T, u), found.T(u))
    step = 0.75 * u + 0.25 * found.T(u)  # at λ = ½ nobody would see λ and 1 − λ change places
    assert torch.equal(UnrolledPhantom(2, 0.25)(found.T, u), 0.75 * step + 0.25 * found.T(step))
    assert torch.equal(Unrolled(2)(found.T, u), found.T(found.T(torch.zeros_like(u))))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_no_graph_where_nothing_needs_a_gradient(rule):
    found = problem("tanh", 2)
    with torch.no_grad():
        assert not rule(found.T, found.u).requires_grad
    assert rule(found.T, found.u).requires_grad
    frozen = copy.deepcopy(found.R).requires_grad_(False)
    assert not rule(lambda u: frozen(u, found.q), found.u).requires_grad
    # only the encoded input needs one
    q = found.q.clone().requires_grad_()
    value = rule(lambda u: frozen(u, 2 * q), found.u)
    (g,) = torch.autograd.grad(value.sum(), q)
    assert g.norm() > 0


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_the_graph_of_u_star_is_ignored_and_its_gradient_left_alone(rule):
    found = problem("tanh", 2)
    u = (found.u.requires_grad_() * 1.0).requires_grad_()
    u.retain_grad()
    value = rule(found.T, u)
    value.sum().backward()
    assert u.grad is None


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_a_fixed_point_from_inference_mode_is_taken(rule):
    found = problem("tanh", 2)
    with torch.inference_mode():
        u = found.u * 1.0
        assert not rule(found.T, u).requires_grad
    close(gradient(rule, found, u), gradient(rule, found), 1e-14)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_nothing_is_left_behind(rule):
    found = problem("tanh", 2)
    seen: list = []

    def T(u):
        v = found.T(u)
        seen.extend((weakref.ref(u), weakref.ref(v)))
        return v

    u = found.u.clone()
    value = rule(T, u)
    value.sum().backward()
    gc.disable()
    try:
        del value, u
        assert seen
        assert not any(reference() is not None for reference in seen), "a reference cycle keeps the graph alive"
    finally:
        gc.enable()


def test_the_backward_pass_may_be_repeated_with_retain_graph_only():
    found = problem("tanh", 2)
    for rule in (NeumannSeries(3), ImplicitDifferentiation("cg")):
        total = rule(found.T, found.u).sum()
        parameters = list(found.R.parameters())
        first = torch.autograd.grad(total, parameters, retain_graph=True)
        second = torch.autograd.grad(total, parameters)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(total, parameters)
        total = rule(found.T, found.u).sum()
        with pytest.raises(RuntimeError, match=r"cannot be differentiated again.*Unrolled"):
            torch.autograd.grad(total, parameters, create_graph=True)


# Precision, compilers, processes


@pytest.mark.parametrize("rule", [*RULES, ImplicitDifferentiation("cg")], ids=repr)
def test_autocast(rule):
    found = problem("conv", 4, gamma=0.6)
    exact = gradient(rule, found)
    single = Problem(copy.deepcopy(found.R).float(), found.q.float(), found.u.float(), found.gamma)
    with torch.autocast("cpu", torch.bfloat16):
        value = rule(single.T, single.u)
        assert value.dtype == torch.float32
        total = loss(value)
    parts = torch.autograd.grad(total, list(single.R.parameters()))
    close(torch.cat([part.flatten() for part in parts]).double(), exact, 5e-2)


@pytest.mark.parametrize("solver", ["cg", "gmres", "bicgstab", "neumann"])
@pytest.mark.parametrize("kind", ["conv", "batch"])
def test_single_precision_reaches_the_default_tolerance_or_its_own(solver, kind):
    found = problem(kind, 7)
    single = Problem(copy.deepcopy(found.R).float(), found.q.float(), found.u.float(), found.gamma)
    exact = gradient(ImplicitDifferentiation(tol=1e-12), found)
    close(gradient(ImplicitDifferentiation(solver), single).double(), exact, 1e-5)
    # a tolerance out of its reach is met as far as it goes
    close(gradient(ImplicitDifferentiation(solver, tol=1e-12), single).double(), exact, 1e-5)


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("solver", ["cg", "gmres", "bicgstab", "neumann"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_solved_in_single(dtype, solver, per_sample, monkeypatch):
    dtypes: list[torch.dtype] = []
    whole = implicit.solve

    def noting(method, g, wJ, wJt, **settings):
        dtypes.extend((g.dtype, wJ(g).dtype, wJt(g).dtype))
        return whole(method, g, wJ, wJt, **settings)

    monkeypatch.setattr(implicit, "solve", noting)
    rates = torch.tensor([[0.5], [0.75]], dtype=dtype)  # exact in any precision, and so is every product
    b = torch.ones(2, 3, dtype=dtype, requires_grad=True)
    value = ImplicitDifferentiation(solver, tol=1e-4, per_sample=per_sample)(
        lambda u: rates * u + b, torch.zeros_like(b)
    )
    (g,) = torch.autograd.grad(value.sum(), b)
    assert set(dtypes) == {torch.float32}
    assert g.dtype == dtype
    torch.testing.assert_close(g, torch.tensor([[2.0], [4.0]], dtype=dtype).expand(2, 3), rtol=1e-2, atol=0)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # PyTorch's own
@pytest.mark.parametrize("rule", [*RULES, ImplicitDifferentiation("cg")], ids=repr)
def test_a_network_can_be_compiled(rule):
    found = problem("group", 2)
    solver = FixedPointIteration(tol=1e-12, max_steps=300)
    network = ImplicitNetwork(nn.Identity(), found.R, nn.Flatten(), solver=solver, gradient=rule)
    expected = torch.autograd.grad(loss(network(found.q)), list(network.parameters()))
    torch.compiler.reset()
    compiled = torch.compile(network, backend="aot_eager")
    found_ = torch.autograd.grad(loss(compiled(found.q)), list(network.parameters()))
    for a, b in zip(found_, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_a_compiled_operator_serves_all_but_cg_which_says_so():
    found = problem("group", 2)
    torch.compiler.reset()
    compiled = torch.compile(found.T, backend="aot_eager")
    parameters = list(found.R.parameters())
    more = with_more(ImplicitDifferentiation("bicgstab"), ImplicitDifferentiation("neumann"))
    for rule in (rule for rule in more if rule != PublishedCG()):
        expected = torch.autograd.grad(loss(rule(found.T, found.u)), parameters)
        got = torch.autograd.grad(loss(rule(compiled, found.u)), parameters)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    for rule in (ImplicitDifferentiation("cg"), PublishedCG()):
        with pytest.raises(TypeError, match="cannot be differentiated"):
            loss(rule(compiled, found.u)).backward()


DDP = textwrap.dedent("""
    import sys, torch
    import torch.distributed as dist
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel
    sys.path.insert(0, sys.argv[3])
    from problems import Block
    from jfb_tutorial.gradients import *
    from jfb_tutorial.network import ImplicitNetwork
    from jfb_tutorial.solvers import FixedPointIteration

    rank, size = int(sys.argv[1]), 2
    store = dist.FileStore(sys.argv[2], size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    for rule in (JFB(), ImplicitDifferentiation("cg", tol=1e-12), NeumannSeries(3, 0.5), UnrolledPhantom(), Unrolled(9)):
        torch.manual_seed(0)
        R = Block(nn.GroupNorm(2, 4)).double()
        R.scale = 0.5
        solver = FixedPointIteration(tol=1e-13, max_steps=300)
        network = ImplicitNetwork(nn.Conv2d(4, 4, 1).double(), R, nn.Flatten(), solver=solver, gradient=rule)
        data = torch.randn(4, 4, 3, 3).double()
        weights = torch.randn(4, 36).double()
        expected = torch.autograd.grad((weights * network(data)).sum() / 4, list(network.parameters()))
        parallel = DistributedDataParallel(network)
        half = slice(2 * rank, 2 * rank + 2)
        ((weights[half] * parallel(data[half])).sum() / 2).backward()
        for parameter, g in zip(network.parameters(), expected):
            torch.testing.assert_close(parameter.grad, g, rtol=1e-9, atol=1e-11)
    print("agreed")
    dist.destroy_process_group()
""")


def test_two_processes_average_to_the_gradient_of_one(tmp_path):
    script = tmp_path / "ddp.py"
    script.write_text(DDP)
    here = os.path.dirname(__file__)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    runs = [
        subprocess.Popen(
            [sys.executable, script, str(rank), tmp_path / "store", here],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    for run in runs:
        out, err = run.communicate(timeout=120)
        assert run.returncode == 0, err
        assert "agreed" in out


# What is refused, and failed solves


def far_from_contraction():
    """T(u) = A u + b with ρ(A) > 1, where Neumann diverges and Krylov methods do not."""
    generator = torch.Generator().manual_seed(0)
    A = 1.5 * torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64))[0]
    b = torch.ones(8, dtype=torch.float64, requires_grad=True)
    u = torch.zeros(1, 8, dtype=torch.float64)
    return (lambda v: v @ A.T + b), u, b, A


def test_a_failed_solve_raises_or_warns():
    T, u, b, A = far_from_contraction()
    value = ImplicitDifferentiation("neumann", max_steps=30)(T, u)
    with pytest.raises(RuntimeError, match=r"neumann left the adjoint equation unsolved after 30 steps.*raise it"):
        value.sum().backward()
    b.grad = None
    with pytest.warns(RuntimeWarning, match="neumann left"):
        ImplicitDifferentiation("neumann", max_steps=30, on_failure="warn")(T, u).sum().backward()
    assert b.grad.isfinite().all()
    b.grad = None
    for solver in ("cg", "gmres"):
        (g,) = torch.autograd.grad(ImplicitDifferentiation(solver, tol=1e-12)(T, u).sum(), b)
        close(g, torch.linalg.solve(torch.eye(8) - A.T, torch.ones(8, dtype=A.dtype)))


def message_of_failure(T, u, **settings):
    with pytest.raises(RuntimeError) as caught:
        loss(ImplicitDifferentiation(**settings)(T, u)).backward()
    return str(caught.value)


def test_a_batch_that_fails_as_one_system_is_told_of_per_sample():
    # samples with eigenvalues of their own, all over the plane: as one system they need as many steps as all have unknowns
    generator = torch.Generator().manual_seed(0)
    W = 1.5 * torch.linalg.qr(torch.randn(40, 6, 6, generator=generator, dtype=torch.float64))[0]
    b, u = torch.ones(6, dtype=torch.float64, requires_grad=True), torch.zeros(40, 6, dtype=torch.float64)

    def T(u):
        return (u[:, None] @ W)[:, 0] + b

    message = message_of_failure(T, u, max_steps=20)
    words = r"gmres left the adjoint equation unsolved after 20 steps, relative residual \d.*, tol 1.0e-06; .*"
    assert re.fullmatch(words, message)
    for remedy in ("per_sample=True", "raise it", "looser tol", "solver='cg'"):
        assert remedy in message
    (g,) = torch.autograd.grad(ImplicitDifferentiation(per_sample=True, max_steps=20)(T, u).sum(), b)
    identity = torch.eye(6, dtype=torch.float64)
    close(g, torch.linalg.solve(identity - W, torch.ones(40, 6, dtype=torch.float64)).sum(dim=0), 1e-5)


def test_per_sample_is_not_offered_where_it_is_no_remedy():
    found = problem("batch", 7)
    assert "per_sample" not in message_of_failure(found.T, found.u, tol=1e-12, max_steps=2)  # coupled
    # the samples in pairs, 0 with 1 and so on, the first moved by the second alone
    b = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    pull = torch.tensor([[0, 0.9, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0.9], [0, 0, 0, 0]], dtype=torch.float64)
    for mix in (pull, pull.T):
        T = lambda u, mix=mix: 0.9 * u + mix @ u + b  # noqa: E731
        assert "per_sample" not in message_of_failure(T, torch.zeros_like(b), solver="neumann", max_steps=2)
    alone = problem("tanh", 1)
    assert "per_sample" not in message_of_failure(alone.T, alone.u, tol=1e-12, max_steps=2)
    message = message_of_failure(*far_from_contraction()[:2], solver="cg", tol=1e-12, max_steps=1)
    assert "solver='gmres'" in message
    assert "'cg'" not in message


def test_a_singular_system_is_a_failure():
    b = torch.ones(3, dtype=torch.float64, requires_grad=True)
    for solver in ("cg", "gmres", "bicgstab", "neumann"):
        value = ImplicitDifferentiation(solver, max_steps=40)(lambda u: u + b, torch.zeros(2, 3, dtype=torch.float64))
        with pytest.raises(RuntimeError, match=f"{solver} left the adjoint equation unsolved"):
            value.sum().backward()


@pytest.mark.parametrize("solver", ["cg", "gmres", "bicgstab", "neumann"])
def test_one_system_a_sample_where_samples_are_independent(solver):
    found = problem("group", 7)
    exact = gradient(ImplicitDifferentiation(tol=1e-12), found)
    close(gradient(ImplicitDifferentiation(solver, tol=1e-11, per_sample=True), found), exact)


@pytest.mark.parametrize("solver", ["cg", "gmres", "bicgstab"])
def test_one_system_a_sample_finds_coupling_out(solver):
    found = problem("tanh", 7, mixed=True)
    rule = ImplicitDifferentiation(solver, tol=1e-10, per_sample=True, max_steps=60)
    with pytest.raises(RuntimeError, match=r"of 7 systems unsolved.*couples its samples"):
        gradient(rule, found)
    exact = gradient(ImplicitDifferentiation(tol=1e-12), found)
    close(gradient(ImplicitDifferentiation(solver, tol=1e-10), found), exact, 1e-8)


def test_samples_that_get_no_gradient_do_no_harm():
    found = problem("group", 7)
    J, M = dense(found, found.u)
    g = torch.zeros(7, 36, dtype=torch.float64)
    g[2] = torch.linspace(-1, 1, 36)
    expected = torch.linalg.solve(torch.eye(len(J), dtype=J.dtype) - J.T, g.flatten()) @ M
    for solver in ("cg", "gmres", "bicgstab", "neumann"):
        for per_sample in (False, True):
            value = ImplicitDifferentiation(solver, tol=1e-11, per_sample=per_sample)(found.T, found.u)
            parts = torch.autograd.grad((value.flatten(1) * g).sum(), list(found.R.parameters()))
            close(torch.cat([part.flatten() for part in parts]), expected)
    value = ImplicitDifferentiation()(found.T, found.u)
    parts = torch.autograd.grad((0 * value).sum(), list(found.R.parameters()))
    assert all((part == 0).all() for part in parts)


def test_a_gradient_that_is_not_finite_passes_through_for_a_scaler_to_see():
    found = problem("tanh", 2)
    value = ImplicitDifferentiation()(found.T, found.u)
    parts = torch.autograd.grad((value * float("inf")).sum(), list(found.R.parameters()))
    assert not all(part.isfinite().all() for part in parts)


def test_an_operator_that_ignores_u():
    b = torch.ones(3, requires_grad=True)
    for rule in with_more(ImplicitDifferentiation("cg")):
        (g,) = torch.autograd.grad(rule(lambda u: b.expand(2, 3) * 2, torch.zeros(2, 3)).sum(), b)
        if isinstance(rule, NeumannSeries | UnrolledPhantom):  # λ (1 + (1 − λ) + (1 − λ)²) of it
            g = g / 0.875
        torch.testing.assert_close(g, torch.full((3,), 4.0))


def test_what_follows_may_write_in_place():
    found = problem("conv", 2)
    for rule in with_more(NeumannSeries(1, 0.5)):
        results = []
        for inplace in (False, True):
            network = ImplicitNetwork(nn.Identity(), found.R, nn.ReLU(inplace=inplace), gradient=rule)
            results.append(torch.autograd.grad(network(found.q).sum(), list(network.parameters())))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b)


def test_leaves_that_hide():
    d = torch.ones(2, 3, requires_grad=True)
    for rule in RULES:  # T(u) is the data itself
        (g,) = torch.autograd.grad(rule(lambda u: d, torch.zeros(2, 3)).sum(), d)
        assert g.norm() > 0
    W = nn.Linear(3, 3)

    def T(reentrant):
        def step(v):
            return 0.5 * torch.tanh(W(v))

        return lambda u: torch.utils.checkpoint.checkpoint(step, u, use_reentrant=reentrant)

    for rule in (NeumannSeries(3), ImplicitDifferentiation()):
        assert rule(T(True), torch.ones(2, 3)).requires_grad  # PyTorch's own error is then seen
        (g,) = torch.autograd.grad(rule(T(False), torch.ones(2, 3)).sum(), W.weight)
        assert g.norm() > 0


def test_a_checkpoint_inside_T():
    found = problem("group", 2)
    for rule in with_more(ImplicitDifferentiation("cg")):
        expected = gradient(rule, found)
        value = rule(lambda u: torch.utils.checkpoint.checkpoint(found.T, u, use_reentrant=False), found.u)
        parts = torch.autograd.grad(loss(value), list(found.R.parameters()))
        close(torch.cat([part.flatten() for part in parts]), expected, 1e-9)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_units_of_the_loss_play_no_part(size):
    found = problem("tanh", 3)
    single = Problem(copy.deepcopy(found.R).float(), found.q.float(), found.u.float(), found.gamma)
    bias = single.R.get_parameter("linear.bias")
    for solver in ("cg", "gmres", "bicgstab", "neumann"):
        rule = ImplicitDifferentiation(solver, tol=1e-4)
        value = rule(single.T, single.u)
        (small,) = torch.autograd.grad(size * value.sum(), bias)
        value = rule(single.T, single.u)
        (one,) = torch.autograd.grad(value.sum(), bias)
        torch.testing.assert_close(small / size, one, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (4,), (2, 1, 1, 3)])
def test_odd_shapes(rule, shape):
    b = torch.ones(shape[1:], requires_grad=True)
    rules = [rule]
    if isinstance(rule, ImplicitDifferentiation):
        rules += [ImplicitDifferentiation(solver, per_sample=True) for solver in ("cg", "gmres", "bicgstab", "neumann")]
    for each in rules:
        value = each(lambda u: 0.5 * u + b, torch.zeros(shape))
        assert value.shape == shape
        value.sum().backward()


def test_a_copied_or_pickled_network():
    found = problem("group", 2)
    network = ImplicitNetwork(nn.Identity(), found.R, nn.Identity(), gradient=ImplicitDifferentiation())
    network(found.q).sum().backward()
    again = pickle.loads(pickle.dumps(network))
    assert torch.equal(copy.deepcopy(network)(found.q), network(found.q))
    assert torch.equal(again(found.q), network(found.q))
    assert repr(network.gradient) in repr(network)


def test_a_gradient_scaler_skips_what_overflows():
    torch.manual_seed(0)
    R = nn.Linear(8, 8)
    with torch.no_grad():
        R.weight *= 0.9 / torch.linalg.matrix_norm(R.weight, 2)
    for rule in with_more(*(ImplicitDifferentiation(solver) for solver in ("cg", "bicgstab", "neumann"))):
        network = ImplicitNetwork(nn.Linear(4, 8), lambda u, q: torch.tanh(R(u) + q), nn.Identity(), gradient=rule)
        network.on_unconverged = "ignore"  # half precision stalls above the tolerance
        network.R_weights = R
        before = R.weight.clone()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
        with torch.autocast("cpu", torch.float16):
            total = (network(torch.randn(3, 4)).float() ** 2).mean()
        scaler.scale(total).backward()
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() < 2.0**40
        assert torch.equal(R.weight, before)


def wrong(value: Any) -> Any:
    """A value of another type than the annotation says."""
    return value


BAD = [
    (lambda: NeumannSeries(0), ValueError, "terms must be at least 1, got 0.*nearest valid choice is 1"),
    (lambda: NeumannSeries(wrong(1.5)), TypeError, "terms must be an integer"),
    (lambda: NeumannSeries(2, 0.0), ValueError, r"damping must be in \(0, 1\], got 0.0"),
    (lambda: NeumannSeries(2, 1.1), ValueError, r"damping must be in \(0, 1\], got 1.1.*1.0, no damping"),
    (lambda: NeumannSeries(2, float("nan")), ValueError, "damping must be in"),
    (lambda: UnrolledPhantom(damping=wrong("1")), TypeError, "damping must be a number"),
    (lambda: UnrolledPhantom(0), ValueError, "steps must be at least 1"),
    (lambda: Unrolled(-3), ValueError, "steps must be at least 1"),
    (lambda: ImplicitDifferentiation("GMRes"), ValueError, "solver must be one of.*did you mean 'gmres'"),
    (lambda: ImplicitDifferentiation("conjugate"), ValueError, "did you mean"),
    (lambda: ImplicitDifferentiation(wrong(3)), ValueError, "solver must be one of"),
    (lambda: ImplicitDifferentiation(tol=0), ValueError, "tol must be positive"),
    (lambda: ImplicitDifferentiation(tol=1.0), ValueError, "tol must be below 1, got 1.0: w = 0 would do"),
    (lambda: ImplicitDifferentiation(max_steps=0), ValueError, "max_steps must be at least 1"),
    (lambda: ImplicitDifferentiation(per_sample=wrong(1)), TypeError, "per_sample must be True or False"),
    (lambda: ImplicitDifferentiation(on_failure="ignore"), ValueError, "on_failure must be one of 'raise', 'warn'"),
    (lambda: JFB()(torch.tanh, torch.tensor(1.0)), ValueError, "u_star must have a batch dimension"),
    (lambda: JFB()(torch.tanh, torch.ones(2, 2, dtype=torch.int64)), TypeError, "u_star must be a floating-point"),
    (lambda: ImplicitDifferentiation()(torch.tanh, [1.0]), TypeError, "u_star must be a floating-point"),
    (lambda: NeumannSeries(2)(lambda u: u[:, :1], torch.ones(2, 2)), ValueError, "T must keep the shape.*u_star"),
    (lambda: UnrolledPhantom()(lambda u: u.double(), torch.ones(2, 2)), TypeError, "T must keep the dtype"),
    (lambda: JFB()(lambda u: u.tanh_(), torch.ones(2, 2)), ValueError, "T must not write into its argument"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[message[:40] for *_, message in BAD])
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_rules_are_values():
    assert NeumannSeries(2) == NeumannSeries(2, 1.0) != NeumannSeries(2, 0.5)
    assert hash(JFB()) == hash(JFB())
    assert repr(UnrolledPhantom()) == "UnrolledPhantom(steps=5, damping=0.5)"


def test_tallies_nest():
    found = problem("tanh", 2)
    with tally() as outer:
        gradient(NeumannSeries(3), found)
        with tally() as inner:
            gradient(NeumannSeries(2), found)
        gradient(JFB(), found)
    assert (inner.products, outer.products) == (1, 3)
    gradient(NeumannSeries(3), found)
    assert outer.products == 3
    # two that are equal are still two
    with tally() as outer:
        with tally() as inner:
            pass
        gradient(NeumannSeries(3), found)
    assert (inner.products, outer.products) == (0, 2)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_published_conjugate_gradients_step_by_step(steps):
    found = problem("group", 3)
    dense_J = dense(found, found.u)[0]
    g, n = weight(found.u), found.u[0].numel()
    want = []
    for i in range(3):  # every sample has a system of its own
        A = torch.eye(n, dtype=g.dtype) - dense_J[i * n : (i + 1) * n, i * n : (i + 1) * n]
        b = g[i].flatten() @ A.T
        w, r = b, b - b @ A @ A.T
        p = r
        for _ in range(steps):
            alpha = (r @ r) / (p @ A @ A.T @ p)
            w, new = w + alpha * p, r - alpha * (p @ A @ A.T)
            r, p = new, new + (new @ new) / (r @ r) * p
        want.append(w)
    missing = torch.stack([((w @ A - gi) @ A.T).norm() for w, gi, A in _systems(dense_J, g, want)])
    with tally() as count:
        v = PublishedCG(tol=1.01 * missing.max().item())(found.T, found.u)
        parameters = list(found.R.parameters())
        got = torch.autograd.grad(v, parameters, g)
    assert count.products == 3 + 4 * steps
    through = torch.autograd.grad(found.T(found.u), parameters, torch.stack(want).reshape(g.shape))
    for a, b in zip(got, through, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    left = max(((gi - w @ A).norm() / gi.norm()).item() for w, gi, A in _systems(dense_J, g, want))
    assert count.residuals == [pytest.approx(left)]


def _systems(dense_J, g, ws):
    n = g[0].numel()
    for i, w in enumerate(ws):
        yield w, g[i].flatten(), torch.eye(n, dtype=g.dtype) - dense_J[i * n : (i + 1) * n, i * n : (i + 1) * n]


def test_the_published_conjugate_gradients_converge_if_they_are_let():
    found = problem("conv", 2)
    exact, ours = (
        torch.autograd.grad(rule(found.T, found.u), list(found.R.parameters()), weight(found.u))
        for rule in (ImplicitDifferentiation(tol=1e-12), PublishedCG(tol=1e-13, max_steps=500))
    )
    for a, b in zip(exact, ours, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
    with pytest.raises(RuntimeError, match=r"unsolved after 2 steps, tol 1.0e-09; .* would leave this batch out"):
        PublishedCG(tol=1e-9, max_steps=2)(found.T, found.u).backward(weight(found.u))
    with pytest.raises(ValueError, match="tol must be"):
        PublishedCG(tol=0)
    with pytest.raises(ValueError, match="max_steps must be"):
        PublishedCG(max_steps=0)


# Forward mode, the transforms of torch.func, and second derivatives

ADJOINT: list[Callable] = [
    ImplicitDifferentiation(),
    ImplicitDifferentiation("cg"),
    NeumannSeries(3, 0.5),
    PublishedCG(),
]
RECORDED: list[Callable] = [JFB(), UnrolledPhantom(3, 0.25), Unrolled(5)]


def of_bias(rule: Callable) -> Callable:
    """b ↦ the value of the rule for T(u) = tanh(uA + b), in float64."""
    A = 0.2 * torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = torch.full((2, 4), 0.1, dtype=torch.float64)
    return lambda b: rule(lambda u: torch.tanh(u @ A + b), u)


def in_forward_mode(function: Callable, b: torch.Tensor, tangent: torch.Tensor) -> torch.Tensor | None:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(b, tangent))).tangent


BIAS = torch.linspace(-1, 1, 4, dtype=torch.float64)
TANGENT = torch.tensor([0.3, -1, 2, 0.5], dtype=torch.float64)
of_pytorch = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:FutureWarning"
)  # its own forward mode's


@of_pytorch
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("rule", ADJOINT, ids=repr)
def test_forward_mode_gives_no_tangent_that_is_not_the_rules(rule, frozen, gradients):
    b = BIAS.clone().requires_grad_(not frozen)
    with torch.set_grad_enabled(gradients):
        with pytest.raises(RuntimeError, match=r"no forward mode.*Unrolled is exact"):
            in_forward_mode(of_bias(rule), b, TANGENT)
        with pytest.raises(RuntimeError, match=r"(no forward mode|transforms of torch.func).*Unrolled is exact"):
            torch.func.jvp(of_bias(rule), (b,), (TANGENT,))


@of_pytorch
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("rule", RECORDED, ids=repr)
def test_forward_mode_of_recorded_steps(rule, gradients):
    function = of_bias(rule)
    expected = torch.autograd.functional.jacobian(function, BIAS) @ TANGENT
    with torch.set_grad_enabled(gradients):
        for found in (
            in_forward_mode(function, BIAS, TANGENT),
            torch.func.jvp(function, (BIAS,), (TANGENT,))[1],
        ):
            torch.testing.assert_close(found, expected)


@of_pytorch
@pytest.mark.parametrize("rule", [*ADJOINT, *RECORDED], ids=repr)
def test_the_transforms_of_torch_func(rule):
    function = of_bias(rule)

    def total(b):
        return loss(function(b))

    if rule in ADJOINT:
        with pytest.raises(RuntimeError, match=r"transforms of torch.func; JFB.* do"):
            torch.func.grad(total)(BIAS)
        with torch.no_grad():  # a value is one under any transform
            torch.testing.assert_close(torch.func.vmap(function)(BIAS.expand(3, 4))[1], function(BIAS))
        return
    b = BIAS.clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(b), b)
    torch.testing.assert_close(torch.func.grad(total)(BIAS), expected)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(total))(BIAS.expand(3, 4)), expected.expand(3, 4))
    torch.testing.assert_close(torch.func.jacrev(total)(BIAS), expected)
    assert torch.autograd.gradcheck(function, b, check_forward_ad=True, check_batched_grad=True)


@of_pytorch
@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("rule", RECORDED[:2], ids=repr)
def test_no_second_derivative_of_what_holds_u_star_constant(rule, linear):
    function = of_bias(rule)

    def total(b):  # without a curvature of the loss, only that of T is left
        return (weight(function(b)) * function(b)).sum() if linear else loss(function(b))

    b = BIAS.clone().requires_grad_()
    (g,) = torch.autograd.grad(total(b), b, create_graph=True)
    (same,) = torch.autograd.grad(total(b), b)
    assert torch.equal(g, same)
    words = "hold u. constant.*use Unrolled"
    with pytest.raises(RuntimeError, match=words):
        torch.autograd.grad(g.sum(), b)
    for second in (
        lambda: torch.autograd.grad(total(b), b, create_graph=True)[0].square().sum().backward(),
        lambda: torch.func.hessian(total)(BIAS),  # forward over reverse
        lambda: torch.func.jacrev(torch.func.grad(total))(BIAS),
        lambda: torch.func.jvp(torch.func.grad(total), (BIAS,), (TANGENT,)),
        lambda: torch.autograd.functional.hvp(total, BIAS, TANGENT),
    ):
        with pytest.raises(RuntimeError, match=words):
            second()
    unrolled = of_bias(Unrolled(5))
    torch.func.hessian(lambda b: loss(unrolled(b)))(BIAS)  # the remedy


@pytest.mark.parametrize("rule", RECORDED[:2], ids=repr)
def test_second_derivatives_that_do_not_go_through_u_star(rule):
    function, value = of_bias(rule), of_bias(rule)(BIAS)
    b, s = BIAS.clone().requires_grad_(), torch.linspace(1, 2, 4, dtype=torch.float64, requires_grad=True)

    def total():  # s as a weight of S
        return (s * function(b)).square().sum()

    by_s, by_b = torch.autograd.grad(total(), [s, b], create_graph=True)
    torch.testing.assert_close(torch.autograd.grad(by_s.sum(), s, retain_graph=True)[0], 2 * value.square().sum(dim=0))
    # JFB's gradient by s, and the gradient by s of JFB's: equal, since u* is no function of s
    (one,) = torch.autograd.grad(by_s @ TANGENT, b, retain_graph=True)
    rows = [torch.autograd.grad(part, s, retain_graph=True)[0] for part in by_b]
    torch.testing.assert_close(torch.stack(rows) @ TANGENT, one)


# Memory that T uses again, and numbers of NumPy


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != Unrolled(5)], ids=repr)  # that starts elsewhere
def test_a_fixed_point_that_T_writes_over_is_refused(rule):
    buffer = torch.zeros(2, 3)

    def T(u):  # as a replayed CUDA graph
        buffer.data.copy_(0.5 * u + 1)
        return buffer

    with pytest.raises(ValueError, match="T must return memory of its own"):
        rule(T, buffer)


@pytest.mark.parametrize(
    ("rule", "plain"),
    [
        (NeumannSeries(wrong(np.int64(3)), wrong(np.float32(0.5))), NeumannSeries(3, 0.5)),
        (UnrolledPhantom(wrong(np.int8(3)), np.float64(0.5)), UnrolledPhantom(3, 0.5)),
        (Unrolled(wrong(torch.tensor(7))), Unrolled(7)),
        (PublishedCG(np.float64(0.5), wrong(np.int64(9))), PublishedCG(0.5, 9)),
        (
            ImplicitDifferentiation(np.str_("cg"), np.float64(0.5), wrong(np.int16(9)), on_failure=np.str_("warn")),
            ImplicitDifferentiation("cg", 0.5, 9, on_failure="warn"),
        ),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_numbers_of_numpy_become_plain_ones(rule, plain):
    assert repr(rule) == repr(plain)
    assert {type(value) for value in vars(rule).values()} <= {int, float, str, bool}
