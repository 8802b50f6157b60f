"""Recorded runs as arrays, for the tables and plots of a chapter::

digits = Recorded(SUITES["digits"])
spread(100 * digits.result("jfb"))  # "99.00 ± 0.50"
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..training import records
from ..training.experiments import Experiment
from .tables import Table, table_of

__all__ = ["Recorded", "interval", "spread"]


@dataclass(frozen=True)
class Recorded:
    """The records of some experiments, each by its label.

    Args:
        experiments: a suite, or a part of one with labels of its own.
        folder: where the records are.
        partly: runs without a record are left out; otherwise they are refused.
    """

    experiments: Sequence[Experiment]
    folder: Path | str = "records"
    partly: bool = False

    def __getitem__(self, label: str) -> Experiment:
        for each in self.experiments:
            if each.label == label:
                return each
        raise KeyError(f"no experiment is called {label!r}")

    def runs(self, *labels: str) -> list[records.Record]:
        """The records of experiments, in the order of their seeds; none of those whose first run failed.

        Raises:
            FileNotFoundError: a record is missing; the message names the command that makes it. Not so with `partly`.
        """
        found = []
        for label in labels:
            each = self[label]
            if self.partly:
                paths = [Path(self.folder) / each.file(seed) for seed in each.seeds]
                found += [records.read(path) for path in paths if path.is_file()]
            elif not each.failure(self.folder):
                found += each.records(self.folder)
        return found

    def result(self, label: str, key: str = "test_accuracy") -> NDArray:
        """One number of the result, `(seeds,)`."""
        return np.array([run["result"][key] for run in self.runs(label)])

    def rows(self, label: str, key: str) -> NDArray:
        """One quantity of all epochs, `(seeds, epochs)`."""
        return np.array([run.curve(key) for run in self.runs(label)])

    def end(self, label: str, key: str) -> float:
        """The quantity in the last epoch, the mean over the seeds."""
        return float(self.rows(label, key)[:, -1].mean())

    def summary(self, label: str, **more: object) -> dict[str, object]:
        """The means over the seeds of all numbers of the last epoch and of the result, for a row of a table.

        A key that both have is the epoch's. In words, `spread` is the test accuracy in per cent; `seeds` counts the runs.
        """
        runs = self.runs(label)
        rows = [run["result"] | run["epochs"][-1] for run in runs]
        keys = [key for key, value in rows[0].items() if isinstance(value, int | float)]
        means = {key: float(np.mean([row[key] for row in rows])) for key in keys}
        accuracy = spread(100 * self.result(label))
        return means | {"seeds": len(runs), "spread": accuracy} | more

    def table(
        self, names: Mapping[str, str], columns: Mapping[str, str], *, caption: str, **more: Mapping[str, object]
    ) -> Table:
        """A row for each experiment, written from its `summary`, its `name`, and further quantities, each by label.

        Example:
            digits.table({"jfb": "JFB"}, {"rule": "{name}", "time": "{time:.2f}"}, caption="…", time={"jfb": 1.0})
        """
        rows = [
            self.summary(label, name=name, **{key: values[label] for key, values in more.items()})
            for label, name in names.items()
        ]
        return table_of(rows, columns, caption=caption)


def interval(differences: Iterable[float]) -> tuple[float, float]:
    """The mean of paired differences, and half its 95% interval by Student's t; at least two pairs."""
    values = np.asarray(list(differences))
    if len(values) < 2:
        raise ValueError(f"differences must hold at least two pairs, got {len(values)}: one has no spread")
    error = values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean()), float(stats.t.ppf(0.975, len(values) - 1) * error)


def spread(values: Iterable[float], digits: int = 2) -> str:
    """The mean and, where there are several values, their standard deviation: `98.83 ± 0.09`."""
    values = np.asarray(list(values))
    more = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{more}"
