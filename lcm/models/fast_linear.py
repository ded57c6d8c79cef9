"""Linear maps for inference: float32 on a CPU in oneDNN's layout, where that is to be had. Knows nothing of models."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm.space.packed import PackedLinear, can_pack


def fast_linear(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """`x @ weight.T + bias` for x [..., D]."""
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and can_pack():
        return PackedLinear(
            weight.detach().contiguous(), bias if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        )
    return lambda x: F.linear(x, weight, bias)
