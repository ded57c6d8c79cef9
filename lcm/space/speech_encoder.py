"""Speech encoder: filter banks in, concepts out, in the space of the text encoder that taught it.

Conformers hear phones, a CTC head names them, and a reader built as the text encoder is makes a concept of what was
named [phones as tokens: Gaido et al. 2021, arXiv 2102.01578]. SONAR pools the conformers' frames straight into a
concept [SONAR §4.2]; that takes far more speech than is at hand here, while the reader can also learn from phonemised
text (docs/LOG.md). Knows nothing of waveforms, languages or training.

Shapes: B batch, F frames of 10 ms, T frames of 40 ms, L heard phones, P phones and blank, D model width, C concept
width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm.space.conformer import ConformerLayer, convolved
from lcm.space.layers import EncoderLayer, key_bias, sinusoidal_positions
from lcm.space.text_encoder import AttentionPooling

SUBSAMPLING = 4
BLANK = 0
MOST_PHONES = 1_024
"""More than there are frames in an utterance of 40 s"""


@dataclass(frozen=True, slots=True)
class SpeechEncoderConfig:
    """Sizes of a speech encoder."""

    mel_bins: int = 80
    dim: int = 256
    layers: int = 4
    heads: int = 4
    ffn_dim: int = 704
    kernel: int = 15
    reach: int = 64
    """Frames of 40 ms between which attention still tells distances apart"""
    phones: int = 73
    """With the blank"""
    reader_layers: int = 4
    reader_ffn_dim: int = 1_024
    pooling_queries: int = 2
    concept_dim: int = 512
    dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class SpeechFrames:
    """What the conformers make of a batch of utterances."""

    hidden: Tensor  # [B, T, D]
    phones: Tensor  # [B, T, P] logits
    lengths: Tensor  # [B] valid frames


class Subsampling(nn.Module):
    """Two convolutions of stride 2: frames of 10 ms → frames of 40 ms."""

    def __init__(self, mel_bins: int, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(mel_bins, dim, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(dim, dim, 3, stride=2, padding=1)
        self.layer_norm = nn.LayerNorm(dim)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[B, F, mel bins] and [B] → [B, T, D] and [B]."""
        x = F.silu(convolved(features.to(self.conv1.weight.dtype), self.conv1))
        lengths = (lengths + 1) // 2
        valid = valid_frames(lengths, x.shape[1])  # or the second convolution would see what stands past the end
        x = x if valid is None else x * valid.to(x.dtype)
        return self.layer_norm(convolved(x, self.conv2)), (lengths + 1) // 2


class PhoneReader(nn.Module):
    """Phones [B, L, D] → concepts [B, C]: the text encoder's layers over phones instead of pieces of words."""

    positions: Tensor

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.phones, config.dim)
        nn.init.normal_(self.embed.weight)
        self.register_buffer("positions", sinusoidal_positions(MOST_PHONES, config.dim), persistent=False)
        self.layers = nn.ModuleList(
            EncoderLayer(config.dim, config.heads, config.reader_ffn_dim, config.dropout)
            for _ in range(config.reader_layers)
        )
        self.layer_norm = nn.LayerNorm(config.dim)
        self.pooler = AttentionPooling(config.dim, config.pooling_queries, config.concept_dim)

    def embedded(self, posteriors: Tensor) -> Tensor:
        """[B, L, P] probabilities → [B, L, D]: the expected embedding."""
        return posteriors.to(self.embed.weight.dtype) @ self.embed.weight

    def forward(self, phones: Tensor, lengths: Tensor) -> Tensor:
        """[B, L, D] and [B] → [B, C] float32."""
        x = phones + self.positions[: phones.shape[1]].to(phones.dtype)
        padding = torch.arange(phones.shape[1], device=lengths.device) >= lengths[:, None]
        hidden_keys = key_bias(padding) if bool(padding.any()) else None
        for layer in self.layers:
            x = layer(x, hidden_keys)
        return self.pooler(self.layer_norm(x), None if hidden_keys is None else padding)


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
        self.phone_head = nn.Linear(config.dim, config.phones)
        self.detail = nn.Linear(config.dim, config.dim)
        nn.init.zeros_(self.detail.weight)  # the reader begins with phones alone
        nn.init.zeros_(self.detail.bias)
        self.reader = PhoneReader(config)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """[B, F, 80], zero past each utterance's `lengths` [B] → [B, C] float32."""
        return self.read(self.frames(features, lengths))

    def frames(self, features: Tensor, lengths: Tensor) -> SpeechFrames:
        """What is heard in each frame."""
        x, lengths = self.subsampling(features, lengths)
        valid = valid_frames(lengths, x.shape[1])
        hidden_keys = None if valid is None else key_bias(valid[..., 0] == 0)
        for layer in self.layers:
            x = layer(x, valid, hidden_keys)
        return SpeechFrames(x, self.phone_head(x), lengths)

    def read(self, frames: SpeechFrames) -> Tensor:
        """The concept of each utterance, [B, C] float32, from one token for each phone on the best CTC path.

        A token is the mean over the phone's frames: its expected embedding, and what the frames hold beside it.
        """
        posteriors = frames.phones.float().softmax(dim=2)
        tokens = self.reader.embedded(posteriors) + self.detail(frames.hidden)
        return self.reader(*mean_over_runs(tokens, frames.phones.argmax(dim=2), frames.lengths))


def mean_over_runs(x: Tensor, path: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of `x` [B, T, D] over each run of one label in `path` [B, T] → [B, L, D] and their number [B].

    Blanks are left out [Gaido et al. 2021, arXiv 2102.01578]. Where nothing but blanks was heard all frames are one
    run: every utterance has a concept.
    """
    inside = torch.arange(path.shape[1], device=path.device) < lengths[:, None]
    heard = (path != BLANK) & inside
    begins = heard & (path != F.pad(path[:, :-1], (1, 0), value=BLANK))
    runs, numbers = begins.sum(dim=1), begins.cumsum(dim=1) - 1
    heard = heard | (inside & (runs == 0)[:, None])
    runs = runs.clamp_min(1)
    # A matrix product instead of scattering: the same sums in the same order, alone or in a batch.
    of_run = (numbers.clamp_min(0)[:, None] == torch.arange(int(runs.max()), device=x.device)[:, None]) & heard[:, None]
    weights = of_run / of_run.sum(dim=2, keepdim=True).clamp_min(1)
    return weights.to(x.dtype) @ x, runs


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
