"""Theorem 3.1 of JFB and its edges: descent_check and phantom_check against definitions, by random trials and by counterexample."""

import math

import pytest
import torch
from problems import Block, Layer
from torch import nn

from jfb_tutorial import theory
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, NeumannSeries, UnrolledPhantom
from jfb_tutorial.network import ImplicitNetwork

RULES = [JFB(), NeumannSeries(4), NeumannSeries(3, 0.5), UnrolledPhantom(4, 0.7), ImplicitDifferentiation(tol=1e-12)]


class Affine(nn.Module):
    """T(u; θ) = A u + B θ, whose conditioning and contraction factor are what one likes."""

    A: torch.Tensor
    B: torch.Tensor

    def __init__(self, A, B, theta=None):
        super().__init__()
        self.register_buffer("A", torch.as_tensor(A, dtype=torch.float64))
        self.register_buffer("B", torch.as_tensor(B, dtype=torch.float64))
        self.theta = nn.Parameter(torch.zeros(self.B.shape[1], dtype=torch.float64))

    def forward(self, u, q):
        return u @ self.A.T + self.theta @ self.B.T + q


def affine(A, B):
    return ImplicitNetwork(nn.Identity(), Affine(A, B), nn.Identity())


def linear_loss(prediction, c):
    return (prediction * c).sum()


def conv_network():
    torch.manual_seed(0)
    R = Block(nn.GroupNorm(2, 4))
    R.scale = 0.5
    return ImplicitNetwork(nn.Conv2d(2, 4, 3, padding=1), R, nn.Sequential(nn.Flatten(), nn.Linear(36, 3)))


def tanh_network(gamma=0.5, seed=0, S=None):
    torch.manual_seed(seed)
    R = Layer(6)
    with torch.no_grad():
        R.linear.weight *= gamma / torch.linalg.matrix_norm(R.linear.weight, 2)
    return ImplicitNetwork(nn.Linear(3, 6), R, nn.Linear(6, 4) if S is None else S)


CASES = {
    "tanh": (tanh_network, (1, 3)),
    "conv": (conv_network, (1, 2, 3, 3)),
}


@pytest.fixture(params=CASES)
def case(request):
    make, shape = CASES[request.param]
    network = make()
    torch.manual_seed(5)
    return network, torch.randn(shape), torch.tensor([1])


def pieces(network, d, y, loss):
    """(17) and its neighbours in the paper's layout, from definitions, in float64."""
    network = network.double().eval()
    d = d.double()
    u = torch.zeros_like(network.Q(d))
    for _ in range(2000):
        u = network.R(u, network.Q(d)).detach()
    T_parameters = [*network.Q.parameters(), *network.R.parameters()]
    S_parameters = list(network.S.parameters())

    def rows(function, theta):
        value = function()
        flat = []
        for row in torch.eye(value.numel(), dtype=torch.float64):
            parts = torch.autograd.grad(
                value, theta, row.reshape(value.shape), retain_graph=True, allow_unused=True, materialize_grads=True
            )
            flat.append(torch.cat([part.flatten() for part in parts]))
        return torch.stack(flat).T

    M_T = rows(lambda: network.R(u, network.Q(d)), T_parameters)
    M_S = rows(lambda: network.S(u), S_parameters)
    J = torch.autograd.functional.jacobian(lambda v: network.R(v, network.Q(d)), u).reshape(u.numel(), u.numel())
    prediction = network.S(u)
    c = torch.autograd.functional.jacobian(lambda z: loss(z, y), prediction).flatten()
    dS = torch.autograd.functional.jacobian(network.S, u).reshape(prediction.numel(), u.numel())
    return M_T, M_S, J, dS, c


def test_descent_check_is_what_the_definitions_say(case):
    network, d, y = case
    loss = nn.functional.cross_entropy
    found = theory.descent_check(network, d, y, loss)
    M_T, M_S, J, dS, c = pieces(network, d, y, loss)
    n = len(J)
    g = dS.T @ c
    w = torch.linalg.solve((torch.eye(n, dtype=torch.float64) - J).T, g)
    gradient, p = torch.cat([M_T @ w, M_S @ c]), -torch.cat([M_T @ g, M_S @ c])
    torch.testing.assert_close(found.gradient, gradient, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.p, p, rtol=1e-9, atol=1e-12)
    assert found.inner_product == pytest.approx((gradient @ p).item())
    assert found.cosine == pytest.approx(-(gradient @ p / gradient.norm() / p.norm()).item())
    assert found.gamma == pytest.approx(torch.linalg.svdvals(J)[0].item())
    M = torch.block_diag(M_T, M_S)
    values = torch.linalg.eigvalsh(M.T @ M)
    assert found.kappa == pytest.approx((values[-1] / values[0]).item(), rel=1e-6)
    values_T = torch.linalg.eigvalsh(M_T.T @ M_T)
    assert found.kappa_T == pytest.approx((values_T[-1] / values_T[0]).item(), rel=1e-6)
    bound = -(1 / values[-1] - found.gamma / values[0]) * (M.T @ gradient).norm() ** 2
    assert found.bound == pytest.approx(bound.item(), rel=1e-6)
    assert found.assumption_holds == (found.kappa < 1 / found.gamma)
    antieigenvalue = theory.antieigenvalue(M_T.T @ M_T)
    assert found.sharp_holds == (found.gamma < antieigenvalue)


def test_descent_check_leaves_the_network_alone():
    network = tanh_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    theory.descent_check(network, torch.randn(1, 3), torch.tensor([0]), nn.functional.cross_entropy)
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.last is None
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.dtype == before[name].dtype


def test_descent_check_measures_in_eval_mode():
    torch.manual_seed(0)
    network = tanh_network()
    network.Q = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.5)).train()
    network.Q[1].running_mean += 0.3
    d, y = torch.randn(1, 3), torch.tensor([1])
    found = theory.descent_check(network, d, y, nn.functional.cross_entropy)
    evaluated = theory.descent_check(network.eval(), d, y, nn.functional.cross_entropy)
    assert torch.equal(found.gradient, evaluated.gradient)
    M_T, _, J, dS, c = pieces(network, d, y, nn.functional.cross_entropy)
    w = torch.linalg.solve((torch.eye(6, dtype=torch.float64) - J).T, dS.T @ c)
    torch.testing.assert_close(found.gradient[: len(M_T)], M_T @ w, rtol=1e-9, atol=1e-12)


def test_the_exact_gradient_of_the_check_is_that_of_the_exact_rule(case):
    network, d, y = case
    found = theory.descent_check(network, d, y, nn.functional.cross_entropy)
    exact = network.double().eval()
    exact.solver = type(exact.solver)(tol=1e-13, max_steps=3000)
    for rule, expected in ((ImplicitDifferentiation(tol=1e-12), found.gradient), (JFB(), -found.p)):
        exact.gradient = rule
        parts = torch.autograd.grad(nn.functional.cross_entropy(exact(d.double()), y), list(exact.parameters()))
        torch.testing.assert_close(torch.cat([p.flatten() for p in parts]), expected, rtol=1e-8, atol=1e-10)


# Theorem 3.1 by random trials; the instances are adversarial: Jacobians at the edge, adjoints along antieigenvectors


def trials(count, kappa, gamma, seed, n=5, c=0, worst=0.5):
    """Batches of M `(count, p, n + c)`, J `(count, n, n)`, z `(count, n + c)` with κ(MᵀM) and ‖J‖ as asked, both `(count,)`."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def spread(size):
        logs = torch.rand(count, size, generator=generator, dtype=torch.float64)
        logs[:, 0], logs[:, -1] = 0, 1
        return kappa[:, None] ** (logs / 2)

    p = n + c + 3
    left = torch.linalg.qr(normal(count, p, n + c))[0]
    right = torch.linalg.qr(normal(count, n + c, n + c))[0]
    if c:  # block diagonal: the T columns see their rows, the S columns theirs
        rows = torch.zeros(p, n + c, dtype=torch.float64)
        rows[: n + 2, :n] = 1
        rows[n + 2 :, n:] = 1
        T = torch.linalg.qr(normal(count, n + 2, n))[0] * spread(n)[:, None] @ torch.linalg.qr(normal(count, n, n))[0]
        S = torch.linalg.qr(normal(count, c + 1, c))[0] * spread(c)[:, None] @ torch.linalg.qr(normal(count, c, c))[0]
        M = torch.zeros(count, n + c + 3, n + c, dtype=torch.float64)
        M[:, : n + 2, :n], M[:, n + 2 :, n:] = T, S
    else:
        M = left * spread(n)[:, None] @ right
    G = M.mT @ M
    z = normal(count, n + c)
    G_T, z_T = G[:, :n, :n], z[:, :n]
    values, vectors = torch.linalg.eigh(G_T)
    anti = vectors[:, :, 0] / values[:, :1].sqrt() + vectors[:, :, -1] / values[:, -1:].sqrt()
    picked = torch.rand(count, 1, generator=generator) < worst
    z_T = torch.where(picked, anti, z_T)
    z = torch.cat([z_T, z[:, n:] * torch.rand(count, 1, generator=generator, dtype=torch.float64)], dim=1)
    # J orthogonal times γ; for the picked ones with J z along G z, the worst there is
    J = gamma[:, None, None] * torch.linalg.qr(normal(count, n, n))[0]
    a = z_T / z_T.norm(dim=1, keepdim=True)
    b = (G_T @ z_T[:, :, None])[:, :, 0]
    b = b / b.norm(dim=1, keepdim=True)
    turn = householder(a, b) * gamma[:, None, None]
    J = torch.where(picked[:, :, None], turn, J)
    return M, J, z


def householder(a, b):
    """Orthogonal matrices that take the unit vectors a to b."""
    v = a - b
    size = (v * v).sum(dim=1)[:, None, None]
    identity = torch.eye(a.shape[1], dtype=a.dtype).expand(len(a), -1, -1)
    return identity - torch.where(size > 1e-24, 2 / size.clamp(min=1e-24), 0.0) * v[:, :, None] * v[:, None, :]


def inner_and_bound(M, J, z, gamma):
    """⟨gradient, p⟩ and the corrected (60), for z = 𝒥⁻¹v."""
    n = J.shape[1]
    v = z.clone()
    v[:, :n] -= (J @ z[:, :n, None])[:, :, 0]
    gradient, p = (M @ z[:, :, None])[:, :, 0], -(M @ v[:, :, None])[:, :, 0]
    values = torch.linalg.eigvalsh(M.mT @ M)
    w = (M.mT @ gradient[:, :, None])[:, :, 0]
    bound = -(1 / values[:, -1] - gamma / values[:, 0]) * (w * w).sum(dim=1)
    return (gradient * p).sum(dim=1), bound


COUNT = 10_000


@pytest.mark.parametrize("c", [0, 3])
def test_theorem_3_1_in_ten_thousand_trials(c):
    generator = torch.Generator().manual_seed(c)
    gamma = torch.rand(COUNT, generator=generator, dtype=torch.float64) * 0.98 + 0.01
    # κ up to all but a hair of 1/γ
    kappa = 1 + (1 / gamma - 1) * (1 - 1e-6 * torch.rand(COUNT, generator=generator, dtype=torch.float64))
    kappa = torch.where(torch.rand(COUNT, generator=generator) < 0.5, kappa, 1 + (kappa - 1) / 2)
    M, J, z = trials(COUNT, kappa, gamma, seed=10 + c, c=c)
    inner, bound = inner_and_bound(M, J, z, gamma)
    assert (inner < 0).sum() == COUNT
    assert (inner <= bound + 1e-9 * bound.abs().clamp(min=1)).sum() == COUNT


@pytest.mark.parametrize("c", [0, 3])
def test_the_sharp_condition_in_ten_thousand_trials(c):
    generator = torch.Generator().manual_seed(20 + c)
    kappa = 100 ** torch.rand(COUNT, generator=generator, dtype=torch.float64)
    edge = 2 * kappa.sqrt() / (1 + kappa)
    gamma = (edge * (1 - 1e-6)).clamp(max=0.999)
    M, J, z = trials(COUNT, kappa, gamma, seed=30 + c, c=c)
    values = torch.linalg.eigvalsh(M[:, :, :5].mT @ M[:, :, :5])
    kappa_T = values[:, -1] / values[:, 0]
    assert (gamma < 2 * kappa_T.sqrt() / (1 + kappa_T)).all()
    inner, _ = inner_and_bound(M, J, z, gamma)
    assert (inner < 0).sum() == COUNT


def test_beyond_the_sharp_condition_a_search_finds_ascent():
    generator = torch.Generator().manual_seed(40)
    kappa = 2 + 98 * torch.rand(COUNT, generator=generator, dtype=torch.float64)
    gamma = 2 * kappa.sqrt() / (1 + kappa) * (1 + 1e-6)
    M, J, z = trials(COUNT, kappa, gamma, seed=50, worst=1.0)
    inner, _ = inner_and_bound(M, J, z, gamma)
    assert (inner > 0).sum() == COUNT
    # and without knowing where to look, at twice the distance from the edge
    kappa = torch.full((COUNT,), 9.0, dtype=torch.float64)
    gamma = torch.full((COUNT,), 0.99, dtype=torch.float64)
    M, J, z = trials(COUNT, kappa, gamma, seed=60, n=2, worst=0.0)
    inner, _ = inner_and_bound(M, J, z, gamma)
    assert (inner > 0).sum() > 10


def test_descent_check_on_networks_that_satisfy_the_hypotheses_and_on_ones_that_do_not():
    seen = {True: 0, False: 0}
    for seed in range(60):
        torch.manual_seed(seed)
        gamma = 0.05 + 0.9 * torch.rand(()).item()
        A = torch.linalg.qr(torch.randn(3, 3).double())[0] * gamma
        kappa = 1 + 2 * (1 / gamma - 1) * torch.rand(()).item()
        B = torch.linalg.qr(torch.randn(3, 3).double())[0] * torch.tensor([1.0, kappa**0.25, kappa**0.5]).double()
        found = theory.descent_check(affine(A, B), torch.randn(1, 3), torch.randn(1, 3), linear_loss)
        assert found.gamma == pytest.approx(gamma)
        assert found.kappa == pytest.approx(kappa) == pytest.approx(found.kappa_T)
        seen[found.assumption_holds] += 1
        assert found.inner_product <= found.bound + 1e-9 * abs(found.bound)
        if found.assumption_holds:
            assert found.sharp_holds
            assert found.bound < 0
        if found.sharp_holds:
            assert found.inner_product < 0
    assert min(seen.values()) > 10


# The counterexamples, by name


def test_counterexample_in_two_dimensions():
    found = theory.descent_check(
        affine([[0, 0.9], [0.9, 0]], [[2, 0], [0, 1]]), torch.zeros(1, 2), torch.tensor([[-0.8, 1.1]]), linear_loss
    )
    torch.testing.assert_close(found.gradient, torch.tensor([2.0, 2.0]).double())
    torch.testing.assert_close(found.p, torch.tensor([1.6, -1.1]).double(), atol=1e-6, rtol=0)
    assert found.inner_product == pytest.approx(1.0)
    assert (found.gamma, found.kappa, found.kappa_T) == (pytest.approx(0.9), pytest.approx(4), pytest.approx(4))
    assert not found.assumption_holds
    assert not found.sharp_holds


def test_counterexample_spectral_radius_below_one():
    A = torch.tensor([[0.5, 10.0], [0.0, 0.5]])
    inner = [
        theory.descent_check(
            affine(A, torch.eye(2)), torch.zeros(1, 2), torch.tensor([[math.cos(t), math.sin(t)]]), linear_loss
        ).inner_product
        for t in torch.linspace(0, 3.1, 60).tolist()
    ]
    assert torch.linalg.eigvals(A).abs().max() < 1
    assert max(inner) > 0


def test_counterexample_a_batch_of_two():
    """n = 1, T = d u + θ, d = ±0.9, ℓ = u₁ − 2u₂: each sample descends, the batch ascends."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.theta = nn.Parameter(torch.zeros((), dtype=torch.float64))

        def forward(self, u, q):
            return q * u + self.theta

    network = ImplicitNetwork(nn.Identity(), Scaled(), nn.Identity())
    slopes, weights = torch.tensor([[0.9], [-0.9]]), torch.tensor([[1.0], [-2.0]])
    each = [theory.descent_check(network, d[None], c[None], linear_loss) for d, c in zip(slopes, weights, strict=True)]
    assert all(found.inner_product < 0 and found.assumption_holds for found in each)
    gradient, p = each[0].gradient + each[1].gradient, each[0].p + each[1].p
    assert (gradient @ p).item() > 0


def test_60_as_printed_fails_and_as_corrected_holds():
    found = theory.descent_check(
        affine(0.5 * torch.eye(2), torch.eye(2)), torch.zeros(1, 2), torch.tensor([[1.0, 2.0]]), linear_loss
    )
    assert found.inner_product == pytest.approx(found.bound)
    assert not found.inner_product <= 2 * found.bound


# Edges


def test_rank_deficient_M():
    rank_one = theory.descent_check(
        affine(0.1 * torch.eye(2), [[1.0, 1.0], [1.0, 1.0]]), torch.zeros(1, 2), torch.ones(1, 2), linear_loss
    )
    assert rank_one.kappa == rank_one.kappa_T == rank_one.bound == math.inf
    assert not rank_one.assumption_holds
    assert not rank_one.sharp_holds
    too_few = theory.descent_check(
        affine(0.1 * torch.eye(2), [[1.0], [2.0]]), torch.zeros(1, 2), torch.ones(1, 2), linear_loss
    )
    assert too_few.kappa == math.inf
    # the S block alone: u* = 0 gives its weights no gradient
    network = tanh_network(S=nn.Linear(6, 4, bias=False)).double()
    with torch.no_grad():
        for part in (network.Q, network.R.linear):
            part.bias.zero_()
    dead = theory.descent_check(network, torch.zeros(1, 3), torch.tensor([0]), nn.functional.cross_entropy)
    assert dead.kappa == math.inf
    assert not dead.sharp_holds


def test_a_gradient_of_zero():
    found = theory.descent_check(
        affine(0.5 * torch.eye(2), torch.eye(2)), torch.zeros(1, 2), torch.zeros(1, 2), linear_loss
    )
    assert found.inner_product == 0
    assert math.isnan(found.cosine)
    assert found.assumption_holds


def test_gamma_zero_and_equality():
    still = theory.descent_check(
        affine(torch.zeros(2, 2), [[10.0, 0], [0, 1]]), torch.zeros(1, 2), torch.ones(1, 2), linear_loss
    )
    assert still.assumption_holds
    assert still.sharp_holds
    # κ = 1/γ exactly: not strictly below, though the sharp condition holds
    edge = theory.descent_check(
        affine(0.25 * torch.eye(2), [[2.0, 0], [0, 1]]), torch.zeros(1, 2), torch.ones(1, 2), linear_loss
    )
    assert not edge.assumption_holds
    assert edge.sharp_holds
    assert edge.inner_product < 0


BAD = [
    (
        lambda: (tanh_network(), torch.randn(2, 3), torch.tensor([0, 1])),
        ValueError,
        r"d must have batch size 1.*d\[:1\]",
    ),
    (lambda: (nn.Linear(2, 2), torch.randn(1, 2), torch.tensor([0])), TypeError, "network must be an ImplicitNetwork"),
    (lambda: (shared(), torch.randn(1, 6), torch.tensor([0])), ValueError, "S must not share.*Assumption 3.2"),
    (
        lambda: (
            ImplicitNetwork(nn.Identity(), lambda u, q: 0.5 * u + q, nn.Linear(3, 3)),
            torch.randn(1, 3),
            torch.tensor([0]),
        ),
        ValueError,
        "Q and R must have parameters",
    ),
    (
        lambda: (affine(1.5 * torch.eye(3), torch.eye(3)), torch.ones(1, 3), torch.tensor([0])),
        RuntimeError,
        "no fixed point found|singular|not finite",
    ),
]


def shared():
    network = tanh_network(S=nn.Linear(6, 6))
    network.Q = network.S
    return network


@pytest.mark.parametrize(("make", "error", "message"), BAD, ids=[message[:30] for *_, message in BAD])
def test_bad_input(make, error, message):
    network, d, y = make()
    if message.startswith("no fixed point"):
        network.R.theta.data += 1
        network.R.A = torch.tensor(
            [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
        ).double()  # no fixed point with q ≠ 0
    for check in (
        lambda: theory.descent_check(network, d, y, nn.functional.cross_entropy),
        lambda: theory.phantom_check(network, d, y, nn.functional.cross_entropy, JFB()),
    ):
        with pytest.raises(error, match=message):
            check()


def test_rank_is_judged_by_singular_values():
    found = theory.descent_check(
        affine(torch.zeros(2, 2), [[1.0, 0], [0, 1e-8]]), torch.zeros(1, 2), torch.ones(1, 2), linear_loss
    )
    assert found.kappa == pytest.approx(1e16, rel=1e-6)
    assert found.assumption_holds


def test_parameters_that_are_nobodys_get_zeros():
    network = tanh_network()
    network.register_parameter("extra", nn.Parameter(torch.ones(3)))
    found = theory.descent_check(network, torch.randn(1, 3), torch.tensor([0]), nn.functional.cross_entropy)
    assert found.gradient.numel() == sum(p.numel() for p in network.parameters())
    assert (found.gradient[:3] == 0).all() or (found.gradient[-3:] == 0).all()


def test_parameters_behind_a_closure_are_refused():
    network = tanh_network()
    stranger = nn.Linear(6, 6).double()
    tied = ImplicitNetwork(network.Q, network.R, lambda u: u @ network.R.linear.weight.double().T)
    for make, message in (
        (lambda: ImplicitNetwork(network.Q, network.R, lambda u: stranger(u)), "S uses a parameter that the network"),
        (lambda: ImplicitNetwork(network.Q, lambda u, q: 0.1 * stranger(u) + q, network.S), "Q or R uses a parameter"),
        (lambda: tied, "S uses a parameter"),
    ):
        with pytest.raises(ValueError, match=message):
            theory.descent_check(make(), torch.randn(1, 3), torch.tensor([0]), nn.functional.cross_entropy)


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(reduction="none"), lambda p, y: 1.0, lambda p, y: p.detach().sum()]
)
def test_a_loss_that_is_none(loss):
    network = tanh_network()
    if isinstance(loss, nn.Module):  # of one sample it is one number, and fine
        theory.descent_check(network, torch.randn(1, 3), torch.tensor([0]), loss)
        loss = nn.MSELoss(reduction="none")
    with pytest.raises(ValueError, match="loss must return a scalar tensor with a graph"):
        theory.descent_check(network, torch.randn(1, 3), torch.zeros(1, 4), loss)


# Phantom gradient, Theorem 1


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_phantom_check_is_what_the_definitions_say(case, rule):
    network, d, y = case
    loss = nn.functional.cross_entropy
    found = theory.phantom_check(network, d, y, loss, rule)
    M, _, J, dS, c = pieces(network, d, y, loss)
    identity = torch.eye(len(J), dtype=torch.float64)
    F_h, F_theta = J.T, M  # the layout of the paper: (∂a/∂b)ij = ∂aj/∂bi
    if isinstance(rule, ImplicitDifferentiation):
        A = F_theta @ torch.linalg.inv(identity - F_h)
    else:
        k = getattr(rule, "terms", getattr(rule, "steps", 1))
        damping = getattr(rule, "damping", 1.0)
        B = damping * F_h + (1 - damping) * identity
        A = damping * F_theta @ sum(torch.linalg.matrix_power(B, j) for j in range(k))
    dL_dh = dS.T @ c
    sigma = torch.linalg.svdvals(F_theta)
    torch.testing.assert_close(found.phantom, A @ dL_dh, rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(
        found.gradient, F_theta @ torch.linalg.solve(identity - F_h, dL_dh), rtol=1e-7, atol=1e-10
    )
    residual = torch.linalg.matrix_norm(A @ (identity - F_h) - F_theta, 2)
    assert found.residual == pytest.approx(residual.item(), rel=1e-6, abs=1e-9)
    assert found.threshold == pytest.approx((sigma[-1] ** 2 / sigma[0]).item(), rel=1e-6)
    assert found.sigma_min == pytest.approx(sigma[-1].item(), rel=1e-6)
    assert found.holds == (found.residual < found.threshold)
    assert found.sharp_holds == (found.residual < found.sigma_min)
    assert found.inner_product == pytest.approx((found.gradient @ found.phantom).item())
    if found.sharp_holds:
        assert found.inner_product > 0


def test_theorem_1_in_ten_thousand_trials():
    """‖E‖ up to all but a hair of σ_min²/σ_max, then of σ_min; E of full size, the worst of them along the adjoint."""
    generator = torch.Generator().manual_seed(70)
    n, p = 4, 7

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    sigma = 30 ** torch.rand(COUNT, n, generator=generator, dtype=torch.float64)
    M = torch.linalg.qr(normal(COUNT, p, n))[0] * sigma[:, None] @ torch.linalg.qr(normal(COUNT, n, n))[0]
    low, high = sigma.min(dim=1).values, sigma.max(dim=1).values
    w = normal(COUNT, n, 1)
    value, _, right = torch.linalg.svd(M)
    worst = torch.rand(COUNT, 1, 1, generator=generator) < 0.5
    w = torch.where(worst, right[:, -1, :, None], w)
    for edge in (low**2 / high, low):
        E = normal(COUNT, p, n)
        aligned = -(M @ w) / (M @ w).norm(dim=1, keepdim=True) @ (w / w.norm(dim=1, keepdim=True)).mT
        E = torch.where(worst, aligned, E / torch.linalg.matrix_norm(E, 2)[:, None, None])
        E = E * (edge * (1 - 1e-6))[:, None, None]
        inner = ((M + E) @ w * (M @ w)).sum(dim=(1, 2))
        assert (inner > 0).sum() == COUNT
    # at σ_min exactly, E = −σ_min u vᵀ brings the inner product to 0: the condition cannot be weakened
    u_min, v_min = value[:, :, n - 1, None], right[:, -1, :, None]
    E = -low[:, None, None] * u_min @ v_min.mT
    inner = ((M + E) @ v_min * (M @ v_min)).sum(dim=(1, 2))
    assert inner.abs().max() < 1e-10 * high.max() ** 2


def test_a_rule_that_iterates_too_coarsely_is_refused(case):
    network, d, y = case
    with pytest.raises(ValueError, match=r"rule.tol must be at most a tenth of the threshold.*lower it"):
        theory.phantom_check(network, d, y, nn.functional.cross_entropy, ImplicitDifferentiation(tol=0.5))


def test_phantom_check_with_fewer_parameters_than_latents():
    network = affine(0.1 * torch.eye(2), [[1.0], [2.0]])
    found = theory.phantom_check(network, torch.zeros(1, 2), torch.ones(1, 2), linear_loss, JFB())
    assert found.sigma_min == found.threshold == 0
    assert not found.holds


@pytest.mark.parametrize("rule", [JFB, None, "JFB()"])
def test_phantom_check_asks_for_a_rule(rule):
    network = ImplicitNetwork(torch.nn.Linear(2, 2), lambda u, q: 0.5 * u + q, torch.nn.Identity())
    with pytest.raises(TypeError, match=r"rule must be (an object, got the class JFB; write JFB|callable, got)"):
        theory.phantom_check(network, torch.ones(1, 2), torch.ones(1, 2), torch.nn.functional.mse_loss, rule)
