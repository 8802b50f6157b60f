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
    count = sum(len(labels) for _, labels, _ in parts.values())
    classes = _numbered([labels for _, labels, names in parts.values() if names is None], count)
    train, test = (Images(name, x, y, classes if names is None else names) for x, y, names in parts.values())
    same_classes(train, test)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise ValueError(
            f"the images of train and test must have one shape, got {tuple(train.images.shape[1:])} and "
            f"{tuple(test.images.shape[1:])}; resize the ones or the others"
        )
    return train, test


def _numbered(labels: list[Tensor], count: int) -> tuple[str, ...]:
    """The names of classes that have none: "0", "1", … up to the largest label; `count` is the number of images."""
    largest = max((int(part.max()) for part in labels), default=-1)
    # numbers of something else, such as those of a catalogue, would make a network of as many logits
    if largest >= count:
        raise ValueError(
            f"the labels of data must number the classes from 0, but go up to {largest}, and there are {count} images; give "
            "torch.cat([labels, test_labels]).unique(return_inverse=True)[1], split again, or Images with the classes' names"
        )
    return tuple(str(number) for number in range(largest + 1))


def _part(name: str, part: Any) -> tuple[Tensor, Tensor, tuple[str, ...] | None]:
    """The images, the labels, and the names of these if they have any."""
    if isinstance(part, Images):
        images, labels = _bytes(name, part.images), _labels(name, part.labels, len(part.images))
        if (largest := int(labels.max())) >= len(part.classes):
            raise ValueError(
                f"the labels of {name} must be below {len(part.classes)}, the number of its classes, got {largest}; name all "
                "classes, or count them from 0"
            )
        return images, labels, part.classes
    if not isinstance(part, tuple | list) or len(part) != 2 or not all(isinstance(item, Tensor) for item in part):
        raise TypeError(
            f"{name} must be Images or a pair (images, labels) of tensors, got {type(part).__name__}; "
            "torch.from_numpy makes tensors of arrays"
        )
    images, labels = part
    return _bytes(name, images), _labels(name, labels, len(images)), None


def _bytes(name: str, images: Tensor) -> Tensor:
    """The images as `(N, channels, height, width)`, uint8."""
    _check_dense(f"the images of {name}", images, "images")
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
    # in half precision the product would be rounded once before it is rounded to a byte; of eight bits torch has no minimum
    images = images.double()
    if bad := int(images.isnan().sum()):
        raise ValueError(
            f"the images of {name} must be numbers, and are NaN in {bad:,} of {images.numel():,} pixels; give "
            "images.nan_to_num(0), say"
        )
    low, high = float(images.min()), float(images.max())
    if not 0 <= low <= high <= 1:
        raise ValueError(
            f"the images of {name} must be in [0, 1] where they are floating point, got values from {low:g} to {high:g}; "
            "undo the normalisation, or divide by 255"
        )
    return (images * 255).round().to(torch.uint8).contiguous()


def _labels(name: str, labels: Tensor, count: int) -> Tensor:
    """The labels as `(N,)`, int64."""
    _check_dense(f"the labels of {name}", labels, "labels")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"the labels of {name} must be integers, got {labels.dtype}; give labels.long()")
    if labels.shape != (count,):
        raise ValueError(
            f"the labels of {name} must have the shape ({count},), one an image, got {tuple(labels.shape)}"
            + ("; give labels.argmax(dim=1)" if labels.ndim == 2 else "")
        )
    labels = labels.detach().long()  # first, since of unsigned ones of 16 bits and more torch has no minimum
    if int(labels.min()) < 0:
        raise ValueError(f"the labels of {name} must be 0 or more, got {int(labels.min())}; count the classes from 0")
    return labels


def _check_dense(what: str, tensor: Tensor, name: str) -> None:
    if tensor.layout != torch.strided:
        raise TypeError(f"{what} must be a dense tensor, got one of the layout {tensor.layout}; give {name}.to_dense()")
