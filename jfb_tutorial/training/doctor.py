"""Whether a machine is fit for chapter 10, and how long its runs take there: `python -m jfb_tutorial doctor`.

What takes time is measured, by training on images of noise, and nothing is looked up in a table of machines.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path

import torch

from ..network import ImplicitNetwork
from . import data, devices, downloads, train
from .experiments import Experiment, Suite, at_scale, read_suites
from .listing import list_images
from .output import in_a_line
from .recipes import Recipe, recipe

__all__ = ["Finding", "examine", "verdict"]

GIB = 2**30
ROOM = GIB
"""Bytes: CIFAR-10's archive, what it is unpacked to, and the runs."""
NEEDED = "cifar10"
"""The data set of chapter 10."""
CPU_IMAGES, GPU_STEPS = 10, 10
"""What is measured."""
LONG = 0.5
"""Seconds after which a measurement needs no second one."""
OPTIONAL = {
    "triton": "torch.compile on a GPU; --no-compile does without",
    "jupyterlab": "make lab",
    "ipywidgets": "the panel that trains while one watches",
    "jupyter_book": "make book",
}
"""Packages that chapter 10's training needs none of, with what they are for."""


@dataclass(frozen=True)
class Finding:
    """A line of the report.

    Attributes:
        mark: "ok"; "note", good to know; "time"; or "FAULT", something that chapter 10 needs is missing.
        text: what was found.
        remedy: what to type or do next, for a fault.
    """

    mark: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.mark:5}  {self.text}"


def examine(device: torch.device, scale: str = "", runs: Path = Path("book/runs.py")) -> Iterator[Finding]:
    """What there is on this machine, piece by piece, as it is found.

    Args:
        device: where chapter 10 would be trained.
        scale: "cpu" or "full"; by default "full" on a GPU and "cpu" without one.
        runs: the list of runs whose times are estimated; where it is not there, only that of the preset is.
    """
    scale = scale or ("cpu" if device.type == "cpu" else "full")
    found = True
    for name, part in {
        "Python and torch": _software,
        "the GPU": lambda: _gpu(device),
        "the CPU": _cpu,
        "packages": _packages,
        "the data": _data,
        "the disk": _disk,
        "training": lambda: _times(device, scale, runs),
    }.items():
        for finding in _guarded(name, part):
            # on a GPU that does not work there is no use in trying to train
            found = found and not (finding.mark == "FAULT" and name == "the GPU")
            yield finding
        if not found:
            return


def verdict(findings: Iterable[Finding], device: torch.device) -> tuple[int, Finding]:
    """The exit status, 1 if there is a fault, and the last line, which says what to type next."""
    faults = [finding for finding in findings if finding.mark == "FAULT"]
    if faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        return 1, Finding("FAULT", f"not fit for chapter 10 yet, {count} above. Next: {faults[0].remedy}")
    scale, where = ("cpu", "without a GPU, at the smaller scale") if device.type == "cpu" else ("full", "in full")
    command = f"python -m jfb_tutorial train cifar10 --scale {scale} --device {device} --out runs/cifar10"
    return 0, Finding("ok", f"fit for chapter 10, {where}. Next: {command}")


def _guarded(name: str, part: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of a part; one that breaks down is a fault, and the others are still looked at."""
    try:
        yield from part()
    except Exception as error:  # whatever it is: a sick machine is what this is for
        shown = f"{name} cannot be examined: {type(error).__name__}: {in_a_line(error)}"
        yield Finding(
            "FAULT", shown, f"mend {name}, see above; python -m jfb_tutorial doctor --device cpu leaves a GPU out"
        )


def _software() -> Iterator[Finding]:
    yield Finding("ok", f"Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    build = (
        f"CUDA {torch.version.cuda}"
        if torch.version.cuda
        else f"ROCm {torch.version.hip}"
        if torch.version.hip
        else "CPU"
    )
    line = f"torch {torch.__version__}, a build for {build}"
    wanted = _least("torch")
    if tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < wanted:
        least = ".".join(map(str, wanted))
        yield Finding("FAULT", f"{line}; at least {least} is needed", f"pip install 'torch>={least}'")
    else:
        yield Finding("ok", line)


def _least(package: str) -> tuple[int, ...]:
    """The least version of a package that ours says it needs."""
    (found,) = (
        re.findall(r">=([\d.]+)", line)[0]
        for line in requires("jfb_tutorial") or []
        if re.match(rf"{package}\b(?!-)", line) and "extra ==" not in line
    )
    return tuple(map(int, found.split(".")))


def _gpu(device: torch.device) -> Iterator[Finding]:
    driver = _driver()
    if device.type != "cuda":
        if torch.cuda.is_available():
            yield Finding("note", "there is a GPU, but --device leaves it out")
        else:
            seen = f"; NVIDIA's driver {driver} is there" if driver else ""
            yield Finding("note", f"no GPU that torch can use: {devices.why_no_gpu()}{seen}")
        return
    about = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    capability = (about.major, about.minor)
    line = (
        f"{about.name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, compute capability {about.major}.{about.minor}"
    )
    line += f", driver {driver}" if driver else ""
    if torch.version.cuda and not _is_built_for(capability, torch.cuda.get_arch_list()):
        yield Finding("FAULT", f"{line}: this torch has no code for it", "an older torch, or --device cpu")
        return
    yield Finding("ok", line)
    if torch.cuda.is_bf16_supported(including_emulation=False):
        yield Finding("ok", "bfloat16 and TF32: yes")
    else:
        yield Finding("note", "no bfloat16 and no TF32 of its own: --precision float32 is likely faster there")
    if torch.version.cuda and capability < (7, 0):
        yield Finding("note", "torch.compile needs compute capability 7.0: add --no-compile")


def _is_built_for(capability: tuple[int, int], built: list[str]) -> bool:
    """Whether one of the architectures, such as sm_80 or compute_90, runs on a GPU."""
    for kind, digits in (name.split("_")[:2] for name in built):
        # the last digit is the minor version; letters as in 90a stand for features of one architecture
        number = int(re.sub(r"\D", "", digits))
        major, minor = divmod(number, 10)
        # machine code runs on later minors of its major version, PTX on whatever is later
        if (major == capability[0] and minor <= capability[1]) or (kind == "compute" and (major, minor) <= capability):
            return True
    return False


def _driver() -> str:
    """The version of NVIDIA's driver; "" where nvidia-smi does not tell."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return ""
    lines = done.stdout.split("\n")
    return lines[0].strip() if done.returncode == 0 else ""


def _cpu() -> Iterator[Finding]:
    # of a container or a queue there may be fewer than the machine has
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads()
    kinds = torch.backends.cpu.get_cpu_capability()
    line = f"CPU: {cores} core{'s' if cores != 1 else ''}, torch uses {threads}; instructions {kinds}"
    flags = _cpu_flags()
    line += "".join(f", {name}" for name in ("avx512_bf16", "amx_bf16", "bf16") if name in flags)
    yield Finding("ok", line)
    if cores and threads < cores:
        yield Finding("note", f"torch uses {threads} of {cores} cores; OMP_NUM_THREADS={cores} would use all")


def _cpu_flags() -> set[str]:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            # x86 has flags, Arm has Features
            if line.startswith(("flags", "Features")):
                return set(line.split())
    return set()


def _packages() -> Iterator[Finding]:
    missing = {name: use for name, use in OPTIONAL.items() if find_spec(name) is None}
    there = [name for name in OPTIONAL if name not in missing]
    yield Finding("ok", f"optional packages: {', '.join(there) or 'none'}")
    for name, use in missing.items():
        yield Finding("note", f"{name} is not installed; it is for {use}")


def _data() -> Iterator[Finding]:
    yield Finding("ok", f"data sets are looked for in {data.data_root()}, which $JFB_DATA sets")
    for name in data.DATASETS:
        try:
            found = _there(name)
        except (OSError, ValueError) as error:
            needed = name == NEEDED
            fault = f"{name} is not there" if isinstance(error, data.DataNotFoundError) else in_a_line(error)
            yield Finding(
                "FAULT" if needed else "note",
                fault + ("" if needed else ", and chapter 10 does not need it"),
                f"python -m jfb_tutorial data {name} --download",
            )
        else:
            yield Finding("ok", found)


def _there(name: str) -> str:
    """How many images of a set there are, and what that rests on: a report is to take seconds.

    Raises:
        OSError, ValueError: it is not there, or damaged.
    """
    root, splits = data.data_root(), ("train", "test")
    folders = [root / name / split for split in splits]
    files = [] if name == "digits" else [file for split in splits for file in downloads.all_files(name, split, root)]
    missing = [file for split in splits for file in downloads.missing(name, split, root)] if files else []
    if files and missing == files and all(folder.is_dir() for folder in folders):
        # opening tens of thousands of small files takes longer than all the rest
        counts, how = [len(list_images(folder).paths) for folder in folders], "in folders, listed and not opened"
    elif files and not missing and name != NEEDED:
        return f"{name}: its files are there, and were not read, since chapter 10 does not need them"
    else:
        # read and checked as training does it
        counts, how = [len(data.load(name, split)) for split in splits], "whole"
    return f"{name}: {counts[0]:,} training and {counts[1]:,} test images, {how}"


def _disk() -> Iterator[Finding]:
    for what, folder in {"data": data.data_root(), "runs": Path.cwd()}.items():
        # what is not there yet will be made in the next folder above that is
        there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
        free = shutil.disk_usage(there).free
        line = f"disk: {free / GIB:.1f} GiB free for {what}"
        yield Finding("ok" if free > ROOM else "note", line + ("" if free > ROOM else ", and 1 GiB is advised"))


def _times(device: torch.device, scale: str, runs: Path) -> Iterator[Finding]:
    suite, named = _suite(scale, runs)
    ours = [experiment for experiment in suite if experiment.recipe.network == "fast_cifar10"]
    pace: dict[tuple, float] = {}
    total = 0.0
    for experiment in ours:
        made = experiment.recipe
        key = (made.precision, made.channels_last, made.batch)
        try:
            if key not in pace:
                pace[key] = seconds_an_image(made, device)
        except torch.OutOfMemoryError as error:
            # its last words name a batch that fits, if one does
            fits = re.findall(r"--batch \d+", str(error))
            command = (
                f"python -m jfb_tutorial train cifar10 --scale {scale} {fits[0]} --out runs/cifar10" if fits else ""
            )
            yield Finding("FAULT", in_a_line(error), command or "free the GPU's memory, or --device cpu")
            return
        seconds = pace[key] * made.epochs * (made.images or 50_000 - made.held_out)
        total += seconds * len(experiment.seeds)
        times = f"{len(experiment.seeds)} runs of " if len(experiment.seeds) > 1 else ""
        each = " each" if times else ""
        yield Finding("time", f"{experiment.label}: {times}{made.epochs} epochs, {_duration(seconds)}{each}")
    yield Finding(
        "time",
        f"{named}: {_duration(total)} together, to within a half, as measured now without torch.compile, on "
        f"{f'{CPU_IMAGES} images' if device.type == 'cpu' else f'{GPU_STEPS} steps'} of noise in each precision",
    )
    busy, cores = _load(), os.cpu_count() or 1
    if device.type == "cpu" and busy > 1.5 * cores:
        yield Finding(
            "note", f"other programs keep this machine busy (a load of {busy:.0f} on {cores} cores): alone it is faster"
        )
    if others := len(suite) - len(ours):
        yield Finding("note", f"{others} labels of another network are not estimated; they take much longer")


def _load() -> float:
    """Programs that want a core, on average over the last minute; 0 where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _suite(scale: str, runs: Path) -> tuple[Suite, str]:
    """The experiments of a scale, and what they are called."""
    if not runs.is_file():
        preset = Experiment(f"train cifar10 --scale {scale}", scale, recipe("cifar10", scale), range(1))
        return [preset], f"there is no {runs} here; the preset alone"
    suite = read_suites(runs)["cifar10"]
    scale = at_scale(suite, scale)
    return [each for each in suite if each.scale == scale], f"reproduce cifar10 --scale {scale}"


class _Measured(Exception):
    """Leaves a training from its callback, with the row of the epoch that was measured."""


def seconds_an_image(made: Recipe, device: torch.device) -> float:
    """Seconds a training image, measured in real steps of a recipe on images of noise.

    Raises:
        torch.OutOfMemoryError: a batch does not fit into the device's memory; the message says which one does.
    """
    # a CPU takes as long for an image in a small batch; on a GPU one step is too short to time, and memory is a question
    batch, steps = (CPU_IMAGES, 1) if device.type == "cpu" else (made.batch, GPU_STEPS)
    count = batch * steps
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % 10
    # compiling takes a minute, and what is done after an epoch is another matter
    rest: dict = {"compile": False, "images": 0, "held_out": 0, "reestimate": 0, "probe": 0}
    trial = made.replace(epochs=2, batch=batch, watch_test=False, compare=False, **rest)

    def stop(row: dict, network: ImplicitNetwork) -> None:
        # the first epoch warms up, unless it was so long that this is of no matter
        if row["epoch"] == 2 or row["seconds"]["training"] > LONG:
            raise _Measured(row)

    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that noise is not learnt is no news
            train(trial, data=((images, labels), (images[:10], labels[:10])), device=device, callback=stop)
    except _Measured as measured:
        return measured.args[0]["seconds"]["training"] / count
    raise AssertionError("the second epoch ends in the callback")


def _duration(seconds: float) -> str:
    for least, unit, name in ((172_800, 86_400, "days"), (5400, 3600, "h"), (90, 60, "min")):
        if seconds >= least:
            return f"about {seconds / unit:.3g} {name}"
    return f"about {seconds:.2g} s"
