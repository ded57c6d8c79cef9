"""Resampling a live stream between rates of a small ratio, with a delay of a few milliseconds.

soxr computes in blocks: fed 20 ms at a time, its streams hold back 21 ms on the mean and 37 at most from 24 to
16 kHz, 64 and 115 from 8 to 16 kHz. In a conversation that is waited for. This is the same windowed sinc, one dot
product an output sample. Knows nothing of formats or devices.
"""

from functools import cache
from math import gcd

import numpy as np

from audio.frames import FloatArray

ATTENUATION_DB = 80.0
"""Of what would alias"""
ROLL_OFF = 0.12
"""Share of the narrower band, at its upper end, that the filter takes to close: less of it costs delay"""


class PolyphaseResampler:
    """Resamples a stream piece by piece; the pieces together are the whole, sample for sample.

    Sound keeps its place: output sample n is the input at n * from_rate / to_rate. What is held back is half the
    filter, 2.6 ms from 24 to 16 kHz and 5.2 ms from or to 8 kHz.

    Args:
        from_rate: of what is pushed, in Hz.
        to_rate: of what is given, in Hz.
        prompt: hold nothing back: 20 ms in, 20 ms out, that much later on its clock. A flush gives what is behind.
    """

    def __init__(self, from_rate: int, to_rate: int, *, prompt: bool = False) -> None:
        if from_rate <= 0 or to_rate <= 0:
            raise ValueError(f"sample rates must be positive, got {from_rate} and {to_rate}")
        self._down = from_rate // gcd(from_rate, to_rate)
        self._phases = _filters(from_rate, to_rate)
        self._half = self._phases.shape[1] // 2
        self._late = -(-(self._half + 1) // self._down) * self._down if prompt else 0
        """Samples of silence that come before the first one"""
        self._begin()

    @property
    def delay(self) -> int:
        """By how many samples, as they are given, sound is late."""
        return self._late * len(self._phases) // self._down

    def push(self, samples: FloatArray) -> FloatArray:
        """Give what can be known by now."""
        self._taken += len(samples)
        return self._filtered(samples)

    def flush(self) -> FloatArray:
        """Give the rest, as if silence followed. What is pushed next is a new stream."""
        if self._taken == self._late:
            return np.empty(0, dtype=np.float32)
        wanted = -(-self._taken * len(self._phases) // self._down) - self._given
        rest = self._filtered(np.zeros(self._half + self._down, dtype=np.float32))[:wanted]
        self._begin()
        return rest

    def _begin(self) -> None:
        self._held = np.zeros(self._half - 1 + self._late, dtype=np.float32)
        self._taken, self._given = self._late, 0

    def _filtered(self, samples: FloatArray) -> FloatArray:
        up, width = self._phases.shape
        stream = np.concatenate([self._held, samples])
        steps = max(0, len(stream) - width) // self._down  # each takes `down` samples and gives `up`
        self._held = stream[steps * self._down :].copy()
        resampled: FloatArray = np.empty((steps, up), dtype=np.float32)
        if steps:
            for phase, taps in enumerate(self._phases):
                first = phase * self._down // up
                # One dot product of one length each, so that no sum depends on how the stream was chopped.
                reached = stream[first : (steps - 1) * self._down + first + width]
                resampled[:, phase] = np.correlate(reached, taps, mode="valid")[:: self._down]
        self._given += resampled.size
        return resampled.reshape(-1)


@cache
def _filters(from_rate: int, to_rate: int) -> FloatArray:  # [up, width]
    """A Kaiser-windowed sinc seen from each of the places an output sample can have between two input samples."""
    divisor = gcd(from_rate, to_rate)
    up, down = to_rate // divisor, from_rate // divisor
    band = min(1.0, to_rate / from_rate)  # of the input's band, what passes
    # Kaiser's estimates of a window's length and shape (Oppenheim and Schafer, Discrete-Time Signal Processing, 7.6).
    half = int(np.ceil((ATTENUATION_DB - 8) / (2.285 * np.pi * ROLL_OFF * band) / 2)) + 1
    beta = 0.1102 * (ATTENUATION_DB - 8.7)
    places = np.arange(up) * down % up / up
    distances = np.arange(1 - half, half + 1)[None, :] - places[:, None]  # [up, width], in input samples
    cutoff = band * (1 - ROLL_OFF / 2)
    window = np.i0(beta * np.sqrt(np.clip(1 - (distances / half) ** 2, 0, None))) / np.i0(beta)
    taps = cutoff * np.sinc(cutoff * distances) * window
    filters: FloatArray = (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)
    filters.flags.writeable = False
    return filters
