"""Training in several processes, one per GPU or group of cores, as torchrun starts them:

    torchrun --standalone --nproc-per-node 2 -m isolatent train digits

Each process takes its share of every batch and gradients are averaged. Batch normalisation, where a net has it, uses
the statistics of the share. A plain `isolatent train` is a team of one, which does none of this.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Team:
    """The processes that train one model, and this one's place among them."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def wrap(self, step: nn.Module, device: torch.device) -> nn.Module:
        """The step with gradients averaged over the team."""
        if self.size == 1:
            return step
        if device.type == "cuda":
            return DistributedDataParallel(step, device_ids=[device.index])
        # DDP lays its buckets out anew after the first update, which changes the order of sums: a resumed run would end
        # with other bits. It does not where parameters may be unused.
        warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
        return DistributedDataParallel(step, find_unused_parameters=True)

    def share(self, batch: Tensor) -> Tensor:
        """The part of a batch of indices that falls to this process, equal for all of them."""
        size = len(batch) // self.size
        return batch[self.rank * size : (self.rank + 1) * size]

    def mean(self, values: Tensor) -> Tensor:
        """Mean of a tensor over the team."""
        if self.size > 1:
            distributed.all_reduce(values)
            values = values / self.size
        return values

    def wait(self) -> None:
        """Until every process has come here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def team(device: torch.device) -> Iterator[tuple[Team, torch.device]]:
    """The team that torchrun's environment describes, and this process's own device."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(distributed.get_rank(), size), device
    finally:
        distributed.destroy_process_group()
