"""The exact criterion for descent, against descent_check, a dense oracle of this file's own, and random losses; and ρ and the penalty."""

import math

import pytest
import torch
from test_directions import affine, conv_network, linear_loss, tanh_network
from torch import nn

from jfb_tutorial import ImplicitNetwork, theory


def dense(network, d):
    """K from the derivatives of the fixed point itself, and the gradient map: all by finite graphs, none by the package."""
    with torch.no_grad():
        u = torch.zeros_like(network.Q(d))
        for _ in range(3000):
            u = network.R(u, network.Q(d))
    names = list(dict(network.named_parameters()))
    values = tuple(network.parameters())

    def T(u, *theta):
        parameters = dict(zip(names, theta, strict=True))
        parts = [{k[2:]: v for k, v in parameters.items() if k[0] == part} for part in "QR"]
        q = torch.func.functional_call(network.Q, parts[0], (d,)) if parts[0] else network.Q(d)
        return torch.func.functional_call(network.R, parts[1], (u, q)) if parts[1] else network.R(u, q)

    def S(u, *theta):
        own = {k[2:]: v for k, v in zip(names, theta, strict=True) if k[0] == "S"}
        return torch.func.functional_call(network.S, own, (u,)) if own else network.S(u)

    jacobian = torch.autograd.functional.jacobian
    n = u.numel()
    rows = lambda parts, m: torch.cat([part.reshape(m, -1) for part in parts], 1)  # noqa: E731
    J = jacobian(lambda x: T(x, *values), u).reshape(n, n)
    outputs = S(u, *values).numel()
    B = jacobian(lambda x: S(x, *values), u).reshape(outputs, n)
    of_T = rows(jacobian(lambda *theta: T(u, *theta), values), n)
    of_S = rows(jacobian(lambda *theta: S(u, *theta), values), outputs)
    exact = B @ torch.linalg.inv(torch.eye(n).to(J) - J) @ of_T + of_S  # (outputs, p): a ↦ a @ exact is the gradient
    jfb = B @ of_T + of_S
    return exact @ jfb.T, exact, jfb


def random_network(seed, *, gamma=0.9, bias=True):
    torch.manual_seed(seed)
    S = nn.Linear(6, 3, bias=bias) if seed % 3 else nn.Identity()
    return tanh_network(gamma, seed, S).double()


@pytest.mark.parametrize("batch", [1, 3])
def test_K_is_what_a_dense_oracle_says(batch):
    for seed in range(6):
        network, d = random_network(seed), torch.randn(batch, 3, dtype=torch.float64)
        K = dense(network, d)[0]
        assert torch.allclose(theory.criterion(network, d).K, K, rtol=0, atol=1e-10 * K.abs().max().item())
    network, d = conv_network().double(), torch.randn(batch, 2, 3, 3, dtype=torch.float64)
    K = dense(network, d)[0]
    assert torch.allclose(theory.criterion(network, d).K, K, rtol=0, atol=1e-10 * K.abs().max().item())


def test_the_identity_against_descent_check_on_a_thousand_networks():
    worst = 0.0
    for seed in range(1000):
        network, d = random_network(seed, gamma=0.3), torch.randn(1, 3, dtype=torch.float64)
        a = torch.randn(network(d).shape, dtype=torch.float64)
        checked = theory.descent_check(network, d, a, linear_loss)
        K = theory.criterion(network, d).K
        scale = (checked.gradient.norm() * checked.p.norm()).item()
        worst = max(worst, abs(-(a.flatten() @ K @ a.flatten()).item() - checked.inner_product) / scale)
    assert worst < 1e-10


def hard_case(seed, outputs):
    """Affine, with a norm above 1, an ill-conditioned M and few outputs: about half of them are certified."""
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    A *= 0.95 / torch.linalg.eigvals(A).abs().max()
    B = (
        torch.randn(6, 8, generator=generator, dtype=torch.float64)
        * torch.logspace(0, 1, 6, dtype=torch.float64)[:, None]
    )
    S = nn.Linear(6, outputs, bias=False).double()
    for parameter in S.parameters():
        parameter.data = torch.randn(outputs, 6, generator=generator, dtype=torch.float64)
        parameter.requires_grad_(False)
    network = affine(A, B)
    network.S = Fixed(S.weight.data)
    return network


class Fixed(nn.Module):
    """A head without parameters."""

    def __init__(self, weight):
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, u):
        return u @ self.weight.T


def test_where_it_holds_ten_thousand_losses_descend_and_where_it_fails_one_ascends():
    held, failed, losses = 0, 0, 0
    d = torch.zeros(1, 6, dtype=torch.float64)
    for seed in range(60):
        network = hard_case(seed, outputs=2)
        result = theory.criterion(network, d)
        _, exact, jfb = dense(network, d)
        if result.holds:
            a = torch.randn(1000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            assert bool((((a @ exact) * (a @ jfb)).sum(1) > 0).all())
            held, losses = held + 1, losses + 1000
        else:
            a = torch.linalg.eigh(result.K + result.K.T)[1][:, 0]
            checked = theory.descent_check(network, d, a[None], linear_loss)
            assert checked.inner_product > 0
            failed += 1
    assert min(held, failed) >= 10
    assert losses >= 10_000


def test_losses_without_a_gradient_are_left_out():
    # a head of three outputs that see two latents: the third adds nothing
    network = hard_case(0, outputs=2)
    network.R.A *= 0.1
    doubled = ImplicitNetwork(network.Q, network.R, Fixed(torch.cat([network.S.weight, network.S.weight[:1]])))
    d = torch.zeros(1, 6, dtype=torch.float64)
    two, three = theory.criterion(network, d), theory.criterion(doubled, d)
    assert two.holds
    assert three.holds


def test_a_loss_without_a_gradient_that_moves_the_weights_spoils_the_others():
    # θ moves u₂ by J alone: the loss u₁ − u₂ has no gradient where J cancels it, and a p that is not zero
    A = [[0.0, 0.0], [1.0, 0.0]]
    network = affine(A, [[1.0], [0.0]])
    d = torch.zeros(1, 2, dtype=torch.float64)
    _, exact, jfb = dense(network, d)
    silent = torch.tensor([1.0, -1.0], dtype=torch.float64)
    assert (silent @ exact).norm() < 1e-12
    assert (silent @ jfb).norm() > 0.5
    assert not theory.criterion(network, d).holds
    assert theory.descent_check(network, d, torch.tensor([[-1.0, 3.0]]), linear_loss).inner_product > 0


def swap(g):
    return affine([[0.0, 0.9], [0.9, 0.0]], [[g**0.5, 0.0], [0.0, 1.0]])


def test_zero_is_no_certificate_and_no_ascent():
    d = torch.zeros(1, 2, dtype=torch.float64)
    # Z = (1, 2), and K = −0.8g + 2.2 is 0 at g = 2.75: p is at a right angle to the gradient, and rounding must not decide
    network = swap(2.75)
    for scale in (1e-6, 1.0, 1e6):
        for turn in (-1.0, 1.0):
            network.S = Fixed(turn * scale * torch.tensor([[-0.8, 1.1]], dtype=torch.float64))
            result = theory.criterion(network, d)
            assert result.smallest == 0
            assert not result.holds
            assert "no certificate" in repr(result)
    for g, holds in ((2.74, True), (2.76, False)):
        network = swap(g)
        network.S = Fixed(torch.tensor([[-0.8, 1.1]], dtype=torch.float64))
        assert theory.criterion(network, d).holds is holds
    # K antisymmetric: p is at a right angle to every gradient
    result = theory.criterion(affine([[1.0, -1.0], [1.0, 1.0]], torch.eye(2).tolist()), d)
    assert result.smallest == 0
    assert not result.holds
    # a loss without a gradient that is coupled ever so weakly: never a certificate
    for weak in (1e-3, 1e-6, 1e-9):
        assert not theory.criterion(affine([[0.0, 0.0], [weak, 0.0]], [[1.0], [0.0]]), d).holds


def test_outputs_that_do_not_see_the_latent_have_no_gradient():
    network, d = swap(1.0), torch.zeros(1, 2, dtype=torch.float64)
    network.S = Fixed(torch.zeros(3, 2, dtype=torch.float64))
    nothing = theory.criterion(network, d)
    assert math.isnan(nothing.smallest)
    assert not nothing.holds
    assert "no loss has a gradient" in repr(nothing)
    network.S = Fixed(torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64))
    assert theory.criterion(network, d).holds


class Unit(nn.Module):
    """tanh(0.9u + q) with a trained 0.9."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.9, dtype=torch.float64))

    def forward(self, u, q):
        return torch.tanh(self.w * u + q)


def test_a_batch_loses_what_each_of_its_samples_has():
    # one unit in one layer, certified sample by sample; at the second input its slope is a tenth of the first's
    Q = nn.Linear(1, 1).double()
    with torch.no_grad():
        Q.weight.fill_(10.0)
        Q.bias.zero_()
    network = ImplicitNetwork(Q, Unit(), nn.Identity())
    d = torch.tensor([[0.0], [0.09646]], dtype=torch.float64)
    assert all(theory.criterion(network, sample[None]).holds for sample in d)
    both = theory.criterion(network, d)
    assert not both.holds
    # the loss u₁ − 20u₂, u₁ of the first sample and u₂ of the second
    a = torch.tensor([1.0, -20.0], dtype=torch.float64)
    assert -(a @ both.K @ a).item() == pytest.approx(3.81, rel=1e-2)


def test_criterion_leaves_the_network_alone_and_refuses_what_it_cannot_measure():
    network, d = tanh_network(), torch.randn(2, 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert "every loss" in repr(theory.criterion(network, d)) or "ascends" in repr(theory.criterion(network, d))
    assert network.training
    assert all(p.dtype == torch.float32 and p.grad is None for p in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    with pytest.raises(TypeError, match="network must be an ImplicitNetwork"):
        theory.criterion(nn.Linear(2, 2), d)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one sample"):
        theory.criterion(network, d[:0])
    with pytest.raises(RuntimeError, match="no fixed point"):
        theory.criterion(affine([[1.0]], [[1.0]]), torch.ones(1, 1, dtype=torch.float64))


class Gives(nn.Module):
    """A head that gives what it is told to."""

    def __init__(self, give):
        super().__init__()
        self.give = give

    def forward(self, u):
        return self.give(u)


def test_criterion_refuses_a_head_without_outputs():
    d = torch.zeros(1, 2, dtype=torch.float64)
    for give, shape in ((lambda u: u[:, :0], "(1, 0)"), (lambda u: u.new_zeros(0), "(0,)")):
        network = swap(1.0)
        network.S = Gives(give)
        with pytest.raises(ValueError, match=r"network\.S must return at least one number") as refused:
            theory.criterion(network, d)
        assert shape in str(refused.value)
        assert "nn.Linear(n, 1)" in str(refused.value)
    network.S = Gives(lambda u: (u, u))
    with pytest.raises(TypeError, match=r"network\.S must return one tensor, got tuple; pick the output"):
        theory.criterion(network, d)
    # one output is enough
    network.S = Gives(lambda u: u.sum())
    assert theory.criterion(network, d).K.shape == (1, 1)


# the spectral radius


@pytest.mark.parametrize("n", [1, 5, 40])
def test_spectral_radius_of_matrices(n):
    torch.manual_seed(n)
    A = torch.randn(n, n, dtype=torch.float64)
    expected = torch.linalg.eigvals(A).abs().max().item()
    u = torch.zeros(1, n, dtype=torch.float64)
    assert theory.spectral_radius(lambda u: u @ A.T, u) == pytest.approx(expected, rel=1e-10)
    assert theory.spectral_radius(lambda u: u @ A.T, u, tol=1e-3) == pytest.approx(expected, rel=2e-3)
    assert theory.spectral_radius(lambda u: u @ A.T, u) <= theory.contraction_factor(lambda u: u @ A.T, u) + 1e-12


def test_spectral_radius_beyond_the_dense_limit():
    scale = torch.linspace(0.1, 0.7, 5000, dtype=torch.float64)
    scale[-1] = -0.9
    u = torch.zeros(1, 5000, dtype=torch.float64)
    assert theory.spectral_radius(lambda u: scale * u, u) == pytest.approx(0.9, rel=1e-4)
    # a complex pair, in single precision
    A = torch.tensor([[0.6, -0.6], [0.6, 0.6]])

    def turned(u):
        return torch.cat([u[:, :2] @ A.T, 0.5 * u[:, 2:]], 1)

    assert theory.spectral_radius(turned, u.float()) == pytest.approx(0.6 * math.sqrt(2), rel=1e-3)
    assert theory.spectral_radius(torch.ones_like, u) == 0


def test_spectral_radius_of_a_batch_and_of_what_is_not_finite():
    u = torch.tensor([[0.1], [0.5]], dtype=torch.float64)
    assert theory.spectral_radius(lambda u: u**2, u) == pytest.approx(1.0)
    with pytest.raises(FloatingPointError, match="not finite"):
        theory.spectral_radius(lambda u: u.sqrt(), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="tol"):
        theory.spectral_radius(lambda u: u, u, tol=0)


# the penalty


def test_the_penalty_is_the_mean_square_of_the_jacobian_and_its_gradient_lowers_it():
    torch.manual_seed(0)
    A = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    u = torch.zeros(3, 4, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    penalty = theory.jacobian_penalty(lambda u: u @ A.T, u, samples=4000, generator=generator)
    assert penalty.item() == pytest.approx((A.square().sum() / 4).item(), rel=0.02)
    penalty.backward()
    assert A.grad is not None
    assert torch.allclose(A.grad, A.detach() / 2, atol=0.1)
    assert u.grad is None
    assert theory.jacobian_penalty(torch.ones_like, u).item() == 0


def test_the_penalty_by_hand_with_one_direction():
    A = torch.randn(2, 2, dtype=torch.float64)
    u = torch.randn(1, 2, dtype=torch.float64)
    epsilon = torch.randn((1, 2), generator=torch.Generator().manual_seed(5)).double()
    J = torch.diag(1 - torch.tanh(u @ A.T)[0] ** 2) @ A
    expected = (epsilon @ J).square().sum() / 2
    found = theory.jacobian_penalty(lambda u: torch.tanh(u @ A.T), u, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(found, expected)
    with pytest.raises(ValueError, match="samples"):
        theory.jacobian_penalty(lambda u: u, u, samples=0)
    with pytest.raises(TypeError, match="floating-point"):
        theory.jacobian_penalty(lambda u: u, torch.zeros(1, 2, dtype=torch.int64))
