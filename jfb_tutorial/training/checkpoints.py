"""Checkpoints: safetensors files that are written whole or not at all, and that say so if they were altered.

A file holds tensors and, in its header, JSON: what they belong to, and a digest of both. Nothing in it can run.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from ..architectures import build
from ..network import ImplicitNetwork
from .files import write
from .forms import COUNT, NUMBER, OBJECT, TEXT, check_form, escape, or_null, read_json
from .recipes import OWN, Recipe
from .records import as_read

__all__ = ["digest", "load", "load_network", "recall", "restore", "save", "save_network"]

FORMAT = "jfb_tutorial 1"


NETWORK = {
    "kind": TEXT,
    "recipe": OBJECT,
    "build?": {"classes?": COUNT, "channels?": COUNT, "size?": COUNT},
    "classes?": [TEXT],
    "commit?": TEXT,
    "versions?": {"*": or_null(TEXT)},
    "device?": TEXT,
    "date?": TEXT,
    "result?": {"test_accuracy?": or_null(NUMBER)},
}
"""The form of what the tensors of a network's checkpoint belong to."""

MANY_STEPS = 10_000
"""More steps of a solver, or of a rule, than any network of the book could take in a day: a checkpoint that asks for them is told of."""


def save(path: Path, tensors: dict[str, Tensor], about: dict) -> str:
    """Write tensors and what they belong to, and return their digest; see `files.write` for the errors."""
    # safetensors refuse what is not contiguous, such as weights in channels_last
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # a header of safetensors maps text to text, so the JSON is one string of it
    text = json.dumps(about, sort_keys=True)
    header = {"format": FORMAT, "about": text, "digest": _digest(tensors, text)}
    write(path, to_bytes(tensors, header))
    return header["digest"]


def load(path: Path | str) -> tuple[dict[str, Tensor], dict]:
    """The tensors of a checkpoint, on the CPU, and what they belong to.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated or altered, or not a checkpoint of this package.
    """
    tensors, about, _ = _read(Path(path))
    return tensors, about


def _read(path: Path) -> tuple[dict[str, Tensor], dict, str]:
    """Tensors, what they belong to, and the digest of both."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}; `train --out DIR` leaves DIR/model.safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            # the file is no mapping: it has keys() but cannot be iterated over
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or no safetensors file ({error}); take another copy of it") from None
    if header.get("format") != FORMAT:
        raise ValueError(f"{path} was not written by this package (format {header.get('format')!r}, not {FORMAT!r})")
    text = header.get("about", "")
    if _digest(tensors, text) != header.get("digest"):
        raise ValueError(f"{path} was altered after it was written: its digest does not fit; take another copy of it")
    try:
        about = json.loads(text)
    except (ValueError, RecursionError):
        about = None
    check_form(path, about, OBJECT, "about")
    return tensors, about, header["digest"]


def digest(path: Path | str) -> str:
    """What tells a checkpoint from every other: the digest of its tensors and of what they belong to.

    Raises:
        FileNotFoundError, ValueError: as for `load`.
    """
    return _read(Path(path))[2]


def save_network(path: Path, network: ImplicitNetwork, recipe: Recipe, **about) -> str:
    """Write the parameters and buffers of a network, with its recipe, and return the digest of both.

    Args:
        path: of the file.
        network: what `recipe.network` names, or a network of the caller's where that is "own".
        recipe: what it was trained with.
        about: more to store. `build` holds the keywords of `architectures.build` that the data asked for.
    """
    return save(path, network.state_dict(), {"kind": "network", "recipe": recipe.to_json(), **about})


def load_network(path: Path | str, network: ImplicitNetwork | None = None) -> ImplicitNetwork:
    """The network of a checkpoint, on the CPU and in eval mode, with the solver that its recipe evaluates with.

    Args:
        path: of the file.
        network: where a network of your own was trained, one that is built as it was: its weights are replaced, and it is
            returned, with its own rule, and its own solver unless the recipe has one.

    Raises:
        FileNotFoundError, ValueError: as for `load`, or the checkpoint holds no whole network, or one of your own and
            none is given to restore it into, or the other way round, or the record beside it is of another one or was
            altered.

    Warns:
        RuntimeWarning: its solver or its rule may take more than 10,000 steps.
    """
    path = Path(path)
    tensors, about, own_digest = _read(path)
    if about.get("kind") == "state":
        raise ValueError(f"{path} holds the state of a run, not a network; `train --resume` finishes the run")
    recipe = _read_recipe(path, about)
    _check_record_beside(path, own_digest, about)
    target = _build_again(path, recipe, about, tensors) if recipe.network != OWN else network
    if target is None:
        raise ValueError(
            f"{path} holds the weights of a network that its author built, and not how; build one like it, and give "
            "load_network(path, network)"
        )
    if network is not None and target is not network:
        raise ValueError(
            f"{path} holds a {recipe.network!r} network, which is built from its recipe; leave network out"
        )
    _warn_of_many_steps(path, recipe)
    if recipe.precision == "float64":
        # before the weights are restored: load_state_dict would round them to the dtype that is there
        target.double()
    restore(target, tensors, path)
    target.solver = recipe.evaluation or recipe.solver or target.solver
    return target.eval()


def recall(path: Path | str) -> tuple[Recipe, list[str] | None, str]:
    """What the checkpoint of a network says of it: its recipe, the names of its classes, and what its run came to, in a line.

    The names are None, and the line is empty, where it does not say so.

    Raises:
        FileNotFoundError, ValueError: as for `load`, or it holds no network.
    """
    _, about = load(path)
    recipe, accuracy = _read_recipe(path, about), about.get("result", {}).get("test_accuracy")
    if accuracy is None:
        return recipe, about.get("classes"), ""
    device, date, commit = (escape(about.get(key, "unknown")) for key in ("device", "date", "commit"))
    version = escape(about.get("versions", {}).get("torch", "unknown"))
    line = f"recorded: accuracy {100 * accuracy:.2f}%, on {device}, torch {version}, {date}, commit {commit}"
    return recipe, about.get("classes"), line


def _read_recipe(path: Path | str, about: dict) -> Recipe:
    check_form(path, about, NETWORK)
    try:
        return Recipe.from_json(about["recipe"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"the recipe in {path} is none: {escape(error)}; take another copy of the file") from None


def _check_record_beside(path: Path, own_digest: str, about: dict) -> None:
    """Refuse a network beside the record of another one, as two runs in one folder could leave them, or one that was altered."""
    # `Folder` and `experiments.reproduce` leave them under these names
    beside = path.with_name("record.json") if path.name == "model.safetensors" else path.with_suffix(".json")
    try:
        record = read_json(beside)
        model, result = record.get("model"), record.get("result")
    except (OSError, ValueError, AttributeError):
        return  # there is no record; whether one that cannot be read matters is for its readers to say
    # older records do not name their network
    if isinstance(model, str) and model != own_digest:
        raise ValueError(
            f"{path} and {beside} are of two runs: the record is of a network with another digest; take both from one run"
        )
    result = result if isinstance(result, dict) else {}
    # the record is plain text, and no checkpoint can be altered without a trace; the oldest of them hold no result. One
    # training that is made twice takes other seconds
    if "result" in about and {**result, "seconds": 0} != {**as_read(about["result"]), "seconds": 0}:
        raise ValueError(
            f"{beside} was altered, or is of another run: its result is not the one in {path}; take another copy of both"
        )


def _warn_of_many_steps(path: Path, recipe: Recipe) -> None:
    """A file of somebody else's may keep a computer busy for years: say so before it begins."""
    for name in ("rule", "solver", "evaluation"):
        given: Any = getattr(recipe, name)
        numbers = [getattr(given, f.name) for f in fields(given)] if is_dataclass(given) else []
        if any(type(number) is int and number > MANY_STEPS for number in numbers):
            remedy = "another one can be set: network.gradient, or" if name == "rule" else "give another one:"
            warnings.warn(
                f"the {name} of {path} is {given!r}: where it does not converge, this takes very long; {remedy} --solver, or "
                "network.solver",
                RuntimeWarning,
                stacklevel=3,
            )


def _build_again(path: Path, recipe: Recipe, about: dict, tensors: dict[str, Tensor]) -> ImplicitNetwork:
    def make() -> ImplicitNetwork:
        return build(recipe.network, **recipe.arguments, **about.get("build", {}))

    try:
        # without memory first: the file may ask for more than there is
        with torch.device("meta"):
            planned = make()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = escape(str(error).splitlines()[0])
        raise ValueError(f"the network in {path} cannot be built: {reason}; take another copy of the file") from None
    _check_tensors(planned, tensors, path)
    network = make()
    if not recipe.dropout:
        drop_nothing(network)
    if not recipe.explicit:
        network.gradient = recipe.rule
    return network


def drop_nothing(network: nn.Module) -> None:
    """Switch dropout off, in training too."""
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0


def restore(module: nn.Module, tensors: dict[str, Tensor], path: Path | str) -> None:
    """Load tensors into a module, if they are exactly its own.

    Raises:
        ValueError: they belong to another network; the message names the first differences.
    """
    _check_tensors(module, tensors, path)
    module.load_state_dict(tensors)


def _check_tensors(module: nn.Module, tensors: dict[str, Tensor], path: Path | str) -> None:
    own = module.state_dict()
    wrong = [f"{name} is missing" for name in own.keys() - tensors.keys()]
    wrong += [f"{escape(name)} is not in this network" for name in tensors.keys() - own.keys()]
    for name, tensor in own.items():
        given = tensors.get(name, tensor)
        if given.shape != tensor.shape:
            wrong.append(f"{name} has the shape {tuple(given.shape)}, not {tuple(tensor.shape)}")
        # float32 and float64 are one kind; load_state_dict would convert the others without a word
        elif given.is_floating_point() != tensor.is_floating_point():
            wrong.append(f"{name} has the dtype {given.dtype}, not {tensor.dtype}")
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{path} is a checkpoint of another network: {', '.join(sorted(wrong)[:3])}{more}")


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    # a file has its tensors in an order of its own
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # as bytes, since NumPy has no bfloat16; flat first, since a tensor without dimensions cannot be viewed so
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
