"""Speech encoder: filter banks in, concepts out, in the space of the text encoder that taught it.

SONAR's arrangement [SONAR §4.2]: a front end, conformers, then an attention pooler of post-norm decoder layers whose
one query becomes the concept. Knows nothing of waveforms, languages or training.

Shapes: B batch, F frames of 10 ms, T frames of 40 ms, D model width, C concept width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm.space.conformer import ConformerLayer, convolved
from lcm.space.layers import ConceptAttention, FeedForward

SUBSAMPLING = 4


@dataclass(frozen=True, slots=True)
class SpeechEncoderConfig:
    """Sizes of a speech encoder."""

    mel_bins: int = 80
    dim: int = 256
    layers: int = 6
    heads: int = 4
    ffn_dim: int = 704
    kernel: int = 15
    reach: int = 64
    """Frames of 40 ms between which attention still tells distances apart"""
    pooler_layers: int = 2
    pooler_heads: int = 8
    pooler_ffn_dim: int = 512
    concept_dim: int = 512
    dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class SpeechFrames:
    """What the conformers make of a batch of utterances."""

    layers: list[Tensor]  # of each conformer [B, T, D]
    lengths: Tensor  # [B] valid frames
    hidden_keys: Tensor | None  # [B, 1, 1, T], −inf where there is no frame; None if all are valid


class Subsampling(nn.Module):
    """Two convolutions of stride 2: frames of 10 ms → frames of 40 ms."""

    def __init__(self, mel_bins: int, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(mel_bins, dim, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(dim, dim, 3, stride=2, padding=1)
        self.layer_norm = nn.LayerNorm(dim)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[B, F, mel bins] and [B] → [B, T, D] and [B]."""
        x = F.silu(convolved(features, self.conv1))
        lengths = (lengths + 1) // 2
        valid = valid_frames(lengths, x.shape[1])  # or the second convolution would see what stands past the end
        x = x if valid is None else x * valid.to(x.dtype)
        return self.layer_norm(convolved(x, self.conv2)), (lengths + 1) // 2


class QueryAttention(nn.Module):
    """Multi-head attention of one query to all frames.

    Keys and values are never formed for every frame: (W_k x)·q = x·(W_kᵀ q), and the weighted sum of W_v x is W_v of
    the weighted sum. A bias of the keys would add the same to every score, so there is none.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)

    def forward(self, query: Tensor, frames: Tensor, hidden_keys: Tensor | None) -> Tensor:
        """[B, D] reads [B, T, D] → [B, D]; `hidden_keys` [B, 1, T] is −inf where there is no frame."""
        q = self.q_proj(query).unflatten(1, (self.heads, -1))  # [B, H, D / H]
        by_head = self.k_proj.weight.unflatten(0, (self.heads, -1))  # [H, D / H, D]
        scores = torch.einsum("bhe,hed->bhd", q, by_head) @ frames.mT  # [B, H, T]
        scores = scores.float() * q.shape[-1] ** -0.5
        scores = scores if hidden_keys is None else scores + hidden_keys
        pooled = scores.softmax(dim=2).to(frames.dtype) @ frames  # [B, H, D]
        by_head = self.v_proj.weight.unflatten(0, (self.heads, -1))
        values = torch.einsum("bhd,hed->bhe", pooled, by_head).flatten(1) + self.v_proj.bias
        return self.output_proj(values)


class PoolerLayer(nn.Module):
    """Post-norm decoder layer over a sequence of one: self-attention to one key is its value projection."""

    def __init__(self, dim: int, heads: int, ffn_dim: int) -> None:
        super().__init__()
        self.self_attn = ConceptAttention(dim, dim)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.encoder_decoder_attn = QueryAttention(dim, heads)
        self.encoder_decoder_attn_layer_norm = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, ffn_dim)
        self.ffn_layer_norm = nn.LayerNorm(dim)

    def forward(self, query: Tensor, frames: Tensor, hidden_keys: Tensor | None) -> Tensor:
        """[B, D] reads [B, T, D] → [B, D]."""
        query = self.self_attn_layer_norm(query + self.self_attn(query)[:, 0])
        read = self.encoder_decoder_attn(query, frames, hidden_keys)
        query = self.encoder_decoder_attn_layer_norm(query + read)
        return self.ffn_layer_norm(query + self.ffn(query))


class AttentionPooler(nn.Module):
    """One learned query through decoder layers; LayerNorm without affine, as the mini text encoder ends."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(config.dim))
        self.layers = nn.ModuleList(
            PoolerLayer(config.dim, config.pooler_heads, config.pooler_ffn_dim) for _ in range(config.pooler_layers)
        )
        self.projection_out = nn.Linear(config.dim, config.concept_dim)
        self.norm = nn.LayerNorm(config.concept_dim, elementwise_affine=False)

    def forward(self, frames: Tensor, hidden_keys: Tensor | None) -> Tensor:
        """[B, T, D], `hidden_keys` [B, 1, T] → [B, C] float32."""
        query = self.query.expand(len(frames), -1).to(frames.dtype)
        for layer in self.layers:
            query = layer(query, frames, hidden_keys)
        return self.norm(self.projection_out(query).float())


class SpeechEncoder(nn.Module):
    """Filter banks [B, F, 80] → concepts [B, C]."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.subsampling = Subsampling(config.mel_bins, config.dim)
        self.layers = nn.ModuleList(
            ConformerLayer(config.dim, config.heads, config.ffn_dim, config.kernel, config.reach, config.dropout)
            for _ in range(config.layers)
        )
        self.pooler = AttentionPooler(config)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """[B, F, 80], zero past each utterance's `lengths` [B] → [B, C] float32."""
        return self.pooled(self.frames(features, lengths))

    def frames(self, features: Tensor, lengths: Tensor, layers: int | None = None) -> SpeechFrames:
        """The output of every conformer, or of the first `layers`: training reads phones from one of the middle."""
        x, lengths = self.subsampling(features, lengths)
        valid = valid_frames(lengths, x.shape[1])
        hidden = None
        if valid is not None:
            hidden = torch.zeros_like(valid).masked_fill_(valid == 0, float("-inf")).mT[:, None]  # [B, 1, 1, T]
        outputs: list[Tensor] = []
        for layer in self.layers[:layers]:
            x = layer(x, valid, hidden)
            outputs.append(x)
        return SpeechFrames(outputs, lengths, hidden)

    def pooled(self, frames: SpeechFrames) -> Tensor:
        """The concept of each utterance: [B, C] float32."""
        hidden = None if frames.hidden_keys is None else frames.hidden_keys[:, 0]
        return self.pooler(frames.layers[-1], hidden)


def valid_frames(lengths: Tensor, total: int) -> Tensor | None:
    """[B, total, 1] float32: 1 for a frame, 0 for padding; None if there is no padding."""
    if bool((lengths >= total).all()):
        return None
    return (torch.arange(total, device=lengths.device) < lengths[:, None])[..., None].float()


def speech_encoder_from_part(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SpeechEncoder:
    """The encoder that a bundle's part `speech_encoder` holds, ready to encode."""
    encoder = SpeechEncoder(SpeechEncoderConfig(**config))
    encoder.load_state_dict(dict(tensors))
    return encoder.eval()
