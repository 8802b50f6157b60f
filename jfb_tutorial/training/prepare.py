"""What a run needs before its first step: the data, the network, the optimiser, and the state of a run that it goes on with.

Each is a function. What can be refused is refused before anything is built.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..architectures import ARCHITECTURES, build
from ..gradients import JFB
from ..network import ImplicitNetwork
from . import checkpoints, data
from .batches import WEIGHTS, Batches, generator
from .evaluation import as_input, counted
from .folder import Folder
from .identity import check_identity, of_images, of_network
from .optimisers import Together, optimiser
from .own_data import as_images
from .processes import Processes
from .recipes import GIVES_WAY, OWN, RULES, SOLVERS, Recipe

__all__ = ["Prepared", "TrainingData", "prepare", "prepare_data", "settle"]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The images of a run, on its device.

    Attributes:
        images: those to train on.
        held: those held out; None if there are none.
        test: those to test on.
        build: keywords of `architectures.build` for what an architecture has otherwise: `classes`, `channels`, `size`.
        notes: a line for each thing that was done to the images, or to the recipe for their sake.
        digests: of all the images, see `identity.of_images`.
    """

    images: data.Images
    held: data.Images | None
    test: data.Images
    build: dict[str, int]
    notes: tuple[str, ...]
    digests: dict[str, str]


@dataclass(eq=False)
class Prepared:
    """A run, ready for its next epoch.

    Attributes:
        recipe: what it is trained with.
        data: its images.
        batches: those of an epoch.
        network: what is trained.
        model: the same, its gradients added up over the processes.
        optimiser: what trains it.
        average: the averaged weights; None if there are none.
        rows: of the epochs that are finished.
        resumed: after which epochs the run was resumed.
        before: seconds that the run has taken until now.
        gave_way: the proposals of a preset that gave way to the data, as they were.
        identity: the images, and the caller's rule and solver, see `identity`.
    """

    recipe: Recipe
    data: TrainingData
    batches: Batches
    network: ImplicitNetwork
    model: nn.Module
    optimiser: Together
    average: AveragedModel | None
    rows: list[dict] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)
    before: float = 0.0
    gave_way: dict[str, int] = field(default_factory=dict)
    identity: dict[str, str] = field(default_factory=dict)

    @property
    def averaged(self) -> ImplicitNetwork | None:
        """The network with the averaged weights; None if there are none."""
        # AveragedModel knows its copy of the network as a module only
        return cast(ImplicitNetwork, self.average.module) if self.average else None


def settle(recipe: Recipe, network: ImplicitNetwork | None) -> Recipe:
    """The recipe as it is for a network of the caller's, if there is one.

    Its solver and its rule are the network's own unless the recipe has others; a recipe with the rule JFB(), the default,
    has none.

    Raises:
        TypeError, ValueError: network is no ImplicitNetwork, or is missing, or the recipe changes what only our
            architectures have.
    """
    if network is None:
        if recipe.network == OWN:
            raise ValueError(f"network={OWN!r} stands for a network of yours; give it, train(recipe, network=…)")
        return recipe
    if not isinstance(network, ImplicitNetwork):
        raise TypeError(
            f"network must be an ImplicitNetwork, got {type(network).__name__}; ImplicitNetwork(Q, R, S) is one"
        )
    ours = {
        "batch_norm": True,
        "explicit": False,
        "norm": "fixed-point",
        "gamma": None,
        "width": 0,
        "weight_norm": True,
    }
    for name, default in ours.items():
        if getattr(recipe, name) != default:
            raise ValueError(f"{name} is about this package's architectures; leave it out, and build your network so")
    changes: dict[str, Any] = {"network": OWN}
    if recipe.rule == JFB() and isinstance(network.gradient, tuple(RULES.values())):
        changes["rule"] = network.gradient
    if recipe.solver is None and isinstance(network.solver, tuple(SOLVERS.values())):
        changes["solver"] = network.solver
    return recipe.replace(**changes)


def prepare(
    recipe: Recipe, network: ImplicitNetwork | None, own_data: Any, folder: Folder | None, processes: Processes
) -> Prepared:
    """A run, from its recipe; from its last checkpoint if the folder has one.

    Args:
        recipe: as `settle` gives it.
        network: the caller's; by default it is built.
        own_data: the caller's; by default they are loaded.
        folder: where the run is, if anywhere.
        processes: those that share it.

    Raises:
        See `loop.train`.
    """
    _check_processes(recipe, processes)
    asked = recipe
    recipe, images = prepare_data(asked, own_data, processes.device)
    gave_way = _given_way(asked, recipe)
    identity = images.digests | (of_network(recipe, network) if network is not None else {})
    if folder:
        if folder.state:
            check_identity(folder.out, folder.state[2].get("identity", {}), identity)
        folder.check_fitted(recipe, gave_way)
        folder.recipe, folder.gave_way = recipe, gave_way
    batches = _prepare_batches(recipe, images.images, processes)
    network = _prepare_network(recipe, network, images.build, processes.device)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError(
            "network has no parameter that can be trained; give it layers, as modules, or network.requires_grad_(True)"
        )
    _check_images(network, recipe, images.test)
    trainer, average = optimiser(recipe, network), _prepare_average(recipe, network)
    run = Prepared(recipe, images, batches, network, network, trainer, average, gave_way=gave_way, identity=identity)
    if folder and folder.state:
        _restore(run, *folder.state)
    # otherwise each would wait for the others in another epoch, without an end
    if not processes.agree(len(run.rows)):
        raise RuntimeError(
            "the processes do not see the same state of the run; resume with a folder that all of them share"
        )
    if recipe.compile:
        _compile(network)
    run.model = processes.wrap(network)
    return run


def prepare_data(recipe: Recipe, own_data: Any, device: torch.device) -> tuple[Recipe, TrainingData]:
    """The images of a run, and the recipe with its proposals lowered to what they allow.

    Raises:
        FileNotFoundError, TypeError, ValueError: data are missing, damaged, or do not fit the recipe.
    """
    everything, test = _load(recipe) if own_data is None else as_images(recipe.dataset, own_data)
    data.same_classes(everything, test)
    if len(everything.classes) < 2:
        raise ValueError(
            f"{everything.name} has one class, {', '.join(everything.classes)}, so that any answer is right; add images of another"
        )
    fitted, lines = _fit(recipe, everything)
    used, held = data.hold_out(everything.labels, fitted.held_out)
    if fitted.images:
        used = _first_of_each_class(everything.labels, used, fitted.images)
    adapts = own_data is not None or recipe.dataset not in data.DATASETS
    return fitted, TrainingData(
        everything[used].to(device),
        everything[held].to(device) if len(held) else None,
        test.to(device),
        {} if fitted.network == OWN else _adaptation(fitted.network, everything, shape=adapts),
        (*everything.notes, *test.notes, *lines),
        of_images(everything, test),
    )


def _load(recipe: Recipe) -> tuple[data.Images, data.Images]:
    """The two splits; the images of a folder in the size that the network takes, and both in colours if one has them."""
    name = recipe.dataset
    if name in data.DATASETS:
        return data.load(name), data.load(name, "test")
    # a network of the caller's does not say what it takes
    size = None if recipe.network == OWN else ARCHITECTURES[recipe.network].size
    train = data.load(name, size=size)
    return train, data.load(name, "test", size=size, channels=train.images.shape[1])


def _adaptation(network: str, images: data.Images, *, shape: bool) -> dict[str, int]:
    """Keywords of `build` for what the images have otherwise than the architecture; with `shape`, also their channels and size.

    Only what differs: networks of the published data sets are built as they always were.
    """
    # 10 is every architecture's own number
    changes = {"classes": len(images.classes)} if len(images.classes) != 10 else {}
    if shape:
        # what an architecture takes unless it is told otherwise; it has a mean for each channel
        channels, side = len(ARCHITECTURES[network].mean), ARCHITECTURES[network].size
        has_channels, _, has_side = images.images.shape[1:]
        changes |= {"channels": has_channels} if has_channels != channels else {}
        changes |= {"size": has_side} if has_side != side else {}
    return changes


def _fit(recipe: Recipe, images: data.Images) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with its proposals lowered to a small data set, and a line for each that was.

    Raises:
        ValueError: what is no proposal is more than there is, and nothing later would say so.
    """
    least = len(images.labels.unique())  # one a class, on either side of what is held out
    settings: dict[str, int] = {}
    # a recipe that is no preset's proposes nothing, but of this default nobody need have thought
    proposals = recipe.proposals or ({"probe"} if recipe.probe == Recipe.probe else ())

    def lower(name: str, most: int) -> int:
        value = getattr(recipe, name)
        if value > most and name in proposals:
            settings[name] = value = most
        if value > most and name in ("reestimate", "probe"):
            raise ValueError(f"{name} must be at most the {most} images that there are for it, got {value}; lower it")
        return value

    # in this order: what is held out bounds what is used, and that the batch
    held = lower("held_out", max(0, len(images) - least))
    rest = len(images) - held
    used = lower("images", rest) or rest
    lower("reestimate", used)
    lower("batch", used)
    lower("probe", held or used)
    lines = tuple(
        f"{name}: the preset's {getattr(recipe, name)} gives way to {value}, since {images.name} has {len(images)} training "
        f"images, {used} of them in use; --{name.replace('_', '-')} sets it"
        for name, value in settings.items()
    )
    return (recipe.give_way(**settings) if settings else recipe), lines


def _given_way(asked: Recipe, fitted: Recipe) -> dict[str, int]:
    """The proposals that gave way, as they were."""
    before, after = asked.to_json(), fitted.to_json()
    return {name: before[name] for name in sorted(GIVES_WAY) if before[name] != after[name]}


def _check_processes(recipe: Recipe, processes: Processes) -> None:
    if recipe.norm == "rescaling" and processes.world > 1:
        raise ValueError("norm='rescaling' looks at the images of one process; train with one, or choose another norm")


def _first_of_each_class(labels: Tensor, positions: Tensor, count: int) -> Tensor:
    """The first of the positions, about as many of each class, `count` together."""
    if count > len(positions):
        raise ValueError(
            f"images must be at most the {len(positions)} training images that are not held out, got {count}"
        )
    label = labels.cpu()[positions]
    # place: how many of its class come before an image; a stable sort by it takes all classes in turn
    place = torch.zeros_like(positions)
    for number in label.unique():
        mine = label == number
        place[mine] = torch.arange(int(mine.sum()))
    return positions[place.argsort(stable=True)[:count]].sort().values


def _check_augmentation(recipe: Recipe, images: data.Images) -> None:
    """Refuse what leaves nothing of an image, or needs a frame that is larger than what it frames."""
    side = min(images.images.shape[-2:])
    # a reflection has no more rows than the image has beside its edge
    most = side - 1 if recipe.fill == "reflect" else side
    if recipe.crop > most:
        raise ValueError(
            f"crop must be at most {most} for images of {side} pixels, got {recipe.crop}; 4 is usual at 32"
        )
    if recipe.cutout > side:
        raise ValueError(
            f"cutout must be at most {side}, the side of the images, got {recipe.cutout}; 8 is usual at 32"
        )


def _prepare_batches(recipe: Recipe, images: data.Images, processes: Processes) -> Batches:
    _check_augmentation(recipe, images)
    return Batches(
        images,
        recipe.batch,
        seed=recipe.seed,
        augmentation=recipe.augmentation,
        drop_last=recipe.drop_last,
        rank=processes.rank,
        world=processes.world,
    )


def _prepare_network(
    recipe: Recipe, own: ImplicitNetwork | None, adaptation: dict[str, int], device: torch.device
) -> ImplicitNetwork:
    """The caller's network, or one with weights drawn from the recipe's seed; on the device, as the recipe wants it."""
    torch.manual_seed(generator(recipe.seed, WEIGHTS).initial_seed())
    if own is None:
        settings = recipe.arguments | adaptation
        if not recipe.explicit:  # the twin has a rule of its own
            settings["gradient"] = recipe.rule
        network = build(recipe.network, solver=recipe.solver, **settings)
    else:
        network = own
        network.solver = recipe.solver or own.solver
        network.gradient = own.gradient if recipe.rule == JFB() else recipe.rule
    if not recipe.dropout:
        checkpoints.drop_nothing(network)
    network.to(device, torch.float64 if recipe.precision == "float64" else torch.float32)
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)
    return network


@torch.no_grad()
def _check_images(network: ImplicitNetwork, recipe: Recipe, test: data.Images) -> None:
    """Refuse images that the network does not take, before the first epoch."""
    d = as_input(test.images[:2], network)
    if recipe.network != OWN:
        network.Q[0](d[:1])  # the normalisation knows the shape
        return
    with network.using(mode="eval", on_unconverged=counted(network)):
        try:
            shape = tuple(network(d).shape)
        except (RuntimeError, ValueError, TypeError) as error:
            raise ValueError(f"network cannot take images of the shape {tuple(d.shape)}: {error}") from error
    if len(shape) != 2 or shape[1] < len(test.classes):
        raise ValueError(
            f"network must map {len(d)} images to {len(d)} rows of logits, one for each of the {len(test.classes)} classes, got "
            f"the shape {shape}; change S"
        )


def _prepare_average(recipe: Recipe, network: ImplicitNetwork) -> AveragedModel | None:
    # it averages parameters and copies buffers: statistics of batch normalisation are re-estimated at the end
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.average)) if recipe.average else None


def _restore(run: Prepared, path: Any, tensors: dict[str, Tensor], state: dict) -> None:
    """Go on where a checkpoint stopped."""

    def part(prefix: str) -> dict:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    checkpoints.restore(run.network, part("network."), path)
    scalars = {name.removeprefix("optimiser."): value for name, value in state["scalars"].items()}
    try:
        run.optimiser.load(part("optimiser.") | scalars)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"the state of the optimiser in {path} does not fit the recipe: {error!r:.100}") from None
    if run.average:
        checkpoints.restore(run.average, part("average."), path)
    run.rows, run.before = state["rows"], state["seconds"]
    run.resumed = [*state["resumed"], len(run.rows)]


def _compile(network: ImplicitNetwork) -> None:
    torch.compiler.reset()  # what an earlier run has compiled counts towards a limit
    for part in (network.Q, network.R, network.S):
        if isinstance(part, nn.Module):  # a caller's may be functions
            part.compile()
