"""Transformer block of the concept models: RMSNorm before, rotary positions, SwiGLU [LCM §2.3.1].

Receives and gives activations; knows nothing of concepts or roles. Shapes: B conversations, T concepts, D width,
H heads, K keys.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm.models.state import LcmState

_ROPE_BASE = 10_000.0


def rotations(positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions [Su et al. 2021, eq. 34]: [...] → two of [..., head_dim / 2]."""
    steps = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32)
    angles = positions[..., None].float() * _ROPE_BASE ** (-steps / head_dim)
    return angles.cos(), angles.sin()


def rotated(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """[B, H, T, D / H] turned by angles broadcastable to [B, H, T, D / 2H]."""
    cos, sin = rotation
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


class Attention(nn.Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim, bias=False)
        self.output_proj = nn.Linear(dim, dim, bias=False)

    def _split(self, x: Tensor) -> Tensor:  # [B, T, D] → [B, H, T, D / H]
        # Under autocast the products are bf16; scores in fp32 are as fast here, and exact.
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2).float()

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """[B, T, D] → [B, T, D]; padding stands on the right, where nothing real looks."""
        q = rotated(self._split(self.q_proj(x)), rotation)
        k = rotated(self._split(self.k_proj(x)), rotation)
        v = self._split(self.v_proj(x))
        with torch.autocast(x.device.type, enabled=False):
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output_proj(attended.transpose(1, 2).flatten(2))

    def extend(self, x: Tensor, rotation: tuple[Tensor, Tensor], layer: int, state: LcmState) -> Tensor:
        """The same for concepts that follow those in `state`, whose keys and values are added there."""
        batch, new = x.shape[:2]
        positions = state.lengths[:, None] + torch.arange(new, device=x.device)  # [B, T]
        rows = torch.arange(batch, device=x.device)[:, None]
        k = rotated(self._split(self.k_proj(x)), rotation)
        state.keys[layer][rows, :, positions] = k.transpose(1, 2)
        state.values[layer][rows, :, positions] = self._split(self.v_proj(x)).transpose(1, 2)
        used = int(positions.max()) + 1
        seen = torch.arange(used, device=x.device) <= positions[..., None]  # [B, T, K]
        q = rotated(self._split(self.q_proj(x)), rotation)
        keys, values = state.keys[layer][:, :, :used], state.values[layer][:, :, :used]
        attended = F.scaled_dot_product_attention(q, keys, values, attn_mask=seen[:, None])
        return self.output_proj(attended.transpose(1, 2).flatten(2))


class SwiGlu(nn.Module):
    """Gated feed-forward [Shazeer 2020, eq. 6]."""

    def __init__(self, dim: int, inner_dim: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, inner_dim, bias=False)
        self.inner_proj = nn.Linear(dim, inner_dim, bias=False)
        self.output_proj = nn.Linear(inner_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] → [..., D]."""
        return self.output_proj(F.silu(self.gate_proj(x)) * self.inner_proj(x))


class Block(nn.Module):
    """Attention and feed-forward, each behind an RMSNorm."""

    def __init__(self, dim: int, heads: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(dim, eps=1e-5)
        self.attention = Attention(dim, heads)
        self.ffn_norm = nn.RMSNorm(dim, eps=1e-5)
        self.ffn = SwiGlu(dim, ffn_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """[B, T, D] → [B, T, D]."""
        x = x + self.dropout(self.attention(self.attention_norm(x), rotation))
        return x + self.dropout(self.ffn(self.ffn_norm(x)))

    def extend(self, x: Tensor, rotation: tuple[Tensor, Tensor], layer: int, state: LcmState) -> Tensor:
        """The same behind the concepts in `state`."""
        x = x + self.attention.extend(self.attention_norm(x), rotation, layer, state)
        return x + self.ffn(self.ffn_norm(x))
