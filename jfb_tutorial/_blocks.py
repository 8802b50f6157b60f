"""What the networks of `architectures` are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._checks import check_positive
from .normalisation import LatentBatchNorm2d


class Normalise(nn.Module):
    """Images in [0, 1] with their mean taken off, in units of their standard deviation; both are buffers."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], side: int) -> None:
        super().__init__()
        self.shape = (len(mean), side, side)
        # (channels, 1, 1), which broadcasts over images (batch, channels, side, side)
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1))

    def forward(self, d: Tensor) -> Tensor:
        if d.shape[1:] != self.shape or d.ndim != 4:
            raise ValueError(
                f"d must be images of the shape (batch, {', '.join(map(str, self.shape))}), got {tuple(d.shape)}; "
                "is it another dataset's network?"
            )
        if not d.is_floating_point():
            raise TypeError(f"d must be floating-point images in [0, 1], got {d.dtype}; write d.float() / 255")
        return (d - self.mean) / self.std


class Norms:
    """Makes normalisations: `inner` for R, `outer` for the rest."""

    def __init__(self, norm: str, batch_norm: bool) -> None:
        self.norm, self.batch_norm = norm, batch_norm

    def inner(self, channels: int) -> nn.Module:
        if not self.batch_norm:
            return nn.Identity()
        # no learned weights in R, as in the paper's code; batch normalisation leaves them out itself
        return groups(channels, False) if self.norm == "group" else LatentBatchNorm2d(channels, self.norm)

    def outer(self, channels: int, affine: bool = True) -> nn.Module:
        return groups(channels, affine) if self.norm == "group" else nn.BatchNorm2d(channels, affine=affine)


def groups(channels: int, affine: bool, most: int = 8) -> nn.GroupNorm:
    """Group normalisation with as many groups as divide the channels, at most `most`."""
    return nn.GroupNorm(max(n for n in range(1, most + 1) if channels % n == 0), channels, affine=affine)


def conv(inner: int, outer: int, side: int = 3, **settings) -> nn.Conv2d:
    """A convolution that keeps the size of the image, unless told otherwise."""
    return nn.Conv2d(inner, outer, side, **{"padding": side // 2, **settings})


def leaky() -> nn.LeakyReLU:
    return nn.LeakyReLU(0.1)  # the slope of the paper's code throughout


class Residual(nn.Module):
    """after(shortcut(x) + branch(x))."""

    def __init__(self, branch: nn.Module, after: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.branch, self.after, self.shortcut = branch, after, shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.shortcut(x) + self.branch(x))


class Subsample(nn.Module):
    """The shortcut of a ResNet without weights: every second pixel, and channels of zeros (He et al. 2016, option A)."""

    def __init__(self, more: int, stride: int) -> None:
        super().__init__()
        self.more, self.stride = more, stride

    def forward(self, x: Tensor) -> Tensor:
        # F.pad counts pairs from the last dimension: width, height, then channels, the zeros half before and half after
        return F.pad(x[..., :: self.stride, :: self.stride], (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))


class Latent(nn.Module):
    """R(u, q) = leaving · blocks(q + entering · u)."""

    entering: float
    leaving: float

    def __init__(self, *blocks: nn.Module, entering: float = 1.0, leaving: float = 1.0) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        for name, value in {"entering": entering, "leaving": leaving}.items():
            # `build` calls either factor gamma: so does the error
            setattr(self, name, check_positive("gamma", value, "below 1 it damps u"))

    def forward(self, u: Tensor, q: Tensor) -> Tensor:
        # a factor of 1 is left out: it would cost a pass over the latent in every step
        x = self.blocks(q + (u if self.entering == 1 else self.entering * u))
        return x if self.leaving == 1 else self.leaving * x

    def extra_repr(self) -> str:
        return f"entering={self.entering}, leaving={self.leaving}"
