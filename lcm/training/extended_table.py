"""Extended table: a concept table with one row more, which its training documents hold where it belongs."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lcm.training.concepts import ConceptTable, Documents, Ints


@dataclass(frozen=True, slots=True)
class ExtendedTable:
    """The row more is the one after the table's last."""

    table: ConceptTable
    concept: Tensor  # [C] of the row more
    rewritten: Callable[[Documents, ConceptTable], Documents]
    """training documents → those that hold it"""

    @property
    def space_id(self) -> str:
        """Of the concepts."""
        return self.table.space_id

    def of(self, rows: Ints) -> Tensor:
        """Concepts of rows [...] → [..., C] float32."""
        rows = np.asarray(rows)
        added = rows == len(self.table.concepts)
        found = self.table.of(np.where(added, 0, rows))
        found[torch.from_numpy(added)] = self.concept
        return found

    def documents(self, split: str) -> Documents:
        """Those of a split; of the training split rewritten."""
        documents = self.table.documents(split)
        return self.rewritten(documents, self.table) if split == "train" else documents
