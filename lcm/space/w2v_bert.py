"""SONAR's speech encoder: filter banks in, concepts out. Knows nothing of waveforms, languages or checkpoints.

w2v-BERT's conformers [Chung et al. 2021, arXiv 2108.06209], which tell distances apart by Transformer-XL's relative
positions [Dai et al. 2019, arXiv 1901.02860 §3.3, appendix B], then a small decoder whose one token gathers what
they heard [SONAR §4.2]. Names follow SONAR's checkpoints.

Shapes: B batch, F frames of 10 ms, T frames of `stride` × 10 ms, D model width (and the concept's).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm.space.conformer import ConformerFeedForward, convolved
from lcm.space.layers import Attention, ConceptAttention, FeedForward, key_bias, sinusoidal_positions


@dataclass(frozen=True, slots=True)
class W2vBertConfig:
    """Sizes of SONAR's speech encoder: of the English one; the others have 6 pooling layers."""

    mel_bins: int = 80
    stride: int = 2
    """Frames of features that one frame of the model holds"""
    dim: int = 1_024
    layers: int = 24
    heads: int = 16
    ffn_dim: int = 4_096
    kernel: int = 31
    pooler_layers: int = 3
    pooler_heads: int = 16
    pooler_ffn_dim: int = 4_096

    @property
    def concept_dim(self) -> int:
        """The pooling decoder's width is the concept's."""
        return self.dim


class RelativeAttention(Attention):
    """Self-attention whose scores add what a key's distance says [Transformer-XL eq. (b) to (d)]."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads)
        self.r_proj = nn.Linear(dim, dim, bias=False)
        self.u_bias = nn.Parameter(torch.zeros(heads, dim // heads))
        self.v_bias = nn.Parameter(torch.zeros(heads, dim // heads))

    def forward(self, x: Tensor, distances: Tensor, hidden_keys: Tensor | None) -> Tensor:
        """[B, T, D] and `distances` [2 T − 1, D] → [B, T, D]; `hidden_keys` [B, 1, 1, T] is −inf for padding."""
        q, k, v = (self._split(projected(x)) for projected in (self.q_proj, self.k_proj, self.v_proj))
        to_distance = (q + self.v_bias[:, None]) * q.shape[-1] ** -0.5
        bias = of_pairs(to_distance @ self._split(self.r_proj(distances)).mT)  # of [B, H, T, 2 T − 1]
        if hidden_keys is not None:
            bias = bias + hidden_keys.to(bias.dtype)
        attended = F.scaled_dot_product_attention(q + self.u_bias[:, None], k, v, attn_mask=bias)
        return self.output_proj(attended.transpose(1, 2).flatten(2))


def distance_codes(length: int, dim: int) -> Tensor:
    """Sines and cosines, by turns, of the distances from length − 1 down to 1 − length → [2 × length − 1, dim]."""
    distances = torch.arange(length - 1, -length, -1, device="cpu", dtype=torch.float32)
    frequencies = torch.exp(torch.arange(0, dim, 2, device="cpu", dtype=torch.float32) * -(math.log(10_000.0) / dim))
    angles = distances[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def of_pairs(by_distance: Tensor) -> Tensor:
    """Scores by distance [B, H, T, 2 T − 1], the farthest key behind first → by key [B, H, T, T], without copying.

    Query t and key s stand at column T − 1 − t + s: one row further, one column less.
    """
    batch, heads, length, columns = by_distance.shape
    strides = (heads * length * columns, length * columns, columns - 1, 1)
    return by_distance.contiguous().as_strided((batch, heads, length, length), strides, length - 1)


class BatchNormConvolution(nn.Module):
    """Pointwise, gate, depthwise over time, batch norm, SiLU, pointwise."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.pointwise_conv1 = nn.Linear(dim, 2 * dim, bias=False)
        self.depthwise_conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim, bias=False)
        self.batch_norm = nn.BatchNorm1d(dim)  # its statistics are the checkpoint's: this encoder is not trained here
        self.pointwise_conv2 = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """[B, T, D] → [B, T, D]; `padding` [B, T] is true where there is no frame."""
        if padding is not None:
            x = x.masked_fill(padding[..., None], 0.0)
        x = F.glu(self.pointwise_conv1(x), dim=-1)
        x = convolved(x, self.depthwise_conv)
        norm = self.batch_norm  # spelled out: torch's own wants time last, and a copy for that
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        x = torch.addcmul(norm.bias - norm.running_mean * scale, x, scale)
        return self.pointwise_conv2(F.silu(x))


class W2vBertLayer(nn.Module):
    """Half a feed-forward, self-attention, convolution, half a feed-forward, norm."""

    def __init__(self, config: W2vBertConfig) -> None:
        super().__init__()
        self.ffn1_layer_norm = nn.LayerNorm(config.dim)
        self.ffn1 = ConformerFeedForward(config.dim, config.ffn_dim)
        self.self_attn_layer_norm = nn.LayerNorm(config.dim)
        self.self_attn = RelativeAttention(config.dim, config.heads)
        self.conv_layer_norm = nn.LayerNorm(config.dim)
        self.conv = BatchNormConvolution(config.dim, config.kernel)
        self.ffn2_layer_norm = nn.LayerNorm(config.dim)
        self.ffn2 = ConformerFeedForward(config.dim, config.ffn_dim)
        self.layer_norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, distances: Tensor, padding: Tensor | None, hidden_keys: Tensor | None) -> Tensor:
        """[B, T, D] → [B, T, D]; `padding` [B, T] and `hidden_keys` [B, 1, 1, T] are None if there is none."""
        x = torch.add(x, self.ffn1(self.ffn1_layer_norm(x)), alpha=0.5)
        x = x + self.self_attn(self.self_attn_layer_norm(x), distances, hidden_keys)
        x = x + self.conv(self.conv_layer_norm(x), padding)
        x = torch.add(x, self.ffn2(self.ffn2_layer_norm(x)), alpha=0.5)
        return self.layer_norm(x)


class CrossAttention(Attention):
    """One sequence attends to another."""

    def forward(self, x: Tensor, frames: Tensor, hidden_keys: Tensor | None) -> Tensor:
        """[B, Q, D] and [B, T, D] → [B, Q, D]."""
        q, k, v = self._split(self.q_proj(x)), self._split(self.k_proj(frames)), self._split(self.v_proj(frames))
        mask = None if hidden_keys is None else hidden_keys.to(q.dtype)
        return self.output_proj(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))


class PoolingLayer(nn.Module):
    """Post-norm decoder layer over one token, whose self-attention has one key: a constant map, as a concept's is."""

    def __init__(self, config: W2vBertConfig) -> None:
        super().__init__()
        self.self_attn = ConceptAttention(config.dim, config.dim)
        self.self_attn_layer_norm = nn.LayerNorm(config.dim)
        self.encoder_decoder_attn = CrossAttention(config.dim, config.pooler_heads)
        self.encoder_decoder_attn_layer_norm = nn.LayerNorm(config.dim)
        self.ffn = FeedForward(config.dim, config.pooler_ffn_dim)
        self.ffn_layer_norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, frames: Tensor, hidden_keys: Tensor | None) -> Tensor:
        """The token [B, 1, D] and the frames [B, T, D] → the token."""
        x = self.self_attn_layer_norm(x + self.self_attn(x[:, 0]))
        x = self.encoder_decoder_attn_layer_norm(x + self.encoder_decoder_attn(x, frames, hidden_keys))
        return self.ffn_layer_norm(x + self.ffn(x))


class PoolingDecoder(nn.Module):
    """Frames [B, T, D] → concepts [B, D]."""

    start: Tensor

    def __init__(self, config: W2vBertConfig) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(config.dim))
        self.register_buffer("start", sinusoidal_positions(1, config.dim), persistent=False)
        self.layers = nn.ModuleList(PoolingLayer(config) for _ in range(config.pooler_layers))
        self.projection_out = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, frames: Tensor, hidden_keys: Tensor | None) -> Tensor:
        """[B, T, D] → [B, D]; `hidden_keys` [B, 1, 1, T] is −inf for padding."""
        token = (self.token.float() * math.sqrt(len(self.token)) + self.start).to(frames.dtype)  # [1, D]
        x = token.expand(len(frames), 1, -1)
        for layer in self.layers:
            x = layer(x, frames, hidden_keys)
        return self.projection_out(x)[:, 0]


class W2vBertEncoder(nn.Module):
    """Filter banks [B, F, 80] → concepts [B, D]."""

    def __init__(self, config: W2vBertConfig) -> None:
        super().__init__()
        self.config = config
        feature_dim = config.mel_bins * config.stride
        self.post_extract_layer_norm = nn.LayerNorm(feature_dim)
        self.model_dim_proj = nn.Linear(feature_dim, config.dim)
        self.layers = nn.ModuleList(W2vBertLayer(config) for _ in range(config.layers))
        self.layer_norm = nn.LayerNorm(config.dim)
        self.pooler = PoolingDecoder(config)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """[B, F, 80], zero past each utterance's `lengths` [B] → [B, D] float32; half a step at the end is lost."""
        stacked = features[:, : features.shape[1] // self.config.stride * self.config.stride]
        x = stacked.unflatten(1, (-1, self.config.stride)).flatten(2)  # [B, T, 160]
        x = self.model_dim_proj(self.post_extract_layer_norm(x.to(self.layer_norm.weight.dtype)))
        outside = torch.arange(x.shape[1], device=x.device) >= (lengths // self.config.stride)[:, None]
        padding = outside if bool(outside.any()) else None
        hidden_keys = None if padding is None else key_bias(padding)
        distances = distance_codes(x.shape[1], self.config.dim).to(x)
        for layer in self.layers:
            x = layer(x, distances, padding, hidden_keys)
        return self.pooler(self.layer_norm(x), hidden_keys).float()
