"""Intervals: one value an item and the document it is from in, a mean and its 95 % bootstrap interval out.

Whole documents are drawn, for their items are not independent. Knows nothing of what the values mean.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

DRAWS = 1_000

Ints = np.ndarray[Any, np.dtype[np.integer[Any]]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and what it might as well have been."""

    mean: float
    low: float
    high: float
    count: int
    """items"""
    documents: int


def estimate(values: Floats, documents: Ints, weights: Floats | None = None, seed: int = 0) -> Estimate | None:
    """Of `values` [N], each from one of `documents` [N]; those that are NaN were not measured. None if none was.

    Weighted, the mean is Σ wᵢ vᵢ / Σ wᵢ.
    """
    weights = np.ones(len(values)) if weights is None else weights
    measured = ~np.isnan(values) & (weights > 0)
    if not measured.any():
        return None
    values, weights = values[measured], weights[measured]
    _, place = np.unique(documents[measured], return_inverse=True)
    sums = np.bincount(place, weights=values * weights)
    shares = np.bincount(place, weights=weights)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(DRAWS, len(sums)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / shares[drawn].sum(axis=1), (0.025, 0.975))
    return Estimate(float(sums.sum() / shares.sum()), float(low), float(high), len(values), len(sums))
