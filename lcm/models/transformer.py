"""Transformer block of the concept models: RMSNorm before, rotary positions, SwiGLU [LCM §2.3.1].

Receives and gives activations; knows nothing of concepts or roles. Shapes: B conversations, T concepts, D width,
H heads, K keys.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm.models.state import LcmState, Placed

NORM_EPS = 1e-5
_ROPE_BASE = 10_000.0

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines"""


def rotations(positions: Tensor, head_dim: int) -> Rotation:
    """Cosines and sines of rotary positions [Su et al. 2021, eq. 34]: [...] → two of [..., head_dim / 2]."""
    # float32 has few digits left for the fraction of a turn where positions are large; MPS has nothing finer.
    exact = torch.float32 if positions.device.type == "mps" else torch.float64
    steps = torch.arange(0, head_dim, 2, device=positions.device, dtype=exact)
    angles = positions[..., None].to(exact) * _ROPE_BASE ** (-steps / head_dim)
    return angles.cos().float(), angles.sin().float()


def rotated(x: Tensor, rotation: Rotation) -> Tensor:
    """[B, H, T, D / H] turned by angles broadcastable to [B, H, T, D / 2H]."""
    cos, sin = rotation
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x.dtype)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, D] → [B, H, T, D / H]."""
    x = x.unflatten(-1, (heads, -1)).transpose(1, 2)
    # Under autocast the products are bf16; scores in fp32 are as fast on a CPU, and exact.
    return x.float() if torch.is_autocast_enabled(x.device.type) else x


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """Scaled dot products: [B, H, T, D / H] → [B, T, D]; `mask` is true where a query sees a key."""
    with torch.autocast(q.device.type, enabled=False):
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    return attended.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Self-attention with rotary positions."""

    def __init__(self, dim: int, heads: int, *, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim, bias=bias)
        self.k_proj = nn.Linear(dim, dim, bias=bias)
        self.v_proj = nn.Linear(dim, dim, bias=bias)
        self.output_proj = nn.Linear(dim, dim, bias=bias)

    def project(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, H, T, D / H]."""
        q = rotated(split_heads(self.q_proj(x), self.heads), rotation)
        k = rotated(split_heads(self.k_proj(x), self.heads), rotation)
        return q, k, split_heads(self.v_proj(x), self.heads)

    def forward(self, x: Tensor, rotation: Rotation, mask: Tensor | None = None) -> Tensor:
        """[B, T, D] → [B, T, D]; without a mask causal, padding standing on the right, where nothing real looks."""
        q, k, v = self.project(x, rotation)
        attended: Tensor = self.output_proj(attend(q, k, v, mask, causal=mask is None))
        return attended

    def extend(self, x: Tensor, rotation: Rotation, layer: int, state: LcmState, placed: Placed) -> Tensor:
        """The same for concepts that follow those in `state`, whose keys and values are added there."""
        q, k, v = self.project(x, rotation)
        keys, values = state.write(layer, placed, k, v)
        attended: Tensor = self.output_proj(attend(q, keys, values, placed.visible))
        return attended


class SwiGlu(nn.Module):
    """Gated feed-forward [Shazeer 2020, eq. 6]."""

    def __init__(self, dim: int, inner_dim: int, *, bias: bool = False) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, inner_dim, bias=bias)
        self.inner_proj = nn.Linear(dim, inner_dim, bias=bias)
        self.output_proj = nn.Linear(inner_dim, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] → [..., D]."""
        out: Tensor = self.output_proj(F.silu(self.gate_proj(x)) * self.inner_proj(x))
        return out


class Block(nn.Module):
    """Attention and feed-forward, each behind an RMSNorm."""

    def __init__(self, dim: int, heads: int, ffn_dim: int, dropout: float, *, bias: bool = False) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(dim, eps=NORM_EPS)
        self.attention = Attention(dim, heads, bias=bias)
        self.ffn_norm = nn.RMSNorm(dim, eps=NORM_EPS)
        self.ffn = SwiGlu(dim, ffn_dim, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, rotation: Rotation, mask: Tensor | None = None) -> Tensor:
        """[B, T, D] → [B, T, D]; the mask as of `Attention`."""
        x = x + self.dropout(self.attention(self.attention_norm(x), rotation, mask))
        out: Tensor = x + self.dropout(self.ffn(self.ffn_norm(x)))
        return out

    def extend(self, x: Tensor, rotation: Rotation, layer: int, state: LcmState, placed: Placed) -> Tensor:
        """The same behind the concepts in `state`."""
        x = x + self.attention.extend(self.attention_norm(x), rotation, layer, state, placed)
        out: Tensor = x + self.ffn(self.ffn_norm(x))
        return out
