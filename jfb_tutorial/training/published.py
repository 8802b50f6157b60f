"""The published files of MNIST, Fashion-MNIST, SVHN and CIFAR-10 as arrays: a reader for each, which checks what it reads.

torchvision reads them too, but MNIST unchecked, or from another folder without a word, and CIFAR-10 with a pickle's power to run
any code; its addresses and checksums are used in `downloads`.
"""

from __future__ import annotations

import math
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

__all__ = ["READERS", "read_idx"]

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

Read = tuple[np.ndarray, np.ndarray, tuple[str, ...]]
"""Images `(N, channels, height, width)`, uint8; labels `(N,)`, int64; the names of the classes."""


def read_idx(path: Path, axes: int) -> np.ndarray:
    """An IDX file of bytes with so many axes; ValueError names it if it is another one, or its length is wrong."""
    content = np.fromfile(path, np.uint8)
    header = 4 + 4 * axes
    # two zeros, the type of a byte, the number of axes
    if len(content) < header or content[:4].tolist() != [0, 0, 8, axes]:
        raise ValueError(f"{path} is no IDX file of bytes with {axes} axes")
    shape = struct.unpack(f">{axes}I", content[4:header].tobytes())
    if len(content) - header != math.prod(shape):
        raise ValueError(f"{path} should hold {math.prod(shape):,} bytes, and holds {len(content) - header:,}")
    return content[header:].reshape(shape)


def read_mnist(images: Path, labels: Path) -> Read:
    """The two files of a split."""
    return *_checked(read_idx(images, 3)[:, None], read_idx(labels, 1), (1, 28, 28), images, labels), DIGITS


def read_fashion_mnist(images: Path, labels: Path) -> Read:
    """The two files of a split, in MNIST's format."""
    return *read_mnist(images, labels)[:2], CLOTHES


def read_svhn(file: Path) -> Read:
    """The file of a split, in which the digit 0 has the label 10."""
    try:
        content = loadmat(file)
        images, labels = np.asarray(content["X"]), np.asarray(content["y"], dtype=np.int64).ravel()
    # SciPy raises whatever its reader runs into
    except Exception as error:
        raise ValueError(f"{file} cannot be read ({type(error).__name__}: {error})") from None
    if images.ndim != 4:
        raise ValueError(f"{file} holds images of the shape {images.shape}, not (32, 32, 3, N)")
    labels[labels == 10] = 0
    return *_checked(images.transpose(3, 2, 0, 1), labels, (3, 32, 32), file, file), DIGITS


def read_cifar10(*files: Path) -> Read:
    """The batches of a split, and after them the file with the classes' names."""
    *batches, meta = files
    parts = []
    for path in batches:
        images, labels = (np.asarray(part) for part in _entries(path, "data", "labels"))
        if images.ndim != 2 or images.shape[1] != 3072:
            raise ValueError(f"{path} holds images of the shape {images.shape}, not (N, 3072)")
        parts.append(_checked(images.reshape(-1, 3, 32, 32), labels, (3, 32, 32), path, path))
    names = tuple(str(name) for name in _entries(meta, "label_names")[0])
    if len(names) != 10:
        raise ValueError(f"{meta} should name 10 classes, and names {len(names)}")
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return images, labels, names


READERS: dict[str, Callable[..., Read]] = {
    "mnist": read_mnist,
    "fashion-mnist": read_fashion_mnist,
    "svhn": read_svhn,
    "cifar10": read_cifar10,
}
"""By data set: what reads the files of a split, in the order of `downloads.split_files`."""


def _checked(
    images: np.ndarray, labels: np.ndarray, shape: tuple[int, ...], of_images: Path, of_labels: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels, if they belong together; ValueError names the file at fault."""
    if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
        raise ValueError(
            f"{of_images} holds images of the shape {images.shape} in {images.dtype}, not (N, {shape}) in uint8"
        )
    if labels.shape != (len(images),):
        raise ValueError(f"{of_labels} should hold {len(images):,} labels, one an image, and holds {labels.size:,}")
    if not 0 <= labels.min() <= labels.max() <= 9:
        raise ValueError(f"{of_labels} holds labels from {labels.min()} to {labels.max()}, not from 0 to 9")
    return np.ascontiguousarray(images), labels.astype(np.int64)


NUMPY = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")
"""Where NumPy 1 and 2 have what an array is pickled with."""
CALLED = {(module, name) for module in NUMPY for name in ("ndarray", "dtype", "_reconstruct", "_frombuffer")}
# bytes, in a pickle for Python 2 that Python 3 wrote
CALLED.add(("_codecs", "encode"))


class _Arrays(pickle.Unpickler):
    """Unpickles arrays, lists, text and numbers: a pickle may name any function to be called, and here no other is."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in CALLED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no data set needs")
        return super().find_class(module, name)


def _entries(path: Path, *names: str) -> list[Any]:
    """Entries of the dictionary in a file of CIFAR-10; what is wrong with it is a ValueError."""
    with path.open("rb") as file:
        try:
            content = _Arrays(file, encoding="latin1").load()
        # an unpickler raises whatever the objects raise that it builds
        except Exception as error:
            raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error})") from None
    if not isinstance(content, dict) or not content.keys() >= {*names}:
        raise ValueError(f"{path} should hold a dictionary with {' and '.join(names)}")
    return [content[name] for name in names]
