"""The images that an implicit network is quickest with, and slowest."""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from .._checks import check_integer
from ..training.data import Images
from ..training.inspection import Inspection
from .figures import style

__all__ = ["extremes"]


def extremes(found: Inspection, data: Images, *, after: int = 5) -> Figure:
    """The eight images with the smallest residual after some steps, and below them the eight with the largest.

    Over each stands its class, and in brackets the network's answer where it is another one.

    Args:
        found: what `inspect` saw of `data`.
        data: at least sixteen images.
        after: steps, at least 1 and at most as many as were made.

    Raises:
        ValueError: there are too few images, or too few steps.
    """
    check_integer("after", after, 1, "5 is the default")
    if after > len(found.residuals):
        raise ValueError(f"after must be at most the {len(found.residuals)} steps that were made, got {after}")
    if len(data) < 16:
        raise ValueError(f"data must hold at least sixteen images, got {len(data)}")
    # row k − 1 is step k; stable, so that ties keep the order of the data set
    order = found.residuals[after - 1].argsort(stable=True)
    chosen = torch.cat([order[:8], order[-8:]]).tolist()
    with plt.rc_context(style()):
        figure, axes = plt.subplots(4, 4, figsize=(4.8, 5.6))
        for ax, index in zip(axes.flat, chosen, strict=True):
            # Matplotlib wants the channels last, and grey images without an axis for them
            image = data.images[index].cpu().permute(1, 2, 0).numpy()
            ax.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray")
            title = data.classes[found.labels[index]]
            if not found.right[-1][index]:
                title += f"\n({data.classes[found.predictions[-1][index]]})"
            ax.set_title(title, fontsize=10)
            ax.axis("off")
        plt.close(figure)
    return figure
