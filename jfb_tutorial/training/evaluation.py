"""Evaluation of a network on a data set: accuracy, and how its fixed points were found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .._checks import check_finite, check_integer
from .._jacobian import buffers_kept
from ..network import ImplicitNetwork
from .data import Images

__all__ = ["Evaluation", "as_input", "counting_unconverged", "evaluate", "full_precision"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        accuracy: fraction of the images that are classified as labelled, in [0, 1].
        loss: mean cross entropy.
        predictions: `(N,)`, the class of each image.
        residual: the largest ‖T(u) − u‖₂ of an image at the end of its iteration; None for a network that makes none.
        steps: evaluations of T that an image needed to meet the tolerance, on average; None likewise.
        unconverged: number of images that did not meet it; None likewise.
    """

    accuracy: float
    loss: float
    predictions: Tensor
    residual: float | None
    steps: float | None
    unconverged: int | None

    def __repr__(self) -> str:
        text = (
            f"Evaluation(accuracy {100 * self.accuracy:.2f}% of {len(self.predictions):,} images, loss {self.loss:.4f}"
        )
        if self.steps is not None:
            text += f", {self.steps:.1f} steps on average, {self.unconverged} images unconverged"
        return text + ")"


def as_input(images: Tensor, network: torch.nn.Module) -> Tensor:
    """uint8 images as a network takes them: in [0, 1], in the dtype and on the device of its parameters."""
    parameter = next(network.parameters())
    return images.to(parameter.device, parameter.dtype) / 255


@torch.no_grad()
def evaluate(
    network: ImplicitNetwork,
    data: Images,
    *,
    batch: int = 400,
    solver: Callable | None = None,
    training_mode: bool = False,
) -> Evaluation:
    """Classify a data set, in the network's own dtype, float32 most often; without TF32.

    Args:
        network: left as it was: its mode, its solver and its buffers.
        data: on the network's device or not.
        batch: images at a time; it matters to the result only where the network couples the samples of a batch.
        solver: how the fixed points are found; the network's own by default.
        training_mode: leave batch statistics and dropout on, as the JFB paper's code does. Only to compare with it: the result
            depends on which images share a batch, very much so where they are sorted by class.

    Raises:
        FloatingPointError: a parameter or a buffer is not finite, an iteration left the finite numbers, or an answer did.
        ValueError: there are no images.
    """
    check_integer("batch", batch, 1, "400 is the paper's")
    if not len(data):
        raise ValueError("data must hold at least one image, got none")
    check_finite(network)
    outputs: list[Tensor] = []
    residuals: list[Tensor] = []
    steps: list[Tensor] = []
    converged: list[Tensor] = []
    mode = "train" if training_mode else "eval"
    # in training mode batch statistics would be learnt from the images that are to be judged
    with (
        buffers_kept(network),
        network.using(solver=solver, mode=mode),
        counting_unconverged(network),
        full_precision(),
    ):
        # a network that solves nothing must not show an earlier solve
        network.last = None
        for begin in range(0, len(data), batch):
            outputs.append(network(as_input(data.images[begin : begin + batch], network)).float())
            if network.last is not None:
                residuals.append(network.last.residual)
                steps.append(network.last.steps)
                converged.append(network.last.converged)
    logits = torch.cat(outputs)
    wrong = int((~logits.isfinite().all(dim=1)).sum())
    if wrong:
        raise FloatingPointError(
            f"the answers to {wrong:,} of {len(logits):,} images are not finite; S(u) overflows: are the weights too large?"
        )
    labels = data.labels.to(logits.device)
    predictions = logits.argmax(dim=1)
    return Evaluation(
        # means in double: in float32 those of many thousand images are rounded at the seventh digit
        accuracy=(predictions == labels).double().mean().item(),
        loss=F.cross_entropy(logits.double(), labels).item(),
        predictions=predictions,
        residual=torch.cat(residuals).max().item() if residuals else None,
        steps=torch.cat(steps).double().mean().item() if steps else None,
        unconverged=int((~torch.cat(converged)).sum()) if converged else None,
    )


@contextmanager
def full_precision() -> Iterator[None]:
    """Arithmetic with all the digits of float32, for what is measured: no TF32, and no autocast of a caller's."""
    matmul = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        # what is not named here would get the defaults of `flags`, which switch cuDNN off
        cudnn = torch.backends.cudnn
        others = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
        with cudnn.flags(**others, allow_tf32=False), ExitStack() as stack:
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)


@contextmanager
def counting_unconverged(*networks: ImplicitNetwork) -> Iterator[None]:
    """No warning of unconverged samples inside: whoever opens this counts and reports them. A network that is to raise still does."""
    own = [getattr(network, "on_unconverged", "warn") for network in networks]
    try:
        for network, policy in zip(networks, own, strict=True):
            network.on_unconverged = "ignore" if policy == "warn" else policy
        yield
    finally:
        for network, policy in zip(networks, own, strict=True):
            network.on_unconverged = policy
