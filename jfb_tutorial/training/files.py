"""Files: written whole or not at all, and over nothing but a file; read as they are or packed by gzip."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import os
import re
import secrets
import stat
from pathlib import Path

__all__ = ["check_target", "plain_or_packed", "read_part_name", "unpacked", "write"]

PART = re.compile(r"\.(?P<name>.+)\.(?P<token>[0-9a-f]{16})(?P<sign>[0-9a-f]{16})\.part")
"""The name of a file that is being written. Its sign is a digest of the rest, so that no other file has such a name by chance."""


def plain_or_packed(path: Path) -> Path | None:
    """The file, or the one beside it that is packed, `path.gz`; None if neither is there."""
    return next((each for each in (path, path.with_name(f"{path.name}.gz")) if each.is_file()), None)


def unpacked(path: Path) -> bytes:
    """What a file holds, or, of a `….gz`, what is packed in it.

    Raises:
        OSError, EOFError: it cannot be read; a packed file is damaged.
    """
    if path.suffix != ".gz":
        return path.read_bytes()
    with gzip.open(path) as file:
        return file.read()


def write(path: Path, content: bytes) -> None:
    """Put `content` at `path`, whole or not at all; also after a power cut there is either the old file or the new one.

    Raises:
        OSError: it could not be written, or `path` is something else than a file; what was there is as it was.
    """
    path = Path(path)
    check_target(path)
    # in the same folder, since a rename is atomic within a file system only
    part = path.with_name(_make_part_name(path.name))
    try:
        # "x": a new file, and never what somebody else has put there, a link for instance
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            # the content must be on the disk before the name points at it
            os.fsync(file.fileno())
        os.replace(part, path)
        _flush_folder(path.parent)
    except OSError as error:
        outcome = "what was there before is untouched" if path.exists() else "nothing was left behind"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "Free some space, then go on" if full else "Is the folder there, and may you write in it?"
        raise OSError(
            error.errno,
            f"could not write {path} of {len(content) / 2**20:.1f} MiB ({error.strerror}); {outcome}. {remedy}",
        ) from error
    finally:
        # once it is renamed there is none
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def check_target(path: Path) -> None:
    """Refuse to write over what is no file: a rename would replace a device or a link by a file.

    Raises:
        FileExistsError: `path` is a folder, a link, a device or a pipe.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:  # it is not there, or nothing can be written there, which says so itself
        return
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a link" if stat.S_ISLNK(mode) else "a device or a pipe"
        raise FileExistsError(f"{path} is {kind}, and only a file can be written over; name another file")


def read_part_name(name: str) -> str | None:
    """What `write` was writing, if it left a file of this name when it was killed; None for the name of any other file."""
    found = PART.fullmatch(name)
    return found["name"] if found and found["sign"] == _sign(found["name"], found["token"]) else None


def _make_part_name(name: str) -> str:
    token = secrets.token_hex(8)
    return f".{name}.{token}{_sign(name, token)}.part"


def _sign(name: str, token: str) -> str:
    return hashlib.sha256(f"jfb_tutorial {name} {token}".encode()).hexdigest()[:16]


def _flush_folder(folder: Path) -> None:
    """Make the disk keep the order in which names change; where a folder cannot be opened (Windows), the system sees to it."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
