"""Baselines of next-concept prediction: what a look-up and common words already give. Knows nothing of models."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.models.turns import ROLE_NARRATOR
from lcm.training.concepts import ConceptTable, Documents
from lcm.training.data import key
from lcm.training.hits import hit_share
from lcm.training.reply_items import ReplyItem, ReplyItems

NEAREST_AMONG = 50_000
_WORDS_SEEN = 3


@dataclass(frozen=True, slots=True)
class NearestReply:
    """Training contexts' last sentences and what was replied: a `Predictor`."""

    table: ConceptTable
    heard: Tensor  # [N, C] unit
    replied: Tensor  # [N, C]
    name: str = "nearest_training_reply"

    @classmethod
    def of(cls, training: Documents, table: ConceptTable, seed: int = 0) -> "NearestReply":
        """Sampled from the training documents (stories: each sentence and the one after it)."""
        rng = np.random.default_rng(seed)
        inside = np.ones(len(training.sentences), dtype=bool)
        inside[training.starts[:-1]] = False
        narrated = training.roles == ROLE_NARRATOR
        changes = np.append(False, training.roles[1:] != training.roles[:-1])
        at = np.flatnonzero(inside & (changes | narrated))
        at = np.sort(rng.permutation(at)[:NEAREST_AMONG])
        heard = table.of(training.sentences[at - 1])
        return cls(table, F.normalize(heard, dim=1), table.of(training.sentences[at]))

    def predictions(self, items: ReplyItems, seed: int) -> Tensor:
        """[N, C]."""
        return self.replies(self.table.of(np.array([items.context(item, 1)[0][0] for item in items.items])))

    def replies(self, last: Tensor) -> Tensor:
        """[N, C] last sentences → the replies to the training sentences nearest to them."""
        nearest = [(F.normalize(rows, dim=1) @ self.heard.T).argmax(dim=1) for rows in last.split(256)]
        return self.replied[torch.cat(nearest)]


@dataclass(frozen=True, slots=True)
class BagOfWords:
    """Cosine of tf-idf weighted words between the last three sentences and each candidate."""

    idf: dict[str, float]
    unseen: float

    @classmethod
    def of(cls, training: Documents, table: ConceptTable, seed: int = 0) -> "BagOfWords":
        """Word statistics of 100,000 training sentences."""
        texts = table.texts()
        rows = np.random.default_rng(seed).choice(training.sentences, 100_000)
        counts = Counter(word for row in rows.tolist() for word in set(key(texts[row][1]).split()))
        idf = {word: math.log(len(rows) / count) for word, count in counts.items()}
        return cls(idf, math.log(len(rows)))

    def answers(self, items: ReplyItems, table: ConceptTable) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Hits and same-dialogue hits of every item."""
        texts = table.texts()

        def hit(item: ReplyItem, distractors: Sequence[int]) -> float:
            past = self._vector(" ".join(texts[row][1] for row in items.context(item, _WORDS_SEEN)[0].tolist()))
            candidates = [items.truth(item), *distractors]
            return hit_share([_cosine(past, self._vector(texts[row][1])) for row in candidates])

        hits = [hit(item, item.others) for item in items.items]
        near = [hit(item, item.near) if item.near else math.nan for item in items.items]
        return np.array(hits), np.array(near)

    def _vector(self, text: str) -> dict[str, float]:
        counts = Counter(key(text).split())
        return {word: n * self.idf.get(word, self.unseen) for word, n in counts.items()}


def _cosine(a: dict[str, float], b: dict[str, float]) -> float:
    dot = sum(weight * b[word] for word, weight in a.items() if word in b)
    norms = math.hypot(*a.values()) * math.hypot(*b.values())
    return dot / norms if norms else 0.0
