"""CUDA graphs: a function of tensors in, the same function without the cost of launching its kernels out.

Elsewhere than on CUDA the function is simply called. Knows nothing of what it computes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

_MOST = 8
_WARM_UPS = 2


@dataclass(slots=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    output: Tensor


@dataclass(slots=True)
class Graphed:
    """`function`, captured once for each set of shapes; at most eight sets, the one used longest ago goes first.

    It must not ask the device for anything, and what it reads beside its inputs must stay where it is. With `rows` it
    makes of each row of its inputs, scalars aside, one of its output: their number is filled up to a power of two, so
    that a batch that gets smaller and smaller is not captured at every size.
    """

    function: Callable[..., Tensor]
    graphs: bool = True
    """False: it is called on CUDA too"""
    rows: bool = False
    captured: dict[tuple[object, ...], _Captured] = field(default_factory=dict)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """What the function gives; the caller's to keep."""
        if not (self.graphs and inputs[0].is_cuda):
            return self.function(*inputs)
        with torch.cuda.device_of(inputs[0]):  # of several GPUs, the one whose turn it is may be another
            return self._replayed(inputs)

    def _replayed(self, inputs: tuple[Tensor, ...]) -> Tensor:
        rows = len(inputs[0]) if self.rows else None
        if rows:
            inputs = tuple(with_rows(tensor, filled(rows)) for tensor in inputs)
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        found = self.captured.pop(shapes, None) or self._capture(inputs)
        self.captured[shapes] = found
        for place, tensor in zip(found.inputs, inputs, strict=True):
            place.copy_(tensor)
        found.graph.replay()
        return found.output[:rows].clone()

    def _capture(self, inputs: tuple[Tensor, ...]) -> _Captured:
        while len(self.captured) >= _MOST:
            del self.captured[next(iter(self.captured))]
        kept = [tensor.clone() for tensor in inputs]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # libraries set themselves up at the first calls, which cannot be captured
            for _ in range(_WARM_UPS):
                self.function(*kept)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=aside):  # torch's own belongs to the GPU that it captured on first
            output = self.function(*kept)
        return _Captured(graph, kept, output)


def filled(count: int) -> int:
    """The power of two that so many rows, 1 at least, are filled up to."""
    return 1 << (count - 1).bit_length()


def with_rows(tensor: Tensor, count: int) -> Tensor:
    """As many rows, the first one again and again behind the others; a scalar as it is."""
    if not tensor.ndim or len(tensor) == count:
        return tensor
    return torch.cat([tensor, tensor[:1].expand(count - len(tensor), *tensor.shape[1:])])
