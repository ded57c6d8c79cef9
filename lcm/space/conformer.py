"""Conformer layers [Gulati et al. 2020, arXiv 2005.08100], sized by config. Know nothing of audio or concepts.

Module names follow w2v-BERT's as SONAR ships it. Ours differs in two places: a learned bias per relative distance
(Raffel et al. 2020, arXiv 1910.10683 §2.1), the quickest of the relative positions on a CPU, and LayerNorm after the
depthwise convolution, which gives a padded utterance what it gets alone.

Shapes: B batch, T frames, D model width, H heads, K kernel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm.space.layers import SelfAttention


class GatedConvolution(nn.Module):
    """Pointwise, gate, depthwise over time, norm, SiLU, pointwise."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.pointwise_conv1 = nn.Linear(dim, 2 * dim)
        self.depthwise_conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim, bias=False)
        self.layer_norm = nn.LayerNorm(dim)
        self.pointwise_conv2 = nn.Linear(dim, dim)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """[B, T, D] → [B, T, D]; `valid` [B, T, 1] is 0 where there is no frame."""
        x = F.glu(self.pointwise_conv1(x), dim=-1)
        x = x if valid is None else x * valid.to(x.dtype)
        x = convolved(x, self.depthwise_conv)
        return self.pointwise_conv2(F.silu(self.layer_norm(x)))


def convolved(x: Tensor, layer: nn.Conv1d) -> Tensor:
    """`layer` over the time of `x` [B, T, D] → [B, T', D'].

    As a convolution of images one pixel high, channels last: three times faster on a CPU than `layer` itself, and
    nothing needs transposing.
    """
    image = x.mT[:, :, None]  # [B, D, 1, T], memory as it was
    weight = layer.weight[:, :, None].contiguous(memory_format=torch.channels_last)
    out = F.conv2d(image, weight, layer.bias, (1, layer.stride[0]), (0, int(layer.padding[0])), groups=layer.groups)
    return out[:, :, 0].mT


class ConformerFeedForward(nn.Module):
    """Two linear maps with SiLU between."""

    def __init__(self, dim: int, inner_dim: int) -> None:
        super().__init__()
        self.inner_proj = nn.Linear(dim, inner_dim)
        self.output_proj = nn.Linear(inner_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] → [B, T, D]."""
        return self.output_proj(F.silu(self.inner_proj(x)))


class RelativeBias(nn.Module):
    """A score per head and distance in frames; distances beyond `reach` share the last one's."""

    def __init__(self, heads: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.weight = nn.Parameter(torch.zeros(heads, 2 * reach + 1))

    def forward(self, length: int) -> Tensor:
        """[1, H, T, T]."""
        at = torch.arange(length, device=self.weight.device)
        distance = (at[None] - at[:, None]).clamp(-self.reach, self.reach) + self.reach
        return self.weight[None, :, distance]


class ConformerLayer(nn.Module):
    """Half a feed-forward, self-attention, convolution, half a feed-forward, norm."""

    def __init__(self, dim: int, heads: int, ffn_dim: int, kernel: int, reach: int, dropout: float) -> None:
        super().__init__()
        self.ffn1_layer_norm = nn.LayerNorm(dim)
        self.ffn1 = ConformerFeedForward(dim, ffn_dim)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.self_attn = SelfAttention(dim, heads)
        self.relative_bias = RelativeBias(heads, reach)
        self.conv_layer_norm = nn.LayerNorm(dim)
        self.conv = GatedConvolution(dim, kernel)
        self.ffn2_layer_norm = nn.LayerNorm(dim)
        self.ffn2 = ConformerFeedForward(dim, ffn_dim)
        self.layer_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor | None, hidden_keys: Tensor | None) -> Tensor:
        """[B, T, D] → [B, T, D].

        `valid` [B, T, 1] is 0 and `hidden_keys` [B, 1, 1, T] is −inf where there is no frame; None if all are.
        """
        bias = self.relative_bias(x.shape[1])
        bias = bias if hidden_keys is None else bias + hidden_keys
        x = x + 0.5 * self.dropout(self.ffn1(self.ffn1_layer_norm(x)))
        x = x + self.dropout(self.self_attn(self.self_attn_layer_norm(x), bias))
        x = x + self.dropout(self.conv(self.conv_layer_norm(x), valid))
        x = x + 0.5 * self.dropout(self.ffn2(self.ffn2_layer_norm(x)))
        return self.layer_norm(x)
