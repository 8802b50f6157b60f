"""What is measured of a network after each epoch and at the end: held-out and test images, ‖dT/du‖₂, cosines, memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import bench
from .._jacobian import buffers_kept
from ..gradients import ImplicitDifferentiation, PublishedCG
from ..network import ImplicitNetwork
from ..theory import contraction_factor, criterion, lipschitz_estimate, spectral_radius
from .data import Images
from .evaluation import as_input, evaluate, full_precision
from .processes import Processes
from .recipes import Recipe

__all__ = ["in_a_line", "look", "measure", "peak_memory", "saved_bytes"]

REFERENCE = ImplicitDifferentiation(tol=1e-5)
"""The exact gradient that the rules are compared with: cosines are shown with four digits."""


def look(
    network: ImplicitNetwork,
    recipe: Recipe,
    images: Images,
    held: Images | None,
    test: Images,
    *,
    processes: Processes | None = None,
) -> dict:
    """The part of an epoch's row that is measured after it, in eval mode; `processes` share what is evaluated."""
    row: dict = {}
    if held is not None:
        judged = evaluate(network, held, solver=recipe.evaluation, processes=processes)
        row |= {"validation_loss": judged.loss, "validation_accuracy": judged.accuracy}
    if recipe.watch_test:
        row["test_accuracy"] = evaluate(network, test, solver=recipe.evaluation, processes=processes).accuracy
        # the JFB paper's code tests in train mode: this is the number that it would show
        naive = evaluate(network, test, solver=recipe.evaluation, training_mode=True)
        row["test_accuracy_training_mode"] = naive.accuracy
    if recipe.probe and not recipe.explicit:
        # on held-out images where there are any: the weights are not fitted to them
        row |= _probe(network, recipe, (images if held is None else held)[: recipe.probe])
    return row


def _probe(network: ImplicitNetwork, recipe: Recipe, images: Images) -> dict:
    """The Lipschitz constant of T at u*, its estimate from one direction, what `criterion` and `compare` ask for; null, and why, without."""
    row: dict = {"gamma": None, "gamma_one_direction": None}
    d = as_input(images.images, network)
    with network.using(solver=recipe.evaluation, mode="eval"), full_precision():
        try:
            u, T = network.solve(d).u, network.operator(d)
            # well above the rounding of u, and small beside u
            radius = max(1e-3, 1e-4 * torch.linalg.vector_norm(u).item())
            one = lipschitz_estimate(T, u, radius=radius)
            # the tolerance is for a curve to look at; a tight one costs several times as many products
            row = {"gamma": contraction_factor(T, u, tol=1e-2), "gamma_one_direction": one}
            if recipe.radius or recipe.criterion:
                row["spectral_radius"] = spectral_radius(T, u, tol=1e-3)
            if recipe.criterion:
                row["criterion"] = criterion(network, d).smallest
            if recipe.compare:
                compared = bench.compare(
                    network, d, images.labels, F.cross_entropy, _rules(recipe), reference=REFERENCE
                )
                row["cosines"] = {bench.name(each.rule): each.cosine for each in compared.rows}
        except (FloatingPointError, RuntimeError, ValueError) as error:
            row["probe_error"] = str(error)  # no fixed point, or one at which I − J cannot be solved with
    return row


def _rules(recipe: Recipe) -> tuple[Callable, ...]:
    """The book's rules, and the run's own where that is another one and not exact."""
    known = recipe.rule in bench.RULES or isinstance(recipe.rule, (ImplicitDifferentiation, PublishedCG))
    return bench.RULES if known else (*bench.RULES, recipe.rule)


def measure(
    network: ImplicitNetwork, recipe: Recipe, held: Images | None, test: Images, *, processes: Processes | None = None
) -> dict:
    """What a run comes to: the test, used here for the first time unless the recipe watches it, and the held-out images."""
    final = evaluate(network, test, solver=recipe.evaluation, processes=processes)
    result: dict[str, Any] = {"test_accuracy": final.accuracy, "test_loss": final.loss, "test_images": len(test)}
    result |= {"residual_worst": final.residual, "steps_mean": final.steps, "unconverged_images": final.unconverged}
    if held is not None:
        judged = evaluate(network, held, solver=recipe.evaluation, processes=processes)
        result |= {"validation_accuracy": judged.accuracy, "validation_loss": judged.loss}
    return result


def saved_bytes(network: ImplicitNetwork, images: Tensor) -> int:
    """Bytes that a training step keeps for its backward pass, on top of the images, parameters and buffers."""
    # they are in memory anyway, whether the graph refers to them or not
    own = [images, *network.parameters(), *network.buffers()]
    with network.using(mode="train"), buffers_kept(network), bench.saved_bytes(own) as saved:
        network(images)
    return saved.total


def peak_memory(device: torch.device) -> int | None:
    """Bytes: of the GPU's allocator since it was last reset, or of the process since it started; None where nothing tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts in KiB


def in_a_line(row: dict) -> str:
    """An epoch in a line."""
    text = f"epoch {row['epoch']:3d}  loss {row['loss']:.4f}  accuracy {100 * row['accuracy']:6.2f}%"
    if "validation_accuracy" in row:
        text += f"  held out {100 * row['validation_accuracy']:6.2f}%"
    if row.get("steps_mean") is not None:
        text += f"  steps {row['steps_mean']:5.1f}  residual {row['residual_worst']:.1e}"
    if row.get("gamma") is not None:
        text += f"  γ {row['gamma']:.2f}"
    return f"{text}  {row['seconds']['training']:.1f} s"
