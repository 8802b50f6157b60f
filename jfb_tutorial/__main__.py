"""`python -m jfb_tutorial train | evaluate | inspect | data | reproduce | bench | examine | doctor`: the package from a shell, see `--help`."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import statistics
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from . import architectures, bench
from . import examine as own
from ._checks import check_choice, check_finite, check_integer
from .examine_target import load
from .network import ImplicitNetwork
from .pages.curves import curves
from .pages.extremes import extremes
from .timing import step_times
from .training import checkpoints, data, devices, records, train
from .training.batches import generator
from .training.doctor import examine, verdict
from .training.evaluation import as_input, evaluate
from .training.experiments import at_scale, missing, read_suites, reproduce
from .training.files import check_target, write
from .training.folder import check_picture
from .training.forms import escape
from .training.inspection import inspect
from .training.output import in_a_line, lost, say, shorten
from .training.processes import read_environment
from .training.recipes import RULES, SCALES, SOLVERS, Recipe, parse, recipe

CURVES = "curves.png"


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        # a console without UTF-8 shows γ as \u03b3: not pretty, and no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    lost()  # what an earlier command of this process could not print
    status = _run(options)
    return _flush(options.command) or status


def _run(options: argparse.Namespace) -> int:
    """Run a command, and say in one line on stderr what went wrong."""
    try:
        return options.run(options) or 0
    except KeyboardInterrupt:
        how = {"train": "; the same command with --resume goes on", "reproduce": "; the same command goes on"}
        print(f"\nstopped{how.get(options.command, '')}", file=sys.stderr)
        return 130  # 128 + SIGINT, as shells say it
    except BrokenPipeError:
        return 0  # whoever reads the output has seen enough, as `head` has; see `_flush`
    # what the package raises for a mistake of its user; another kind is a fault of its own and shows its traceback
    except (ValueError, TypeError, OSError, ArithmeticError, RuntimeError, MemoryError) as error:
        if options.traceback:
            raise
        print(f"python -m jfb_tutorial {options.command}: {in_a_line(error)}", file=sys.stderr)
        return 1


def _flush(command: str) -> int:
    """Send off what is still to be printed: Python would do so at its end, where a closed pipe is an error that nobody catches."""
    fault = lost()
    if sys.stdout is not None and not sys.stdout.closed:
        try:
            sys.stdout.flush()
        except OSError as error:
            # what is left in the buffer goes nowhere, instead of failing again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            fault = fault or error
    if fault is None or isinstance(fault, BrokenPipeError):
        return 0
    print(f"python -m jfb_tutorial {command}: the output cannot be written ({fault.strerror})", file=sys.stderr)
    return 1


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line: the usage of `train` alone is forty."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {shorten(message)}; --help lists what there is\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m jfb_tutorial", description="Train and examine implicit networks.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (run, add_options, help) in COMMANDS.items():
        command = commands.add_parser(name, help=help, description=help)
        command.set_defaults(run=run)
        command.add_argument("--traceback", action="store_true", help="show where in the code an error comes from")
        add_options(command)
    return parser


def _train_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help=f"{', '.join(data.DATASETS)}, or an image folder's name")
    parser.add_argument(
        "--out", type=_read_path, required=True, metavar="DIR", help="folder for record.json, model.safetensors, …"
    )
    parser.add_argument("--scale", default="cpu", metavar="SCALE", help=f"{', '.join(SCALES)}; cpu by default")
    parser.add_argument("--resume", action="store_true", help="go on with the run in DIR, or start it if there is none")
    parser.add_argument("--seeds", type=int, metavar="N", help="train N times, with seeds 0 to N − 1, in DIR/seed-0, …")
    _add_device(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no line an epoch")
    group = parser.add_argument_group(
        "the recipe",
        "What is not given is the book's for this data set, network and scale, made smaller for a small data set.",
    )
    for f in fields(Recipe):
        if f.name == "dataset":  # an argument by position
            continue
        switch = f.metadata["parse"] is None
        # gives --name and --no-name
        kind = {"action": argparse.BooleanOptionalAction} if switch else {"metavar": "X"}
        # None tells what was not typed from what was, be it the default; `_typed` parses the text
        group.add_argument(f"--{f.name.replace('_', '-')}", default=None, help=f.metadata["help"], **kind)


def _evaluate_options(parser: argparse.ArgumentParser) -> None:
    _add_checkpoint(parser)
    parser.add_argument("--solver", help="as in Python; by default the one of its recipe")
    _add_device(parser)


def _inspect_options(parser: argparse.ArgumentParser) -> None:
    _add_checkpoint(parser)
    parser.add_argument("--steps", type=int, default=20, help="steps of the iteration (20)")
    parser.add_argument("--tol", type=float, default=1e-4, help="relative tolerance by which steps are counted (1e-4)")
    parser.add_argument(
        "--out", type=_read_path, metavar="FILE", help="write what was seen, with its provenance, as JSON"
    )
    parser.add_argument(
        "--picture", type=_read_path, metavar="FILE", help="draw the images that are quickest, and slowest"
    )
    _add_device(parser)


def _data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", nargs="*", help=f"{', '.join(data.DATASETS)} by default")
    parser.add_argument(
        "--download", action="store_true", help="fetch what is missing; an interrupted download goes on"
    )


def _reproduce_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("suite", help="a suite of the list of runs: digits, mnist, svhn, cifar10, phantom")
    parser.add_argument(
        "--runs", type=Path, default=Path("book/runs.py"), metavar="FILE", help="the list of runs (book/runs.py)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("book/records"), metavar="DIR", help="the folder (book/records)"
    )
    parser.add_argument("--only", nargs="*", default=(), metavar="LABEL", help="these experiments; all by default")
    parser.add_argument("--scale", default="", help="cpu or full; by default full on a GPU and cpu without one")
    parser.add_argument("--list", action="store_true", help="say what would be done, and do nothing")
    _add_device(parser)


def _bench_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", help=f"{', '.join(architectures.ARCHITECTURES)}, or a checkpoint")
    parser.add_argument("--batch", type=int, default=20, help="random images in the batch (20)")
    parser.add_argument("--rounds", type=int, default=5, help="times each step is timed, in turns (5)")
    parser.add_argument("--rules", nargs="*", help="as in Python; the book's seven by default")
    _add_device(parser)


def _examine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        metavar="MODULE:FUNCTION",
        help="a function of yours that returns a network, or (network, data, targets)",
    )
    parser.add_argument("--shape", type=int, nargs="+", default=[], help="of one sample, where no data come along")
    parser.add_argument("--batch", type=int, default=8, help="samples that are drawn then (8)")


def _read_path(text: str) -> Path:
    # to Path, "" is the current folder
    if not text:
        raise argparse.ArgumentTypeError("give it a name; the current folder is '.'")
    return Path(text)


def _doctor_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scale", default="", help="cpu or full; by default full on a GPU and cpu without one")
    parser.add_argument(
        "--runs", type=Path, default=Path("book/runs.py"), metavar="FILE", help="the list of runs (book/runs.py)"
    )
    _add_device(parser)


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="cpu, cuda, …; by default a GPU if there is one")


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--dataset", help="by default the one that it was trained on")
    parser.add_argument("--split", default="test", choices=("train", "test"))


def _train(options: argparse.Namespace) -> None:
    plan = recipe(options.dataset, options.scale, **_typed(options))
    settings = {"resume": options.resume, "device": options.device, "progress": not options.quiet}
    if options.seeds is None:
        check_picture(options.out / CURVES, options.out)
        _tell(train(plan, options.out, **settings).record, options.out)
        return
    if options.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {options.seeds}")
    if options.seed is not None:
        raise ValueError(
            f"--seeds {options.seeds} runs the seeds 0 to {options.seeds - 1}; leave --seed out, or --seeds"
        )
    check_picture(options.out / CURVES, options.out / "seed-0")
    runs = []
    for seed in range(options.seeds):
        folder = options.out / f"seed-{seed}"
        check_picture(folder / CURVES, folder)
        runs.append(train(plan.replace(seed=seed), folder, **settings).record)
        _tell(runs[-1], folder)
    _summarise(runs, options.out)


def _summarise(runs: list[records.Record], folder: Path) -> None:
    """Draw the curves of several seeds, and say how far they lie apart."""
    # torchrun runs this in every process: rank 0 reports for all
    if read_environment()[0]:
        return
    accuracies = [100 * record["result"]["test_accuracy"] for record in runs]
    _draw(curves(runs), folder / CURVES, dpi=150)
    # of one seed there is no standard deviation
    spread = f" ± {statistics.stdev(accuracies):.2f} (standard deviation)" if len(accuracies) > 1 else ""
    say(
        f"{len(accuracies)} seeds: test accuracy {statistics.mean(accuracies):.2f}%{spread}, "
        f"from {min(accuracies):.2f} to {max(accuracies):.2f}; curves in {folder / CURVES}"
    )


def _typed(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of the recipe that were typed, each read by its own parser."""
    values = {}
    for f in fields(Recipe):
        if f.name == "dataset" or (value := getattr(options, f.name)) is None:
            continue
        parser = f.metadata["parse"]
        values[f.name] = value if parser is None else parser(f.name, value)
    return values


def _tell(record: records.Record, folder: Path) -> None:
    """Draw a run's curves, and say what came out."""
    # torchrun runs this in every process: rank 0 reports for all
    if read_environment()[0]:
        return
    _draw(curves([record]), folder / CURVES, dpi=150)
    result = record["result"]
    say(
        f"{record['config']['dataset']}, seed {record['seed']}: test accuracy {100 * result['test_accuracy']:.2f}% of "
        f"{result['test_images']:,} images, {record['parameters']:,} parameters, {result['seconds']:.1f} s; in {folder}"
    )


def _draw(figure: Figure, path: Path, **settings: Any) -> None:
    """Write a picture, in the format that its name asks for."""
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix.removeprefix(".") or None, **settings)
    write(path, picture.getvalue())


def _evaluate(options: argparse.Namespace) -> None:
    network = checkpoints.load_network(options.checkpoint)
    plan, classes, recorded = checkpoints.recall(options.checkpoint)
    images = _images_for(network, plan.dataset if options.dataset is None else options.dataset, options.split)
    network.to(_device(options))
    if classes and list(images.classes) != classes:
        raise ValueError(
            f"{images.name} has other classes than the network was trained on: {escape(', '.join(classes))}"
        )
    outcome = evaluate(
        network, images, solver=None if options.solver is None else parse("solver", options.solver, SOLVERS)
    )
    say(f"{images}\n{outcome}")
    # the record is of the whole test set and the recipe's solver: beside anything else it would mislead
    if images.name == plan.dataset and options.split == "test" and not options.solver and recorded:
        say(recorded)


def _images_for(network: ImplicitNetwork, dataset: str, split: str) -> data.Images:
    """A data set, the images of a folder in the shape that the network takes."""
    shape = {}
    if dataset not in data.DATASETS:
        # Q begins with `Normalise`, which knows (channels, side, side)
        channels, _, side = network.Q[0].shape
        shape = {"size": side, "channels": channels}
    images = data.load(dataset, split, **shape)
    for note in images.notes:
        say(note)
    return images


def _inspect(options: argparse.Namespace) -> None:
    if options.picture:
        _check_suffix(options.picture)
    network = checkpoints.load_network(options.checkpoint)
    for target in (options.picture, options.out):
        if target:
            check_target(target)
    plan, *_ = checkpoints.recall(options.checkpoint)
    images = _images_for(network, plan.dataset if options.dataset is None else options.dataset, options.split)
    network.to(_device(options))
    inspection = inspect(network, images, steps=options.steps, tol=options.tol)
    summary = inspection.summary()
    say(images)
    _print_summary(summary, images.classes, options.steps, options.tol)
    if options.picture:
        # without Matplotlib's version in a PNG file: the same picture is the same bytes
        metadata = {"Software": None} if options.picture.suffix.lower() == ".png" else None
        _draw(extremes(inspection, images, after=min(5, options.steps)), options.picture, metadata=metadata)
    if options.out:
        about = {"checkpoint": options.checkpoint.name, "digest": checkpoints.digest(options.checkpoint)}
        report = {"split": options.split, **about, **records.provenance(_device(options)), "result": summary}
        write(options.out, (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())


def _check_suffix(path: Path) -> None:
    """Refuse what Matplotlib cannot write, before all images are looked at."""
    kinds = FigureCanvasAgg.filetypes
    if path.suffix.lower().removeprefix(".") not in kinds:
        raise ValueError(f"--picture must end in one of .{', .'.join(kinds)}, got {str(path)!r}; .png will do")


def _print_summary(summary: dict, classes: tuple[str, ...], steps: int, tol: float) -> None:
    """The tables of an inspection."""
    say("\nsteps  accuracy  confidence  images whose class is still to change")
    for row in summary["after"]:
        # the first ten and the last, to keep the table short
        if row["steps"] <= 10 or row["steps"] == steps:
            say(
                f"{row['steps']:5}  {100 * row['accuracy']:7.2f}%  {100 * row['confidence']:9.2f}%  {row['still_to_change']:,}"
            )
    say(f"\nsteps to a relative residual of {tol:g}    images    right in the end")
    for row in summary["needed"]:
        say(f"{row['steps'] or 'never':>38}  {row['images']:8,}  {100 * row['right'] / row['images']:14.2f}%")
    say("\nclass                     images    right in the end    steps")
    for row in summary["classes"]:
        mean = "–" if row["steps"] is None else f"{row['steps']:.2f}"
        say(f"{classes[row['class']]:22}  {row['images']:8,}  {100 * row['right'] / row['images']:17.2f}%  {mean:>7}")


def _data(options: argparse.Namespace) -> None:
    if options.download and not options.dataset:
        # the first, digits, comes with scikit-learn
        raise ValueError(f"--download needs the names of data sets: {', '.join(data.DATASETS[1:])}")
    print(f"data root: {data.data_root()}")
    for name in options.dataset or data.DATASETS:
        for split in ("train", "test"):
            try:
                images = data.load(name, split, download=options.download)
            except data.DataNotFoundError as error:
                if options.dataset:
                    raise
                # once, not for each split
                print(f"{name} is not there. {error.remedy}")
                # the other split is missing with it, and the remedy is the same
                break
            print(images, f"({split})")
            for note in images.notes:
                print(f"  {note}")


def _reproduce(options: argparse.Namespace) -> None:
    suites = read_suites(options.runs)
    suite = suites[check_choice("suite", options.suite, suites)]
    if options.list:
        scale = at_scale(suite, options.scale, options.device)
        for experiment, seed, why in missing(suite, options.out, scale, options.only):
            say(f"{experiment.file(seed)}: {why}")
        return
    reproduce(suite, options.out, labels=tuple(options.only), scale=options.scale, device=options.device)


def _bench(options: argparse.Namespace) -> None:
    if Path(options.network).suffix == ".safetensors":
        network = checkpoints.load_network(options.network)
    else:
        check_choice("network", options.network, architectures.ARCHITECTURES)
        torch.manual_seed(0)
        network = architectures.build(options.network)
    rules = tuple(parse("rule", text, RULES) for text in options.rules) if options.rules else bench.RULES
    check_integer("batch", options.batch, 1, "20 is the default")
    check_integer("rounds", options.rounds, 1, "5 is the default")
    check_finite(network)
    network.to(_device(options)).eval()  # in train mode every solve would draw other dropout masks
    noise = generator(0)
    images = torch.randint(256, (options.batch, *network.Q[0].shape), generator=noise, dtype=torch.uint8)
    d = as_input(images, network)
    # labels at random: costs and angles are wanted, not a loss that means something
    with torch.no_grad():
        classes = network(d[:1]).shape[1]
    y = torch.randint(classes, (options.batch,), generator=noise).to(d.device)
    loss = torch.nn.CrossEntropyLoss()
    say(f"{options.network}, {options.batch} random images, eval mode, {records.device_name(d.device)}")
    say(bench.compare(network, d, y, loss, rules))
    seconds = step_times(network, d, y, loss, rules, rounds=options.rounds)
    base = min(seconds.values())
    say("\na training step, median of interleaved rounds")
    for rule, median in seconds.items():
        say(f"{bench.name(rule):30} {1000 * median:9.1f} ms {median / base:7.2f} times the fastest")


def _examine(options: argparse.Namespace) -> None:
    say(own.examine(*load(options.target, options.shape, options.batch)))


def _doctor(options: argparse.Namespace) -> int:
    if options.scale:
        check_choice("scale", options.scale, ("cpu", "full"))
    device, findings = _device(options), []
    for finding in examine(device, options.scale, options.runs):
        say(finding)
        findings.append(finding)
    status, last = verdict(findings, device)
    say(last)
    return status


def _device(options: argparse.Namespace) -> torch.device:
    return devices.choose(options.device)


COMMANDS = {
    "train": (_train, _train_options, "Train a network and test it once, after the last epoch."),
    "evaluate": (_evaluate, _evaluate_options, "Test the network of a checkpoint."),
    "inspect": (_inspect, _inspect_options, "What an implicit network answers after each step of its iteration."),
    "data": (_data, _data_options, "Say which data are there, and fetch what is missing."),
    "reproduce": (_reproduce, _reproduce_options, "Make the records that the book reads, where one is missing or old."),
    "examine": (_examine, _examine_options, "What can be measured of a network of your own, and what to do about it."),
    "doctor": (_doctor, _doctor_options, "Is this machine fit for chapter 10, and how long do its runs take here?"),
    "bench": (
        _bench,
        _bench_options,
        "Every backward rule at one equilibrium of a network, with the time of a training step.",
    ),
}
"""By name: what a command runs, what adds its options to a parser, and what its help says."""


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # as the package's __init__ has left it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with warnings.catch_warnings():
        # the same warning of every epoch or batch is told once
        warnings.simplefilter("once", RuntimeWarning)
        sys.exit(main())
