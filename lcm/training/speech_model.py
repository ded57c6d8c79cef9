"""What a run of the speech encoder trains: its settings, the encoder's sizes, the optimisers of its weights.

Knows nothing of data or losses.
"""

import torch

from lcm.space.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from lcm.training.muon import muon_and_adamw
from lcm.training.phones import LABELS
from lcm.training.speech_batches import SpeechMix
from lcm.training.weights import Schedule


class SpeechTraining(Schedule):
    """Everything about a run: sizes, data, loss, optimiser, length."""

    dim: int = 256
    layers: int = 4
    heads: int = 4
    ffn_dim: int = 704
    kernel: int = 15
    reader_layers: int = 4
    reader_ffn_dim: int = 1_024
    concept_dim: int = 512
    dropout: float = 0.0

    batch_seconds: float = 100.0
    real_share: float = 0.25
    flite_share: float = 0.05
    producers: int = 1

    reading_steps: int = 5_000
    """Steps in which the reader alone learns, from phonemised text, before it is joined with what hears"""
    reading_phones: int = 2_000
    """Phones of text a step, then and after"""
    misheard: float = 0.4
    """At most so many of them are wrong"""

    phone_weight: float = 1.0
    reading_weight: float = 0.5
    contrast_weight: float = 0.5
    temperature: float = 0.05
    bank: int = 16_000
    same_meaning: float = 0.95
    """Candidates closer than this to the true concept are no negatives"""

    matrix_lr: float = 0.007
    lr: float = 1e-3
    reading_rate: float = 3.0
    """Times the learning rates while the reader learns alone"""
    weight_decay: float = 0.01
    seed: int = 0
    checkpoint_every: int = 500
    evaluate_every: int = 2_000

    def encoder(self) -> SpeechEncoderConfig:
        """The encoder's sizes."""
        return SpeechEncoderConfig(
            dim=self.dim, layers=self.layers, heads=self.heads, ffn_dim=self.ffn_dim, kernel=self.kernel, phones=LABELS,
            reader_layers=self.reader_layers, reader_ffn_dim=self.reader_ffn_dim, concept_dim=self.concept_dim,
            dropout=self.dropout,
        )  # fmt: skip

    def mix(self) -> SpeechMix:
        """What the producers draw from."""
        return SpeechMix(
            batch_seconds=self.batch_seconds,
            pool_seconds=12 * self.batch_seconds,
            real_share=self.real_share,
            flite_share=self.flite_share,
        )


def optimisers(model: SpeechEncoder, config: SpeechTraining) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for everything else."""
    rates = {"matrix_lr": config.matrix_lr, "lr": config.lr, "weight_decay": config.weight_decay}
    return muon_and_adamw(model, lambda name: ".layers." in name and "relative_bias" not in name, **rates)
