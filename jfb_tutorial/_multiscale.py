"""The parts of the multiscale network: a latent of two resolutions, and dropout that is the same in every step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from ._blocks import Norms, Residual, conv, groups

EXPANSION = 5
"""Inside a stream's block the channels are so many times the width."""
DROPOUT = 0.25
"""The published probability with which a channel of a block is left out."""

Pair = tuple[Tensor, Tensor]


class Injection(tuple):
    """Q(d): a tensor for each resolution, and the masks of dropout that were drawn with them.

    R is handed it in every step of the iteration and of the backward rule, so that one forward pass has one set of masks, and
    T(·; d) one fixed point. With masks drawn anew in every step it would have none.
    """

    masks: tuple[Tensor | None, Tensor | None] = (None, None)


class Inject(nn.Module):
    """The data enter at the high resolution only; in train mode the masks are drawn here, `(batch, width, 1, 1)` for each resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.dropout = nn.Dropout2d(DROPOUT)

    # not compiled: what it returns is more than its tensors
    @torch.compiler.disable
    def forward(self, x: Tensor) -> Injection:
        height, width = x.shape[-2:]
        # rounded up, as the convolution that halves an image does
        q = Injection((x, x.new_zeros(len(x), self.width, (height + 1) // 2, (width + 1) // 2)))
        if self.dropout.training and self.dropout.p:
            ones = x.new_ones(len(x), self.width, 1, 1)
            q.masks = (self.dropout(ones), self.dropout(ones))
        return q


class Stream(nn.Module):
    """The residual block of one resolution: u ← norm(relu(u + norm(q + mask · conv(relu(norm(conv u)))))). No biases."""

    def __init__(self, width: int, weight_norm: bool) -> None:
        super().__init__()
        inner = EXPANSION * width
        self.widen = nn.Sequential(_conv(width, inner, 3, weight_norm), groups(inner, True), nn.ReLU())
        self.narrow = _conv(inner, width, 3, weight_norm)
        self.inside, self.outside = groups(width, True), groups(width, True)

    def forward(self, u: Tensor, q: Tensor, mask: Tensor | None) -> Tensor:
        x = self.narrow(self.widen(u))
        if mask is not None:
            x = x * mask
        return self.outside(F.relu(u + self.inside(q + x)))


class Multiscale(nn.Module):
    """R: a block for each resolution, then each gets what the other one has, and a 1×1 convolution: after(own + other's)."""

    def __init__(self, width: int, weight_norm: bool) -> None:
        super().__init__()
        self.streams = nn.ModuleList(Stream(width, weight_norm) for _ in range(2))
        self.down = nn.Sequential(conv(width, width, stride=2, bias=False), groups(width, True))
        self.up = nn.Sequential(conv(width, width, 1, bias=False), groups(width, True))
        # half as many groups as elsewhere, as published
        self.after = nn.ModuleList(
            nn.Sequential(nn.ReLU(), _conv(width, width, 1, weight_norm), groups(width, True, most=4)) for _ in range(2)
        )

    def forward(self, u: Pair, q: Pair) -> Pair:
        masks = q.masks if isinstance(q, Injection) else Injection.masks
        high, low = (stream(*of) for stream, *of in zip(self.streams, u, q, masks, strict=True))
        # each pixel of the low resolution to four of the high one
        raised = F.interpolate(self.up(low), size=high.shape[-2:], mode="nearest")
        return self.after[0](high + raised), self.after[1](low + self.down(high))


class Head(nn.Module):
    """S: more channels for each resolution, the high one halved and added to the low one, a mean over the pixels, logits."""

    def __init__(self, width: int, norms: Norms, classes: int) -> None:
        super().__init__()
        high, low = (4 * channels for channels in _bottlenecks(width))
        self.more = nn.ModuleList(_bottleneck(width, channels, norms) for channels in _bottlenecks(width))
        self.down = nn.Sequential(conv(high, low, stride=2), norms.outer(low), nn.ReLU())
        last = 25 * width // 3
        self.last = nn.Sequential(
            *(conv(low, last, 1), norms.outer(last), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, classes)),
        )

    def forward(self, u: Pair) -> Tensor:
        high, low = (more(part) for more, part in zip(self.more, u, strict=True))
        return self.last(low + self.down(high))


def _bottlenecks(width: int) -> tuple[int, int]:
    """The narrow channels of the head, 8 and 16 at the published width of 24."""
    return width // 3, 2 * width // 3


def _bottleneck(width: int, channels: int, norms: Norms) -> Residual:
    """From `width` channels to four times `channels`, through `channels`."""

    def norm() -> nn.Module:
        return norms.outer(channels, affine=False)

    branch = nn.Sequential(
        *(conv(width, channels, 1, bias=False), norm(), nn.ReLU()),
        *(conv(channels, channels, bias=False), norm(), nn.ReLU()),
        *(conv(channels, 4 * channels, 1, bias=False), norms.outer(4 * channels, affine=False)),
    )
    shortcut = nn.Sequential(conv(width, 4 * channels, 1, bias=False), norms.outer(4 * channels))
    return Residual(branch, nn.ReLU(), shortcut)


def _conv(inner: int, outer: int, side: int, weight_norm: bool) -> nn.Module:
    """A convolution without a bias; with weight normalisation the norm of each output's weights is a parameter of its own."""
    made = conv(inner, outer, side, bias=False)
    return parametrizations.weight_norm(made) if weight_norm else made
