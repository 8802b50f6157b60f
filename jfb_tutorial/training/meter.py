"""What the steps of a training epoch show, kept on the device until the epoch ends."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..network import ImplicitNetwork
from ..solvers.iteration import FixedPointIteration, Solution

REMEDY = "lower the learning rate, or look at the residual and the contraction factor of the epochs before"


class Meter:
    """Adds up the steps of one epoch, the first of which is 1."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.sums: dict[str, list[Tensor]] = {}
        self.maxima: dict[str, list[Tensor]] = {}
        self.samples = 0

    @torch.no_grad()
    def add(self, loss: Tensor, logits: Tensor, labels: Tensor, network: ImplicitNetwork) -> None:
        """A step: its loss, summed over the samples, and what the network's latest solve was like."""
        sums = {"loss": loss.detach(), "accuracy": (logits.argmax(dim=1) == labels).sum()}
        maxima: dict[str, Tensor] = {}
        self.samples += len(labels)
        last = network.last
        if last is not None:
            sums |= {
                "residual_mean": last.residual.double().sum(),
                "steps_mean": last.steps.sum(),
                "unconverged": (~last.converged).sum(),
            }
            maxima |= {"residual_worst": last.residual.max(), "steps_max": last.steps.max()}
            maxima["contraction"] = _largest_ratio(last, network.solver)
        # they stay on the device: reading one in every step would wait for the GPU; in double, for long sums
        for kept, new in ((self.sums, sums), (self.maxima, maxima)):
            for key, value in new.items():
                kept.setdefault(key, []).append(value.double())
        if loss.device.type == "cpu" and not loss.isfinite():  # reading costs nothing there
            self.check()

    def latest(self) -> float:
        """The mean loss of the latest step's samples, about."""
        # about: divided by the mean size of the batches so far
        return self.sums["loss"][-1].item() * len(self.sums["loss"]) / self.samples

    def check(self) -> None:
        """FloatingPointError if a loss is not finite."""
        bad = (~torch.stack(self.sums["loss"]).isfinite()).nonzero()
        if len(bad):
            loss = self.sums["loss"][int(bad[0])].item()
            raise FloatingPointError(
                f"the loss is {loss} in batch {int(bad[0]) + 1} of epoch {self.epoch}; the checkpoint of the epoch before, "
                f"if there is one, is good; {REMEDY}"
            )

    def located(self, error: Exception, batch: int) -> Exception:
        """An error of a step, numbered from 0, that says where it happened."""
        if self.sums:
            self.check()  # an earlier batch may be to blame
        where = f"in batch {batch + 1} of epoch {self.epoch}"
        # a subclass may not be made of a message alone
        if where in str(error) or type(error) not in (FloatingPointError, RuntimeError):
            return error
        return type(error)(f"{where}: {error}")

    def row(self, add_up, take_largest) -> dict:
        """The epoch's means and maxima, over all processes: `add_up` and `take_largest` combine a vector of each."""
        self.check()
        # in one order in all processes; all numbers in one vector, so that they are sent and read once
        keys = sorted(self.sums)
        sums = torch.stack([torch.stack(self.sums[key]).sum() for key in keys])
        *sums, samples = add_up(torch.cat([sums, sums.new_full((1,), self.samples)])).tolist()
        row = {key: value / samples for key, value in zip(keys, sums, strict=True)}
        if keys := sorted(self.maxima):
            largest = take_largest(torch.stack([torch.stack(self.maxima[key]).max() for key in keys])).tolist()
            # −inf is a maximum over nothing: no batch had a ratio to trust
            row |= {key: value if math.isfinite(value) else None for key, value in zip(keys, largest, strict=True)}
        if "steps_max" in row:
            row["steps_max"] = int(row["steps_max"])
        return row


def _largest_ratio(last: Solution, solver: Callable) -> Tensor:
    """The largest ratio of consecutive residuals of the batch, which may be coupled; −inf where there is none to trust."""
    nothing = last.residuals.new_full((), -math.inf)  # on the device; new_tensor would wait for it
    # only in the plain iteration are consecutive residuals one T apart: Anderson and Broyden mix, gaps skip some
    if type(solver) is not FixedPointIteration or solver.check_every != 1:
        return nothing
    # (checks, batch) to (checks,): of the batch as one vector, which T may couple
    residuals = torch.linalg.vector_norm(last.residuals, dim=1)
    # low precision adds up in float32 and rounds the result, so that its residuals are good down to about one ulp
    ulps = 10 if torch.finfo(last.u.dtype).bits >= 32 else 1
    rounding = ulps * torch.finfo(last.u.dtype).eps * torch.linalg.vector_norm(last.u.float())
    ratios = residuals[1:] / residuals[:-1]
    return torch.cat([torch.where(residuals[1:] > rounding, ratios, nothing), nothing[None]]).max()
