"""Losses of the speech encoder: a batch and its lesson in, terms out. Know nothing of optimisers or schedules."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.training.phones import BLANK
from lcm.training.speech_batches import SpeechBatch
from lcm.training.speech_model import SpeechModel, SpeechTraining


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the teacher gives for one batch."""

    targets: Tensor  # [B, C] unit vectors, the transcripts' concepts
    bank: Tensor  # [N, C] unit vectors, other sentences' concepts


def losses(model: SpeechModel, batch: SpeechBatch, lesson: Lesson | None, config: SpeechTraining) -> dict[str, Tensor]:
    """The terms of the loss, weighted ones under `loss` but for the phones' weight, which changes."""
    device = model.phones.weight.device
    features, lengths = torch.from_numpy(batch.features).to(device), torch.from_numpy(batch.lengths).to(device)
    frames = model.encoder.frames(features.float(), lengths, model.phone_layer if lesson is None else None)
    read = model.phones(frames.layers[model.phone_layer - 1])
    terms = {"phones": phone_loss(read, frames.lengths, batch)}
    if lesson is not None:
        concepts = F.normalize(model.encoder.pooled(frames), dim=1)
        terms["distance"] = (1 - (concepts * lesson.targets).sum(dim=1)).mean()
        terms["contrast"] = bank_contrast(concepts, lesson, config.temperature, config.same_meaning)
    return terms


def phone_loss(logits: Tensor, lengths: Tensor, batch: SpeechBatch) -> Tensor:
    """CTC per label of logits [B, T, P]; utterances without labels do not count."""
    counts = torch.from_numpy(batch.phone_counts).to(logits.device)
    labels = torch.from_numpy(batch.phones).to(logits.device)
    log_probabilities = logits.float().log_softmax(dim=2).transpose(0, 1)
    each = F.ctc_loss(log_probabilities, labels, lengths, counts, BLANK, reduction="none", zero_infinity=True)
    return torch.where(counts > 0, each, 0.0).sum() / counts.sum().clamp_min(1)


def bank_contrast(concepts: Tensor, lesson: Lesson, temperature: float, same_meaning: float) -> Tensor:
    """InfoNCE of [B, C] unit vectors: each one's target among all targets of the batch and the bank."""
    candidates = torch.cat([lesson.targets, lesson.bank])
    own = torch.arange(len(concepts), device=concepts.device)
    similarity = (concepts @ candidates.T).float() / temperature
    same = lesson.targets @ candidates.T > same_meaning
    same[own, own] = False
    return F.cross_entropy(similarity.masked_fill(same, float("-inf")), own)
