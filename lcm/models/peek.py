"""Peeking: a tower's layers for one more token a row, which sees what a state holds and leaves no trace there.

What refines a concept in the tower that reads the context (One-Tower, Quant) peeks once a step. Fused maps, keys and
values of the context from the state: the same numbers as the tower's own. Knows nothing of what the token is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.models.fast_linear import Maps
from lcm.models.state import LcmState
from lcm.models.tower import Tower
from lcm.models.transformer import NORM_EPS, Block, Rotation, attend, rotated


@dataclass(frozen=True, slots=True)
class Held:
    """What the rows of a batch see."""

    keys: list[Tensor]  # per layer [B, H, K, D / H]
    values: list[Tensor]  # per layer [B, H, K, D / H]
    mask: Tensor | None  # [B, 1, 1, K + 1], itself last; None: all of it
    rotation: Rotation  # [B, 1, 1, D / 2H]

    def tensors(self) -> tuple[Tensor, ...]:
        """All of it, in an order from which `of` makes it again."""
        mask = () if self.mask is None else (self.mask,)
        return (*self.keys, *self.values, *self.rotation, *mask)

    @classmethod
    def of(cls, tensors: Sequence[Tensor], layers: int) -> "Held":
        """What `tensors` gave, for a tower of so many layers."""
        cos, sin, *mask = tensors[2 * layers :]
        return cls(list(tensors[:layers]), list(tensors[layers : 2 * layers]), mask[0] if mask else None, (cos, sin))


class Peek:
    """A tower made ready."""

    @torch.no_grad()
    def __init__(self, tower: Tower, maps: Maps) -> None:
        self._tower = tower
        self._layers = [_FastBlock(layer, maps) for layer in tower.layers if isinstance(layer, Block)]

    def held(self, state: LcmState) -> Held:
        """What a token behind the last concept of each row sees."""
        visible = state.visible(ahead=1)
        used = visible.shape[1]
        everything = visible.device.type == "cpu" and bool(visible.all())  # elsewhere asking would mean waiting
        mask = None if everything else F.pad(visible, (0, 1), value=True)[:, None, None]
        cos, sin = self._tower.rotation(state.lengths)
        count = len(self._layers)
        keys, values = ([part[:, :, :used] for part in parts[:count]] for parts in (state.keys, state.values))
        return Held(keys, values, mask, (cos[:, None, None], sin[:, None, None]))

    def __call__(self, x: Tensor, held: Held) -> Tensor:
        """Tokens [B, D], or [2 B, D] of which the second half sees itself alone → the same after the last layer."""
        for number, layer in enumerate(self._layers):
            x = layer(x, held.keys[number], held.values[number], held.mask, held.rotation)
        return x


class _FastBlock:
    def __init__(self, block: Block, maps: Maps) -> None:
        attention, ffn = block.attention, block.ffn
        self._heads = attention.heads
        self._norms = (block.attention_norm.weight, block.ffn_norm.weight)
        self._qkv = maps.of(attention.q_proj, attention.k_proj, attention.v_proj)
        self._output = maps.of(attention.output_proj)
        self._inner = maps.of(ffn.gate_proj, ffn.inner_proj)
        self._ffn_output = maps.of(ffn.output_proj)

    def __call__(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, rotation: Rotation) -> Tensor:
        seeing = len(keys)
        q, k, v = self._qkv(F.rms_norm(x, x.shape[-1:], self._norms[0], NORM_EPS)).chunk(3, dim=-1)
        q, k, own = (part[:seeing].unflatten(-1, (self._heads, 1, -1)) for part in (q, k, v))
        k = torch.cat([keys, rotated(k, rotation)], dim=2)
        seen = attend(rotated(q, rotation), k, torch.cat([values, own], dim=2), mask)[:, 0]
        if len(x) > seeing:  # attention to itself alone is its own value
            seen = torch.cat([seen, v[seeing:]])
        x = x + self._output(seen)
        gate, inner = self._inner(F.rms_norm(x, x.shape[-1:], self._norms[1], NORM_EPS)).chunk(2, dim=-1)
        out: Tensor = x + self._ffn_output(F.silu(gate) * inner)
        return out
