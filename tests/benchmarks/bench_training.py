"""A JFB step of the paper's MNIST network beside a plain loop of the same arithmetic, and what it keeps in memory.

    make benchmarks

Ratios within one run, interleaved; nothing is asserted about time.
"""

import pytest
import torch
from torch.nn import functional as F

from jfb_tutorial.architectures import mnist
from jfb_tutorial.bench import saved_bytes
from jfb_tutorial.solvers import FixedPointIteration
from jfb_tutorial.timing import interleaved, ratios

BATCH = 100


def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(BATCH, 1, 28, 28, generator=generator), torch.randint(10, (BATCH,), generator=generator)


def by_hand(Q, R, S, d):
    """What the paper's Figure 3 does: iterate without a graph until all samples meet the tolerance, then one step with it."""
    q = Q(d)
    with torch.no_grad():
        u = torch.zeros_like(q)
        for _ in range(50):
            v = R(u, q)
            residual = torch.linalg.vector_norm((v - u).flatten(1), dim=1)
            u = v
            if residual.max() <= 1e-1:
                break
    return S(R(u, q))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_of_the_mnist_network(benchmark, threads):
    torch.set_num_threads(threads)
    d, y = images()
    networks = {}
    for name in ("ours", "by hand"):
        torch.manual_seed(0)
        networks[name] = mnist()

    def step(name):
        network = networks[name]
        optimiser = torch.optim.Adam(network.parameters(), lr=0.0)

        def run():
            optimiser.zero_grad()
            torch.manual_seed(1)  # the same dropout masks
            parts = network.Q, network.R, network.S
            F.cross_entropy(network(d) if name == "ours" else by_hand(*parts, d), y).backward()
            optimiser.step()

        return run

    seconds = benchmark.pedantic(lambda: interleaved({name: step(name) for name in networks}, 60), rounds=1)
    benchmark.extra_info |= {
        "ours / by hand": ratios(seconds, "by hand")["ours"],
        "steps": int(networks["ours"].last.steps.max()),
    }
    print(f"\n{threads} threads: {benchmark.extra_info}")
    pairs = zip(networks["ours"].parameters(), networks["by hand"].parameters(), strict=True)
    assert all(torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5) for ours, theirs in pairs)


def test_saved_bytes_do_not_grow_with_depth(benchmark):
    d, _ = images()
    saved = {}

    def run():
        for steps in (10, 200):
            solver = FixedPointIteration(max_steps=steps, check_every=0)
            network = mnist(solver=solver, on_unconverged="ignore")
            with saved_bytes([d, *network.parameters(), *network.buffers()]) as count:
                network(d)
            saved[steps] = count.total

    benchmark.pedantic(run, rounds=1)
    benchmark.extra_info |= {f"saved MiB at {steps} steps": total / 2**20 for steps, total in saved.items()}
    print(f"\n{benchmark.extra_info}")
    assert saved[10] == saved[200]
