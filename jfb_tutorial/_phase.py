"""What an evaluation of R is for: the iteration that finds u*, or the step that the backward rule records.

`ImplicitNetwork` says it, around its solve and around its rule, and modules in R that must know ask here, however deep they are
nested. A context variable rather than an attribute of those modules: R may be a plain function around them, each thread has
its own value, a network inside R sets and resets it, and `torch.compile` guards on it.
"""

from __future__ import annotations

from contextvars import ContextVar

import torch

# None: no network has said
_recording: ContextVar[bool | None] = ContextVar("jfb_tutorial_recording", default=None)


class phase:
    """Inside, R is evaluated in the recorded step (or steps) of a backward rule, or else in the iteration."""

    # a class, since a generator's context costs several microseconds in each forward pass
    def __init__(self, *, recording: bool) -> None:
        self.recording = recording

    def __enter__(self) -> None:
        self.token = _recording.set(self.recording)

    def __exit__(self, *error: object) -> None:
        _recording.reset(self.token)


def is_recording() -> bool:
    """Whether this evaluation of R is one that a backward rule records.

    Where no network says so, gradients being recorded decides. That is the case of R, or of `network.operator(d)`, called by hand,
    and of a checkpoint inside R that computes its part again during the backward pass: it has left the network by then, on a
    GPU in another thread, and gradients are enabled, which is the right answer since only recorded steps are recomputed.
    """
    told = _recording.get()
    return torch.is_grad_enabled() if told is None else told
