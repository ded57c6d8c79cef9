"""Planning LCM: One-Tower on texts in which each paragraph follows its plan concept and ends in a break [LCM §4, LPCM].

A plan concept is a sentence of the paragraph that stands for it (`lcm/planning.py`); a break is the concept that says
nothing, the median of all. Both are told apart from sentences by their roles. Knows nothing of how texts are prepared.
"""

from dataclasses import dataclass

from torch import Tensor

from lcm.models.one_tower import OneTower, OneTowerConfig
from lcm.models.turns import ROLES

ROLE_PLAN, ROLE_BREAK = ROLES, ROLES + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningConfig(OneTowerConfig):
    """Sizes of the tower."""

    roles: int = ROLES + 2


class Planning(OneTower):
    """Reads, plans and denoises."""

    config: PlanningConfig

    @property
    def break_concept(self) -> Tensor:
        """[C]: what ends a paragraph."""
        return self.normalizer.centre
