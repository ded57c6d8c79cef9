"""Denoiser: a noisy concept, how noisy it is and a context in, the concept out [LCM §2.3.4, Two-Tower].

Each layer looks at its own position alone, at the context through cross-attention, and is steered by the noise level
(AdaLN [Peebles & Xie 2023, §3.2]). Knows nothing of how the context was read or how chains of steps go.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm.models.transformer import NORM_EPS, SwiGlu, attend, split_heads

FREQUENCIES = 256
_LONGEST_PERIOD = 10_000.0


class NoiseLevelEmbedding(nn.Module):
    """Diffusion times, as in DiT [Peebles & Xie 2023]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.inner_proj = nn.Linear(FREQUENCIES, dim)
        self.output_proj = nn.Linear(dim, dim)
        for linear in (self.inner_proj, self.output_proj):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, times: Tensor) -> Tensor:
        """[N] → [N, D]."""
        half = FREQUENCIES // 2
        rates = torch.exp(-math.log(_LONGEST_PERIOD) * torch.arange(half, device=times.device) / half)
        angles = times[:, None].float() * rates
        waves = torch.cat([angles.cos(), angles.sin()], dim=1).to(self.inner_proj.bias.dtype)
        embedded: Tensor = self.output_proj(F.silu(self.inner_proj(waves)))
        return embedded


class OwnAttention(nn.Module):
    """Attention that sees its own position alone: the softmax over one key is 1, so only the value counts."""

    def __init__(self, dim: int, *, bias: bool, whole: bool) -> None:
        super().__init__()
        if whole:  # Meta's checkpoints hold queries and keys that nothing depends on
            self.q_proj = nn.Linear(dim, dim, bias=bias)
            self.k_proj = nn.Linear(dim, dim, bias=bias)
        self.v_proj = nn.Linear(dim, dim, bias=bias)
        self.output_proj = nn.Linear(dim, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] → [..., D]."""
        out: Tensor = self.output_proj(self.v_proj(x))
        return out


class CrossAttention(nn.Module):
    """From noisy concepts to the context."""

    def __init__(self, dim: int, heads: int, *, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim, bias=bias)
        self.k_proj = nn.Linear(dim, dim, bias=bias)
        self.v_proj = nn.Linear(dim, dim, bias=bias)
        self.output_proj = nn.Linear(dim, dim, bias=bias)

    def keys_and_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """[B, K, D] → two of [B, H, K, D / H]."""
        return split_heads(self.k_proj(context), self.heads), split_heads(self.v_proj(context), self.heads)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, D] → [B, T, D]; `mask` [B, 1, T, K] is true where a context is seen."""
        q = split_heads(self.q_proj(x), self.heads)
        out: Tensor = self.output_proj(attend(q, keys, values, mask))
        return out


class DenoiserLayer(nn.Module):
    """Own position, context, feed-forward; each scaled, shifted and gated by the noise level."""

    def __init__(self, dim: int, heads: int, ffn_dim: int, dropout: float, *, bias: bool, whole: bool) -> None:
        super().__init__()
        self.own_norm = nn.RMSNorm(dim, eps=NORM_EPS)
        self.own = OwnAttention(dim, bias=bias, whole=whole)
        self.cross_norm = nn.RMSNorm(dim, eps=NORM_EPS)
        self.cross = CrossAttention(dim, heads, bias=bias)
        self.ffn_norm = nn.RMSNorm(dim, eps=NORM_EPS)
        self.ffn = SwiGlu(dim, ffn_dim, bias=bias)
        self.modulator = nn.Linear(dim, 9 * dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.modulator.weight)
        nn.init.zeros_(self.modulator.bias)

    def forward(self, x: Tensor, level: Tensor, times: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """Noisy concepts [B, T, D] → [B, T, D]; the rest as `Denoiser` has it."""
        # Of a hundred noise levels, not of every concept: it is the widest map of the layer.
        modulation = self.modulator(level)[times]
        shift, scale, gate, to_shift, to_scale, to_gate, in_shift, in_scale, in_gate = modulation.chunk(9, dim=-1)
        x = x + gate * self.dropout(self.own(self.own_norm(x) * (1 + scale) + shift))
        asked = self.cross_norm(x) * (1 + to_scale) + to_shift
        x = x + to_gate * self.dropout(self.cross(asked, *self.cross.keys_and_values(context), mask))
        out: Tensor = x + in_gate * self.dropout(self.ffn(self.ffn_norm(x) * (1 + in_scale) + in_shift))
        return out


class Denoiser(nn.Module):
    """The second tower."""

    def __init__(
        self, concept_dim: int, dim: int, layers: int, heads: int, ffn_dim: int, dropout: float, *,
        bias: bool, whole: bool,
    ) -> None:  # fmt: skip
        """`whole`: keep the queries and keys that attention to one position never uses, as Meta's checkpoints do."""
        super().__init__()
        self.level = NoiseLevelEmbedding(dim)
        self.prenet = nn.Linear(concept_dim, dim)
        self.layers = nn.ModuleList(
            DenoiserLayer(dim, heads, ffn_dim, dropout, bias=bias, whole=whole) for _ in range(layers)
        )
        self.norm = nn.RMSNorm(dim, eps=NORM_EPS)
        self.postnet = nn.Linear(dim, concept_dim)

    def levels(self, times: Tensor) -> Tensor:
        """What the modulators are told of times [N]: [N, D]."""
        return F.silu(self.level(times))

    def forward(
        self, noisy: Tensor, level: Tensor, times: Tensor, asked: Tensor, context: Tensor, mask: Tensor | None
    ) -> Tensor:
        """x_0 [B, T, C] of noisy normalised concepts.

        Args:
            noisy: [B, T, C].
            level: [N, D] `levels` of every time there is.
            times: [B, T] how noisy each concept is: rows of `level`.
            asked: [B, T, D] (or a zero) who says them.
            context: [B, K, D], the zero vector that stands for no context among them.
            mask: [B, 1, T, K].
        """
        x = self.prenet(noisy.to(self.norm.weight.dtype)).to(self.norm.weight.dtype) + asked
        for layer in self.layers:
            x = layer(x, level, times, context, mask)
        concept: Tensor = self.postnet(self.norm(x)).float()
        return concept
