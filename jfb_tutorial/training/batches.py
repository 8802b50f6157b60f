"""Batches and augmentation, vectorised on the device where the images lie.

All randomness is a function of (seed, epoch, image): it is drawn on the CPU for a whole epoch, so that an epoch is the same on
every device, after a restart, and however many processes share it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .._checks import check_choice, check_integer
from .data import Images

__all__ = ["Augmentation", "Batches", "generator"]

ORDER, DRAWS, FLIPS, NOISE = range(4)
WEIGHTS, DROPOUT, STATISTICS = 10, 11, 12
"""What a stream of random numbers is for. The numbers are part of every run: another one would be another run."""


def generator(*key: int) -> torch.Generator:
    """A CPU generator for a tuple of non-negative integers; other tuples give independent streams (NumPy's SeedSequence)."""
    # the length goes first, since a SeedSequence does not tell a tuple from the same with zeros at its end
    low, high = (int(word) for word in np.random.SeedSequence((len(key), *key)).generate_state(2))
    # two words of 32 bits, folded into the 63 that an int64 holds without a sign
    return torch.Generator().manual_seed((high << 31 ^ low) & (2**63 - 1))


@dataclass(frozen=True)
class Augmentation:
    """What happens to training images, in this order.

    Args:
        flip: "none"; "random", every second time by chance; "alternate", every image in turn as it is and mirrored, which one
            first by chance (Jordan 2024).
        crop: side of the frame that is put around an image before a window of its old size is cut out at random.
        fill: what the frame holds: "reflect" the image, or the "mean" colour of the training images.
        cutout: side of a square that is painted in the mean colour; it may reach over the edge (DeVries and Taylor 2017).
        erase: probability of painting a rectangle of 10 to 25% of the image and ratio 1:5 to 5:1 (log-uniform) in the mean
            colour, the settings of the JFB paper's code (Zhong et al. 2020).
    """

    flip: str = "none"
    crop: int = 0
    fill: str = "reflect"
    cutout: int = 0
    erase: float = 0.0

    def __post_init__(self) -> None:
        check_choice("flip", self.flip, ("none", "random", "alternate"))
        check_integer("crop", self.crop, 0, "4 is usual for CIFAR-10, 0 is none")
        check_choice("fill", self.fill, ("reflect", "mean"))
        check_integer("cutout", self.cutout, 0, "8 is usual for CIFAR-10, 0 is none")
        if not 0 <= self.erase <= 1:
            raise ValueError(f"erase must be a probability, got {self.erase}; 0 is none")

    def draws(self, count: int, seed: int, epoch: int) -> Tensor:
        """Eight numbers in [0, 1) for each of `count` images, `(count, 8)`."""
        # columns: 0 flip; 1, 2 crop; 3, 4 place of a rectangle; 5 its area, 6 its ratio, 7 whether it is painted
        # all eight are drawn in any case, so that no setting changes the numbers of another
        numbers = torch.rand(count, 8, generator=generator(seed, epoch, DRAWS))
        if self.flip == "alternate":  # the same coin in every epoch, turned over in every second one
            coins = torch.rand(count, generator=generator(seed, FLIPS)) < 0.5
            # 0 and 0.9 are below and above the 0.5 at which `__call__` decides
            numbers[:, 0] = torch.where(coins ^ bool(epoch % 2), 0.0, 0.9)
        return numbers

    def __call__(self, images: Tensor, draws: Tensor, mean: Tensor) -> Tensor:
        """Augmented images.

        Args:
            images: `(batch, channels, height, width)`, uint8.
            draws: `(batch, 8)`, a row of `draws` for each image.
            mean: `(channels,)`, the mean colour, uint8.
        """
        if self.flip != "none":
            images = torch.where((draws[:, 0] < 0.5).reshape(-1, 1, 1, 1), images.flip(-1), images)
        if self.crop:
            images = self._cropped(images, draws[:, 1], draws[:, 2], mean)
        if self.cutout:
            side = torch.full_like(draws[:, 0], self.cutout)
            images = _painted(images, draws[:, 3], draws[:, 4], side, side, mean, inside=False)
        if self.erase:
            height, width = images.shape[-2:]
            area = height * width * (0.1 + 0.15 * draws[:, 5])
            # log-uniform from 1:5, at a draw of 0, to 5:1, at 1
            ratio = 0.2 * 25 ** draws[:, 6]
            tall, wide = (area * ratio).sqrt().clamp(max=height), (area / ratio).sqrt().clamp(max=width)
            chosen = (draws[:, 7] < self.erase).to(tall.dtype)
            # a rectangle without area paints nothing; no branch on the values, which would wait for the GPU
            images = _painted(images, draws[:, 3], draws[:, 4], tall * chosen, wide * chosen, mean, inside=True)
        return images

    def _cropped(self, images: Tensor, down: Tensor, right: Tensor, mean: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        # a window has so many places in either direction
        frame = 2 * self.crop + 1
        if self.fill == "reflect":
            padded = F.pad(images, (self.crop,) * 4, mode="reflect")
        else:
            padded = mean.reshape(1, -1, 1, 1).repeat(batch, 1, height + 2 * self.crop, width + 2 * self.crop)
            padded[:, :, self.crop : self.crop + height, self.crop : self.crop + width] = images
        rows = (down * frame).long().reshape(-1, 1, 1, 1) + torch.arange(height, device=images.device).reshape(-1, 1)
        columns = (right * frame).long().reshape(-1, 1, 1, 1) + torch.arange(width, device=images.device)
        image = torch.arange(batch, device=images.device).reshape(-1, 1, 1, 1)
        channel = torch.arange(channels, device=images.device).reshape(-1, 1, 1)
        # the four indices broadcast to (batch, channels, height, width): one gather cuts all windows out
        return padded[image, channel, rows, columns]


def _painted(images: Tensor, y: Tensor, x: Tensor, tall: Tensor, wide: Tensor, mean: Tensor, *, inside: bool) -> Tensor:
    """A rectangle of the mean colour in each image; with `inside` it lies within, else its centre does."""

    def band(size: int, at: Tensor, length: Tensor) -> Tensor:
        # at and length are (batch,), the band is a mask (batch, size)
        length = length.round()
        begin = (at * (size - length + 1)).floor() if inside else (at * size).floor() - (length / 2).floor()
        position = torch.arange(size, device=images.device)
        return (position >= begin[:, None]) & (position < (begin + length)[:, None])

    rows, columns = band(images.shape[-2], y, tall), band(images.shape[-1], x, wide)
    mask = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(mask, mean.reshape(1, -1, 1, 1), images)


class Batches:
    """Training batches of a data set, in another order in every epoch.

    Args:
        data: the images; batches are made on their device.
        size: images in a batch, over all processes together.
        seed: of the orders and of the augmentation.
        augmentation: what happens to the images.
        drop_last: leave out a last batch that is smaller than the others (another one in every epoch).
        rank, world: this process's number and the number of processes; each gets its part of every batch.

    Raises:
        TypeError, ValueError: bad settings, or a batch larger than the data set.
    """

    def __init__(
        self,
        data: Images,
        size: int,
        *,
        seed: int = 0,
        augmentation: Augmentation = Augmentation(),
        drop_last: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        check_integer("batch", size, 1, "100 is the paper's")
        if size > len(data):
            raise ValueError(f"batch must be at most the number of training images, {len(data)}, got {size}; lower it")
        if size < world:
            raise ValueError(f"batch must be at least the number of processes, {world}, got {size}; raise it")
        self.data, self.size, self.seed, self.augmentation, self.rank, self.world = (
            data,
            size,
            seed,
            augmentation,
            rank,
            world,
        )
        rest = len(data) % size
        # a rest that not every process gets a part of would leave some waiting for the others
        self.used = len(data) - (rest if drop_last or rest < world else 0)
        pixels = data.images[:, 0].numel()
        # summed as integers: exact, in whatever order a device adds
        self.mean = (data.images.sum(dim=(0, 2, 3), dtype=torch.int64).double() / pixels).round().to(torch.uint8)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-self.used // self.size)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor, int]]:
        """The batches of an epoch: this process's images (uint8) and labels, and the whole batch's size."""
        order = torch.randperm(len(self.data), generator=generator(self.seed, number, ORDER))[: self.used]
        draws = self.augmentation.draws(len(self.data), self.seed, number)
        device = self.data.images.device
        order, draws = order.to(device), draws.to(device)
        for begin in range(0, self.used, self.size):
            whole = order[begin : begin + self.size]
            # the parts of a batch differ in size by one image at most
            index = whole[self.rank :: self.world]
            # a row of draws belongs to an image, not to a place in the order: batch size and processes do not matter
            images = self.augmentation(self.data.images[index], draws[index], self.mean)
            yield images, self.data.labels[index], len(whole)
