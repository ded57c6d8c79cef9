"""Losses of the speech encoder: a batch and its lesson in, terms out. Know nothing of optimisers or schedules."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.space.speech_encoder import BLANK, SpeechEncoder
from lcm.training.phone_texts import PhoneBatch
from lcm.training.speech_batches import SpeechBatch
from lcm.training.speech_model import SpeechTraining


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the teacher gives for one batch."""

    targets: Tensor  # [B, C] unit vectors, the transcripts' concepts
    bank: Tensor  # [N, C] unit vectors, other sentences' concepts


def hearing_losses(
    model: SpeechEncoder, batch: SpeechBatch, lesson: Lesson | None, config: SpeechTraining
) -> dict[str, Tensor]:
    """What is heard in speech: the phones and, with a teacher, the concept."""
    device = model.phone_head.weight.device
    features, lengths = torch.from_numpy(batch.features).to(device), torch.from_numpy(batch.lengths).to(device)
    frames = model.frames(features.float(), lengths)
    terms = {"phones": phone_loss(frames.phones, frames.lengths, batch)}
    return terms if lesson is None else terms | concept_losses(model.read(frames), lesson, config)


def reading_losses(
    model: SpeechEncoder, batch: PhoneBatch, lesson: Lesson, config: SpeechTraining
) -> dict[str, Tensor]:
    """What is read in phonemised text: the concept."""
    device = model.phone_head.weight.device
    phones = model.reader.embedded(batch.posteriors.to(device))
    terms = concept_losses(model.reader(phones, batch.lengths.to(device)), lesson, config)
    return {f"read_{name}": term for name, term in terms.items()}


def concept_losses(concepts: Tensor, lesson: Lesson, config: SpeechTraining) -> dict[str, Tensor]:
    """How far [B, C] are from what the teacher says."""
    concepts = F.normalize(concepts, dim=1)
    return {
        "distance": (1 - (concepts * lesson.targets).sum(dim=1)).mean(),
        "contrast": bank_contrast(concepts, lesson, config.temperature, config.same_meaning),
    }


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
