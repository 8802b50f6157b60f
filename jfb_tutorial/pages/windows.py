"""Pictures that every reader has: windows of the two photographs that come with scikit-learn."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

__all__ = ["NAMES", "windows"]

NAMES = ("temple", "flower")
"""What the photographs show: a Chinese temple against the sky, and a flower."""


def windows(name: str, count: int, *, seed: int, side: int = 192, columns: tuple[float, float] = (0.0, 1.0)) -> Tensor:
    """Square windows of a photograph at random places, made small: `(count, 3, 32, 32)`, uint8.

    Args:
        name: one of `NAMES`.
        count: how many.
        seed: of their places.
        side: of a window in the photograph, a multiple of 32.
        columns: the part of the photograph, from left to right in [0, 1], in which the windows begin.
    """
    from sklearn.datasets import load_sample_images

    photograph = load_sample_images().images[NAMES.index(name)]
    random = np.random.default_rng(seed)
    height, width = photograph.shape[:2]
    low, high = (int(c * (width - side)) for c in columns)
    cut = []
    for _ in range(count):
        y, x = random.integers(height - side + 1), random.integers(low, high + 1)
        window = torch.from_numpy(photograph[y : y + side, x : x + side].copy())
        cut.append(avg_pool2d(window.permute(2, 0, 1).double(), side // 32))
    return torch.stack(cut).round().to(torch.uint8)
