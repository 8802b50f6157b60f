"""The exercises of chapter 10."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from ...solvers import Anderson, FixedPointIteration
from ...solvers.iteration import sample_norm
from .checks import Exercise, Given, Mistake, Part
from .kinds import Array, Function, Number, Whole, YesNo
from .recorded import book_file, record
from .running import Student

# A roofline for your machine

_WORK = ((1e12, 2e9, 1e14, 1e12), (1e12, 3e11, 1e14, 1e12), (2e13, 2.5e11, 1e14, 1e12))


def _roofs(f: Student, given: Given) -> list[float]:
    return [f.number(*each) for each in _WORK]


ROOFLINE = Exercise(
    "ex-10-roofline",
    parts=(
        Part(
            "seconds",
            Function("operations, bytes, peak, band", "seconds, a float"),
            "the time of one part of a step by the roofline: peak in operations, band in bytes a second",
            truth=lambda g: lambda ops, size, peak, band: max(ops / peak, size / band),
            observe=_roofs,
            mistakes=(
                Mistake(
                    "sum-of-both",
                    "You have added the two times. Arithmetic and traffic overlap: the longer one decides.",
                    answer=lambda g: lambda o, b, p, w: o / p + b / w,
                ),
                Mistake("arithmetic-alone", "The bytes do not count yet.", answer=lambda g: lambda o, b, p, w: o / p),
                Mistake(
                    "the-shorter",
                    "This is the shorter of the two times; both have to be over.",
                    answer=lambda g: lambda o, b, p, w: min(o / p, b / w),
                ),
            ),
        ),
        Part(
            "gain",
            Function("operations, bytes, peak, band", "how many times as fast, a float"),
            "what moving only half of the bytes gains",
            truth=lambda g: lambda o, b, p, w: max(o / p, b / w) / max(o / p, b / w / 2),
            observe=_roofs,
            mistakes=(
                Mistake(
                    "always-twice",
                    "`gain`: only where bytes are the limit, and remain it.",
                    answer=lambda g: lambda o, b, p, w: 2.0,
                ),
                Mistake(
                    "all-or-nothing",
                    "`gain`: there is a case between: bytes are the limit before, and arithmetic after.",
                    answer=lambda g: lambda o, b, p, w: 2.0 if b / w > o / p else 1.0,
                ),
                Mistake(
                    "upside-down",
                    "`gain` is the new time over the old one.",
                    answer=lambda g: lambda o, b, p, w: max(o / p, b / w / 2) / max(o / p, b / w),
                ),
            ),
        ),
    ),
    shows="Merging calls helps where bytes are the limit, and only until arithmetic takes over.",
    hints=(
        "A part needs operations/peak seconds for arithmetic and bytes/band for traffic, at the same time.",
        "The roof is the larger of the two.",
        "For the gain compute the roof with all the bytes and with half of them, and divide.",
    ),
)

# Stop early


def _stop(within: float = 0.001, *, first: bool = False) -> int:
    after = record("records/cifar10-inspected.json")["result"]["after"]
    end = after[-1]["accuracy"]
    if first:
        return next(row["steps"] for row in after if row["accuracy"] > end - within)
    return 1 + max((row["steps"] for row in after if row["accuracy"] <= end - within), default=0)


def _average(never: int | None = 32) -> float:
    result = record("records/cifar10-inspected.json")["result"]
    rows = [(row["steps"] or never, row["images"]) for row in result["needed"] if row["steps"] or never is not None]
    return sum(steps * images for steps, images in rows if steps) / sum(images for _, images in rows)


EARLY = Exercise(
    "ex-10-early",
    parts=(
        Part(
            "k",
            Whole(),
            "the smallest number of steps from which on all are within a tenth of a point",
            truth=lambda g: _stop(),
            mistakes=(
                Mistake(
                    "a-whole-point",
                    "`k` allows a whole point; a tenth was asked for: 0.001 of all images.",
                    answer=lambda g: _stop(0.01),
                ),
                Mistake(
                    "exactly-the-end",
                    "`k` waits for the accuracy of the end itself, to the last image.",
                    answer=lambda g: _stop(1e-9),
                ),
                Mistake(
                    "off-by-one",
                    "`k`: is this the last number of steps that misses, or the first from which on none does?",
                    made=lambda a, g: abs(a["k"] - _stop()) == 1,
                ),
            ),
        ),
        Part(
            "steps",
            Number(rel=2e-3),
            "the average number of steps if each image stops at its own residual",
            truth=lambda g: _average(),
            mistakes=(
                Mistake(
                    "those-that-never",
                    "`steps` counts the images that never meet the tolerance as taking no step; they take all there are.",
                    answer=lambda g: _average(0),
                ),
                Mistake(
                    "left-out",
                    "`steps` leaves out the images that never meet the tolerance.",
                    answer=lambda g: _average(None),
                ),
            ),
        ),
    ),
    shows="The answers are ready long before the residual is small.",
    hints=(
        '`seen["result"]["after"]` has a row for each number of steps, the last of which is the comparison.',
        "Find the *last* row that misses by more than a tenth of a point; k is the next.",
        "`needed` says how many images took how many steps; 0 steps stand for images that never met the tolerance.",
    ),
)

# A faster solver


@cache
def _pictures() -> tuple[Any, Tensor]:
    """The published network, and the chapter's twelve pictures as it takes them."""
    from ...training import checkpoints
    from ...training.evaluation import as_input
    from ..windows import NAMES, animals, windows

    torch.set_default_dtype(torch.float32)  # as the chapter has it; the guard puts it back
    network = checkpoints.load_network(book_file("records/cifar10.safetensors"))
    folder = book_file("images/windows")
    return network, as_input(torch.cat([animals(folder), *(windows(name, 3, seed=3) for name in NAMES)]), network)


@cache
def _counts(method: Any, *, typical: bool = False) -> tuple[float, float]:
    network, d = _pictures()
    found = []
    for tol in (1e-2, 1e-6):
        with torch.no_grad(), network.using(solver=method(tol=tol, max_steps=60, relative=True)):
            steps = network.solve(d).steps.double()
        found.append(float(steps.median() if typical else steps.max()))
    return found[0], found[1]


def _of_solver(name: str, method: Any, other: Any, what: str, *typical: Mistake) -> Part:
    return Part(
        name,
        Array((2,), rel=0.0, off=1.5),
        f"evaluations of {what} at the tolerances 1e-2 and 1e-6, until all twelve meet them",
        truth=lambda g: _counts(method),
        mistakes=(
            Mistake("the-other-solver", f"`{name}` holds those of the other solver.", answer=lambda g: _counts(other)),
            Mistake(
                "tolerances-exchanged",
                f"`{name}`: the loose tolerance comes first.",
                answer=lambda g: _counts(method)[::-1],
            ),
            *typical,
        ),
        otherwise=f"`{name}`: `relative=True`, `max_steps=60`, the twelve pictures `d`, and the largest of `network.solve(d).steps`.",
    )


_TYPICAL = Mistake(
    "typical-for-last",
    "`plain` is the middle picture; the *last* of the twelve counts.",
    answer=lambda g: _counts(FixedPointIteration, typical=True),
)

ANDERSON = Exercise(
    "ex-10-anderson",
    parts=(
        _of_solver("plain", FixedPointIteration, Anderson, "plain iteration", _TYPICAL),
        _of_solver("anderson", Anderson, FixedPointIteration, "Anderson's method"),
    ),
    shows="Acceleration saves little at a loose tolerance and more than half at a tight one.",
    hints=(
        "`network.solver` may be assigned; `network.solve(d).steps` has a number for each picture.",
        "Both solvers with `max_steps=60, relative=True`.",
        "Take the largest of the twelve, first at 1e-2, then at 1e-6.",
    ),
)

# How close can bfloat16 come?


@cache
def _low() -> dict[str, float]:
    """Rounding of u, distance of the iterate of bfloat16 and its residual, relative, in per cent, means over the pictures."""
    network, d = _pictures()
    torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        with network.using(solver=FixedPointIteration(tol=1e-6, max_steps=60, relative=True)):
            u = network.solve(d).u
        with torch.autocast("cpu", torch.bfloat16):
            q = network.Q(d)
            low = torch.zeros_like(q)
            for _ in range(40):
                low = network.R(low, q).to(q.dtype)
            after = network.R(low, q).to(q.dtype)
    size = sample_norm(u)
    return {
        "rounding": 100 * (sample_norm(u, u.bfloat16().float()) / size).mean().item(),
        "distance": 100 * (sample_norm(low, u) / size).mean().item(),
        "residual": 100 * (sample_norm(after.float(), low.float()) / size).mean().item(),
    }


BFLOAT16 = Exercise(
    "ex-10-bfloat16",
    parts=(
        Part(
            "rounding",
            Number(rel=0.3),
            "the relative error that rounding u alone makes, in per cent, the mean over the pictures",
            truth=lambda g: _low()["rounding"],
            mistakes=(
                Mistake(
                    "worst-number",
                    "`rounding` is the most that rounding may do to a single number; the norm of the whole picture is asked for.",
                    answer=lambda g: 100 * 2.0**-8,
                ),
                Mistake(
                    "share", "`rounding` is a share; per cent are asked for.", answer=lambda g: _low()["rounding"] / 100
                ),
            ),
        ),
        Part(
            "distance",
            Number(rel=0.15),
            "the relative distance of bfloat16's iterate from u, in per cent, after 40 steps",
            truth=lambda g: _low()["distance"],
            mistakes=(
                Mistake(
                    "rounding-for-distance",
                    "`distance` is the rounding of u alone. Every layer's output is rounded too.",
                    answer=lambda g: _low()["rounding"],
                ),
                Mistake(
                    "residual-for-distance",
                    "`distance` is nearer to the residual of that iterate; measure how far it is from u.",
                    made=lambda a, g: a["distance"] < 0.15 * _low()["distance"],
                ),
            ),
        ),
        Part(
            "truth",
            YesNo(),
            "whether the residual tells the truth about the distance",
            truth=lambda g: _low()["residual"] > 0.3 * _low()["distance"],
            mistakes=(
                Mistake(
                    "residual-believed",
                    "`truth`: compare the residual of the stalled iterate with its distance.",
                    answer=lambda g: True,
                ),
            ),
        ),
    ),
    shows="In low precision a small residual is no proof of a small error.",
    hints=(
        "u at the fixed point: solve in float32 to 1e-6. `u.bfloat16().float()` is u rounded.",
        'For the iterate of bfloat16 run 40 steps under `torch.autocast("cpu", torch.bfloat16)`, Q included.',
        "`sample_norm(a, b)` is the norm of the difference of each picture; divide by `sample_norm(u)`.",
    ),
)

EXERCISES = (ROOFLINE, EARLY, ANDERSON, BFLOAT16)
