"""Networks of odd make against the exact gradient by dense linear algebra, and what cannot be done said in one sentence."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from jfb_tutorial import JFB, Anderson, Broyden, FixedPointIteration, ImplicitDifferentiation, ImplicitNetwork, Unrolled

N = 6
EXACT = FixedPointIteration(1e-12, 2000)


class Cell(nn.Module):
    """tanh(W u + q)."""

    def __init__(self, scale: float = 0.7) -> None:
        super().__init__()
        W = torch.randn(N, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.W = nn.Parameter(scale * W / torch.linalg.matrix_norm(W, 2))

    def forward(self, u: Tensor, q: Tensor) -> Tensor:
        return torch.tanh(u @ self.W.T + q)


def network(scale: float = 0.7, gradient=ImplicitDifferentiation(tol=1e-11)) -> ImplicitNetwork:  # noqa: B008
    torch.manual_seed(0)
    Q, S = nn.Linear(3, N, dtype=torch.float64), nn.Linear(N, 2, dtype=torch.float64)
    return ImplicitNetwork(Q, Cell(scale), S, solver=EXACT, gradient=gradient)


def data(count: int = 4) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def loss(prediction: Tensor) -> Tensor:
    return (prediction**2).sum()


def exact(model: ImplicitNetwork, d: Tensor) -> list[Tensor]:
    """The gradient of each parameter: (I − J)ᵀ w = g by a dense solve, at a fixed point found by hand."""
    parameters = list(model.parameters())
    q = model.Q(d)
    u = torch.zeros_like(q)
    with torch.no_grad():
        for _ in range(500):
            u = model.R(u, q)
    u.requires_grad_()
    v = model.R(u, q)
    J = torch.autograd.functional.jacobian(lambda x: model.R(x, q.detach()), u.detach()).reshape(u.numel(), u.numel())
    end = v.detach().requires_grad_()
    value = loss(model.S(end))
    (g,) = torch.autograd.grad(value, end, retain_graph=True)
    w = torch.linalg.solve((torch.eye(len(J), dtype=J.dtype) - J).T, g.flatten()).reshape(v.shape)
    direct = torch.autograd.grad(value, parameters, materialize_grads=True, allow_unused=True)
    through = torch.autograd.grad(v, parameters, w, materialize_grads=True, allow_unused=True)
    return [a + b for a, b in zip(direct, through, strict=True)]


def close(found, expected) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


class Halved(nn.Module):
    """A parametrisation that is another one in eval mode."""

    def forward(self, W: Tensor) -> Tensor:
        return W if self.training else W / 2


def hooked(model: ImplicitNetwork) -> None:
    model.R.register_forward_hook(lambda module, inputs, output: output / 2)


def watched(model: ImplicitNetwork) -> None:
    model.R.register_full_backward_hook(lambda module, gradients, outputs: None)


def parametrised(model: ImplicitNetwork) -> None:
    nn.utils.parametrize.register_parametrization(model.R, "W", Halved())
    model.eval()


def tied(model: ImplicitNetwork) -> None:
    model.S = nn.Linear(N, N, bias=False, dtype=torch.float64)
    model.S.weight = model.R.W


def inferred(model: ImplicitNetwork) -> None:
    with torch.inference_mode():
        model(data())


@pytest.mark.parametrize("change", [hooked, watched, parametrised, tied, inferred])
def test_the_gradient_of_an_odd_network(change):
    model = network()
    change(model)
    loss(model(data())).backward()
    close([p.grad for p in model.parameters()], exact(model, data()))


def test_what_happens_between_forward_and_backward():
    model, expected = network(), exact(network(), data())
    value = loss(model(data()))
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    model.R.W.data = model.R.W.data * 0.5  # another tensor: the graph keeps the one that it was made with
    model.solver = FixedPointIteration(max_steps=1)
    value.backward()
    close([p.grad for p in model.parameters()], expected)
    for other in copies:
        loss(other(data())).backward()
        close([p.grad for p in other.parameters()], expected)


def test_the_parameters_of_functional_call_get_the_gradient():
    model, other = network(), network(0.5)
    parameters = {name: p.detach().clone().requires_grad_() for name, p in other.named_parameters()}
    loss(functional_call(model, parameters, (data(),))).backward()
    close([p.grad for p in parameters.values()], exact(other, data()))
    assert all(p.grad is None for p in model.parameters())


def test_several_networks_at_once():
    models = [network(scale, Unrolled(150)) for scale in (0.7, 0.5)]
    parameters, _ = stack_module_state(models)
    base = network(gradient=Unrolled(150))

    d = data()

    def value(own):
        return loss(functional_call(base, own, (d,)))

    found = torch.func.vmap(torch.func.grad(value))(parameters)
    for number, model in enumerate(models):
        close([found[name][number] for name, _ in model.named_parameters()], exact(model, data()))
    base.gradient = JFB()
    with pytest.raises(RuntimeError, match=r"a solver cannot run inside vmap.*the rule Unrolled"):
        torch.func.vmap(torch.func.grad(value))(parameters)


def test_several_gradients_at_once():
    model = network()
    with pytest.raises(RuntimeError, match=r"takes one gradient at a time.*use Unrolled"):
        torch.autograd.functional.jacobian(model, data(), vectorize=True)
    one_by_one = torch.autograd.functional.jacobian(model, data())
    model.gradient = Unrolled(150)
    torch.testing.assert_close(one_by_one, torch.autograd.functional.jacobian(model, data(), vectorize=True))


@pytest.mark.parametrize("solver", [FixedPointIteration, Anderson, Broyden])
def test_parts_of_no_size_and_samples_of_one_number(solver):
    def Q(d):
        return d, d[:, :0], d[:, 0]

    def R(u, q):
        return tuple(0.5 * torch.tanh(a) + b for a, b in zip(u, q, strict=True))

    gradients = []
    for rule in (ImplicitDifferentiation(tol=1e-11), Unrolled(150)):
        d = data().requires_grad_()
        model = ImplicitNetwork(Q, R, lambda u: sum(part.sum() for part in u), solver=solver(1e-11, 200), gradient=rule)
        model(d).backward()
        gradients.append(d.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("solver", [FixedPointIteration, Anderson, Broyden])
def test_images_in_channels_last(solver):
    torch.manual_seed(0)
    conv, x = nn.Conv2d(4, 4, 3, padding=1, dtype=torch.float64), torch.randn(2, 4, 5, 5, dtype=torch.float64)
    conv.weight.data *= 0.3
    gradients = []
    for form in (torch.contiguous_format, torch.channels_last):
        for rule in (ImplicitDifferentiation(tol=1e-11), ImplicitDifferentiation("cg", tol=1e-11)):
            model = ImplicitNetwork(nn.Identity(), lambda u, q: torch.tanh(conv(u) + q), nn.Identity())
            model.solver, model.gradient = solver(1e-11, 500), rule
            gradients.append(torch.autograd.grad(loss(model(x.contiguous(memory_format=form))), conv.weight)[0])
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0])
