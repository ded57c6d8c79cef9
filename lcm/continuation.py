"""Continuation: a story's concepts in, what the narrator tells next out: its sentences, or its plan. Knows no words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.conversation import Conversation, following, read
from lcm.engine import MAX_CONCEPTS, REPEAT_COSINE, ROLE_NARRATOR, STOP_PROBABILITY, Engine
from lcm.models.planning import ROLE_BREAK, ROLE_PLAN, Planning
from lcm.planning import LONGEST_PARAGRAPH, plan_concept

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

    A planning model is asked for each plan where its paragraph would begin, and then tells the paragraph, from which
    the next plan follows. For any other the plans so far are a story of their own, which it continues.

    Raises:
        ContextError: as `Engine.predict`.
    """
    if isinstance(engine.model, Planning):
        return torch.stack(list(_planned(engine, engine.model.break_concept.cpu(), paragraphs, ahead, seed)))
    outline = torch.stack([paragraph[plan_concept(paragraph)] for paragraph in paragraphs])
    return torch.stack([told.concept for told in continuation(engine, outline, ahead, seed)])


def _planned(
    engine: Engine, break_concept: Tensor, paragraphs: Sequence[Tensor], ahead: int, seed: int
) -> Iterator[Tensor]:
    conversation = Conversation.of(engine)
    for paragraph in paragraphs:
        whole = torch.cat([paragraph[plan_concept(paragraph)][None], paragraph, break_concept[None]])
        roles = torch.tensor([ROLE_PLAN, *[ROLE_NARRATOR] * len(paragraph), ROLE_BREAK])
        read(engine, [conversation], [(whole, roles)])
    for number in range(ahead):
        draw = seed + _SEED_STEP * number
        yield _said(engine, conversation, ROLE_PLAN, draw)[0]
        for sentence in range(LONGEST_PARAGRAPH):
            _, ended = _said(engine, conversation, ROLE_NARRATOR, draw + 1 + sentence)
            if ended >= STOP_PROBABILITY:
                break
        read(engine, [conversation], [(break_concept[None], torch.tensor([ROLE_BREAK]))])


def _said(engine: Engine, conversation: Conversation, role: int, seed: int) -> tuple[Tensor, float]:
    """The next concept, read as said, and the probability that its paragraph ended with it."""
    [step] = following(engine, [conversation], [seed], speaker=role)
    [ended] = read(engine, [conversation], [(step.concept[None], torch.tensor([role]))])
    return step.concept, ended
