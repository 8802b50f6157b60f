"""The folder of a run: what is in it at each moment, so that a run killed at any time can go on.

While a run is under way, `state.json` names the checkpoint of the last epoch that was finished. It is replaced only when that
checkpoint is on the disk, and the one before is removed only then. `record.json` is written last of all.
"""

from __future__ import annotations

import json
from pathlib import Path

from ..network import ImplicitNetwork
from . import checkpoints, records
from .processes import Processes
from .recipes import Recipe

STATE, RECORD, MODEL = "state.json", "record.json", "model.safetensors"


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
        if out.exists() and not out.is_dir():
            raise NotADirectoryError(f"out must be a folder, but {out} is a file; choose another name")
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
        processes.wait()  # until all have read
        if self.writes:
            out.mkdir(parents=True, exist_ok=True)
            self._tidy(keep=self.state[0] if self.state else None)

    def save(self, epoch: int, tensors: dict, state: dict) -> None:
        """The checkpoint after an epoch."""
        if not self.writes:
            return
        path = self.out / f"checkpoint-{epoch:04d}.safetensors"
        # in this order: at each moment state.json names a checkpoint that is whole
        checkpoints.save(path, tensors, {"kind": "state", "epoch": epoch})
        about = {"checkpoint": path.name, "recipe": self.recipe.to_json(), "training_version": self.version}
        state = {**about, **({"gave_way": self.gave_way} if self.gave_way else {}), **state}
        checkpoints.write(self.out / STATE, (json.dumps(state, indent=1) + "\n").encode())
        self._tidy(keep=path)

    def finish(self, network: ImplicitNetwork, record: records.Record, **about) -> None:
        """What a finished run leaves; `about` goes into the network's checkpoint."""
        if not self.writes:
            return
        record["training_version"] = self.version
        about |= {key: record[key] for key in ("seed", "commit", "versions", "device", "date", "result")}
        # the record after the network, since it is what says that the run is finished
        checkpoints.save_network(self.out / MODEL, network, self.recipe, **about)
        records.save(self.out / RECORD, record)
        self._tidy(keep=None)

    def _load(self):
        file = self.out / STATE
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            path = self.out / state["checkpoint"]
        except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{file} is not readable ({error!r}); remove the folder {self.out} and start anew"
            ) from None
        self._check_recipe(state["recipe"], state.get("gave_way", {}))
        tensors, _ = checkpoints.load(path)
        self.version = state.get("training_version", 1)  # a run that a newer version goes on with is an old one
        return path, tensors, state

    def _check_recipe(self, config: dict, gave_way: dict) -> None:
        """Refuse to go on with a run of another recipe."""
        own = self.recipe.to_json()
        if differences := self.recipe.differences(config, gave_way):
            shown = ", ".join(f"{key} was {config.get(key)!r} and is {own.get(key)!r}" for key in differences[:3])
            raise ValueError(
                f"the run in {self.out} has another recipe: {shown}; give the same, or choose another folder"
            )

    def _tidy(self, keep: Path | None) -> None:
        """Remove checkpoints but one, and what a killed run left half written."""
        for path in [*self.out.glob("checkpoint-*.safetensors"), *self.out.glob(".*.part")]:
            if path != keep:
                path.unlink(missing_ok=True)
        if keep is None:
            (self.out / STATE).unlink(missing_ok=True)
