"""A caller's own tensors as `Images`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .data import Images, same_classes

__all__ = ["as_images"]

SHAPES = "(N, height, width) or (N, channels, height, width)"


def as_images(name: str, data: Any) -> tuple[Images, Images]:
    """A pair (train, test), each `Images` or a pair (images, labels) of tensors, as two `Images`.

    Args:
        name: what the data set is called in the record.
        data: images are uint8, or floating point in [0, 1], which are rounded to the 256 levels of a byte, and have the shape
            `(N, height, width)`, grey, or `(N, channels, height, width)`; labels are integers from 0 on, `(N,)`.

    Raises:
        TypeError, ValueError: data are none of this; the message says what to do.
    """
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(
            "data must be a pair (train, test), each Images or a pair (images, labels) of tensors, got "
            f"{type(data).__name__}; give data=((images, labels), (test_images, test_labels))"
        )
    parts = {split: _part(f"data ({split})", part) for split, part in zip(("train", "test"), data, strict=True)}
    # over train and test together: either may lack the last class
    classes = _numbered([labels for _, labels, names in parts.values() if names is None])
    train, test = (Images(name, x, y, classes if names is None else names) for x, y, names in parts.values())
    same_classes(train, test)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise ValueError(
            f"the images of train and test must have one shape, got {tuple(train.images.shape[1:])} and "
            f"{tuple(test.images.shape[1:])}; resize the ones or the others"
        )
    return train, test


def _numbered(labels: list[Tensor]) -> tuple[str, ...]:
    """The names of classes that have none: "0", "1", … up to the largest label."""
    return tuple(str(number) for number in range(max((int(part.max()) + 1 for part in labels), default=0)))


def _part(name: str, part: Any) -> tuple[Tensor, Tensor, tuple[str, ...] | None]:
    """The images, the labels, and the names of these if they have any."""
    if isinstance(part, Images):
        return _bytes(name, part.images), _labels(name, part.labels, len(part.images)), part.classes
    if not isinstance(part, tuple | list) or len(part) != 2 or not all(isinstance(item, Tensor) for item in part):
        raise TypeError(
            f"{name} must be Images or a pair (images, labels) of tensors, got {type(part).__name__}; "
            "torch.from_numpy makes tensors of arrays"
        )
    images, labels = part
    return _bytes(name, images), _labels(name, labels, len(images)), None


def _bytes(name: str, images: Tensor) -> Tensor:
    """The images as `(N, channels, height, width)`, uint8."""
    if images.ndim not in (3, 4) or not images.numel():
        raise ValueError(f"the images of {name} must have the shape {SHAPES}, got {tuple(images.shape)}; reshape them")
    # 1 or 3 at the end and more than 4 in the second place: no picture is so narrow and has so many channels
    if images.ndim == 4 and images.shape[-1] in (1, 3) and images.shape[1] > 4:
        raise ValueError(
            f"the images of {name} must have the shape {SHAPES}, got {tuple(images.shape)} with the channels last; give "
            "images.permute(0, 3, 1, 2)"
        )
    images = images.detach() if images.ndim == 4 else images.detach().unsqueeze(1)
    if images.dtype == torch.uint8:
        return images.contiguous()
    if not images.is_floating_point():
        raise TypeError(
            f"the images of {name} must be uint8, or floating point in [0, 1], got {images.dtype}; if they are from 0 to "
            "255, give images.to(torch.uint8)"
        )
    low, high = float(images.min()), float(images.max())
    if not 0 <= low <= high <= 1:  # NaN is none of it
        raise ValueError(
            f"the images of {name} must be in [0, 1] where they are floating point, got values from {low:g} to {high:g}; "
            "undo the normalisation, or divide by 255"
        )
    # in double: in half precision the product would be rounded once before it is rounded to a byte
    return (images.double() * 255).round().to(torch.uint8).contiguous()


def _labels(name: str, labels: Tensor, count: int) -> Tensor:
    """The labels as `(N,)`, int64."""
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"the labels of {name} must be integers, got {labels.dtype}; give labels.long()")
    if labels.shape != (count,):
        raise ValueError(
            f"the labels of {name} must have the shape ({count},), one an image, got {tuple(labels.shape)}"
            + ("; give labels.argmax(dim=1)" if labels.ndim == 2 else "")
        )
    if int(labels.min()) < 0:
        raise ValueError(f"the labels of {name} must be 0 or more, got {int(labels.min())}; count the classes from 0")
    return labels.detach().long()
