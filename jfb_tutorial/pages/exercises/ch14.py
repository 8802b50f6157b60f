"""The exercises of chapter 14."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ...network import ImplicitNetwork
from .. import paths, restoration, sudoku
from .checks import Answer, Exercise, Given, Mistake, Part, Property
from .kinds import Function, Number, Whole, Words
from .running import Stopped, Student, guard

# All digits are alike

_CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "two digits": lambda d: d[:, [0, 1, 4, 3, 2, 5]],
    "two rows of a band": lambda d: d[:, :, [1, 0, 2, 3, 4, 5]],
    "two columns of a stack": lambda d: d[:, :, :, [1, 0, 2, 3, 4, 5]],
    "two bands": lambda d: d[:, :, [2, 3, 0, 1, 4, 5]],
    "the two stacks": lambda d: d[:, :, :, [3, 4, 5, 0, 1, 2]],
    "rows and columns": lambda d: d.transpose(2, 3),
    "two rows of different bands": lambda d: d[:, :, [2, 1, 0, 3, 4, 5]],
}
"""Of a tensor (batch, digit, row, column, …)."""


@cache
def _unnoticed() -> frozenset[str]:
    """The changes with which three steps of a network of random weights commute."""
    with guard(5):
        network = sudoku.network(1).double()
        d = torch.rand(2, 6, 6, 6)

        def answer(d: Tensor) -> Tensor:
            T = network.operator(d)
            u = T.zeros()
            for _ in range(3):
                u = T(u)
            return network.S(u)

        with torch.no_grad():
            return frozenset(
                name
                for name, change in _CHANGES.items()
                if torch.allclose(answer(change(d)), change(answer(d)), atol=1e-9)
            )


ALIKE = Exercise(
    "ex-14-alike",
    parts=(
        Part(
            "answer",
            Words(("the same", "the same with 3 and 5 exchanged", "another, depending on the weights")),
            "what the network answers",
            truth=lambda g: (
                "the same with 3 and 5 exchanged"
                if "two digits" in _unnoticed()
                else "another, depending on the weights"
            ),
            mistakes=(
                Mistake(
                    "blind-to-the-change",
                    "`answer`: it cannot be the same, since the givens have to stay.",
                    answer=lambda g: "the same",
                ),
                Mistake(
                    "asks-the-weights",
                    "`answer`: is there a weight that belongs to one digit alone?",
                    answer=lambda g: "another, depending on the weights",
                ),
            ),
        ),
        Part(
            "unnoticed",
            Words(tuple(_CHANGES), many=True),
            "the exchanges that the step does not notice",
            truth=lambda g: _unnoticed(),
            mistakes=(
                Mistake(
                    "rows-for-columns",
                    "`unnoticed`: rows and columns have a matrix each, and a box is not a square.",
                    made=lambda a, g: "rows and columns" in a["unnoticed"],
                ),
                Mistake(
                    "out-of-the-box",
                    "`unnoticed`: two rows of different bands carry their cells into other boxes.",
                    made=lambda a, g: "two rows of different bands" in a["unnoticed"],
                ),
                Mistake(
                    "some-left-out",
                    "`unnoticed`: all that you name is right, and there are more.",
                    made=lambda a, g: a["unnoticed"] < _unnoticed(),
                ),
            ),
        ),
    ),
    shows="The step has no weight that knows which digit or which row it looks at, and so has every iterate, and the answer.",
    hints=(
        "Which parts of the step could tell a 3 from a 5?",
        "It takes means over rows, columns, boxes and over the digits of a cell; a mean does not ask for the order.",
        "An exchange goes unnoticed if rows stay rows, columns stay columns and boxes stay boxes.",
    ),
)

# A single path


def _side(given: Given) -> int:
    return int(given["side"])


PIECES = Exercise(
    "ex-14-pieces",
    parts=(
        Part(
            "edges",
            Whole(),
            "edges in use",
            truth=lambda g: 2 * (_side(g) - 1),
            mistakes=(
                Mistake(
                    "cells-for-edges",
                    "`edges` are the cells of the path; between two cells there is one edge.",
                    answer=lambda g: 2 * _side(g) - 1,
                ),
                Mistake(
                    "side-for-steps",
                    "`edges`: from the first of n rows to the last there are fewer than n steps.",
                    answer=lambda g: 2 * _side(g),
                ),
            ),
        ),
        Part(
            "pieces",
            Whole(),
            "pieces into which they join the cells",
            truth=lambda g: _side(g) ** 2 - 2 * (_side(g) - 1),
            mistakes=(
                Mistake(
                    "path-forgotten",
                    "`pieces`: have you counted what the edges in use join?",
                    answer=lambda g: _side(g) ** 2 - 2 * _side(g) + 1,
                ),
                Mistake(
                    "cells-left-out", "`pieces`: a cell that no edge touches is a piece by itself.", answer=lambda g: 1
                ),
            ),
        ),
        Part(
            "times",
            Whole(),
            "how often 1 is an eigenvalue of J",
            truth=lambda g: (_side(g) - 1) ** 2,
            mistakes=(
                Mistake(
                    "as-many-as-pieces",
                    "`times`: if the edges in use joined all cells to one piece, it would not occur at all.",
                    answer=lambda g: _side(g) ** 2 - 2 * (_side(g) - 1),
                ),
                Mistake(
                    "as-many-as-edges",
                    "`times` are the edges in use; count pieces.",
                    answer=lambda g: 2 * (_side(g) - 1),
                ),
            ),
        ),
        Part(
            "gradient",
            Number(),
            "the exact gradient",
            truth=lambda g: 0.0,
            mistakes=(
                Mistake(
                    "jfb",
                    "`gradient`: a path can only change by a circulation on edges in use. Is there one?",
                    made=lambda a, g: a["gradient"] != 0,
                ),
            ),
        ),
    ),
    shows="On a single path nothing can move by a little: the exact gradient is silent, although a better path may be next to it.",
    hints=(
        "A path goes right and down; count how often.",
        "All cells that no edge in use touches are pieces of their own.",
        "What can change a little is a circulation on edges in use: a way round. On a single path there is none.",
    ),
    given={"side": 8},
    draw=lambda rng: {"side": rng.choice((5, 6, 7, 10, 12))},
    question=lambda g: (
        f"The layer of shortest paths puts all its flow on one path through {g['side']} × {g['side']} cells, from the first to the last, to the right and down. How many edges are in use? Into how many pieces do they join the "
        "cells, and how often is 1 an eigenvalue of $J$? What is the exact gradient?"
    ),
)

# Another camera

CAMERA = Exercise(
    "ex-14-camera",
    parts=(
        Part(
            "exchange",
            Function("network, A", "the network, now with the camera A in Q and in R"),
            "put a new A, (64, 64), into a layer of restoration.network",
            truth=lambda g: _exchanged(),
            observe=lambda f, g: _physics(f),
            mistakes=(
                Mistake(
                    "Q-alone",
                    "R still has the old camera: its gradient step AᵀA belongs to another picture.",
                    answer=lambda g: _exchanged(R=False),
                ),
                Mistake(
                    "R-alone",
                    "Q still has the old camera: it brings the data in with another A.",
                    answer=lambda g: _exchanged(Q=False),
                ),
                Mistake(
                    "A-for-its-square",
                    "R holds H, the product AᵀA, and not A itself.",
                    answer=lambda g: _exchanged(square=False),
                ),
            ),
        ),
        Part(
            "better",
            Words(("as it is", "with the new A")),
            "which is better on pictures from the new camera",
            truth=lambda g: "with the new A",
            mistakes=(
                Mistake(
                    "learned-to-deblur",
                    "`better`: what was learned is a correction of pictures; the camera stands in the formula, not in the weights.",
                    answer=lambda g: "as it is",
                ),
            ),
        ),
    ),
    shows="The correction knows of pictures and the physics stands beside it, so that it can be exchanged without training.",
    hints=(
        "Q and R each hold the camera as a buffer: look at `restoration.Physics` and `restoration.Step`.",
        "Q needs A, R needs H = η AᵀA, with η = 1.",
        "Assign both, `network.Q.A = A` and `network.R.H = …`, and return the network.",
    ),
)


def _exchanged(
    *, Q: bool = True, R: bool = True, square: bool = True
) -> Callable[[ImplicitNetwork, Tensor], ImplicitNetwork]:
    def f(network: ImplicitNetwork, A: Tensor) -> ImplicitNetwork:
        if Q:
            network.Q.A = A
        if R:
            network.R.H = A.T @ A if square else A
        return network

    return f


def _physics(f: Student) -> Tensor:
    """One step of the network from a random picture, with a camera that it has not seen."""
    network = restoration.network(2).double()
    y, u = torch.randn(3, 64), torch.randn(3, 64)
    A = restoration.blur(0.8).double() + 0.1 * torch.randn(64, 64)
    changed = f(network, A)
    if not isinstance(changed, ImplicitNetwork):
        raise Stopped(f"`{f.name}` has to return the network.")
    with torch.no_grad():
        return changed.R(u, changed.Q(y))


# One more given


def _puzzles() -> tuple[Tensor, Tensor]:
    shuffled = torch.Generator().manual_seed(2)
    solved = torch.tensor(sudoku.solutions([0] * 36, 1)[0]).reshape(1, 6, 6)
    given = solved * (torch.rand(1, 6, 6, generator=shuffled) < 0.4)
    given[0, 0, 0] = solved[0, 0, 0]  # so that the first open cell is not the first
    given[0, 0, 1] = 0
    return given, solved


def _more(*, use: str = "cw", add: bool = True, last: bool = False) -> Callable[..., tuple[int, int]]:
    def f(network: ImplicitNetwork, given: Tensor, solved: Tensor) -> tuple[int, int]:
        old = network.solve(sudoku.one_hot(given).double()).u
        more = given.clone()
        if add:
            at = tuple((given == 0).nonzero()[-1 if last else 0])
            more[at] = solved[at]
        d = sudoku.one_hot(more).double()
        steps = {"c": int(network.solve(d).steps), "w": int(network.solve(d, old).steps)}
        return steps[use[0]], steps[use[1]]

    return f


def _steps(f: Student, given: Given) -> list[float]:
    network = sudoku.network(3).double()
    network.solver = sudoku.solver(200)
    puzzle, solved = _puzzles()
    before, own, seen = puzzle.clone(), network.solve, list[Tensor]()

    def solve(d: Tensor, u0: Tensor | None = None) -> Any:
        seen.append(d.detach().double())
        return own(d, u0)

    network.solve = solve
    pair = f(network, puzzle, solved)
    if not torch.equal(puzzle, before):
        raise Stopped(f"`{f.name}` changes the puzzle itself: write the digit into a copy, `given.clone()`.")
    try:
        cold, warm = (float(x) for x in pair)
    except (TypeError, ValueError):
        raise Stopped(
            f"`{f.name}` has to return two numbers of steps, from zero and from the old equilibrium."
        ) from None
    if not seen:
        raise Stopped(f"`{f.name}` has not called `network.solve`.")
    # the numbers of steps do not tell where the digit went
    fullest = max(seen, key=lambda d: float(d.sum()))
    return [cold, warm, float((fullest.flatten() * torch.arange(fullest.numel())).sum())]


WARM = Exercise(
    "ex-14-warm",
    parts=(
        Part(
            "one_more",
            Function("network, given, solved", "steps from zero and from the old equilibrium, a pair"),
            "give the digit of the first open cell as well; given and solved are integers (1, 6, 6), 0 for an open cell",
            truth=lambda g: _more(),
            observe=_steps,
            mistakes=(
                Mistake(
                    "exchanged", "The two numbers are exchanged: from zero first.", answer=lambda g: _more(use="wc")
                ),
                Mistake(
                    "cold-twice",
                    "Both start from zero: hand the old equilibrium to `network.solve` as its second argument.",
                    answer=lambda g: _more(use="cc"),
                ),
                Mistake(
                    "nothing-given",
                    "No digit is added: the network solves the old puzzle again.",
                    answer=lambda g: _more(add=False),
                ),
                Mistake(
                    "the-last-cell",
                    "The digit goes into another cell than the first open one, row by row.",
                    answer=lambda g: _more(last=True),
                ),
            ),
            otherwise="The steps are not those of `network.solve(d)` and `network.solve(d, old)` with one more digit; the network reads `sudoku.one_hot(…).double()`.",
        ),
        Part(
            "safe",
            Words(("for a contraction", "always", "never")),
            "when a warm start is safe",
            truth=lambda g: "for a contraction",
            mistakes=(
                Mistake(
                    "ends-where-it-began",
                    "`safe`: try the puzzle that the network had got wrong. Where does it end from its old state?",
                    answer=lambda g: "always",
                ),
                Mistake(
                    "too-careful",
                    "`safe`: if there is only one place to rest, the start does not matter.",
                    answer=lambda g: "never",
                ),
            ),
        ),
    ),
    shows="Where the old answer was right, a new given is no news; where it was wrong, the old state has to be undone, and may not be.",
    hints=(
        "`(given == 0).nonzero()[0]` is the first open cell.",
        "Copy the puzzle, put the digit of the solution in, and make it `sudoku.one_hot(more).double()`.",
        "Solve three times: the old puzzle for its equilibrium, the new one from zero, the new one from there.",
    ),
)

# Is there a solution?


def _boards() -> list[tuple[Tensor, Tensor]]:
    """Givens and what the network might say: right; two cells of a row exchanged; rows and columns right and boxes wrong; a given changed."""
    solved = torch.tensor(sudoku.solutions([0] * 36, 1)[0]).reshape(6, 6)
    given = torch.zeros_like(solved)
    given[0, :3], given[3, 2] = solved[0, :3], solved[3, 2]
    swapped = solved.clone()
    swapped[0, 3], swapped[0, 4] = solved[0, 4], solved[0, 3]
    latin = torch.stack([(torch.arange(6) + shift) % 6 + 1 for shift in range(6)])
    renamed = solved % 6 + 1  # a solution, and not of these givens
    return [
        (given, solved),
        (given, swapped),
        (torch.zeros_like(solved), latin),
        (given, renamed),
        (torch.zeros_like(solved), renamed),
    ]


def _valid(answer: Tensor, units: list[list[int]]) -> bool:
    flat = answer.flatten().tolist()
    return all(sorted(flat[cell] for cell in unit) == [1, 2, 3, 4, 5, 6] for unit in units)


def _looks(units: list[list[int]], *, givens: bool = True) -> Callable[[Tensor, Tensor], bool]:
    return lambda given, answer: _valid(answer, units) and (not givens or bool((answer == given)[given > 0].all()))


def _judged(f: Student, given: Given) -> list[float]:
    found = []
    for board in _boards():
        value = f(*(grid.clone() for grid in board))
        if (
            not isinstance(value, bool)
            and not (isinstance(value, Tensor) and value.numel() == 1)
            and type(value).__name__ not in ("bool_", "bool")
        ):
            raise Stopped(f"`{f.name}` has to return True or False.")
        found.append(float(bool(value)))
    return found


SOLVABLE = Exercise(
    "ex-14-solvable",
    parts=(
        Part(
            "is_solution",
            Function("given, answer", "True or False"),
            "whether 36 digits solve the puzzle; both are integers (6, 6), 0 for an open cell of given",
            truth=lambda g: _looks(sudoku.UNITS),
            observe=_judged,
            mistakes=(
                Mistake(
                    "boxes-forgotten",
                    "A board whose rows and columns are right and whose boxes are not has passed.",
                    answer=lambda g: _looks(sudoku.UNITS[:12]),
                ),
                Mistake(
                    "givens-ignored",
                    "A board that breaks no rule has passed, and it does not keep the givens.",
                    answer=lambda g: _looks(sudoku.UNITS, givens=False),
                ),
                Mistake(
                    "columns-forgotten",
                    "A board with a digit twice in a column has passed.",
                    answer=lambda g: _looks(sudoku.UNITS[:6]),
                ),
                Mistake("passes-all", "Everything passes.", answer=lambda g: lambda given, answer: True),
            ),
            otherwise="A board that is no solution has passed, or one that is has not: is each digit there once in each row, column and box?",
        ),
        Part(
            "errs",
            Words(("it passes a puzzle without a solution", "it misses a puzzle that has one")),
            "the mistake that looking at the digits can still make",
            truth=lambda g: "it misses a puzzle that has one",
            mistakes=(
                Mistake(
                    "certain-in-the-other-direction",
                    "`errs`: if 36 digits break no rule and keep the givens, what are they?",
                    answer=lambda g: "it passes a puzzle without a solution",
                ),
            ),
        ),
    ),
    shows="An answer that can be checked needs no trust in the residual; that there is no solution only a search can show.",
    hints=(
        "Rest says that the network no longer changes its mind, and not that it is right.",
        "A solution holds each digit once in every row, every column and every box, two high and three wide.",
        "And it keeps the givens: where given is above 0, answer has to be the same.",
    ),
)

# The other order


def _setting() -> tuple[Tensor, Tensor, Tensor, float, float]:
    """c, N, x₀, α and ε, on 3 × 3 cells."""
    N, x0 = paths.flows(3)
    return 1 + torch.rand(1, len(N)), N, x0, 1.0, 0.5


def _old(z: Tensor, c: Tensor, N: Tensor, x0: Tensor, alpha: float, epsilon: float) -> Tensor:
    x = torch.relu(z)
    return z - x + ((2 * x - z - alpha * (c + epsilon * x)) @ N + x0)


def _at_rest(step: Callable[..., Tensor]) -> Tensor:
    setting = _setting()
    z = torch.zeros_like(setting[0])
    for _ in range(600):
        z = step(z, *setting).detach()
    if not torch.isfinite(z).all() or (step(z, *setting) - z).abs().max() > 1e-6:
        raise Stopped("The iteration of `step` does not come to rest on a grid of 3 × 3 cells.")
    return z


def _flow(answer: Answer, given: Given) -> bool:
    _, N, x0, _, _ = _setting()
    torch.manual_seed(0)
    x = torch.relu(_at_rest(_old))
    torch.manual_seed(0)
    z = _at_rest(lambda *args: answer["step"].tensor(args[0].shape, *args))
    return torch.allclose(z @ N + x0, x, atol=1e-5)


def _new(z: Tensor, c: Tensor, N: Tensor, x0: Tensor, alpha: float, epsilon: float) -> Tensor:
    y = z @ N + x0
    return z - y + torch.relu(2 * y - z - alpha * (c + epsilon * y))


def _costs_at_z(z: Tensor, c: Tensor, N: Tensor, x0: Tensor, alpha: float, epsilon: float) -> Tensor:
    y = z @ N + x0
    return z - y + torch.relu(2 * y - z - alpha * (c + epsilon * z))


def _not_reflected(z: Tensor, c: Tensor, N: Tensor, x0: Tensor, alpha: float, epsilon: float) -> Tensor:
    y = z @ N + x0
    return z - y + torch.relu(y - alpha * (c + epsilon * y))


def _is(step: Callable[..., Tensor]) -> Callable[[Answer, Given], bool]:
    def test(answer: Answer, given: Given) -> bool:
        setting = _setting()
        z = torch.randn_like(setting[0])
        return torch.allclose(answer["step"].tensor(z.shape, z, *setting), step(z, *setting))

    return test


def _jacobians(f: Student, given: Given) -> Tensor:
    N = paths.flows(3)[0]
    D = (torch.rand(len(N)) < 0.5).double().diag()
    return f.tensor((len(N), len(N)), D, N, 0.7, 0.3).flatten()


def _J(D: Tensor, N: Tensor, alpha: float, epsilon: float) -> Tensor:
    one = torch.eye(len(N))
    return (one - D) @ (one - N) + (1 - alpha * epsilon) * D @ N


ORDER = Exercise(
    "ex-14-order",
    parts=(
        Part(
            "step",
            Function("z, c, N, x0, alpha, epsilon", "the next z, (batch, edges)"),
            "the step with the projections exchanged: first the flows, then x ≥ 0",
        ),
        Part(
            "jacobian",
            Function("D, N, alpha, epsilon", "J = ∂T/∂z, (edges, edges)"),
            "its Jacobian, D with 1 on the diagonal where the max is not flat",
            truth=lambda g: _J,
            observe=_jacobians,
            mistakes=(
                Mistake(
                    "the-old-order",
                    "`jacobian` is that of the old order: which projection acts first now?",
                    answer=lambda g: lambda D, N, a, e: _J(D, N, a, e).T,
                ),
                Mistake(
                    "epsilon-left-out",
                    "`jacobian` forgets that the costs' part with ε depends on z too.",
                    answer=lambda g: lambda D, N, a, e: _J(D, N, a, 0.0),
                ),
                Mistake(
                    "max-everywhere",
                    "`jacobian`: where the max is flat nothing comes through it.",
                    answer=lambda g: lambda D, N, a, e: _J(torch.eye(len(N)), N, a, e),
                ),
            ),
        ),
    ),
    properties=(
        Property(
            ("step",),
            _is(_new),
            "This is not the old step with its two projections exchanged.",
            mistakes=(
                Mistake(
                    "the-old-order",
                    "This is the old order: x ≥ 0 first. Project onto the flows first, y = zN + x₀.",
                    made=_is(_old),
                ),
                Mistake(
                    "not-reflected",
                    "The second projection acts on a point that is *reflected* at the first: 2y − z, and not y.",
                    made=_is(_not_reflected),
                ),
                Mistake(
                    "z-where-y-belongs",
                    "The gradient of the costs is taken at z; it belongs to the projected point y.",
                    made=_is(_costs_at_z),
                ),
            ),
        ),
        Property(("step",), _flow, "At rest the flow zN + x₀ is not the solution of the old order."),
    ),
    shows="The solution stays and the Jacobian is transposed, so that JFB sends the costs something else.",
    hints=(
        "Davis–Yin: y is the first projection of z, the second acts on 2y − z − α(c + εy), and z moves by the difference of the two.",
        "First the flows: y = zN + x₀. Then max(·, 0).",
        "Differentiate by z: N from y, D from the max. Multiply out, and sort by D and I − D.",
    ),
)

EXERCISES = (ALIKE, PIECES, CAMERA, WARM, SOLVABLE, ORDER)
