"""Records: what a run was, on what it was made, and what came out, in one JSON file that the book reads.

A record has the keys `config` (the recipe), `seed`, `commit`, `training_version` (1 where it is missing), `versions`, `device`,
`date`, `epochs` (a list, one object an epoch) and `result` (with `test_accuracy` in [0, 1]). A run in a folder adds `model`, the
digest of its checkpoint, see `checkpoints.digest`. `identity` has digests of the images, and a caller's rule and solver, see
`identity`. Older records lack both.
"""

from __future__ import annotations

import datetime
import functools
import json
import math
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from .files import write
from .forms import COUNT, NUMBER, OBJECT, TEXT, check_form, or_null, read_json
from .recipes import Recipe

__all__ = ["TRAINING_VERSION", "Record", "as_read", "device_name", "provenance", "read", "save"]

PACKAGE = Path(__file__).resolve().parent.parent

TRAINING_VERSION = 1
"""Raised by one with every change of the code after which a run would come out differently; records of another number are old.

A change that alters rounding alone is none. `tests/test_training_version.py` trains with the code as it is and compares the
losses with those that this version gave.
"""
FORM = {
    "config": OBJECT,
    "seed": COUNT,
    "commit": TEXT,
    "training_version?": COUNT,  # the oldest records lack it
    "versions": {"*": or_null(TEXT)},
    "device": TEXT,
    "date": TEXT,
    "gave_way?": {"*": COUNT},
    "model?": TEXT,
    "identity?": {"*": TEXT},
    "epochs": [{"epoch?": COUNT, "loss?": or_null(NUMBER), "accuracy?": or_null(NUMBER)}],
    "result": {"test_accuracy?": or_null(NUMBER)},
}
KEYS = tuple(key for key in FORM if not key.endswith("?"))


class Record(dict):
    """A record as read from its file: a dictionary with the keys of this module's heading, and a few conveniences."""

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run; ValueError if this version of the package cannot express it."""
        return Recipe.from_json(self["config"])

    @property
    def stale(self) -> bool:
        """Whether training has changed since, see `TRAINING_VERSION`."""
        return self.get("training_version", 1) != TRAINING_VERSION

    def curve(self, key: str) -> list[float]:
        """One quantity of the rows of all epochs; NaN where an epoch has none. KeyError names what there is."""
        if self["epochs"] and not any(key in row for row in self["epochs"]):
            raise KeyError(f"no epoch has {key!r}; there are {', '.join(self['epochs'][0])}")
        return [math.nan if row.get(key) is None else row[key] for row in self["epochs"]]

    def __repr__(self) -> str:
        accuracy = self["result"].get("test_accuracy")
        shown = "no test accuracy" if accuracy is None else f"test accuracy {100 * accuracy:.2f}%"
        return f"Record({self['config'].get('dataset')}, {len(self['epochs'])} epochs, seed {self['seed']}: {shown})"


def provenance(device: torch.device | str = "cpu") -> dict:
    """The `commit`, `training_version`, `versions`, `device` and `date` of a measurement that is made now."""
    versions: dict[str, str | None] = {
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
    }
    if torch.device(device).type == "cuda":
        versions |= {"CUDA": torch.version.cuda, "cuDNN": str(torch.backends.cudnn.version())}
    return {
        "commit": commit(),
        "training_version": TRAINING_VERSION,
        "versions": versions,
        "device": device_name(device),
        "date": datetime.date.today().isoformat(),
    }


def device_name(device: torch.device | str) -> str:
    """What a measurement is made on, in words: "NVIDIA H200", "2 CPU cores"."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{threads} CPU core{'s' if threads > 1 else ''}" if device.type == "cpu" else str(device)


def commit(folder: Path = PACKAGE) -> str:
    """The commit that is checked out, marked if something in the folder has been changed since; `$JFB_COMMIT` where it is set."""
    return os.environ.get("JFB_COMMIT") or _commit(folder)


@functools.cache
def _commit(folder: Path) -> str:
    """Asked once, when the first run of a process begins: the code that runs is the code that was there then."""
    try:
        # "." is the folder: changes elsewhere in the repository do not count
        head, changed, tracked = (
            subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
            for command in (
                ("rev-parse", "--short", "HEAD"),
                ("status", "--porcelain", "--", "."),
                ("ls-files", "--", "."),
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    if not tracked:  # the package is installed inside some other project
        return "unknown"
    return head + (" with changes" if changed else "")


def save(path: Path, record: dict) -> None:
    """Write a record, whole or not at all."""
    write(path, _text(as_read(record)).encode())


def _text(record: dict) -> str:
    """JSON with a line for each key, and for each epoch."""
    # so that two records can be compared line by line
    rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in record["epochs"])
    lines = [f' "{key}": {json.dumps(value, ensure_ascii=False)}' for key, value in record.items() if key != "epochs"]
    return "{\n" + ",\n".join([*lines, f' "epochs": [\n{rows}\n ]']) + "\n}\n"


def as_read(value):
    """A value as a record's file gives it back: JSON has no NaN and no infinity, which become null."""
    if isinstance(value, dict):
        return {key: as_read(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_read(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read(path: Path | str) -> Record:
    """Read a record.

    Raises:
        FileNotFoundError: there is none; the message says which command makes one.
        ValueError: it is not readable, or lacks a key.
    """
    path = Path(path)
    try:
        record = read_json(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no record {path}; python -m jfb_tutorial train DATASET --out DIR leaves DIR/record.json"
        ) from None
    except ValueError as error:
        raise ValueError(f"the record {error}") from None
    missing = [key for key in KEYS if key not in record] if isinstance(record, dict) else list(KEYS)
    if missing:
        raise ValueError(f"{path} is not a record: it lacks {', '.join(missing)}")
    check_form(path, record, FORM)
    return Record(record)
