"""Spoken language: what the conformers made of an utterance in, how likely each language is out.

One linear map of statistics of the frames. Belongs to the very encoder whose frames it learnt, which its configuration
names by hash. Knows nothing of waveforms, of concepts, or of which languages a session allows.

Shapes as in `speech_encoder`: B batch, T frames of 40 ms, D model width, P phones and blank; L languages.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcm.bundle import Part, fitting
from lcm.errors import BundleError
from lcm.space.speech_encoder import SpeechFrames

PART = "spoken_language"


@dataclass(frozen=True, slots=True)
class SpokenLanguageConfig:
    """Sizes of the head, and whose frames it has learnt."""

    languages: Sequence[str]
    dim: int
    """Of the encoder's frames"""
    phones: int
    """With the blank"""
    encoder: Sequence[str]
    """SHA-256 of each shard of the speech encoder"""


class SpokenLanguage(nn.Module):
    """Frames of utterances → log-odds of the languages [B, L] float32."""

    def __init__(self, config: SpokenLanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.head = nn.Linear(2 * config.dim + config.phones, len(config.languages))

    def forward(self, frames: SpeechFrames) -> Tensor:
        """[B, L] float32."""
        return self.head(statistics(frames))


def statistics(frames: SpeechFrames) -> Tensor:
    """Mean and deviation of the frames, and how often each phone is heard: [B, 2 D + P] float32."""
    hidden, phones = frames.hidden.float(), frames.phones.float().softmax(dim=2)
    inside = (torch.arange(hidden.shape[1], device=hidden.device) < frames.lengths[:, None]).float()
    weights = (inside / inside.sum(dim=1, keepdim=True))[:, None]  # [B, 1, T]
    mean = weights @ hidden
    deviation = (weights @ (hidden - mean).square()).clamp_min(1e-8).sqrt()
    return torch.cat([mean, deviation, weights @ phones], dim=2)[:, 0]


def spoken_language_from_part(part: Part, encoder: Part) -> SpokenLanguage:
    """The head that a bundle holds, ready to use.

    Raises:
        BundleError: damaged, or it has learnt the frames of another speech encoder.
    """
    with fitting(part):
        config = SpokenLanguageConfig(**part.config)
    if list(config.encoder) != list(encoder.hashes):
        raise BundleError(
            f"{PART!r} of {part.folder} has learnt the frames of another speech encoder; train it again: "
            f"python -m scripts.train configs/training/spoken_language_mini.yaml --bundle {part.folder}"
        )
    with fitting(part):
        head = SpokenLanguage(config)
        head.load_state_dict(part.tensors())
    return head.eval()
