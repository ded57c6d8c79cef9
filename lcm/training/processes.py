"""Processes: whether a training is one process or one of several that torchrun started. Knows nothing of models.

What they compute goes between their devices, with the usual time limits. What they agree on goes between their CPUs
without any: all may wait for the one that writes or evaluates, however long that takes.
"""

import functools
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from lcm.errors import ComputeDeviceError, TrainingDataError

_PATIENCE = timedelta(days=30)
"""A process that ends closes its connections, and those that wait for it are told: this limit is none."""


_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Processes:
    """How many, which one this is, and where it computes."""

    rank: int = 0
    count: int = 1
    device: torch.device = _CPU

    @classmethod
    def joined(cls, device: str) -> "Processes":
        """Join those that torchrun started; alone without it.

        Raises:
            ComputeDeviceError: there is no GPU for this one.
        """
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return cls(device=torch.device(device))
        own = own_device(torch.device(device), int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count())
        if own.type == "cuda":
            torch.cuda.set_device(own)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if own.type == "cuda" else "gloo")
        _between_cpus()
        return cls(dist.get_rank(), count, own)

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
        """Whether anybody says so; everybody must ask."""
        if self.count == 1:
            return flag
        said = torch.tensor(float(flag))
        dist.all_reduce(said, dist.ReduceOp.MAX, group=_between_cpus())
        return bool(said)

    def by_first(self, work: Callable[[], None]) -> None:
        """The first does what is to be done once, and the others wait for it; everybody must come here.

        Raises:
            Exception: as `work`; to the others a TrainingDataError, that the first one failed.
        """
        failure: Exception | None = None
        if self.first:
            try:
                work()
            except Exception as error:  # noqa: BLE001, raised below: whatever it is, the others wait to hear of it
                failure = error
        if self.agreed(failure is not None):
            raise failure or TrainingDataError("the first process could not go on, and says why; so all end")

    def as_first(self, tensors: Iterable[Tensor]) -> None:
        """Give everybody's tensors, on the CPU, the first one's values."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0, group=_between_cpus())


ALONE = Processes()


def own_device(device: torch.device, number: int, gpus: int) -> torch.device:
    """The device of this machine's process `number`: with CUDA a GPU each.

    Raises:
        ComputeDeviceError: there are not so many.
    """
    if device.type != "cuda":
        return device
    if number >= gpus:
        raise ComputeDeviceError(
            f"process {number + 1} on this machine has no GPU of its own: there are {gpus}; "
            f"start torchrun with --nproc-per-node={gpus}, or give --device cpu"
        )
    return torch.device("cuda", number)


@functools.cache
def _between_cpus() -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    assert isinstance(group, dist.ProcessGroup)  # every process is in it
    return group
