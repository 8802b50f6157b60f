"""Data: whole sets of small images as uint8 tensors, from the files that torchvision downloads, from folders, or built in.

The data root is `$JFB_DATA`, or else a folder in the user's cache. A set `NAME` is looked for there in two forms: as the files of
torchvision's MNIST, SVHN, CIFAR10 or FashionMNIST, and as an image folder `NAME/{train,test}/<class>/*`. `digits` needs neither: scikit-learn
brings 1,797 handwritten digits of 8×8 pixels along (Alpaydin and Kaynak 1998). Where a set is there as files, or built in, a folder
of its name is not read, and a line says so.

An image folder of your own, say of shells:

    $JFB_DATA/shells/train/conch/0001.png
    $JFB_DATA/shells/train/whelk/0001.jpg
    $JFB_DATA/shells/test/conch/0901.png
    $JFB_DATA/shells/test/whelk/0901.png

    python -m jfb_tutorial train shells --network mnist --out runs/shells

The folders' names are the classes, the same in train and test. Images of any size are cut to squares and resized to the side that
the network takes; see `image_folders` for what else happens to them. A line says so.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from .._checks import check_choice, check_integer
from . import downloads
from .image_folders import read_images
from .listing import check_apart, list_images, shown
from .published import READERS

__all__ = ["DATASETS", "DataNotFoundError", "Images", "data_root", "hold_out", "load"]

DATASETS = ("digits", "mnist", "svhn", "cifar10", "fashion-mnist")
# about a fifth of the 1,797
DIGITS_TEST = 360


class DataNotFoundError(FileNotFoundError):
    """A data set is not there.

    Attributes:
        remedy: how to get it, a sentence of the message.
    """

    def __init__(self, fault: str, remedy: str) -> None:
        super().__init__(f"{fault}. {remedy}")
        self.remedy = remedy


# no ==: two tensors compared give a tensor, which is not true or false
@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Images with their labels, all on one device.

    Attributes:
        name: the dataset's name.
        images: `(N, channels, height, width)`, uint8.
        labels: `(N,)`, int64.
        classes: the names of the labels, each another one.
        notes: a line for each thing that was done to the images when they were read.

    Raises:
        TypeError, ValueError: classes are no texts, or two are the same.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # a text is a sequence of texts too; a checkpoint holds the names, and a label is told by its own
        names = () if isinstance(self.classes, str) else tuple(self.classes)
        if isinstance(self.classes, str) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"classes must be a tuple of texts, got {self.classes!r:.80}; give tuple(map(str, names))")
        if twice := [name for name, number in Counter(names).items() if number > 1]:
            raise ValueError(f"classes must differ, and {twice[0]!r} is there twice; give each label a name of its own")
        # the way around `frozen`, open to __post_init__; plain texts instead of NumPy's
        object.__setattr__(self, "classes", tuple(map(str, names)))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index) -> Images:
        """The images at `index`, a slice or a tensor of positions."""
        return replace(self, images=self.images[index], labels=self.labels[index])

    def to(self, device) -> Images:
        """The same on another device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def __repr__(self) -> str:
        size = "×".join(map(str, self.images.shape[1:]))
        return f"Images({self.name}: {len(self):,} of {size}, {len(self.classes)} classes, on {self.images.device})"


def data_root() -> Path:
    """Where data sets are looked for: `$JFB_DATA`, else `jfb_tutorial` in the user's cache folder."""
    if os.environ.get("JFB_DATA"):
        return _expand("$JFB_DATA", os.environ["JFB_DATA"])
    return _expand("$XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "jfb_tutorial"


def _expand(name: str, path: Path | str) -> Path:
    """A path with ~ replaced by a home folder; ValueError, naming what holds it, if there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(
            f"{name} must be a folder, and of {str(path)!r} there is no such home folder; give a whole path"
        ) from None


def load(
    name: str,
    split: str = "train",
    *,
    root: Path | str | None = None,
    download: bool = False,
    size: int | None = None,
    channels: int | None = None,
) -> Images:
    """A data set, whole.

    Args:
        name: one of `DATASETS`, or the name of an image folder under the root.
        split: "train" or "test". Those of the digits are ours: 1,437 and 360 images, stratified, the same always.
        root: where to look; `data_root()` by default.
        download: fetch what is missing, with a progress bar, going on where an interrupted download stopped.
        size: of an image folder's images: the side in pixels of the squares to which they are cut and resized.
        channels: of an image folder's images: 1, grey, or 3, colours; by default 1 if all of them are grey, else 3.

    Raises:
        TypeError: a name or a root of another type.
        DataNotFoundError: the data are not there; a FileNotFoundError whose message says where they were looked for and how to
            get them.
        ValueError: an unknown name (the nearest one is offered) or split, damaged files (they are named), folders whose
            images differ in size where none is given, a test with the files of the training, or a size for other data than a
            folder.
        OSError: the download failed, and what has come stays for the next try; or a file may not be read.
    """
    check_choice("split", split, ("train", "test"))
    root = _as_root(root)
    _check_name(name, root)
    folder = root / name / split
    if name == "digits":
        return _as_published(_digits(split), folder, size, channels)
    if name in DATASETS:
        if download:
            downloads.fetch(name, root)
        missing = downloads.missing(name, split, root)
        # some of the files are there, so they are meant, and a missing one is an error; without any, a folder will do
        if missing != downloads.all_files(name, split, root):
            return _as_published(_published(name, split, root, missing), folder, size, channels)
    if folder.is_dir():
        return _folder(name, folder, size, channels)
    raise _not_there(name, folder, root)


def _as_root(root: Path | str | None) -> Path:
    if root is None:
        return data_root()
    try:
        return _expand("root", root)
    except TypeError:
        raise TypeError(f"root must be a path, got {type(root).__name__}; leave it out for {data_root()}") from None


def _check_name(name: str, root: Path) -> None:
    """ValueError, with the nearest name, for what is neither a data set nor a folder."""
    if not isinstance(name, str):
        raise TypeError(
            f"dataset must be a name, got {type(name).__name__}; {', '.join(DATASETS)}, or an image folder's"
        )
    try:
        if name in DATASETS or (name and (root / name).is_dir()):
            return
    except OSError as error:
        short = name if len(name) < 80 else f"{name[:20]}… of {len(name):,} characters"
        raise ValueError(
            f"dataset {short!r} cannot be looked for in {shown(root)} ({error.strerror}); mend either"
        ) from None
    known = sorted({*DATASETS, *(path.parent.name for path in root.glob("*/train"))})
    try:
        check_choice("dataset", name, known)
    except ValueError as error:
        raise ValueError(
            f"{error} An image folder would be {shown(root / (name or 'NAME'))}/{{train,test}}/<class>/*"
        ) from None


def _as_published(images: Images, folder: Path, size: int | None, channels: int | None) -> Images:
    """A published set, with a note where a folder of its name is there too, which is not read."""
    _check_as_published(images, size, channels)
    if not folder.is_dir():
        return images
    what = "comes with scikit-learn" if images.name == "digits" else "is there as its published files"
    note = f"the folder {shown(folder)} is not read, since {images.name} {what}; give the folder another name to train on it"
    return replace(images, notes=(*images.notes, note))


def _check_as_published(images: Images, size: int | None, channels: int | None) -> None:
    """ValueError if a published set is asked for in another size or with other channels, since it is not resized."""
    has_channels, _, side = images.images.shape[1:]
    if size not in (None, side) or channels not in (None, has_channels):
        raise ValueError(
            f"{images.name} has {has_channels}×{side}×{side} images, and only those of an image folder are resized; leave size "
            "and channels out"
        )


def hold_out(labels: Tensor, count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Positions of the images to train on and of `count` held-out ones, stratified by class; the same for the same seed.

    Args:
        labels: `(N,)`.
        count: from 0 to N − 1; with more than 0, at least one a class on either side.
        seed: which images are held out. It is no run's seed: every run holds out the same ones.

    Returns:
        Two int64 tensors, each in ascending order, on the CPU.
    """
    everything = torch.arange(len(labels))
    check_integer("held_out", count, 0, "0 holds nothing out")
    if not count:
        return everything, everything[:0]
    classes = len(labels.unique())
    if not classes <= count <= len(labels) - classes:
        raise ValueError(
            f"held_out must be between {classes}, one a class, and {len(labels) - classes} of the {len(labels)} images, "
            f"got {count}"
        )
    parts = train_test_split(everything.numpy(), test_size=count, stratify=labels.cpu().numpy(), random_state=seed)
    # scikit-learn shuffles too; which images are held out is wanted, in the order that they have
    train, held = (torch.from_numpy(np.sort(part)) for part in parts)
    return train, held


def same_classes(one: Images, other: Images) -> tuple[str, ...]:
    """The classes of two sets; ValueError if they are not the same, since a label would then mean two things."""
    if one.classes != other.classes:
        odd = sorted(set(one.classes) ^ set(other.classes))
        raise ValueError(
            f"{one.name} must have the same classes in train and test, but {', '.join(odd)} is in one of them only; "
            "add the missing folder, or remove the other"
        )
    return one.classes


def _digits(split: str) -> Images:
    bunch = load_digits()
    # sixteen grey levels, spread over those of a byte
    images = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).long()
    train, test = hold_out(labels, DIGITS_TEST)
    index = train if split == "train" else test
    return Images("digits", images[index], labels[index], tuple("0123456789"))


def _published(name: str, split: str, root: Path, missing: list[Path]) -> Images:
    """A published set from its files, some of which may be `missing`."""
    if missing:
        raise DataNotFoundError(f"{name} is there but for {missing[0]}", _ways(name, root))
    damaged = downloads.damaged(name, split, root)
    if damaged:
        raise ValueError(f"{name} is damaged: {damaged[0]} is not the published file. Remove it. {_ways(name, root)}")
    try:
        images, labels, classes = READERS[name](*downloads.split_files(name, split, root))
    except ValueError as error:
        raise ValueError(f"{name} is damaged: {error}. Remove it. {_ways(name, root)}") from None
    # of MNIST the unpacked files are known, of Fashion-MNIST the packed ones, which need not be there
    known = "is not" if name == "mnist" else "is not known to be"
    notes = tuple(
        f"{shown(path)} {known} {name}'s published file, and is read all the same"
        for path in downloads.unpublished(name, split, root)
    )
    return Images(name, torch.from_numpy(images), torch.from_numpy(labels), classes, notes)


def _folder(name: str, folder: Path, size: int | None, channels: int | None) -> Images:
    if size is not None:
        check_integer("size", size, 1, "a side in pixels, such as 28")
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1, grey, or 3, colours, got {channels}; leave it out to take what is there")
    try:
        listing = list_images(folder)
    except FileNotFoundError as error:
        raise DataNotFoundError(
            f"{shown(folder)} holds no class with images in it ({error})", _ways(name, folder.parent.parent)
        ) from None
    if folder.name == "test":
        check_apart(folder, listing, folder.with_name("train"))
    images, notes = read_images(folder, listing, size, channels)
    return Images(name, images, torch.tensor(listing.labels), listing.classes, listing.notes + notes)


def _not_there(name: str, folder: Path, root: Path) -> DataNotFoundError:
    wanted = downloads.all_files(name, folder.name, root) if name in DATASETS else []
    looked = (
        f"neither {wanted[0]} nor the folder {shown(folder)} is there"
        if wanted
        else f"the folder {shown(folder)} is not there"
    )
    return DataNotFoundError(
        f"{name} was not found: {looked} (the data root is {root}, $JFB_DATA changes it)", _ways(name, root)
    )


def _ways(name: str, root: Path) -> str:
    """How to get a data set, in a sentence."""
    folder = f"put images at {shown(root / name)}/{{train,test}}/<class>/*"
    if name not in DATASETS:
        return f"To get it: {folder}"
    return f"Two ways to get it: python -m jfb_tutorial data {name} --download, or {folder}"
