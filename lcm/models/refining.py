"""Refining: what the trainings of models have in common that reach the next concept in several steps.

A step sees an unfinished concept (noisy, or made of fewer codebooks) and which step it is. Knows nothing of losses.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
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


def beside(read: ReadRows, free: Tensor, window: int) -> Tensor:
    """[B, 1, 2 T, 2 T]: what concepts, and behind them unfinished ones, see if one tower reads both.

    An unfinished concept stands one place behind the concept it follows: it sees what the next one would, which is
    clean, and itself; nobody sees it.
    """
    length = read.seen.shape[-1]
    index = torch.arange(length, device=read.seen.device)
    near = index[None] > index[:, None] + 1 - window
    seen_next = read.seen & near & ~free[:, None, :, None]
    itself = torch.eye(length, dtype=torch.bool, device=read.seen.device).expand_as(read.seen)
    clean = torch.cat([read.seen, torch.zeros_like(read.seen)], dim=-1)
    return torch.cat([clean, torch.cat([seen_next, itself], dim=-1)], dim=-2)


def places(length: int, device: torch.device) -> Tensor:
    """[2 T] positions of concepts and of the unfinished ones behind them."""
    index = torch.arange(length, device=device)
    return torch.cat([index, index + 1])
