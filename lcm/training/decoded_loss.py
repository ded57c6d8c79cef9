"""Objective through the decoder: cross-entropy of the true next sentence, told the predicted concept [SONAR-LLM, 2025].

The decoder is frozen; the gradient goes through it into the concept: what counts is what will be said, not how near the
concept is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.loader import Settings
from lcm.bundle import Bundle, fitting
from lcm.models.base_lcm import BaseLcm
from lcm.models.tower import Tower
from lcm.space.text_decoder import TextDecoder, TextDecoderConfig
from lcm.space.tokenizer import PAD, Tokenizer
from lcm.training.bounds import Count, NotNegative
from lcm.training.concept_shards import ShardedTexts
from lcm.training.endings import END_OF_TEXT
from lcm.training.objective import Batch, heard, squares, stop_loss


class DecodedLoss(Settings):
    """Weights, and how much is decoded."""

    sentences: Count = 300
    """of a step, drawn by lot, that the decoder is asked about"""
    longest: Count = 40
    """tokens of a sentence; the rest of a longer one is left out"""
    distance_weight: NotNegative = 0.1
    stop_weight: NotNegative = 0.1
    input_noise: NotNegative = 0.3


@dataclass(frozen=True, slots=True)
class Speaker:
    """A frozen decoder, its tokenizer, and what each row of the concept table says."""

    decoder: TextDecoder
    tokenizer: Tokenizer
    texts: ShardedTexts

    @classmethod
    def of(cls, bundle: Bundle, texts: ShardedTexts, device: torch.device) -> "Speaker":
        """The decoder of a bundle.

        Raises:
            BundleError: the bundle's decoder is missing, damaged, or does not fit.
        """
        part = bundle.part("text_decoder")
        with fitting(part):
            decoder = TextDecoder(TextDecoderConfig(**part.config))
            weights = part.tensors() | {"embed.weight": bundle.part("text_encoder").tensors()["embed.weight"]}
            decoder.load_state_dict(weights)
        languages = bundle.languages["text"]
        tokenizer = Tokenizer.from_file(bundle.tokenizer_path(), languages)
        return cls(decoder.to(device).eval().requires_grad_(False), tokenizer, texts)

    def cross_entropy(self, concepts: Tensor, rows: Sequence[int], longest: int) -> Tensor:
        """Mean cross-entropy [M] of the tokens of the table's `rows`, told the concepts [M, C]."""
        said = self.texts.of(row for row in rows if row < len(self.texts))
        tokens = [self._tokens(*said.get(row, END_OF_TEXT), longest) for row in rows]  # which is the row after the last
        padded = torch.full((len(tokens), max(map(len, tokens))), PAD)
        for index, ids in enumerate(tokens):
            padded[index, : len(ids)] = torch.tensor(ids)
        padded = padded.to(concepts.device)
        hidden = self.decoder.hidden(concepts, padded[:, :-1])
        wanted = padded[:, 1:].clone()
        wanted[:, 0] = PAD  # the language is no news
        known = wanted != PAD
        wrong = torch.zeros(known.shape, device=concepts.device)
        logits = self.decoder.logits(hidden[known]).float()
        wrong[known] = F.cross_entropy(logits, wanted[known], reduction="none")
        return wrong.sum(dim=1) / known.sum(dim=1)

    def _tokens(self, language: str, text: str, longest: int) -> list[int]:
        ids = [*self.tokenizer.encode(text), self.tokenizer.eos]
        return [*self.tokenizer.target_prefix(language), *ids[:longest]]


@dataclass(frozen=True, slots=True)
class DecodedObjective:
    """Cross-entropy, distance and stop."""

    settings: DecodedLoss
    speaker: Speaker

    def __call__(self, model: Tower, batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss."""
        assert isinstance(model, BaseLcm)
        settings, known = self.settings, batch.known
        rows = batch.rows.rows(batch.mine)
        read = heard(model, batch, settings.input_noise)
        # Drawn before the model's dropout, which draws more where there are more rows: every process asks the same.
        asked = batch.by_lot(settings.sentences)
        x = model(read, rows.turns, rows.mask(model.config.context))
        predicted = model.predicted(x, rows.asked)
        mine = asked[batch.mine]
        cross_entropy = x.new_zeros((), dtype=torch.float32)
        if bool(mine.any()):
            concepts = model.normalizer.inverse(predicted[mine])
            wrong = self.speaker.cross_entropy(concepts, rows.targets[mine].tolist(), settings.longest)
            cross_entropy = wrong.sum() / asked.sum()
        distance = squares(model, predicted[known], batch.targets[batch.mine][known])
        terms = {"cross_entropy": cross_entropy, "distance": batch.mean(distance), "stop": stop_loss(model, batch, x)}
        weights = (1.0, settings.distance_weight, settings.stop_weight)
        terms["loss"] = sum((w * t for w, t in zip(weights, terms.values(), strict=True)), x.new_zeros(()))
        return terms
