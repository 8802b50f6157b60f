"""The files of torchvision's data sets: which there are, whether they are whole, and how to fetch them.

torchvision's own download starts anew after an interruption; this one goes on. Addresses and checksums are torchvision's.
"""

from __future__ import annotations

import tarfile
import urllib.request
from pathlib import Path
from urllib.error import HTTPError, URLError

from torchvision import datasets
from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor
from torchvision.datasets.utils import check_integrity, extract_archive
from tqdm import tqdm

CHUNK = 1 << 16


def all_files(name: str, split: str, root: Path) -> list[Path]:
    """The files that torchvision reads."""
    return [path for path, _ in _with_sums(name, split, root)]


def missing(name: str, split: str, root: Path) -> list[Path]:
    """Those that are not there."""
    return [path for path in all_files(name, split, root) if not path.is_file()]


def damaged(name: str, split: str, root: Path) -> list[Path]:
    """Those that are there and not what they should be."""
    there = [(path, md5) for path, md5 in _with_sums(name, split, root) if path.is_file()]
    return [path for path, md5 in there if not (check_integrity(str(path), md5) if md5 else _idx_is_whole(path))]


def fetch(name: str, root: Path) -> None:
    """Download and unpack what is missing or damaged, for both splits."""
    if name == "digits" or not any(
        missing(name, split, root) + damaged(name, split, root) for split in ("train", "test")
    ):
        return
    if name == "mnist":
        folder = root / "MNIST" / "raw"
        for filename, md5 in datasets.MNIST.resources:
            download([mirror + filename for mirror in datasets.MNIST.mirrors], folder / filename, md5)
            extract_archive(str(folder / filename), str(folder))
    elif name == "svhn":
        for split in ("train", "test"):
            url, filename, md5 = datasets.SVHN.split_list[split]
            download([url], root / "SVHN" / filename, md5)
    else:
        archive = root / datasets.CIFAR10.filename
        download([datasets.CIFAR10.url], archive, datasets.CIFAR10.tgz_md5)
        # torchvision's extract_archive takes paths that lead out of the folder
        with tarfile.open(archive) as files:
            files.extractall(root, filter="data")


def download(urls: list[str], path: Path, md5: str) -> None:
    """Fetch a file from the first address that gives it; an interrupted download goes on where it stopped.

    Raises:
        OSError: no address gave the file whole.
    """
    if path.is_file() and check_integrity(str(path), md5):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    errors = []
    for url in urls:
        try:
            _transfer(url, part)
        except (URLError, OSError) as error:
            errors.append(f"{url}: {error}")
            continue
        # only a file that was checked gets the name
        if check_integrity(str(part), md5):
            part.replace(path)
            return
        errors.append(f"{url}: what came is not the published file (its MD5 sum is not {md5}), and was removed")
        # going on from there would never make it whole
        part.unlink()
    kept = f"; {part} holds what has come, and the same command goes on from there" if part.exists() else ""
    raise OSError(f"could not download {path.name} ({'; '.join(errors)}){kept}")


def _transfer(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except HTTPError as error:
        if error.code == 416:  # nothing is left to send
            return
        raise
    with response:
        # a server that does not know ranges answers 200 and sends the whole file
        resumed = response.status == 206
        length = int(response.headers.get("Content-Length") or 0)
        # the Content-Length of a 206 is that of the rest
        done = have if resumed else 0
        bar = tqdm(total=done + length or None, initial=done, unit="B", unit_scale=True, desc=part.stem)
        with part.open("ab" if resumed else "wb") as file, bar:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    # read(n) may end without an error where the connection does
    if length and part.stat().st_size < done + length:
        raise OSError(f"the connection broke after {part.stat().st_size} of {done + length} bytes")


def _with_sums(name: str, split: str, root: Path) -> list[tuple[Path, str | None]]:
    """The files that torchvision wants to see when it reads a split: but for SVHN, those of both."""
    if name == "mnist":  # the checksums are those of the packed files
        names = (f"{stem}-{what}-ubyte" for stem in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))
        return [(root / "MNIST" / "raw" / name, None) for name in names]
    if name == "svhn":
        _, filename, md5 = datasets.SVHN.split_list[split]
        return [(root / "SVHN" / filename, md5)]
    cifar = datasets.CIFAR10
    listing = [*cifar.train_list, *cifar.test_list, (cifar.meta["filename"], cifar.meta["md5"])]
    return [(root / cifar.base_folder / filename, md5) for filename, md5 in listing]


def _idx_is_whole(path: Path) -> bool:
    """Whether torchvision reads an IDX file; there are no checksums of unpacked ones."""
    try:
        read_sn3_pascalvincent_tensor(str(path))
    except (AssertionError, IndexError, KeyError, RuntimeError, ValueError):
        return False
    return True
