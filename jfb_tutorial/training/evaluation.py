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
from .processes import Processes

__all__ = ["Evaluation", "as_input", "counted", "evaluate", "full_precision"]


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
    processes: Processes | None = None,
) -> Evaluation:
    """Classify a data set, in the network's own dtype, float32 most often; without TF32.

    Args:
        network: left as it was: its mode, its solver and its buffers.
        data: on the network's device or not.
        batch: images at a time; it matters to the result only where the network couples the samples of a batch.
        solver: how the fixed points are found; the network's own by default.
        training_mode: leave batch statistics and dropout on, as the JFB paper's code does. Only to compare with it: the result
            depends on which images share a batch, very much so where they are sorted by class.
        processes: those that take every so many of the batches each, with the buffers of the first one, and all learn what
            was found; not in training mode, where dropout would draw other masks.

    Raises:
        FloatingPointError: a parameter or a buffer is not finite, an iteration left the finite numbers, or an answer did.
        ValueError: there are no images.
    """
    batch = check_integer("batch", batch, 1, "400 is the paper's")
    if not len(data):
        raise ValueError("data must hold at least one image, got none")
    check_finite(network)
    found: list[tuple[Tensor, ...]] = []
    if processes:
        processes.copy_buffers(network)
    shared = processes if processes and not training_mode else None
    begins = range(0, len(data), batch)
    mode = "train" if training_mode else "eval"
    # in training mode batch statistics would be learnt from the images that are to be judged
    with (
        buffers_kept(network),
        network.using(solver=solver, mode=mode, on_unconverged=counted(network)),
        full_precision(),
    ):
        # a network that solves nothing must not show an earlier solve
        network.last = None
        for begin in begins[shared.rank :: shared.world] if shared else begins:
            logits = network(as_input(data.images[begin : begin + batch], network)).float()
            last = network.last
            found.append((logits,) if last is None else (logits, last.residual, last.steps, last.converged))
    columns = zip(*(shared.take_turns(found) if shared else found), strict=True)
    logits, *solves = (torch.cat(column) for column in columns)
    residuals, steps, converged = solves or (None, None, None)
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
        residual=None if residuals is None else residuals.max().item(),
        steps=None if steps is None else steps.double().mean().item(),
        unconverged=None if converged is None else int((~converged).sum()),
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


def counted(network: ImplicitNetwork) -> str:
    """`on_unconverged` for whoever counts the unconverged samples and reports them: no warning, but a network that is to raise does."""
    return "raise" if network.on_unconverged == "raise" else "ignore"
