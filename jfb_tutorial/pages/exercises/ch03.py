"""The exercises of chapter 3."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import torch
from scipy.optimize import brentq
from torch import Tensor

from ...solvers import Anderson, Broyden, FixedPointIteration, Solution
from ..layers import tanh_layer
from .checks import Answer, Exercise, Given, Mistake, Part, Property
from .kinds import Array, Function, Number, Object, Whole, Words
from .running import Stopped, Student

# The end from three points


def _series(given: Given) -> tuple[float, float, float]:
    """Start, first step, ratio."""
    a, b, c = given["points"]
    return a, b - a, (c - b) / (b - a)


def _limit(given: Given) -> float:
    a, step, ratio = _series(given)
    return a + step / (1 - ratio)


def _evaluations(given: Given, shrink: float = 1.0) -> int:
    """The first k with |error| · shrink ≤ the bound."""
    _, step, ratio = _series(given)
    error = abs(step / (1 - ratio)) * shrink
    return max(0, math.ceil(math.log(given["within"] / error) / math.log(ratio)))


def _error(given: Given, k: int) -> float:
    _, step, ratio = _series(given)
    return abs(step / (1 - ratio)) * ratio**k


def _draw_points(rng: Random) -> dict[str, Any]:
    start, step, ratio = rng.choice((0.0, 1.0, 2.0)), rng.choice((1.0, 2.0)), rng.choice((0.8, 0.95, 0.75))
    return {"points": (start, start + step, round(start + step * (1 + ratio), 4)), "within": rng.choice((0.01, 0.003))}


THREE_POINTS = Exercise(
    "ex-03-three-points",
    parts=(
        Part(
            "limit",
            Number(rel=1e-3),
            "where the iteration ends",
            truth=_limit,
            mistakes=(
                Mistake(
                    "counted-from-the-last",
                    "`limit`: the series of all steps begins at the first point, not at the last.",
                    answer=lambda g: g["points"][2] + _series(g)[1] / (1 - _series(g)[2]),
                ),
                Mistake(
                    "one-step-ahead",
                    "`limit` is the next point. All the steps after it count too: sum the geometric series.",
                    answer=lambda g: g["points"][2] + _series(g)[1] * _series(g)[2] ** 2,
                ),
            ),
            otherwise="`limit`: each step is the same fraction of the one before, so their sum is a geometric series.",
        ),
        Part(
            "evaluations",
            Whole(),
            "how many evaluations bring it within the bound",
            truth=_evaluations,
            mistakes=(
                Mistake(
                    "residual-for-error",
                    "`evaluations` bring the *residual*, the next step, below the bound. The distance to the end is larger.",
                    answer=lambda g: _evaluations(g, 1 - _series(g)[2]),
                ),
                Mistake(
                    "off-by-one",
                    "`evaluations`: look again where you begin to count; after k evaluations the error has been multiplied k times.",
                    made=lambda a, g: abs(a["evaluations"] - _evaluations(g)) == 1,
                ),
            ),
        ),
        Part(
            "residual",
            Number(rel=0.02),
            "the residual there",
            truth=lambda g: _error(g, _evaluations(g)) * (1 - _series(g)[2]),
            mistakes=(
                Mistake(
                    "error-for-residual",
                    "`residual` is the distance to the end. The residual is the length of the next step.",
                    answer=lambda g: _error(g, _evaluations(g)),
                ),
                Mistake(
                    "bound-for-residual",
                    "`residual` is the bound on the error. What is measured there is the length of the next step.",
                    answer=lambda g: g["within"],
                ),
                Mistake(
                    "previous-step",
                    "`residual` is the step before. Take T(u) − u at the point that is within the bound.",
                    answer=lambda g: _error(g, _evaluations(g) - 1) * (1 - _series(g)[2]),
                ),
            ),
        ),
    ),
    shows="Three points tell the end of a geometric walk, and a small residual is not yet a small error.",
    hints=(
        "Two steps give the fraction. The remaining steps are a geometric series.",
        "The distance to the end shrinks by the same fraction in every evaluation.",
        "The residual is the next step: the distance now minus the distance after it.",
    ),
    given={"points": (0.0, 1.0, 1.9), "within": 0.01},
    draw=_draw_points,
    question=lambda g: (
        "Plain iteration of a scalar map gave {:g}, {:g} and {:g}. Suppose that each step is the same fraction of the one before. Where does it end? ".format(
            *g["points"]
        )
        + f"How many evaluations (counted from the first point) would plain iteration need to come within {g['within']:g} of it, and what is the residual there?"
    ),
)

# Anderson with a memory of one


def _quintic(y: Tensor) -> Tensor:
    return 0.5 + y**5


class _Counted:
    """T, and the points at which it was evaluated."""

    def __init__(self, T: Callable[[Tensor], Tensor]) -> None:
        self.T, self.at = T, list[Tensor]()

    def __call__(self, u: Tensor) -> Tensor:
        if len(self.at) >= 2000:
            raise Stopped(
                "`anderson_one` had evaluated T 2,000 times and had not ended: does it compare the residual with tol?"
            )
        self.at.append(u.detach().clone())
        return self.T(u)


def _tanh_map() -> Callable[[Tensor], Tensor]:
    W = torch.randn(6, 6)
    W, x = 0.7 * W / torch.linalg.matrix_norm(W, 2), torch.randn(6)
    return lambda u: torch.tanh(W @ u + x)


@cache
def _secant_count() -> int:
    return int(
        Anderson(tol=1e-12, memory=1, regularization=1e-15)(_quintic, torch.zeros(1, 1, dtype=torch.float64)).steps[0]
    )


@cache
def _plain_count() -> int:
    return int(FixedPointIteration(tol=1e-12)(_quintic, torch.zeros(1, 1, dtype=torch.float64)).steps[0])


def _ended(f: Student, T: Callable[[Tensor], Tensor], size: int, tol: float) -> tuple[Tensor, float, list[Tensor]]:
    counted = _Counted(T)
    pair = f(counted, torch.zeros(size), tol)
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise Stopped("`anderson_one` has to return the pair (u, number of evaluations of T).")
    u = torch.as_tensor(pair[0]).detach()
    if tuple(u.shape) != (size,):
        raise Stopped(
            f"The u that `anderson_one` returns has the shape {tuple(u.shape)}; it should be that of the start, {(size,)}."
        )
    return u, float(pair[1]), counted.at


def _arrives(answer: Answer, given: Given) -> bool:
    for T, size in ((_quintic, 1), (_tanh_map(), 6)):
        u, _, _ = _ended(answer["anderson_one"], T, size, 1e-10)
        if not (T(u) - u).norm() <= 1e-8:
            return False
    return True


def _counts(answer: Answer, given: Given) -> bool:
    for T, size in ((_quintic, 1), (_tanh_map(), 6)):
        _, said, at = _ended(answer["anderson_one"], T, size, 1e-10)
        if said != len(at):
            return False
    return True


def _third(u0: Tensor, T: Callable[[Tensor], Tensor], kind: str) -> Tensor:
    """The third point, by the method or by a wrong one."""
    f0 = T(u0) - u0
    u1 = T(u0)
    f1 = T(u1) - u1
    a = (f1 @ (f1 - f0)) / (f1 - f0).norm() ** 2
    if kind == "plain":
        return T(u1)
    if kind == "flipped":
        a = -a
    if kind == "swapped":
        a = 1 - a
    if kind == "points":
        return a * u0 + (1 - a) * u1
    return a * (u0 + f0) + (1 - a) * (u1 + f1)


def _goes(kind: str) -> Callable[[Answer, Given], bool]:
    def test(answer: Answer, given: Given) -> bool:
        T = _tanh_map()
        _, _, at = _ended(answer["anderson_one"], T, 6, 1e-10)
        return len(at) > 2 and torch.allclose(at[2], _third(torch.zeros(6), T, kind), atol=1e-9)

    return test


SECANT = Exercise(
    "ex-03-secant",
    parts=(
        Part(
            "anderson_one",
            Function("T, u, tol", "the pair (u, number of evaluations of T)"),
            "Anderson's method with memory 1, for a vector u",
        ),
        Part(
            "evaluations",
            Whole(off=1),
            "its evaluations on y = d + y⁵ at d = ½ to a residual of 1e-12",
            truth=lambda g: _secant_count(),
            mistakes=(
                Mistake(
                    "plain-count",
                    "`evaluations` are those of plain iteration.",
                    made=lambda a, g: abs(a["evaluations"] - _plain_count()) <= 2,
                ),
                Mistake(
                    "loose-tolerance",
                    "`evaluations`: so few do not reach a residual of 1e-12.",
                    made=lambda a, g: a["evaluations"] < _secant_count() - 1,
                ),
            ),
        ),
    ),
    properties=(
        Property(
            ("anderson_one",),
            _goes("method"),
            "After a point and its image the next point is not the one that makes a·f₀ + (1 − a)·f₁ shortest.",
            mistakes=(
                Mistake(
                    "plain-iteration",
                    "The third point is again T of the second: nothing is combined yet.",
                    made=_goes("plain"),
                ),
                Mistake(
                    "flipped-sign",
                    "The weight a has the wrong sign: f₁ − a (f₁ − f₀) is to be short.",
                    made=_goes("flipped"),
                ),
                Mistake(
                    "swapped-weights",
                    "The two weights have changed places: a goes to the older point.",
                    made=_goes("swapped"),
                ),
                Mistake(
                    "points-not-images",
                    "You have combined the points; the method combines their images, u + f. (For one number that is the same.)",
                    made=_goes("points"),
                ),
            ),
        ),
        Property(("anderson_one",), _arrives, "It ends where the residual ‖T(u) − u‖ is still above tol."),
        Property(
            ("anderson_one",),
            _counts,
            "The number that it returns is not how often it has called T; the first step counts too.",
        ),
    ),
    shows="One remembered point makes plain iteration a secant method: it asks where the line through two residuals crosses zero.",
    hints=(
        "Make f₁ − a (f₁ − f₀) as short as possible: a projection, one division.",
        "The new point is a (u₀ + f₀) + (1 − a)(u₁ + f₁), with f = T(u) − u.",
        "Keep the last image and its f, evaluate T once a round, and stop as soon as ‖f‖ ≤ tol.",
    ),
)

# The shape of the spectrum


@cache
def _spectra(memory: int = 5) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Evaluations of plain iteration and of Anderson's method, for the three spectra."""
    plain, faster = [], []
    for low in (0.0, -0.95, 0.95):
        a = torch.linspace(low, 0.95, 32, dtype=torch.float64)
        T = lambda u, a=a: a * u + 1  # noqa: E731
        start = torch.zeros(1, 32, dtype=torch.float64)
        plain.append(int(FixedPointIteration(tol=1e-8, max_steps=3000)(T, start).steps[0]))
        faster.append(int(Anderson(tol=1e-8, max_steps=3000, memory=memory)(T, start).steps[0]))
    return tuple(plain), tuple(faster)


@cache
def _by_error() -> list[float]:
    """Evaluations of plain iteration until the error is below 1e-8."""
    found = []
    for low in (0.0, -0.95, 0.95):
        a = torch.linspace(low, 0.95, 32, dtype=torch.float64)
        error, count = 1 / (1 - a), 0
        while error.norm() > 1e-8:
            error, count = error * a, count + 1
        found.append(float(count))
    return found


SPECTRUM = Exercise(
    "ex-03-spectrum",
    parts=(
        Part(
            "plain",
            Array((3,), rel=0.0, off=2.5),
            "evaluations of plain iteration for (i), (ii), (iii), with b = 1, from 0, to a residual of 1e-8",
            truth=lambda g: _spectra()[0],
            mistakes=(
                Mistake(
                    "error-for-residual",
                    "`plain` counts until the *error* is below the tolerance; the solver stops by the residual.",
                    answer=lambda g: _by_error(),
                ),
            ),
            otherwise="`plain`: take T(u) = a·u + 1 with 32 numbers a, one sample, and `tol=1e-8`; and let max_steps be large enough.",
        ),
        Part(
            "anderson",
            Array((3,), rel=0.0, off=2.5),
            "evaluations of Anderson(memory=5) for the same",
            truth=lambda g: _spectra()[1],
            mistakes=(
                Mistake(
                    "memory-of-two",
                    "`anderson` fits another memory than 5.",
                    answer=lambda g: _spectra(2)[1],
                ),
            ),
        ),
        Part(
            "most",
            Words(("i", "ii", "iii")),
            "where it gains most",
            truth=lambda g: ("i", "ii", "iii")[max(range(3), key=lambda i: _spectra()[0][i] / _spectra()[1][i])],
            mistakes=(
                Mistake(
                    "longer-is-easier",
                    "`most`: on an interval that reaches to both sides of 0 a polynomial with value 1 at 1 cannot be kept so small.",
                    answer=lambda g: "ii",
                ),
                Mistake(
                    "large-is-hard",
                    "`most`: all eigenvalues large is slow for *plain* iteration. How many zeros does a polynomial need there?",
                    answer=lambda g: "i",
                ),
            ),
        ),
    ),
    shows="Acceleration looks for a polynomial that is small on the spectrum; where the spectrum is one point, degree 1 is enough.",
    hints=(
        "Remembered points make a polynomial p with p(1) = 1; the residual is p(A) times the first one.",
        "How small can such a polynomial of low degree be kept on each of the three sets of eigenvalues?",
        "For the measurement: `torch.linspace(low, 0.95, 32)` is the diagonal, and `solver(T, u0).steps` counts.",
    ),
)

# A fixed point that plain iteration cannot find


@cache
def _fixed_point(low: float, high: float) -> float:
    return float(brentq(lambda y: 0.3 + y**5 - y, low, high, xtol=1e-14))


@cache
def _end(method: Any, start: float) -> str:
    try:
        at = method(tol=1e-10)(lambda y: 0.3 + y**5, torch.tensor([[start]], dtype=torch.float64)).u.item()
    except FloatingPointError:
        return "runs away"
    return min(("repelling", "attracting"), key=lambda name: abs(at - _ENDS[name]))


_ENDS = {"attracting": _fixed_point(0.0, 0.6), "repelling": _fixed_point(0.7, 1.0)}
_WAYS = Words(("repelling", "attracting", "runs away"))
_LOOK = "`{}`: run it with tol=1e-10, and compare the end with both fixed points; a `FloatingPointError` means that it ran away."


def _end_part(name: str, what: str, method: Any, start: float) -> Part:
    return Part(name, _WAYS, what, truth=lambda g: _end(method, start), otherwise=_LOOK.format(name))


REPELLING = Exercise(
    "ex-03-repelling",
    parts=(
        Part(
            "found",
            Number(rel=2e-4),
            "the second fixed point, to four digits",
            truth=lambda g: _ENDS["repelling"],
            mistakes=(
                Mistake(
                    "the-attracting-one",
                    "`found` is the fixed point that attracts, which plain iteration finds as well.",
                    answer=lambda g: round(_ENDS["attracting"], 4),
                ),
                Mistake(
                    "not-yet-there",
                    "`found` is near, and not yet at rest: ask for a smaller tolerance, and look at more digits.",
                    made=lambda a, g: abs(a["found"] - _ENDS["repelling"]) < 0.06,
                ),
            ),
        ),
        _end_part("anderson_075", "where Anderson ends from 0.75", Anderson, 0.75),
        _end_part("broyden_075", "where Broyden ends from 0.75", Broyden, 0.75),
        _end_part("both_06", "where both end from 0.6", Anderson, 0.6),
    ),
    shows="A secant method does not care whether a fixed point attracts, and that is why it is less certain which one it finds.",
    hints=(
        "`Anderson(tol=1e-10)(T, torch.tensor([[0.85]]))` returns a Solution; its `.u` is the end.",
        "At the second fixed point the slope 5y⁴ is above 1, so that plain iteration leaves it.",
        "Put the two calls into try/except FloatingPointError, and print all six ends to four digits.",
    ),
)

# Two solves that never end


def _zeros() -> Tensor:
    return torch.zeros(32, 32, dtype=torch.float64)


def _in_float32(u: Tensor) -> Tensor:
    return tanh_layer("symmetric", 0.9, dtype=torch.float64)(u.double()).float()


def _wild(u: Tensor) -> Tensor:
    return tanh_layer("symmetric", 1.5, dtype=torch.float64)(u)


@cache
def _floor() -> float:
    return FixedPointIteration(tol=1e-9, max_steps=300)(_in_float32, _zeros().float()).residual.max().item()


@cache
def _broken() -> int:
    return int((~FixedPointIteration(tol=1e-6, max_steps=1000)(_wild, _zeros()).converged).sum())


def _order(value: float, given: Given) -> float:
    return math.log10(max(abs(value), 1e-300))


def _solves(answer: Answer) -> Solution:
    return answer["repaired"](_in_float32, _zeros().float())


def _repaired(answer: Answer, given: Given) -> bool:
    found = _solves(answer)
    relative = found.residual / found.u.norm(dim=1)
    return bool(found.converged.all() and (relative < 1e-4).all())


def _damped_all(answer: Answer, given: Given) -> bool:
    weight = answer["damping"]
    found = FixedPointIteration(tol=1e-6, max_steps=1000)(lambda u: (1 - weight) * u + weight * _wild(u), _zeros())
    return 0 < weight <= 1 and bool(found.converged.all())


SOLVES = Exercise(
    "ex-03-break",
    parts=(
        Part(
            "floor",
            Number(rel=0.0, abs=0.5),
            "where the largest residual stops in (i); its order of magnitude counts",
            truth=lambda g: _floor(),
            observe=_order,
            mistakes=(
                Mistake(
                    "what-was-asked-for",
                    "`floor` is the tolerance that was asked for. Read where the residual stops.",
                    made=lambda a, g: 5e-10 < a["floor"] < 2e-9,
                ),
                Mistake(
                    "float64",
                    "`floor` is the rounding of float64. The layer is computed in float32, with about seven digits.",
                    made=lambda a, g: a["floor"] < 1e-11,
                ),
            ),
        ),
        Part(
            "repaired",
            Object("a solver, such as FixedPointIteration(…)", callable),
            "the solver that (i) should have been called with",
        ),
        Part(
            "broken",
            Whole(off=1),
            "how many of the 32 samples do not converge in (ii), to 1e-6 within 1,000 steps",
            truth=lambda g: _broken(),
            mistakes=(
                Mistake(
                    "those-that-do",
                    "`broken` counts those that *do* converge.",
                    made=lambda a, g: abs(a["broken"] - (32 - _broken())) <= 1,
                ),
                Mistake(
                    "all",
                    "`broken`: some do converge: the small inputs and the large ones differ.",
                    answer=lambda g: 32,
                ),
            ),
        ),
        Part("damping", Number(), "the λ in (1 − λ)u + λT(u) that repairs (ii)"),
    ),
    properties=(
        Property(
            ("repaired",),
            _repaired,
            "With `repaired` not all samples of (i) converge to a relative residual below 1e-4.",
            mistakes=(
                Mistake(
                    "more-patience",
                    "`repaired` still asks for more digits than float32 has, and no number of steps will do.",
                    made=lambda a, g: not _solves(a).converged.all(),
                ),
                Mistake(
                    "any-tolerance-will-do",
                    "`repaired` stops early: all samples meet its tolerance, and the residual is large beside the latent.",
                    made=lambda a, g: bool(_solves(a).converged.all()),
                ),
            ),
        ),
        Property(
            ("damping",),
            _damped_all,
            "With this `damping` some samples do not converge.",
            mistakes=(
                Mistake(
                    "none", "`damping` = 1 is no damping, and 0 is no step.", made=lambda a, g: a["damping"] in (0, 1)
                ),
                Mistake(
                    "still-overshoots",
                    "`damping`: an eigenvalue near −1.5 becomes 1 − 2.5λ, and with this λ it still overshoots.",
                    made=lambda a, g: abs(1 - 2.5 * a["damping"]) >= 1,
                ),
                Mistake(
                    "too-gentle",
                    "`damping` is so small that 1,000 steps are not enough.",
                    made=lambda a, g: 0 < a["damping"] < 0.2,
                ),
            ),
        ),
    ),
    shows="Ask a number format for no more digits than it has, and an overshooting step for only a part of itself.",
    hints=(
        "(i) How many digits does float32 have, and how large are these latents?",
        "(i) `relative=True` measures the residual by the size of T(u). (ii) What do samples do that swing back and forth?",
        "(ii) The eigenvalue that swings is near −1.5; damped it is 1 − 2.5λ. Choose λ so that it is small.",
    ),
)

EXERCISES = (THREE_POINTS, SECANT, SPECTRUM, REPELLING, SOLVES)
