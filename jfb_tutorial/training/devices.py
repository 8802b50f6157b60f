"""The device that work is done on: chosen, and refused in one line where it is not there."""

from __future__ import annotations

import torch

__all__ = ["choose", "why_no_gpu"]


def choose(device: torch.device | str | None = None) -> torch.device:
    """The device of that name, if one can compute on it; without a name a GPU if there is one, else the CPU.

    Raises:
        ValueError: there is no such device, or it has no float64, in which much is measured.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device must be cpu, cuda, or cuda:N, got {device!r}; {_there()}") from None
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device {str(device)!r} is not to be had: {why_no_gpu()}; {_there()}")
        if (chosen.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"device {str(device)!r} is not to be had: there is no GPU of this number; {_there()}")
    elif chosen.type != "cpu":
        _try(chosen)
    return chosen


def _try(chosen: torch.device) -> None:
    """Refuse a device of another kind, unless numbers can be put there."""
    fault = "it holds no numbers" if chosen.type == "meta" else ""
    try:
        torch.zeros(1, dtype=torch.float64, device=chosen)
    # what torch raises where a backend is not built in, or, on Apple's GPUs, has no float64
    except (RuntimeError, TypeError, NotImplementedError, AssertionError, ImportError):
        fault = "this torch has no such device, or the device has no float64"
    if fault:
        raise ValueError(f"device {str(chosen)!r} cannot be used: {fault}; {_there()}")


def why_no_gpu() -> str:
    """Why torch finds no GPU, and what would give it one."""
    # both are None in a build for the CPU; ROCm's build for AMD calls its GPUs cuda too
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is a build for the CPU; pytorch.org/get-started has the command for a CUDA build"
    return (
        f"torch {torch.__version__} is a GPU build, but finds no GPU, or no driver that is new enough for it; does nvidia-smi "
        "list one?"
    )


def _there() -> str:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = {0: "", 1: " and cuda:0"}.get(count, f" and cuda:0 to cuda:{count - 1}")
    return f"here there is cpu{gpus}"
