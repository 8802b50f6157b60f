"""The exercises of chapter 6."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .checks import Answer, Exercise, Given, Mistake, Part, Property
from .kinds import Array, Function, Number, Words, YesNo
from .running import Student

# One number, three rules


def _sum(J: float, k: int, damping: float = 1.0) -> float:
    B = damping * J + 1 - damping
    return damping * sum(B**i for i in range(k))


WARM_UP = Exercise(
    "ex-06-warm-up",
    parts=(
        Part(
            "w",
            Number(),
            "the adjoint",
            truth=lambda g: 1 / (1 - g["J"]),
            mistakes=(
                Mistake("sign", "`w` has the wrong sign before J: w = g + wJ.", answer=lambda g: 1 / (1 + g["J"])),
                Mistake(
                    "upside-down", "`w`: the equation is w(1 − J) = g; solve it for w.", answer=lambda g: 1 - g["J"]
                ),
            ),
        ),
        Part(
            "one",
            Number(),
            "what JFB hands back",
            truth=lambda g: _sum(g["J"], 1),
            mistakes=(Mistake("through-J", "`one`: JFB sends g itself, not gJ.", answer=lambda g: g["J"]),),
        ),
        Part(
            "two",
            Number(),
            "what two terms hand back",
            truth=lambda g: _sum(g["J"], 2),
            mistakes=(
                Mistake(
                    "sign-of-J",
                    "`two`: J is negative, so the second arrow turns back.",
                    answer=lambda g: _sum(-g["J"], 2),
                ),
                Mistake(
                    "last-term-alone",
                    "`two` is the second term alone; the rule hands back the sum.",
                    answer=lambda g: g["J"],
                ),
            ),
        ),
        Part(
            "three",
            Number(),
            "what three terms hand back",
            truth=lambda g: _sum(g["J"], 3),
            mistakes=(
                Mistake(
                    "sign-of-J",
                    "`three`: the terms alternate in sign, since J is negative.",
                    answer=lambda g: _sum(-g["J"], 3),
                ),
                Mistake(
                    "last-term-alone",
                    "`three` is the third term alone; the rule hands back the sum.",
                    answer=lambda g: g["J"] ** 2,
                ),
            ),
        ),
        Part(
            "damping",
            Number(),
            "the λ for which one term is exact",
            truth=lambda g: 1 / (1 - g["J"]),
            mistakes=(
                Mistake("too-large", "`damping` lies between 0 and 1: λg = w.", answer=lambda g: 1 - g["J"]),
                Mistake("size-of-J", "`damping`: one damped term is λg. Set it equal to w.", answer=lambda g: -g["J"]),
            ),
        ),
    ),
    shows="The undamped walk jumps over w and back; with the right λ the first step lands on it.",
    hints=(
        "In one dimension w = g + wJ is one equation for one number.",
        "The terms are g, gJ, gJ², …; a rule of k terms hands back their sum.",
        "One damped term is λg. For which λ is it w?",
    ),
    given={"J": -0.5},
    draw=lambda rng: {"J": rng.choice((-0.2, -0.4, -0.6, -0.8))},
    question=lambda g: (
        f"One latent, $T(u) = {g['J']:g}\\,u + \\theta$, and $g = 1$. What is $w$? What do JFB, two terms and three terms hand back, without damping? And which $\\lambda$ makes *one* "
        "term exact?"
    ),
)

# The best damping


def _pairs(f: Student, given: Given) -> list[float]:
    return [f.number(a, b) for a, b in ((-1.3, 0.5), (-0.9, 0.8), (0.1, 0.9), (-4.0, 0.0))]


DAMPING = Exercise(
    "ex-06-damping",
    parts=(
        Part(
            "broken",
            Number(rel=0.01),
            "‖K‖ of twenty undamped terms",
            truth=lambda g: max(abs(g["a"]), abs(g["b"])) ** 20,
            mistakes=(
                Mistake(
                    "the-other-end",
                    "`broken` is what the end b leaves. The largest modulus decides.",
                    answer=lambda g: abs(g["b"]) ** 20,
                ),
                Mistake(
                    "one-term",
                    "`broken` is for one term; each further term multiplies by J once more.",
                    answer=lambda g: abs(g["a"]),
                ),
                Mistake(
                    "nineteen",
                    "`broken` is for a term fewer: what k terms lack is J to the power k.",
                    answer=lambda g: abs(g["a"]) ** 19,
                ),
            ),
        ),
        Part(
            "best",
            Function("a, b", "the λ, a float", rel=2e-3),
            "the λ that makes ‖B‖ smallest",
            truth=lambda g: lambda a, b: 2 / (2 - a - b),
            observe=_pairs,
            mistakes=(
                Mistake(
                    "sign-of-a",
                    "`best`: here the interval is [a, b], and a carries its own sign.",
                    answer=lambda g: lambda a, b: 2 / (2 + a - b),
                ),
                Mistake(
                    "one-end-zero",
                    "`best` makes the end a vanish, and leaves b where it is.",
                    answer=lambda g: lambda a, b: 1 / (1 - a),
                ),
                Mistake(
                    "the-middle-lost",
                    "`best`: ask that the two ends 1 − λ(1 − a) and 1 − λ(1 − b) sum to zero.",
                    answer=lambda g: lambda a, b: 1 / (2 - a - b),
                ),
            ),
        ),
        Part(
            "size",
            Function("a, b", "‖B‖ at that λ, a float", rel=2e-3),
            "how small ‖B‖ is then",
            truth=lambda g: lambda a, b: (b - a) / (2 - a - b),
            observe=_pairs,
            mistakes=(
                Mistake(
                    "undamped", "`size` is ‖J‖, without damping.", answer=lambda g: lambda a, b: max(abs(a), abs(b))
                ),
                Mistake(
                    "half-the-interval",
                    "`size` is half the interval; λ has shrunk it.",
                    answer=lambda g: lambda a, b: (b - a) / 2,
                ),
            ),
        ),
        Part(
            "allowed",
            Words(("a + b <= 0", "a + b >= 0", "always")),
            "when that λ is at most 1",
            truth=lambda g: "a + b <= 0",
            mistakes=(
                Mistake(
                    "inequality-turned",
                    "`allowed`: try a = −1.3, b = 0.5, and then b alone larger.",
                    answer=lambda g: "a + b >= 0",
                ),
                Mistake(
                    "always",
                    "`allowed`: with all eigenvalues positive one would like to go further than a whole step.",
                    answer=lambda g: "always",
                ),
            ),
        ),
    ),
    shows="The best λ balances the two ends of the spectrum, and ‖B‖ is then below 1 however negative the eigenvalues are.",
    hints=(
        "What k terms lack is Jᵏ undamped, Bᵏ damped; of a symmetric matrix the largest |eigenvalue| is the norm.",
        "The eigenvalues of B are 1 − λ(1 − μ), between the values for μ = a and μ = b.",
        "The larger of two moduli is least where the two values are opposite. Put that λ in to get ‖B‖.",
    ),
    given={"a": -1.3, "b": 0.5},
    draw=lambda rng: {"a": rng.choice((-1.1, -1.2, -1.5)), "b": rng.choice((0.4, 0.6, 0.8))},
    question=lambda g: (
        f"$J$ is symmetric with eigenvalues in $[a, b]$, $b < 1$. With $a = {g['a']:g}$, $b = {g['b']:g}$: what is $\\|K\\|$ of twenty undamped terms? For any $a$, $b$: which "
        "$\\lambda > 0$ makes $\\|B\\|$ smallest, and what is it then? When is that $\\lambda$ at most 1?"
    ),
)

# A gradient of what?

Field = Callable[[Tensor], Tensor]


def _gradient_field() -> Field:
    A = torch.randn(2, 2)
    A, b = A + A.T, torch.randn(2)
    return lambda theta: theta @ A + b * (b @ theta).cos()


def _turning(part: float) -> Field:
    """A gradient field plus a turn, whose share of the derivative is given."""
    A = torch.tensor([[1.0, 0.3], [0.3, -0.5]])
    A, turn = A / A.norm(), torch.tensor([[0.0, 1.0], [-1.0, 0.0]]) / 2**0.5
    return lambda theta: theta @ (A * (1 - part) + turn * part)


def _measure(answer: Answer, field: Field) -> float:
    return answer["asymmetry"].number(
        lambda theta: field(torch.as_tensor(theta, dtype=torch.float64)), torch.tensor([0.3, -0.2])
    )


CURL = Exercise(
    "ex-06-curl",
    parts=(
        Part(
            "asymmetry",
            Function("field, theta", "a number, 0 for a gradient field"),
            "how asymmetric the derivative of field is at theta, both of shape (2,)",
        ),
        Part(
            "jfb",
            YesNo(),
            "whether JFB's direction is the gradient of anything",
            truth=lambda g: False,
            mistakes=(
                Mistake(
                    "descent-for-gradient",
                    "`jfb`: it descends on something, often; being a gradient is more. Measure.",
                    answer=lambda g: True,
                ),
            ),
        ),
        Part(
            "upg",
            YesNo(),
            "whether UPG's is",
            truth=lambda g: False,
            mistakes=(
                Mistake(
                    "start-held-fixed",
                    "`upg`: for a start that stays where it is, yes. But here the start is u*(θ), and moves with the weights.",
                    answer=lambda g: True,
                ),
            ),
        ),
    ),
    properties=(
        Property(
            ("asymmetry",),
            lambda a, g: abs(_measure(a, _gradient_field())) < 1e-5,
            "On the gradient of a function `asymmetry` should be 0 up to rounding.",
            mistakes=(
                Mistake(
                    "sum-for-difference",
                    "`asymmetry` is largest where the derivative is symmetric: take D minus its transpose, not plus.",
                    made=lambda a, g: abs(_measure(a, _turning(1.0))) < 1e-5,
                ),
                Mistake(
                    "whole-derivative",
                    "`asymmetry` measures the derivative as a whole; its symmetric part should not count.",
                    made=lambda a, g: abs(_measure(a, _turning(1.0))) > 1e-5,
                ),
            ),
        ),
        Property(
            ("asymmetry",),
            lambda a, g: abs(_measure(a, _turning(1.0))) > abs(_measure(a, _turning(0.3))) > 1e-3,
            "`asymmetry` should grow with the part of a field that turns.",
            mistakes=(
                Mistake(
                    "always-zero",
                    "`asymmetry` is 0 for a turn as well: it sees nothing.",
                    made=lambda a, g: abs(_measure(a, _turning(1.0))) < 1e-5,
                ),
                Mistake(
                    "yes-or-no",
                    "`asymmetry` is the same for a little turning and for much.",
                    made=lambda a, g: abs(_measure(a, _turning(1.0)) - _measure(a, _turning(0.3))) < 1e-6,
                ),
            ),
        ),
    ),
    shows="The derivative of a gradient is symmetric, and neither JFB's nor UPG's direction has that: they are gradients of nothing.",
    hints=(
        "Differentiate the field by each of the two weights, by central differences with a step such as 1e-4.",
        "That is a 2 × 2 matrix D. For a gradient field it is a Hessian, and so symmetric.",
        "Return a number of what is left of D − Dᵀ, divided by the size of D if you like.",
    ),
)

# Fewer weights than latents


def _rows(answer: Answer, *, turned: bool = False) -> tuple[float, float]:
    """gb and wb."""
    J = answer["J"].T if turned else answer["J"]
    w = torch.linalg.solve(torch.eye(2) - J, answer["g"].unsqueeze(0), left=False)[0]
    return float(answer["g"] @ answer["b"]), float(w @ answer["b"])


FEW = Exercise(
    "ex-06-few",
    parts=(
        Part("J", Array((2, 2)), "the Jacobian"),
        Part("b", Array((2,)), "∂T/∂θ"),
        Part("g", Array((2,)), "the row that arrives"),
    ),
    properties=(
        Property(
            ("J",),
            lambda a, g: bool(torch.linalg.eigvals(a["J"]).abs().max() < 1),
            "`J` has an eigenvalue of modulus 1 or more, so that the iteration does not come to rest.",
        ),
        Property(
            ("J", "b", "g"),
            lambda a, g: abs(_rows(a)[0]) < 1e-9,
            "JFB gives the weight something here: it is not exactly zero.",
            mistakes=(
                Mistake(
                    "exact-for-jfb",
                    "You have made the *exact* gradient zero. JFB's should be, and the exact one should not.",
                    made=lambda a, g: abs(_rows(a)[1]) < 1e-9,
                ),
            ),
        ),
        Property(
            ("J", "b", "g"),
            lambda a, g: abs(_rows(a)[1]) > 1e-6,
            "The exact gradient is zero as well.",
            mistakes=(
                Mistake(
                    "nothing-sent",
                    "Nothing is sent, or nothing depends on the weight: both gradients are 0.",
                    made=lambda a, g: not (a["g"].any() and a["b"].any()),
                ),
                Mistake(
                    "column-for-row",
                    "The exact gradient is zero: you have solved (I − J)w = g for a column. Here g is a row, w(I − J) = g.",
                    made=lambda a, g: abs(_rows(a, turned=True)[1]) > 1e-6,
                ),
                Mistake(
                    "J-does-not-turn",
                    "The exact gradient is zero as well: J has to turn g towards b on its way back.",
                    made=lambda a, g: abs(_rows(a)[1]) < 1e-9,
                ),
            ),
        ),
    ),
    shows="With fewer weights than latents no condition can hold, and JFB may see nothing where there is a gradient.",
    hints=(
        "One weight is enough: T(u; θ) = Ju + bθ. What reaches it is the adjoint times b.",
        "JFB gives it gb, the exact rule wb with w(I − J) = g.",
        "Choose g at right angles to b, and a J that carries a part of g over to b.",
    ),
)


EXERCISES = (WARM_UP, DAMPING, CURL, FEW)
