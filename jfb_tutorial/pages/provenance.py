"""Where the numbers of a figure or a table come from, to stand beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ..training.records import Record

__all__ = ["Sources", "measured_on", "sources"]


class Sources:
    """Where the numbers of a figure or a table come from: a line of text, and in HTML a quiet mark that opens to it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        mark = "<summary><small>Recorded runs</small></summary>"
        return f'<details class="jfb-provenance">{mark}<p><small>{escape(self.text)}</small></p></details>'


def sources(records: Sequence[Record]) -> Sources:
    """The provenance of some records in one line, and which were made by an older version of the training code."""
    records = list(records)
    if not records:
        raise ValueError("records must hold at least one record, got none; is the run still to be made?")

    def all_of(values) -> str:
        # a dict keeps each value once, in the order of the records
        return ", ".join(dict.fromkeys(map(str, values)))

    runs = f"{len(records)} recorded run{'s' if len(records) > 1 else ''}"
    versions = all_of(f"torch {record['versions'].get('torch')}" for record in records)
    dates = sorted({record["date"] for record in records})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    seeds = all_of(sorted({record["seed"] for record in records}))
    text = (
        f"From {runs}: {all_of(record['device'] for record in records)}, {versions}, {when}, "
        f"commit {all_of(record['commit'] for record in records)}, seed{'s' if ',' in seeds else ''} {seeds}."
    )
    if old := sum(record.stale for record in records):
        which = "It was" if len(records) == 1 else f"{old} of them {'was' if old == 1 else 'were'}"
        text += f" {which} made by an older version of the training code."
    return Sources(text)


def measured_on(timing: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """Named values that say where a file of `book/timings` was measured: `prefix` with _device, _torch, _date and _commit."""
    named = {"device": timing["device"], "torch": timing["versions"]["torch"]}
    named |= {"date": timing["date"], "commit": timing["commit"].split()[0]}
    return {f"{prefix}_{key}": value for key, value in named.items()}
