"""Times of a training step under every backward rule, interleaved in one run; writes book/timings/rules.json.

    python tests/benchmarks/time_rules.py [--out FILE]

A step is the solve, the rule, the backward pass. What is recorded is its time in units of the step with JFB. `make timings`
runs it; chapter 04 reads the record.
"""

import statistics

import torch
from shared import TanhLayer, matrix, parser, write
from torch import nn

from jfb_tutorial import bench
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation
from jfb_tutorial.network import ImplicitNetwork
from jfb_tutorial.solvers import FixedPointIteration
from jfb_tutorial.timing import interleaved, ratios

ROUNDS = 15
RULES = (*bench.RULES, ImplicitDifferentiation("neumann"))


class Block(nn.Module):
    """The shape of the latent block of the papers' MNIST network, without its batch norm."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(32, 32, 3, padding=1) for _ in range(2))
        self.gamma = gamma

    def forward(self, u, q):
        x = u + q
        return self.gamma * (
            x + nn.functional.leaky_relu(self.second(nn.functional.leaky_relu(self.first(x), 0.1)), 0.1)
        )


def symmetric(gamma: float) -> tuple[nn.Module, torch.Tensor]:
    """A layer with a symmetric weight of norm gamma, and an input small enough not to saturate it."""
    return TanhLayer(matrix("symmetric", 256, gamma)), 0.3 * torch.randn(256, 256)


def problems() -> dict:
    torch.manual_seed(0)
    return {
        "tanh layer, symmetric, γ = 0.5": symmetric(0.5),
        "tanh layer, symmetric, γ = 0.9": symmetric(0.9),
        "two convolutions, 32 x 9 x 9 unknowns, batch 100": (Block(0.5), torch.randn(100, 32, 9, 9)),
    }


def main() -> None:
    path = parser(__doc__).parse_args().out
    torch.set_num_threads(1)
    results = {}
    solver = FixedPointIteration(tol=1e-4, max_steps=200, relative=True)
    for name, (R, d) in problems().items():

        def step(rule, R=R, d=d):
            network = ImplicitNetwork(nn.Identity(), R, nn.Identity(), solver=solver, gradient=rule)
            return lambda: (network(d) ** 2).mean().backward()

        seconds = interleaved({bench.name(rule): step(rule) for rule in RULES}, ROUNDS)
        jfb = bench.name(JFB())
        results[name] = {
            "milliseconds_with_jfb": 1e3 * statistics.median(seconds[jfb]),
            "forward_steps": int(solver(lambda u, R=R, d=d: R(u, d), torch.zeros_like(d)).steps.max()),
            "ratio_to_jfb": ratios(seconds, jfb),
        }
    config = {"rounds": ROUNDS, "threads": 1, "dtype": "float32", "relative tolerance, forward": 1e-4}
    write(path, "rules", config, results)
    for name, result in results.items():
        print(f"{name}: {result['forward_steps']} steps, {result['milliseconds_with_jfb']:.1f} ms with JFB")
        print("   " + ", ".join(f"{rule} {ratio:.2f}" for rule, ratio in result["ratio_to_jfb"].items()))


if __name__ == "__main__":
    main()
