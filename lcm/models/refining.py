"""Refining: what the trainings of models have in common that reach the next concept in several steps.

A step sees an unfinished concept (noisy, or made of fewer codebooks) and which step it is. Knows nothing of losses.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from lcm.models.turns import Turns


@dataclass(frozen=True, slots=True)
class ReadRows:
    """Sequences read at once."""

    normalised: Tensor  # [B, T, C] concepts
    turns: Turns  # [B, T]
    asked: Turns  # [B, T] of the concept after each one
    seen: Tensor  # [B, 1, T, T] what each one sees


class Refines(Protocol):
    """A model that is trained step by step."""

    def refined(self, read: ReadRows, unfinished: Tensor, steps: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
        """The tower's output [B, T, D], and what it makes of the unfinished concept after each one.

        Args:
            read: the context.
            unfinished: [B, T, C] the concept after each one, normalised.
            steps: [B, T] which step it is at.
            free: [B, T] where the context is hidden from it.
        """
        ...
