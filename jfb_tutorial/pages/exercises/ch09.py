"""The exercises of chapter 9."""

from __future__ import annotations

import math

from .checks import Exercise, Given, Mistake, Part
from .kinds import Function, Number
from .running import Student

# Nine times the input


def _multiples(f: Student, given: Given) -> list[float]:
    return [f.number(gamma) for gamma in (0.5, 0.75, 0.9)]


def _steps(gamma: float, size: float, tol: float) -> int:
    return math.ceil(math.log(tol / size) / math.log(gamma))


def _counts(f: Student, given: Given) -> list[float]:
    return [f.number(*of) for of in ((0.9, 100.0, 1e-4), (0.5, 100.0, 1e-4), (0.7, 3.0, 0.5))]


NINE = Exercise(
    "ex-09-nine",
    parts=(
        Part(
            "multiple",
            Function("gamma", "u* in units of q, a float"),
            "which multiple of q the equilibrium is",
            truth=lambda g: lambda gamma: gamma / (1 - gamma),
            observe=_multiples,
            mistakes=(
                Mistake(
                    "inverse-of-the-rest",
                    "This is the sum of the series from its first term 1 on. q comes in through γ, too.",
                    answer=lambda g: lambda gamma: 1 / (1 - gamma),
                ),
            ),
        ),
        Part(
            "steps",
            Function("gamma, size, tol", "how many evaluations of R, a whole number"),
            "evaluations of R until the residual is at most tol, from u = 0, with ‖q‖ = size",
            truth=lambda g: _steps,
            observe=_counts,
            mistakes=(
                Mistake(
                    "one-too-few",
                    "The first evaluation, from 0 to γq, leaves the residual γ‖q‖, and not ‖q‖.",
                    answer=lambda g: lambda gamma, size, tol: _steps(gamma, size, tol) - 1,
                ),
                Mistake(
                    "one-too-many",
                    "After the n-th evaluation two iterates differ by γⁿ‖q‖.",
                    answer=lambda g: lambda gamma, size, tol: _steps(gamma, size, tol) + 1,
                ),
                Mistake(
                    "error-for-residual",
                    "This is when the *distance* to the equilibrium is below tol. What is compared with tol is the difference of two iterates.",
                    answer=lambda g: (
                        lambda gamma, size, tol: math.ceil(math.log(tol * (1 - gamma) / size) / math.log(gamma)) - 1
                    ),
                ),
            ),
        ),
        Part(
            "jfb",
            Function("gamma", "JFB's gradient in units of the exact one, a float"),
            "JFB's derivative with respect to q in units of the exact one",
            truth=lambda g: lambda gamma: 1 - gamma,
            observe=_multiples,
            mistakes=(
                Mistake(
                    "upside-down",
                    "This is the exact one in units of JFB's.",
                    answer=lambda g: lambda gamma: 1 / (1 - gamma),
                ),
                Mistake(
                    "step-for-ratio",
                    "This is JFB's derivative itself. Divide by the exact one.",
                    answer=lambda g: lambda gamma: gamma,
                ),
            ),
        ),
    ),
    shows="A network without a branch multiplies its input, and JFB's gradient then has the exact direction, at a tenth of its length for γ = 0.9.",
    hints=(
        "Put u = γ(u + q) and solve for u.",
        "From 0 the iterates are γq, (γ + γ²)q, (γ + γ² + γ³)q. How far are two neighbours apart?",
        "JFB differentiates one evaluation at u* held fixed: γ(u + q) with respect to q. The exact derivative is that of the multiple.",
    ),
    question=lambda g: (
        "Let $R(u, q) = \\gamma\\,(u + q)$ with $0 < \\gamma < 1$. Which multiple of $q$ is its equilibrium? How many evaluations of $R$ does the iteration from $u = 0$ need until the "
        "difference of two iterates is at most a tolerance? And how long is JFB's derivative with respect to $q$, in units of the exact one?"
    ),
)

# A branch that is never small enough


def _recursion(beta: float, n: int) -> float:
    for _ in range(n):
        beta /= 1 + beta**2
    return beta


def _laws(f: Student, given: Given) -> list[float]:
    return [f.number(*of) for of in ((0.13, 400), (0.3, 100), (0.05, 5000))]


def _halves(f: Student, given: Given) -> list[float]:
    return [f.number(beta) for beta in (0.13, 0.3, 0.05)]


SHRINK = Exercise(
    "ex-09-shrink",
    parts=(
        Part(
            "law",
            # the law of small steps and the recursion itself differ by a little
            Function("beta, n", "what is left of beta after n scalings, a float", rel=0.04),
            "the stretch of the branch after n scalings",
            truth=lambda g: _recursion,
            observe=_laws,
            mistakes=(
                Mistake(
                    "one-convolution",
                    "Both convolutions of the branch are divided, so that the branch changes by the square of the factor.",
                    answer=lambda g: lambda beta, n: beta / math.sqrt(1 + n * beta**2),
                ),
                Mistake(
                    "geometric",
                    "The factor of the first scaling is not that of the others: the smaller the branch, the less is taken from it.",
                    answer=lambda g: lambda beta, n: beta / (1 + beta**2) ** n,
                ),
            ),
        ),
        Part(
            "half",
            Function("beta", "how many scalings, a float", rel=0.1),
            "the number of scalings that halve the stretch",
            truth=lambda g: lambda beta: 1.5 / beta**2,
            observe=_halves,
            mistakes=(
                Mistake(
                    "half-for-quarter",
                    "β² has to fall to a quarter for β to fall to a half.",
                    answer=lambda g: lambda beta: 0.5 / beta**2,
                ),
                Mistake(
                    "geometric-half",
                    "This would be so if each scaling took the same share. The share falls with β.",
                    answer=lambda g: lambda beta: math.log(2) / math.log1p(beta**2),
                ),
            ),
        ),
    ),
    shows="A check that something linear already meets exactly is never met with anything more: the rule drives the branch to nothing, like one over a square root.",
    hints=(
        "Two independent directions of sizes 1 and β have together the size √(1 + β²).",
        "The factor 1/√(1 + β²) goes to both convolutions. What does that make of β²?",
        "Look at 1/β²: by how much does one scaling change it, where β is small?",
    ),
    question=lambda g: (
        "A branch of two convolutions stretches a random direction by $\\beta$, independently of the identity, so that $\\gamma\\,(1 + \\mathrm{branch})$ stretches it by "
        "$\\gamma\\sqrt{1 + \\beta^2}$. A scaling divides the weights of both convolutions by $\\sqrt{1 + \\beta^2}$. What is left of $\\beta$ after $n$ scalings, where $\\beta$ is "
        "small? How many halve it?"
    ),
)

# What a count costs


def _costs(f: Student, given: Given) -> list[float]:
    return [f.number(*of) for of in ((19.4, 30.0, 170.0), (1.9, 9.0, 70.0))]


COUNT = Exercise(
    "ex-09-count",
    parts=(
        Part(
            "steps",
            Number(rel=0.02),
            "steps of CG an image and pass, SVHN",
            truth=lambda g: 1.4e7 / (g["images"] * g["passes"]),
            mistakes=(
                Mistake(
                    "one-pass",
                    "This is the count of all passes for one image.",
                    answer=lambda g: 1.4e7 / g["images"],
                ),
            ),
        ),
        Part(
            "products",
            Function("steps", "products with J, a float"),
            "products with J that the paper's code makes for so many steps",
            truth=lambda g: lambda steps: 4 + 6 * steps,
            observe=lambda f, g: [f.number(s) for s in (1, 1.9, 19.4)],
            mistakes=(
                Mistake(
                    "start-forgotten",
                    "Before the first step the code makes products, too: for the right-hand side and for the start.",
                    answer=lambda g: lambda steps: 6 * steps,
                ),
                Mistake(
                    "as-counted",
                    "The code counts steps. In each there are several products.",
                    answer=lambda g: lambda steps: steps,
                ),
            ),
        ),
        Part(
            "adjoint",
            Function("steps, left, right", "milliseconds, a float"),
            "the time of the adjoint, if a product from the left and one from the right take so long",
            truth=lambda g: lambda steps, left, right: (4 + 6 * steps) * (left + right) / 2,
            observe=_costs,
            mistakes=(
                Mistake(
                    "left-alone",
                    "Half of the products are with J from the right, and these are the dearer half.",
                    answer=lambda g: lambda steps, left, right: (4 + 6 * steps) * left,
                ),
                Mistake(
                    "both-for-each",
                    "Each product is of one of the two kinds.",
                    answer=lambda g: lambda steps, left, right: (4 + 6 * steps) * (left + right),
                ),
            ),
        ),
    ),
    shows="What makes the published exact rule dear is how many products it makes, and of which kind; the size of the network makes the rest dearer.",
    hints=(
        "The printed count is over all images and passes: divide by both.",
        "The chapter says how many products a step makes, and how many come before the first.",
        "Conjugate gradients on the normal equations need J from either side equally often.",
    ),
    given={"images": 73_257, "passes": 100},
    question=lambda g: (
        f"Table 2 gives 1.4·10⁷ for SVHN, with {g['images']:,} images and {g['passes']} passes; its code counts steps of conjugate gradients. How many steps is that for an image in a pass? The code "
        "makes 4 products before the first step and 6 in each, half of them with $J$ from the left and half from the right. How many products do $s$ steps make, and how long do they take, if a "
        "product from the left takes `left` milliseconds and one from the right `right`?"
    ),
)

EXERCISES = (NINE, SHRINK, COUNT)
