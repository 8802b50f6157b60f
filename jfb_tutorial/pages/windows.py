"""Pictures that every reader has: windows of the two photographs that come with scikit-learn, and the animals of this book."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

__all__ = ["NAMES", "animals", "windows"]

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


def animals(folder: Path | str) -> Tensor:
    """A cat, a moose and a parrot, each whole and from nearer: `(6, 3, 32, 32)`, uint8; the files are in `book/images/windows`.

    The cat is scikit-image's (Stefan van der Walt, CC0), the moose Ryan Hagerty's (U.S. Fish and Wildlife Service, public domain),
    the parrot Jar0d's (CC BY-SA 2.0; cut and made small here).
    """
    names = [name + near for name in ("cat", "moose", "macaw") for near in ("", "-near")]
    pictures = [np.asarray(Image.open(Path(folder) / f"{name}.png").convert("RGB")) for name in names]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
