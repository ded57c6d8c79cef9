"""Random conversations for tests of the models."""

import torch
from torch import Tensor

from lcm.models.tower import TowerConfig
from lcm.models.turns import Turns


def conversation(batch: int, length: int, dim: int) -> tuple[Tensor, Turns]:
    """Concepts [B, T, C] and who says them, the same every time."""
    generator = torch.Generator().manual_seed(1)
    concepts = torch.randn(batch, length, dim, generator=generator)
    return concepts, Turns.of(torch.randint(0, 2, (batch, length), generator=generator))


def part(turns: Turns, at: slice) -> Turns:
    """Some of the columns."""
    return Turns(turns.roles[:, at], turns.places[:, at])


def sliding(length: int, config: TowerConfig) -> Tensor:
    """[T, T]: what each concept sees of a conversation read at once."""
    index = torch.arange(length)
    return (index[None] <= index[:, None]) & (index[None] > index[:, None] - config.context)
