"""Predictors: questions about held-out documents in, a concept for each out. What every metric is asked of.

A model and a look-up are asked the same way. Knows nothing of metrics.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.engine import ROLE_NARRATOR, Engine, NextConcept
from lcm.models.planning import Planning, planned_story
from lcm.models.tower import Tower
from lcm.training.concepts import ConceptRows, Documents
from lcm.training.reply_items import ReplyItems

BATCH = 128
_MEAN_OF = 20_000


class Predictor(Protocol):
    """Says what comes next."""

    @property
    def name(self) -> str:
        """What the figures stand under."""
        ...

    def predictions(self, items: ReplyItems, seed: int) -> Tensor:
        """[N, C], one an item; the same for the same seed."""
        ...


class EnginePredictor:
    """A concept model."""

    def __init__(self, engine: Engine, table: ConceptRows, name: str | None = None) -> None:
        self.name = name or engine.variant
        self._engine, self._table = engine, table

    def predictions(self, items: ReplyItems, seed: int) -> Tensor:
        """Every item has noise of its own."""
        count = len(items.items)
        return predictions(self._engine, self._table, items, [seed * count + number for number in range(count)])


class CopyLast:
    """What was said last, again."""

    name = "copy_last"

    def __init__(self, table: ConceptRows) -> None:
        self._table = table

    def predictions(self, items: ReplyItems, seed: int) -> Tensor:
        """[N, C]."""
        return self._table.of(np.array([items.context(item, 1)[0][0] for item in items.items]))


class MeanConcept:
    """The mean of the training sentences, always."""

    name = "mean_concept"

    def __init__(self, training: Documents, table: ConceptRows) -> None:
        sample = np.sort(np.random.default_rng(0).choice(training.sentences, _MEAN_OF))
        self._mean = table.of(sample).mean(dim=0)

    def predictions(self, items: ReplyItems, seed: int) -> Tensor:
        """[N, C]."""
        return self._mean.repeat(len(items.items), 1)


def predictions(engine: Engine, table: ConceptRows, items: ReplyItems, seeds: Sequence[int] | None = None) -> Tensor:
    """The next concept after each item's context: [N, C]."""
    return torch.stack([step.concept for step in next_concepts(engine, table, items, seeds)])


def queries(steps: Sequence[NextConcept]) -> Tensor:
    """What each step chooses among sentences by, as `Engine.keys` has theirs: [N, K]."""
    return torch.stack([F.normalize(s.concept, dim=0) if s.query is None else s.query for s in steps])


def next_concepts(
    engine: Engine, table: ConceptRows, items: ReplyItems, seeds: Sequence[int] | None = None
) -> list[NextConcept]:
    """What follows each item's context; contexts of a length are read together."""
    seeds = [0] * len(items.items) if seeds is None else seeds
    steps: dict[int, NextConcept] = {}
    contexts = [items.context(item, engine.context) for item in items.items]
    order = sorted(range(len(contexts)), key=lambda i: len(contexts[i][0]))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        told = [_as_read(engine.model, table.of(contexts[i][0]), torch.from_numpy(contexts[i][1])) for i in rows]
        concepts, roles = zip(*told, strict=True)
        steps |= zip(rows, engine.predict_next(concepts, roles, [seeds[i] for i in rows]), strict=True)
    return [steps[i] for i in range(len(contexts))]


def _as_read(model: Tower, concepts: Tensor, roles: Tensor) -> tuple[Tensor, Tensor]:
    """A context as the model learnt to read it: a planning model's stories hold plans."""
    if isinstance(model, Planning) and bool((roles == ROLE_NARRATOR).all()):
        return planned_story(concepts, model.break_concept.cpu())[:2]
    return concepts, roles
