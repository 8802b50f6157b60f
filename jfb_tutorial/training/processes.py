"""The processes that train together, as `torchrun` starts them; most often one."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

VARIABLES = ("RANK", "WORLD_SIZE")


def read_environment() -> tuple[int, int]:
    """This process's number and how many there are: 0 of 1 without `torchrun`, which sets RANK and WORLD_SIZE.

    Raises:
        ValueError: one is set without the other, or they make no sense.
    """
    texts = {name: os.environ.get(name) for name in VARIABLES}
    if not any(texts.values()):
        return 0, 1
    try:
        rank, world = (int(texts[name] or "") for name in VARIABLES)
    except ValueError:
        rank, world = -1, 0
    needed = ("MASTER_ADDR", "MASTER_PORT") if world > 1 else ()
    missing = [name for name in needed if not os.environ.get(name)]
    if 0 <= rank < world and not missing:
        return rank, world
    shown = ", ".join(f"{name}={text!r}" if text else f"{name} unset" for name, text in texts.items())
    raise ValueError(
        f"the environment has {shown}{''.join(f', {name} unset' for name in missing)}: several processes are started by "
        "`torchrun --nproc-per-node=2 …`, which sets all of these; for one process, unset RANK and WORLD_SIZE"
    )


class Processes:
    """This process's number and device, and what it needs of the others. Making one joins them."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.world = read_environment()
        self.device = device
        if device.type == "cuda" and self.world > 1:
            self.device = torch.device("cuda", self._local_rank())
        if self.device.type == "cuda":
            if self.device.index is None:  # set_device wants a number
                self.device = torch.device("cuda", torch.cuda.current_device())
            torch.cuda.set_device(self.device)
        if self.world > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
            atexit.register(_leave)  # a group cannot be joined twice: later runs use it too

    def _local_rank(self) -> int:
        """The number of this process's GPU on its machine."""
        text = os.environ.get("LOCAL_RANK", "")
        if not text.isdecimal() or int(text) >= torch.cuda.device_count():
            raise ValueError(
                f"LOCAL_RANK must be the number of one of the {torch.cuda.device_count()} GPUs, got {text!r}: start no more "
                "than one process a GPU by `torchrun --nproc-per-node=…`, which sets it"
            )
        return int(text)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What fails inside ends this process, where there are several, with the message of the error.

        A script that caught the error would leave the others waiting in the middle of a step, for half an hour: only the end of
        the process closes its connections, at which they fail too.

        Raises:
            SystemExit: as said.
        """
        try:
            yield
        except Exception as error:
            if self.world == 1:
                raise
            atexit.unregister(_leave)  # which waits for the others
            raise SystemExit(
                f"process {self.rank} of {self.world}: {error} (a connection that was closed means that another one has failed)"
            ) from error

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network, its gradients added up over the processes if there are several."""
        if self.world == 1:
            return network
        return DistributedDataParallel(network, [self.device] if self.device.type == "cuda" else None)

    def add_up(self, values: Tensor) -> Tensor:
        """The sum over the processes."""
        return self._combined(values, distributed.ReduceOp.SUM)

    def take_largest(self, values: Tensor) -> Tensor:
        """The maximum over the processes."""
        return self._combined(values, distributed.ReduceOp.MAX)

    def _combined(self, values: Tensor, operation) -> Tensor:
        if self.world > 1:
            distributed.all_reduce(values, operation)
        return values

    def take_turns(self, parts: list[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
        """The parts of all processes, the first of each before the second of any, on the CPU; in one process, its own."""
        if self.world == 1:
            return parts
        everyone: list[list[tuple[Tensor, ...]]] = [[] for _ in range(self.world)]
        distributed.all_gather_object(everyone, [tuple(each.cpu() for each in part) for part in parts])
        # the last ones may have one part less
        return [theirs[turn] for turn in range(len(everyone[0])) for theirs in everyone if turn < len(theirs)]

    def copy_buffers(self, network: nn.Module) -> None:
        """Give all processes the first one's buffers, as DistributedDataParallel does before each step."""
        if self.world > 1:
            for buffer in network.buffers():
                distributed.broadcast(buffer, 0)

    def agree(self, number: int) -> bool:
        """Whether all have the same number."""
        # max(−n) = −min(n): one reduction gives the largest and the smallest
        return self.take_largest(torch.tensor([number, -number], device=self.device)).tolist() == [number, -number]

    def wait(self) -> None:
        """For the others to come to the same point."""
        if self.world > 1:
            distributed.barrier()


def _leave() -> None:
    distributed.destroy_process_group()
