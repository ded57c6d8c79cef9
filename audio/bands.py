"""Bands: sound in, its power in 24 bands of hearing every 10 ms out, of two streams that run side by side.

What echo is recognised by: fine enough to tell one syllable from another, coarse enough not to mind a room. Knows
nothing of echo.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio.frames import FRAME_SAMPLES, SAMPLE_RATE, FloatArray

BANDS = 24
HOP_SAMPLES = SAMPLE_RATE // 100
HOPS = FRAME_SAMPLES // HOP_SAMPLES
"""In a frame"""
WINDOW_SAMPLES = 512
LOWEST_HZ, HIGHEST_HZ = 200.0, 7000.0
"""What small loudspeakers play and telephones carry, and little else"""

_KEPT = WINDOW_SAMPLES - HOP_SAMPLES


class BandMeter:
    """Measures streams that run side by side, a frame of each at a time."""

    def __init__(self, streams: int) -> None:
        self._samples: FloatArray = np.zeros((streams, _KEPT + FRAME_SAMPLES), dtype=np.float32)
        self._windows = np.lib.stride_tricks.sliding_window_view(self._samples, WINDOW_SAMPLES, axis=1)[
            :, ::HOP_SAMPLES
        ]

    def measure(self, *frames: FloatArray) -> FloatArray:  # frames of [FRAME_SAMPLES] → [streams, HOPS, BANDS]
        """The mean power of each band in each of the next hops."""
        self._samples[:, :_KEPT] = self._samples[:, FRAME_SAMPLES:]
        self._samples[:, _KEPT:] = frames
        spectrum = np.fft.rfft(self._windows * _WINDOW, axis=-1)
        power: FloatArray = (spectrum.real**2 + spectrum.imag**2).astype(np.float32) @ _FILTERS
        return power


class BandHistory:
    """The last rows of something measured every hop, the newest last; views into one buffer, never copies."""

    def __init__(self, rows: int, columns: int = BANDS) -> None:
        self._kept = rows
        self._rows: NDArray[np.float32] = np.zeros((8 * rows, columns), dtype=np.float32)
        self._end = rows

    def append(self, row: NDArray[np.float32]) -> None:
        """One hop more; the oldest is forgotten."""
        if self._end == len(self._rows):
            self._rows[: self._kept] = self._rows[-self._kept :]
            self._end = self._kept
        self._rows[self._end] = row
        self._end += 1

    def last(self, count: int, ago: int = 0) -> NDArray[np.float32]:  # [count, columns]
        """So many rows, up to the one that came `ago` hops before the newest."""
        end = self._end - ago
        return self._rows[end - count : end]

    def clear(self) -> None:
        """As if there had been nothing."""
        self._rows[self._end - self._kept : self._end] = 0.0


class NoiseFloor:
    """What a microphone hears when nobody speaks: the quietest of late, which may rise by 1.7 dB a second."""

    def __init__(self) -> None:
        self._smooth: FloatArray | None = None
        self._floor: FloatArray = np.zeros(BANDS, dtype=np.float32)

    def follow(self, power: FloatArray) -> FloatArray:  # [HOPS, BANDS] → [BANDS]
        """The floor after the next hops."""
        for row in power:
            if self._smooth is None:
                self._smooth = self._floor = row
            self._smooth = _SMOOTHING * self._smooth + (1 - _SMOOTHING) * row
            self._floor = np.minimum(self._floor * _RISE, self._smooth)
        return self._floor


def _filters() -> FloatArray:  # [WINDOW_SAMPLES // 2 + 1, BANDS]
    """Triangles that are equally wide on the mel scale."""
    hertz = np.fft.rfftfreq(WINDOW_SAMPLES, 1 / SAMPLE_RATE)
    edges = np.linspace(_mel(LOWEST_HZ), _mel(HIGHEST_HZ), BANDS + 2)
    place = (_mel(hertz)[:, None] - edges[None, :-2]) / (edges[1] - edges[0])
    triangles: FloatArray = np.clip(np.minimum(place, 2 - place), 0, None).astype(np.float32)
    return triangles / np.float32((_WINDOW**2).sum())


def _mel(hertz: Any) -> NDArray[np.float64]:
    mel: NDArray[np.float64] = 1127.0 * np.log1p(np.asarray(hertz) / 700.0)
    return mel


_SMOOTHING = np.float32(0.7)
_RISE = np.float32(1.004)
_WINDOW: FloatArray = np.hanning(WINDOW_SAMPLES + 1)[:-1].astype(np.float32)
_FILTERS = _filters()
