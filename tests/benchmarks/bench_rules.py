"""A training step with JFB beside a loop by hand and TorchDEQ; products of the exact solvers beside the papers'.

    make benchmarks

Ratios within one run, interleaved, on one thread; nothing is asserted about time. TorchDEQ comes with the extra `peers`.
"""

import os

import pytest
import torch
from shared import TanhLayer, matrix
from torch import nn

from jfb_tutorial import theory
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, tally
from jfb_tutorial.network import ImplicitNetwork
from jfb_tutorial.solvers import FixedPointIteration
from jfb_tutorial.timing import ALLOCATOR, interleaved, ratios

N = BATCH = 256
TOL, MOST = 1e-4, 60


def by_hand(R, q):
    with torch.no_grad():
        u = torch.zeros_like(q)
        for _ in range(MOST):
            v = R(u, q)
            residual = torch.linalg.vector_norm(v - u, dim=1)
            u = v
            if bool((residual <= TOL * torch.linalg.vector_norm(v, dim=1)).all()):
                break
    return R(u, q)


@pytest.mark.parametrize("kind", ["gaussian", "orthogonal"])
def test_a_training_step(benchmark, kind):
    torchdeq = pytest.importorskip("torchdeq", reason="the extra `peers` installs it")
    torch.set_num_threads(1)
    torch.manual_seed(1)
    q, target = torch.randn(BATCH, N), torch.randn(BATCH, N)
    solver = FixedPointIteration(tol=TOL, max_steps=MOST, relative=True)
    forwards = {}
    W = matrix(kind, N, 0.9, generator=torch.Generator().manual_seed(0))
    layers = {name: TanhLayer(W.clone()) for name in ("ours", "by hand", "TorchDEQ")}
    network = ImplicitNetwork(nn.Identity(), layers["ours"], nn.Identity(), solver=solver, gradient=JFB())
    deq = torchdeq.get_deq(f_solver="fixed_point_iter", f_max_iter=MOST, f_tol=TOL, f_stop_mode="rel", grad=1)
    forwards["ours"] = lambda: network(q)
    forwards["by hand"] = lambda: by_hand(layers["by hand"], q)
    forwards["TorchDEQ"] = lambda: deq(lambda u: layers["TorchDEQ"](u, q), torch.zeros_like(q))[0][-1]

    def step(name):
        optimizer = torch.optim.SGD(layers[name].parameters(), lr=0.0)

        def run():
            optimizer.zero_grad()
            ((forwards[name]() - target) ** 2).mean().backward()
            optimizer.step()

        return run

    seconds = benchmark.pedantic(lambda: interleaved({name: step(name) for name in layers}, 100), rounds=1)
    found = ratios(seconds, "by hand")
    benchmark.extra_info |= {
        "ours / by hand": found["ours"],
        "ours / TorchDEQ": ratios(seconds, "TorchDEQ")["ours"],
        "allocator set": all(os.environ.get(name) == value for name, value in ALLOCATOR.items()),
        "steps": int(network.last.steps.max()),
    }
    print(f"\n{kind}: {benchmark.extra_info}")
    gradients = [layer.W.grad for layer in layers.values()]
    assert all(torch.nn.functional.cosine_similarity(g.flatten(), gradients[0].flatten(), 0) > 0.999 for g in gradients)


@pytest.mark.parametrize("kind", ["symmetric", "radius", "gaussian", "orthogonal"])
def test_products_of_the_exact_gradient(benchmark, kind):
    """γ = 0.9 at the fixed point but for "radius", a Gaussian matrix of spectral radius 0.9, which has a larger norm."""
    generator = torch.Generator().manual_seed(0)
    W = matrix(kind, N, 0.9, generator=generator, dtype=torch.float64).requires_grad_()
    u = torch.zeros(4, N, dtype=torch.float64)  # the fixed point of u ↦ tanh(W u), where its Jacobian is W

    def T(v):
        return torch.tanh(v @ W.T)

    g = torch.randn(4, N, generator=generator, dtype=torch.float64)
    counts = {}

    def run():
        for solver in ("neumann", "cg", "gmres", "bicgstab"):
            value = ImplicitDifferentiation(solver, tol=1e-6, max_steps=5000)(T, u)
            with tally() as count:
                (value * g).sum().backward()
            counts[solver] = count.products

    benchmark.pedantic(run, rounds=1)
    factor = theory.contraction_factor(lambda v: T(v), u)
    benchmark.extra_info |= {**counts, "gamma": factor, "gmres / cg": counts["gmres"] / counts["cg"]}
    print(f"\n{kind}: {benchmark.extra_info}")
