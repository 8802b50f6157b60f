"""The exercises of chapter 4."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import torch
from torch import Tensor

from ... import gradients
from ...gradients import JFB, ImplicitDifferentiation, NeumannSeries
from ...solvers import FixedPointIteration
from .checks import Exercise, Given, Mistake, Part
from .kinds import Function, Number, Whole, Words
from .running import Student
from .trials import of_rule

# The rules in one dimension

_SLOPES = (-0.6, 0.3, 0.8)


def _scalar(rule: Any, s: float) -> float:
    """By how much a rule of the package multiplies g, for a slope s."""
    theta = torch.zeros(1, 1, requires_grad=True)
    value = rule(lambda u: s * u + theta, torch.zeros(1, 1))
    return torch.autograd.grad(value.sum(), theta)[0].item()


def _of_s(f: Student, given: Given) -> list[float]:
    return [f.number(s) for s in _SLOPES]


def _of_s_k(f: Student, given: Given) -> list[float]:
    return [f.number(s, k) for s in _SLOPES for k in (1, 2, 4)]


def _of_s_k_damping(f: Student, given: Given) -> list[float]:
    return [f.number(s, k, damping) for s in _SLOPES for k in (1, 3) for damping in (0.5, 0.8)]


SCALAR = Exercise(
    "ex-04-scalar",
    parts=(
        Part(
            "exact",
            Function("s", "the factor on g, a float"),
            "the exact rule",
            truth=lambda g: lambda s: _scalar(ImplicitDifferentiation(tol=1e-12), s),
            observe=_of_s,
            mistakes=(
                Mistake(
                    "sign", "`exact` has the wrong sign before s: w = g + ws.", answer=lambda g: lambda s: 1 / (1 + s)
                ),
                Mistake(
                    "upside-down",
                    "`exact` is upside down: with s near 1 it has to be large.",
                    answer=lambda g: lambda s: 1 - s,
                ),
            ),
        ),
        Part(
            "jfb",
            Function("s", "the factor on g, a float"),
            "JFB",
            truth=lambda g: lambda s: _scalar(JFB(), s),
            observe=_of_s,
            mistakes=(
                Mistake(
                    "ratio-to-the-exact",
                    "`jfb` is its ratio to the exact rule. What does it multiply g by?",
                    answer=lambda g: lambda s: 1 - s,
                ),
                Mistake(
                    "sent-back-once", "`jfb` sends g back as it is, and not through J.", answer=lambda g: lambda s: s
                ),
            ),
        ),
        Part(
            "neumann",
            Function("s, k", "the factor on g, a float"),
            "Neumann with k terms",
            truth=lambda g: lambda s, k: _scalar(NeumannSeries(k), s),
            observe=_of_s_k,
            mistakes=(
                Mistake(
                    "powers-up-to-k",
                    "`neumann` has one term too many: with one term it is JFB.",
                    answer=lambda g: lambda s, k: (1 - s ** (k + 1)) / (1 - s),
                ),
                Mistake(
                    "begins-with-s",
                    "`neumann` begins with s; the first term is g itself.",
                    answer=lambda g: lambda s, k: s * (1 - s**k) / (1 - s),
                ),
            ),
        ),
        Part(
            "npg",
            Function("s, k, damping", "the factor on g, a float"),
            "NPG with k terms and damping λ",
            truth=lambda g: lambda s, k, damping: _scalar(NeumannSeries(k, damping), s),
            observe=_of_s_k_damping,
            mistakes=(
                Mistake(
                    "lambda-twice",
                    "`npg` has a factor λ too many: 1 − B holds one already, and it cancels.",
                    answer=lambda g: lambda s, k, x: x * (1 - (x * s + 1 - x) ** k) / (1 - s),
                ),
                Mistake(
                    "lambda-forgotten",
                    "`npg` sums the powers of B and has forgotten the λ before the sum.",
                    answer=lambda g: lambda s, k, x: (1 - (x * s + 1 - x) ** k) / (x * (1 - s)),
                ),
                Mistake(
                    "no-rest",
                    "`npg`: B is λJ *and* the share 1 − λ of what was there.",
                    answer=lambda g: lambda s, k, x: x * (1 - (x * s) ** k) / (1 - x * s),
                ),
            ),
        ),
        Part(
            "too_long",
            Words(("s < 0", "s > 0", "never", "always")),
            "when JFB is too long",
            truth=lambda g: (
                "s < 0" if _scalar(JFB(), -0.5) > _scalar(ImplicitDifferentiation(tol=1e-12), -0.5) else "s > 0"
            ),
            mistakes=(
                Mistake(
                    "longer-where-slower",
                    "`too_long`: compare 1 with 1/(1 − s) once for each sign.",
                    answer=lambda g: "s > 0",
                ),
            ),
            otherwise="`too_long`: compare 1 with 1/(1 − s) once for each sign.",
        ),
    ),
    shows="In one dimension every rule has the right sign and only the length differs; more dimensions are needed to point the wrong way.",
    hints=(
        "w(1 − s) = g for the exact rule. JFB leaves out the s.",
        "A Neumann series with k terms is a geometric series: g + gs + … with the last power k − 1.",
        "NPG is λg(1 + B + …) with B = λs + 1 − λ, a geometric series as well; write 1 − B in terms of λ and s.",
    ),
)

# A rule of your own

_CASES = ((1, 1.0), (3, 0.5), (5, 0.8))


def _hooked(f: Student, given: Given) -> Tensor:
    return of_rule(f, *_CASES)


def _like(change: Callable[[int, float], tuple[Callable[[int], Any], float, float]]) -> Callable[..., Any]:
    """A wrong rule: of (k, λ), how many terms, the factor before, and what is kept of the last term."""

    def rule(T: Callable[[Tensor], Tensor], u_star: Tensor, k: int, damping: float) -> Tensor:
        terms, factor, kept = change(k, damping)
        u = u_star.detach().requires_grad_()
        v = T(u)

        def replace(g: Tensor) -> Tensor:
            w = term = g
            for _ in range(terms(k) - 1):
                (back,) = torch.autograd.grad(v, u, term, retain_graph=True)
                term = damping * back + kept * term
                w = w + term
            return factor * w

        out = v.clone()
        out.register_hook(replace)
        return out

    return rule


HOOK = Exercise(
    "ex-04-hook",
    parts=(
        Part(
            "phantom",
            Function("T, u_star, k, damping", "T(u*), with a graph", rel=1e-6, off=1e-8),
            "the Neumann phantom gradient with k terms and damping λ, as a backward rule",
            truth=lambda g: lambda T, u_star, k, damping: NeumannSeries(k, damping)(T, u_star),
            observe=_hooked,
            mistakes=(
                Mistake(
                    "jfb",
                    "Backwards this is JFB for every k: the hook changes nothing. Is it registered on the tensor that is returned?",
                    answer=lambda g: _like(lambda k, x: (lambda k: 1, 1.0, 0.0)),
                ),
                Mistake(
                    "one-term-more",
                    "There is one term too many: g itself is the first of k.",
                    answer=lambda g: _like(lambda k, x: (lambda k: k + 1, x, 1 - x)),
                ),
                Mistake(
                    "lambda-forgotten",
                    "The sum is right and the factor λ before it is missing.",
                    answer=lambda g: _like(lambda k, x: (lambda k: k, 1.0, 1 - x)),
                ),
                Mistake(
                    "no-rest",
                    "The next term is λ times the product *and* the share 1 − λ of the term before.",
                    answer=lambda g: _like(lambda k, x: (lambda k: k, x, 0.0)),
                ),
                Mistake(
                    "undamped",
                    "`damping` is not used: this is the undamped series.",
                    answer=lambda g: lambda T, u_star, k, damping: NeumannSeries(k)(T, u_star),
                ),
                Mistake(
                    "solved",
                    "This is the exact gradient, whatever k is: the loop solves until w no longer changes.",
                    answer=lambda g: lambda T, u_star, k, damping: ImplicitDifferentiation(tol=1e-12)(T, u_star),
                ),
            ),
            otherwise="The gradient that reaches the weights is not that of `NeumannSeries(k, damping)`. Compare the two for k = 1, then for k = 2.",
        ),
    ),
    shows="A backward rule is a dozen lines: the value of one step, and a hook that replaces what comes back.",
    hints=(
        "Begin with `exact` of the chapter, and change only what its hook returns.",
        "`torch.autograd.grad(v, u, term, retain_graph=True)` gives term·J; u has to require a gradient, and v = T(u).",
        "Start with w = term = g; k − 1 times replace term by λ·(term·J) + (1 − λ)·term and add it to w; return λ·w.",
    ),
    question=lambda g: (
        "Write a backward rule `phantom(T, u_star, k, damping)` that returns $T(u^\\star)$ and sends back the Neumann phantom gradient "
        "$\\lambda g(I + B + \\dots + B^{k-1})$, $B = \\lambda J + (1 - \\lambda)I$, in place of $g$. Use a hook and vector-Jacobian products, and "
        "no rule of the package."
    ),
)

# The derivative of a ghost


@cache
def _iterated(d: float, tol: float) -> float:
    return FixedPointIteration(tol=tol, max_steps=20_000)(
        lambda y: d + y**5, torch.zeros(1, 1, dtype=torch.float64)
    ).u.item()


def _at(y: float) -> float:
    return 1 / (1 - 5 * y**4)


GHOST = Exercise(
    "ex-04-ghost",
    parts=(
        Part(
            "ghost",
            Number(rel=0.02),
            "what the exact rule returns at the ghost",
            truth=lambda g: _at(_iterated(0.5355, 1e-3)),
            mistakes=(
                Mistake(
                    "slope",
                    "`ghost` is the slope there. The exact rule divides by one minus it.",
                    answer=lambda g: 5 * _iterated(0.5355, 1e-3) ** 4,
                ),
                Mistake(
                    "sign",
                    "`ghost` has the wrong sign before the slope.",
                    answer=lambda g: 1 / (1 + 5 * _iterated(0.5355, 1e-3) ** 4),
                ),
                Mistake("jfb", "`ghost` is what JFB returns there, one step.", answer=lambda g: 1.0),
            ),
        ),
        Part(
            "before",
            Number(rel=0.01),
            "dy/dd at d = 0.5349",
            truth=lambda g: _at(_iterated(0.5349, 1e-14)),
            mistakes=(
                Mistake(
                    "stopped-early",
                    "`before` is computed at a point that is not yet the fixed point: near the fold the iteration is slow. Ask for a smaller tolerance.",
                    made=lambda a, g: 1 < a["before"] < 0.985 * _at(_iterated(0.5349, 1e-14)),
                ),
                Mistake("jfb", "`before` is one step's derivative.", answer=lambda g: 1.0),
            ),
        ),
        Part(
            "told",
            Words(("a tighter tolerance", "the slope at the point", "a more accurate adjoint")),
            "what would have told you",
            truth=lambda g: "a tighter tolerance",
            mistakes=(
                Mistake(
                    "trusts-the-point",
                    "`told`: at the ghost the slope is below 1, as at an honest fixed point. It says nothing.",
                    answer=lambda g: "the slope at the point",
                ),
                Mistake(
                    "exact-derivative-of-nothing",
                    "`told`: the adjoint is exact already; it is the derivative of something that is not there.",
                    answer=lambda g: "a more accurate adjoint",
                ),
            ),
        ),
    ),
    shows="The exact rule differentiates whatever point it is given; only the forward solve can tell that there is no solution.",
    hints=(
        "The exact rule knows the point and the slope there, nothing else.",
        "For `before` run the iteration from 0 until it is really at rest, 1e-14; that takes some hundred steps.",
        "Ask yourself what the iteration does at d = 0.5355 after it has passed the narrow place.",
    ),
)

# A few eigenvalues


@cache
def _products(solver: str, count: int) -> int:
    """What `tally` counts for a symmetric J of size 100 with so many different eigenvalues."""
    generator = torch.Generator().manual_seed(0)
    P = torch.linalg.qr(torch.randn(100, 100, generator=generator, dtype=torch.float64))[0]
    eigenvalues = torch.tensor(list(itertools.islice(itertools.cycle(_eigenvalues(count)), 100)), dtype=torch.float64)
    A = (P * eigenvalues) @ P.T
    b = torch.randn(1, 100, generator=generator, dtype=torch.float64).requires_grad_()
    value = ImplicitDifferentiation(solver, tol=1e-10)(lambda u: u @ A + b, torch.zeros(1, 100, dtype=torch.float64))
    with gradients.tally() as tally:
        (value * torch.randn(1, 100, generator=generator, dtype=torch.float64)).sum().backward()
    return tally.products


def _eigenvalues(count: int) -> list[float]:
    """So many, the book's three among them."""
    return [-0.9, 0.3, 0.9, -0.4, 0.6, -0.7][:count]


def _draw_count(rng: Random) -> dict[str, Any]:
    return {"count": rng.choice((2, 4, 5))}


EIGENVALUES = Exercise(
    "ex-04-eigenvalues",
    parts=(
        Part(
            "gmres",
            Whole(),
            "products that GMRES makes, as gradients.tally() counts them, with tol=1e-10",
            truth=lambda g: _products("gmres", g["count"]),
            mistakes=(
                Mistake(
                    "steps-for-products",
                    "`gmres` is the number of its steps. A step is a product; what else does the package measure before it returns?",
                    answer=lambda g: g["count"],
                ),
                Mistake(
                    "one-a-dimension",
                    "`gmres`: so many only where all eigenvalues differ. Which polynomial vanishes on these?",
                    answer=lambda g: 100,
                ),
            ),
        ),
        Part(
            "cg",
            Whole(),
            "products that CG on the normal equations makes",
            truth=lambda g: _products("cg", g["count"]),
            mistakes=(
                Mistake(
                    "steps-for-products",
                    "`cg` is the number of its steps, and a step multiplies by I − J and by its transpose.",
                    answer=lambda g: g["count"],
                ),
                Mistake(
                    "two-a-step",
                    "`cg`: two a step is the rule. The right-hand side and the residual need products too, and the last step does without one.",
                    answer=lambda g: 2 * g["count"],
                ),
                Mistake(
                    "one-a-dimension",
                    "`cg`: the normal equations have as few different eigenvalues as J here.",
                    answer=lambda g: 100,
                ),
            ),
        ),
    ),
    shows="A Krylov method needs as many steps as there are different eigenvalues: a polynomial can vanish on all of them.",
    hints=(
        "After k steps GMRES has the best polynomial of degree k with value 1 at 1, applied to J.",
        "(I − J)(I − J)ᵀ has as many different eigenvalues as J, if J is symmetric.",
        "Measure it: `with gradients.tally() as count:` around the backward pass, then `count.products`.",
    ),
    given={"count": 3},
    draw=_draw_count,
    question=lambda g: (
        f"$J$ is symmetric, of size 100, with only {g['count']} different eigenvalues, "
        + ", ".join(f"${x:g}$" for x in _eigenvalues(g["count"]))
        + '. How many products does `ImplicitDifferentiation("gmres", tol=1e-10)` make for the exact $w$, and how many does `"cg"`? Predict, then '
        "measure with `gradients.tally()`."
    ),
)

EXERCISES = (SCALAR, HOOK, GHOST, EIGENVALUES)
