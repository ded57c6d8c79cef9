"""Echo level: what was played in, how loud its echo is in each band out; learns the room from what is heard.

An echo's power is taken for a sum of what was played, faded at three speeds: the sound itself, the walls, the tail of
the room. How much of each there is in each band is fitted as non-negative matrices are factorised, with a beta
divergence of 1/2 (Févotte and Idier, Neural Computation 2011, eq. 4.3), which weighs quiet moments nearly as much as
loud ones. Knows nothing of delays.
"""

import numpy as np
from numpy.typing import NDArray

from audio.bands import BANDS, HOPS
from audio.frames import FloatArray

FADES: FloatArray = np.array([0.4, 0.7, 0.88], dtype=np.float32)
"""What is left of the power after a hop"""
TAIL_HOPS = 40
"""After which nothing is left even of the slowest"""
_FIRST_SHARES = np.array([0.5, 0.5, 0.1], dtype=np.float32)
_MEMORY = 0.98
"""What a frame leaves of the past once much was heard"""
_WARM_UP_HOPS = 10
_TINY = np.float32(1e-9)


class EchoLevel:
    """The room as far as it is known."""

    def __init__(self, played: FloatArray, heard: FloatArray) -> None:
        """Guesses from a moment that is mostly echo.

        Args:
            played: what was played, as it arrives: `TAIL_HOPS` rows more than `heard`  # [TAIL_HOPS + T, BANDS]
            heard: the microphone  # [T, BANDS]
        """
        hops = len(heard)
        faded = np.stack([(played[at + 1 : at + 1 + TAIL_HOPS] * _TAIL[1]).sum(axis=0) for at in range(hops)])
        sounding = faded > 1e-3 * faded.max()
        gain = np.percentile(heard[sounding] / faded[sounding], 70)
        self._gains: FloatArray = (_FIRST_SHARES[:, None] * np.full(BANDS, gain)).astype(np.float32)  # [fades, BANDS]
        self._weight: FloatArray = np.full_like(self._gains, 1e-6)
        self._sum: FloatArray = self._gains * self._weight
        self.learned_hops = 0
        """How much has been heard of it"""
        self.place(played)

    def place(self, played: FloatArray) -> None:
        """Begins anew after what was played.  # [TAIL_HOPS or more, BANDS]"""
        self._faded: FloatArray = (played[None, -TAIL_HOPS:] * _TAIL).sum(axis=1)  # [fades, BANDS]

    def predict(self, played: FloatArray) -> FloatArray:  # [HOPS, BANDS] → [HOPS, BANDS]
        """The power of the echo in the next hops, of what arrives in them."""
        self._components = np.empty((HOPS, len(FADES), BANDS), dtype=np.float32)
        for hop, row in enumerate(played):
            self._faded = FADES[:, None] * self._faded + row
            self._components[hop] = self._faded
        expected: FloatArray = np.einsum("hfb,fb->hb", self._components, self._gains)
        return expected

    def learn(self, heard: FloatArray, expected: FloatArray, sounding: NDArray[np.bool_], weight: float) -> None:
        """What came of the last prediction.

        Args:
            heard: the microphone  # [HOPS, BANDS]
            expected: the prediction and the noise together  # [HOPS, BANDS]
            sounding: where the echo is above the noise  # [BANDS]
            weight: 0..1, how far this is to be believed
        """
        self.learned_hops += HOPS
        memory = min(_MEMORY, 1 - HOPS / (self.learned_hops + _WARM_UP_HOPS))
        share = (1 - memory) * weight * sounding  # [BANDS]
        root = np.sqrt(expected)
        sums = np.einsum("hfb,hb->fb", self._components, heard / (expected * root)) * self._gains
        weights = np.einsum("hfb,hb->fb", self._components, 1 / root)
        self._sum += share * (sums / HOPS - self._sum)
        self._weight += share * (weights / HOPS - self._weight)
        self._gains = self._sum / (self._weight + _TINY)


_TAIL = FADES[:, None, None] ** np.arange(TAIL_HOPS, dtype=np.float32)[None, ::-1, None]  # [fades, TAIL_HOPS, 1]
