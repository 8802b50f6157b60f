"""Norms of Jacobians against dense linear algebra; antieigenvalues against a search."""

import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.autograd.function import once_differentiable

from jfb_tutorial import theory
from jfb_tutorial.theory import lipschitz

DIMENSION = 40


def matrix(kind, seed=0):
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(DIMENSION, DIMENSION, generator=generator, dtype=torch.float64)
    if kind == "random":
        return A / math.sqrt(DIMENSION)
    if kind == "normal":
        return A + A.T
    if kind == "orthogonal":
        return torch.linalg.qr(A)[0]
    if kind == "strongly non-normal":
        return torch.diag(torch.full((DIMENSION,), 0.5, dtype=torch.float64)) + 10 * torch.triu(A, 1)
    return torch.outer(A[0], A[1])  # rank one


@pytest.mark.parametrize("kind", ["random", "normal", "orthogonal", "strongly non-normal", "rank one"])
@pytest.mark.parametrize("lanczos", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_contraction_factor_of_matrices(monkeypatch, kind, lanczos, batch):
    if lanczos:
        monkeypatch.setattr(lipschitz, "DENSE_LIMIT", 0)
    A = matrix(kind)
    exact = torch.linalg.svdvals(A)[0].item()
    u = torch.randn(batch, DIMENSION, dtype=torch.float64)
    assert theory.contraction_factor(lambda u: u @ A.T + 1, u) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("norm", [None, "group", "batch"])
@pytest.mark.parametrize("lanczos", [False, True])
def test_contraction_factor_of_convolutions(monkeypatch, norm, lanczos):
    if lanczos:
        monkeypatch.setattr(lipschitz, "DENSE_LIMIT", 0)
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.LeakyReLU(0.1), torch.nn.Conv2d(3, 3, 3, padding=1)]
    if norm:
        layers.append(
            torch.nn.GroupNorm(1, 3) if norm == "group" else torch.nn.BatchNorm2d(3, track_running_stats=False)
        )
    T = torch.nn.Sequential(*layers).double()
    u = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    J = torch.autograd.functional.jacobian(T, u).reshape(u.numel(), u.numel())
    exact = torch.linalg.svdvals(J)[0].item()
    assert theory.contraction_factor(T, u) == pytest.approx(exact, rel=1e-6)


def test_lanczos_beyond_the_dense_limit():
    scale = torch.linspace(0.1, 0.9, 6000, dtype=torch.float64)
    assert theory.contraction_factor(lambda u: scale * u, torch.zeros(1, 6000, dtype=torch.float64)) == pytest.approx(
        0.9, rel=1e-6
    )


@pytest.mark.parametrize("lanczos", [False, True])
def test_a_map_that_ignores_its_argument_has_factor_zero(monkeypatch, lanczos):
    if lanczos:
        monkeypatch.setattr(lipschitz, "DENSE_LIMIT", 0)
    u = torch.zeros(2, 3, dtype=torch.float64)
    assert theory.contraction_factor(lambda u: torch.ones_like(u), u) == 0.0
    assert theory.contraction_factor(lambda u: 0 * u, u) == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_with_the_jacobian(dtype):
    A, x = matrix("random").to(dtype), torch.randn(1, DIMENSION, dtype=dtype)
    apply, transposed = theory.jacobian_products(lambda u: u @ A.T, torch.zeros(1, DIMENSION, dtype=dtype))
    assert torch.allclose(apply(x), x @ A.T, atol=1e-5)
    assert torch.allclose(transposed(x), x @ A, atol=1e-5)


def test_the_factor_of_a_nonlinear_map_depends_on_the_point():
    W = matrix("orthogonal")
    at_zero, far = (torch.full((1, DIMENSION), value, dtype=torch.float64) for value in (0.0, 3.0))
    assert theory.contraction_factor(lambda u: torch.tanh(u @ W.T), at_zero) == pytest.approx(1.0, rel=1e-6)
    assert theory.contraction_factor(lambda u: torch.tanh(u @ W.T), far) < 1


@pytest.mark.parametrize(
    ("T", "u", "error", "words"),
    [
        (lambda u: u, [0.0], TypeError, "u must be a floating-point tensor, got list"),
        (lambda u: u, torch.zeros(2, dtype=torch.int64), TypeError, "u must be a floating-point tensor"),
        (lambda u: u, torch.tensor(0.0), ValueError, "u must have a batch dimension"),
        (lambda u: u[:, :1], torch.zeros(2, 3), ValueError, "T must keep the shape"),
        (lambda u: u / 0, torch.ones(2, 3), FloatingPointError, "Jacobian of T at u is not finite"),
    ],
)
def test_bad_arguments(T, u, error, words):
    with pytest.raises(error, match=words):
        theory.contraction_factor(T, u)


def test_one_direction_underestimates():
    u = torch.zeros(1, DIMENSION, dtype=torch.float64)
    A = matrix("rank one")
    true = theory.contraction_factor(lambda u: u @ A.T, u)
    one = theory.lipschitz_estimate(lambda u: u @ A.T, u)
    many = theory.lipschitz_estimate(lambda u: u @ A.T, u, directions=200)
    assert one < many < true
    assert one < 0.5 * true
    # the mean square over directions is ‖J‖_F² / n
    generator = torch.Generator().manual_seed(1)
    squares = [theory.lipschitz_estimate(lambda u: u @ A.T, u, generator=generator) ** 2 for _ in range(2000)]
    assert sum(squares) / len(squares) == pytest.approx(A.square().sum().item() / DIMENSION, rel=0.15)


@pytest.mark.parametrize("kappa", [1.0, 2.0, 13.9, 1e4])
def test_antieigenvalue_against_the_definition(kappa):
    generator = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    G = Q @ torch.diag(torch.tensor([1.0, min(2.0, kappa), kappa], dtype=torch.float64)) @ Q.T
    value = theory.antieigenvalue(G)
    x = torch.randn(100_000, 3, generator=generator, dtype=torch.float64)
    # the minimiser has the squared weights λmax/(λmin + λmax) and λmin/(λmin + λmax) on the extreme eigenvectors
    x[0] = Q @ torch.tensor([math.sqrt(kappa), 0, 1.0], dtype=torch.float64)
    cosines = (x * (x @ G)).sum(1) / (x.norm(dim=1) * (x @ G).norm(dim=1))
    assert cosines.min().item() == pytest.approx(value, rel=1e-9)


def test_antieigenvalue_refuses_what_it_is_not_defined_for():
    with pytest.raises(ValueError, match="must be a square matrix"):
        theory.antieigenvalue(torch.zeros(2, 3))
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="must be finite"):
            theory.antieigenvalue(torch.full((2, 2), value))
    with pytest.raises(TypeError, match="must be a tensor, got list"):
        theory.antieigenvalue(cast(Any, [[1.0]]))
    with pytest.raises(ValueError, match="must be symmetric"):
        theory.antieigenvalue(torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="must be positive definite"):
        theory.antieigenvalue(torch.tensor([[1.0, 1.0], [1.0, 1.0]]))


@pytest.mark.parametrize("lanczos", [False, True])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_contraction_factor_at_any_scale(monkeypatch, lanczos, scale):
    if lanczos:
        monkeypatch.setattr(lipschitz, "DENSE_LIMIT", 0)
    factors = scale * torch.linspace(0.1, 1, 200, dtype=torch.float64)
    u = torch.zeros(1, 200, dtype=torch.float64)
    assert theory.contraction_factor(lambda u: factors * u, u) == pytest.approx(scale, rel=1e-6)


def test_inference_mode_and_no_grad_give_no_wrong_zero():
    with torch.inference_mode():
        assert theory.contraction_factor(lambda u: torch.tanh(2 * u), torch.zeros(2, 3)) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="carries no graph although it depends on u"):
        theory.contraction_factor(torch.no_grad()(lambda u: 2 * u), torch.zeros(2, 3))


def test_measuring_leaves_a_module_as_it_was():
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 2, 3, padding=1), torch.nn.BatchNorm2d(2))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    theory.contraction_factor(net, torch.randn(3, 2, 4, 4))
    theory.lipschitz_estimate(net, torch.randn(3, 2, 4, 4))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training


def test_autocast_does_not_blur_the_measurement():
    W = 0.9 * torch.eye(8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert theory.contraction_factor(lambda u: u @ W, torch.randn(1, 8)) == pytest.approx(0.9, rel=1e-6)


def test_a_lipschitz_estimate_never_hides_what_it_cannot_see():
    with pytest.raises(FloatingPointError, match="T is not finite"):
        theory.lipschitz_estimate(lambda u: u / 0, torch.ones(1, 3))
    with pytest.raises(ValueError, match="drowns in the rounding"):
        theory.lipschitz_estimate(lambda u: 5 * u, torch.full((1, 1000), 1e5))
    with pytest.raises(ValueError, match="at least one number"):
        theory.lipschitz_estimate(lambda u: u, torch.zeros(0, 3))


def test_antieigenvalue_of_a_matrix_that_lacks_rank():
    for seed in range(4):
        M = torch.randn(30, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        M[:, 5] = M[:, 0] + M[:, 1]
        with pytest.raises(ValueError, match="must be positive definite"):
            theory.antieigenvalue(M.T @ M)
    with pytest.raises(TypeError, match="float32 or float64"):
        theory.antieigenvalue(torch.eye(2, dtype=torch.int64))


class Once(torch.autograd.Function):
    """The identity, the backward pass of which leaves no graph."""

    @staticmethod
    def forward(ctx, u):
        return u.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return g


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("rest", [0.0, 0.3])
def test_lanczos_refuses_a_map_that_can_be_differentiated_twice_in_parts_only(monkeypatch, dtype, rest):
    def T(u):
        return 0.6 * Once.apply(u) + rest * u

    u = torch.zeros(2, 50, dtype=dtype)
    assert theory.contraction_factor(T, u) == pytest.approx(0.6 + rest, rel=1e-2)
    monkeypatch.setattr(lipschitz, "DENSE_LIMIT", 0)
    with pytest.raises(TypeError, match=r"cannot be differentiated in all its parts.*once_differentiable"):
        theory.contraction_factor(T, u)
    with pytest.raises(TypeError, match=r"cannot be differentiated.*once_differentiable"):
        theory.contraction_factor(Once.apply, u)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", ["random", "orthogonal", "rank one", "strongly non-normal"])
def test_lanczos_refuses_no_map_for_its_rounding(monkeypatch, kind, dtype):
    monkeypatch.setattr(lipschitz, "DENSE_LIMIT", 0)
    A = matrix(kind).to(dtype)
    found = theory.contraction_factor(lambda u: u @ A.T, torch.zeros(3, DIMENSION, dtype=dtype))
    assert found == pytest.approx(torch.linalg.svdvals(A.double())[0].item(), rel=2e-2)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0, True, "1", None])
def test_settings_that_are_no_positive_numbers(value):
    u = torch.zeros(1, 3)
    for call in (
        lambda: theory.contraction_factor(torch.tanh, u, tol=value),
        lambda: theory.lipschitz_estimate(torch.tanh, u, radius=value),
    ):
        with pytest.raises((TypeError, ValueError), match=r"(tol|radius) must be"):
            call()


def test_a_tolerance_of_one_would_accept_anything():
    with pytest.raises(ValueError, match="tol must be positive and below 1, got 5"):
        theory.contraction_factor(torch.tanh, torch.zeros(1, 3), tol=5)
    assert theory.contraction_factor(torch.tanh, torch.zeros(1, 3), tol=cast(Any, np.float32(1e-3))) == 1


def test_an_estimate_refuses_a_map_to_another_space():
    with pytest.raises(ValueError, match="T must keep the shape of u"):
        theory.lipschitz_estimate(lambda x: 0.5 * x[:1], torch.zeros(4, 3))


def test_an_estimate_copies_what_T_returns_in_the_same_memory():
    buffer = torch.empty(4, 3, dtype=torch.float64)

    def T(x):
        buffer.copy_(0.5 * x)
        return buffer

    assert theory.lipschitz_estimate(T, torch.zeros(4, 3, dtype=torch.float64)) == pytest.approx(0.5)


@pytest.mark.parametrize("lanczos", [False, True])
def test_a_periodic_map_without_a_graph_is_no_constant(monkeypatch, lanczos):
    if lanczos:
        monkeypatch.setattr(lipschitz, "DENSE_LIMIT", 0)
    u = torch.zeros(1, DIMENSION)
    with pytest.raises(ValueError, match=r"T\(u\) carries no graph although it depends on u"):
        theory.contraction_factor(torch.no_grad()(lambda x: x - x.round()), u)


@pytest.mark.parametrize("lanczos", [False, True])
@pytest.mark.parametrize(
    ("scale", "dtype"), [(1e-200, torch.float64), (1e200, torch.float64), (1e-30, torch.float32), (1e30, torch.float32)]
)
def test_a_jacobian_whose_squares_are_no_numbers(monkeypatch, lanczos, scale, dtype):
    if lanczos:
        monkeypatch.setattr(lipschitz, "DENSE_LIMIT", 0)
    W = matrix("random").to(dtype)
    factor = theory.contraction_factor(lambda x: scale * (x @ W.T), torch.zeros(1, DIMENSION, dtype=dtype))
    assert factor == pytest.approx(scale * torch.linalg.svdvals(W.double())[0].item(), rel=1e-5, abs=0)


@pytest.mark.parametrize("T", [torch.floor, torch.round, torch.sign])
@pytest.mark.parametrize("lanczos", [False, True])
def test_a_derivative_of_zero_without_a_graph_is_zero(monkeypatch, T, lanczos):
    if lanczos:
        monkeypatch.setattr(lipschitz, "DENSE_LIMIT", 0)
    assert theory.contraction_factor(T, torch.ones(1, DIMENSION)) == 0


@pytest.mark.parametrize("change", [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr, lambda G: G.to("meta")])
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_antieigenvalue_asks_for_a_dense_matrix_with_numbers(change):
    with pytest.raises(TypeError, match=r"G must be a dense tensor with numbers, got .*; write G.to_dense\(\)"):
        theory.antieigenvalue(change(torch.eye(3)))
