"""Quantiser: normalised concepts in, one entry of each codebook out, and back [LCM §2.4].

Residual vector quantisation: each codebook describes what those before it left over; its entries are found by k-means.
Knows nothing of what predicts entries.
"""

from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm.errors import TrainingDataError

_CHUNK = 8_192


class Quantizer(nn.Module):
    """N codebooks of K entries."""

    entries: Tensor  # [N · K, C]

    def __init__(self, codebooks: int, size: int, dim: int) -> None:
        super().__init__()
        self.codebooks, self.size = codebooks, size
        self.register_buffer("entries", torch.zeros(codebooks * size, dim))

    def codebook(self, number: int) -> Tensor:
        """[K, C]."""
        return self.entries[number * self.size : (number + 1) * self.size]

    def forward(self, normalised: Tensor) -> Tensor:
        """[M, C] → numbers of entries [M, N], each codebook's nearest to what is left."""
        chosen = []
        for part in normalised.split(_CHUNK):
            left, codes = part, []
            for number in range(self.codebooks):
                book = self.codebook(number)
                codes.append(nearest(left, book))
                left = left - book[codes[-1]]
            chosen.append(torch.stack(codes, dim=1))
        return torch.cat(chosen)

    def sums(self, codes: Tensor, counts: Tensor) -> Tensor:
        """Entries [M, N] → what the first `counts` [M] codebooks, 0 … N, make of them: [M, C]."""
        books = torch.arange(self.codebooks, device=codes.device)
        counted = (books < counts[:, None]).to(self.entries.dtype)
        return F.embedding_bag(codes + books * self.size, self.entries, mode="sum", per_sample_weights=counted)

    @classmethod
    def fitted(
        cls,
        normalised: Tensor,
        codebooks: int,
        size: int,
        *,
        rounds: int = 12,
        seed: int = 0,
        report: Callable[[str], None] = lambda _: None,
    ) -> Self:
        """From training concepts [M, C].

        Raises:
            TrainingDataError: there are fewer of them than entries in a codebook.
        """
        if len(normalised) < size:
            raise TrainingDataError(
                f"codebooks cannot be fitted: {len(normalised)} training concepts for {size} entries in each; set "
                f"entries to {len(normalised)} at most in the model's settings, or prepare more concepts"
            )
        quantizer = cls(codebooks, size, normalised.shape[1])
        generator = torch.Generator().manual_seed(seed)
        left, spread = normalised, float(normalised.var(dim=0).sum())
        for number in range(codebooks):
            book = kmeans(left, size, rounds=rounds, generator=generator)
            quantizer.entries[number * size : (number + 1) * size] = book
            left = torch.cat([part - book[nearest(part, book)] for part in left.split(_CHUNK)])
            report(f"codebook {number + 1} of {codebooks}: {float(left.square().sum(dim=1).mean()) / spread:.3f} left")
        return quantizer


def nearest(points: Tensor, entries: Tensor) -> Tensor:
    """Which of the entries [K, C] is nearest to each point [M, C]: [M]."""
    return (points @ entries.T - entries.square().sum(dim=1) / 2).argmax(dim=1)


def kmeans(points: Tensor, count: int, *, rounds: int, generator: torch.Generator) -> Tensor:
    """Centres [K, C] of points [M, C], by Lloyd's rounds from points drawn by lot; one that nobody is near moves."""
    assert len(points) >= count  # whoever asks for more says so to its user
    centres = points[torch.randperm(len(points), generator=generator)[:count]].clone()
    for _ in range(rounds):
        of = torch.cat([nearest(part, centres) for part in points.split(_CHUNK)])
        counts = torch.bincount(of, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, of, points)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], centres)
        if lonely := int((counts == 0).sum()):
            centres[counts == 0] = points[torch.randint(len(points), (lonely,), generator=generator)]
    return centres
