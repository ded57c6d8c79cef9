"""Linear maps for inference, in the form that is fastest where they run. Knows nothing of models.

float32 on a CPU in oneDNN's layout, where that is to be had; int8 with a scale a row, the inputs bfloat16; else as
torch does it. What a map was made of is let go of, so that a weight is held in that form alone; packed maps of a tower
that reads and draws (One-Tower, planning, the quantised ones) are held twice, one by one and joined.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm.space.packed import PackedLinear, can_pack

_WHOLE = 16
"""Inputs that torch's int8 product takes at once: of any other number it reads past the end of the weight"""


class Map(Protocol):
    """`x @ weight.T + bias`."""

    def __call__(self, x: Tensor) -> Tensor:
        """[..., D] → [..., O]."""
        ...

    def part(self, start: int, end: int) -> "Map":
        """The map to some of its outputs."""
        ...


@dataclass(frozen=True, slots=True)
class Maps:
    """Makes maps of one kind; of several linears each once: all that draws from a model shares them."""

    int8: bool = False
    _made: dict[tuple[object, ...], Map] = field(default_factory=dict, init=False, compare=False)
    """Of several, by how and from which"""

    def of(self, *linears: "Linear") -> Map:
        """The map of one; or of several of one input, their outputs side by side."""
        if len(linears) > 1:
            return self._once(_stacked, linears)
        [linear] = linears
        return linear.alone() if isinstance(linear, FastLinear) else mapped(linear.weight, linear.bias, self.int8)

    def chained(self, first: "Linear", then: "Linear") -> Map:
        """`then(first(x))` as one map; neither is used alone any more."""
        return self._once(_chained, (first, then))

    def _once(self, joined: Callable[[tuple["Linear", ...], bool], Map], linears: tuple["Linear", ...]) -> Map:
        key = (joined, *linears)
        if key not in self._made:
            self._made[key] = joined(linears, self.int8)
        return self._made[key]


class FastLinear(nn.Module):
    """In the place of an `nn.Linear` whose model reads fast.

    It has the weight until a map has it: maps of several are made before any of these is used alone.
    """

    def __init__(self, linear: nn.Linear, *, int8: bool) -> None:
        super().__init__()
        self.weight: Tensor | None = linear.weight
        self.bias: Tensor | None = linear.bias
        self._make: Callable[[], Map] | None = partial(mapped, linear.weight, linear.bias, int8)
        self._map: Map | None = None

    def alone(self) -> Map:
        """Its own map; of those that are in maps of several many are never asked for."""
        if self._map is None:
            assert self._make is not None  # it is in no chain
            self._map = self._make()
            self.let_go(None)
        return self._map

    def let_go(self, make: Callable[[], Map] | None) -> None:
        """A map has the weight now, from which `make` makes its own."""
        self.weight, self._make = None, make

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] → [..., O]."""
        return self.alone()(x)


Linear = nn.Linear | FastLinear


def make_fast(model: nn.Module, *, int8: bool) -> None:
    """Put a `FastLinear` in the place of every linear map of `model`: it is for inference from now on."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, FastLinear(child, int8=int8))


def settle(model: nn.Module) -> None:
    """Make the maps that no other map has the weight of."""
    for module in list(model.modules()):
        if isinstance(module, FastLinear) and module.weight is not None:
            module.alone()


def mapped(weight: Tensor, bias: Tensor | None, int8: bool) -> Map:
    """The map of a weight [O, D] and a bias [O]."""
    weight, bias = weight.detach(), None if bias is None else bias.detach()
    if int8 and weight.shape[1] % _WHOLE == 0:
        return _Int8Linear.of(weight, bias)
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and can_pack():
        kept = None if bias is None else nn.Parameter(bias, requires_grad=False)
        return PackedLinear(weight.contiguous(), kept)
    return _PlainLinear(weight, bias)


def _stacked(linears: tuple[Linear, ...], int8: bool) -> Map:
    biases: list[Tensor] = [linear.bias for linear in linears if linear.bias is not None]
    weights = [_weight(linear) for linear in linears]
    stack = mapped(torch.cat(weights), torch.cat(biases) if biases else None, int8)
    end = 0
    for linear, weight in zip(linears, weights, strict=True):
        start, end = end, end + len(weight)
        if isinstance(linear, FastLinear):
            linear.let_go(partial(stack.part, start, end))
    return stack


def _chained(linears: tuple[Linear, ...], int8: bool) -> Map:
    first, then = linears
    bias: Tensor | None = then.bias
    if bias is not None:
        assert first.bias is not None  # both have one, or none
        bias = bias + _weight(then) @ first.bias
    chain = mapped(_weight(then) @ _weight(first), bias, int8)
    for linear in linears:
        if isinstance(linear, FastLinear):
            linear.let_go(None)
    return chain


def _weight(linear: Linear) -> Tensor:
    assert linear.weight is not None  # it was not used alone yet
    return linear.weight


@dataclass(frozen=True, slots=True)
class _PlainLinear:
    weight: Tensor  # [O, D]
    bias: Tensor | None  # [O]

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def part(self, start: int, end: int) -> "_PlainLinear":
        return _PlainLinear(self.weight[start:end], None if self.bias is None else self.bias[start:end])


@dataclass(frozen=True, slots=True)
class _Int8Linear:
    weight: Tensor  # [O, D]
    scales: Tensor  # [O]
    bias: Tensor | None  # [O]

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None) -> "_Int8Linear":
        exact = weight.float()
        scales = (exact.abs().amax(dim=1) / 127).clamp_min(1e-8)
        rounded = (exact / scales[:, None]).round_().to(torch.int8)
        return cls(rounded, scales.to(torch.bfloat16), bias)

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2).to(torch.bfloat16)
        y = torch._weight_int8pack_mm(rows, self.weight, self.scales).to(x.dtype)
        y = y if self.bias is None else y + self.bias.to(x.dtype)
        return y.view(*x.shape[:-1], -1)

    def part(self, start: int, end: int) -> "_Int8Linear":
        bias = None if self.bias is None else self.bias[start:end]
        return _Int8Linear(self.weight[start:end], self.scales[start:end], bias)
