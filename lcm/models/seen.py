"""Seen: what the rows of a batch see of what a state holds, layer by layer; also as the plain tensors graphs take."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Seen:
    """Keys and values, and which of them each row sees."""

    keys: list[Tensor]  # per layer [B, H, K, D / H]
    values: list[Tensor]  # per layer [B, H, K, D / H]
    mask: Tensor | None  # [B, 1, 1, K], or more beside these; None: all of it

    def tensors(self) -> tuple[Tensor, ...]:
        """All of it, in an order from which `of` makes it again."""
        mask = () if self.mask is None else (self.mask,)
        return (*self.keys, *self.values, *mask)

    @classmethod
    def of(cls, tensors: Sequence[Tensor], layers: int) -> "Seen":
        """What `tensors` gave, of so many layers."""
        mask = tensors[2 * layers :]
        return cls(list(tensors[:layers]), list(tensors[layers : 2 * layers]), mask[0] if mask else None)


def mask_of(visible: Tensor, before: int = 0, behind: int = 0) -> Tensor | None:
    """Visible slots [B, K], and so many more before and behind them that all see, as `Seen` has its mask."""
    if visible.device.type == "cpu" and bool(visible.all()):  # elsewhere asking would mean waiting
        return None
    return F.pad(visible, (before, behind), value=True)[:, None, None]
