"""Training, once and well: any network, rule and solver of the package, on one device or several, from a shell or a notebook.

A run in a folder leaves, after each epoch, a checkpoint and `state.json`, which names it; at the end `model.safetensors`
and `record.json` take their place. All randomness is a function of (seed, epoch), so a run that was killed and
resumed gives the same weights as one that was not, bit for bit on the CPU.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from .. import bench
from .._jacobian import buffers_kept
from ..architectures import build
from ..gradients import ImplicitDifferentiation, tally
from ..network import ImplicitNetwork
from ..normalisation import reestimate
from ..theory import contraction_factor, lipschitz_estimate
from . import checkpoints, data, records
from .batches import Batches, generator
from .evaluation import as_input, evaluate, full_precision
from .folder import Folder
from .meter import REMEDY, Meter
from .optimisers import optimiser
from .processes import Processes
from .recipes import Recipe

__all__ = ["Run", "train"]

PROBE_REFERENCE = ImplicitDifferentiation(tol=1e-5)
WEIGHTS, DROPOUT, STATISTICS = 10, 11, 12
"""What a stream of random numbers is for, beside those of `batches`."""


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
    resume: bool = False,
    device: torch.device | str | None = None,
    progress: bool = False,
    callback: Callable[[dict, ImplicitNetwork], None] | None = None,
) -> Run:
    """Train a network as a recipe says, and test it once, after the last epoch.

    Under `torchrun` each process calls it, gets its part of every batch, and DistributedDataParallel adds the gradients up;
    the first one writes the files. Statistics of batch normalisation are those of each process's part.

    Args:
        recipe: see `recipes`.
        out: a folder for the files; without one nothing is written.
        resume: go on with the run in `out`, from the last epoch that was finished; start it if there is none.
        device: by default a GPU if there is one.
        progress: show a progress bar.
        callback: called after each epoch with its row, which it may add to, and the network, in eval mode.

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
        the recipe says so. Its `seconds` are all of the run's, loading and testing included. What a run does not have is null.

    Raises:
        FileExistsError: `out` holds a run, and `resume` is False.
        FloatingPointError: the loss or the weights are no longer finite; the message names the epoch and the batch.
        RuntimeError: an adjoint equation was not solved, see `ImplicitDifferentiation`; likewise.
        torch.OutOfMemoryError: a batch does not fit into the device's memory; the message says which one does.
        FileNotFoundError, ValueError, OSError: data or checkpoints are missing or damaged, or do not fit the recipe.
    """
    out = None if out is None else Path(out)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    processes = Processes(device)
    folder = Folder(out, recipe, resume, processes) if out else None
    if folder and folder.finished:
        network = checkpoints.load_network(out / "model.safetensors").to(processes.device)
        return Run(network, records.read(out / "record.json"))
    devices = [processes.device] if processes.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        return _Training(recipe, folder, processes, progress, callback).run()


class _Training:
    """A run under way."""

    def __init__(self, recipe: Recipe, folder, processes, progress: bool, callback) -> None:
        self.begin, self.before = time.perf_counter(), 0.0
        self.recipe, self.folder, self.processes = recipe, folder, processes
        self.progress, self.callback = progress and processes.rank == 0, callback
        self.device = device = processes.device
        self.provenance = records.provenance(device)
        everything = data.load(recipe.dataset)
        kept, held = data.hold_out(everything.labels, recipe.held_out)
        self.held = everything[held].to(device) if len(held) else None
        kept = _first_of_each_class(everything.labels, kept, recipe.images) if recipe.images else kept
        self.images = everything[kept].to(device)
        self.test = data.load(recipe.dataset, "test").to(device)
        self.classes = data.same_classes(everything, self.test)
        self.batches = Batches(
            self.images,
            recipe.batch,
            seed=recipe.seed,
            augmentation=recipe.augmentation,
            drop_last=recipe.drop_last,
            rank=processes.rank,
            world=processes.world,
        )
        if recipe.norm == "rescaling" and processes.world > 1:
            raise ValueError(
                "norm='rescaling' looks at the images of one process; train with one, or choose another norm"
            )
        torch.manual_seed(_seed(recipe.seed, WEIGHTS))
        rule = {} if recipe.explicit else {"gradient": recipe.rule}
        self.network = build(recipe.network, **recipe.arguments, **rule, solver=recipe.solver)
        if not recipe.dropout:
            checkpoints.drop_nothing(self.network)
        self.network.to(device, torch.float64 if recipe.precision == "float64" else torch.float32)
        if recipe.channels_last:
            self.network.to(memory_format=torch.channels_last)
        if len(everything.classes) > 10:
            raise ValueError(f"the networks tell ten classes apart, but {recipe.dataset} has {len(everything.classes)}")
        self.network.Q[0](as_input(self.test.images[:1], self.network))  # refuses images of another shape
        self.optimiser = optimiser(recipe, self.network)
        self.average = (
            AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(recipe.average)) if recipe.average else None
        )
        self.rows: list[dict] = []
        self.resumed: list[int] = []
        if folder and folder.state:
            self._restore(*folder.state)
        if not processes.agree(len(self.rows)):
            raise RuntimeError(
                "the processes do not see the same state of the run; resume with a folder that all of them share"
            )
        if recipe.compile:
            torch.compiler.reset()  # what an earlier run has compiled counts towards a limit
            for part in (self.network.Q, self.network.R, self.network.S):
                part.compile()
        self.model = processes.wrap(self.network)

    def run(self) -> Run:
        recipe = self.recipe
        for epoch in range(len(self.rows), recipe.epochs):
            row = self._epoch(epoch)
            self.rows.append(row)
            if self.folder:
                self._save(epoch)
        tested = self.average.module if self.average else self.network
        with _uncompiled():
            self._reestimate(tested)
            result = self._result(tested)
        record = records.Record(
            config=recipe.to_json(),
            seed=recipe.seed,
            **self.provenance,
            parameters=sum(parameter.numel() for parameter in tested.parameters()),
            processes=self.processes.world,
            resumed_after=self.resumed,
            epochs=self.rows,
            result=result,
        )
        tested.solver = recipe.evaluation or tested.solver
        if self.folder:
            self.folder.finish(tested, recipe, record, self.classes)
        return Run(tested.eval(), record)

    def _epoch(self, epoch: int) -> dict:
        recipe, network = self.recipe, self.network
        torch.manual_seed(_seed(recipe.seed, DROPOUT, epoch, self.processes.rank))
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        meter = Meter(epoch + 1)
        network.train()
        network.last = None
        steps = len(self.batches)
        quiet = None if self.progress else True  # None: no bar where nobody sees it move
        bar = tqdm(total=steps, desc=f"epoch {epoch + 1}/{recipe.epochs}", disable=quiet, leave=False)
        begin = time.perf_counter()
        with tally() as count, bar, warnings.catch_warnings():
            # an exact rule that may fail does so often; the row has the largest residual
            warnings.filterwarnings("ignore", r".* left .* unsolved after", RuntimeWarning)
            for batch, (images, labels, whole) in enumerate(self.batches.epoch(epoch)):
                rate = recipe.rate(epoch * steps + batch, recipe.epochs * steps, steps)
                self.optimiser.set_rate(rate)
                fits = True
                try:
                    self._step(images, labels, whole, meter)
                except torch.OutOfMemoryError:
                    fits = False  # what the step holds is freed when this block is left
                except (FloatingPointError, RuntimeError) as error:
                    raise meter.located(error, batch) from error
                if not fits:
                    raise torch.OutOfMemoryError(self._too_large(images, labels))
                if self.average and epoch * steps + batch >= 0.8 * recipe.epochs * steps:
                    self.average.update_parameters(network)
                bar.update()
                if self.progress and batch % 20 == 0:
                    bar.set_postfix_str(f"loss {meter.latest():.3f}", refresh=False)
            row = {"epoch": epoch + 1, "lr": rate, **meter.row(self.processes.add_up, self.processes.take_largest)}
        if not all(bool(parameter.isfinite().all()) for parameter in network.parameters()):
            raise FloatingPointError(f"after the last batch of epoch {epoch + 1} the weights are not finite; {REMEDY}")
        row["products"] = count.products
        row["adjoint_residual"] = max(count.residuals, default=None)
        row["peak_memory"] = _peak_memory(self.device)
        trained = time.perf_counter()
        with _uncompiled():
            row |= self._looked_at(network)
        row["seconds"] = {"training": trained - begin, "rest": time.perf_counter() - trained}
        if self.callback:
            network.eval()
            self.callback(row, network)
        if self.progress:
            tqdm.write(_line(row))
        return row

    def _step(self, images: Tensor, labels: Tensor, whole: int, meter: Meter) -> None:
        network = self.network
        self.optimiser.zero_grad()
        with self._autocast():
            logits = self.model(as_input(images, network))
            each = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing, reduction="sum")
        # DistributedDataParallel takes the mean over the processes of what are parts of one sum
        (each * (self.processes.world / whole)).backward()
        self.optimiser.step()
        meter.add(each, logits, labels, network)

    def _autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16")

    def _too_large(self, images: Tensor, labels: Tensor) -> str:
        """What to say when a step needs more memory than there is: which batch would fit."""
        what = f"batch {self.recipe.batch} needs more memory than {records.device_name(self.device)} has"
        if self.processes.world > 1:
            return f"{what}; give --batch a smaller number"
        size = len(labels)
        while size := size // 2:
            self.optimiser.zero_grad()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            try:
                self._step(images[:size], labels[:size], size, Meter(0))
                return f"{what}; {size} fits: --batch {size}"
            except torch.OutOfMemoryError:
                pass
        return f"{what}; not even one image fits"

    def _looked_at(self, network: ImplicitNetwork) -> dict:
        """What is measured after an epoch, in eval mode."""
        recipe, row = self.recipe, {}
        if self.held is not None:
            held = evaluate(network, self.held, solver=recipe.evaluation)
            row |= {"validation_loss": held.loss, "validation_accuracy": held.accuracy}
        if recipe.watch_test:
            row["test_accuracy"] = evaluate(network, self.test, solver=recipe.evaluation).accuracy
            naive = evaluate(network, self.test, solver=recipe.evaluation, training_mode=True)
            row["test_accuracy_training_mode"] = naive.accuracy
        if recipe.probe and not recipe.explicit:
            row |= self._probed(network)
        return row

    def _probed(self, network: ImplicitNetwork) -> dict:
        """The Lipschitz constant of T at u*, its estimate from one direction, and the rules' cosines."""
        probe = (self.images if self.held is None else self.held)[: self.recipe.probe]
        network.eval()
        solver, network.solver = network.solver, self.recipe.evaluation or network.solver
        row = {"gamma": None, "gamma_one_direction": None}
        try:
            d = as_input(probe.images, network)
            with full_precision():
                u, T = network.solve(d).u, network.operator(d)
                radius = max(1e-3, 1e-4 * torch.linalg.vector_norm(u).item())  # well above the rounding of u
                one = lipschitz_estimate(T, u, radius=radius)
                row = {"gamma": contraction_factor(T, u, tol=1e-2), "gamma_one_direction": one}
                if self.recipe.compare:
                    found = bench.compare(network, d, probe.labels, F.cross_entropy, reference=PROBE_REFERENCE)
                    row["cosines"] = {bench.name(each.rule): each.cosine for each in found.rows}
        except (FloatingPointError, RuntimeError, ValueError) as error:
            row["probe_error"] = str(error)  # no fixed point, or one at which I − J cannot be solved with
        finally:
            network.solver = solver
        return row

    def _reestimate(self, network: ImplicitNetwork) -> None:
        count = min(self.recipe.reestimate, len(self.images))
        if count:
            solver, network.solver = network.solver, self.recipe.evaluation or network.solver
            index = torch.randperm(len(self.images), generator=generator(self.recipe.seed, STATISTICS))[:count].to(
                self.device
            )
            parts = index.split(max(self.recipe.batch, 100))
            reestimate(network, (as_input(self.images.images[part], network) for part in parts))
            network.solver = solver

    def _result(self, network: ImplicitNetwork) -> dict:
        recipe = self.recipe
        final = evaluate(network, self.test, solver=recipe.evaluation)
        result = {"test_accuracy": final.accuracy, "test_loss": final.loss, "test_images": len(self.test)}
        result |= {"residual_worst": final.residual, "steps_mean": final.steps, "unconverged_images": final.unconverged}
        if self.held is not None:
            held = evaluate(network, self.held, solver=recipe.evaluation)
            result |= {"validation_accuracy": held.accuracy, "validation_loss": held.loss}
        images = as_input(self.images.images[: recipe.batch], network)
        with self._autocast():
            result["saved_bytes"] = _saved(network, images)
        result["seconds"] = self.before + time.perf_counter() - self.begin
        return result

    def _save(self, epoch: int) -> None:
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        scalars = {}
        for name, value in self.optimiser.state().items():
            (tensors if isinstance(value, Tensor) else scalars)[f"optimiser.{name}"] = value
        if self.average:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        elapsed = self.before + time.perf_counter() - self.begin
        state = {"rows": self.rows, "resumed": self.resumed, "scalars": scalars, "seconds": elapsed}
        self.folder.save(epoch + 1, tensors, state)

    def _restore(self, path: Path, tensors: dict[str, Tensor], state: dict) -> None:
        def part(prefix: str) -> dict:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

        checkpoints.restore(self.network, part("network."), path)
        scalars = {name.removeprefix("optimiser."): value for name, value in state["scalars"].items()}
        self.optimiser.load(part("optimiser.") | scalars)
        if self.average:
            checkpoints.restore(self.average, part("average."), path)
        self.rows, self.before = state["rows"], state["seconds"]
        self.resumed = [*state["resumed"], len(self.rows)]


def _uncompiled():
    """Where compiled parts run as they are: compiling them for what is done once takes longer than doing it, and compiled code
    cannot be differentiated twice."""
    return torch.compiler.set_stance("force_eager")


def _first_of_each_class(labels: Tensor, kept: Tensor, count: int) -> Tensor:
    """The first of the positions `kept`, about as many of each class, `count` together."""
    if count > len(kept):
        raise ValueError(f"images must be at most the {len(kept)} training images that are not held out, got {count}")
    label = labels[kept]
    place = torch.zeros_like(kept)
    for number in label.unique():
        mine = label == number
        place[mine] = torch.arange(int(mine.sum()))
    return kept[place.argsort(stable=True)[:count]].sort().values


def _saved(network: ImplicitNetwork, images: Tensor) -> int:
    """Bytes that a training step keeps for its backward pass, on top of the images, parameters and buffers."""
    network.train()
    with buffers_kept(network), bench.saved_bytes([images, *network.parameters(), *network.buffers()]) as saved:
        network(images)
    return saved.total


def _peak_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _line(row: dict) -> str:
    """An epoch in a line."""
    text = f"epoch {row['epoch']:3d}  loss {row['loss']:.4f}  accuracy {100 * row['accuracy']:6.2f}%"
    if "validation_accuracy" in row:
        text += f"  held out {100 * row['validation_accuracy']:6.2f}%"
    if row.get("steps_mean") is not None:
        text += f"  steps {row['steps_mean']:5.1f}  residual {row['residual_worst']:.1e}"
    if row.get("gamma") is not None:
        text += f"  γ {row['gamma']:.2f}"
    return f"{text}  {row['seconds']['training']:.1f} s"


def _seed(*key: int) -> int:
    return generator(*key).initial_seed()
