"""How an implicit network comes to its answers: what it would say after each step of the iteration, image by image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._checks import check_finite, check_integer, check_positive
from ..network import ImplicitNetwork
from ..solvers.iteration import sample_norm
from .data import Images
from .evaluation import as_input, full_precision

__all__ = ["Inspection", "inspect"]

MOST_STEPS = 10_000


@dataclass(frozen=True, eq=False)
class Inspection:
    """What `inspect` saw. The rows of a table are about u_1, u_2, …, where u_k = T(u_(k−1)) and u_0 = 0; an explicit twin stops at
    the first.

    Attributes:
        labels: `(N,)`, the class of each image.
        predictions: `(steps, N)`, the class that S reads from the iterate.
        confidence: `(steps, N)`, the probability that it gives to this class.
        residuals: `(steps, N)`, ‖u_k − u_(k−1)‖₂ / ‖u_k‖₂.
        tol: the relative tolerance.
    """

    labels: Tensor
    predictions: Tensor
    confidence: Tensor
    residuals: Tensor
    tol: float

    @property
    def steps(self) -> Tensor:
        """`(N,)`, the evaluations of T until the residual of an image first meets the tolerance; 0 if it never does."""
        met = self.residuals <= self.tol
        # argmax gives the first of equal values, here the first step that meets it; it does not take bools
        return torch.where(met.any(dim=0), met.to(torch.int8).argmax(dim=0) + 1, 0)

    @property
    def right(self) -> Tensor:
        """`(steps, N)`, whether the class read is the image's."""
        return self.predictions == self.labels

    def summary(self) -> dict:
        """What is worth keeping, as JSON has it.

        `after`: for each number of steps, the accuracy in [0, 1], the mean confidence, and the number of images whose class is
        another one than after the last step; `needed`: for each number of steps that images need to meet the tolerance, how
        many these are and how many of them are classified rightly in the end, under 0 those that miss it.
        """
        after = [
            {
                "steps": number,
                "accuracy": right.double().mean().item(),
                "confidence": confidence.double().mean().item(),
                "still_to_change": int((classes != self.predictions[-1]).sum()),
            }
            for number, (right, confidence, classes) in enumerate(
                zip(self.right, self.confidence, self.predictions, strict=True), 1
            )
        ]
        needed = []
        for number in self.steps.unique().tolist():
            mine = self.steps == number
            needed.append({"steps": number, "images": int(mine.sum()), "right": int(self.right[-1][mine].sum())})
        classes = []
        for number in self.labels.unique().tolist():
            mine = self.labels == number
            # 0 stands for never, and would pull the mean down
            steps = self.steps[mine & (self.steps > 0)].double()
            row = {"class": number, "images": int(mine.sum()), "right": int(self.right[-1][mine].sum())}
            classes.append(row | {"steps": steps.mean().item() if len(steps) else None})
        return {"images": len(self.labels), "tol": self.tol, "after": after, "needed": needed, "classes": classes}


@torch.no_grad()
def inspect(
    network: ImplicitNetwork, data: Images, *, steps: int = 20, tol: float = 1e-4, batch: int = 400
) -> Inspection:
    """Iterate from zero on each image, and read the answer after every step; in eval mode, without TF32.

    Args:
        network: left as it was; its solver and its rule are not used.
        data: on the network's device or not.
        steps: evaluations of T, from 1 to 10,000.
        tol: relative tolerance, in (0, 1), by which `Inspection.steps` counts.
        batch: images at a time.

    Raises:
        TypeError, ValueError: bad settings; no images.
        FloatingPointError: a parameter or a buffer is not finite, or an iteration left the finite numbers.
    """
    steps = check_integer("steps", steps, 1, "20 is the default")
    if steps > MOST_STEPS:
        raise ValueError(f"steps must be at most {MOST_STEPS:,}, got {steps:,}: every step of every image is kept")
    batch = check_integer("batch", batch, 1, "400 is the default")
    tol = check_positive("tol", tol, "1e-4 is the default")
    if tol >= 1:
        raise ValueError(
            f"tol must be below 1, the relative residual of the first step from zero, got {tol:g}; 1e-4 will do"
        )
    if not len(data):
        raise ValueError("data must hold at least one image, got none")
    check_finite(network)
    parts = []
    with network.using(mode="eval"), full_precision():
        for begin in range(0, len(data), batch):
            q = network.Q(as_input(data.images[begin : begin + batch], network))
            parts.append(_follow(network, q, steps))
    predictions, confidence, residuals = (torch.cat(tables, dim=1).cpu() for tables in zip(*parts, strict=True))
    return Inspection(data.labels.cpu(), predictions, confidence, residuals, tol)


def _follow(network: ImplicitNetwork, q: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Classes, their probabilities and residuals after each step, `(steps, batch)` each."""
    u, rows = torch.zeros_like(q), []
    for number in range(1, steps + 1):
        v = network.R(u, q)
        size = sample_norm(v)
        # 0/0 at a fixed point 0 is no residual to refuse
        residual = torch.where(size == 0, 0.0, sample_norm(v, u) / size)
        sure, classes = network.S(v).float().softmax(dim=1).max(dim=1)
        # one read of the device a step; which of the two it is, is asked where the inspection ends
        if not (residual.isfinite().all() & sure.isfinite().all()):
            _raise_not_finite(residual, number)
        rows.append((classes, sure, residual))
        u = v
    predictions, confidence, residuals = (torch.stack(column) for column in zip(*rows, strict=True))
    return predictions, confidence, residuals


def _raise_not_finite(residual: Tensor, number: int) -> None:
    """Say whether the iteration or, NaN after logits that overflow, the answer left the finite numbers."""
    if not residual.isfinite().all():
        raise FloatingPointError(f"the iteration leaves the finite numbers at step {number}; is T a contraction?")
    raise FloatingPointError(f"S answers with logits that are not finite at step {number}; are its weights too large?")
