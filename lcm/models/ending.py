"""Ending: concepts in, whether each ends the text out.

Meta's models append the sentence "End of text." to every document, and stop where they predict its concept
[LCM §2.4.2]: what models without turns have for a stop head. Its concept is told with the weights of those that have
learnt it; others end nowhere by this rule. Knows nothing of words.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

END_COSINE = 0.9
"""[LCM §2.4.2]"""


class Ending(nn.Module):
    """The concept that ends a text, where it is known."""

    concept: Tensor | None  # [C]

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("concept", None)

    def forward(self, concepts: Tensor) -> Tensor:
        """[..., C] → [...], bool."""
        if self.concept is None:
            return torch.zeros(concepts.shape[:-1], dtype=torch.bool, device=concepts.device)
        return F.cosine_similarity(concepts.float(), self.concept.float(), dim=-1) >= END_COSINE

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """Make room where the weights tell it."""
        if self.concept is None and (told := state_dict.get(f"{prefix}concept")) is not None:
            self.concept = torch.zeros(self.dim, device=told.device)
        super()._load_from_state_dict(state_dict, prefix, *others)
