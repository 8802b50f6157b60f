"""The exercises of chapter 11."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from ...gradients import JFB, ImplicitDifferentiation
from .checks import Exercise, Given, Mistake, Part
from .kinds import Function, Number, Whole, Words
from .running import Student
from .trials import of_rule

# What was the backward pass?


def _share(given: Given) -> float:
    return (1 - 1 / given["whole"]) / (1 - 1 / given["part"])


SHARE = Exercise(
    "ex-11-share",
    parts=(
        Part(
            "share",
            Number(rel=5e-3),
            "the share of a step, between 0 and 1",
            truth=_share,
            mistakes=(
                Mistake(
                    "costs-nothing-now",
                    "`share`: the backward pass still takes some time, a part of what it took.",
                    answer=lambda g: 1 - 1 / g["whole"],
                ),
                Mistake(
                    "per-cent",
                    "`share` is in per cent; a number between 0 and 1 is asked for.",
                    answer=lambda g: 100 * _share(g),
                ),
                Mistake(
                    "ratio-of-ratios",
                    "`share`: write down the time of a step before and after, in units of the one before.",
                    answer=lambda g: g["whole"] / g["part"],
                ),
            ),
        ),
        Part(
            "bound",
            Number(rel=5e-3),
            "how many times as fast training could become at most",
            truth=lambda g: 1 / (1 - _share(g)),
            mistakes=(
                Mistake(
                    "one-over-share",
                    "`bound`: with a backward pass that costs nothing the *rest* remains.",
                    answer=lambda g: 1 / _share(g),
                ),
                Mistake(
                    "no-bound",
                    "`bound` is how much faster the backward pass became; the rest of the step stays as it is.",
                    answer=lambda g: g["part"],
                ),
            ),
        ),
    ),
    shows="However fast one part becomes, the rest of the step bounds the gain, and a few products had taken nearly all of it.",
    hints=(
        "Let the share be s. The new time of a step is 1 − s plus what is left of the backward pass.",
        "What is left is s divided by how many times as fast it became. One over the new time is given.",
        "At most: the backward pass costs nothing.",
    ),
    given={"whole": 1.7, "part": 12.0},
    draw=lambda rng: {"whole": rng.choice((1.3, 1.5, 2.0, 2.4)), "part": rng.choice((5.0, 8.0, 20.0))},
    question=lambda g: (
        f"A paper reports that training became {g['whole']:g} times as fast, and the backward pass {g['part']:g} times. What share of a step had been the backward pass? How much faster could "
        "training have become at most?"
    ),
)

# Turning round


def _terms(rate: float) -> int:
    return math.ceil(math.log(0.1) / math.log(rate))


def _damped(given: Given) -> float:
    return abs(1 - given["damping"] * (1 + given["rate"]))


TURN = Exercise(
    "ex-11-turn",
    parts=(
        Part(
            "undamped",
            Whole(),
            "how many undamped terms leave a tenth",
            truth=lambda g: _terms(g["rate"]),
            mistakes=(
                Mistake(
                    "off-by-one",
                    "`undamped`: k terms lack μ to the power k; look for the first k at which that is a tenth or less.",
                    made=lambda a, g: abs(a["undamped"] - _terms(g["rate"])) == 1,
                ),
                Mistake(
                    "a-hundredth",
                    "`undamped` leaves a hundredth; a tenth is enough.",
                    answer=lambda g: math.ceil(math.log(0.01) / math.log(g["rate"])),
                ),
            ),
        ),
        Part(
            "eigenvalue",
            Number(abs=2e-3),
            "the modulus of B's eigenvalue with that λ",
            truth=_damped,
            mistakes=(
                Mistake(
                    "sign-not-used",
                    "`eigenvalue`: the residuals change their sign, so μ is negative.",
                    answer=lambda g: 1 - g["damping"] * (1 - g["rate"]),
                ),
                Mistake(
                    "rest-forgotten",
                    "`eigenvalue`: B is λJ plus the share 1 − λ.",
                    answer=lambda g: g["damping"] * g["rate"],
                ),
            ),
        ),
        Part(
            "damped",
            Whole(),
            "how many terms are enough with that λ",
            truth=lambda g: _terms(_damped(g)),
            mistakes=(
                Mistake(
                    "sign-not-used",
                    "`damped`: for a μ of the other sign. Damping would make that slower; here it makes it fast.",
                    answer=lambda g: _terms(1 - g["damping"] * (1 - g["rate"])),
                ),
                Mistake("undamped", "`damped` is the number without damping.", answer=lambda g: _terms(g["rate"])),
            ),
        ),
    ),
    shows="Where residuals turn round at each step, a damped series needs hardly any terms.",
    hints=(
        "A residual that shrinks by a factor and changes its sign belongs to a negative eigenvalue μ.",
        "k terms leave μᵏ undamped, and the k-th power of B's eigenvalue damped.",
        "B's eigenvalue is λμ + 1 − λ. Put the negative μ in.",
    ),
    given={"rate": 0.86, "damping": 0.5},
    draw=lambda rng: {"rate": rng.choice((0.8, 0.9, 0.95)), "damping": rng.choice((0.3, 0.35, 0.4))},
    question=lambda g: (
        f"The residuals of a forward iteration shrink by the factor {g['rate']:g} and change their sign at every step. How many undamped terms leave a tenth? With $\\lambda = {g['damping']:g}$, what is the "
        "modulus of the eigenvalue of $B$ that belongs to it, and how many terms are enough?"
    ),
)

# Stopped early


def _of_w(f: Callable[[float], float]) -> Callable[[Given], float]:
    return lambda given: f(given["w"])


def _number(
    name: str, what: str, truth: Callable[[float], float], *mistakes: tuple[str, str, Callable[[float], float]]
) -> Part:
    return Part(
        name,
        Number(),
        what,
        truth=lambda g: truth(g["w"]),
        mistakes=tuple(Mistake(n, f"`{name}`: {says}", answer=_of_w(f)) for n, says, f in mistakes),
    )


EARLY = Exercise(
    "ex-11-early",
    parts=(
        _number(
            "output_jfb",
            "dy/dθ of the output that the loss sees, with JFB's or the exact rule's step, nothing left out",
            lambda w: 1 + w + w**2,
            (
                "fixed-point",
                "this is the derivative of the fixed point, and the solver never came there.",
                lambda w: 1 / (1 - w),
            ),
            (
                "step-forgotten",
                "this is the point where the solver stops; the rule makes a step of its own.",
                lambda w: 1 + w,
            ),
        ),
        _number(
            "output_upg",
            "the same with UPG's two undamped steps",
            lambda w: 1 + w + w**2 + w**3,
            ("one-step", "UPG makes two steps of its own after the solver's two.", lambda w: 1 + w + w**2),
            (
                "fixed-point",
                "this is the derivative of the fixed point, and the solver never came there.",
                lambda w: 1 / (1 - w),
            ),
        ),
        _number(
            "jfb",
            "what JFB says",
            lambda w: 1.0,
            ("slope", "JFB sends g to θ directly, through one step; the slope w plays no part.", lambda w: w),
            ("all-that-was-computed", "JFB leaves out all that came before its own step.", lambda w: 1 + w + w**2),
        ),
        _number(
            "upg",
            "what UPG says",
            lambda w: 1 + w,
            ("one-step", "two steps are recorded.", lambda w: 1.0),
            (
                "all-that-was-computed",
                "UPG forgets the solver's steps and records its own.",
                lambda w: 1 + w + w**2 + w**3,
            ),
        ),
        _number(
            "exact",
            "what the exact rule says",
            lambda w: 1 / (1 - w),
            ("sign", "w is above 1, so 1 − w has another sign.", lambda w: 1 / (w - 1)),
            (
                "all-that-was-computed",
                "the exact rule knows nothing of how far the solver came: it solves for the fixed point.",
                lambda w: 1 + w + w**2,
            ),
        ),
        Part(
            "right_sign",
            Words(("JFB", "UPG", "exact"), many=True),
            "the rules with the right sign",
            truth=lambda g: ["JFB", "UPG"],
            otherwise="`right_sign`: compare what each rule says with the derivative of its own output.",
            mistakes=(
                Mistake(
                    "exact-is-right",
                    "`right_sign`: exact for what? Compare its sign with that of the output's derivative.",
                    made=lambda a, g: "exact" in a["right_sign"],
                ),
            ),
        ),
    ),
    shows="A solver that stops early computes something else than the fixed point, and the exact rule differentiates what was not computed.",
    hints=(
        "Two plain steps from 0 give θ, then wθ + θ.",
        "One more step of T on that is what the loss sees with JFB; with UPG two more.",
        "JFB keeps only the θ that its own step adds; UPG those of its two steps; the exact rule divides by 1 − w.",
    ),
    given={"w": 1.05},
    draw=lambda rng: {"w": rng.choice((1.1, 1.2, 1.25, 1.04))},
    question=lambda g: (
        f"One latent, $T(u) = wu + \\theta$ with $w = {g['w']:g}$. The solver makes two plain steps from zero. The rule then makes its own steps, and the output is what the loss sees. Take JFB, UPG with two "
        "undamped steps, and the exact rule. What is the derivative of the output by $\\theta$, if nothing is left out? And what does each rule say? Which have the right sign?"
    ),
)

# Walk until it is near


def _with_tolerance(tol: float) -> Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]:
    return lambda T, u: ImplicitDifferentiation("neumann", tol=tol, max_steps=500)(T, u)


def _both_graphs(T: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    """The hook on a value whose own graph is that of the products: JFB."""
    return JFB()(T, u)


UNTIL = Exercise(
    "ex-11-until",
    parts=(
        Part(
            "until_rule",
            Function("T, u", "T(u), with a graph", rel=1e-6, off=1e-8),
            "the rule whose backward pass walks until the next arrow is below a tenth of g",
            truth=lambda g: _with_tolerance(0.1),
            observe=lambda f, g: of_rule(f),
            mistakes=(
                Mistake(
                    "jfb",
                    "Backwards this is JFB: the hook is not called, or its result is not returned.",
                    answer=lambda g: _both_graphs,
                ),
                Mistake(
                    "to-the-end",
                    "This walks until nothing is left; a tenth of g is where it should stop.",
                    answer=lambda g: _with_tolerance(1e-12),
                ),
                Mistake("a-hundredth", "It walks on until a hundredth of g.", answer=lambda g: _with_tolerance(0.01)),
            ),
            otherwise='The gradient is not that of `ImplicitDifferentiation("neumann", tol=0.1)`. Is the last arrow, the short one, added or not?',
        ),
    ),
    shows="The adaptive phantom gradient is the exact rule by a Neumann series, stopped early.",
    hints=(
        "You need T twice: once to take products with J, once for the value that is returned.",
        "For the products let u require a gradient: `torch.autograd.grad(value, at, v, retain_graph=True)[0]` is vJ.",
        "Register a hook on the second value, T(u.detach()), which returns walk_until(g, times_J).",
    ),
)

# Beyond one


def _factors(f: Student, given: Given) -> list[float]:
    return [f.number(k, damping) for k in (1, 3, 6) for damping in (0.5, 1.0)]


def _npg(mu: float, k: int, damping: float) -> float:
    B = damping * mu + 1 - damping
    return damping * sum(B**i for i in range(k))


BEYOND = Exercise(
    "ex-11-beyond",
    parts=(
        Part(
            "adjoint",
            Number(),
            "w for g = 1",
            truth=lambda g: 1 / (1 - g["mu"]),
            mistakes=(
                Mistake("sign", "`adjoint`: 1 − μ is negative here.", answer=lambda g: 1 / (g["mu"] - 1)),
                Mistake(
                    "series",
                    "`adjoint`: the series 1 + μ + μ² + … diverges. Solve the equation instead.",
                    made=lambda a, g: math.isinf(a["adjoint"]) or a["adjoint"] > 100,
                ),
            ),
        ),
        Part(
            "npg",
            Function("k, damping", "what NPG hands back for g = 1, a float"),
            "NPG at this slope",
            truth=lambda g: lambda k, damping: _npg(g["mu"], k, damping),
            observe=_factors,
            mistakes=(
                Mistake(
                    "lambda-forgotten",
                    "`npg`: the λ before the sum is missing.",
                    answer=lambda g: lambda k, x: _npg(g["mu"], k, x) / x,
                ),
                Mistake(
                    "undamped", "`npg` does not use the damping.", answer=lambda g: lambda k, x: _npg(g["mu"], k, 1.0)
                ),
                Mistake(
                    "the-limit",
                    "`npg`: this is what the series would reach if it converged.",
                    answer=lambda g: lambda k, x: 1 / (1 - g["mu"]),
                ),
            ),
        ),
        Part(
            "descends",
            Words(("JFB", "NPG", "both", "neither")),
            "which of JFB and NPG descends",
            truth=lambda g: "neither",
            mistakes=(
                Mistake(
                    "enough-terms",
                    "`descends`: with more terms NPG grows. Compare its sign with the adjoint's.",
                    answer=lambda g: "NPG",
                ),
                Mistake(
                    "one-step-is-safe", "`descends`: JFB hands back g. What is the sign of w?", answer=lambda g: "JFB"
                ),
                Mistake("sign-not-compared", "`descends`: compare their sign with that of w.", answer=lambda g: "both"),
            ),
        ),
    ),
    shows="Past a slope of 1 the adjoint has the opposite sign of g, and no number of terms or damping turns a phantom gradient round.",
    hints=(
        "w(1 − μ) = g, also where the series diverges.",
        "NPG is λ(1 + B + … ) with B = λμ + 1 − λ; is B above 1 or below?",
        "A direction descends if its product with the exact gradient is positive: compare signs.",
    ),
    given={"mu": 1.05},
    draw=lambda rng: {"mu": rng.choice((1.1, 1.2, 1.25, 1.5))},
    question=lambda g: (
        f"One latent. A solver finds the fixed point, and the slope there is $\\mu = {g['mu']:g}$. What is the adjoint for $g = 1$? What does NPG hand back, for any $k$ and $\\lambda$? Which of JFB and NPG descends?"
    ),
)

EXERCISES = (SHARE, TURN, EARLY, UNTIL, BEYOND)
