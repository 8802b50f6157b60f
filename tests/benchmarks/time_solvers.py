"""Times of the three solvers around one and the same T, interleaved in one run; writes book/timings/solvers.json.

    python tests/benchmarks/time_solvers.py [--out FILE]

What is recorded is the time of a solve of a fixed number of evaluations, as a ratio to plain iteration: what a step of
Anderson or Broyden costs beside the evaluation of T. `make timings` runs it; chapter 03 reads the record.
"""

import statistics

import torch
from shared import parser, write

from jfb_tutorial.solvers import Anderson, Broyden, FixedPointIteration
from jfb_tutorial.timing import interleaved, ratios

STEPS, ROUNDS = 40, 15
SOLVERS = {
    "plain": (FixedPointIteration, {}),
    "Anderson 5": (Anderson, {"memory": 5}),
    "Anderson 20": (Anderson, {"memory": 20}),
    "Broyden 20": (Broyden, {"memory": 20}),
}


def problems() -> dict:
    """A dense layer and the convolutional block of the papers' MNIST network, each with a start."""
    torch.manual_seed(0)
    dense = torch.nn.Linear(256, 256)
    first, second = (torch.nn.Conv2d(32, 32, 3, padding=1) for _ in range(2))

    def block(u):
        return 0.5 * (u + torch.relu(second(torch.relu(first(u)))))

    return {
        "tanh layer, 256 unknowns, batch 256": (lambda u: torch.tanh(dense(u)), torch.zeros(256, 256)),
        "two convolutions, 32 x 9 x 9 unknowns, batch 100": (block, torch.zeros(100, 32, 9, 9)),
    }


def main() -> None:
    path = parser(__doc__).parse_args().out
    results = {}
    for name, (T, u0) in problems().items():
        seconds = interleaved(
            {
                solver: lambda method=method, memory=memory, T=T, u0=u0: method(tol=1e-30, max_steps=STEPS, **memory)(
                    T, u0
                )
                for solver, (method, memory) in SOLVERS.items()
            },
            ROUNDS,
        )
        results[name] = {
            "milliseconds_an_evaluation": 1e3 * statistics.median(seconds["plain"]) / STEPS,
            "ratio_to_plain": ratios(seconds, "plain"),
        }
    config = {"steps": STEPS, "rounds": ROUNDS, "threads": torch.get_num_threads(), "dtype": "float32"}
    write(path, "solvers", config, results)
    for name, result in results.items():
        row = ", ".join(f"{solver} {ratio:.2f}" for solver, ratio in result["ratio_to_plain"].items())
        print(f"{name}: {result['milliseconds_an_evaluation']:.2f} ms an evaluation; {row}")


if __name__ == "__main__":
    main()
