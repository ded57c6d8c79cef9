"""Processes: whether a training is one process or one of several that torchrun started. Knows nothing of models."""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Processes:
    """How many, and which one this is."""

    rank: int = 0
    count: int = 1

    @classmethod
    def joined(cls, device: torch.device) -> "Processes":
        """Join those that torchrun started; alone without it."""
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(dist.get_rank(), count)

    @property
    def first(self) -> bool:
        """Whether this one writes."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """Which of `rows` rows this one computes."""
        return slice(self.rank * rows // self.count, (self.rank + 1) * rows // self.count)

    def total(self, value: Tensor) -> Tensor:
        """The sum of everybody's."""
        if self.count == 1:
            return value
        value = value.clone()
        dist.all_reduce(value)
        return value

    def agreed(self, flag: bool) -> bool:
        """Whether anybody says so."""
        return flag if self.count == 1 else bool(self.total(torch.tensor(float(flag))) > 0)

    def wait(self) -> None:
        """For everybody."""
        if self.count > 1:
            dist.barrier()
