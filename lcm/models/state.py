"""State: what a model remembers of the concepts so far, one row per conversation. Passed in, never hidden."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(slots=True)
class LcmState:
    """Keys and values of every layer; rows may be of different lengths."""

    keys: list[Tensor]  # per layer [B, H, capacity, D / H]
    values: list[Tensor]  # per layer [B, H, capacity, D / H]
    lengths: Tensor  # [B] concepts so far

    @classmethod
    def empty(cls, layers: int, shape: tuple[int, int, int, int], device: torch.device) -> "LcmState":
        """Allocated once, for `shape` [B, H, capacity, D / H]."""
        # Zeros, not `empty`: a masked key has weight 0, and 0 × NaN would not vanish.
        keys = [torch.zeros(shape, device=device) for _ in range(layers)]
        values = [torch.zeros(shape, device=device) for _ in range(layers)]
        return cls(keys, values, torch.zeros(shape[0], dtype=torch.int64, device=device))

    @property
    def capacity(self) -> int:
        """Concepts a row can hold."""
        return self.keys[0].shape[2]

    def select(self, rows: Tensor) -> "LcmState":
        """The state of `rows` [B'] alone, in that order: conversations whose turn is complete leave."""
        return LcmState([k[rows] for k in self.keys], [v[rows] for v in self.values], self.lengths[rows])
