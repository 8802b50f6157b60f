"""The folder of a run: what is in it at each moment, so that a run killed at any time can go on, and loses nothing of others.

While a run is under way, `state.json` names the checkpoint of the last epoch that was finished. It is replaced only when that
checkpoint is on the disk, and the one before is removed only then. `record.json` is written last of all. The folder is held by one
run at a time. A run replaces and removes what it has made, and nothing else; it does not begin where that would be in its way.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ..network import ImplicitNetwork
from . import checkpoints, files, records
from .forms import COUNT, NUMBER, OBJECT, TEXT, check_form, read_json
from .locks import hold
from .processes import Processes
from .recipes import GIVES_WAY, Recipe

__all__ = ["MODEL", "RECORD", "STATE", "Folder", "check_picture", "open_folder", "read_state"]

STATE, RECORD, MODEL = "state.json", "record.json", "model.safetensors"
CHECKPOINT = re.compile(r"checkpoint-\d{4,}\.safetensors")
STATE_FORM = {
    "checkpoint": TEXT,
    "recipe": OBJECT,
    "training_version?": COUNT,
    "gave_way?": {f"{name}?": COUNT for name in sorted(GIVES_WAY)},
    "identity?": {"*": TEXT},
    "rows": [{"epoch": COUNT}],
    "resumed": [COUNT],
    "scalars": {"*": NUMBER},
    "seconds": NUMBER,
}


@contextmanager
def open_folder(out: Path | str | None, recipe: Recipe, resume: bool, processes: Processes) -> Iterator[Folder | None]:
    """A run's folder, held by it inside; None without `out`.

    Raises:
        FileExistsError, ValueError, OSError: see `training.train`.
    """
    if out is None:
        yield None
        return
    if not str(out):
        raise ValueError("out must name a folder, got an empty name; the current folder is '.'")
    path = Path(out)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"out must be a folder, but {path} is a file; choose another name")
    if processes.rank == 0:
        path.mkdir(parents=True, exist_ok=True)
    # one process holds it for all that share the run
    with hold(path) if processes.rank == 0 else nullcontext():
        yield Folder(path, recipe, resume, processes)


def read_state(file: Path) -> dict[str, Any]:
    """What a `state.json` says.

    Raises:
        OSError, ValueError: it is not there, not readable, or has not the form of one; the message names the field.
    """
    state = read_json(file)
    check_form(file, state, STATE_FORM)
    if not CHECKPOINT.fullmatch(state["checkpoint"]):
        raise ValueError(f"{file} names no checkpoint of a run, but {state['checkpoint'][:60]!r}")
    return state


def check_picture(path: Path, run: Path) -> None:
    """Refuse to draw over a picture, unless `run` is the folder of a finished run: that is gone on with, or refuses itself.

    Raises:
        FileExistsError: it is there, and may be anybody's.
    """
    files.check_target(path)
    if path.exists() and not (run / RECORD).is_file():
        raise FileExistsError(f"out: {path} is there already, and would be drawn over; choose another folder")


class Folder:
    """A run's folder.

    Attributes:
        recipe: what the run is trained with; set anew where proposals give way to the data.
        gave_way: the proposals that did, as they were.
        finished: whether the run in it is.
        state: the path and the tensors of its last checkpoint and what goes with them; None if there is none.

    Raises:
        FileExistsError, ValueError, OSError: see `training.train`.
    """

    def __init__(self, out: Path, recipe: Recipe, resume: bool, processes: Processes) -> None:
        self.out, self.recipe, self.writes = out, recipe, processes.rank == 0
        self.version, self.gave_way = records.TRAINING_VERSION, dict[str, int]()
        for name in (STATE, RECORD, MODEL):
            files.check_target(out / name)
        self.finished, self.state = (out / RECORD).is_file(), None
        under_way = (out / STATE).is_file()
        if (self.finished or under_way) and not resume:
            what = "a finished run" if self.finished else "a run under way"
            raise FileExistsError(f"out: {out} holds {what}; choose another folder, or go on with it by --resume")
        if self.finished:
            record = records.read(out / RECORD)
            self._check_recipe(record["config"], record.get("gave_way", {}))
        elif under_way:
            self.state = self._load()
        self.own = self._find_own(resume)
        processes.wait()  # until all have read
        self._tidy(keep=({self.state[0], out / STATE} if self.state else {out / RECORD, out / MODEL}))

    def save(self, epoch: int, tensors: dict, state: dict) -> None:
        """The checkpoint after an epoch."""
        if not self.writes:
            return
        path = self.out / f"checkpoint-{epoch:04d}.safetensors"
        gave_way = {"gave_way": self.gave_way} if self.gave_way else {}
        config = {"recipe": self.recipe.to_json(), **gave_way}
        content = {"checkpoint": path.name, **config, "training_version": self.version, **state}
        text = (json.dumps(content, indent=1) + "\n").encode()
        # in this order: at each moment state.json names a checkpoint that is whole
        about = {"kind": "state", "epoch": epoch, **config, "state": hashlib.sha256(text).hexdigest()}
        checkpoints.save(path, tensors, about)
        checkpoints.write(self.out / STATE, text)
        self.own |= {path, self.out / STATE}
        self._tidy(keep={path, self.out / STATE})

    def finish(self, network: ImplicitNetwork, record: records.Record, **about) -> None:
        """What a finished run leaves; `about` goes into the network's checkpoint."""
        if not self.writes:
            return
        record["training_version"] = self.version
        about |= {key: record[key] for key in ("seed", "commit", "versions", "device", "date", "result")}
        # the record after the network, since it is what says that the run is finished
        record["model"] = checkpoints.save_network(self.out / MODEL, network, self.recipe, **about)
        records.save(self.out / RECORD, record)
        self._tidy(keep={self.out / MODEL, self.out / RECORD})

    def check_fitted(self, recipe: Recipe, gave_way: dict[str, int]) -> None:
        """Refuse to go on with a checkpoint of another recipe than this one, whose proposals have given way to the data.

        Raises:
            ValueError: it is of another one.
        """
        if self.state:
            # older versions used as many images for these two as there were, and kept what was asked for
            asked = {name: gave_way[name] for name in ("reestimate", "probe") if name in gave_way}
            fitted = {name: getattr(recipe, name) for name in asked}
            config = self.state[2]["recipe"]
            older = {name: fitted[name] for name in asked if config.get(name) == asked[name]}
            self._check_recipe(config | older, {}, recipe)

    def _load(self) -> tuple[Path, dict, dict]:
        file = self.out / STATE
        try:
            state = read_state(file)
        except ValueError as error:
            raise ValueError(f"{error}, or choose another folder") from None
        self._check_recipe(state["recipe"], state.get("gave_way", {}))
        path = self.out / state["checkpoint"]
        tensors, about = checkpoints.load(path)
        finished = [row["epoch"] for row in state["rows"]]
        # the older ones have no digest of the state, but the number of the epoch
        present = hashlib.sha256(file.read_bytes()).hexdigest()
        if (
            about.get("kind") != "state"
            or finished != list(range(1, len(finished) + 1))
            or about.get("epoch") != len(finished)
            or len(finished) > self.recipe.epochs
            or about.get("state", present) != present
        ):
            raise ValueError(
                f"{file} was altered after it was written: it does not fit {path.name}; take another copy of both, or choose "
                "another folder"
            )
        self.version = state.get("training_version", 1)  # a run that a newer version goes on with is an old one
        return path, tensors, state

    def _check_recipe(self, config: dict, gave_way: dict, recipe: Recipe | None = None) -> None:
        """Refuse to go on with a run of another recipe."""
        recipe = recipe or self.recipe
        own = recipe.to_json()
        if differences := recipe.differences(config, gave_way):
            shown = ", ".join(f"{key} was {config.get(key)!r:.60} and is {own.get(key)!r}" for key in differences[:3])
            raise ValueError(
                f"the run in {self.out} has another recipe: {shown}; give the same, or choose another folder"
            )

    def _find_own(self, resume: bool) -> set[Path]:
        """What this very run has made before it was killed; FileExistsError if something else is in its way."""
        state = self.state or (self._left_over() if self.finished else None)
        own = {self.out / STATE} if state else set()
        for path in sorted(self.out.iterdir()) if self.out.is_dir() else ():
            written = files.read_part_name(path.name)  # by the same rule as the file that it was to become
            name = written or path.name
            if name not in (STATE, RECORD, MODEL) and not CHECKPOINT.fullmatch(name):
                continue
            if written or (resume and self._made(path, state)):
                own.add(path)
            elif not self.finished and path not in own:
                raise FileExistsError(
                    f"out: {self.out} holds {path.name}, which this run has not made and would write over; choose another folder"
                )
        return own

    def _left_over(self) -> tuple[Path, dict, dict] | None:
        """The state beside a record, where the run was killed between the two; None if it is another one's."""
        try:
            return self._load()
        except (OSError, ValueError):
            return None

    def _made(self, path: Path, state: tuple[Path, dict, dict] | None) -> bool:
        """Whether a checkpoint that is there is of this run."""
        try:
            _, about = checkpoints.load(path)
            check_form(path, about, {"kind": TEXT, "recipe?": OBJECT, "gave_way?": STATE_FORM["gave_way?"]})
        except (OSError, ValueError):
            return False
        if state:
            # the older ones had no recipe, but this is their run's folder
            return about.get("recipe", state[2]["recipe"]) == state[2]["recipe"]
        # it was killed before it could write its first state
        mine = not self.recipe.differences(about.get("recipe", {}), about.get("gave_way", {}))
        return mine and about["kind"] == "state" and path.name != MODEL

    def _tidy(self, keep: set[Path]) -> None:
        """Remove what this run has made, but for some files."""
        if self.writes:
            for path in self.own - keep:
                path.unlink(missing_ok=True)
            self.own &= keep
