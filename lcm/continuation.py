"""Continuation: a story's concepts in, what the narrator tells next out: its sentences, or its plan. Knows no words."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.conversation import Conversation, following, read
from lcm.engine import REPEAT_COSINE, ROLE_NARRATOR, STOP_PROBABILITY, Engine, step_seed
from lcm.errors import ContextError
from lcm.models.planning import ROLE_BREAK, ROLE_PLAN, Planning, known_paragraphs, planned_story, with_plans
from lcm.planning import LONGEST_PARAGRAPH, plan_concept


@dataclass(frozen=True, slots=True, eq=False)
class ToldConcept:
    """One sentence of a continuation."""

    concept: Tensor  # [C]
    paragraph: int
    """0 is the one that the context leaves open"""


def continuation(
    engine: Engine, story: Tensor, sentences: int, seed: int = 0, starts: Sequence[int] | None = None
) -> Iterator[ToldConcept]:
    """Go on telling a story [T, C], T ≥ 1, all of which is read, until there are `sentences` more.

    A narrator's turn is a paragraph: where the model ends one, the next begins. It stops early where the model would
    end the text or say the same again. `starts` are where the story's paragraphs begin, for models that plan; None:
    nobody knows, and they are guessed.

    Raises:
        ContextError: as `Engine.predict`.
    """
    told: Iterator[ToldConcept]
    if isinstance(engine.model, Planning):
        if not len(story):
            raise ContextError("there is no story to go on with; give at least one concept")
        concepts, roles, known = planned_story(story, engine.model.break_concept.cpu(), starts)
        said = _planned(engine, concepts, roles, max(1, LONGEST_PARAGRAPH - known), seed)
        told = (told for role, told in said if role == ROLE_NARRATOR)
    else:
        told = _told(engine, story, seed)
    yield from itertools.islice(told, sentences)


def plan(engine: Engine, paragraphs: Sequence[Tensor], ahead: int, seed: int = 0) -> Tensor:
    """The plan concepts [n, C], n ≤ `ahead`, of the paragraphs that come after these ([N, C] each).

    A planning model is asked for each plan where its paragraph would begin, and then tells the paragraph, from which
    the next plan follows; it reads short paragraphs joined and long ones cut, as it has learnt them. For any other the
    plans so far are a story of their own, which it continues.

    Raises:
        ContextError: as `Engine.predict`.
    """
    if isinstance(engine.model, Planning):
        starts = itertools.accumulate(map(len, paragraphs[:-1]), initial=0)
        known = known_paragraphs(torch.cat(list(paragraphs)), list(starts))
        concepts, roles = with_plans(known, engine.model.break_concept.cpu())
        said = _planned(engine, concepts, roles, 0, seed)
        plans = (told.concept for role, told in said if role == ROLE_PLAN)
        return torch.stack(list(itertools.islice(plans, ahead)))
    outline = torch.stack([paragraph[plan_concept(paragraph)] for paragraph in paragraphs])
    following_plans = [told.concept[None] for told in continuation(engine, outline, ahead, seed)]
    return torch.cat([outline[:0], *following_plans])  # of a text that has ended none


def _told(engine: Engine, story: Tensor, seed: int) -> Iterator[ToldConcept]:
    """What a model without plans says next, one sentence after the other."""
    narrator = torch.tensor([ROLE_NARRATOR])
    conversation = Conversation.of(engine)
    read(engine, [conversation], [(story, narrator.expand(len(story)))])
    paragraph, latest = 0, None
    for number in itertools.count():
        [step] = following(engine, [conversation], [step_seed(seed, number)])
        if step.ends or (latest is not None and _same(step.concept, latest)):
            return
        latest = step.concept
        yield ToldConcept(latest, paragraph)
        [ended] = read(engine, [conversation], [(latest[None], narrator)])
        paragraph += ended >= STOP_PROBABILITY


def _planned(
    engine: Engine, concepts: Tensor, roles: Tensor, room: int, seed: int
) -> Iterator[tuple[int, ToldConcept]]:
    """What a planning model says next, without end: plans and sentences, by their roles.

    `room` is how many sentences the open paragraph may still have; 0: none is open. A paragraph that repeats
    itself ends, and with one that begins so the story.
    """
    assert isinstance(engine.model, Planning)
    nothing = engine.model.break_concept.cpu()[None], torch.tensor([ROLE_BREAK])
    conversation = Conversation.of(engine)
    read(engine, [conversation], [(concepts, roles)])
    seeds = (step_seed(seed, number) for number in itertools.count())
    latest: Tensor | None = None
    for paragraph in itertools.count():
        if paragraph or not room:
            planned, _ = _said(engine, conversation, ROLE_PLAN, next(seeds))
            yield ROLE_PLAN, ToldConcept(planned, paragraph)
            room = LONGEST_PARAGRAPH
        for number in range(room):
            concept, ended = _said(engine, conversation, ROLE_NARRATOR, next(seeds))
            if latest is not None and _same(concept, latest):
                if number:
                    break
                return
            latest = concept
            yield ROLE_NARRATOR, ToldConcept(concept, paragraph)
            if ended >= STOP_PROBABILITY:
                break
        read(engine, [conversation], [nothing])


def _said(engine: Engine, conversation: Conversation, role: int, seed: int) -> tuple[Tensor, float]:
    """The next concept, read as said, and the probability that its paragraph ended with it."""
    [step] = following(engine, [conversation], [seed], speaker=role)
    [ended] = read(engine, [conversation], [(step.concept[None], torch.tensor([role]))])
    return step.concept, ended


def _same(concept: Tensor, other: Tensor) -> bool:
    return float(F.cosine_similarity(concept, other, dim=0)) >= REPEAT_COSINE
