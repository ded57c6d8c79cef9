"""Continuation: a story's concepts in, what the narrator tells next out: its sentences, or its plan. Knows no words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.engine import MAX_CONCEPTS, REPEAT_COSINE, ROLE_NARRATOR, Engine
from lcm.planning import plan_concept

_SEED_STEP = 1_000_003
"""between the seeds of two paragraphs, so that neighbouring seeds of callers share none"""


@dataclass(frozen=True, slots=True, eq=False)
class ToldConcept:
    """One sentence of a continuation."""

    concept: Tensor  # [C]
    paragraph: int
    """0 is the one that the context leaves open"""


def continuation(engine: Engine, story: Tensor, sentences: int, seed: int = 0) -> Iterator[ToldConcept]:
    """Go on telling a story [T, C], T ≥ 1.

    A narrator's turn is a paragraph: where the model ends one, the next begins, until there are `sentences`, or the
    model would say the same again.

    Raises:
        ContextError: as `Engine.predict`.
    """
    told, paragraph = 0, 0
    while told < sentences:
        latest = story[-engine.context :]
        roles = torch.full((len(latest),), ROLE_NARRATOR)
        most = min(sentences - told, MAX_CONCEPTS)
        [turn] = engine.predict([latest], [roles], max_concepts=most, seeds=[seed + _SEED_STEP * paragraph])
        if told and float(F.cosine_similarity(turn[0], latest[-1], dim=0)) >= REPEAT_COSINE:
            return
        for concept in turn:
            yield ToldConcept(concept, paragraph)
        story = torch.cat([latest, turn])
        told, paragraph = told + len(turn), paragraph + 1


def plan(engine: Engine, paragraphs: Sequence[Tensor], ahead: int, seed: int = 0) -> Tensor:
    """The plan concepts [n, C], n ≤ `ahead`, of the paragraphs that come after these ([N, C] each).

    The plans so far are told as a story of their own, which any variant continues.

    Raises:
        ContextError: as `Engine.predict`.
    """
    outline = torch.stack([paragraph[plan_concept(paragraph)] for paragraph in paragraphs])
    return torch.stack([told.concept for told in continuation(engine, outline, ahead, seed)])
