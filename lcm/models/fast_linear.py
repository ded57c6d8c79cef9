"""Linear maps for inference, in the form that is fastest where they run. Knows nothing of models.

float32 on a CPU in oneDNN's layout, where that is to be had; int8 with a scale a row, the inputs bfloat16; else as
torch does it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm.space.packed import PackedLinear, can_pack

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Maps:
    """Makes maps of one kind."""

    int8: bool = False

    def of(self, weight: Tensor, bias: Tensor | None) -> Map:
        """`x @ weight.T + bias` for x [..., D]."""
        if self.int8:
            return _Int8Linear(weight, bias)
        if weight.device.type == "cpu" and weight.dtype == torch.float32 and can_pack():
            kept = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
            return PackedLinear(weight.detach().contiguous(), kept)
        return lambda x: F.linear(x, weight, bias)

    def stacked(self, *linears: nn.Linear) -> Map:
        """Several maps of one input as one, their outputs side by side."""
        biases: list[Tensor | None] = [linear.bias for linear in linears]
        bias = None if biases[0] is None else torch.cat([b for b in biases if b is not None])
        return self.of(torch.cat([linear.weight for linear in linears]), bias)


class FastLinear(nn.Module):
    """In the place of an `nn.Linear` whose model reads fast; it keeps the weight, of which other maps can be made."""

    def __init__(self, linear: nn.Linear, maps: Maps) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self._maps = maps
        self._map: Map | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] → [..., O]."""
        if self._map is None:  # many are never asked: whoever draws has maps of its own
            self._map = self._maps.of(self.weight, self.bias)
        return self._map(x)


def make_fast(model: nn.Module, maps: Maps) -> None:
    """Put a `FastLinear` in the place of every linear map of `model`: it is for inference from now on."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, FastLinear(child, maps))


class _Int8Linear:
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        scales = (weight.float().abs().amax(dim=1) / 127).clamp_min(1e-8)
        self._weight = (weight.float() / scales[:, None]).round().to(torch.int8)
        self._scales, self._bias = scales.to(torch.bfloat16), bias

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2).to(torch.bfloat16)
        y = torch._weight_int8pack_mm(rows, self._weight, self._scales).to(x.dtype)
        y = y if self._bias is None else y + self._bias.to(x.dtype)
        return y.view(*x.shape[:-1], -1)
