"""Transformer layers of SONAR's text encoder and decoder, in plain PyTorch, sized by config.

Receives and gives activations; knows nothing of tokens, bundles or training. Parameter names follow SONAR's
checkpoints, so that official weights load key by key. Shapes: B batch, T tokens, D model width, C concept width,
H heads.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_GROWTH = 32
"""Tokens by which a cache grows: few copies, and little room that short sentences do not need"""


@dataclass(slots=True)
class LayerCache:
    """Keys and values of one decoder layer, for the tokens so far."""

    keys: Tensor  # [B, H, capacity, D / H]
    values: Tensor  # [B, H, capacity, D / H]

    def make_room(self, position: int) -> None:
        """Grow, if need be, so that there is a place for `position`."""
        if position >= self.keys.shape[2]:
            self.keys, self.values = (F.pad(kept, (0, 0, 0, _GROWTH)) for kept in (self.keys, self.values))


def sinusoidal_positions(length: int, dim: int, first: int = 0) -> Tensor:
    """Fixed positions as fairseq makes them: all sines first, then all cosines.

    Args:
        length: how many.
        dim: width.
        first: the number of the first of them.

    Returns:
        [length, dim] float32 on the CPU, also where modules are built on another device.
    """
    half = dim // 2
    steps = torch.arange(half, device="cpu", dtype=torch.float32)
    frequencies = torch.exp(steps * -(math.log(10_000.0) / (half - 1)))
    angles = torch.arange(first, first + length, device="cpu", dtype=torch.float32)[:, None] * frequencies[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def key_bias(padding: Tensor) -> Tensor:
    """[B, T], true where there is no key → [B, 1, 1, T]: −inf there."""
    scores = torch.zeros(padding.shape, device=padding.device).masked_fill_(padding, float("-inf"))
    return scores[:, None, None]


class Attention(nn.Module):
    """The projections of multi-head attention; who attends to whom is a subclass's."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)

    def _split(self, x: Tensor) -> Tensor:  # […, T, D] → […, H, T, D / H]
        return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)


class SelfAttention(Attention):
    """Multi-head self-attention."""

    def forward(self, x: Tensor, bias: Tensor | None, *, causal: bool = False) -> Tensor:
        """Attend within `x` [B, T, D]; `bias` [B, 1, 1, T] is added to the scores (−inf hides a key)."""
        q, k, v = self._split(self.q_proj(x)), self._split(self.k_proj(x)), self._split(self.v_proj(x))
        if q.dtype == torch.bfloat16 and q.device.type == "cpu":
            attended = _short_attention(q, k, v, bias, causal=causal)
        else:
            mask = None if bias is None else bias.to(q.dtype)
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.output_proj(attended.transpose(1, 2).flatten(2))

    def step(self, x: Tensor, cache: LayerCache, position: int) -> Tensor:
        """One decoding step: `x` [B, 1, D] attends to the cached positions and itself."""
        q = self._split(self.q_proj(x))
        cache.make_room(position)
        cache.keys[:, :, position] = self._split(self.k_proj(x))[:, :, 0]
        cache.values[:, :, position] = self._split(self.v_proj(x))[:, :, 0]
        keys, values = cache.keys[:, :, : position + 1], cache.values[:, :, : position + 1]
        attended = F.scaled_dot_product_attention(q, keys, values)
        return self.output_proj(attended.transpose(1, 2).flatten(2))


def _short_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, *, causal: bool) -> Tensor:
    """Attention spelled out: for bf16 sentences on a CPU faster than the fused kernels, masked ones most of all."""
    scores = (q @ k.mT).float() * q.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias
    if causal:
        length = scores.shape[-1]
        scores = scores + torch.full((length, length), float("-inf"), device=q.device).triu(1)
    return scores.softmax(dim=-1).to(v.dtype) @ v


class ConceptAttention(nn.Module):
    """Cross-attention to one key, the concept.

    A softmax over one key is 1, so the layer's output is W_o(W_v z + b_v) + b_o at every position: computed once
    per sentence, exactly what multi-head attention gives (true for the official decoder too).
    """

    def __init__(self, dim: int, concept_dim: int) -> None:
        super().__init__()
        self.v_proj = nn.Linear(concept_dim, dim)
        self.output_proj = nn.Linear(dim, dim)

    def forward(self, concept: Tensor) -> Tensor:
        """[B, C] → [B, 1, D], to be added at every position."""
        return self.output_proj(self.v_proj(concept))[:, None]


class FeedForward(nn.Module):
    """Two linear maps with ReLU between."""

    def __init__(self, dim: int, inner_dim: int) -> None:
        super().__init__()
        self.inner_proj = nn.Linear(dim, inner_dim)
        self.output_proj = nn.Linear(inner_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] → [B, T, D]."""
        return self.output_proj(F.relu(self.inner_proj(x)))


class TiedProjection(nn.Module):
    """The embedding read backwards: [..., D] → [..., V]."""

    def __init__(self, embed: nn.Embedding) -> None:
        super().__init__()
        self._embed = (embed,)  # inside a tuple: its weights belong to the decoder, once

    @property
    def weight(self) -> Tensor:
        """[V, D]."""
        return self._embed[0].weight

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., D] → [..., V]."""
        return F.linear(hidden, self.weight)


class EncoderLayer(nn.Module):
    """Pre-norm encoder layer."""

    def __init__(self, dim: int, heads: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.self_attn = SelfAttention(dim, heads)
        self.ffn_layer_norm = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, ffn_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[B, T, D] → [B, T, D]; `bias` as in `SelfAttention`."""
        x = x + self.dropout(self.self_attn(self.self_attn_layer_norm(x), bias))
        return x + self.dropout(self.ffn(self.ffn_layer_norm(x)))


class DecoderLayer(nn.Module):
    """Pre-norm decoder layer: causal self-attention, the concept, feed-forward."""

    def __init__(self, dim: int, heads: int, ffn_dim: int, concept_dim: int, dropout: float) -> None:
        super().__init__()
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.self_attn = SelfAttention(dim, heads)
        self.encoder_decoder_attn = ConceptAttention(dim, concept_dim)
        self.ffn_layer_norm = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, ffn_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, from_concept: Tensor) -> Tensor:
        """[B, T, D] → [B, T, D] with the concept's constant `from_concept` [B, 1, D]."""
        x = x + self.dropout(self.self_attn(self.self_attn_layer_norm(x), None, causal=True))
        x = x + self.dropout(from_concept)
        return x + self.dropout(self.ffn(self.ffn_layer_norm(x)))

    def step(self, x: Tensor, from_concept: Tensor, cache: LayerCache, position: int) -> Tensor:
        """One token [B, 1, D] → [B, 1, D], reading and extending the cache."""
        x = x + self.self_attn.step(self.self_attn_layer_norm(x), cache, position)
        x = x + from_concept
        return x + self.ffn(self.ffn_layer_norm(x))
