"""Normaliser: concepts in, numbers of about unit variance out, and back. Fitted once on training concepts, frozen.

Robust, as in the LCM's PreNet and PostNet [LCM §2.3.1]: (x − median) / σ, σ read off the interquartile range, which
outliers do not move. Knows nothing of models.
"""

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

IQR_OF_UNIT_GAUSSIAN = 1.349
_DEAD = 0.1  # of the median σ: a dimension that hardly moves must not be blown up to noise


class Normalizer(nn.Module):
    """`forward` normalises, `inverse` undoes it."""

    centre: Tensor  # [C]
    scale: Tensor  # [C]

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    @classmethod
    def fitted(cls, concepts: "np.ndarray[Any, np.dtype[np.floating[Any]]]") -> Self:
        """Median and σ of each dimension of `concepts` [N, C]; dead dimensions get a floor, not a tiny σ."""
        low, median, high = np.quantile(concepts.astype(np.float32), (0.25, 0.5, 0.75), axis=0)
        sigma = (high - low) / IQR_OF_UNIT_GAUSSIAN
        typical = float(np.median(sigma)) or 1.0
        normalizer = cls(concepts.shape[1])
        normalizer.centre.copy_(torch.from_numpy(median))
        normalizer.scale.copy_(torch.from_numpy(np.maximum(sigma, _DEAD * typical)))
        return normalizer

    def forward(self, concepts: Tensor) -> Tensor:
        """[..., C] → [..., C]."""
        return (concepts - self.centre) / self.scale

    def inverse(self, normalised: Tensor) -> Tensor:
        """[..., C] → [..., C]."""
        return normalised * self.scale + self.centre
