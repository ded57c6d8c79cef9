"""Planning: the concepts of a text in; its paragraphs and one plan concept of each out. Knows no words.

A plan concept says in one concept what a paragraph is about; planning models [LCM §4] predict it before the paragraph.
Here it is a sentence of the paragraph itself, so every text with paragraphs is training data: `plan_concept` is the one
definition, for training and for use. Texts without paragraphs get them where neighbouring stretches resemble each other
least (TextTiling [Hearst 1997, §5], on concepts in place of words).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.errors import ContextError

LEAST_PLANNED = 3
"""sentences; of fewer, the plan would be the very sentence that follows it"""
LONGEST_PARAGRAPH = 9
"""sentences; planning models are trained on fewer than ten [LCM §4.1]"""
_TIE = 1e-6


@dataclass(frozen=True, slots=True)
class BoundaryOptions:
    """Where a paragraph ends. The defaults are those that did best on dev texts (docs/LOG.md)."""

    window: int = 3
    """sentences on each side of a boundary that are compared"""
    depth: float = 1.0
    """a boundary's dip in similarity exceeds the mean dip by so many standard deviations"""


def plan_concept(concepts: Tensor) -> int:
    """Which of a paragraph's concepts [N, C] stands for it: the nearest to their mean, the first where several are.

    Raises:
        ContextError: no concepts.
    """
    if concepts.ndim != 2 or not len(concepts):
        raise ContextError("a plan concept takes a paragraph of shape [N, C] with N ≥ 1")
    wide = concepts.double()
    distances = (wide - wide.mean(dim=0)).norm(dim=1)  # of two, both are as near: rounding must not choose
    return int((distances <= distances.min() * (1 + _TIE)).nonzero()[0])


def paragraph_starts(
    concepts: Tensor, longest: int = LONGEST_PARAGRAPH, options: BoundaryOptions | None = None
) -> list[int]:
    """Where paragraphs of at most `longest` sentences begin in a text [N, C]: 0 and every boundary, in order."""
    if not len(concepts):
        return []
    options = options or BoundaryOptions()
    depths = boundary_depths(concepts, options.window)  # [N - 1] of the gap after each sentence
    starts = [0]
    if len(depths) > 1:
        enough = float(depths.mean() + options.depth * depths.std())
        padded = F.pad(depths, (1, 1), value=-1.0)
        peak = (depths >= padded[:-2]) & (depths > padded[2:]) & (depths > max(enough, _TIE))
        starts += (peak.nonzero()[:, 0] + 1).tolist()
    ends = [*starts[1:], len(concepts)]
    return [at for start, end in zip(starts, ends, strict=True) for at in _halved(start, end, depths, longest)]


def planned_starts(concepts: Tensor, starts: Sequence[int]) -> list[int]:
    """Where the paragraphs of a text [N, C] begin that planning models know, from where its own begin: 0 and others.

    Short ones are joined until they have `LEAST_PLANNED` sentences (novels mark a paragraph where another speaks, news
    nearly every sentence); then too long ones are cut.
    """
    joined = [0]
    for start in starts:
        if start - joined[-1] >= LEAST_PLANNED and len(concepts) - start >= LEAST_PLANNED:
            joined.append(start)
    depths = boundary_depths(concepts, BoundaryOptions().window)
    stretches = zip(joined, [*joined[1:], len(concepts)], strict=True)
    return [at for start, end in stretches for at in _halved(start, end, depths, LONGEST_PARAGRAPH)]


def boundary_depths(concepts: Tensor, window: int) -> Tensor:
    """How deep the similarity of what stands before and after each gap dips below the peaks beside it: [N - 1] ≥ 0."""
    count = len(concepts)
    sums = F.pad(F.normalize(concepts.double(), dim=1).cumsum(dim=0), (0, 0, 1, 0))  # [N + 1, C]
    gaps = torch.arange(1, count)
    before = sums[gaps] - sums[(gaps - window).clamp_min(0)]
    after = sums[(gaps + window).clamp_max(count)] - sums[gaps]
    similar = F.cosine_similarity(before, after, dim=1).tolist()
    depths = [_climb(similar, gap, -1) + _climb(similar, gap, 1) for gap in range(count - 1)]
    return torch.tensor(depths, dtype=torch.float64)


def _climb(similar: list[float], gap: int, step: int) -> float:
    """How much higher the nearest peak on one side is."""
    peak = similar[gap]
    at = gap + step
    while 0 <= at < len(similar) and similar[at] >= peak:
        peak = similar[at]
        at += step
    return peak - similar[gap]


def _halved(start: int, end: int, depths: Tensor, longest: int) -> list[int]:
    """A stretch that is too long is cut where the dip is deepest, again and again; its ends keep three sentences."""
    if end - start <= longest:
        return [start]
    margin = min(LEAST_PLANNED, (end - start) // 2)
    cut = start + margin + int(depths[start + margin - 1 : end - margin].argmax())
    return [*_halved(start, cut, depths, longest), *_halved(cut, end, depths, longest)]
