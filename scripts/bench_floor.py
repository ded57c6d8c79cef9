"""The floor of drawing a concept: how long reading the weights would take by itself. Knows nothing of cases."""

import time
from collections.abc import Callable
from typing import Any

import torch

from lcm.models.tower import Tower

_READ = 1 << 27
_READS = 15


def bytes_read(model: Tower, steps: int) -> int:
    """What drawing a concept cannot do without reading: the tower once, and at each step what depends on the noise.

    Tabulated, cached or merged into another map, and so not among it: what the denoiser makes of the time, of the
    context and of its own position but for one map.
    """
    once = each = 0
    spared = ("level.", "modulator.", "cross.k_proj", "cross.v_proj", "own.q_proj", "own.k_proj", "own.v_proj")
    for name, parameter in model.named_parameters():
        if not name.startswith("denoiser."):
            once += parameter.nbytes
        elif not any(part in name for part in spared):
            each += parameter.nbytes
    return once + steps * each


def read_bandwidth(device: str = "cpu") -> float:
    """Bytes per second, the best of some readings of a tensor far larger than any cache."""
    big = torch.ones(_READ, device=device)
    big.sum()
    return big.nbytes / min(seconds_of(big.sum, device) for _ in range(_READS))


def seconds_of(call: Callable[[], Any], device: str = "cpu") -> float:
    """Until the device has done it."""
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start
