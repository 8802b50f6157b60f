"""Experiments: runs that are named, listed in a file, and made where their record is missing or old.

A list of runs is a Python file with a dictionary `SUITES`, from a name, which is a data set's where all are of one, to a tuple of
experiments; the book's is `book/runs.py`.
"""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .._checks import check_choice
from . import checkpoints, records, train
from .files import write
from .folder import MODEL, RECORD, STATE, read_state
from .locks import hold
from .output import say, shorten
from .processes import read_environment
from .recipes import Recipe

__all__ = ["Experiment", "at_scale", "missing", "read_suites", "reproduce"]

Suite = Sequence["Experiment"]


@dataclass(frozen=True)
class Experiment:
    """Runs that differ in their seed alone.

    Attributes:
        label: what they are called, in file names too.
        scale: as for `recipes.recipe`.
        recipe: with seed 0.
        seeds: of the runs.
        keeps: the name of a file for the trained network of seed 0, beside its record, which then has a copy of the same name, as
            `mnist.safetensors` and `mnist.json`; "" keeps none.
        suite: what the list of runs calls the suite that they are in; "" where that is the name of their data set.
    """

    label: str
    scale: str
    recipe: Recipe
    seeds: range
    keeps: str = ""
    suite: str = ""

    def file(self, seed: int) -> str:
        """The name of a run's record, `<dataset>-<label>-<scale>-<seed>.json`."""
        return f"{self.recipe.dataset}-{self.label}-{self.scale}-{seed}.json"

    def failure(self, folder: Path | str, seed: int = 0) -> records.Record | None:
        """What is left of a run that failed, if it did: `result["failed"]` is the message. It is in the subfolder `failed`."""
        path = Path(folder) / "failed" / self.file(seed)
        return records.read(path) if path.is_file() else None

    def records(self, folder: Path | str) -> list[records.Record]:
        """The records of all seeds; FileNotFoundError names the command that makes a missing one."""
        read = []
        for seed in self.seeds:
            path = Path(folder) / self.file(seed)
            if not path.is_file():
                raise FileNotFoundError(
                    f"there is no record {path}; python -m jfb_tutorial reproduce {self.suite or self.recipe.dataset} --out "
                    f"{folder} makes it"
                )
            read.append(records.read(path))
        return read


def read_suites(path: Path | str) -> dict[str, Suite]:
    """The `SUITES` of a list of runs, by name.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it has no `SUITES`, or running it fails.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no list of runs {path}; work in the book's repository, or name one by --runs FILE"
        )
    try:
        suites = runpy.run_path(str(path)).get("SUITES")
    except (Exception, SystemExit) as error:  # it may run into anything, and end Python
        fault = shorten(f"{type(error).__name__}: {error}")
        raise ValueError(
            f"the list of runs {path} cannot be read ({fault}); mend it, or name another by --runs"
        ) from error
    if not isinstance(suites, dict):
        raise ValueError(f"{path} must define SUITES, a dictionary from a name to a tuple of experiments")
    return suites


def at_scale(suite: Suite, scale: str = "", device: str | None = None) -> str:
    """`scale`, or what is fit for a device: "full" on a GPU, "cpu" without one, unless the suite has runs at one scale only.

    Raises:
        ValueError: there are no such runs.
    """
    known = sorted({experiment.scale for experiment in suite})
    if scale:
        return check_choice("scale", scale, known)
    kind = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")).type
    fit = "cpu" if kind == "cpu" else "full"
    return fit if fit in known else known[0]


def missing(
    suite: Suite, folder: Path | str, scale: str = "", labels: Sequence[str] = ()
) -> Iterator[tuple[Experiment, int, str]]:
    """The runs of a scale without a good record in a folder, each with the reason; with `labels`, of these experiments only.

    Raises:
        ValueError: there are no such runs.
    """
    scale = at_scale(suite, scale)
    known = [experiment.label for experiment in suite if experiment.scale == scale]
    wanted = {check_choice("label", label, known) for label in labels} or set(known)
    for experiment in (each for each in suite if each.scale == scale and each.label in wanted):
        for seed in experiment.seeds:
            path = Path(folder) / experiment.file(seed)
            # a failure counts as a record: the same code would fail again
            record = records.read(path) if path.is_file() else experiment.failure(folder, seed)
            if record is None:
                yield experiment, seed, "there is no record"
            elif experiment.recipe.replace(seed=seed).differences(record["config"], record.get("gave_way", {})):
                yield experiment, seed, "its record is of another recipe"
            elif record.stale:
                yield experiment, seed, "its record was made by an older version of the training code"
            elif (
                experiment.keeps
                and seed == 0
                # a run that failed has left no network
                and "failed" not in record["result"]
                and (fault := _find_fault(Path(folder) / experiment.keeps, record))
            ):
                yield experiment, seed, f"its trained network {fault}"


def _find_fault(kept: Path, record: records.Record) -> str:
    """What is wrong with a network that was kept; "" where nothing is."""
    if not kept.is_file():
        return "is not there"
    try:
        own = checkpoints.digest(kept)
    except ValueError:
        return "is damaged"
    # older records do not name their network
    return "" if own == record.get("model", own) else "is of another run"


def _can_go_on(under_way: Path, wanted: Recipe) -> bool:
    """Whether a run that was left there is of this recipe and of this version of training."""
    # record.json is there if the run was finished and what follows was cut off
    for name, key, read in ((RECORD, "config", records.read), (STATE, "recipe", read_state)):
        try:
            left = read(under_way / name)
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            return False
        same = not wanted.differences(left[key], left.get("gave_way", {}))
        return same and left.get("training_version", 1) == records.TRAINING_VERSION
    return False


def _keep_failure(path: Path, wanted: Recipe, error: Exception, under_way: Path, device: str | None) -> None:
    """A record of a run that failed: a failure is a result, too."""
    try:
        rows = read_state(under_way / STATE)["rows"]
    except (OSError, ValueError):
        rows = []
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"config": wanted.to_json(), "seed": wanted.seed, **records.provenance(device)}
    records.save(path, records.Record(about | {"epochs": rows, "result": {"failed": str(error)}}))


def _check_alone() -> None:
    """Refuse to be one of several processes: all of them would write and remove the same files."""
    if (world := read_environment()[1]) > 1:
        raise ValueError(f"reproduce trains in one process, and WORLD_SIZE is {world}; start it without torchrun")


def reproduce(
    suite: Suite,
    folder: Path | str,
    *,
    labels: tuple[str, ...] = (),
    scale: str = "",
    device: str | None = None,
    **settings,
) -> None:
    """Train what `missing` yields, and put the records into a folder.

    Args:
        suite: the experiments.
        folder: of the records; runs under way are in its subfolder `.runs`.
        labels: of the experiments to make; all by default.
        scale: "cpu" or "full"; see `at_scale`.
        device: "cpu", "cuda", …; by default a GPU if there is one.
        settings: `progress` and `callback` as for `training.train`.

    Raises:
        RuntimeError: some runs failed; all others were made. A failed one leaves a record in the subfolder `failed`; the same code
            does not try it again.
        torch.OutOfMemoryError: a batch does not fit into the device's memory; the message says which one does.
    """
    folder, scale = Path(folder), at_scale(suite, scale, device)
    _check_alone()
    todo = list(missing(suite, folder, scale, labels))
    failed = []
    for number, (experiment, seed, why) in enumerate(todo, 1):
        say(f"{number}/{len(todo)} {experiment.file(seed)}: {why}")
        under_way = folder / ".runs" / experiment.file(seed).removesuffix(".json")
        wanted = experiment.recipe.replace(seed=seed)
        # training refuses to go on with a run of another recipe, and goes on with an older version's as an old one
        if under_way.is_dir() and not _can_go_on(under_way, wanted):
            with hold(under_way):  # another process may be at work on it
                shutil.rmtree(under_way)
        try:
            train(wanted, under_way, resume=True, device=device, **settings)
        except torch.OutOfMemoryError:
            raise  # it says something about the machine, not about the run
        except (FloatingPointError, RuntimeError) as error:
            failed.append(f"{experiment.file(seed)}: {error}")
            say(f"    failed: {error}")
            _keep_failure(folder / "failed" / experiment.file(seed), wanted, error, under_way, device)
            if under_way.is_dir() and not any(under_way.iterdir()):  # it failed before its first checkpoint
                under_way.rmdir()
            continue
        if experiment.keeps and seed == 0:
            write(folder / experiment.keeps, (under_way / MODEL).read_bytes())
            write((folder / experiment.keeps).with_suffix(".json"), (under_way / RECORD).read_bytes())
        # last: as long as the record is missing, the run counts as missing and is gone on with
        write(folder / experiment.file(seed), (under_way / RECORD).read_bytes())
        (folder / "failed" / experiment.file(seed)).unlink(missing_ok=True)
        shutil.rmtree(under_way)
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(todo)} runs failed:\n" + "\n".join(failed))
    if (folder / ".runs").is_dir() and not any((folder / ".runs").iterdir()):
        (folder / ".runs").rmdir()
