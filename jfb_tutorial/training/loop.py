"""Training, once and well: any network, rule and solver of the package, on one device or several, from a shell or a notebook.

A run in a folder leaves, after each epoch, a checkpoint and `state.json`, which names it; at the end `model.safetensors`
and `record.json` take their place. All randomness is a function of (seed, epoch), so a run that was killed and
resumed gives the same weights as one that was not, bit for bit on the CPU.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from .._checks import all_finite
from ..gradients import Unrolled, tally
from ..network import ImplicitNetwork
from ..normalisation import reestimate
from . import checkpoints, devices, probes, records
from .batches import DROPOUT, STATISTICS, generator
from .callbacks import Callback, call_back
from .evaluation import as_input, counted
from .folder import MODEL, RECORD, Folder, open_folder
from .forms import COUNT, NUMBER, check_form
from .identity import check_identity, of_images, of_network
from .meter import REMEDY, Meter
from .output import say
from .own_data import as_images
from .prepare import Prepared, prepare, settle
from .processes import Processes
from .recipes import OWN, Recipe

__all__ = ["Run", "train"]

AVERAGED = 0.8
"""The part of a run after which the weights are averaged: the last fifth, as the help of `average` says."""

FINISHED = {"parameters": COUNT, "result": {"test_accuracy": NUMBER, "test_images": COUNT, "seconds": NUMBER}}
"""What the record of a finished run has besides what every record has."""


@dataclass(eq=False, repr=False)
class Run:
    """What `train` returns.

    Attributes:
        network: the trained network, in eval mode, with the weights that were tested.
        record: what `record.json` holds.
    """

    network: ImplicitNetwork
    record: records.Record

    def __repr__(self) -> str:
        return f"Run({self.record!r})"


def train(
    recipe: Recipe,
    out: Path | str | None = None,
    *,
    network: ImplicitNetwork | None = None,
    data: Any = None,
    resume: bool = False,
    device: torch.device | str | None = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> Run:
    """Train a network as a recipe says, and test it once, after the last epoch.

    Under `torchrun` each process calls it, gets its part of every batch, and DistributedDataParallel adds the gradients up;
    the first one writes the files. Statistics of batch normalisation are those of each process's part.

    What the data had done to them, the settings of a preset that gave way to a small data set, and the number of test images
    that did not converge, if any, are printed, a line each.

    Args:
        recipe: see `recipes`.
        out: a folder for the files; without one nothing is written.
        network: a network of your own, mapping images `(batch, channels, height, width)` in [0, 1] to logits. It is trained in
            place, on the device, in float32 unless the recipe says float64. Its solver and its rule are its own, unless
            the recipe has a solver, or a rule other than JFB(). The recipe's `network` becomes "own"; only
            `checkpoints.load_network(path, network)`, given one that is built alike, reads its checkpoint.
        data: your own images, a pair (train, test), each `data.Images` or a pair (images, labels) of tensors, see
            `own_data.as_images`. The recipe's `dataset` is then but a name. A network of this package is built for their
            channels, their size and their number of classes.
        resume: go on with the run in `out`, from the last epoch that was finished; start it if there is none.
        device: by default a GPU if there is one.
        progress: show a progress bar.
        callback: called after each epoch with its row, to which it may add what JSON holds, and the network, in eval mode, whose
            parts, solver and rule it may not replace.

    Returns:
        The run. A row of `record["epochs"]` has: `epoch`, from 1; `lr`; `loss` and `accuracy` over the epoch's training
        batches; `validation_loss`, `validation_accuracy` on the held-out images; `residual_mean`, `residual_worst`, the
        ‖T(u) − u‖₂ that iterations ended with, absolute; `steps_mean`, the evaluations of T that a sample needed;
        `steps_max`; `unconverged`, the fraction of samples that missed the tolerance; `contraction`, the largest ratio of two
        consecutive residuals of a batch in the plain iteration, which no Lipschitz constant of T along the way can be below; `gamma`, ‖dT/du‖₂ at u*
        on the probe images in eval mode, and `gamma_one_direction`, the JFB paper's estimate of it; `cosines` with the exact
        gradient there, by rule; `products`, those of the
        backward passes; `adjoint_residual`, the largest relative residual of an exact rule's solve; `seconds`, for
        training and for the rest of the epoch; `peak_memory` in bytes: of the GPU's allocator in training, or on the CPU that
        of the process since it started. The losses and accuracies of rows are those of the weights under way, `loss` with
        label smoothing if there is any; `result` is measured with the weights that are kept, averaged and re-estimated where
        the recipe says so. Its `seconds` are all of the run's, loading and testing included. What a run does not have is null; epochs that
        were pretrained have made no iteration.

    Raises:
        FileExistsError: `out` holds a run, and `resume` is False; or files in it that the run would write over and has not
            made; or another run is at work in it.
        FloatingPointError: the loss or the weights are no longer finite; the message names the epoch and the batch.
        RuntimeError: an adjoint equation was not solved, see `ImplicitDifferentiation`; likewise.
        RuntimeError: another thread of this process trains; the random numbers, which all threads share, would be neither's.
        torch.OutOfMemoryError: a batch does not fit into the device's memory; the message says which one does.
        FileNotFoundError, ValueError, OSError: data or checkpoints are missing or damaged, or do not fit the recipe, or are
            those of another run; there is no such device; the callback did what it may not.
        TypeError: network or data are of another kind; the message says which is wanted; or the callback's entries are.
        SystemExit: any of these, where several processes train: one that went on would leave the others waiting.
    """
    recipe = settle(recipe, network)
    if callback is not None and not callable(callback):
        raise TypeError(
            f"callback must be a function of a row and a network, got {type(callback).__name__}; leave it out"
        )
    chosen = devices.choose(device)
    with _alone(), _as_if_outermost(chosen):
        processes = Processes(chosen)
        with processes.together(), open_folder(out, recipe, resume, processes) as folder:
            if folder and folder.finished:
                return _finished(folder, recipe, network, data, processes.device)
            return _train(recipe, network, data, folder, processes, progress, callback)


_training = threading.RLock()  # a callback may train another network meanwhile: what it draws is put back


@contextmanager
def _alone() -> Iterator[None]:
    """Refuse a second training in another thread: both would seed, and draw from, torch's one generator."""
    if not _training.acquire(blocking=False):
        raise RuntimeError(
            "another thread of this process is training, and both would draw from the same random numbers; wait for it, or "
            "train in a process of its own"
        )
    try:
        yield
    finally:
        _training.release()


@contextmanager
def _as_if_outermost(device: torch.device) -> Iterator[None]:
    """A run is what its recipe says, whatever surrounds the call: autocast, `no_grad` or inference mode."""
    with torch.inference_mode(False), torch.enable_grad(), ExitStack() as stack:
        # only where there is one: inside another autocast, be it off, one that is left keeps its casts of the weights
        if torch.is_autocast_enabled(device.type):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        yield


def _train(
    recipe: Recipe,
    network: ImplicitNetwork | None,
    data: Any,
    folder: Folder | None,
    processes: Processes,
    progress: bool,
    callback: Callback | None,
) -> Run:
    """What is left of a run that is not finished."""
    begin = time.perf_counter()
    # now and not at the end: the working tree may change while the run is under way
    provenance = records.provenance(processes.device)
    gpus = [processes.device] if processes.device.type == "cuda" else []
    # the run seeds the global generators; the caller's go on afterwards as if it had not
    with torch.random.fork_rng(gpus):
        run = prepare(recipe, network, data, folder, processes)
        training = _Training(run, folder, processes, progress, callback, begin)
        with ExitStack() as stack:
            # the rows count the samples that did not converge; a warning in every batch would say it again
            for each in {run.network, run.averaged or run.network}:
                stack.enter_context(each.using(on_unconverged=counted(each)))
            record = training.run(provenance)
        return Run(_hand_over(run), record)


def _finished(folder: Folder, recipe: Recipe, network: ImplicitNetwork | None, data: Any, device: torch.device) -> Run:
    """A run that was finished before, from its files."""
    record = records.read(folder.out / RECORD)
    check_form(folder.out / RECORD, record, FINISHED)
    # of data that are read from files a finished run needs none any more
    identity = {} if data is None else of_images(*as_images(recipe.dataset, data))
    identity |= {} if network is None else of_network(recipe, network)
    check_identity(folder.out, record.get("identity", {}), identity)
    return Run(checkpoints.load_network(folder.out / MODEL, network).to(device), record)


def _hand_over(run: Prepared) -> ImplicitNetwork:
    """The network that was tested, in eval mode, with the solver that it was tested with."""
    network = run.network
    if run.averaged is not None:
        if run.recipe.network != OWN:
            network = run.averaged
        else:  # the caller holds the network, not its average
            network.load_state_dict(run.averaged.state_dict())
    network.solver = run.recipe.evaluation or network.solver
    return network.eval()


class _Training:
    """A run under way."""

    def __init__(
        self,
        run: Prepared,
        folder: Folder | None,
        processes: Processes,
        progress: bool,
        callback: Callback | None,
        begin: float,
    ) -> None:
        self.prepared, self.recipe, self.network = run, run.recipe, run.network
        self.folder, self.processes, self.device = folder, processes, processes.device
        self.leads = processes.rank == 0
        self.progress, self.callback = progress and self.leads, callback
        self.begin = begin

    def run(self, provenance: dict) -> records.Record:
        """All epochs that are left, and the test."""
        run = self.prepared
        self._say(*run.data.notes)
        # a resumed run has a row for each epoch that is finished
        for epoch in range(len(run.rows), self.recipe.epochs):
            run.rows.append(self._epoch(epoch))
            if self.folder:
                self._save(self.folder, epoch)
        tested = run.network if run.averaged is None else run.averaged
        with _uncompiled():
            self._reestimate(tested)
            result = self._result(tested)
        record = self._record(tested, provenance, result)
        self._say(*_unconverged(result))
        if self.folder:
            self.folder.finish(tested, record, classes=run.data.test.classes, build=run.data.build)
        return record

    def _epoch(self, epoch: int) -> dict:
        """Train on every image once, and look at the network; the row of the epoch."""
        begin = time.perf_counter()
        row = self._train_epoch(epoch)
        trained = time.perf_counter()
        with _uncompiled():
            images = self.prepared.data
            row |= probes.look(
                self.network, self.recipe, images.images, images.held, images.test, processes=self.processes
            )
        row["seconds"] = {"training": trained - begin, "rest": time.perf_counter() - trained}
        if self.callback:
            call_back(self.callback, row, self.network)
        if self.progress:
            say(probes.in_a_line(row))
        return row

    def _train_epoch(self, epoch: int) -> dict:
        """The steps of an epoch, and what they showed."""
        # dropout draws from the global generators, all of which this seeds: to resume, no state of theirs is needed
        torch.manual_seed(generator(self.recipe.seed, DROPOUT, epoch, self.processes.rank).initial_seed())
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        meter = Meter(epoch + 1)
        self.network.train()
        # a solve of before must not be counted as one of this epoch
        self.network.last = None
        with tally() as count, warnings.catch_warnings():
            # an exact rule that may fail does so often; the row has the largest residual
            warnings.filterwarnings("ignore", r".* left .* unsolved after", RuntimeWarning)
            with self._pretraining(epoch):
                rate = self._steps(epoch, meter)
            row = {"epoch": epoch + 1, "lr": rate, **meter.row(self.processes.add_up, self.processes.take_largest)}
        # one read of the device an epoch; the loss of the last step is that of the weights before it
        if not all_finite(self.network.parameters()):
            raise FloatingPointError(f"after the last batch of epoch {epoch + 1} the weights are not finite; {REMEDY}")
        row["products"] = count.products
        row["adjoint_residual"] = max(count.residuals, default=None)
        row["peak_memory"] = probes.peak_memory(self.device)
        return row

    def _pretraining(self, epoch: int) -> AbstractContextManager:
        """Inside, the network is unrolled if this is an epoch to be pretrained; the probe and the callback see its own rule again."""
        if epoch >= self.recipe.pretrain:
            return nullcontext()
        return self.network.using(gradient=Unrolled(self.recipe.pretrain_steps))

    def _steps(self, epoch: int, meter: Meter) -> float:
        """The steps of an epoch; the learning rate of the last one."""
        recipe, batches, average = self.recipe, self.prepared.batches, self.prepared.average
        steps = len(batches)
        total = recipe.epochs * steps
        quiet = None if self.progress else True  # None: no bar where nobody sees it move
        rate = recipe.lr
        with tqdm(total=steps, desc=f"epoch {epoch + 1}/{recipe.epochs}", disable=quiet, leave=False) as bar:
            for batch, (images, labels, whole) in enumerate(batches.epoch(epoch)):
                # a function of the step alone: a scheduler would have a state of its own to store
                rate = recipe.rate(epoch * steps + batch, total, steps)
                self.prepared.optimiser.set_rate(rate)
                self._step_or_say_where(images, labels, whole, meter, batch)
                # the last step at least, in a run of a few steps
                if average and epoch * steps + batch >= min(AVERAGED * total, total - 1):
                    average.update_parameters(self.network)
                bar.update()
                if self.progress and batch % 20 == 0:  # reading the loss waits for the GPU
                    bar.set_postfix_str(f"loss {meter.latest():.3f}", refresh=False)
        return rate

    def _step_or_say_where(self, images: Tensor, labels: Tensor, whole: int, meter: Meter, batch: int) -> None:
        fits = True
        try:
            self._step(images, labels, whole, meter)
        except torch.OutOfMemoryError:
            fits = False  # what the step holds is freed when this block is left
        except (FloatingPointError, RuntimeError) as error:
            raise meter.located(error, batch) from error
        if not fits:
            raise torch.OutOfMemoryError(self._too_large(images, labels))

    def _step(self, images: Tensor, labels: Tensor, whole: int, meter: Meter) -> None:
        network, optimiser = self.network, self.prepared.optimiser
        optimiser.zero_grad()
        with self._autocast():
            logits = self.prepared.model(as_input(images, network))
            # a sum, not a mean: the last batch, and a process's part of a batch, may be smaller than the others
            each = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing, reduction="sum")
        # DistributedDataParallel takes the mean over the processes of what are parts of one sum
        (each * (self.processes.world / whole)).backward()
        optimiser.step()
        meter.add(each, logits, labels, network)

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        # bfloat16 has float32's exponents, so that small gradients do not become 0 and no GradScaler is needed
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            yield
        # left inside a caller's autocast it would keep the casts of weights that the optimiser then changes
        torch.clear_autocast_cache()

    def _too_large(self, images: Tensor, labels: Tensor) -> str:
        """What to say when a step needs more memory than there is: which batch would fit."""
        what = f"batch {self.recipe.batch} needs more memory than {records.device_name(self.device)} has"
        # a try in one process would wait for the others, whose gradients DistributedDataParallel adds
        if self.processes.world > 1:
            return f"{what}; give --batch a smaller number"
        size = len(labels)
        # the tries are steps and change the weights, but the run ends here in any case
        while size := size // 2:
            self.prepared.optimiser.zero_grad()
            if self.device.type == "cuda":
                # freed blocks stay cut as they were for the larger batch until they are handed back
                torch.cuda.empty_cache()
            try:
                self._step(images[:size], labels[:size], size, Meter(0))
                return f"{what}; {size} fits: --batch {size}"
            except torch.OutOfMemoryError:
                pass
        return f"{what}; not even one image fits"

    def _reestimate(self, network: ImplicitNetwork) -> None:
        """Measure the statistics of batch normalisation anew, on at most as many images as there are."""
        recipe, images = self.recipe, self.prepared.data.images
        count = min(recipe.reestimate, len(images))
        if not count:
            return
        index = torch.randperm(len(images), generator=generator(recipe.seed, STATISTICS))[:count].to(self.device)
        parts = index.split(max(recipe.batch, 100))  # statistics of fewer images are too noisy to average
        with network.using(solver=recipe.evaluation):
            reestimate(network, (as_input(images.images[part], network) for part in parts))

    def _result(self, network: ImplicitNetwork) -> dict:
        data = self.prepared.data
        result = probes.measure(network, self.recipe, data.held, data.test, processes=self.processes)
        images = as_input(data.images.images[: self.recipe.batch], network)
        # in the precision of a training step, since the step's memory is meant
        with self._autocast():
            result["saved_bytes"] = probes.saved_bytes(network, images)
        return result | {"seconds": self._elapsed()}

    def _record(self, tested: ImplicitNetwork, provenance: dict, result: dict) -> records.Record:
        own = {"own": {"solver": repr(tested.solver), "gradient": repr(tested.gradient)}}
        gave_way = self.prepared.gave_way
        return records.Record(
            config=self.recipe.to_json(),
            seed=self.recipe.seed,
            **provenance,
            parameters=sum(parameter.numel() for parameter in tested.parameters()),
            processes=self.processes.world,
            resumed_after=self.prepared.resumed,
            **(own if self.recipe.network == OWN else {}),
            **({"gave_way": gave_way} if gave_way else {}),
            identity=self.prepared.identity,
            epochs=self.prepared.rows,
            result=result,
        )

    def _save(self, folder: Folder, epoch: int) -> None:
        run = self.prepared
        tensors: dict[str, Any] = {f"network.{name}": tensor for name, tensor in run.network.state_dict().items()}
        scalars: dict[str, Any] = {}
        # safetensors hold nothing but tensors; the rest of the state goes into state.json
        for name, value in run.optimiser.state().items():
            (tensors if isinstance(value, Tensor) else scalars)[f"optimiser.{name}"] = value
        if run.average:
            tensors |= {f"average.{name}": tensor for name, tensor in run.average.state_dict().items()}
        state = {"rows": run.rows, "resumed": run.resumed, "scalars": scalars, "seconds": self._elapsed()}
        state["identity"] = run.identity
        folder.save(epoch + 1, tensors, state)

    def _elapsed(self) -> float:
        """Seconds of the run, those before it was resumed included."""
        return self.prepared.before + time.perf_counter() - self.begin

    def _say(self, *lines: str) -> None:
        """Print lines, once for all processes, and above the bar."""
        if self.leads:
            say(*lines)


def _uncompiled():
    """Where compiled parts run as they are: compiling them for what is done once takes longer than doing it, and compiled code
    cannot be differentiated twice."""
    return torch.compiler.set_stance("force_eager")


def _unconverged(result: dict) -> tuple[str, ...]:
    """A line, if there are test images whose iteration did not meet the tolerance."""
    if not result["unconverged_images"]:
        return ()
    return (
        f"{result['unconverged_images']:,} of the {result['test_images']:,} test images did not meet the solver's tolerance (the "
        f"worst residual is {result['residual_worst']:.1e}); --evaluation names another solver, with more steps or another "
        "tolerance",
    )
