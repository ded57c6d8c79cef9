"""Negatives: training documents in, sentences that a prediction is told apart from out.

Of dialogues the first sentences of replies, of stories all but the first. Drawn by corpus: of one that holds a
hundredth of what another does, a tenth as many. Evenly over all, small corpora would hardly meet their like. Knows
nothing of models.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from lcm.models.turns import ROLE_NARRATOR
from lcm.training.concepts import Documents


@dataclass(frozen=True, slots=True)
class Negatives:
    """Rows of the concept table, and how likely each is to be drawn."""

    rows: Tensor  # [N], as often as they were said
    up_to: Tensor  # [N] the chance of this one or one before it

    @classmethod
    def of(cls, documents: Documents) -> Self:
        """Those of the training documents."""
        follows = np.ones(len(documents.sentences), dtype=bool)
        follows[documents.starts[:-1]] = False
        changes = np.append(True, documents.roles[1:] != documents.roles[:-1])
        at = np.flatnonzero(follows & (changes | (documents.roles == ROLE_NARRATOR)))
        corpora = np.repeat(documents.corpora, np.diff(documents.starts))[at]
        shares = np.bincount(corpora, minlength=1)[corpora] ** -0.5
        rows = torch.from_numpy(documents.sentences[at].astype(np.int64))
        return cls(rows, torch.from_numpy(np.cumsum(shares) / max(shares.sum(), 1e-9)))

    def draw(self, count: int) -> Tensor:
        """[count] rows of the concept table, by torch's seed; none where nobody replies and nothing is told."""
        if not len(self.rows):
            return self.rows
        chances = torch.rand(count, dtype=torch.float64)
        return self.rows[torch.searchsorted(self.up_to, chances).clamp_max(len(self.rows) - 1)]
