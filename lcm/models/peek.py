"""Peeking: a tower's layers for one more token a row, which sees what a state holds and leaves no trace there.

What refines a concept in the tower that reads the context (One-Tower, Quant) peeks once a step. Fused maps, keys and
values of the context from the state: the same numbers as the tower's own. Knows nothing of what the token is.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.models.fast_linear import Maps
from lcm.models.seen import Seen, mask_of
from lcm.models.state import LcmState
from lcm.models.tower import Tower
from lcm.models.transformer import NORM_EPS, Block, Rotation, attend, rotated


class Peek:
    """A tower made ready."""

    @torch.no_grad()
    def __init__(self, tower: Tower, maps: Maps) -> None:
        self._layers = [_FastBlock(layer, maps) for layer in tower.layers if isinstance(layer, Block)]

    def seen(self, state: LcmState) -> Seen:
        """What a token behind the last concept of each row sees; by the mask itself too, last."""
        visible = state.visible(ahead=1)
        used, count = visible.shape[1], len(self._layers)
        keys, values = ([part[:, :, :used] for part in parts[:count]] for parts in (state.keys, state.values))
        return Seen(keys, values, mask_of(visible, behind=1))

    def __call__(self, x: Tensor, seen: Seen, rotation: Rotation) -> Tensor:
        """Tokens [B, D], or [2 B, D] of which the second half sees itself alone → the same after the last layer.

        `rotation` is of their positions [B].
        """
        cos, sin = (part[:, None, None] for part in rotation)
        for layer, keys, values in zip(self._layers, seen.keys, seen.values, strict=True):
            x = layer(x, keys, values, seen.mask, (cos, sin))
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
