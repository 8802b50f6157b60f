"""The ledger of reproductions: what the papers publish, beside our records or claims, or the command that makes a record."""

import json
import statistics
from pathlib import Path

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive
from jfb_tutorial.training import experiments, records

import jfb_book

BOOK = Path(__file__).resolve().parent.parent
RECORDS = BOOK / "records"
TIMINGS = BOOK / "timings"
SUITES = experiments.read_suites(BOOK / "runs.py")


def rows() -> list[dict]:
    """What is to be reproduced."""
    return yaml.safe_load((BOOK / "_reproductions.yml").read_text())


def found(dataset: str, label: str) -> tuple[experiments.Experiment, list[records.Record]]:
    """The records there are of an experiment, at the largest scale that has any."""
    same = [each for each in SUITES[dataset] if each.label == label]
    for each in sorted(same, key=lambda each: each.scale != "full"):
        paths = [path for seed in each.seeds if (path := RECORDS / each.file(seed)).is_file()]
        if paths or any(each.failure(RECORDS, seed) for seed in each.seeds):
            return each, [records.read(path) for path in paths]
    return same[-1], []


def quantity(runs: dict, made: list[records.Record]) -> tuple[str, float] | None:
    """Ours, in words and as a number; None where a record is still to be made."""
    if runs["quantity"] == "accuracy":
        values = [100 * record["result"]["test_accuracy"] for record in made]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.2f}{spread} %", statistics.mean(values)
    if runs["quantity"] == "products":
        steps = -(-runs["images"] // made[0].recipe.batch)
        value = statistics.mean(row["products"] / steps for record in made for row in record["epochs"])
        return f"{value:.1f}", value
    base = found(runs["dataset"], runs["to"])[1]
    if not base:
        return None
    seconds = [
        statistics.median(row["seconds"]["training"] for run in part for row in run["epochs"]) for part in (made, base)
    ]
    return f"{seconds[0] / seconds[1]:.2f}", seconds[0] / seconds[1]


def in_turns(runs: dict) -> tuple[float, str] | None:
    """The time of a training step in units of JFB's, measured in turns, and on what; None where it was not measured."""
    path = TIMINGS / f"{runs['dataset']}.json"
    timing = json.loads(path.read_text()) if path.is_file() else {}
    ratio = timing.get("result", {}).get("ratio_to_jfb", {}).get(runs["label"])
    return (ratio, f"training steps in turns, {timing['device']}, {timing['date']}") if ratio else None


def answer(row: dict) -> tuple[str, str, str]:
    """Ours, the gap to what was published, and how it was got, in plain text."""
    if "none" in row:
        return "–", "–", row["none"]
    if "claim" in row:
        return "measured", "–", row["claim"]
    runs = row["runs"]
    if runs["quantity"] == "time" and (timed := in_turns(runs)):
        return f"{timed[0]:.2f}", f"{timed[0] - row['published']:+.2f}", f"{timed[1]}: make timings"
    experiment, made = found(runs["dataset"], runs["label"])
    ours = quantity(runs, made) if made else None
    command = f"python -m jfb_tutorial reproduce {runs['dataset']} --only {runs['label']}"
    if "to" in runs:
        command += f" {runs['to']}"
    if experiment.scale == "full" and any(each.scale == "cpu" for each in SUITES[runs["dataset"]]):
        command += " --scale full"
    if ours is None:
        failures = [seed for seed in experiment.seeds if experiment.failure(RECORDS, seed)]
        if failures:
            return "failed", "–", f"{len(failures)} of {len(experiment.seeds)} seeds stopped: {command}"
        return "not yet run", "–", command
    text, value = ours
    gap = f"{value - row['published']:+.2f}" if "published" in row else "–"
    how = (
        f"{len(made)} seed{'s' if len(made) > 1 else ''}, {experiment.recipe.epochs} epochs, "
        + ", ".join(dict.fromkeys(record["device"] for record in made))
        + (", made by an older version of the training code" if any(record.stale for record in made) else "")
    )
    if experiment.scale != "full":
        command += f"; the scale is {experiment.scale}"
    return text, gap, f"{how}: {command}"


def pages() -> dict[str, str]:
    """Where each claim is checked."""
    return {claim["identifier"]: path.stem for path in jfb_book.notebooks() for claim in jfb_book.claims(path)}


class ReproductionsLedger(Directive):
    """Every published table and figure."""

    def run(self) -> list[nodes.Node]:
        where = pages()
        body = []
        for row in rows():
            ours, gap, how = answer(row)
            published = f"{row['published']}" if "published" in row else "–"
            if "claim" in row:
                if row["claim"] not in where:
                    raise self.error(f"_reproductions.yml names the claim {row['claim']!r}, which no notebook checks")
                link = nodes.reference("", "", internal=True, refuri=f"{where[row['claim']]}.html#{row['claim']}")
                link += nodes.literal(text=row["claim"])
                how = [nodes.Text("see "), link]
            elif "runs" in row:
                before, _, command = how.rpartition(": ") if ": " in how else ("", "", how)
                command, _, scale = command.partition("; ")
                how = [nodes.Text(f"{before}: " if before else ""), nodes.literal(text=command)]
                how += [nodes.Text(f" ({scale})")] if scale else []
            else:
                how = [nodes.Text(how)]
            cells = [[nodes.Text(f"{row['source']}: {row['what']}")], [nodes.Text(published)]]
            body.append([*cells, [nodes.strong(text=ours)], [nodes.Text(gap)], how])
        jfb_book.note_dependencies(self.state.document.settings.env)
        env = self.state.document.settings.env
        for path in [BOOK / "_reproductions.yml", *RECORDS.glob("*.json")]:
            env.note_dependency(str(path))
        headings = ["Published", "Theirs", "Ours", "Gap", "How"]
        return [jfb_book.table(headings, body), *all_records()]


def all_records() -> list[nodes.Node]:
    """Every record of the book, with its provenance, by experiment."""
    body, known = [], set()
    for suite in SUITES.values():
        for experiment in suite:
            paths = [path for seed in experiment.seeds if (path := RECORDS / experiment.file(seed)).is_file()]
            name = experiment.file(0).removesuffix("-0.json")
            if failures := [found for seed in experiment.seeds if (found := experiment.failure(RECORDS, seed))]:
                source = nodes.Text(str(records.sources(failures)))
                seeds = f"{len(failures)} of {len(experiment.seeds)} seeds"
                body.append([[nodes.literal(text=name)], [nodes.Text("failed")], [nodes.Text(seeds)], [source]])
            if not paths:
                continue
            known |= {*paths, *([(RECORDS / experiment.keeps).with_suffix(".json")] if experiment.keeps else [])}
            made = [records.read(path) for path in paths]
            accuracies = [100 * record["result"]["test_accuracy"] for record in made]
            body.append(
                [
                    [nodes.literal(text=name)],
                    [nodes.Text(f"{statistics.mean(accuracies):.2f}")],
                    [nodes.Text(f"{min(accuracies):.2f} to {max(accuracies):.2f}")],
                    [nodes.Text(str(records.sources(made)))],
                ]
            )
    if lost := sorted(
        path.name for path in RECORDS.glob("*.json") if path not in known and "epochs" in json.loads(path.read_text())
    ):
        raise ValueError(f"book/records holds records of no experiment: {', '.join(lost)}")
    if not body:
        return []
    title = nodes.rubric("", "Every record of this book")
    return [title, jfb_book.table(["Record", "Accuracy, %", "Seeds from … to", "Provenance"], body)]


def setup(app) -> dict:
    app.add_directive("reproductions-ledger", ReproductionsLedger)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
