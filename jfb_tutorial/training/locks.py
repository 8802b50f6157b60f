"""One run a folder at a time, by a lock of the operating system's, which ends with the process however that ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["hold"]

LOCK = ".jfb_tutorial.lock"
"""The file that is locked where a folder cannot be; it stays, since it might be another process's by the time it is removed."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Inside, the folder, which must be there, is this process's alone, to all who ask for it so.

    Raises:
        FileExistsError: another run holds it.
    """
    # the folder itself, where that goes: nothing is left in it, not even by a process that is killed
    descriptor = _lock_folder(folder)
    if descriptor is not None:
        try:
            yield
        finally:
            os.close(descriptor)  # and with it the lock
        return
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise _in_use(folder) from None
    try:
        yield
    finally:
        lock.release()


def _lock_folder(folder: Path) -> int | None:
    """What holds the lock until it is closed; None where folders cannot be locked, as on Windows and on NFS."""
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock_descriptor(descriptor)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise _in_use(folder) from None
        return None
    return descriptor


def _lock_descriptor(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _in_use(folder: Path) -> FileExistsError:
    return FileExistsError(f"out: another run is at work in {folder}; choose another folder, or wait for its end")
