"""Metrics of concepts [LCM §3.1]: predictions beside what really came next in, one value an item out.

l2           Euclidean distance to the truth
ca           contrastive accuracy: the share of the other sentences of the batch that lie farther from the prediction
             than the truth does; neither the truth nor its two neighbours count. A batch holds stretches of documents,
             so most of the others that matter are of the same document
par          paraphrasing: the prediction's greatest cosine to the context, relative to the truth's
Knows nothing of words or models.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.training.concepts import ConceptTable, Ints
from lcm.training.hits import GROUPS
from lcm.training.intervals import Floats
from lcm.training.reply_items import ReplyItems

WINDOW = 128
"""Sentences at which documents are wrapped, as the paper trains"""
CONTRAST_SENTENCES = 512
_PAR_FLOOR = 0.05
"""a truth that is at right angles to its whole context says nothing about paraphrasing: left out"""


@dataclass(frozen=True, slots=True, eq=False)
class ContrastBatch:
    """Some items and every sentence of the stretches of documents that they are from."""

    items: Ints  # [n]
    sentences: Ints  # [P] rows of the table
    counted: Tensor  # [n, P] bool: neither the item's truth nor a neighbour


@dataclass(frozen=True, slots=True, eq=False)
class Truths:
    """What the predictions are compared with, looked up once."""

    items: ReplyItems
    table: ConceptTable
    concepts: Tensor  # [N, C]
    contexts: tuple[Ints, ...]  # N of rows [T]
    nearness: Tensor  # [N] of the truth to its context
    batches: tuple[ContrastBatch, ...]
    groups: np.ndarray[Any, np.dtype[np.str_]]  # [N]
    documents: Ints  # [N]

    @classmethod
    def of(cls, items: ReplyItems, table: ConceptTable, context: int) -> "Truths":
        """The paraphrased context is the latest `context` sentences, those that a model reads."""
        concepts = table.of(np.array([items.truth(item) for item in items.items]))
        contexts = tuple(items.context(item, context)[0] for item in items.items)
        return cls(
            items,
            table,
            concepts,
            contexts,
            nearness(concepts, contexts, table),
            tuple(contrast_batches(items)),
            np.array([item.group for item in items.items]),
            np.array([item.document for item in items.items]),
        )


def concept_values(predicted: Tensor, truths: Truths) -> dict[str, Floats]:
    """Each metric of each prediction [N, C]: `l2`, `ca`, `par` (NaN where it says nothing), `cosine`, `norm`."""
    measures = {
        "l2": (predicted - truths.concepts).norm(dim=1),
        "ca": 100 * contrastive_accuracy(predicted, truths),
        "par": torch.where(
            truths.nearness > _PAR_FLOOR,
            nearness(predicted, truths.contexts, truths.table) / truths.nearness,
            torch.nan,
        ),
        "cosine": F.cosine_similarity(predicted, truths.concepts),
        "norm": predicted.norm(dim=1),
    }
    return {name: values.double().numpy() for name, values in measures.items()}


def variance_share(predicted: Tensor, truths: Tensor) -> float:
    """How spread out the predictions are, relative to the truths [N, C]: a mean of what may come is less so."""
    return float(predicted.var(dim=0).sum() / truths.var(dim=0).sum())


def nearness(concepts: Tensor, contexts: tuple[Ints, ...], table: ConceptTable) -> Tensor:
    """The greatest cosine of each concept [N, C] to its context: [N]."""
    unit = F.normalize(concepts, dim=1)
    near = torch.empty(len(concepts))
    for start in range(0, len(concepts), CONTRAST_SENTENCES):
        chunk = contexts[start : start + CONTRAST_SENTENCES]
        counts = [len(rows) for rows in chunk]
        past = F.normalize(table.of(np.concatenate(chunk)), dim=1)
        owner = torch.arange(start, start + len(chunk)).repeat_interleave(torch.tensor(counts))
        cosines = (past * unit[owner]).sum(dim=1)
        near[start : start + len(chunk)] = torch.stack([of_one.max() for of_one in cosines.split(counts)])
    return near


def contrastive_accuracy(predicted: Tensor, truths: Truths) -> Tensor:
    """The share of each item's counted sentences that lie farther away than its truth: [N]."""
    shares = torch.full((len(predicted),), torch.nan)
    for batch in truths.batches:
        items = torch.from_numpy(batch.items)
        own = (predicted[items] - truths.concepts[items]).norm(dim=1, keepdim=True)
        distances = torch.cdist(predicted[items], truths.table.of(batch.sentences))
        farther = (distances > own) & batch.counted
        shares[items] = farther.sum(dim=1) / batch.counted.sum(dim=1)
    return shares


def contrast_batches(items: ReplyItems, size: int = CONTRAST_SENTENCES) -> list[ContrastBatch]:
    """Stretches of at most 128 sentences that hold items, `size` sentences a batch or more, each group apart."""
    stretches: dict[tuple[str, int, int], list[int]] = {}
    for number, item in enumerate(items.items):
        stretches.setdefault((item.group, item.document, item.at // WINDOW), []).append(number)
    batches: list[ContrastBatch] = []
    for group in GROUPS:
        own = sorted(place for place in stretches if place[0] == group)
        own = [own[i] for i in np.random.default_rng(0).permutation(len(own))]
        spans = [_stretch(items, document, window) for _, document, window in own]
        count = max(1, sum(len(span) for span in spans) // size)
        for chosen in np.array_split(np.arange(len(own)), count) if own else []:
            numbers = [number for i in chosen for number in stretches[own[i]]]
            batches.append(_batch(items, numbers, np.concatenate([spans[i] for i in chosen])))
    return batches


def _stretch(items: ReplyItems, document: int, window: int) -> Ints:
    """Places in `documents.sentences`."""
    rows = items.documents.rows(document)
    start = rows.start + window * WINDOW
    return np.arange(start, min(start + WINDOW, rows.stop))


def _batch(items: ReplyItems, numbers: list[int], places: Ints) -> ContrastBatch:
    """A sentence of the truth's very words is the truth."""
    sentences = items.documents.sentences[places].astype(np.int64)
    asked = [items.items[number] for number in numbers]
    at = np.array([items.documents.starts[item.document] + item.at for item in asked])
    document = np.searchsorted(items.documents.starts, places, side="right") - 1
    beside = np.abs(places[None] - at[:, None]) <= 1
    beside &= document[None] == np.array([item.document for item in asked])[:, None]
    same = sentences[None] == np.array([items.truth(item) for item in asked])[:, None]
    return ContrastBatch(np.array(numbers), sentences, torch.from_numpy(~beside & ~same))
