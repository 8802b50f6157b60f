"""Learning rates over a run."""

from __future__ import annotations

import math

__all__ = ["SCHEDULES", "rate"]

SCHEDULES = ("constant", "cosine", "triangular", "halving")


def rate(schedule: str, lr: float, step: int, steps: int, *, steps_between_halvings: int) -> float:
    """The learning rate at a step, the first of which is 0, of a run of `steps`.

    "cosine" falls to 0 along half a wave; "triangular" rises for a fifth of the run and falls to 0; "halving" halves at each
    multiple of `steps_between_halvings`.
    """
    done = step / steps
    match schedule:
        case "cosine":
            return lr * (1 + math.cos(math.pi * done)) / 2
        case "triangular":
            return lr * min((step + 1) / (0.2 * steps + 1), (1 - done) / 0.8)
        case "halving":
            return lr * 0.5 ** (step // steps_between_halvings)
        case _:
            return lr
