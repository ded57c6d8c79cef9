"""Spoken language: what the conformers made of an utterance in, how likely each language is out.

One linear map of how often each phone was heard. It reads nothing else: frames also hold the room, the microphone and
the voice, and in training those tell the languages apart better than the language does (docs/LOG.md). Belongs to the
very encoder whose phones it learnt, which its configuration names by hash. Knows nothing of waveforms, of concepts, or
of which languages a session allows.

Shapes: B batch, T frames of 40 ms, P phones without the blank, L languages.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcm.bundle import Part, fitting
from lcm.errors import BundleError
from lcm.space.speech_encoder import BLANK, SpeechFrames

PART = "spoken_language"


@dataclass(frozen=True, slots=True)
class SpokenLanguageConfig:
    """Sizes of the head, and whose phones it has learnt."""

    languages: Sequence[str]
    phones: int
    """Without the blank"""
    encoder: Sequence[str]
    """SHA-256 of each shard of the speech encoder"""


class SpokenLanguage(nn.Module):
    """Frames of utterances → log-odds of the languages [B, L] float32."""

    def __init__(self, config: SpokenLanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.head = nn.Linear(config.phones, len(config.languages))

    def forward(self, frames: SpeechFrames) -> Tensor:
        """[B, L] float32."""
        return self.head(phone_shares(frames))


def phone_shares(frames: SpeechFrames) -> Tensor:
    """How much of each utterance each phone takes, [B, P] float32.

    Where nothing is heard but blanks, which between two phones is most of the time, the likeliest phones still count.
    """
    heard = frames.phones.float()[..., BLANK + 1 :].softmax(dim=2)
    inside = torch.arange(heard.shape[1], device=heard.device) < frames.lengths[:, None]
    return ((inside / frames.lengths[:, None])[:, None] @ heard)[:, 0]


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
