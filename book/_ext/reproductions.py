"""The ledger of reproductions: what the papers publish, beside our records or claims, or the command that makes a record."""

import dataclasses
import itertools
import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from html import escape
from pathlib import Path

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive
from jfb_tutorial.pages.provenance import sources
from jfb_tutorial.pages.recorded import spread
from jfb_tutorial.training import experiments, records
from jfb_tutorial.training.experiments import Experiment
from jfb_tutorial.training.records import Record

import chapters
import jfb_book

BOOK = Path(__file__).resolve().parent.parent
RECORDS = BOOK / "records"
TIMINGS = BOOK / "timings"
SUITES = experiments.read_suites(BOOK / "runs.py")


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the ledger says to one published number."""

    ours: str
    """The value as it is shown, or why there is none: "98.00 ± 1.41 %", "not yet run"."""
    value: float | None = None
    """The same as a number, in the units of the published one; None where there is none."""
    gap: float | None = None
    """`value` minus the published number; None where one of the two is missing."""
    provenance: str = ""
    """How the value was got: seeds, epochs, devices; or, without one, why there is none."""
    command: str = ""
    """The shell command that measures the value."""
    scale: str = ""
    """The scale of the runs, where it is not the papers' own (`full`)."""
    claim: str = ""
    """The identifier of the claim that answers instead of a run."""


def rows() -> list[dict]:
    """What is to be reproduced."""
    return yaml.safe_load((BOOK / "_reproductions.yml").read_text())


def answer(row: dict) -> Answer:
    """The answer to a row of `_reproductions.yml`."""
    if "none" in row:
        return Answer("–", provenance=row["none"])
    if "claim" in row:
        return Answer(chapters.verdict(claims()[row["claim"]][1]), claim=row["claim"])
    if "timing" in row:
        return with_gap(row, from_timing(row["timing"]))
    runs = row["runs"]
    result = (timed_in_turns(runs) if runs["quantity"] == "time" else None) or from_records(runs)
    return with_gap(row, result)


def with_gap(row: dict, result: Answer) -> Answer:
    """An answer beside what is published; "6.0·10⁶ in 100 epochs", in other units, is shown and not subtracted."""
    if result.value is None or not isinstance(row.get("published"), int | float):
        return result
    return dataclasses.replace(result, gap=result.value - row["published"])


def from_timing(timing: dict) -> Answer:
    """The mean over rows of a file of `book/timings`: accuracies in percent, or perplexities of losses in nats.

    Args:
        timing: `file` and `part`; `of`, the values that the rows have; `accuracy` or `perplexity`, the key of the number; `tested`, where
            the number is a count, the key of how many there were; `note`, what was run.
    """
    found = json.loads((TIMINGS / f"{timing['file']}.json").read_text())
    rows = [row for row in found["result"][timing["part"]] if timing["of"].items() <= row.items()]
    if not rows:
        raise ValueError(f"no row of the part {timing['part']!r} of {timing['file']}.json has {timing['of']}")
    if "accuracy" in timing:
        values, unit = [100 * row[timing["accuracy"]] / row.get(timing.get("tested"), 1) for row in rows], " %"
    else:
        values, unit = [math.exp(row[timing["perplexity"]]) for row in rows], ""
    runs = f"{len(rows)} run{'s' if len(rows) > 1 else ''}"
    source = ", ".join([runs, timing["note"], found["device"]])
    command = f"python tests/benchmarks/measure_{timing['file']}.py"
    return Answer(f"{spread(values)}{unit}", statistics.mean(values), provenance=source, command=command)


def timed_in_turns(runs: dict) -> Answer | None:
    """The time of a training step in units of JFB's, measured in turns; None where it was not measured.

    It is preferred to the records' times: runs made on different days saw different machines.
    """
    path = TIMINGS / f"{runs['dataset']}.json"
    timing = json.loads(path.read_text()) if path.is_file() else {}
    ratio = timing.get("result", {}).get("ratio_to_jfb", {}).get(runs["label"])
    if not ratio:
        return None
    threads = timing.get("config", {}).get("threads")
    device = f"{threads} thread{'s' if threads > 1 else ''} of {timing['device']}" if threads else timing["device"]
    source = f"training steps in turns, {device}, {timing['date']}"
    return Answer(f"{ratio:.2f}", ratio, provenance=source, command="make timings")


def from_records(runs: dict) -> Answer:
    """The answer of the records of an experiment, of its failures, or of nothing yet."""
    experiment, complete = records_of(runs["dataset"], runs["label"])
    command = command_for(runs, experiment)
    measured = quantity(runs, complete) if complete else None
    if measured is None:
        failures = [seed for seed in experiment.seeds if experiment.failure(RECORDS, seed)]
        if failures:
            stopped = f"{len(failures)} of {len(experiment.seeds)} seeds stopped"
            return Answer("failed", provenance=stopped, command=command)
        return Answer("not yet run", command=command)
    text, value = measured
    scale = "" if experiment.scale == "full" else experiment.scale
    return Answer(text, value, provenance=describe(experiment, complete), command=command, scale=scale)


def records_of(dataset: str, label: str) -> tuple[Experiment, list[Record]]:
    """The records there are of an experiment, at the largest scale that has any."""
    same = [each for each in SUITES[dataset] if each.label == label]
    # False comes before True: the full scale first
    for each in sorted(same, key=lambda each: each.scale != "full"):
        paths = record_paths(each)
        if paths or any(each.failure(RECORDS, seed) for seed in each.seeds):
            return each, [records.read(path) for path in paths]
    return same[-1], []


def record_paths(experiment: Experiment) -> list[Path]:
    """The files of an experiment's records that are there."""
    return [path for seed in experiment.seeds if (path := RECORDS / experiment.file(seed)).is_file()]


def command_for(runs: dict, experiment: Experiment) -> str:
    """The command that makes the records of an experiment, and of the one that it is compared with."""
    command = f"python -m jfb_tutorial reproduce {runs['dataset']} --only {runs['label']}"
    if "to" in runs:
        command += f" {runs['to']}"
    # without a GPU `reproduce` takes the scale `cpu` where there is one, so a full run must be asked for
    if experiment.scale == "full" and any(each.scale == "cpu" for each in SUITES[runs["dataset"]]):
        command += " --scale full"
    return command


def describe(experiment: Experiment, complete: list[Record]) -> str:
    """How many seeds, epochs and, where they are not the usual ones, images and channels, on which devices, and whether training has changed since."""
    recipe = experiment.recipe
    parts = [f"{len(complete)} seed{'s' if len(complete) > 1 else ''}", f"{recipe.epochs} epochs"]
    parts += [f"{recipe.images:,} images"] if recipe.images else []
    parts += [f"width {recipe.width}"] if recipe.width else []
    parts += dict.fromkeys(record["device"] for record in complete)
    if any(record.stale for record in complete):
        parts.append("made by an older version of the training code")
    return ", ".join(parts)


def quantity(runs: dict, complete: list[Record]) -> tuple[str, float] | None:
    """Ours, in words and as a number; None where a record is still to be made."""
    if runs["quantity"] == "accuracy":
        return accuracy(complete)
    if runs["quantity"] == "products":
        return products(complete, runs["images"])
    # what is left is "time", in units of another experiment's
    base = records_of(runs["dataset"], runs["to"])[1]
    if not base:
        return None
    ratio = seconds_an_epoch(complete) / seconds_an_epoch(base)
    return f"{ratio:.2f}", ratio


def accuracy(complete: list[Record]) -> tuple[str, float]:
    """The mean test accuracy over the seeds, in percent, with the standard deviation where there are several."""
    values = [100 * record["result"]["test_accuracy"] for record in complete]
    return f"{spread(values)} %", statistics.mean(values)


def products(complete: list[Record], images: int) -> tuple[str, float]:
    """Products with the Jacobian an image and epoch; a step multiplies for its whole batch at once."""
    steps = -(-images // complete[0].recipe.batch)  # rounded up: the last batch may be smaller
    value = statistics.mean(row["products"] / steps for record in complete for row in record["epochs"])
    return f"{value:.1f}", value


def seconds_an_epoch(complete: list[Record]) -> float:
    """The median over all epochs, which a pause of the machine does not move."""
    return statistics.median(row["seconds"]["training"] for record in complete for row in record["epochs"])


def claims() -> dict[str, tuple[str, dict]]:
    """Where each claim is checked, and what was found."""
    return {claim["identifier"]: (path.stem, claim) for path in chapters.notebooks() for claim in chapters.claims(path)}


# What became of a row: the name, the mark, and what it means; a mark is a shape, not a colour alone
STATES = {
    "holds": ("✓", "a claim, checked, which holds"),
    "fails": ("✗", "a claim, checked, which fails or does not always hold"),
    "run": ("●", "a number, measured at the paper's scale"),
    "small": ("◐", "a number, measured in small: another network, fewer images or fewer epochs"),
    "quoted": ("❝", "a number that the paper quotes from others"),
    "open": ("○", "open: not run yet, or out of reach"),
    "nothing": ("–", "a diagram, with nothing to measure"),
}


def state(row: dict, found: Answer) -> str:
    """Which of STATES a row of `_reproductions.yml` is in."""
    if "none" in row:
        quoted = "quoted" if re.search(r"\bquote", row["none"]) else "open"
        return "nothing" if row["none"] == "nothing was measured" else quoted
    if "claim" in row:
        return {"holds": "holds", "says nothing": "open"}.get(found.ours, "fails")
    if found.value is None:
        return "fails" if found.ours == "failed" else "open"
    # what a script has measured for the ledger is never the paper's own run
    return "small" if found.scale or "timing" in row else "run"


def at_a_glance(groups: list[tuple[str, list[tuple[dict, str]]]]) -> str:
    """HTML: a line for each table and figure of the papers with a mark for each of its rows, and the marks' meanings, which filter the
    tables below. A screen reader hears the counts."""
    every = Counter(kind for _, marked in groups for _, kind in marked)
    legend = "".join(
        f'<label><input type="checkbox" value="{kind}" checked> <span class="jfb-mark" data-state="{kind}" aria-hidden="true">{mark}</span> '
        f"{escape(meaning)} <b>{every[kind]}</b></label>"
        for kind, (mark, meaning) in STATES.items()
    )
    lines = []
    for source, marked in groups:
        count = Counter(kind for _, kind in marked)
        heard = ", ".join(
            f"{count[kind]} {meaning.partition(':')[0]}" for kind, (_, meaning) in STATES.items() if count[kind]
        )
        marks = "".join(
            f'<span class="jfb-mark" data-state="{kind}" title="{escape(row["what"], quote=True)}">{STATES[kind][0]}</span>'
            for row, kind in marked
        )
        lines.append(
            f'<li><a href="#{anchor(source)}">{escape(source)}</a> <span class="jfb-marks" aria-hidden="true">{marks}</span>'
            f'<span class="jfb-heard">: {escape(heard)}</span></li>'
        )
    return (
        '<figure class="jfb-glance" role="group" aria-label="What is reproduced, at a glance">'
        f"<ul>{''.join(lines)}</ul><fieldset><legend>The marks, and which rows the tables show</legend>{legend}</fieldset>"
        f'<p class="jfb-shown" role="status">{sum(every.values())} rows.</p>'
        "<figcaption>A mark for each row of the tables below, which are those of the papers. That a number was measured does not say that it "
        "agrees with the paper's: the gap is in the tables.</figcaption></figure>"
    )


def anchor(source: str) -> str:
    """What the table of a source is called: "JFB, Table 1" is `ledger-jfb-table-1`."""
    return "ledger-" + re.sub(r"[^a-z0-9]+", "-", source.lower()).strip("-")


class ReproductionsLedger(Directive):
    """Every published table and figure."""

    def run(self) -> list[nodes.Node]:
        env = self.state.document.settings.env
        # before anything can fail: a page that failed is read anew once what it depends on is mended
        jfb_book.note_dependencies(env)
        for path in [Path(__file__), BOOK / "_reproductions.yml", *RECORDS.glob("*.json")]:
            env.note_dependency(str(path))
        where = {name: page for name, (page, _) in claims().items()}
        for row in rows():
            if "claim" in row and row["claim"] not in where:
                raise self.error(f"_reproductions.yml names the claim {row['claim']!r}, which no notebook checks")
        headings = ["Published", "Theirs", "Ours", "Gap", "How"]
        made: list[nodes.Node] = []
        groups = []
        for source, group in itertools.groupby(rows(), key=lambda row: row["source"]):
            answers = [(row, answer(row)) for row in group]
            kinds = [state(row, found) for row, found in answers]
            groups.append((source, [(row, kind) for (row, _), kind in zip(answers, kinds, strict=True)]))
            table = jfb_book.table(headings, [line(row, found, where) for row, found in answers])
            table["classes"].append("jfb-ledger")
            for node, kind in zip(next(table.findall(nodes.tbody)), kinds, strict=True):
                node["classes"].append(f"jfb-is-{kind}")
            made += [nodes.rubric("", source, ids=[anchor(source)]), table]
        return [nodes.raw("", at_a_glance(groups), format="html"), *made, *all_records()]


def line(row: dict, found: Answer, where: dict[str, str]) -> list[list[nodes.Node]]:
    """A row of the ledger's table."""
    texts = [
        nodes.Text(row["what"]),
        nodes.Text(f"{row['published']}" if "published" in row else "–"),
        nodes.strong(text=found.ours),
        nodes.Text("–" if found.gap is None else f"{found.gap:+.2f}"),
    ]
    return [*([text] for text in texts), how(found, where)]


def how(found: Answer, where: dict[str, str]) -> list[nodes.Node]:
    """How an answer was got: a link to its claim, or its provenance and its command."""
    if found.claim:
        address = f"{where[found.claim]}.html#{found.claim}"
        link = nodes.reference("", "", internal=True, refuri=address)
        link += nodes.literal(text=found.claim)
        return [nodes.Text("see "), link]
    if not found.command:
        return [nodes.Text(found.provenance)]
    cell = [nodes.Text(f"{found.provenance}: " if found.provenance else ""), nodes.literal(text=found.command)]
    return cell + ([nodes.Text(f" (the scale is {found.scale})")] if found.scale else [])


def all_records() -> list[nodes.Node]:
    """Every record of the book, with its provenance, by experiment."""
    every = [experiment for suite in SUITES.values() for experiment in suite]
    if lost := records_of_no_experiment(every):
        raise ValueError(f"book/records holds records of no experiment: {', '.join(lost)}")
    body = [row for experiment in every for row in rows_of_records(experiment)]
    if not body:
        return []
    title = nodes.rubric("", "Every record of this book")
    return [title, jfb_book.table(["Record", "Accuracy, %, mean", "Least to most of the seeds", "Provenance"], body)]


def records_of_no_experiment(every: list[Experiment]) -> list[str]:
    """The files of records that no experiment of the book makes: one was renamed, or a run was put there by hand."""
    known = set()
    for experiment in every:
        if paths := record_paths(experiment):
            known |= set(paths)
            # a kept network has a copy of its run's record beside it
            known |= {(RECORDS / experiment.keeps).with_suffix(".json")} if experiment.keeps else set()
    return sorted(
        path.name for path in RECORDS.glob("*.json") if path not in known and "epochs" in json.loads(path.read_text())
    )


def rows_of_records(experiment: Experiment) -> Iterator[list[list[nodes.Node]]]:
    """A row for the seeds that failed, one for those that did not; none where there are none."""
    name = experiment.file(0).removesuffix("-0.json")
    if failures := [failure for seed in experiment.seeds if (failure := experiment.failure(RECORDS, seed))]:
        yield record_row(name, "failed", f"{len(failures)} of {len(experiment.seeds)} seeds", failures)
    if complete := [records.read(path) for path in record_paths(experiment)]:
        accuracies = [100 * record["result"]["test_accuracy"] for record in complete]
        spread = f"{min(accuracies):.2f} to {max(accuracies):.2f}"
        yield record_row(name, f"{statistics.mean(accuracies):.2f}", spread, complete)


def record_row(name: str, result: str, seeds: str, of: list[Record]) -> list[list[nodes.Node]]:
    """A row of the table of all records."""
    return [[nodes.literal(text=name)], *([nodes.Text(text)] for text in (result, seeds, str(sources(of))))]


def setup(app) -> dict:
    app.add_directive("reproductions-ledger", ReproductionsLedger)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
