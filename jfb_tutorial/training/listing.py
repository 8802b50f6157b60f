"""What an image folder `<class>/*` holds: its files, their classes, and what is left out of it.

Links are followed, to files and to folders, but no folder is read twice: a link that leads back, or from one class into another,
is refused, since its images would count twice or under two labels.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from torchvision.datasets.folder import IMG_EXTENSIONS

__all__ = ["Listing", "check_apart", "list_images", "shown"]


@dataclass(frozen=True)
class Listing:
    """The files of an image folder, in the order of their names, with their labels and the names of these.

    By name, since numbered files have their classes mixed then: a batch of one class has other statistics than a mixed one.
    `notes` has a line about files that are none of it.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def shown(path: Path) -> str:
    """A path for a message of one line: in quotes, with escapes, where it holds a newline or what no console shows."""
    return str(path) if str(path).isprintable() else repr(str(path))


def list_images(folder: Path) -> Listing:
    """The images of a folder, those that torchvision's ImageFolder lists.

    Raises:
        FileNotFoundError: there is no class, or one without images; the message says so, and names no remedy.
        ValueError: a link leads to a folder that is read anyway, a file of an image's name is none (a pipe, a broken link), or
            something cannot be listed.
    """
    walk = _Walk(folder)
    classes = walk.classes()
    if not classes:
        raise FileNotFoundError("no folder of a class is there")
    parts = [list(walk.images(folder / name)) for name in classes]
    if empty := [shown(Path(name)) for name, paths in zip(classes, parts, strict=True) if not paths]:
        raise FileNotFoundError(f"no image of {', '.join(empty)}{walk.left_out_in_words('; ')}")
    samples = [(path, label) for label, paths in enumerate(parts) for path in paths]
    paths, labels = zip(*sorted(samples, key=lambda sample: sample[0].name), strict=True)
    return Listing(paths, labels, tuple(classes), (walk.left_out_in_words(),) if walk.left_out else ())


def check_apart(folder: Path, listing: Listing, train: Path) -> None:
    """ValueError if links bring images of the training into the test, which would then be of what was learnt.

    Args:
        folder: of the test, for messages.
        listing: its files.
        train: the folder of the training.
    """
    try:
        learnt = {_identity(path): path for path in list_images(train).paths}
        both = [path for path in listing.paths if _identity(path) in learnt]
    except (OSError, ValueError):  # whoever reads it says what is wrong with it
        return
    if both:
        raise ValueError(
            f"{len(both):,} of the {len(listing.paths):,} images of {shown(folder)} are those of {shown(train)} too, by links "
            f"({shown(both[0])} is {shown(learnt[_identity(both[0])])}); remove the links"
        )


class _Walk:
    """A walk through a folder: the folders that were seen, and the kinds of files that are left out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.left_out: Counter[str] = Counter()
        # by device and number, which a link cannot hide; those above too: a link to them would bring all of this again
        above = folder.resolve()
        self.seen = {_identity(place): place for place in (above, *above.parents)}

    def classes(self) -> list[str]:
        names = []
        try:
            entries = list(os.scandir(self.folder))
        except OSError as error:
            _refuse(error)
        for entry in entries:
            if entry.is_dir():
                names.append(entry.name)
            else:
                self.left_out["outside of the classes' folders"] += 1
        return sorted(names)

    def images(self, place: Path) -> Iterator[Path]:
        """The images in a class's folder, and in the folders in it."""
        found = []
        for root, folders, files in os.walk(place, followlinks=True, onerror=_refuse):
            # the walk goes on in this order
            folders.sort()
            self._enter(Path(root))
            found.append((root, sorted(files)))
        # in the order of ImageFolder, on which that of images with the same name depends
        for root, files in sorted(found):
            for name in files:
                if name.lower().endswith(IMG_EXTENSIONS):
                    yield _regular(Path(root, name))
                else:
                    self.left_out[Path(name).suffix.lower() or "without a suffix"] += 1

    def _enter(self, place: Path) -> None:
        before = self.seen.setdefault(_identity(place), place)
        if before is not place:
            raise ValueError(
                f"{shown(place)} leads to {shown(before)}, whose images would be read twice or under two classes; remove the link"
            )

    def left_out_in_words(self, before: str = "") -> str:
        """A line about the files that are left out, after `before`; nothing where there are none."""
        if not self.left_out:
            return ""
        kinds = ", ".join(f"{number:,} {shown(Path(kind))}" for kind, number in sorted(self.left_out.items()))
        return (
            f"{before}{self.left_out.total():,} files in {shown(self.folder)} are left out ({kinds}): an image's name ends in "
            f"{', '.join(IMG_EXTENSIONS)}"
        )


def _identity(place: Path) -> tuple[int, int]:
    status = place.stat()
    return status.st_dev, status.st_ino


def _regular(path: Path) -> Path:
    """A path, if a file is there that ends: opening a pipe would wait for ever, reading a device never end."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ValueError(f"{shown(path)} cannot be read ({error.strerror}); replace or remove it") from None
    if not stat.S_ISREG(mode):
        raise ValueError(f"{shown(path)} is named like an image and is no file of data (a pipe or a device); remove it")
    return path


def _refuse(error: OSError) -> NoReturn:
    place = shown(Path(error.filename))
    raise ValueError(f"{place} cannot be listed ({error.strerror}); let this user read it, or remove it") from None
