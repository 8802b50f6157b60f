"""Fixed point iteration: the right point, the right steps, and clear refusals."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from jfb_tutorial.solvers import Anderson, Broyden, FixedPointIteration, Solution

SOLVERS = [FixedPointIteration, Anderson, Broyden]


def random_contraction(seed, gamma, batch, n, dtype):
    """u ↦ γ_i W u + b, a rate γ_i of its own for every sample; returns T and its fixed points from dense solves."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
    b = torch.randn(batch, n, generator=generator, dtype=torch.float64)
    rates = gamma * torch.linspace(0.1, 1, batch, dtype=torch.float64) if batch > 1 else torch.tensor([gamma]).double()
    exact = torch.linalg.solve(torch.eye(n, dtype=torch.float64) - rates[:, None, None] * W, b)

    def T(u):
        return rates.to(dtype)[:, None] * (u @ W.T.to(dtype)) + b.to(dtype)

    return T, exact


def steps_by_hand(T, u, tol, max_steps):
    """Steps of every sample and the last iterate, by a loop that knows nothing of the solver."""
    first: list[int | None] = [None] * len(u)
    for step in range(1, max_steps + 1):
        v = T(u)
        for i, residual in enumerate(torch.linalg.vector_norm((v - u).flatten(1), dim=1)):
            if first[i] is None and residual <= tol:
                first[i] = step
        u = v
        if torch.linalg.vector_norm((T(u) - u).flatten(1), dim=1).isfinite().all() and None not in first:
            return [f or step for f in first], u, step
    return [f or max_steps for f in first], u, max_steps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 64])
@given(seed=st.integers(0, 10_000), gamma=st.floats(0.0, 0.95), n=st.integers(1, 12), relative=st.booleans())
def test_finds_the_fixed_point_of_a_random_contraction(dtype, batch, seed, gamma, n, relative):
    T, exact = random_contraction(seed, gamma, batch, n, dtype)
    # a tolerance that the precision can meet: rounding keeps the residual at about eps · |u| / (1 − γ)
    tol = (1e-8 if dtype == torch.float64 else 1e-4) * (
        1.0 if relative else float(exact.norm(dim=1).max().clamp(min=1))
    )
    solution = FixedPointIteration(tol=tol, max_steps=1000, relative=relative)(T, torch.zeros(batch, n, dtype=dtype))
    assert solution.converged.all()
    assert solution.u.dtype == solution.residuals.dtype == dtype
    allowed = tol / (1 - gamma) * (exact.norm(dim=1).max() * 1.01 if relative else 1)
    assert torch.linalg.vector_norm(solution.u.double() - exact, dim=1).max() <= allowed * 1.001
    assert solution.residuals.shape == (int(solution.steps.max()), batch)


@pytest.mark.parametrize("batch", [1, 64])
@given(seed=st.integers(0, 10_000), gamma=st.floats(0.0, 0.95), max_steps=st.integers(1, 60))
def test_counts_the_steps_of_every_sample(batch, seed, gamma, max_steps):
    T, _ = random_contraction(seed, gamma, batch, 5, torch.float64)
    u0 = torch.zeros(batch, 5, dtype=torch.float64)
    solution = FixedPointIteration(tol=1e-3, max_steps=max_steps)(T, u0)
    steps, u, total = steps_by_hand(T, u0, 1e-3, max_steps)
    assert solution.steps.tolist() == steps
    assert torch.equal(solution.u, u)
    assert len(solution.residuals) == total
    assert torch.equal(solution.converged, solution.residuals[-1] <= 1e-3)


def test_latents_of_any_shape_are_one_vector_a_sample():
    u0 = torch.randn(3, 4, 5, 6)
    image = FixedPointIteration(tol=1e-3)(lambda u: 0.5 * u + 1, u0)
    flat = FixedPointIteration(tol=1e-3)(lambda u: 0.5 * u + 1, u0.flatten(1))
    assert torch.allclose(image.residuals, flat.residuals)
    scalar = FixedPointIteration(tol=1e-3)(lambda u: 0.5 * u + 1, torch.zeros(7))
    assert scalar.residuals.shape == (len(scalar.residuals), 7)
    assert scalar.residuals[0].tolist() == [1.0] * 7


def test_stops_only_when_every_sample_has_met_the_tolerance():
    rates = torch.tensor([[0.1], [0.9]])
    seen = []

    def T(u):
        seen.append(len(u))
        return rates * u + 1

    solution = FixedPointIteration(tol=1e-3, max_steps=500)(T, torch.zeros(2, 1))
    assert solution.steps[0] < 6 < 60 < solution.steps[1] == len(seen)
    assert set(seen) == {2}  # the whole batch, every time


def test_relative_tolerance_scales_with_the_image():
    def T(u):
        return 0.5 * u + torch.tensor([[1.0], [1000.0]])

    absolute = FixedPointIteration(tol=1e-2)(T, torch.zeros(2, 1)).steps
    relative = FixedPointIteration(tol=1e-2, relative=True)(T, torch.zeros(2, 1)).steps
    assert absolute[0] < absolute[1]
    assert relative[0] == relative[1] == 7  # 0.5⁶ / (2 (1 − 0.5⁷)) ≤ 0.01 for the first time


@pytest.mark.parametrize(("check_every", "total", "checks"), [(1, 7, 7), (4, 8, 2), (0, 20, 1), (50, 20, 1)])
def test_check_every(check_every, total, checks):
    calls = []

    def T(u):
        calls.append(1)
        return 0.5 * u + 1

    solution = FixedPointIteration(tol=0.02, max_steps=20, check_every=check_every)(T, torch.zeros(2, 1))
    assert len(calls) == total == solution.steps[0]
    assert len(solution.residuals) == checks
    assert solution.converged.all()
    assert torch.equal(solution.u, torch.full((2, 1), 2 - 2.0 ** (1 - total)))


def test_not_converged_is_reported():
    solution = FixedPointIteration(tol=1e-6, max_steps=5)(lambda u: -u, torch.ones(2, 3))
    assert not solution.converged.any()
    assert solution.steps.tolist() == [5, 5]
    assert "0 of 2 samples converged" in repr(solution)


def test_converged_is_judged_at_the_last_evaluation():
    # the first sample meets the tolerance at once and then leaves; the batch goes on because of the second
    moves = iter([[0.0, 1.0], [5.0, 1.0], [5.0, 1.0]])
    solution = FixedPointIteration(tol=1e-3, max_steps=3)(
        lambda u: u + torch.tensor(next(moves))[:, None], torch.zeros(2, 1)
    )
    assert solution.steps.tolist() == [1, 3]
    assert solution.converged.tolist() == [False, False]


def test_no_graph_is_recorded():
    W = torch.full((2, 2), 0.2, requires_grad=True)
    u0 = torch.zeros(1, 2, requires_grad=True)
    solution = FixedPointIteration()(lambda u: u @ W + 1, u0)
    assert not solution.u.requires_grad
    assert not solution.residuals.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_residuals_of_half_precision_are_accumulated_in_float32(dtype):
    solution = FixedPointIteration(tol=1e-2, relative=True)(lambda u: 0.5 * u + 1, torch.zeros(2, 300, dtype=dtype))
    assert solution.residuals.dtype == torch.float32
    assert solution.converged.all()


def test_autocast_casts_back():
    W = 0.3 * torch.eye(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        solution = FixedPointIteration(tol=1e-1)(lambda u: u @ W + 1, torch.zeros(2, 4))
    assert solution.u.dtype == torch.float32


def test_inference_mode():
    with torch.inference_mode():
        assert FixedPointIteration()(lambda u: 0.5 * u + 1, torch.zeros(2, 2)).converged.all()


def test_a_map_that_turns_gradients_on_leaves_no_graph():
    W = torch.full((2, 2), 0.2, requires_grad=True)

    def T(u):
        with torch.enable_grad():
            return u @ W + 1

    assert not FixedPointIteration()(T, torch.zeros(1, 2)).u.requires_grad


def test_compiles_around():
    W = 0.3 * torch.eye(4)
    T = torch.compile(lambda u: torch.tanh(u @ W) + 1, backend="aot_eager")
    compiled, plain = (FixedPointIteration()(f, torch.zeros(2, 4)) for f in (T, lambda u: torch.tanh(u @ W) + 1))
    assert torch.allclose(compiled.u, plain.u)


def test_an_empty_batch_and_the_identity():
    assert len(FixedPointIteration()(lambda u: u, torch.zeros(0, 3)).steps) == 0
    solution = FixedPointIteration()(lambda u: u, torch.ones(2, 3))
    assert solution.steps.tolist() == [1, 1]


@pytest.mark.parametrize("check_every", [0, 1, 5])
def test_overflow_names_the_step_and_the_samples(check_every):
    growth = torch.tensor([[0.5], [1e20], [0.5], [1e20]])
    with pytest.raises(FloatingPointError, match=r"at step \d+ in 2 of 4 samples \(1, 3\).*damp it"):
        FixedPointIteration(max_steps=10, check_every=check_every)(lambda u: growth * u + 1, torch.zeros(4, 1))


@pytest.mark.parametrize(
    ("T", "u0", "words"),
    [
        (
            lambda u: 0 * u,
            torch.tensor([[0.0], [float("nan")]]),
            r"u0 is not finite at step 1 in 1 of 2 samples \(1\).*start",
        ),
        (  # the second is the fault of T, and is told when the first is mended
            lambda u: u * float("inf"),
            torch.tensor([[float("nan")], [1.0]]),
            r"u0 is not finite at step 1 in 1 of 2 samples \(0\)",
        ),
        (lambda u: torch.full_like(u, 2e19), torch.zeros(1, 4), r"norm of T\(u\) − u is not finite.*rescaling"),
    ],
)
def test_what_is_not_finite_is_named(T, u0, words):
    with pytest.raises(FloatingPointError, match=words):
        FixedPointIteration()(T, u0)


def test_a_half_precision_difference_does_not_overflow():
    u0 = torch.full((1, 1), 6e4, dtype=torch.float16)
    assert FixedPointIteration(max_steps=3)(lambda u: -u, u0).residuals[0].item() == pytest.approx(12e4, rel=1e-3)


@pytest.mark.parametrize(
    ("keywords", "error", "words"),
    [
        ({"tol": 0}, ValueError, "tol must be positive"),
        ({"tol": -1e-3}, ValueError, "tol must be positive"),
        ({"tol": float("nan")}, ValueError, "tol must be positive"),
        ({"tol": float("inf")}, ValueError, "tol must be positive and finite"),
        ({"tol": "1e-3"}, TypeError, "tol must be a number"),
        ({"relative": "yes"}, TypeError, "relative must be True or False"),
        ({"max_steps": 0}, ValueError, "max_steps must be at least 1"),
        ({"max_steps": 2.5}, TypeError, "max_steps must be an integer"),
        ({"max_steps": True}, TypeError, "max_steps must be an integer"),
        ({"check_every": -1}, ValueError, "check_every must be at least 0"),
        ({"tolerance": 1e-3}, TypeError, "tolerance"),
    ],
)
def test_bad_settings(keywords, error, words):
    with pytest.raises(error, match=words):
        FixedPointIteration(**keywords)


def in_place(u):
    u.mul_(0.5)
    return u


@pytest.mark.parametrize(
    ("T", "u0", "error", "words"),
    [
        (lambda u: u[:, :1], torch.zeros(2, 3), ValueError, r"keep the shape.*\(2, 3\) to \(2, 1\)"),
        (lambda u: u.double(), torch.zeros(2, 3), TypeError, "keep the dtype.*float32 to torch.float64"),
        (lambda u: u.to("meta"), torch.zeros(2, 3), ValueError, "keep the device"),
        (lambda u: 0.0, torch.zeros(2, 3), TypeError, "must return a tensor, got float"),
        (in_place, torch.ones(2, 3), ValueError, "must not write into its argument"),
        (lambda u: u, torch.zeros(2, 3, dtype=torch.int64), TypeError, "u0 must be a floating-point tensor"),
        (lambda u: u, [0.0], TypeError, "u0 must be a floating-point tensor, got list"),
        (lambda u: u, torch.tensor(0.0), ValueError, "u0 must have a batch dimension"),
    ],
)
def test_bad_maps_and_starts(T, u0, error, words):
    with pytest.raises(error, match=words):
        FixedPointIteration()(T, u0)


def test_solution_is_frozen():
    solution = FixedPointIteration()(lambda u: u, torch.ones(2, 3))
    assert isinstance(solution, Solution)
    with pytest.raises(AttributeError):
        cast(Any, solution).u = torch.zeros(1)


def tanh_layer(kind, gamma, batch, n=32):
    """u ↦ tanh(W u + x) with ‖W‖₂ = γ, and samples x of very different sizes."""
    generator = torch.Generator().manual_seed(3)
    W = torch.randn(n, n, generator=generator, dtype=torch.float64)
    if kind == "symmetric":
        W = W + W.T
    if kind == "orthogonal":
        W = torch.linalg.qr(W)[0]
    W = W * (gamma / torch.linalg.matrix_norm(W, 2))
    x = (
        torch.randn(batch, n, generator=generator, dtype=torch.float64)
        * torch.logspace(-3, 1, batch, dtype=torch.float64)[:, None]
    )
    return lambda u: torch.tanh(u @ W.T.to(u.dtype) + x.to(u.dtype))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["gaussian", "symmetric", "orthogonal"])
@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.98])
@pytest.mark.parametrize("batch", [1, 64])
def test_all_solvers_find_the_fixed_point_of_6000_plain_iterations(solver, kind, gamma, batch):
    T = tanh_layer(kind, gamma, batch)
    u0 = torch.zeros(batch, 32, dtype=torch.float64)
    exact = u0
    for _ in range(6000):
        exact = T(exact)
    for tol in (1e-4, 1e-9):
        solution = solver(tol=tol, max_steps=3000)(T, u0)
        assert solution.converged.all()
        assert torch.linalg.vector_norm(solution.u - exact, dim=1).max() <= tol / (1 - gamma)
        # Broyden's residual is not monotone: a sample may leave the tolerance again while others are still on their way
        assert solution.steps.max() <= len(solution.residuals) < 3000
        assert solver is Broyden or solution.steps.max() == len(solution.residuals)


@pytest.mark.parametrize("solver", [Anderson, Broyden])
def test_acceleration_pays_where_the_map_is_symmetric(solver):
    T, u0 = tanh_layer("symmetric", 0.98, 8), torch.zeros(8, 32, dtype=torch.float64)
    plain, fast = (method(tol=1e-6, max_steps=3000)(T, u0).steps.max() for method in (FixedPointIteration, solver))
    assert fast < plain / 2


def test_anderson_solves_an_affine_map_in_as_many_steps_as_it_has_dimensions():
    # with full memory it is GMRES: n + 1 evaluations find the fixed point, one more sees that it is one
    n, generator = 6, torch.Generator().manual_seed(0)
    A = torch.randn(n, n, generator=generator, dtype=torch.float64) * 0.3
    b = torch.randn(1, n, generator=generator, dtype=torch.float64)
    solution = Anderson(tol=1e-8, memory=n, regularization=1e-15)(lambda u: u @ A.T + b, torch.zeros_like(b))
    assert solution.converged.all()
    assert solution.steps.max() <= n + 3
    assert torch.allclose(solution.u, torch.linalg.solve(torch.eye(n, dtype=torch.float64) - A, b.T).T, atol=1e-7)


@pytest.mark.parametrize("solver", [Anderson, Broyden])
def test_accelerated_solvers_find_fixed_points_that_repel(solver):
    # slope 3 in one direction: plain iteration runs away, the secant finds it all the same
    A = torch.diag(torch.tensor([3.0, 0.5], dtype=torch.float64))
    solution = solver(tol=1e-9, max_steps=60)(lambda u: u @ A + 1, torch.zeros(1, 2, dtype=torch.float64))
    assert solution.u[0].tolist() == pytest.approx([-0.5, 2.0], abs=1e-6)


@pytest.mark.parametrize("solver", [Anderson, Broyden])
def test_converged_samples_and_still_ones_do_no_harm(solver):
    rates = torch.tensor([[0.0], [0.5], [0.95]], dtype=torch.float64)
    solution = solver(tol=1e-12, max_steps=500)(lambda u: rates * u + 1, torch.zeros(3, 1, dtype=torch.float64))
    assert solution.converged.all()
    assert solution.u.flatten().tolist() == pytest.approx([1, 2, 20])
    same = solver(tol=1e-12, max_steps=20, check_every=0)(lambda u: 0.5 * u + 1, torch.full((2, 3), 2.0))
    assert same.u.tolist() == [[2.0] * 3] * 2


@pytest.mark.parametrize("solver", [Anderson, Broyden])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_accelerated_solvers_work_on_images_in_any_precision(solver, dtype):
    u0 = torch.zeros(2, 3, 4, 4, dtype=dtype)
    solution = solver(tol=2e-2, relative=True)(lambda u: 0.5 * u + 1, u0)
    assert solution.converged.all()
    assert solution.u.dtype == dtype
    assert solution.u.shape == u0.shape
    scalar = solver(tol=1e-3)(lambda u: 0.5 * u + 1, torch.zeros(5))
    assert scalar.converged.all()


@pytest.mark.parametrize("solver", [Anderson, Broyden])
@pytest.mark.parametrize(
    ("keywords", "error", "words"),
    [
        ({"memory": 0}, ValueError, "memory must be at least 1"),
        ({"memory": 2.0}, TypeError, "memory must be an integer"),
        ({"tol": 0}, ValueError, "tol must be positive"),
    ],
)
def test_bad_settings_of_accelerated_solvers(solver, keywords, error, words):
    with pytest.raises(error, match=words):
        solver(**keywords)
    for value in (0.0, 1.0, 5, float("nan")):
        with pytest.raises(ValueError, match="regularization must be positive and below 1"):
            Anderson(regularization=value)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("gamma", [0.5, 0.95])
def test_samples_that_are_strongly_coupled(solver, gamma):
    # a contraction of the batch, in which every sample moves every other
    generator = torch.Generator().manual_seed(0)
    Q = gamma * torch.linalg.qr(torch.randn(64, 64, generator=generator, dtype=torch.float64))[0]
    x = torch.randn(64, 16, generator=generator, dtype=torch.float64)
    solution = solver(tol=1e-8, max_steps=3000)(lambda u: Q @ torch.tanh(u) + x, torch.zeros_like(x))
    assert solution.converged.all()
    assert solution.u.shape == x.shape


def test_a_residual_equal_to_the_tolerance_meets_it():
    for relative, u0 in ((False, 0.0), (True, 0.5)):  # T(u) = u + ½: a residual of ½, and T(½) = 1
        solver = FixedPointIteration(tol=0.5, max_steps=3, relative=relative)
        solution = solver(lambda u: u + 0.5, torch.tensor([[u0]]))
        assert solution.converged.all()
        assert solution.steps.tolist() == [1]


# The best state where there is no convergence


class Scripted:
    """T(u) = u + f, with an f of its own for every evaluation, `(evaluations, batch)`; latents are `(batch, 1)`."""

    def __init__(self, *f):
        self.f, self.points, self.values = torch.tensor(f, dtype=torch.float64), [], []

    def __call__(self, u):
        v = u + self.f[len(self.points)][:, None]
        self.points.append(u.flatten().tolist())
        self.values.append(v.clone())
        return v

    def solve(self, solver, **settings):
        u0 = torch.zeros(self.f.shape[1], 1, dtype=torch.float64)
        return solver(max_steps=len(self.f), **settings)(self, u0)


@pytest.mark.parametrize("solver", [Anderson, Broyden])
def test_what_has_not_converged_is_the_best_that_was_seen(solver):
    # returned are the second, the third and the first evaluation, and for the two that end within the tolerance the last
    T = Scripted([3.0, 4, -1, 2, 0.1], [-1.0, 3, 2, 1, 3], [5.0, -2, 3, 1, 2], [4.0, 3, 4, 0.2, 0.3])
    solution = T.solve(solver, tol=0.5)
    assert solution.residual.tolist() == pytest.approx([1, 2, 1, 0.2, 0.3])
    assert solution.u.flatten().tolist() == [T.values[i][row].item() for row, i in enumerate((1, 2, 0, 3, 3))]
    assert solution.converged.tolist() == [False, False, False, True, True]  # what the other fields say is as it was
    assert solution.residuals.shape == (4, 5)
    assert solution.steps.tolist() == [4, 4, 4, 4, 1]
    assert "largest residual 2.0e+00" in repr(solution)


def test_plain_iteration_returns_its_last_state():
    T = Scripted([3.0], [1.0], [5.0])
    solution = T.solve(FixedPointIteration, tol=0.5)
    assert solution.residual.tolist() == [5]
    assert torch.equal(solution.u, T.values[-1])


@pytest.mark.parametrize("solver", [Anderson, Broyden])
def test_a_sample_that_leaves_the_tolerance_gets_the_state_that_met_it(solver):
    T = Scripted([0.1, 3.0], [2.0, 2.0], [1.0, 1.0])
    solution = T.solve(solver, tol=0.5)
    assert solution.u[0] == T.values[0][0]
    assert solution.residual[0] == pytest.approx(0.1)
    assert solution.steps.tolist() == [1, 3]
    assert not solution.converged.any()


@pytest.mark.parametrize("solver", [Anderson, Broyden])
def test_the_best_state_is_one_whose_residual_was_read(solver):
    f = ([9.0], [1.0], [2.0], [7.0], [3.0], [4.0])
    T = Scripted(*f)
    solution = T.solve(solver, tol=0.5, check_every=2)
    assert solution.residuals.flatten().tolist() == pytest.approx([1, 7, 4])
    assert solution.u == T.values[1]
    T = Scripted(*f)
    solution = T.solve(solver, tol=0.5, check_every=0)
    assert solution.residual.tolist() == [pytest.approx(4)]
    assert solution.u == T.values[-1]


@pytest.mark.parametrize("solver", [Anderson, Broyden])
def test_the_best_state_is_nearest_to_the_tolerance_as_it_was_given(solver):
    # the smallest residual is that of the first evaluation, ‖T(0)‖, which is all of T(0)
    T = Scripted([1.0], [-100.0], [2.0], [30.0])
    solution = T.solve(solver, tol=1e-3, relative=True)
    distances = [abs(f[0].item() / v.item()) for f, v in zip(T.f, T.values, strict=True)]
    best = distances.index(min(distances))
    assert best > 0
    assert solution.u == T.values[best]
    assert solution.residual == T.f[best].abs()


@pytest.mark.parametrize("solver", [Anderson, Broyden])
def test_what_T_returns_is_left_as_it_is(solver):
    values = iter(torch.tensor([[[5.0]], [[1.0]], [[1.5]]]))
    given = []

    def T(u):
        v = next(values)
        given.append((v, v.clone()))
        return v

    assert solver(max_steps=3)(T, torch.zeros(1, 1)).residual < 5
    assert all(torch.equal(v, before) for v, before in given)


@pytest.mark.parametrize("solver", [Anderson, Broyden])
def test_a_solve_that_converges_returns_the_last_evaluation(solver):
    last: list[torch.Tensor] = []

    def T(u):
        last[:] = [torch.tanh(0.5 * u) + 1]
        return last[0]

    solution = solver(tol=1e-8)(T, torch.zeros(3, 4, dtype=torch.float64))
    assert solution.u is last[0] or solution.u.data_ptr() == last[0].data_ptr()
    assert torch.equal(solution.residual, solution.residuals[-1])


class Reads(TorchDispatchMode):
    """Counts the values that are read from the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **kwargs or {})


@pytest.mark.parametrize(("solver", "an_evaluation"), [(FixedPointIteration, 1), (Anderson, 1), (Broyden, 2)])
def test_the_device_is_read_once_an_evaluation_and_once_more_for_what_has_gone_astray(solver, an_evaluation):
    T = tanh_layer("gaussian", 3.0, 4)
    with Reads() as reads:
        solution = solver(tol=1e-12, max_steps=12)(T, torch.zeros(4, 32, dtype=torch.float64))
    assert not solution.converged.all()
    # Broyden's first step is plain, and after the last evaluation there is none
    assert reads.count == (12 if an_evaluation == 1 else 12 + 10)


# Broyden's safeguards


def test_broyden_takes_no_pivot_that_is_noise():
    eps, points = torch.finfo(torch.float64).eps, []

    def T(u):  # f = (1 + εu₀, u₀): after the step (1, 0) it has changed by (ε, 1), and the pivot is ε
        points.append(u[0].tolist())
        return u + torch.stack([1 + eps * u[:, 0], u[:, 0]], dim=1)

    Broyden(max_steps=3)(T, torch.zeros(1, 2, dtype=torch.float64))
    assert points == [[0, 0], [1, 0], [pytest.approx(2), 1]]  # a plain step, where f/ε would be 4e15


def test_broyden_divides_by_no_pivot_that_is_zero():
    solution = Broyden(max_steps=6, check_every=0)(lambda u: u.clone(), torch.ones(2, 3))
    assert solution.u.tolist() == [[1.0] * 3] * 2


def test_a_sample_that_has_gone_astray_starts_again_and_the_others_go_on():
    # in one dimension B is −(step)/(change of f); 60 is more than a hundred times 0.5
    T = Scripted([1.0, 1.0], [0.5, 0.5], [60.0, 0.25], [30.0, 0.125], [1.0, 1.0])
    T.solve(Broyden)
    steps = torch.tensor(T.points, dtype=torch.float64).diff(dim=0)
    torch.testing.assert_close(steps[:, 0], torch.tensor([1.0, 1.0, 60.0, 60.0]).double())  # the third is plain
    torch.testing.assert_close(steps[:, 1], torch.ones(4).double())


def test_a_sample_goes_astray_from_the_best_that_it_was():
    # 60 is twice the last, and more than a hundred times the smallest
    T = Scripted([1.0], [0.5], [30.0], [60.0], [1.0])
    T.solve(Broyden)
    assert T.points[4][0] - T.points[3][0] == pytest.approx(60)  # a plain step


def test_broyden_starts_again_when_its_memory_is_full():
    # memory for one term: the second update forgets the first, so that its B is −I and one term
    A = torch.tensor([[0.0, 0.6], [-0.4, 0.3]], dtype=torch.float64)
    points = []

    def T(u):
        points.append(u)
        return u @ A.T + 1

    Broyden(memory=1, max_steps=4, tol=1e-12)(T, torch.zeros(1, 2, dtype=torch.float64))
    f = [T(u)[0] - u[0] for u in points[:4]]
    s, y = points[2][0] - points[1][0], f[2] - f[1]
    B = -torch.eye(2, dtype=torch.float64)
    B = B + torch.outer(s - B @ y, s @ B) / (s @ B @ y)
    torch.testing.assert_close(points[3][0], points[2][0] - B @ f[2])


# Memory that T uses again, and numbers of NumPy


def replayed(T, like):
    """T as a replayed CUDA graph has it: the result lies in the same memory each time, and no version counter tells."""
    buffer = torch.empty_like(like)

    def call(u):
        buffer.data.copy_(T(u))
        return buffer

    return call


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_map_that_returns_the_same_memory_again(solver, dtype):
    u0 = torch.zeros(2, 3, dtype=dtype)
    T = replayed(lambda u: 0.9 * u + 1, u0)
    if solver is FixedPointIteration or (solver is Anderson and dtype == torch.float32):
        with pytest.raises(ValueError, match=r"memory of its own.*return T\(u\).clone\(\)"):
            solver()(T, u0)
    else:  # what these take from T(u) they copy
        torch.testing.assert_close(solver(tol=0.1)(T, u0).u, torch.full_like(u0, 10), rtol=0.02, atol=0)
    cloned = solver(tol=0.1, max_steps=100)(lambda u: T(u).clone(), u0)
    torch.testing.assert_close(cloned.u, torch.full_like(u0, 10), rtol=0.1, atol=0)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("T", [lambda u: u, lambda u: u.view_as(u), torch.nn.Identity(), lambda u: u.clone()])
def test_the_identity_may_return_its_argument(solver, T):
    assert solver()(T, torch.ones(2, 3)).steps.tolist() == [1, 1]


def test_tensors_without_an_address():
    def value(b):  # inside the transform
        return FixedPointIteration(tol=1e-3)(lambda u: 0.5 * u + b, torch.zeros_like(b)).u.sum()

    assert torch.func.grad(value)(torch.ones(3)).tolist() == [0] * 3  # no graph is recorded


@pytest.mark.parametrize("solver", SOLVERS)
def test_numbers_of_numpy_become_plain_ones(solver):
    more: dict[str, Any] = {} if solver is FixedPointIteration else {"memory": np.int8(3)}
    if solver is Anderson:
        more["regularization"] = np.float32(0.5)
    settings = solver(tol=np.float64(0.25), max_steps=np.int64(7), check_every=torch.tensor(2), **more)
    assert {type(value) for value in vars(settings).values()} <= {float, int, bool}
    assert eval(repr(settings)) == settings
    assert "np." not in repr(settings)


def test_anderson_step_by_step():
    """Walker and Ni's formula with the last two differences, at each of the points that it went through."""
    A = torch.tensor([[0.1, 0.6, 0.0], [-0.4, 0.3, 0.2], [0.3, 0.0, -0.5]], dtype=torch.float64)
    points, values = [], []

    def T(u):
        points.append(u[0])
        values.append(torch.tanh(u @ A.T)[0] + torch.tensor([1.0, 0.5, -1]))
        return values[-1][None]

    Anderson(memory=2, regularization=1e-14, max_steps=6, tol=1e-15)(T, torch.zeros(1, 3, dtype=torch.float64))
    for k in range(5):
        u, v = torch.stack(points[: k + 1]), torch.stack(values[: k + 1])
        F, V = (v - u).diff(dim=0)[-2:].T, v.diff(dim=0)[-2:].T
        step = v[-1] - V @ torch.linalg.lstsq(F, (v - u)[-1]).solution if k else v[-1]
        torch.testing.assert_close(points[k + 1], step, rtol=1e-8, atol=1e-8)
