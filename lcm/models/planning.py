"""Planning LCM: One-Tower on texts in which each paragraph follows its plan concept and ends in a break [LCM §4, LPCM].

A plan concept is a sentence of the paragraph that stands for it (`lcm/planning.py`); a break is the concept that says
nothing, the median of all. Both are told apart from sentences by their roles. Knows nothing of how texts are prepared.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lcm.models.one_tower import OneTower, OneTowerConfig
from lcm.models.turns import ROLE_NARRATOR, ROLES
from lcm.planning import paragraph_starts, plan_concept, planned_starts

ROLE_PLAN, ROLE_BREAK = ROLES, ROLES + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningConfig(OneTowerConfig):
    """Sizes of the tower."""

    roles: int = field(default=ROLES + 2, metadata={"least": ROLES + 2})


class Planning(OneTower):
    """Reads, plans and denoises."""

    config: PlanningConfig

    @property
    def break_concept(self) -> Tensor:
        """[C]: what ends a paragraph."""
        return self.normalizer.centre


def with_plans(paragraphs: Sequence[Tensor], break_concept: Tensor) -> tuple[Tensor, Tensor]:
    """Paragraphs [N, C] each, N ≥ 1, as these models read them: concepts [T, C] and roles [T], the last one closed."""
    parts = [torch.cat([told[plan_concept(told)][None], told, break_concept[None]]) for told in paragraphs]
    roles = [[ROLE_PLAN, *[ROLE_NARRATOR] * len(told), ROLE_BREAK] for told in paragraphs]
    return torch.cat(parts), torch.tensor(list(itertools.chain(*roles)))


def planned_story(
    story: Tensor, break_concept: Tensor, starts: Sequence[int] | None = None
) -> tuple[Tensor, Tensor, int]:
    """A story [T, C], T ≥ 1, as these models read it, its last paragraph open, and how many sentences that has.

    Its own paragraphs begin at `starts`; None: nobody knows, and they are guessed.
    """
    paragraphs = known_paragraphs(story, paragraph_starts(story) if starts is None else starts)
    concepts, roles = with_plans(paragraphs, break_concept)
    return concepts[:-1], roles[:-1], len(paragraphs[-1])


def known_paragraphs(story: Tensor, starts: Sequence[int]) -> list[Tensor]:
    """Those of a story [T, C] as these models have learnt paragraphs, from where its own begin."""
    known = [*planned_starts(story, starts), len(story)]
    return [story[start:end] for start, end in itertools.pairwise(known)]
