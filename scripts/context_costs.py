"""Costs of long documents: figures of some lengths in, those of others, where two curves cross, and what theory says.

The derived cost is that of the products alone, 2 operations a weight and token, and attention's, 2·L·d·N² for N tokens
in L layers of width d (causal, so half of all pairs). Knows nothing of how anything was measured.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

Curve = Callable[[float], float]
_GRID = 400


@dataclass(frozen=True, slots=True)
class TokenSizes:
    """Of a causal transformer over tokens; its embedding is its output projection too."""

    vocab: int
    dim: int
    layers: int
    ffn_dim: int

    @property
    def parameters(self) -> int:
        """All of a Llama's, its norms among them."""
        return self.vocab * self.dim + self.layers * (self._of_layer + 2 * self.dim) + self.dim

    @property
    def _of_layer(self) -> int:
        return 4 * self.dim**2 + 3 * self.dim * self.ffn_dim

    def cost(self, read: float, written: float) -> float:
        """Operations of reading and then writing so many tokens."""
        seen = read + written
        products = self.layers * self._of_layer * seen + self.vocab * self.dim * written
        return 2 * products + 2 * self.layers * self.dim * seen**2


@dataclass(frozen=True, slots=True)
class ConceptSizes:
    """Of encoder, concept model and decoder: weights that are multiplied with each token, concept or denoising pass."""

    encoder: int
    lcm: int
    """what reads each concept; of a model without denoiser, all of it"""
    decoder: int
    layers: int
    dim: int
    window: int
    """concepts that one sees"""
    denoiser: int = 0
    denoiser_layers: int = 0
    passes: int = 0
    """of the denoiser, for one concept: its steps, and with guidance once more each"""

    def cost(self, read: float, written: float, sentence: float) -> float:
        """Operations of reading and then writing so many tokens, `sentence` tokens a concept."""
        concepts, drawn = (read + written) / sentence, written / sentence
        seen = concepts**2 if concepts <= self.window else 2 * self.window * concepts - self.window**2
        weights = (
            self.encoder * read + self.lcm * concepts + self.denoiser * self.passes * drawn + self.decoder * written
        )
        # Each pass looks from one place at all there is; half of all passes, where guided, at nothing.
        looked = self.passes * drawn * min(self.window, concepts - drawn / 2)
        return 2 * weights + 2 * self.dim * (self.layers * seen + self.denoiser_layers * looked)


def equal_llama(parameters: int, vocab: int) -> TokenSizes:
    """The Llama that has as many parameters, within a row of its feed-forward layers, and GPT-2's shape: d ≈ 64 L."""
    sizes = []
    for dim in range(64, 4096 + 1, 64):
        layers = round((parameters - vocab * dim) / (12 * dim**2))
        if layers < 1:
            break
        left = (parameters - vocab * dim - dim) / layers - 4 * dim**2 - 2 * dim
        ffn_dim = max(1, round(left / (3 * dim)))
        sizes.append((abs(math.log(dim / layers / 64)), TokenSizes(vocab, dim, layers, ffn_dim)))
    if not sizes:
        raise ValueError(f"no transformer of {parameters} parameters with {vocab} tokens")
    return min(sizes, key=lambda known: known[0])[1]


def fitted(measured: Mapping[float, float], powers: Sequence[int] = (0, 1, 2)) -> Curve:
    """The curve Σ aₖ Nᵏ, aₖ ≥ 0, that comes nearest to what was measured at lengths N, in relative terms."""
    lengths, values = (np.array(list(column), dtype=float) for column in (measured.keys(), measured.values()))
    best: tuple[float, tuple[int, ...], np.ndarray] | None = None
    for size in range(1, min(len(powers), len(lengths)) + 1):
        for chosen in combinations(powers, size):
            columns = np.stack([lengths**power for power in chosen], axis=1) / values[:, None]
            factors = np.linalg.lstsq(columns, np.ones(len(lengths)), rcond=None)[0]
            error = float(((columns @ factors - 1) ** 2).sum())
            if (factors >= 0).all() and (best is None or error < best[0] - 1e-9):
                best = error, chosen, factors
    assert best is not None  # a single power of positive values has a positive factor
    _, powers, of_power = best
    return lambda length: float(sum(a * length**k for k, a in zip(powers, of_power, strict=True)))


def crossing(one: Mapping[float, float], other: Mapping[float, float]) -> float | None:
    """The first length at which `one` stops being the larger or the smaller, between the lengths that both know."""
    lengths = sorted(one.keys() & other.keys())
    gaps = [math.log(one[length] / other[length]) for length in lengths]
    for at in range(1, len(lengths)):
        before, after = gaps[at - 1], gaps[at]
        if (before > 0) != (after > 0):
            share = before / (before - after)
            low, high = math.log(lengths[at - 1]), math.log(lengths[at])
            return math.exp(low + share * (high - low))
    return None


def crossing_of(one: Curve, other: Curve, low: float, high: float) -> float | None:
    """The same of two curves, between two lengths."""
    lengths = np.geomspace(low, high, _GRID).tolist()
    return crossing({n: one(n) for n in lengths}, {n: other(n) for n in lengths})
