"""Objective: what a variant learns from a batch. Here: what each is given, and what they have in common."""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.models.refining import ReadRows
from lcm.models.tower import Tower
from lcm.training.packing import PackedRows


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's rows, of which this process computes some; every process knows them all."""

    rows: PackedRows
    mine: slice
    """which rows this process computes"""
    concepts: Tensor  # [B, T, C] of all rows; zeros for padding
    targets: Tensor  # [B, T, C]
    negatives: Tensor  # [K] rows of the concept table of sentences from elsewhere; none where nothing is contrasted
    negative_concepts: Tensor  # [K, C]
    generator: torch.Generator | None = None
    """what all processes draw from alike, where there are several; torch's own draws for dropout, in each otherwise"""

    @property
    def known(self) -> Tensor:
        """[b, T] what of mine is no padding."""
        return self.rows.known[self.mine]

    def noise_like(self, whole: Tensor) -> Tensor:
        """Gaussian noise [b, …] for my rows of `whole` [B, …]: the same whatever process they fall to."""
        return torch.empty_like(whole).normal_(generator=self.generator)[self.mine]

    def uniform(self, *shape: int) -> Tensor:
        """Numbers of [0, 1) for my rows, [b, *shape]: the same whatever process they fall to."""
        device = self.concepts.device
        return torch.rand(len(self.concepts), *shape, device=device, generator=self.generator)[self.mine]

    def by_lot(self, count: int) -> Tensor:
        """[B, T]: about `count` of all that is no padding, the same in every process."""
        known = self.rows.known
        chances = torch.rand(known.shape, device=known.device, generator=self.generator)
        return known & (chances < count / known.sum())

    def mean(self, values: Tensor) -> Tensor:
        """My share of the mean over what every process computes, from one value [M] for each known concept of mine."""
        return values.sum() / self.rows.known.sum()


class Objective(Protocol):
    """The terms of the loss, and their sum under `loss`: my shares of means over the whole batch."""

    def __call__(self, model: Tower, batch: Batch) -> dict[str, Tensor]:
        """Of a model in training mode."""
        ...


def heard(model: Tower, batch: Batch, noise: float) -> Tensor:
    """My concepts [b, T, C], normalised, each row with noise of its own strength, up to `noise`."""
    normalised = model.normalizer(batch.concepts[batch.mine])
    return normalised + noise * batch.uniform(1, 1) * batch.noise_like(batch.concepts)


def read_rows(model: Tower, batch: Batch, noise: float) -> ReadRows:
    """My rows as a model that refines reads them; the noise as of `heard`."""
    rows = batch.rows.rows(batch.mine)
    return ReadRows(heard(model, batch, noise), rows.turns, rows.asked, rows.mask(model.config.context))


def stop_loss(model: Tower, batch: Batch, x: Tensor) -> Tensor:
    """Cross-entropy of each sentence ending its turn, from the tower's output [b, T, D]; 0 without turns."""
    if not model.config.turns:
        return x.new_zeros((), dtype=torch.float32)
    known = batch.known
    ends = batch.rows.last[batch.mine][known]
    wrong = F.binary_cross_entropy_with_logits(model.stops(x)[known], ends, reduction="none")
    return batch.mean(wrong)


def squares(model: Tower, predicted: Tensor, targets: Tensor) -> Tensor:
    """Mean square [M] between normalised predictions [M, C] and concepts [M, C]."""
    return (predicted - model.normalizer(targets)).square().mean(dim=1)
