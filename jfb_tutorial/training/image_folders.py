"""Image folders `<class>/*`, read into one tensor: what a file may be, and what happens to it on the way to eight bits.

Files of any size become squares where a side is asked for. 16-bit images are scaled to 8 bits; what has no range of its own
(32-bit integers, floating point, signed numbers) is refused, and so is what Pillow would read otherwise than the file means.
Transparent images are laid on white. The rotation that a camera noted is applied. Of several pictures in a file the first is read.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps
from torch import Tensor

from .listing import Listing, shown

__all__ = ["read_images"]

SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
# with a small a: colours that are multiplied by their opacity already
TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")


@dataclass(frozen=True)
class Picture:
    """An image in eight bits, grey ("L") or in colour ("RGB"), and what was done to it."""

    image: Image.Image
    notes: tuple[str, ...]


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
        pictures = list(pool.map(lambda path: _read(path, size, grey=channels == 1), listing.paths))
    colours = sum(picture.image.mode == "RGB" for picture in pictures)
    mode = "RGB" if channels == 3 or colours else "L"
    if size is None:
        _check_sizes(folder, listing.paths, [picture.image for picture in pictures])
    notes = Counter(note for picture in pictures for note in picture.notes)
    if mode == "RGB":
        notes["given three equal colours"] += len(pictures) - colours
    images = [picture.image.convert(mode) for picture in pictures]
    stack = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    stack = stack.unsqueeze(1) if mode == "L" else stack.permute(0, 3, 1, 2).contiguous()
    return stack, tuple(
        f"{number:,} of the {len(images):,} images in {shown(folder)} were {note}"
        for note, number in notes.items()
        if number
    )


def _read(path: Path, size: int | None, *, grey: bool) -> Picture:
    """A file as `Picture`, made grey and resized if that is wanted: here, so that no more than one in full size is kept."""
    picture = _open(path)
    image, notes = picture.image, picture.notes
    if grey and image.mode == "RGB":
        image, notes = image.convert("L"), (*notes, "turned grey")
    if size is not None and image.size != (size, size):
        image, notes = _square(image, size), (*notes, f"resized to {size}×{size} pixels")
    return Picture(image, notes)


def _open(path: Path) -> Picture:
    """A file as `Picture` in its own size; ValueError names it."""
    try:
        with Image.open(path) as image:
            _check_levels(image)
            frames = getattr(image, "n_frames", 1)
            picture = _in_eight_bits(ImageOps.exif_transpose(image))
    except _RangeError as error:
        raise ValueError(f"{shown(path)} {error}") from None
    # a damaged file makes Pillow raise whatever its readers run into: SyntaxError, struct.error, IndexError, …
    except Exception as error:
        fault = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{shown(path)} cannot be read as an image ({fault}); replace or remove it") from None
    return picture if frames == 1 else Picture(picture.image, (*picture.notes, "cut to the first of their pictures"))


class _RangeError(Exception):
    """An image whose numbers do not say, or not to Pillow, what is black and what is white."""


def _check_levels(image: ImageFile.ImageFile) -> None:
    """Refuse what Pillow opens as if it were something else; `image` is as it was opened, not loaded."""
    # a PNG or PPM has 16 bits at most, and Pillow spreads a PPM's over them
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        kind = "floating-point numbers" if image.mode == "F" else "32-bit integers"
        raise _RangeError(f"holds {kind}, of which nothing says what is black and white; save it with 8 or 16 bits")
    # the tags of a TIFF: bits of a sample, whether 0 is white, whether the numbers are signed
    tags = getattr(image, "tag_v2", {})
    bits, white, kinds = tags.get(258, (16,)), tags.get(262) == 0, tags.get(339, (1,))
    if image.mode in SIXTEEN_BITS and (bits != (16,) or white):
        raise _RangeError(
            f"holds {bits[0]}-bit numbers{', with white as 0,' * white} which are not read right; save it with 8 or 16 bits "
            "and black as 0"
        )
    if 2 in kinds:
        raise _RangeError(
            "holds signed numbers, of which nothing says what is black and white; save it with unsigned ones"
        )
    # a PNG names its transparent grey or colour in the file's bits, and the pixels are in eight by then; of two greys Pillow
    # names white, whichever it was
    if image.format == "PNG" and "transparency" in image.info and image.tile[0].args in ("1", "L;2", "L;4", "RGB;16B"):
        raise _RangeError(
            "names a transparent colour in other than 8 bits, which is not read right; save it with 8 bits"
        )


def _in_eight_bits(image: Image.Image) -> Picture:
    if image.mode in (*SIXTEEN_BITS, "I"):
        return _from_sixteen_bits(image)
    # an image of another mode may name one of its colours as transparent
    if image.mode in TRANSPARENT or "transparency" in image.info:
        return _on_white(image)
    return Picture(image.convert("L" if image.mode in ("1", "L") else "RGB"), ())


def _from_sixteen_bits(image: Image.Image) -> Picture:
    levels = np.array(image)
    notes: tuple[str, ...] = ("scaled from 16 bits to 8",)
    if "transparency" in image.info:  # one of the greys; see `_on_white`
        levels[levels == image.info["transparency"]] = 65535
        notes = (*notes, "transparent, and laid on white")
    # 65535 / 257 = 255: both ends of the range are kept
    return Picture(Image.fromarray(np.rint(levels.astype(np.float64) / 257).astype(np.uint8)), notes)


def _on_white(image: Image.Image) -> Picture:
    """A transparent image, laid on white: what is behind it is not in the file, and white is what a page shows."""
    grey = image.mode in ("1", "L", "LA", "La")
    rgba = image.convert("LA").convert("RGBA") if grey else image.convert("RGBA")
    opaque = rgba.getchannel("A").getextrema() == (255, 255)
    laid = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return Picture(laid.convert("L" if grey else "RGB"), () if opaque else ("transparent, and laid on white",))


def _square(image: Image.Image, size: int) -> Image.Image:
    """The largest square about the centre, resized; box filtering and bilinear weights, so that shrinking averages."""
    return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)


def _check_sizes(folder: Path, paths: tuple[Path, ...], images: list[Image.Image]) -> None:
    sizes = Counter(image.size for image in images)
    if len(sizes) > 1:
        usual = sizes.most_common(1)[0][0]
        odd = next(i for i, image in enumerate(images) if image.size != usual)
        colour = "grey" if images[odd].mode == "L" else "colour"
        raise ValueError(
            f"the images of {shown(folder)} must have one size: most are {_in_words(usual)} pixels in {colour}, but "
            f"{shown(paths[odd])} is {_in_words(images[odd].size)}; resize it, or give load a size"
        )


def _in_words(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
