"""The exercises check themselves: solutions pass, the blank is helped, each known mistake gets its own words, and none gives the answer away.

A solution is that of the chapter where it is code, else stated here; a mistake that knows its wrong answer brings it along, for the others
it is stated here too.
"""

import ast
import json
import math
import random
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from conftest import BOOK, CHAPTERS
from scipy.special import betainc
from torch import nn

from jfb_tutorial import theory, toy
from jfb_tutorial.gradients import JFB, ImplicitDifferentiation, NeumannSeries
from jfb_tutorial.normalisation import operator_norm
from jfb_tutorial.pages import certificates, exercises, instances, parity, paths, peer_record, restoration, sudoku
from jfb_tutorial.pages.exercises import ch02, ch03, ch13, running, trials
from jfb_tutorial.pages.exercises.unchecked import DERIVATIONS, OPEN
from jfb_tutorial.pages.layers import tanh_layer
from jfb_tutorial.solvers import Anderson, FixedPointIteration

sys.path.insert(0, str(BOOK / "_ext"))

import chapters

LABELS = exercises.labels()


@pytest.fixture(autouse=True)
def as_the_chapters_do(monkeypatch):
    """In float64, in the folder of the book."""
    monkeypatch.chdir(BOOK)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# Solutions


@cache
def cells(number: str) -> tuple[str, ...]:
    """The code of a chapter, cell by cell."""
    (path,) = (path for path in CHAPTERS if path.stem.startswith(number))
    found = json.loads(path.read_text())["cells"]
    return tuple("".join(cell["source"]) for cell in found if cell["cell_type"] == "code")


def from_chapter(number: str, name: str, /, last: bool = True, **names):
    """A function or a class as the chapter defines it; `names` is what it uses besides."""
    common = {
        "torch": torch,
        "np": np,
        "nn": nn,
        "toy": toy,
        "theory": theory,
        "paths": paths,
        "NeumannSeries": NeumannSeries,
    }
    for source in reversed(cells(number)) if last else cells(number):
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
                space = common | names
                exec(compile(ast.Module([node], []), f"<chapter {number}>", "exec"), space)
                return space[name]
    raise KeyError(name)


def repaired(u, q, W, b):
    """Chapter 1's step with W as it divides it."""
    linear = nn.Linear(20, 20)
    linear.weight.data, linear.bias.data = W, b
    R = from_chapter("01", "Repaired", Implicit=object).R
    return R(type("network", (), {"W": linear})(), u, q)


def product_bound(block, u):
    return from_chapter("02", "product_bound", u=u)(block)


def certified():
    block = ch02._Block(8).double()
    operator_norm(block.first, 0.9, shape=(6, 6))
    operator_norm(block.second, 0.9, shape=(6, 6))
    return block


def anderson_one(T, u, tol):
    """The chapter's, which returns the number alone: the point is the last that it evaluated."""
    seen = []

    def watched(u):
        seen.append(u)
        return T(u)

    count = from_chapter("03", "anderson_one")(watched, u, tol)
    return seen[-1], count


def three_steps(network, d):
    u = network.solve(d).u
    for _ in range(3):
        u = network.R(u, network.Q(d))
    return network.S(u)


@cache
def chapter_5():
    torch.manual_seed(0)
    R, _, _ = from_chapter("05", "Layer")(8, gamma=0.5), nn.Linear(4, 8), nn.Linear(8, 3)
    data, labels = torch.randn(16, 4), torch.randint(3, (16,))
    assert R is not None
    network = trials.small_network()
    of = partial(instances.gradient_of, network, d=data, y=labels)
    exact = of(ImplicitDifferentiation(tol=1e-12))
    return {name: instances.cosine(of(rule), exact) for name, rule in (("one", JFB()), ("three", NeumannSeries(3)))}


def asymmetry(field, theta):
    h = 1e-4
    ends = [(field(theta + h * e), field(theta - h * e)) for e in torch.eye(2)]
    D = torch.stack([(after - before) / (2 * h) for after, before in ends], dim=1)
    return (abs(D[0, 1] - D[1, 0]) / D.norm()).item()


def until_rule(T, u):
    return from_chapter("11", "until_rule", walk_until=from_chapter("11", "walk_until"))(T, u)


def K_of(draws, k):
    sent = draws.Z @ (torch.eye(6) - torch.linalg.matrix_power(draws.J, k))
    return draws.Z @ draws.G @ sent.mT


def heads():
    torch.set_default_dtype(torch.float64)
    draws = certificates.draw(1, generator=torch.Generator().manual_seed(3))
    A = torch.linalg.inv(torch.eye(6) - draws.J[0]) @ draws.G[0]
    vectors = torch.linalg.eigh(instances.sym(A))[1]

    def smallest(B, J):
        return instances.coercivity(B @ torch.linalg.inv(torch.eye(6) - J) @ draws.G[0] @ B.T).item()

    spoilt = vectors[:, [0, 5]].T
    factor = next(t for t in range(100, -1, -1) if smallest(spoilt, t / 100 * draws.J[0]) > 0) / 100
    return vectors[:, -2:].T, spoilt, factor


def flip_and_solve(network, d, place):
    old = network.solve(d).u
    flipped = d.clone()
    flipped[0, 0, place - 1] = 1 - flipped[0, 0, place - 1]
    return int(network.solve(flipped).steps), int(network.solve(flipped, old).steps)


def solve_until_all_rest(T, u0, tol):
    class Network:
        @staticmethod
        def operator(d):
            step = lambda u: T(u)  # noqa: E731
            return type("T", (), {"__call__": lambda self, u: step(u), "zeros": lambda self: u0})()

    return from_chapter("13", "solve_until_all_rest", trained=Network)(None, tol)


def exchange(network, A):
    network.Q.A, network.R.H = A, A.T @ A
    return network


def one_more(network, given, solved):
    old = network.solve(sudoku.one_hot(given).double()).u
    more = given.clone()
    first = tuple((given == 0).nonzero()[0])
    more[first] = solved[first]
    d = sudoku.one_hot(more).double()
    return network.solve(d).steps, network.solve(d, old).steps


def is_solution(given, answer):
    rows = [*answer, *answer.T, *(answer[r : r + 2, c : c + 3].flatten() for r in (0, 2, 4) for c in (0, 3))]
    return all(set(row.tolist()) == set(range(1, 7)) for row in rows) and bool((answer == given)[given > 0].all())


def swapped(z, c, N, x0, alpha, epsilon):
    Swapped = from_chapter("14", "Swapped", alpha=alpha, epsilon=epsilon)
    step = Swapped(3).double()
    step.N, step.x0 = N, x0
    return step(z, c)


def swapped_jacobian(D, N, alpha, epsilon):
    identity = torch.eye(len(N))
    return identity - N + D @ (2 * N - identity - alpha * epsilon * N)


def by_place(network, d):
    return from_chapter("16", "states", small=network, Anderson=Anderson)(d, (8, 16))


def sent_back(s, t, k):
    """The first entry of (0, 1)(I + J + … + Jᵏ⁻¹)."""
    J, row = np.array([[s, 0.0], [1.0, t]]), np.array([0.0, 1.0])
    return sum(row @ np.linalg.matrix_power(J, n) for n in range(k))[0]


def measured_solves():
    layer = partial(tanh_layer, dtype=torch.float64)
    low = torch.zeros(32, 32)
    stuck = FixedPointIteration(tol=1e-9, max_steps=300)(
        lambda u: layer("symmetric", 0.9)(u.double()).float(), low.float()
    )
    swinging = FixedPointIteration(tol=1e-6, max_steps=1000)(layer("symmetric", 1.5), low)
    return stuck.residual.max().item(), int((~swinging.converged).sum())


def spectrum():
    found = []
    for method in (FixedPointIteration, Anderson):
        solver = method(tol=1e-8, max_steps=3000)
        spectra = [torch.linspace(low, 0.95, 32) for low in (0, -0.95, 0.95)]
        found.append([int(solver(lambda u, a=a: a * u + 1, torch.zeros(1, 32)).steps[0]) for a in spectra])
    return found


def first_epochs():
    epochs, least = [], 100.0
    for seed in range(5):
        rows = json.loads((BOOK / f"records/digits-jfb-cpu-{seed}.json").read_text())["epochs"]
        first = next((row for row in rows if row["gamma"] > 1), None)
        epochs.append(first["epoch"] if first else 0)
        least = min(least, 100 * first["accuracy"]) if first else least
    return {"epochs": epochs, "least": least}


def values_of(number, *names):
    """Numbers that the chapter's sentences show."""
    (path,) = (path for path in CHAPTERS if path.stem.startswith(number))
    shown = chapters.named_values(path)
    return [float(shown[name].rstrip("%").replace(",", "")) for name in names]


def table_of(number, caption):
    """The numbers of a stored table, row by row."""
    (path,) = (path for path in CHAPTERS if path.stem.startswith(number))
    texts = (
        "".join(o.get("data", {}).get("text/plain", ""))
        for cell in chapters.cells(path)
        for o in cell.get("outputs", [])
    )
    (found,) = (text for text in texts if caption in text)
    return [
        [float(word) for word in line.split() if re.fullmatch(r"[\d.e-]+", word)] for line in found.splitlines()[2:]
    ]


def solutions():
    """By label, a right answer."""
    floor, broken = measured_solves()
    plain, faster = spectrum()
    good, bad, factor = heads()
    early = values_of("10", "early_stop", "own_stop")
    tolerances = table_of("10", "Evaluations of T until all twelve")
    s5 = 1 / (1 - 1.05)
    return {
        "ex-01-quadratic": {
            "lower": lambda d: 0.5 - 0.5 * math.sqrt(1 - 4 * d),
            "slope": lambda d: 1 - (1 - 4 * d) ** 0.5,
            "attracts": "lower",
            "fold": 0.25,
            "derivative": lambda d: 1 / (1 - 2 * (0.5 - 0.5 * math.sqrt(1 - 4 * d))),
        },
        "ex-01-steps-back": {
            "steps_back_derivative": from_chapter("01", "steps_back_derivative"),
            "steps": int(values_of("01", "steps_for_99")[0]),
        },
        "ex-01-break": {"rests": False, "falls": True, "R": repaired},
        "ex-01-passage": {"steps": lambda epsilon: np.pi / np.sqrt(10 * (5**-0.25) ** 3 * epsilon), "ghost": "above"},
        "ex-01-rest": {"inputs": torch.tensor([-0.5, 0.5]), "targets": torch.tensor([-0.40, 0.53])},
        "ex-02-four": {"contractions": ["second", "third"], "settles": ["first", "second", "third"]},
        "ex-02-product": {"product_bound": product_bound, "certified": certified()},
        "ex-02-ruler": {"s": values_of("02", "ruler")[0], "changes": False},
        "ex-02-needle": {"threshold": 0.91 / 1.12, "zeros": values_of("02", "zeros")[0]},
        "ex-02-damping": {
            "breaks_at": values_of("02", "breaks_at")[0],
            "repair": lambda s: 1 / (1 + s**2),
            "for_slopes": lambda a, b: 2 / (2 + a - b),
        },
        "ex-03-three-points": {
            "limit": 10,
            "evaluations": values_of("03", "aitken_steps")[0],
            "residual": values_of("03", "aitken_residual")[0],
        },
        "ex-03-secant": {"anderson_one": anderson_one, "evaluations": int(values_of("03", "secant_evaluations")[0])},
        "ex-03-spectrum": {"plain": plain, "anderson": faster, "most": "iii"},
        "ex-03-repelling": {
            "found": values_of("03", "repelling")[0],
            "anderson_075": "repelling",
            "broyden_075": "runs away",
            "both_06": "attracting",
        },
        "ex-03-break": {
            "floor": floor,
            "repaired": FixedPointIteration(tol=1e-6, max_steps=300, relative=True),
            "broken": broken,
            "damping": 0.5,
        },
        "ex-04-scalar": {
            "exact": lambda s: 1 / (1 - s),
            "jfb": lambda s: 1,
            "neumann": lambda s, k: (1 - s**k) / (1 - s),
            "npg": lambda s, k, x: (1 - (x * s + 1 - x) ** k) / (1 - s),
            "too_long": "s < 0",
        },
        "ex-04-hook": from_chapter("04", "phantom"),
        "ex-04-ghost": dict(zip(("ghost", "before"), values_of("04", "ghost", "before"), strict=True))
        | {"told": "a tighter tolerance"},
        "ex-04-eigenvalues": dict(
            zip(("gmres", "cg"), (row[0] for row in table_of("04", "Products with three different")), strict=False)
        ),
        "ex-05-one": {
            "gradient": lambda a, c: c / (1 - a),
            "p": lambda a, c: -c,
            "too_short": 0.9,
            "too_long": "a < 0",
            "climbs": False,
        },
        "ex-05-steps": {"three_steps": three_steps, **chapter_5()},
        "ex-05-scale": {
            "kappa": "changes",
            "kappa_T": "stays",
            "condition_18": "changes",
            "sharp": "stays",
            "descent": "stays",
        },
        "ex-05-units": {"limit": values_of("05", "s_limit")[0], "repair": [[0.5, 0], [0, 1]], "terms": 3},
        "ex-05-layer": {
            "climbing": int(values_of("05", "ascending")[0]),
            "slopes": [1, 0.1],
            "W": [[0, 0], [5, 0]],
            "w": [1, 10],
        },
        "ex-06-warm-up": {"w": 2 / 3, "one": 1, "two": 0.5, "three": 0.75, "damping": 2 / 3},
        "ex-06-damping": {
            "broken": 1.3**20,
            "best": lambda a, b: 2 / (2 - a - b),
            "size": lambda a, b: (b - a) / (2 - a - b),
            "allowed": "a + b <= 0",
        },
        "ex-06-curl": {"asymmetry": asymmetry, "jfb": False, "upg": False},
        "ex-06-few": {"J": [[0, 0.5], [0.5, 0]], "b": [1, 0], "g": [0, 1]},
        "ex-07-images": {
            "error": values_of("07", "error_of_difference")[0],
            "images": values_of("07", "images_needed")[0],
        },
        "ex-07-epoch": first_epochs(),
        "ex-07-rule": from_chapter("07", "extrapolated"),
        "ex-08-best": values_of("08", "best_of_100")[0],
        "ex-08-batch": dict(
            zip(("fixed", "mixed", "by_class"), values_of("08", "fixed", "mixed", "sorted_by_class"), strict=True)
        ),
        "ex-08-amdahl": {"ratio": lambda K, m: 1 + m / (K + 3), "limit": 1},
        "ex-09-nine": {
            "multiple": lambda gamma: gamma / (1 - gamma),
            "steps": lambda gamma, size, tol: math.ceil(math.log(tol / size) / math.log(gamma)),
            "jfb": lambda gamma: 1 - gamma,
        },
        "ex-09-shrink": {
            "law": lambda beta, n: beta / math.sqrt(1 + 2 * n * beta**2),
            "half": lambda beta: 1.5 / beta**2,
        },
        "ex-09-count": {
            "steps": 1.4e7 / 73_257 / 100,
            "products": lambda steps: 4 + 6 * steps,
            "adjoint": lambda steps, left, right: (2 + 3 * steps) * (left + right),
        },
        "ex-10-roofline": {
            "seconds": lambda o, b, peak, band: max(o / peak, b / band),
            "gain": lambda o, b, peak, band: max(o / peak, b / band) / max(o / peak, b / 2 / band),
        },
        "ex-10-early": {"k": early[0], "steps": early[1]},
        "ex-10-anderson": {"plain": [row[1] for row in tolerances], "anderson": [row[2] for row in tolerances]},
        "ex-10-bfloat16": dict(zip(("rounding", "distance"), values_of("10", "rounding", "distance"), strict=True))
        | {"truth": False},
        "ex-11-share": {"share": (1 - 1 / 1.7) * 12 / 11, "bound": values_of("11", "was_bound")[0]},
        "ex-11-turn": dict(zip(("undamped", "damped"), values_of("11", "turn_undamped", "turn_damped"), strict=True))
        | {"eigenvalue": 0.07},
        "ex-11-early": {
            "output_jfb": 3.1525,
            "output_upg": 4.310125,
            "jfb": 1,
            "upg": 2.05,
            "exact": -20,
            "right_sign": ["JFB", "UPG"],
        },
        "ex-11-until": until_rule,
        "ex-11-beyond": {
            "adjoint": s5,
            "npg": lambda k, x: x * ((1 + 0.05 * x) ** k - 1) / (0.05 * x),
            "descends": "neither",
        },
        "ex-12-one": {"K": -1, "climbs": "for every loss"},
        "ex-12-terms": {"K": K_of, "certified": values_of("12", "terms_1", "terms_2", "terms_3", "terms_40")},
        "ex-12-rulers": {"omega": lambda s: 0.5 + 5 * s, "descends": 0.1, "contracts": 0.075, "more": "a contraction"},
        "ex-12-head": {"certified": good, "spoilt": bad, "factor": factor},
        "ex-13-reach": {"least": 256, "layers": 256, "weights": values_of("13", "explicit_weights")[0]},
        "ex-13-warm": {"flip_and_solve": flip_and_solve, "shorter": "near the end"},
        "ex-13-early": {"solve": solve_until_all_rest, "wrong": "to the right"},
        "ex-13-deaf": lambda u: torch.tanh(2 * u),
        "ex-14-alike": {
            "answer": "the same with 3 and 5 exchanged",
            "unnoticed": ["two digits", "two rows of a band", "two columns of a stack", "two bands", "the two stacks"],
        },
        "ex-14-pieces": {"edges": 14, "pieces": 50, "times": 49, "gradient": 0},
        "ex-14-camera": {"exchange": exchange, "better": "with the new A"},
        "ex-14-warm": {"one_more": one_more, "safe": "for a contraction"},
        "ex-14-solvable": {"is_solution": is_solution, "errs": "it misses a puzzle that has one"},
        "ex-14-order": {"step": swapped, "jacobian": swapped_jacobian},
        "ex-15-splitting": {"peaceman_rachford": from_chapter("15", "peaceman_rachford"), "fewest": "0.1"},
        "ex-15-relu": {"below": 1 / 3, "relu_climbs": False},
        "ex-15-order": {"swaps": from_chapter("15", "swaps"), "above": 4 / 3},
        "ex-15-factors": {"u": [1, 1], "g": [2, 6], "by_factors": peer_record.ring_by_factors()},
        "ex-16-listen": {"radius": 0.9, "steps": 94},
        "ex-16-looks": 0.9877,
        "ex-16-ahead": {"places": 8, "solve_by_place": by_place},
        "ex-17-reports": {"A": "nothing", "B": "solver", "C": "gentler"},
        "ex-17-two": {
            "exact": lambda s, t: 1 / (1 - s) / (1 - t),
            "in_a_row": 1,
            "terms": sent_back,
            "needed": 2,
        },
        "ex-17-input": from_chapter("17", "input_gradient", ImplicitDifferentiation=ImplicitDifferentiation),
    }


@pytest.fixture(scope="module")
def right():
    torch.set_default_dtype(torch.float64)
    return solutions()


def as_parts(label, answer):
    parts = exercises.exercise(label).parts
    return answer if len(parts) > 1 else {parts[0].name: answer}


# Mistakes that know no wrong answer of their own: here is one


def old_step(u, q, W, b):
    return torch.tanh(u @ W.T + b + q)


def by(size):
    return lambda u, q, W, b: torch.tanh(u @ (W / max(1.0, size(W).item())).T + b + q)


def kernels_only():
    block = ch02._Block(8).double()
    with torch.no_grad():
        for layer in (block.first, block.second):
            layer.weight *= 0.98 / torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
    return block


def like_secant(kind):
    """A method whose third point is the wrong one; the plain one goes on, the others need not."""

    def wrong(T, u, tol):
        first = T(u)
        at = ch03._third(u, T_of(T, u), kind)
        T(first)
        T(at)
        return at, 3

    return wrong


def T_of(T, u):
    """T without being counted: the instance underneath."""
    return T.T


def stops_by(moved):
    return lambda T, u0, tol: ch13._stop(moved)(T, u0, tol)


def iterate_late(T, u0, tol):
    u = solve_until_all_rest(T, u0, tol)
    for _ in range(50):
        u = T(u)
    return u


@dataclass
class Later:
    """A wrong answer that takes some computing."""

    make: Callable[[], Any]


WRONG: dict[str, list[tuple[str, Any]]] = {
    "ex-01-break": [
        ("unrepaired", {"R": old_step}),
        ("one-is-not-below-one", {"R": by(lambda W: torch.linalg.matrix_norm(W, 2))}),
        ("radius-for-norm", {"R": by(lambda W: torch.linalg.eigvals(W).abs().max() / 0.9)}),
    ],
    "ex-01-passage": [("gap-over-step", {"steps": lambda epsilon: 0.1 / epsilon})],
    "ex-01-rest": [
        ("fitted", {"inputs": [-0.5, 0.5], "targets": [-0.45, 0.45]}),
        ("different-slopes", {"inputs": [0.25, 0.5], "targets": [0.18, 0.53]}),
    ],
    "ex-02-four": [("norm-for-radius", {"settles": ["second", "third"]})],
    "ex-02-product": [
        ("certified-by-the-kernel", {"certified": Later(kernels_only)}),
        ("untouched", {"certified": Later(lambda: ch02._Block(8, 9.0).double())}),
    ],
    "ex-02-needle": [("underflow", {"zeros": math.inf}), ("underflow", {"zeros": 308})],
    "ex-03-three-points": [("off-by-one", {"evaluations": 65})],
    "ex-03-secant": [
        ("plain-count", {"evaluations": Later(lambda: values_of("03", "plain_evaluations")[0])}),
        ("loose-tolerance", {"evaluations": 3}),
        ("plain-iteration", {"anderson_one": like_secant("plain")}),
        ("flipped-sign", {"anderson_one": like_secant("flipped")}),
        ("swapped-weights", {"anderson_one": like_secant("swapped")}),
        ("points-not-images", {"anderson_one": like_secant("points")}),
    ],
    "ex-03-repelling": [("not-yet-there", {"found": 0.85})],
    "ex-03-break": [
        ("what-was-asked-for", {"floor": 1e-9}),
        ("float64", {"floor": 1e-15}),
        ("more-patience", {"repaired": FixedPointIteration(tol=1e-9, max_steps=1000)}),
        ("any-tolerance-will-do", {"repaired": FixedPointIteration(tol=0.5, max_steps=300)}),
        ("those-that-do", {"broken": 13}),
        ("none", {"damping": 1}),
        ("still-overshoots", {"damping": 0.9}),
        ("too-gentle", {"damping": 1e-3}),
    ],
    "ex-04-ghost": [("stopped-early", {"before": 10.0})],
    "ex-05-units": [
        ("singular", {"repair": [[1, 0], [0, 0]]}),
        ("wrong-way", {"repair": [[2, 0], [0, 1]]}),
        ("all-alike", {"repair": [[0.5, 0], [0, 0.5]]}),
        ("jfb", {"terms": 1}),
    ],
    "ex-05-layer": [
        ("large-weight-on-a-steep-unit", {"slopes": [1, 1], "W": [[0, 0], [5, 0]]}),
        ("no-flat-unit", {"slopes": [1, 0.8], "W": [[0.9, 0], [0, 0.9]], "w": [1, 1]}),
        ("hat-for-w", {"w": [1, 1]}),
        ("condition-for-fact", {"climbing": 99}),
    ],
    "ex-06-curl": [
        ("sum-for-difference", {"asymmetry": lambda f, theta: symmetric_part(f, theta)}),
        ("whole-derivative", {"asymmetry": lambda f, theta: jacobian(f, theta).norm()}),
        ("always-zero", {"asymmetry": lambda f, theta: 0.0}),
        ("yes-or-no", {"asymmetry": lambda f, theta: float(asymmetry(f, theta) > 1e-6)}),
    ],
    "ex-06-few": [
        ("exact-for-jfb", {"b": [1, -0.5]}),
        ("column-for-row", {"J": [[0, 0.5], [0, 0]], "b": [1, 0], "g": [0, 1]}),
        ("J-does-not-turn", {"J": [[0.5, 0], [0, 0.5]], "b": [1, 0], "g": [0, 1]}),
        ("nothing-sent", {"g": [0, 0]}),
    ],
    "ex-08-best": [("share", 0.9951)],
    "ex-08-batch": [("share", {"fixed": 0.9})],
    "ex-10-early": [("off-by-one", {"k": Later(lambda: values_of("10", "early_stop")[0] + 1)})],
    "ex-10-bfloat16": [("residual-for-distance", {"distance": 0.01})],
    "ex-11-turn": [("off-by-one", {"undamped": 15})],
    "ex-11-early": [("exact-is-right", {"right_sign": ["exact"]})],
    "ex-11-beyond": [("series", {"adjoint": math.inf})],
    "ex-12-head": [
        ("one-direction-twice", {"certified": Later(lambda: heads()[0][[0, 0]])}),
        ("smallest-eigenvectors", {"certified": Later(lambda: heads()[1])}),
        ("no-bad-direction", {"spoilt": Later(lambda: heads()[0])}),
        ("nothing-sent", {"spoilt": Later(lambda: heads()[0][[0, 0]])}),
        ("not-below-one", {"factor": 1.5}),
        ("too-large", {"factor": 0.999}),
        ("smaller-than-needed", {"factor": 0.1}),
    ],
    "ex-13-early": [
        ("whole-string", {"solve": stops_by(ch13._whole)}),
        ("mean-for-largest", {"solve": stops_by(ch13._mean)}),
        ("one-step", {"solve": lambda T, u0, tol: T(u0)}),
    ],
    "ex-13-deaf": [
        ("goes-round", lambda u: -torch.tanh(2 * u)),
        ("contraction", lambda u: 0.5 * u + 1),
        ("remembers-everything", lambda u: u),
    ],
    "ex-14-alike": [
        ("rows-for-columns", {"unnoticed": ["two digits", "rows and columns"]}),
        ("out-of-the-box", {"unnoticed": ["two digits", "two rows of different bands"]}),
        ("some-left-out", {"unnoticed": ["two digits"]}),
    ],
    "ex-14-pieces": [("jfb", {"gradient": 1.0})],
    "ex-16-listen": [("the-error-for-the-step", {"steps": 131}), ("too-early", {"steps": 34})],
    "ex-15-splitting": [("the-larger-the-better", {"fewest": "10"})],
    "ex-14-order": [
        (
            "the-old-order",
            {
                "step": lambda z, c, N, x0, a, e: (
                    z - torch.relu(z) + (2 * torch.relu(z) - z - a * (c + e * torch.relu(z))) @ N + x0
                )
            },
        ),
        (
            "z-where-y-belongs",
            {"step": lambda z, c, N, x0, a, e: z - (z @ N + x0) + torch.relu(2 * (z @ N + x0) - z - a * (c + e * z))},
        ),
        (
            "not-reflected",
            {
                "step": lambda z, c, N, x0, a, e: (
                    z - (z @ N + x0) + torch.relu((z @ N + x0) - a * (c + e * (z @ N + x0)))
                )
            },
        ),
    ],
}


def jacobian(f, theta, h=1e-4):
    return torch.stack([(f(theta + h * e) - f(theta - h * e)) / (2 * h) for e in torch.eye(2)], dim=1)


def symmetric_part(f, theta):
    D = jacobian(f, theta)
    return (D + D.T).norm()


def wrong_answers(label, right):
    """Mistake by mistake, the name and an answer that makes it and is right otherwise."""
    exercise = exercises.exercise(label)
    answer = as_parts(label, right[label])
    for part in exercise.parts:
        for mistake in part.mistakes:
            if mistake.answer is not None:
                with running.guard():
                    yield mistake.name, answer | {part.name: mistake.answer(exercise.given)}
    for name, wrong in WRONG.get(label, ()):
        parts = as_parts(label, wrong)
        made = {key: value.make() if isinstance(value, Later) else value for key, value in parts.items()}
        yield name, answer | made


def mistakes_of(label):
    exercise = exercises.exercise(label)
    of_parts = [mistake for part in exercise.parts for mistake in part.mistakes]
    return of_parts + [mistake for each in exercise.properties for mistake in each.mistakes]


# The tests


def test_every_exercise_is_checked_or_is_listed():
    book = [label for path in CHAPTERS for label in chapters.exercises(path)]
    listed = [*LABELS, *DERIVATIONS, *OPEN]
    # a new exercise needs a check in jfb_tutorial/pages/exercises, or a line in unchecked.py
    assert sorted(listed) == sorted(book)
    titles = {label: title for path in CHAPTERS for label, title in chapters.exercises(path).items()}
    assert {label for label in book if titles[label].endswith("(open)")} == set(OPEN)
    rubric = (BOOK / "course" / "rubric.md").read_text()
    assert all(label in rubric for label in DERIVATIONS)


@pytest.mark.parametrize("label", LABELS)
def test_the_solution_is_right(label, right):
    found = exercises.check(label, right[label])
    assert found.right, found
    assert repr(found) == f"Right. {exercises.exercise(label).shows}"
    assert all(found.parts.values())
    assert found.share == 1


@pytest.mark.parametrize("label", LABELS)
def test_a_blank_is_helped(label):
    exercise, blank = exercises.exercise(label), exercises.check(label, ...)
    assert not blank.right
    assert blank.lines[0] == f"Still open. {exercise.asks}"
    assert blank.lines[1] == f"Hint 1 of 3: {exercises.hints(label)[0]}"
    assert exercises.check(label) == exercises.check(label, None) == blank
    # and so is what the stub hands in, as it stands
    space: dict = {}
    exec(exercises.stub(label), space)
    assert exercises.check(label, space["answer"]).lines == blank.lines


@pytest.mark.parametrize("label", LABELS)
def test_each_mistake_gets_its_own_words(label, right):
    seen: dict[str, str] = {}
    for name, answer in wrong_answers(label, right):
        found = exercises.check(label, answer)
        assert not found.right
        assert name in found.mistakes, (name, found)
        says = next(m.says for m in mistakes_of(label) if m.name == name and m.says in "\n".join(found.lines))
        seen.setdefault(says, name)
    assert len(set(seen.values())) >= 2, seen
    # none is left that no wrong answer here has made
    unmade = {m.name for m in mistakes_of(label)} - set(seen.values())
    assert not unmade, unmade
    says = [m.says for m in mistakes_of(label)]
    assert len(set(says)) == len(says)


@pytest.mark.parametrize("label", LABELS)
def test_nothing_that_is_said_gives_the_answer_away(label, right):
    exercise = exercises.exercise(label)
    said = [
        *exercise.hints,
        *(m.says for m in mistakes_of(label)),
        *(part.otherwise for part in exercise.parts),
        *(each.otherwise for each in exercise.properties),
    ]
    for value in as_parts(label, right[label]).values():
        for number in numbers_in(value):
            for text in said:
                # 0, 1 and ½ are in every formula
                assert abs(number) in (0, 1, 0.5) or not any(same_digits(found, number) for found in figures(text)), (
                    number,
                    text,
                )
        if (
            isinstance(value, str)
            and len(value) > 2
            and value not in ("lower", "changes", "stays", "above", "descent", "neither", "iii", "repelling")
        ):
            assert not any(f'"{value}"' in text for text in said)


def numbers_in(value):
    if isinstance(value, bool | str) or callable(value):
        return []
    if isinstance(value, int | float):
        return [] if math.isinf(value) else [float(value)]
    if isinstance(value, torch.Tensor):
        return [] if value.numel() > 4 else value.flatten().tolist()
    return [number for each in value for number in numbers_in(each)] if isinstance(value, list | tuple) else []


def figures(text):
    """The numbers of a text."""
    return [float(found) for found in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w])", text.replace("−", "-"))]


def same_digits(found, number):
    return math.isclose(found, abs(number), rel_tol=0.01)


@pytest.mark.parametrize("label", LABELS)
def test_a_wrong_form_is_explained(label):
    exercise = exercises.exercise(label)
    odd = {part.name: {"of": "no form"} for part in exercise.parts}
    found = exercises.check(label, odd)
    assert not found.right
    assert all(any(part.kind.form in line for line in found.lines) for part in exercise.parts), found
    if len(exercise.parts) > 1:
        lone = exercises.check(label, 3.0)
        assert lone.lines == (
            "Not yet. The answer has several parts, and what came is not a dictionary.",
            exercise.asks,
        )
    unknown = exercises.check(label, {"answr": 1})
    assert unknown.lines[0] == "Not yet. `answr` is no part of this answer."


def test_what_is_right_is_said_of_an_answer_that_is_not_whole():
    found = exercises.check("ex-03-three-points", {"limit": 10, "evaluations": 44})
    assert found.parts == {"limit": True, "evaluations": False, "residual": False}
    assert found.mistakes == ("residual-for-error",)
    assert found.share == pytest.approx(1 / 3)
    assert found.lines[0].startswith("Not yet. `evaluations` bring the *residual*")
    assert found.lines[1:] == ("`limit` is right.", "Still open: `residual`.", 'Stuck? `hint("ex-03-three-points")`')


def test_an_error_of_the_student_is_told_with_its_line(tmp_path):
    source = "def steps_back_derivative(d, count):\n    y = 1 / (count - count)\n    return y\n"
    path = tmp_path / "cell.py"
    path.write_text(source)
    space: dict = {}
    exec(compile(source, str(path), "exec"), space)
    found = exercises.check("ex-01-steps-back", {"steps_back_derivative": space["steps_back_derivative"], "steps": ...})
    assert found.lines[0] == (
        "Not yet. `steps_back_derivative` stopped with ZeroDivisionError: division by zero, at the line `y = 1 / (count - count)`. "
        "It was called as `steps_back_derivative(0.5, 1)`."
    )


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda T, u: 3.0, "has to take 4 arguments, (T, u_star, k, damping)"),
        (NeumannSeries, "is the class NeumannSeries; make an object of it"),
        ("phantom", "is text. Hand in the function itself"),
        (lambda T, u, k, x: T(u).detach(), "has no graph, so nothing reaches the weights"),
        (lambda T, u, k, x: T(u).sum(), "has to return a tensor of the shape of u"),
        (lambda T, u, k, x: 3.0, "has to return a tensor of the shape of u"),
    ],
)
def test_a_function_that_is_none_is_explained(function, says):
    assert says in exercises.check("ex-04-hook", function).lines[0]


def test_a_function_without_a_return_is_still_open():
    found = exercises.check("ex-05-units", {"limit": ..., "repair": ..., "terms": 1})
    assert found.lines[-2] == "Still open: `limit` and `repair`."
    found = exercises.check("ex-11-beyond", {"adjoint": -20, "npg": lambda k, x: None})
    assert "`npg` returns nothing yet: does it end in a `return`?" in found.lines[0]


def test_nothing_of_the_session_changes(capsys):
    def greedy(d, count):
        torch.manual_seed(123)
        np.random.seed(5)  # noqa: NPY002
        random.seed(6)
        torch.set_default_dtype(torch.float16)
        torch.set_grad_enabled(False)
        print("noise")
        return 1.0

    torch.set_default_dtype(torch.float32)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].tolist(), random.getstate()  # noqa: NPY002
    with torch.no_grad():
        exercises.check("ex-01-steps-back", {"steps_back_derivative": greedy, "steps": 6})
        assert not torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before[1]  # noqa: NPY002
    assert random.getstate() == before[2]
    assert capsys.readouterr().out == ""


def test_a_check_finds_the_same_twice(right):
    for label in ("ex-04-hook", "ex-06-curl", "ex-14-order"):
        assert exercises.check(label, right[label]) == exercises.check(label, right[label])


def test_derivations_and_open_questions_say_so():
    assert exercises.check("ex-06-fit", "by Lemma A.1").lines == (
        "ex-06-fit asks for a derivation, which no check can read: compare yours with the solution; book/course/rubric.md says what earns its points.",
    )
    assert "is an open question" in exercises.check("ex-02-open", 3).lines[0]
    with pytest.raises(ValueError, match="asks for a derivation"):
        exercises.stub("ex-07-gamma")


@pytest.mark.parametrize(
    ("label", "near"),
    [
        ("ex-05-layers", "ex-05-layer"),
        ("ex-5-layer", "ex-05-layer"),
        ("ex-03-three", "ex-03-three-points"),
        ("layer", "ex-05-layer"),
    ],
)
def test_an_unknown_label_names_near_ones(label, near):
    with pytest.raises(ValueError, match=f"no exercise is called '{label}'; near it are .*{near}"):
        exercises.check(label, 1)


def test_hints_go_deeper():
    first, _, third = exercises.hints("ex-05-one")
    assert repr(exercises.hint("ex-05-one")) == f'Hint 1 of 3: {first} `hint("ex-05-one", 2)` says more.'
    assert repr(exercises.hint("ex-05-one", 3)) == f"Hint 3 of 3: {third}"
    with pytest.raises(ValueError, match="step must be at most 3, got 4; there are three hints, and then the solution"):
        exercises.hint("ex-05-one", 4)
    for label in LABELS:
        assert len(set(exercises.hints(label))) == 3


def test_a_verdict_is_a_box_in_a_notebook():
    html = exercises.check("ex-01-quadratic", {"fold": 0.5, "attracts": "lower"})._repr_html_()
    assert html.startswith('<div role="status"')
    assert "<strong>Not yet.</strong> <code>fold</code> is the y" in html
    assert (
        "&lt;" in exercises.hint("ex-04-scalar")._repr_html_()
        or "<code>" in exercises.check("ex-04-scalar")._repr_html_()
    )


# The truths themselves, where they are computed in an unusual way


def test_the_needle_in_few_dimensions_is_that_of_the_beta_distribution():
    for n, q in ((5, 0.4), (40, 0.3)):
        assert ch02._zeros(q, n) == pytest.approx(-math.log10(betainc((n - 1) / 2, 0.5, 1 - q)), rel=1e-9)


def test_the_wrong_rules_are_made_of_right_ones():
    found = []
    for rule in (trials.powers(lambda i: 1.0, 4), NeumannSeries(4)):
        with running.guard():
            found.append(trials.of_rule(rule))
    assert torch.allclose(found[0], found[1], atol=1e-10)


def test_the_parts_of_the_book_are_what_the_checks_suppose():
    assert parity.network(0).R.one.kernel_size == (3,)
    assert restoration.ETA == 1
