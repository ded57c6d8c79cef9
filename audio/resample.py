"""Resampling with soxr: samples at one rate in, at another out, whole or as a stream.

Knows nothing of files or devices. Equal rates pass through untouched.
"""

import numpy as np
import soxr

from audio.frames import FloatArray


class StreamResampler:
    """Resamples a stream piece by piece; the pieces together equal the whole resampled at once."""

    def __init__(self, from_rate: int, to_rate: int) -> None:
        if from_rate <= 0 or to_rate <= 0:
            raise ValueError(f"sample rates must be positive, got {from_rate} and {to_rate}")
        self._stream = None if from_rate == to_rate else soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32")

    def push(self, samples: FloatArray) -> FloatArray:
        """Give what is ready; the filter holds a few milliseconds back."""
        return self._step(samples, last=False)

    def flush(self) -> FloatArray:
        """Give the rest. The stream has ended: no push may follow."""
        return self._step(np.empty(0, dtype=np.float32), last=True)

    def _step(self, samples: FloatArray, *, last: bool) -> FloatArray:
        if self._stream is None:
            return samples
        resampled: FloatArray = self._stream.resample_chunk(np.ascontiguousarray(samples), last=last)
        return resampled


def resample(samples: FloatArray, from_rate: int, to_rate: int) -> FloatArray:
    """Resample a whole waveform."""
    stream = StreamResampler(from_rate, to_rate)
    first = stream.push(samples)
    return first if from_rate == to_rate else np.concatenate([first, stream.flush()])
