"""Words to the reader: lines that never end a run, and errors in one line."""

from __future__ import annotations

import contextlib
import sys

import torch
from tqdm import tqdm

__all__ = ["in_a_line", "lost", "say", "shorten"]


_lost: list[OSError] = []


def lost() -> OSError | None:
    """Why lines of `say` were not printed, since this was last asked; None if all were, or nobody reads them any more."""
    why = _lost[0] if _lost else None
    _lost.clear()
    return why


def say(*lines: object) -> None:
    """Print lines, above a progress bar if there is one. No failure to print, a closed pipe say, ends what is under way.

    What fails for want of room, and not of readers, `lost` tells, for the exit status of a command.
    """
    for line in lines:
        # without an encoding: a stream in memory, which takes any character
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        # what a console without UTF-8 cannot show, such as γ, is shown as Python writes it, \u03b3
        shown = str(line).encode(encoding, "backslashreplace").decode(encoding)
        # ValueError: a closed file; AttributeError: sys.stdout is None, as without a console
        try:
            with contextlib.suppress(BrokenPipeError, ValueError, AttributeError):
                tqdm.write(shown)
                sys.stdout.flush()
        except OSError as error:  # a full disk
            _lost.append(error)


def in_a_line(error: BaseException) -> str:
    """What an error says, without the innards of torch that may stand below it."""
    text = str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in text:
        # the package's own words begin with a name, torch's with "CUDA out of memory" or "[enforce fail at …"
        own = isinstance(error, torch.OutOfMemoryError) and not text.startswith(("CUDA", "HIP"))
        return text if own else "there is not enough memory for this; ask for less: a smaller batch, size or memory"
    # the C++ stack, and CUDA's advice on debugging it
    for mark in (
        "Exception raised from",
        "C++ CapturedTraceback",
        "CUDA kernel errors might",
        "Compile with `TORCH_USE",
    ):
        text = text.partition(mark)[0]
    return shorten(text) or type(error).__name__


def shorten(text: str, most: int = 800) -> str:
    """A text in one line, without its middle if it is longer than `most`, as one with a value of thousands of digits is."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"
