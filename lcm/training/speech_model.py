"""What a run of the speech encoder trains: its settings, the model with its phone head, the optimisers of its weights.

Knows nothing of data or losses.
"""

import torch
from torch import nn

from configs.loader import Settings
from lcm.space.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from lcm.training.muon import muon_and_adamw
from lcm.training.phones import LABELS
from lcm.training.speech_batches import SpeechMix


class SpeechTraining(Settings):
    """Everything about a run: sizes, data, loss, optimiser, length."""

    dim: int = 256
    layers: int = 6
    heads: int = 4
    ffn_dim: int = 704
    kernel: int = 15
    pooler_layers: int = 2
    pooler_heads: int = 8
    pooler_ffn_dim: int = 512
    concept_dim: int = 512
    dropout: float = 0.0

    batch_seconds: float = 100.0
    real_share: float = 0.25
    flite_share: float = 0.05
    producers: int = 1

    phone_layer: int = 4
    phone_weight: float = 0.3
    phone_weight_at_first: float = 1.0
    contrast_weight: float = 0.5
    temperature: float = 0.05
    bank: int = 16_000
    same_meaning: float = 0.95
    """Candidates closer than this to the true concept are no negatives"""

    matrix_lr: float = 0.02
    lr: float = 2e-3
    weight_decay: float = 0.01
    warmup_steps: int = 300
    phone_steps: int = 6_000
    """Steps at `phone_weight_at_first`"""
    steps: int = 200_000
    decay_steps: int = 0
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    checkpoint_every: int = 500
    evaluate_every: int = 2_000

    def encoder(self) -> SpeechEncoderConfig:
        """The encoder's sizes."""
        return SpeechEncoderConfig(
            dim=self.dim, layers=self.layers, heads=self.heads, ffn_dim=self.ffn_dim, kernel=self.kernel,
            pooler_layers=self.pooler_layers, pooler_heads=self.pooler_heads, pooler_ffn_dim=self.pooler_ffn_dim,
            concept_dim=self.concept_dim, dropout=self.dropout,
        )  # fmt: skip

    def mix(self) -> SpeechMix:
        """What the producers draw from."""
        return SpeechMix(
            batch_seconds=self.batch_seconds,
            pool_seconds=12 * self.batch_seconds,
            real_share=self.real_share,
            flite_share=self.flite_share,
        )


class SpeechModel(nn.Module):
    """The encoder and, for training alone, the head that reads phones."""

    def __init__(self, config: SpeechTraining) -> None:
        super().__init__()
        self.encoder = SpeechEncoder(config.encoder())
        self.phone_layer = config.phone_layer
        self.phones = nn.Linear(config.dim, LABELS)


def optimisers(model: SpeechModel, config: SpeechTraining) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for everything else."""
    rates = {"matrix_lr": config.matrix_lr, "lr": config.lr, "weight_decay": config.weight_decay}
    return muon_and_adamw(model, lambda name: ".layers." in name and "relative_bias" not in name, **rates)
