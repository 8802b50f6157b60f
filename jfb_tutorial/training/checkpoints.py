"""Checkpoints: safetensors files that are written whole or not at all, and that say so if they were altered.

A file holds tensors and, in its header, JSON: what they belong to, and a digest of both. Nothing in it can run.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from ..architectures import build
from ..network import ImplicitNetwork
from .recipes import OWN, Recipe

__all__ = ["digest", "load", "load_network", "restore", "save", "save_network", "write"]

FORMAT = "jfb_tutorial 1"


def write(path: Path, content: bytes) -> None:
    """Put `content` at `path`, whole or not at all; also after a power cut there is either the old file or the new one.

    Raises:
        OSError: it could not be written; what was at `path` is as it was.
    """
    path = Path(path)
    # in the same folder, a rename is atomic within a file system only; the process's number keeps writers apart
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            # the content must be on the disk before the name points at it
            os.fsync(file.fileno())
        os.replace(part, path)
        _flush_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        outcome = "what was there before is untouched" if path.exists() else "nothing was left behind"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "Free some space, then go on" if full else "Is the folder there, and may you write in it?"
        raise OSError(
            error.errno,
            f"could not write {path} of {len(content) / 2**20:.1f} MiB ({error.strerror}); {outcome}. {remedy}",
        ) from error


def _flush_folder(folder: Path) -> None:
    """Make the disk keep the order in which names change; where a folder cannot be opened (Windows), the system sees to it."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def save(path: Path, tensors: dict[str, Tensor], about: dict) -> None:
    """Write tensors and what they belong to; see `write` for the errors."""
    # safetensors refuse what is not contiguous, such as weights in channels_last
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # a header of safetensors maps text to text, so the JSON is one string of it
    text = json.dumps(about, sort_keys=True)
    header = {"format": FORMAT, "about": text, "digest": _digest(tensors, text)}
    write(path, to_bytes(tensors, header))


def load(path: Path | str) -> tuple[dict[str, Tensor], dict]:
    """The tensors of a checkpoint, on the CPU, and what they belong to.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated or altered, or not a checkpoint of this package.
    """
    tensors, text = _read(Path(path))
    return tensors, json.loads(text)


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
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
    if _digest(tensors, header.get("about", "")) != header.get("digest"):
        raise ValueError(f"{path} was altered after it was written: its digest does not fit; take another copy of it")
    return tensors, header["about"]


def digest(path: Path | str) -> str:
    """What tells a checkpoint from every other: the digest of its tensors and of what they belong to.

    Raises:
        FileNotFoundError, ValueError: as for `load`.
    """
    return _digest(*_read(Path(path)))


def save_network(path: Path, network: ImplicitNetwork, recipe: Recipe, **about) -> None:
    """Write the parameters and buffers of a network, with its recipe.

    Args:
        path: of the file.
        network: what `recipe.network` names, or a network of the caller's where that is "own".
        recipe: what it was trained with.
        about: more to store. `build` holds the keywords of `architectures.build` that the data asked for.
    """
    save(path, network.state_dict(), {"kind": "network", "recipe": recipe.to_json(), **about})


def load_network(path: Path | str, network: ImplicitNetwork | None = None) -> ImplicitNetwork:
    """The network of a checkpoint, on the CPU and in eval mode, with the solver that its recipe evaluates with.

    Args:
        path: of the file.
        network: where a network of your own was trained, one that is built as it was: its weights are replaced, and it is
            returned, with its own rule, and its own solver unless the recipe has one.

    Raises:
        FileNotFoundError, ValueError: as for `load`, or the checkpoint holds no whole network, or one of your own and
            none is given to restore it into, or the other way round.
    """
    tensors, about = load(path)
    if about.get("kind") != "network":
        raise ValueError(f"{path} holds the state of a run, not a network; `train --resume` finishes the run")
    recipe = Recipe.from_json(about["recipe"])
    target = _build_again(recipe, about) if recipe.network != OWN else network
    if target is None:
        raise ValueError(
            f"{path} holds the weights of a network that its author built, and not how; build one like it, and give "
            "load_network(path, network)"
        )
    if network is not None and target is not network:
        raise ValueError(
            f"{path} holds a {recipe.network!r} network, which is built from its recipe; leave network out"
        )
    if recipe.precision == "float64":
        # before the weights are restored: load_state_dict would round them to the dtype that is there
        target.double()
    restore(target, tensors, path)
    target.solver = recipe.evaluation or recipe.solver or target.solver
    return target.eval()


def _build_again(recipe: Recipe, about: dict) -> ImplicitNetwork:
    network = build(recipe.network, **recipe.arguments, **about.get("build", {}))
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
    own = module.state_dict()
    wrong = [f"{name} is missing" for name in own.keys() - tensors.keys()]
    wrong += [f"{name} is not in this network" for name in tensors.keys() - own.keys()]
    wrong += [
        f"{name} has the shape {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{path} is a checkpoint of another network: {', '.join(sorted(wrong)[:3])}{more}")
    module.load_state_dict(tensors)


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    # a file has its tensors in an order of its own
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # as bytes, since NumPy has no bfloat16; flat first, since a tensor without dimensions cannot be viewed so
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
