"""Batch normalisation inside R: which statistics the iteration uses, and which ones evaluation finds.

In training, batch normalisation divides by statistics of the batch, so T couples the samples and u* is a fixed point of the
whole batch. In evaluation it divides by running statistics. An ordinary `nn.BatchNorm2d` in R is evaluated in every step of the
iteration and averages them all, the steps far from u* too; evaluation then normalises with the statistics of points at which
the network is never read. Three policies are here to choose from, and `reestimate` to measure them anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._checks import check_choice, check_positive
from ._operator_norm import operator_norm
from ._phase import is_recording

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .network import ImplicitNetwork

__all__ = ["POLICIES", "LatentBatchNorm2d", "Rescaling", "operator_norm", "reestimate"]

POLICIES = ("fixed-point", "every-step", "last-step")


class LatentBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation without weights, for the latent space.

    "The step with gradient" is what the backward rule records: the one step of `JFB`, `NeumannSeries` and
    `ImplicitDifferentiation`, the k steps of `UnrolledPhantom`, all steps of `Unrolled`. `ImplicitNetwork` tells which evaluation
    is one; outside a network it is one in which gradients are enabled. In eval mode all policies are the same. A checkpoint
    inside R evaluates its part again in the backward pass, and the running statistics learn a second time, as those of every
    batch normalisation do.

    Args:
        channels: C of the latent `(batch, C, height, width)`.
        policy: in training,
            "fixed-point": statistics of the batch always; the running statistics learn in the step with gradient only, at u*.
            "every-step": an ordinary `nn.BatchNorm2d`, as in the JFB paper's code: the running statistics learn in every step.
            "last-step": running statistics in the iteration, those of the batch in the step with gradient. u* is then a fixed
            point of another operator than the one that is differentiated.

    Raises:
        ValueError: an unknown policy.
    """

    def __init__(self, channels: int, policy: str = "fixed-point") -> None:
        # without weights, as in the paper's code: a learned scale could undo the damping by γ
        super().__init__(channels, affine=False)
        self.policy = check_choice("policy", policy, POLICIES)

    def forward(self, x: Tensor) -> Tensor:
        """x normalised, `(batch, C, height, width)`."""
        if not self.training or self.policy == "every-step" or is_recording():
            return super().forward(x)
        if self.policy == "fixed-point":
            # no running statistics are handed over, so none learn
            return F.batch_norm(x, None, None, training=True, eps=self.eps)
        return F.batch_norm(x, self.running_mean, self.running_var, training=False, eps=self.eps)

    def extra_repr(self) -> str:
        """The settings, for `print(network)`."""
        return f"{super().extra_repr()}, policy={self.policy!r}"


class Rescaling:
    """Scales the weights of R down as the JFB paper's code does for its Jacobian-based networks.

    Before the iteration of a training step it measures `stretch` at u⁰. Where that is above γ, all convolutions of R, with
    their biases, are multiplied by (γ / stretch)^(1/blocks).

    `network.before_solve = Rescaling(gamma)`, R of residual blocks `R.blocks`: the network calls it once in each forward pass that
    records gradients and makes a solve. In eval mode it does nothing.

    Args:
        gamma: γ.

    Raises:
        TypeError, ValueError: γ is no positive and finite number.
    """

    def __init__(self, gamma: float) -> None:
        self.gamma = check_positive("gamma", gamma, "below 1 R is damped")

    def __call__(self, R: Any, u0: Any, q: Any) -> None:
        """What `ImplicitNetwork` calls before it iterates, without a graph: R, u⁰ and Q(d)."""
        if not R.training:
            return
        stretch = self.stretch(R, u0, q)
        # a factor of 1 and no branch, which would wait for the GPU
        factor = torch.where(stretch > self.gamma, (self.gamma / stretch) ** (1 / len(R.blocks)), 1.0)
        for module in R.modules():
            if isinstance(module, nn.Conv2d):
                for parameter in module.parameters(recurse=False):  # its weight and its bias
                    parameter.mul_(factor)

    @staticmethod
    def stretch(R: nn.Module, u: Tensor, q: Tensor) -> Tensor:
        """How much R stretches one random direction: the check (9) of the JFB paper's code, which compares it with γ.

        ε and δ are standard normal; it is the norm of R(u + ε, q + δ) − R(u, q + δ) over that of ε, each over the channels of a
        pixel and averaged over pixels and samples. Lipschitz constants can be much larger.

        Args:
            R: called as R.forward(u, q), in its mode.
            u: `(batch, channels, height, width)`.
            q: the same shape.
        """
        # ε is as large as a normalised latent: this compares values of R far apart, and is no derivative
        noise = torch.randn_like(u)
        shifted = q + torch.randn_like(q)
        difference = R.forward(u + noise, shifted) - R.forward(u, shifted)
        return difference.norm(dim=1).mean() / noise.norm(dim=1).mean()


def reestimate(network: ImplicitNetwork, batches: Iterable[Tensor]) -> int:
    """Measure the running statistics of all batch normalisations of a network anew, as plain averages of those of `batches`.

    The weights stay as they are, and everything but the normalisations is in eval mode (no dropout), as it will be in
    evaluation. With the policies "fixed-point" and "last-step", those of R are measured at u*.

    Args:
        network: its modes and `last` are put back afterwards.
        batches: what the network takes.

    Returns:
        The number of batches; 0 where there is nothing to measure, and the network is as it was.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not norms:
        return 0
    count = 0
    with network.using(mode="eval"), _averaging(norms):
        for batch in batches:
            # not before there is a batch: without any, the old statistics stay
            if not count:
                for norm in norms:
                    norm.reset_running_stats()
            with torch.enable_grad():  # the step that is recorded is the one at u*
                network(batch)
            count += 1
    return count


@contextmanager
def _averaging(norms: list[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    """Normalisations in train mode that average all batches alike; the caller puts their mode back."""
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = None  # PyTorch's sign for a cumulative average
            norm.train()
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
