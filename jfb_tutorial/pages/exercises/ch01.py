"""The exercises of chapter 1."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ... import toy
from .checks import Answer, Exercise, Given, Mistake, Part, Property
from .kinds import Array, Function, Number, Whole, Words, YesNo
from .running import Student

# One that has a formula


def _numbers_at(f: Student, given: Given) -> list[float]:
    return [f.number(x / given["a"]) for x in (0.05, 0.12, 0.2)]


def _root(given: Given, sign: int) -> Callable[[float], float]:
    return lambda d: (1 + sign * math.sqrt(1 - 4 * given["a"] * d)) / (2 * given["a"])


def _slope(given: Given, sign: int) -> Callable[[float], float]:
    return lambda d: 1 + sign * math.sqrt(1 - 4 * given["a"] * d)


QUADRATIC = Exercise(
    "ex-01-quadratic",
    parts=(
        Part(
            "lower",
            Function("d", "a float"),
            "the smaller solution",
            truth=lambda g: _root(g, -1),
            observe=_numbers_at,
            mistakes=(
                Mistake(
                    "other-root",
                    "`lower` is a solution, and it is the larger of the two: look at the sign of the square root.",
                    answer=lambda g: _root(g, +1),
                ),
                Mistake(
                    "sign-of-the-square",
                    "`lower` solves the equation with a minus before the square: bring everything to one side once more.",
                    answer=lambda g: lambda d: (math.sqrt(1 + 4 * g["a"] * d) - 1) / (2 * g["a"]),
                ),
            ),
            otherwise="`lower` does not solve the equation: put it in for y and see what is left.",
        ),
        Part(
            "slope",
            Function("d", "a float"),
            "the slope of T at the smaller solution",
            truth=lambda g: _slope(g, -1),
            observe=_numbers_at,
            mistakes=(
                Mistake(
                    "no-factor-from-the-square",
                    "`slope` is the solution, or a multiple of it, and not yet the derivative of T by y: differentiate the square.",
                    answer=lambda g: _root(g, -1),
                ),
                Mistake(
                    "slope-at-the-other",
                    "`slope` is the one at the larger solution.",
                    answer=lambda g: _slope(g, +1),
                ),
            ),
            otherwise="`slope` is not ∂T/∂y at the smaller solution.",
        ),
        Part(
            "attracts",
            Words(("lower", "upper")),
            "the solution that attracts",
            truth=lambda g: "lower",
            mistakes=(
                Mistake(
                    "repelling",
                    "`attracts`: at this solution two neighbours move apart. Compare the slope with 1.",
                    answer=lambda g: "upper",
                ),
            ),
        ),
        Part(
            "fold",
            Number(),
            "the d at which the two solutions meet",
            truth=lambda g: 1 / (4 * g["a"]),
            mistakes=(
                Mistake(
                    "y-for-d",
                    "`fold` is the y at which they meet; the question is for which d.",
                    answer=lambda g: 1 / (2 * g["a"]),
                ),
                Mistake(
                    "flat-point",
                    "`fold` is where T is flat. The solutions meet where T touches the diagonal, so the slope there is another.",
                    answer=lambda g: 0.0,
                ),
            ),
        ),
        Part(
            "derivative",
            Function("d", "a float"),
            "dy/dd at the smaller solution",
            truth=lambda g: lambda d: 1 / math.sqrt(1 - 4 * g["a"] * d),
            observe=_numbers_at,
            mistakes=(
                Mistake(
                    "direct-part-only",
                    "`derivative` is ∂T/∂d alone: y on the right of the equation depends on d too.",
                    answer=lambda g: lambda d: 1.0,
                ),
                Mistake(
                    "upside-down",
                    "`derivative` is upside down: near the fold it has to grow.",
                    answer=lambda g: lambda d: math.sqrt(1 - 4 * g["a"] * d),
                ),
                Mistake(
                    "wrong-sign-of-the-slope",
                    "`derivative` has the wrong sign before the slope: (1 − s) dy/dd = ∂T/∂d.",
                    answer=lambda g: lambda d: 1 / (2 - math.sqrt(1 - 4 * g["a"] * d)),
                ),
            ),
        ),
    ),
    shows="The slope decides both: which solution attracts, and, as it comes near to 1, how large dy/dd grows.",
    hints=(
        "y = d + y² is a quadratic equation in y, and has a formula.",
        "The slope is the derivative of the right-hand side by y, at the solution. A solution attracts where it is between −1 and 1.",
        "For dy/dd differentiate both sides by d, with y a function of d, and solve for it. The fold is where the square root vanishes.",
    ),
    given={"a": 1.0},
    draw=lambda rng: {"a": rng.choice((0.5, 2.0, 2.5, 4.0, 5.0))},
    question=lambda g: (
        f"Take $y = d + {g['a']:g}\\,y^2$. Find the smaller solution for $0 \\le d$, and the slope of $T(y; d) = d + {g['a']:g}\\,y^2$ "
        "there. Which of the two solutions attracts? At which $d$ do they meet? What is $\\mathrm{d}y/\\mathrm{d}d$ at the smaller one?"
    ),
)

# How many steps back?


def _steps_back(f: Student, given: Given) -> list[float]:
    return [f.number(d, count) for d in (0.5, 0.35, -0.45) for count in (1, 2, 4, 7)]


def _s(d: float) -> float:
    return 5 * toy.solve(d).item() ** 4


def _needed(given: Given) -> int:
    return math.ceil(math.log(1 - given["share"]) / math.log(_s(given["d"])))


def _from_zero(d: float, count: int) -> float:
    at = torch.tensor(d, requires_grad=True)
    return torch.autograd.grad(toy.iterate(at, count)[-1], at)[0].item()


STEPS_BACK = Exercise(
    "ex-01-steps-back",
    parts=(
        Part(
            "steps_back_derivative",
            Function("d, count", "dy/dd by autograd, a float", rel=1e-7),
            "dy/dd through the last `count` steps",
            truth=lambda g: lambda d, count: sum(_s(d) ** k for k in range(count)),
            observe=_steps_back,
            mistakes=(
                Mistake(
                    "one-step-only",
                    "The derivative does not grow with `count`: autograd sees a single step. Is y detached inside the loop?",
                    answer=lambda g: lambda d, count: 1.0,
                ),
                Mistake(
                    "one-step-more",
                    "Autograd sees one step more than `count`: is the last step of the solver recorded too?",
                    answer=lambda g: lambda d, count: sum(_s(d) ** k for k in range(count + 1)),
                ),
                Mistake(
                    "through-the-iteration",
                    "This is the gradient through the whole iteration, whatever `count` is: did you detach y*?",
                    answer=lambda g: lambda d, count: 1 / (1 - _s(d)),
                ),
                Mistake(
                    "from-zero",
                    "The steps start at 0. Start them at the fixed point, found without a graph.",
                    answer=lambda g: _from_zero,
                ),
            ),
            otherwise="This is not 1 + s + … with `count` terms, s the slope at the fixed point.",
        ),
        Part(
            "steps",
            Whole(),
            "how many steps give the share of the exact derivative that is asked for",
            truth=_needed,
            mistakes=(
                Mistake(
                    "one-too-few",
                    "`steps`: with so many more than the allowed share is still missing; K steps lack s^K of the whole.",
                    answer=lambda g: _needed(g) - 1,
                ),
                Mistake(
                    "one-too-many",
                    "`steps`: fewer are enough; the first recorded step gives the term 1 already.",
                    answer=lambda g: _needed(g) + 1,
                ),
                Mistake(
                    "slope-at-d",
                    "`steps` takes the slope at d. It is that at the fixed point.",
                    answer=lambda g: math.ceil(math.log(1 - g["share"]) / math.log(5 * g["d"] ** 4)),
                ),
            ),
        ),
    ),
    shows="A few recorded steps from the fixed point hold nearly all of the derivative; the slope says how many.",
    hints=(
        "`toy.solve(d)` returns the fixed point without a graph; from there write y = d + y**5 as often as asked.",
        "Only d needs `requires_grad`. `torch.autograd.grad(y, d)` returns a tuple with one entry.",
        "The sum 1 + s + … with K terms lacks s^K of the whole, s = 5y⁴ at the fixed point. Take logarithms.",
    ),
    given={"d": 0.5, "share": 0.99},
    draw=lambda rng: {"d": rng.choice((0.5, 0.48, 0.46)), "share": rng.choice((0.9, 0.95, 0.98, 0.999))},
    question=lambda g: (
        "Write a function `steps_back_derivative(d, count)` that finds the fixed point of $y = d + y^5$ without a graph, takes `count` steps from there "
        f"with one, and returns $\\mathrm{{d}}y/\\mathrm{{d}}d$ by autograd. How many steps give {100 * g['share']:g}% of the exact derivative at $d = {g['d']:g}$?"
    ),
)

# Never at rest


def _sizes(R: Student) -> list[tuple[float, float]]:
    """Norm and spectral radius of ∂R/∂u for weights from small to large, at points where tanh is steep."""
    found = []
    for scale in (0.5, 1.5, 4.0, 40.0):
        W, b = torch.randn(20, 20), torch.randn(20)
        W = scale * W / torch.linalg.matrix_norm(W, 2)
        u, q = torch.zeros(1, 20), -b.unsqueeze(0)  # the slope of tanh is 1, however W is divided
        J = torch.autograd.functional.jacobian(lambda v: R.tensor((1, 20), v, q, W, b), u).reshape(20, 20)  # noqa: B023
        found.append((torch.linalg.matrix_norm(J, 2).item(), torch.linalg.eigvals(J).abs().max().item()))
    return found


def _listens(R: Student) -> bool:
    """Whether it depends on u, q and W."""
    W, b, u, q = torch.randn(20, 20) / 9, torch.randn(20), torch.randn(3, 20), torch.randn(3, 20)
    at = R.tensor((3, 20), u, q, W, b)
    others = ((u + 1, q, W, b), (u, q + 1, W, b), (u, q, W.T.contiguous(), b))
    return all((R.tensor((3, 20), *other) - at).abs().max() > 1e-6 for other in others)


def _unrepaired(answer: Answer, given: Given) -> bool:
    W, b, u, q = 4 * torch.randn(20, 20), torch.randn(20), torch.randn(3, 20), torch.randn(3, 20)
    return torch.allclose(answer["R"].tensor((3, 20), u, q, W, b), torch.tanh(u @ W.T + b + q))


BREAK = Exercise(
    "ex-01-break",
    parts=(
        Part(
            "rests",
            YesNo(),
            "whether the loop with 4W comes to rest",
            truth=lambda g: False,
            mistakes=(
                Mistake(
                    "looked-at-the-loss",
                    "`rests`: look at the residual after training, not at the loss. What does `solver(…).converged` say?",
                    answer=lambda g: True,
                ),
            ),
        ),
        Part(
            "falls",
            YesNo(),
            "whether its loss falls",
            truth=lambda g: True,
            mistakes=(
                Mistake(
                    "unrest-is-no-obstacle",
                    "`falls`: compare the first loss with the last. A gradient of something is followed, at rest or not.",
                    answer=lambda g: False,
                ),
            ),
        ),
        Part(
            "R",
            Function("u, q, W, b", "the new latent, (batch, 20)"),
            "the repaired step, with rows u and q and W of (20, 20)",
        ),
    ),
    properties=(
        Property(
            ("R",),
            lambda a, g: max(size for size, _ in _sizes(a["R"])) < 1 - 1e-6,
            "For some W two latents are moved apart by `R`.",
            mistakes=(
                Mistake(
                    "unrepaired",
                    "`R` is the old step: with a large W nothing keeps two latents from moving apart.",
                    made=_unrepaired,
                ),
                Mistake(
                    "one-is-not-below-one",
                    "`R` can keep two latents exactly as far apart as they were: a contraction needs a factor below 1.",
                    made=lambda a, g: max(size for size, _ in _sizes(a["R"])) < 1 + 1e-6,
                ),
                Mistake(
                    "radius-for-norm",
                    "`R` keeps the eigenvalues small, and not the norm: two latents can still move apart in one step.",
                    made=lambda a, g: max(radius for _, radius in _sizes(a["R"])) < 1,
                ),
            ),
        ),
        Property(
            ("R",),
            lambda a, g: _listens(a["R"]),
            "`R` has to go on depending on u, on q and on W: a constant contracts too, and learns nothing.",
        ),
    ),
    shows="The loss alone does not tell that the loop never rests; dividing W by its norm makes the step a contraction for every W.",
    hints=(
        "tanh brings no two points further apart, so that all depends on what W does.",
        "W stretches by at most its 2-norm, `torch.linalg.matrix_norm(W, 2)`.",
        "Divide W by its norm where that is too large, and keep a margin: the factor has to stay below 1.",
    ),
)

# Squeezing through


def _curvature() -> float:
    return 10 * (5 ** (-1 / 4)) ** 3


def _passages(f: Student, given: Given) -> list[float]:
    return [f.number(epsilon) for epsilon in (1e-3, 1e-4, 1e-5, 1e-6)]


def _linear(answer: Answer, given: Given) -> bool:
    f = answer["steps"]
    return f.number(1e-6) / f.number(1e-4) > 50


PASSAGE = Exercise(
    "ex-01-passage",
    parts=(
        Part(
            "steps",
            Function("epsilon", "the number of steps that theory predicts", rel=0.03),
            "how long the passage takes",
            truth=lambda g: lambda epsilon: math.pi / math.sqrt(_curvature() * epsilon),
            observe=_passages,
            mistakes=(
                Mistake(
                    "second-derivative-not-halved",
                    "The growth is right and the constant is not: in an expansion to second order the second derivative comes with ½.",
                    answer=lambda g: lambda epsilon: math.pi / math.sqrt(2 * _curvature() * epsilon),
                ),
                Mistake(
                    "half-the-way",
                    "This is half of the way: the passage begins far to the left and ends far to the right.",
                    answer=lambda g: lambda epsilon: math.pi / 2 / math.sqrt(_curvature() * epsilon),
                ),
                Mistake(
                    "gap-over-step",
                    "It grows like 1/ε, as if every step were as short as the shortest. Only those in the middle are.",
                    made=_linear,
                ),
            ),
            otherwise="Compare with the iteration itself: y ← d + y⁵ from 0 with d = toy.RADIUS + ε, until y is above 1.",
        ),
        Part(
            "ghost",
            Words(("above", "below")),
            "whether tolerances above or below ε report a ghost",
            truth=lambda g: "above",
            mistakes=(
                Mistake(
                    "residual-upside-down",
                    "`ghost`: the least residual is ε, in the middle of the gap. Which tolerance does it meet?",
                    answer=lambda g: "below",
                ),
            ),
        ),
    ),
    shows="The passage takes as long as 1/√ε says, and a solver whose tolerance the gap itself meets calls it a fixed point.",
    hints=(
        "At y_c the slope is 1, so that T(y) − y has no linear term: a step moves x = y − y_c by ε plus a multiple of x².",
        "Take the step number as time: ẋ = ε + cx², whose solution is a tangent.",
        "A tangent runs from −∞ to ∞ while its argument moves by π. Its argument here is √(εc) times the time.",
    ),
)

# A quarrel without consequences


def _states(theta: float, d: Tensor) -> Tensor:
    return toy.solve((theta * d).clamp(-0.5, 0.5))


def _rest(d: Tensor, target: Tensor, exact: bool) -> float:
    """Where gradient descent with the exact gradient or one step back ends, from 0.2."""
    theta = 0.2
    for _ in range(400):
        y = _states(theta, d)
        back = (y - target) * d / len(d)
        step = (back / (1 - 5 * y**4) if exact else back).sum().item()
        theta = max(-3.0, min(3.0, theta - step))
        if abs(step) < 1e-12:
            break
    return theta


def _rests(answer: Answer) -> tuple[float, float, float]:
    """θ by the exact gradient and by the shortcut, and how far the first misses a target there."""
    d, target = answer["inputs"], answer["targets"]
    exact, short = (_rest(d, target, which) for which in (True, False))
    return exact, short, (_states(exact, d) - target).abs().max().item()


def _beyond(answer: Answer) -> bool:
    exact, short, _ = _rests(answer)
    return max(abs(exact), abs(short)) * answer["inputs"].abs().max().item() > 0.5


REST = Exercise(
    "ex-01-rest",
    parts=(
        Part("inputs", Array((2,)), "the two inputs d"),
        Part("targets", Array((2,)), "the two targets"),
    ),
    properties=(
        Property(
            ("inputs", "targets"),
            lambda a, g: not _beyond(a),
            "Training takes θd beyond ½, where the fixed point is lost: choose smaller targets.",
        ),
        Property(
            ("inputs", "targets"),
            lambda a, g: _rests(a)[2] > 1e-3,
            "One θ meets both targets, so nothing disagrees.",
            mistakes=(
                Mistake(
                    "fitted",
                    "One θ meets both targets, so nothing disagrees. Make the two measurements contradict each other.",
                    made=lambda a, g: _rests(a)[2] <= 1e-3,
                ),
            ),
        ),
        Property(
            ("inputs", "targets"),
            lambda a, g: abs(_rests(a)[0] - _rests(a)[1]) < 1e-5,
            "The shortcut and the exact gradient come to rest at different θ.",
            mistakes=(
                Mistake(
                    "different-slopes",
                    "The two come to rest at different θ: the weights 1 − s of the two samples differ there. When are they the same?",
                    made=lambda a, g: bool((5 * _states(_rests(a)[0], a["inputs"]) ** 4).diff().abs().max() > 1e-4),
                ),
            ),
        ),
    ),
    shows="Where all samples have the same slope, the shortcut only changes the length of the sum, and rests where the gradient does.",
    hints=(
        "Write down the two sums that vanish at rest: that of the gᵢ, and that of the (1 − sᵢ)gᵢ, up to a common factor.",
        "They vanish together if the slopes are equal.",
        "The slope is 5y⁴ and does not see the sign of y. Choose targets that no θ can meet together.",
    ),
)


EXERCISES = (QUADRATIC, STEPS_BACK, BREAK, PASSAGE, REST)
