"""Linear maps for inference: float32 on a CPU in oneDNN's layout, where that is to be had. Knows nothing of models."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm.space.packed import PackedLinear, can_pack

Map = Callable[[Tensor], Tensor]


def fast_linear(weight: Tensor, bias: Tensor | None) -> Map:
    """`x @ weight.T + bias` for x [..., D]."""
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and can_pack():
        kept = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        return PackedLinear(weight.detach().contiguous(), kept)
    return lambda x: F.linear(x, weight, bias)


def stacked(*linears: nn.Linear) -> Map:
    """Several maps of one input as one, their outputs side by side."""
    biases: list[Tensor | None] = [linear.bias for linear in linears]
    bias = None if biases[0] is None else torch.cat([b for b in biases if b is not None])
    return fast_linear(torch.cat([linear.weight for linear in linears]), bias)
