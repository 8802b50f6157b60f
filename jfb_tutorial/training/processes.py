"""The processes that train together, as `torchrun` starts them; most often one."""

from __future__ import annotations

import atexit
import os

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


class Processes:
    """This process's number and device, and what it needs of the others. Making one joins them."""

    def __init__(self, device: torch.device) -> None:
        # torchrun sets these variables; without it there is one process
        self.world, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        self.device = device
        if device.type == "cuda" and self.world > 1:
            self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if self.device.type == "cuda":
            if self.device.index is None:  # set_device wants a number
                self.device = torch.device("cuda", torch.cuda.current_device())
            torch.cuda.set_device(self.device)
        if self.world > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
            atexit.register(distributed.destroy_process_group)  # a group cannot be joined twice: later runs use it too

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

    def agree(self, number: int) -> bool:
        """Whether all have the same number."""
        # max(−n) = −min(n): one reduction gives the largest and the smallest
        return self.take_largest(torch.tensor([number, -number], device=self.device)).tolist() == [number, -number]

    def wait(self) -> None:
        """For the others to come to the same point."""
        if self.world > 1:
            distributed.barrier()
