"""Linear maps as oneDNN likes to read them: a module's float32 weights on a CPU, packed once, in place.

torch hands float32 products to MKL, which on processors that are not Intel's leaves half of the arithmetic units idle
and treats a few rows as badly as many; oneDNN, which torch uses for bfloat16, does neither, given weights in its own
layout. Knows nothing of what the maps are for.
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm.space.layers import TiedProjection

_FEW = 8
_ROWS = 16
"""For how many rows at a time the layout is chosen: it suits one as well as hundreds"""


class PackedLinear(nn.Module):
    """`nn.Linear`, its weights in oneDNN's layout; inference only."""

    def __init__(self, weight: Tensor, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.bias = bias
        self._packed = _ops()._reorder_linear_weight(weight, _ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """[…, in] → […, out], both float32: under autocast, as in training, what comes may be narrower."""
        rows = x.flatten(0, -2).float()
        count = len(rows)
        if missing := rows_taken(count) - count:
            rows = F.pad(rows, (0, 0, 0, missing))
        y: Tensor = _ops()._linear_pointwise(rows, self._packed, self.bias, "none", [], "")
        return y[:count].view(*x.shape[:-1], self.out_features)

    def part(self, start: int, end: int) -> "PackedLinear":
        """The map to some of its outputs."""
        bias = None if self.bias is None else nn.Parameter(self.bias[start:end], requires_grad=False)
        return PackedLinear(self._packed.to_dense()[start:end], bias)


def rows_taken(rows: int) -> int:
    """A number of rows not below `rows` (0 stays 0), by a quarter above it at most where there are many.

    oneDNN compiles every map anew for every number of rows, half a megabyte each that it never gives back: three hours
    of conversation held 150 MB of it.
    """
    if rows <= _FEW:
        return 1 << (rows - 1).bit_length() if rows else 0
    step = max(_FEW, (1 << rows.bit_length()) // 8)
    return -(-rows // step) * step


def pack(module: nn.Module, name: str) -> None:
    """Replaces a linear map of `module` by a packed one, and lets go of the weight that it has.

    Given the `name` of an embedding, what is packed is the projection tied to it; its rows are looked up as before.
    """
    child = module.get_submodule(name)
    if isinstance(child, nn.Linear):
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, PackedLinear(child.weight.detach(), child.bias))
    if isinstance(child, nn.Embedding):
        for parent_module in list(module.modules()):
            for leaf, tied in list(parent_module.named_children()):
                if isinstance(tied, TiedProjection) and tied.weight is child.weight:
                    setattr(parent_module, leaf, PackedLinear(tied.weight.detach(), None))


@functools.cache
def can_pack() -> bool:
    """Whether this torch has oneDNN, and its operators do what they did where this was written."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)  # nobody else's numbers change
    x, weight = torch.randn(3, 8, generator=generator), torch.randn(5, 8, generator=generator)
    bias = nn.Parameter(torch.randn(5, generator=generator), requires_grad=False)
    try:
        return torch.allclose(PackedLinear(weight, bias)(x), F.linear(x, weight, bias), atol=1e-4)
    except (RuntimeError, AttributeError, TypeError):  # the operators are torch's own, and not promised to anybody
        return False


def _ops() -> Any:
    return torch.ops.mkldnn
