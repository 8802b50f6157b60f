"""Image folders `<class>/*`, read into one tensor: what a file may be, and what happens to it on the way to eight bits.

Files of any size become squares where a side is asked for. 16-bit images are scaled to 8 bits; what has no range of its own
(32-bit integers, floating point) is refused. Transparent images are laid on white. The rotation that a camera noted is applied.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.datasets import ImageFolder

__all__ = ["Listing", "list_images", "read_images"]

SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
# with a small a: colours that are multiplied by their opacity already
TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")


@dataclass(frozen=True)
class Listing:
    """The files of an image folder, in the order of their names, with their labels and the names of these.

    By name, since numbered files have their classes mixed then: a batch of one class has other statistics than a mixed one.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """An image in eight bits, grey ("L") or in colour ("RGB"), and what was done to it."""

    image: Image.Image
    notes: tuple[str, ...]


def list_images(folder: Path) -> Listing:
    """What torchvision's ImageFolder lists; FileNotFoundError if a class has no images, or if there is no class."""
    listing = ImageFolder(folder)
    samples = sorted(((Path(path), label) for path, label in listing.samples), key=lambda sample: sample[0].name)
    paths, labels = zip(*samples, strict=True)
    return Listing(paths, labels, tuple(listing.classes))


def read_images(
    folder: Path, listing: Listing, size: int | None, channels: int | None
) -> tuple[Tensor, tuple[str, ...]]:
    """The images, `(N, channels, height, width)` in uint8, and a line for each thing that was done to some of them.

    Args:
        folder: where they are, for messages.
        listing: its files.
        size: side in pixels of the squares to which they are cut, about their centre, and resized; None leaves them as they are.
        channels: 1 makes all grey, 3 gives all colours; None is 1 if all are grey, else 3.

    Raises:
        ValueError: a file is no image, or one without a range; or sizes differ, and no `size` is given.
    """
    with ThreadPoolExecutor() as pool:  # Pillow decodes without Python's lock
        pictures = list(pool.map(_open, listing.paths))
    notes = Counter(note for picture in pictures for note in picture.notes)
    colours = sum(picture.image.mode == "RGB" for picture in pictures)
    mode = {None: "RGB" if colours else "L", 1: "L", 3: "RGB"}[channels]
    notes["turned grey" if mode == "L" else "given three equal colours"] += (
        colours if mode == "L" else len(pictures) - colours
    )
    images = [picture.image.convert(mode) for picture in pictures]
    if size is None:
        _check_sizes(folder, listing.paths, images)
    else:
        notes[f"resized to {size}×{size} pixels"] += sum(image.size != (size, size) for image in images)
        images = [_square(image, size) for image in images]
    stack = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    stack = stack.unsqueeze(1) if mode == "L" else stack.permute(0, 3, 1, 2).contiguous()
    return stack, tuple(
        f"{number:,} of the {len(images):,} images in {folder} were {note}" for note, number in notes.items() if number
    )


def _open(path: Path) -> Picture:
    """A file as `Picture`; ValueError names it."""
    try:
        with Image.open(path) as image:
            # the copy that exif_transpose makes has no format
            return _in_eight_bits(ImageOps.exif_transpose(image), image.format)
    except _RangeError as error:
        raise ValueError(f"{path} {error}") from None
    # Pillow raises SyntaxError at a broken PNG
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image ({error}); replace or remove it") from None


class _RangeError(Exception):
    """An image whose numbers say nothing of what is black and what is white."""


def _in_eight_bits(image: Image.Image, format: str | None) -> Picture:
    if image.mode in SIXTEEN_BITS or (image.mode == "I" and format == "PNG"):  # PNG has no 32-bit images
        # 65535 / 257 = 255: both ends of the range are kept
        levels = np.asarray(image).astype(np.float64) / 257
        return Picture(Image.fromarray(np.rint(levels).astype(np.uint8)), ("scaled from 16 bits to 8",))
    if image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise _RangeError(f"holds {kind}, of which nothing says what is black and white; save it with 8 or 16 bits")
    # an image of another mode may name one of its colours as transparent
    if image.mode in TRANSPARENT or "transparency" in image.info:
        return _on_white(image)
    return Picture(image.convert("L" if image.mode in ("1", "L") else "RGB"), ())


def _on_white(image: Image.Image) -> Picture:
    """A transparent image, laid on white: what is behind it is not in the file, and white is what a page shows."""
    grey = image.mode in ("1", "L", "LA", "La")
    rgba = image.convert("LA").convert("RGBA") if grey else image.convert("RGBA")
    opaque = rgba.getchannel("A").getextrema() == (255, 255)
    laid = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return Picture(laid.convert("L" if grey else "RGB"), () if opaque else ("transparent, and laid on white",))


def _square(image: Image.Image, size: int) -> Image.Image:
    """The largest square about the centre, resized; box filtering and bilinear weights, so that shrinking averages."""
    return image if image.size == (size, size) else ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)


def _check_sizes(folder: Path, paths: tuple[Path, ...], images: list[Image.Image]) -> None:
    sizes = Counter(image.size for image in images)
    if len(sizes) > 1:
        usual = sizes.most_common(1)[0][0]
        odd = next(i for i, image in enumerate(images) if image.size != usual)
        colour = "grey" if images[odd].mode == "L" else "colour"
        raise ValueError(
            f"the images of {folder} must have one size: most are {_in_words(usual)} pixels in {colour}, but {paths[odd]} "
            f"is {_in_words(images[odd].size)}; resize it, or give load a size"
        )


def _in_words(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
