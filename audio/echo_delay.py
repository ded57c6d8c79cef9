"""Echo delay: what was played and what the microphone hears in, how long ago the one sounds in the other out.

Correlates the last moments of the microphone with what was played up to 0.8 s before them. What is compared is
the *shape* of the spectrum, level taken out: speech begins and ends like any other speech, but has the colours of
one text only. A quarter of a second of it tells an echo from another voice (see docs/LOG.md). Knows nothing of levels.
"""

import numpy as np

from audio.bands import BANDS, BandHistory
from audio.frames import FloatArray

LAGS = 90
"""Hops an echo may take: network, the client's buffers, the way through the air"""
MEMORY_HOPS = 24
"""Time constant of what is compared"""


class EchoDelay:
    """Running correlations at every lag, of sums that fade; those of earlier hops are kept, not summed again."""

    def __init__(self) -> None:
        self._played = BandHistory(LAGS)
        self._played_sums = BandHistory(LAGS)
        self._played_squares = BandHistory(LAGS, 1)
        self._products: FloatArray = np.zeros((LAGS, BANDS), dtype=np.float32)
        self._heard_sum: FloatArray = np.zeros(BANDS, dtype=np.float32)
        self._heard_square = 0.0

    def push(self, played_db: FloatArray, heard_db: FloatArray) -> None:  # [hops, BANDS] each
        """The next hops: levels above silence."""
        for played, heard in zip(played_db @ _SHAPE, heard_db @ _SHAPE, strict=True):
            self._played.append(played)
            self._played_sums.append(_FADE * self._played_sums.last(1)[0] + played)
            self._played_squares.append(_FADE * self._played_squares.last(1)[0] + played @ played)
            self._products *= _FADE
            self._products += self._played.last(LAGS) * heard
            self._hear(heard)

    def push_heard_only(self, heard_db: FloatArray) -> None:  # [hops, BANDS]
        """The next hops, while nothing that was played can be heard."""
        for heard in heard_db @ _SHAPE:
            self._hear(heard)

    def correlations(self) -> FloatArray:  # [LAGS]
        """How alike both are, -1..1, for every lag in hops."""
        sums = self._played_sums.last(LAGS)
        covariance = self._products.sum(axis=1) - sums @ self._heard_sum / MEMORY_HOPS
        played = self._played_squares.last(LAGS)[:, 0] - np.einsum("lb,lb->l", sums, sums) / MEMORY_HOPS
        heard = self._heard_square - float(self._heard_sum @ self._heard_sum) / MEMORY_HOPS
        alike = covariance / np.sqrt(np.maximum(played * heard, _LEAST_VARIANCE))
        correlations: FloatArray = np.where(played > _LEAST_VARIANCE, alike, 0)[::-1]
        return correlations

    def forget(self) -> None:
        """Nothing played can be heard any more."""
        self._played.clear()
        self._played_sums.clear()
        self._played_squares.clear()
        self._products[:] = 0

    def _hear(self, heard: FloatArray) -> None:
        self._heard_sum = _FADE * self._heard_sum + heard
        self._heard_square = float(_FADE * self._heard_square + heard @ heard)


_FADE = np.float32(1 - 1 / MEMORY_HOPS)
_LEAST_VARIANCE = np.float32(50)
"""dB² of all bands and hops together; less is silence, which resembles anything"""
_SHAPE: FloatArray = (np.eye(BANDS) - 1 / BANDS).astype(np.float32)
"""Takes the mean of the bands out"""
