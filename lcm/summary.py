"""Summary: the concepts of a text in, those of its sentences that stand for the whole out. Knows no words.

Extractive and never trained for it: a sentence is kept for how near it lies to all others (degree centrality as in
LexRank [Erkan & Radev 2004, §3.1], here of cosines, without a threshold), for standing early, and for not repeating
what is kept already (maximal marginal relevance [Carbonell & Goldstein 1998, eq. 1]). Memory grows with the sentences,
not with their square.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.errors import ContextError


@dataclass(frozen=True, slots=True)
class SummaryOptions:
    """What counts for how much. The defaults are those that did best on dev stories (docs/LOG.md)."""

    early: float = 0.1
    """of standing at the very start, beside a centrality of 1; half of it is left a tenth of the text later"""
    diversity: float = 0.1
    """share of the nearest kept sentence's cosine in the score, 0 … 1"""


def kept_count(sentences: int, ratio: float) -> int:
    """How many of so many sentences a ratio keeps: rounded up, so at least one of any."""
    return min(sentences, math.ceil(sentences * ratio - 1e-9))


def summary(concepts: Tensor, count: int, options: SummaryOptions | None = None) -> list[int]:
    """Choose `count` of the concepts [N, C], all of them where there are no more.

    Returns:
        Their places, in the order of the text.

    Raises:
        ContextError: none given, none wanted, or not finite.
    """
    if concepts.ndim != 2 or not len(concepts) or count < 1:
        raise ContextError("a summary takes concepts of shape [N, C], N ≥ 1, and keeps at least one")
    if not bool(torch.isfinite(concepts).all()):
        raise ContextError("a concept holds numbers that are not finite; encode the sentences again")
    options = options or SummaryOptions()
    unit = F.normalize(concepts.double(), dim=1)
    score = centralities(unit) + options.early * earliness(len(unit)).to(unit)
    nearest = torch.full_like(score, -1.0)  # cosine to the nearest kept sentence
    left = torch.ones_like(score, dtype=torch.bool)
    kept: list[int] = []
    for _ in range(min(count, len(unit))):
        repeats = nearest if kept else torch.zeros_like(nearest)
        gain = (1 - options.diversity) * score - options.diversity * repeats
        best = int(gain.masked_fill(~left, -math.inf).argmax())
        kept.append(best)
        left[best] = False
        nearest = torch.maximum(nearest, unit @ unit[best])
    return sorted(kept)


def centralities(unit: Tensor) -> Tensor:
    """Mean cosine of each of the unit vectors [N, C] to the others: [N]; of one alone, 0."""
    if len(unit) == 1:
        return torch.zeros(1).to(unit)
    return (unit @ unit.sum(dim=0) - 1) / (len(unit) - 1)


def earliness(sentences: int) -> Tensor:
    """[N] from 1 at the start towards 0; a half a tenth of the text later."""
    return 0.5 ** (10 * torch.arange(sentences, dtype=torch.float64) / sentences)
