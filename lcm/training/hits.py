"""Hits@1 of 20: predictions and multiple-choice questions in, how often the true sentence was chosen out.

Chosen by cosine. Knows nothing of models.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.training.concepts import ConceptRows
from lcm.training.intervals import Floats, estimate
from lcm.training.reply_items import ReplyItems

GROUPS = ("dialogue", "sgd", "story")
_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model (or baseline) says to all items."""

    hits: Floats  # [N] 1 right, 0 wrong, a share where it ties
    near_hits: Floats  # [N] against the same dialogue; NaN where there is no distractor


def answers(
    predicted: Tensor, items: ReplyItems, table: ConceptRows, keys: Callable[[Tensor], Tensor] | None = None
) -> Answers:
    """Choose by cosine to predictions [N, C]; given `keys`, by that of the candidates' keys to queries [N, K]."""
    unit = F.normalize(predicted, dim=1)
    keys = keys or (lambda concepts: F.normalize(concepts, dim=1))
    others = [(items.truth(item), *item.others) for item in items.items]
    near = [(items.truth(item), *item.near) if item.near else () for item in items.items]
    return Answers(_chosen(unit, others, table, keys), _chosen(unit, near, table, keys))


def _chosen(
    unit: Tensor, candidates: list[tuple[int, ...]], table: ConceptRows, keys: Callable[[Tensor], Tensor]
) -> Floats:
    """Whether the first of each item's candidates (rows of the table) is the nearest; NaN where there are none."""
    hits = np.full(len(candidates), np.nan)
    asked = [i for i, rows in enumerate(candidates) if rows]
    for start in range(0, len(asked), _CHUNK):
        chunk = asked[start : start + _CHUNK]
        counts = [len(candidates[i]) for i in chunk]
        concepts = keys(table.of(np.concatenate([candidates[i] for i in chunk])))
        owner = torch.tensor(chunk).repeat_interleave(torch.tensor(counts))
        cosines = (concepts * unit[owner]).sum(dim=1)
        hits[chunk] = [hit_share(scores.tolist()) for scores in cosines.split(counts)]
    return hits


def hit_share(scores: list[float]) -> float:
    """1 if the first score is the highest, 0 if another is higher, 1 / n if it shares the first place with n − 1."""
    best = max(scores)
    return 1.0 / scores.count(best) if scores[0] == best else 0.0


def hits_at_1(said: Answers, items: ReplyItems) -> dict[str, float]:
    """Per cent right, for each group and for each corpus of it."""
    names = np.array([items.documents.corpus(item.document) for item in items.items])
    kinds = np.array([item.group for item in items.items])
    labels = [(group, kinds == group) for group in GROUPS] + [(n, names == n) for n in sorted(set(names.tolist()))]
    return {label: 100 * float(said.hits[chosen].mean()) for label, chosen in labels if chosen.any()}


def hit_figures(said: Answers, items: ReplyItems) -> dict[str, Any]:
    """Hits@1 of 20 by group, with intervals and counts."""
    figures: dict[str, Any] = {"ci": {}, "n": {}, "same_dialogue": {}, "by_corpus": {}}
    documents = np.array([item.document for item in items.items])
    every = hits_at_1(said, items)
    for group in GROUPS:
        chosen = np.array([item.group == group for item in items.items])
        found = estimate(100 * said.hits[chosen], documents[chosen])
        if found is None:
            continue
        figures[group] = round(every.pop(group), 2)
        figures["ci"][group] = [round(found.low, 2), round(found.high, 2)]
        figures["n"][group] = found.count
        near = said.near_hits[chosen]
        if not np.isnan(near).all():
            figures["same_dialogue"][group] = round(100 * float(np.nanmean(near)), 2)
    figures["by_corpus"] = {name: round(value, 2) for name, value in every.items()}
    return figures
