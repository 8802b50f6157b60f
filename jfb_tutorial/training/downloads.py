"""The files of torchvision's data sets: which there are, whether they are whole, and how to fetch them.

torchvision's own download starts anew after an interruption; this one goes on. Addresses and MD5 sums are torchvision's. An MD5 sum
can be forged, so it only says which file is meant; that a file is this one, its SHA-256 sum says, before anything else reads it.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import tarfile
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError

from torchvision import datasets
from torchvision.datasets.utils import check_integrity, extract_archive
from tqdm import tqdm

from .published import read_idx

CHUNK = 1 << 16
MOST = 1 << 30
"""Bytes of a download whose size is not in the table, at most."""

SHA256 = {
    # MNIST, packed: images and labels for training, for the test
    "f68b3c2dcbeaaa9fbdd348bbdeb94873": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "d53e105ee54ea40749a09fcbcd1e9432": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "9fb629c4189551a2d022fa330f9573f3": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "ec29112dd5afa0611ce80d1b7f02629c": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    # Fashion-MNIST, packed: the same
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "25c81989df183df01b3e8a0aad5dffbe": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "bef4ecab320f06d8554ea6380940ec79": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "bb300cfdad3c16e7a12a480ee83cd310": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    # SVHN: train, test
    "e26dedcc434d2e4c54c9b2d4a06d8373": "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
    "eb5a983be6a315427106f1b164d9cef3": "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
    # CIFAR-10: the archive, its five batches, that of the test, the names of the classes
    "c58f30108f718f92721af3b95e74349a": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    "c99cafc152244af753f735de768cd75f": "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
    "d4bba439e000b95fd0a9bffe97cbabec": "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
    "54ebc095f3ab1f0389bbae665268c751": "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
    "634d18415352ddfa80567beed471001a": "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
    "482c414d41f54cd18b22e5b47cb7c3cb": "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
    "40351d587109b95175f43aff81a1287e": "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
    "5ff9c542aee3614f3951f8cda6e48888": "f962466ef690d46b226450fb9aadc74ba4bc64a76aa526b5827fe4bc5c7125cb",
}
"""By torchvision's MD5 sum."""

BYTES = {
    "f68b3c2dcbeaaa9fbdd348bbdeb94873": 9_912_422,
    "d53e105ee54ea40749a09fcbcd1e9432": 28_881,
    "9fb629c4189551a2d022fa330f9573f3": 1_648_877,
    "ec29112dd5afa0611ce80d1b7f02629c": 4_542,
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d": 26_421_880,
    "25c81989df183df01b3e8a0aad5dffbe": 29_515,
    "bef4ecab320f06d8554ea6380940ec79": 4_422_102,
    "bb300cfdad3c16e7a12a480ee83cd310": 5_148,
    "e26dedcc434d2e4c54c9b2d4a06d8373": 182_040_794,
    "eb5a983be6a315427106f1b164d9cef3": 64_275_384,
    "c58f30108f718f92721af3b95e74349a": 170_498_071,
}
"""The sizes of what is downloaded, by the same."""

UNPACKED = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""SHA-256 sums of MNIST's files as they are read. Others in their place are read as well, since people put their own there."""


IDX: dict[str, type[datasets.MNIST]] = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}
"""The sets in MNIST's format, in a folder of the class's name each."""


def all_files(name: str, split: str, root: Path) -> list[Path]:
    """The files that must be there: but for SVHN, those of both splits."""
    return [path for path, _ in _with_sums(name, split, root)]


def split_files(name: str, split: str, root: Path) -> list[Path]:
    """The files that are read for a split, in the order of `published.READERS`."""
    files = all_files(name, split, root)
    if name in IDX:
        return files[:2] if split == "train" else files[2:]
    if name == "cifar10":
        *batches, test, meta = files
        return [*batches, meta] if split == "train" else [test, meta]
    return files


def missing(name: str, split: str, root: Path) -> list[Path]:
    """Those that are not there."""
    return [path for path in all_files(name, split, root) if not path.is_file()]


def damaged(name: str, split: str, root: Path) -> list[Path]:
    """Those that are there and not what they should be."""
    there = [(path, md5) for path, md5 in _with_sums(name, split, root) if path.is_file()]
    return [path for path, md5 in there if not (is_whole(path, md5) if md5 else _idx_is_whole(path))]


def unpublished(name: str, split: str, root: Path) -> list[Path]:
    """Files of a split that are read although nothing says that they are the published ones; only in MNIST's format there may be such."""
    return (
        [path for path in split_files(name, split, root) if not _is_published(path, IDX[name])] if name in IDX else []
    )


def _is_published(path: Path, published: type[datasets.MNIST]) -> bool:
    if published is datasets.MNIST:
        return _sha256(path) == UNPACKED[path.name]
    # nobody has published sums of the unpacked files: the packed one beside it, if it is the published one, has to tell
    packed = path.with_name(f"{path.name}.gz")
    md5 = dict(published.resources)[packed.name]
    if not packed.is_file() or not is_whole(packed, md5):
        return False
    with gzip.open(packed) as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == _sha256(path)


def is_whole(path: Path, md5: str) -> bool:
    """Whether a file is the one that torchvision's MD5 sum means."""
    if md5 not in SHA256:  # a file that torchvision has changed since
        return check_integrity(str(path), md5)
    return _sha256(path) == SHA256[md5]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(name: str, root: Path) -> None:
    """Download and unpack what is missing or damaged, for both splits."""
    if name == "digits" or not any(
        missing(name, split, root) + damaged(name, split, root) for split in ("train", "test")
    ):
        return
    if name in IDX:
        folder = _idx_folder(name, root)
        for filename, md5 in IDX[name].resources:
            download([mirror + filename for mirror in IDX[name].mirrors], folder / filename, md5)
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
    if path.is_file() and is_whole(path, md5):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    errors = []
    for url in urls:
        try:
            _transfer(url, part, BYTES.get(md5))
        # an answer that is no HTTP, or whose numbers are none, is the address's fault too
        except (OSError, HTTPException, ValueError) as error:
            errors.append(f"{url}: {' '.join(str(error).split()) or type(error).__name__}")
            _remove_if_empty(part)
            continue
        # only a file that was checked gets the name
        if is_whole(part, md5):
            part.replace(path)
            return
        errors.append(f"{url}: what came is not the published file (its checksum is another one), and was removed")
        # going on from there would never make it whole
        part.unlink(missing_ok=True)
    kept = f"; {part} holds what has come, and the same command goes on from there" if part.exists() else ""
    raise OSError(f"could not download {path.name} ({'; '.join(errors)}){kept}")


def _remove_if_empty(part: Path) -> None:
    if part.is_file() and not part.is_symlink() and not part.stat().st_size:
        part.unlink()


def _transfer(url: str, part: Path, size: int | None) -> None:
    """Append what `part` lacks; `size` is that of the whole file, if it is known, and no more is taken."""
    with _open_part(part) as file:
        have = file.seek(0, os.SEEK_END)
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            response = urllib.request.urlopen(request, timeout=30)
        except HTTPError as error:
            if error.code == 416:  # nothing is left to send
                return
            raise
        with response:
            # a server that does not know ranges answers 200 and sends the whole file
            if response.status != 206:
                have = 0
                file.truncate(0)
            # the Content-Length of a 206 is that of the rest
            rest = int(response.headers.get("Content-Length") or 0)
            bar = tqdm(total=have + rest if rest else None, initial=have, unit="B", unit_scale=True, desc=part.stem)
            with bar:
                _copy(response, file, bar, size or MOST)


def _copy(response: BinaryIO, file: BinaryIO, bar: tqdm, most: int) -> None:
    """Copy to the end; OSError where that is not at the bar's, or beyond `most` bytes."""
    done = bar.n
    while chunk := response.read(CHUNK):
        done += len(chunk)
        if done > most:
            # what has come is of another file
            file.truncate(0)
            raise OSError(f"it sends more than the {most:,} bytes that the file may have")
        file.write(chunk)
        bar.update(len(chunk))
    # read(n) may end without an error where the connection does
    if bar.total and done < bar.total:
        raise OSError(f"the connection broke after {done} of {bar.total} bytes")


def _open_part(part: Path) -> BinaryIO:
    """The file of what has come, to append to; OSError if it is not ours.

    Its name must be the same each time, or no download could go on. In a folder where others write, too, it may be a link of
    theirs to a file of ours: so links are not followed, and a file with a second name, or another owner, is not written to.
    """
    # these three and getuid are missing on Windows, or there alone
    wanted = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    try:
        number = os.open(part, os.O_RDWR | os.O_APPEND | os.O_CREAT | wanted, 0o600)
    except OSError as error:
        raise OSError(f"{part} cannot be written ({error.strerror})") from None
    status = os.fstat(number)
    ours = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    if not (stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and ours):
        os.close(number)
        raise OSError(f"{part} is not a file that an earlier download left; remove it")
    return os.fdopen(number, "r+b")


def _with_sums(name: str, split: str, root: Path) -> list[tuple[Path, str | None]]:
    """The files that torchvision wants to see when it reads a split: but for SVHN, those of both."""
    if name in IDX:  # the checksums are those of the packed files
        names = (f"{stem}-{what}-ubyte" for stem in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))
        return [(_idx_folder(name, root) / file, None) for file in names]
    if name == "svhn":
        _, filename, md5 = datasets.SVHN.split_list[split]
        return [(root / "SVHN" / filename, md5)]
    cifar = datasets.CIFAR10
    listing = [*cifar.train_list, *cifar.test_list, (cifar.meta["filename"], cifar.meta["md5"])]
    return [(root / cifar.base_folder / filename, md5) for filename, md5 in listing]


def _idx_folder(name: str, root: Path) -> Path:
    return root / IDX[name].__name__ / "raw"


def _idx_is_whole(path: Path) -> bool:
    """Whether an IDX file has the length that it announces; people's own have no checksums."""
    try:
        read_idx(path, 3 if "idx3" in path.name else 1)
    except ValueError:
        return False
    return True
