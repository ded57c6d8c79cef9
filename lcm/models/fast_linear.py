"""Linear maps for inference, in the form that is fastest where they run. Knows nothing of models.

float32 on a CPU in oneDNN's layout, where that is to be had; int8 with a scale a row, the inputs bfloat16; else as
torch does it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm.space.packed import PackedLinear, can_pack

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Maps:
    """Makes maps of one kind, each once: all that draws from a model, in however many ways, shares them."""

    int8: bool = False
    _made: dict[tuple[object, ...], tuple[list[Tensor], Map]] = field(default_factory=dict, init=False, compare=False)
    """By how and from which weights, by their ids; they are held, so that no other's has the same"""

    def of(self, *linears: "Linear") -> Map:
        """`x @ weight.T + bias` for x [..., D]; several maps of one input as one, their outputs side by side."""
        return self._once(_stacked, linears)

    def chained(self, first: "Linear", then: "Linear") -> Map:
        """`then(first(x))` as one map."""
        return self._once(_chained, (first, then))

    def _once(self, fused: Callable[..., "Affine"], linears: tuple["Linear", ...]) -> Map:
        weights = [linear.weight for linear in linears]
        key = (fused, *map(id, weights))
        if key not in self._made:
            self._made[key] = weights, self._map(*fused(*linears))
        return self._made[key][1]

    def _map(self, weight: Tensor, bias: Tensor | None) -> Map:
        if self.int8:
            return _Int8Linear(weight, bias)
        if weight.device.type == "cpu" and weight.dtype == torch.float32 and can_pack():
            kept = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
            return PackedLinear(weight.detach().contiguous(), kept)
        return lambda x: F.linear(x, weight, bias)


def _stacked(*linears: "Linear") -> "Affine":
    if len(linears) == 1:
        return linears[0].weight, linears[0].bias
    biases: list[Tensor | None] = [linear.bias for linear in linears]
    bias = None if biases[0] is None else torch.cat([b for b in biases if b is not None])
    return torch.cat([linear.weight for linear in linears]), bias


def _chained(first: "Linear", then: "Linear") -> "Affine":
    bias: Tensor | None = then.bias
    if bias is not None:
        bias = bias + then.weight @ first.bias
    return then.weight @ first.weight, bias


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
            self._map = self._maps.of(self)
        return self._map(x)


Linear = nn.Linear | FastLinear
Affine = tuple[Tensor, Tensor | None]
"""Weight and bias"""


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
