"""The Krylov solvers against dense solves and SciPy: hard matrices, all scales and precisions, failures that must be seen."""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from jfb_tutorial.gradients import krylov

METHODS = list(krylov.METHODS)


def run(method, J, g, *, tol=1e-8, max_steps=5000, dtype=None):
    J, g = (x.to(dtype) if dtype else x for x in (J, g))
    J = J if J.ndim == 3 else J.expand(len(g), -1, -1)
    products = []

    def times(A):
        def product(w):
            products.append(1)
            return (w[:, None] @ A)[:, 0]

        return product

    solution = krylov.solve(method, g, times(J), times(J.mT), tol=tol, max_steps=max_steps)
    return solution, len(products)


def exact(J, g):
    J = J if J.ndim == 3 else J.expand(len(g), -1, -1)
    return torch.linalg.solve(torch.eye(J.shape[-1], dtype=J.dtype) - J.mT, g)


def matrices(n=24):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    W = normal(n, n)
    Q = torch.linalg.qr(normal(n, n))[0]
    yield "gaussian", 0.9 * W / torch.linalg.matrix_norm(W, 2)
    yield "symmetric", 0.95 * (W + W.T) / torch.linalg.matrix_norm(W + W.T, 2)
    yield "orthogonal", 0.9 * Q
    yield "negative", -0.99 * torch.eye(n, dtype=torch.float64)
    yield "zero", torch.zeros(n, n, dtype=torch.float64)
    yield "shift", 0.9 * torch.diag(torch.ones(n - 1, dtype=torch.float64), 1)
    yield "rank one", 0.9 * torch.outer(Q[0], Q[1])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("name", "J"), list(matrices()), ids=[name for name, _ in matrices()])
def test_against_a_dense_solve(method, name, J):
    g = torch.randn(3, len(J), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    solution, _ = run(method, J, g, tol=1e-10)
    assert solution.converged.all()
    assert (solution.residual <= 1e-10).all()
    torch.testing.assert_close(solution.w, exact(J, g), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("method", ["cg", "gmres", "bicgstab"])
def test_beyond_contractions(method):
    """ρ(J) > 1, where the series diverges: non-normal, and with I − J well conditioned."""
    generator = torch.Generator().manual_seed(2)
    J = torch.triu(torch.randn(20, 20, generator=generator, dtype=torch.float64)) * 0.3 - 1.5 * torch.eye(20)
    g = torch.randn(2, 20, generator=generator, dtype=torch.float64)
    solution, _ = run(method, J, g, tol=1e-9)
    assert solution.converged.all()
    torch.testing.assert_close(solution.w, exact(J, g), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e-10, 1.0, 1e10, 1e30, 1e300])
@pytest.mark.parametrize("method", METHODS)
def test_units_play_no_part(method, size):
    J = dict(matrices())["gaussian"]
    g = torch.randn(2, 24, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    one, products = run(method, J, g)
    scaled, again = run(method, J, g * size)
    assert again == products
    torch.testing.assert_close(scaled.w / size, one.w, rtol=1e-10, atol=1e-12)
    if 1e-31 < size < 1e31:  # and in float32
        scaled, _ = run(method, J, g * size, tol=1e-5, dtype=torch.float32)
        assert scaled.converged.all()
        torch.testing.assert_close(scaled.w.double() / size, one.w, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_systems_of_very_different_sizes(method):
    J = dict(matrices())["gaussian"]
    g = torch.randn(4, 24, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    g *= torch.tensor([[1.0], [1e-20], [0.0], [1e20]])
    solution, _ = run(method, J, g)
    assert solution.converged.all()
    assert (solution.w[2] == 0).all()
    assert solution.residual[2] == 0
    for row, expected in zip(solution.w, exact(J, g), strict=True):
        assert (row - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("method", METHODS)
def test_products_may_couple_systems_of_different_sizes(method):
    """Batch normalisation does: what is called the residual is then that of the coupled equation."""
    J = dict(matrices())["gaussian"]
    g = torch.randn(4, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    g *= torch.tensor([[1.0], [1e-3], [0.0], [1e2]])

    def times(A):
        return lambda w: (w.reshape(1, -1) @ A).reshape(w.shape)

    solution = krylov.solve(method, g, times(J), times(J.T), tol=1e-10, max_steps=400)
    missing = (g - solution.w + times(J)(solution.w)).norm(dim=1)
    told = solution.residual * g.norm(dim=1)
    rows = torch.tensor([True, True, False, True])  # a residual relative to no gradient tells nothing
    torch.testing.assert_close(told[rows], missing[rows], rtol=1e-2, atol=1e-10)
    assert not solution.converged.all()
    assert (missing[solution.converged] <= 2e-10 * g.norm(dim=1)[solution.converged]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("growth", [1.03, 1.5, 2.0])
def test_a_series_that_diverges_is_never_accepted(dtype, growth):
    g = torch.ones(1, 4, dtype=dtype)
    solution, _ = run("neumann", growth * torch.eye(4, dtype=dtype), g, tol=1e-6)
    assert not solution.converged.any()
    assert solution.w.isfinite().all()
    assert solution.residual[0] > 0.5


def test_running_out_of_steps_is_not_rounding():
    J = 0.95 * torch.eye(4)
    coarse = torch.bfloat16

    def product(w):  # as in a network that computes in bfloat16
        return (w.to(coarse) @ J.to(coarse)).float()

    g = torch.ones(1, 4)
    short = krylov.solve("neumann", g, product, product, tol=1e-6, max_steps=15)
    assert not short.converged.any()
    J = 0.7 * torch.eye(4)  # within what rounding would explain, and still on the way
    short = krylov.solve("neumann", g, product, product, tol=1e-6, max_steps=12)
    assert short.residual[0] < 0.03
    assert not short.converged.any()
    J = 0.95 * torch.eye(4)
    long = krylov.solve("neumann", g, product, product, tol=1e-6, max_steps=2000)
    assert long.converged.all()
    assert 1e-6 < long.residual[0] < 0.05
    torch.testing.assert_close(long.w, torch.full((1, 4), 20.0), rtol=0.2, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_hidden_rounding_is_measured_and_not_blamed_on_T(method):
    """TF32, or autocast inside T: the dtype does not show it. Operands are rounded to ten bits."""
    W = dict(matrices(64))["gaussian"].float()

    def coarse(x):
        scale = 2.0 ** (10 - torch.frexp(x).exponent.float())
        return (x * scale).round() / scale

    g = torch.randn(1, 64, generator=torch.Generator().manual_seed(5))
    solution = krylov.solve(
        method, g, lambda w: coarse(w) @ coarse(W), lambda w: coarse(w) @ coarse(W.T), tol=1e-6, max_steps=1000
    )
    assert solution.converged.all()
    expected = exact(coarse(W).double(), g.double())
    assert (solution.w.double() - expected).norm() < 0.01 * expected.norm()


@pytest.mark.parametrize("method", METHODS)
def test_a_singular_system_fails_and_does_not_take_the_others_along(method):
    n = 60
    singular = torch.roll(torch.eye(n, dtype=torch.float64), 1, dims=1)  # eigenvalue 1
    ones = torch.ones(n - 1, dtype=torch.float64)
    chain = 0.4 * (torch.diag(ones, 1) + torch.diag(ones, -1))
    g = torch.randn(2, n, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    solution, _ = run(method, torch.stack([singular, chain]), g, tol=1e-8)
    assert solution.converged.tolist() == [False, True]
    assert (solution.w[1] - exact(chain, g[1:])[0]).norm() < 1e-5


def test_bicgstab_recovers_from_a_bad_cycle():
    J = torch.tensor([[0, 0, -0.5], [0.5, 0.5, -0.5], [0, -0.5, 0]], dtype=torch.float64)
    g = torch.tensor([[1.0, 1, 0]], dtype=torch.float64)
    solution, _ = run("bicgstab", J, g, tol=1e-6, max_steps=1000)
    assert solution.converged.all()
    torch.testing.assert_close(solution.w, exact(J, g), rtol=1e-5, atol=1e-6)


def test_slow_progress_is_progress():
    n = 200
    J = 0.999 * torch.roll(torch.eye(n, dtype=torch.float64), 1, dims=1)
    g = torch.zeros(1, n, dtype=torch.float64)
    g[0, 0] = 1
    solution, _ = run("gmres", J, g, tol=1e-6, max_steps=100_000)
    assert solution.converged.all()


def test_gmres_as_scipy():
    """Steps within a cycle, residual for residual."""
    J = dict(matrices(60))["gaussian"]
    g = torch.randn(1, 60, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    A = torch.eye(60, dtype=torch.float64) - J.T
    for steps in (3, 8, 15):
        ours, products = run("gmres", J, g, tol=1e-14, max_steps=steps)
        theirs, _ = scipy.sparse.linalg.gmres(A.numpy(), g[0].numpy(), rtol=1e-14, restart=60, maxiter=1, atol=0)
        theirs, _ = scipy.sparse.linalg.gmres(A.numpy(), g[0].numpy(), rtol=1e-14, restart=steps, maxiter=1, atol=0)
        residual = np.linalg.norm(g[0].numpy() - A.numpy() @ theirs) / g.norm().item()
        assert ours.residual[0].item() == pytest.approx(residual, rel=1e-8)
        assert products <= steps + 3


def test_gmres_needs_at_most_the_products_of_the_series_before_it_starts_again():
    for name, J in matrices():
        g = torch.randn(1, len(J), generator=torch.Generator().manual_seed(8), dtype=torch.float64)
        _, gmres = run("gmres", J, g, tol=1e-2)
        _, series = run("neumann", J, g, tol=1e-2)
        assert series > krylov.MEMORY or gmres <= series, name  # both measure the residual with one more


@pytest.mark.parametrize("seed", range(3))
def test_gmres_keeps_its_basis_orthogonal(seed):
    """So that n steps do, at a condition of 1e8, where Gram-Schmidt once would take several restarts."""
    n, generator = 20, torch.Generator().manual_seed(seed)
    P, Q = (torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0] for _ in range(2))
    A = P @ torch.diag(torch.logspace(0, -8, n, dtype=torch.float64)) @ Q
    g = torch.randn(1, n, generator=generator, dtype=torch.float64) @ A
    solution, _ = run("gmres", torch.eye(n, dtype=torch.float64) - A, g, tol=1e-9)
    assert solution.converged.all()
    assert solution.steps <= n


@pytest.mark.parametrize("steps", [1, 5, 12])
def test_the_hessenberg_matrix_is_the_operator_in_the_basis(steps):
    J = dict(matrices())["gaussian"]
    g = torch.randn(3, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    arnoldi = krylov._Arnoldi(g, 12)
    for _ in range(steps):
        arnoldi.extend(lambda w: w @ J)
    V, H = arnoldi.basis[:, : steps + 1], arnoldi.H[:, : steps + 1, :steps]
    identity = torch.eye(steps + 1, dtype=torch.float64).expand(3, -1, -1)
    torch.testing.assert_close(V @ V.mT, identity, rtol=0, atol=1e-13)
    torch.testing.assert_close(V[:, :steps] - V[:, :steps] @ J, H.mT @ V, rtol=0, atol=1e-13)
    assert torch.equal(H, H.triu(-1))
    w = arnoldi.minimiser()
    torch.testing.assert_close((g - w + w @ J).norm(dim=1), arnoldi.residual(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_scales_too_far_apart_for_their_quotient(method):
    """1e-30 / 1e30 is 0 in float32: a row so small keeps a scale that one can divide by."""
    J = dict(matrices())["gaussian"]
    g = torch.randn(2, 24, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    size = torch.tensor([[1e30], [1e-30]], dtype=torch.float64)
    solution, _ = run(method, J, g * size, tol=1e-5, dtype=torch.float32)
    assert solution.converged.all()
    torch.testing.assert_close(solution.w.double() / size, exact(J, g), rtol=1e-3, atol=1e-3)


def test_only_conjugate_gradients_call_the_transpose():
    J = dict(matrices())["gaussian"]
    g = torch.randn(2, 24, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for method in METHODS:
        calls: list[int] = []

        def transpose(w, calls=calls):
            calls.append(1)
            return w @ J.T

        assert krylov.solve(method, g, lambda w: w @ J, transpose, tol=1e-6, max_steps=500).converged.all()
        assert bool(calls) == (method == "cg")


@pytest.mark.parametrize("method", METHODS)
def test_no_systems(method):
    def never(w):
        raise AssertionError("there is nothing to multiply")

    for shape in ((0, 3), (2, 0)):
        solution = krylov.solve(method, torch.zeros(shape), never, never, tol=1e-6, max_steps=10)
        assert solution.w.shape == shape
        assert solution.converged.all()


def test_rounding_is_no_excuse_where_it_is_a_large_error_of_w():
    """J has eigenvalues near 1: the residual that bfloat16 explains, at most 5%, then stands for up to 90% of w."""

    def coarse(x):
        return x.bfloat16().float()

    wrong, right = [], 0
    Q = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    one_slow = Q @ torch.diag(torch.tensor([1.0] + [0.3] * 31, dtype=torch.float64)) @ Q.T
    for name, J in {**dict(matrices(96)), "one slow": one_slow}.items():
        if name not in ("gaussian", "orthogonal", "one slow"):
            continue
        n = len(J)
        J = coarse((0.999 if n == 96 else 0.995) / torch.linalg.matrix_norm(J, 2) * J)

        def product(w, J=J):
            return coarse(coarse(w) @ J)

        for seed in range(3):
            g = torch.randn(1, n, generator=torch.Generator().manual_seed(seed))
            expected = exact(J.double(), g.double())
            for method in ("gmres", "bicgstab"):
                solution = krylov.solve(method, g, product, product, tol=1e-6, max_steps=400)
                if bool(solution.converged):
                    right += 1
                    error = (solution.w.double() - expected).norm() / expected.norm()
                    wrong += [(name, seed, method, error)] if error > 0.1 else []
    assert not wrong, wrong
    assert right >= 6  # what is accurate is accepted


def test_the_cycles_together_make_no_more_steps_than_they_may():
    J = 0.999 * torch.roll(torch.eye(150, dtype=torch.float64), 1, dims=1)
    g = torch.eye(150, dtype=torch.float64)[:1]
    assert run("gmres", J, g, max_steps=krylov.MEMORY + 5)[0].steps == krylov.MEMORY + 5


def test_a_series_that_runs_away_is_ended():
    solution, _ = run("neumann", 2 * torch.eye(4, dtype=torch.float64), torch.ones(1, 4, dtype=torch.float64))
    assert solution.steps < 50  # 2²⁰ is a million, and there are two cycles


def test_bicgstab_starts_afresh_where_its_next_directions_would_be_residuals_alone():
    J = 0.95 * torch.roll(torch.eye(60, dtype=torch.float64), 1, dims=1)  # ρ is 0 after each step from e₀
    solution, _ = run("bicgstab", J, torch.eye(60, dtype=torch.float64)[:1], tol=1e-8)
    assert solution.converged.all()
    assert solution.steps < 100  # 174 if it goes on


def test_a_system_at_rest_leaves_the_least_squares_problem_regular():
    J = dict(matrices())["gaussian"]
    g = torch.randn(2, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    g[1] = 0
    arnoldi = krylov._Arnoldi(g, 5)
    for _ in range(5):
        arnoldi.extend(lambda w: w @ J)
    assert torch.linalg.matrix_rank(arnoldi.H).tolist() == [5, 5]  # 0 / 0 is NaN on some devices
    assert (arnoldi.minimiser()[1] == 0).all()
