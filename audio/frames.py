"""The frame: 20 ms of 16 kHz mono, the one unit in which sound travels through the agent.

Receives samples in pieces of any size, gives `AudioFrame`s. Knows nothing of where they come from.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]
PcmArray: TypeAlias = NDArray[np.int16]

SAMPLE_RATE = 16_000
"""Hertz, everywhere between the source and the model."""
VOICE_RATE = 24_000
"""Hertz, from the voice to the loudspeaker"""
FRAME_MS = 20
FRAME_SAMPLES = SAMPLE_RATE * FRAME_MS // 1000


@dataclass(frozen=True, slots=True, eq=False)
class AudioFrame:
    """20 ms of sound and its place on the sample clock."""

    samples: FloatArray  # [FRAME_SAMPLES]
    """float32 in -1..1"""
    start_sample: int
    """Samples since the beginning of the source"""

    @property
    def end_sample(self) -> int:
        """The sample after the last one of this frame."""
        return self.start_sample + len(self.samples)


class Framer:
    """Cuts a stream of samples into frames; the same frames however the stream was chopped."""

    def __init__(self, start_sample: int = 0) -> None:
        self._next_sample = start_sample
        self._rest: FloatArray = np.empty(0, dtype=np.float32)

    def push(self, samples: FloatArray) -> Iterator[AudioFrame]:
        """Give every frame that `samples` completes. Take them all before the next push."""
        stream = np.concatenate([self._rest, samples]) if len(self._rest) else samples
        whole = len(stream) - len(stream) % FRAME_SAMPLES
        # A copy, so that a caller may reuse its buffer and a short rest does not hold a long one.
        self._rest = stream[whole:].copy()
        for offset in range(0, whole, FRAME_SAMPLES):
            yield self._frame(stream[offset : offset + FRAME_SAMPLES].copy())

    def skip(self, frames: int) -> None:
        """Leave out so many frames that were lost: what follows keeps its place on the clock."""
        self._next_sample += frames * FRAME_SAMPLES

    def flush(self) -> Iterator[AudioFrame]:
        """Give the last, incomplete frame, filled up with silence."""
        if len(self._rest):
            last = np.zeros(FRAME_SAMPLES, dtype=np.float32)
            last[: len(self._rest)] = self._rest
            self._rest = self._rest[:0]
            yield self._frame(last)

    def _frame(self, samples: FloatArray) -> AudioFrame:
        frame = AudioFrame(samples, self._next_sample)
        self._next_sample += FRAME_SAMPLES
        return frame


def to_pcm16(samples: FloatArray) -> PcmArray:
    """Samples in -1..1 as 16-bit integers, the inverse of `from_pcm16`; what lies outside is clipped."""
    pcm: PcmArray = np.clip(np.rint(samples * np.float32(32768.0)), -32768, 32767).astype(np.int16)
    return pcm


def from_pcm16(pcm: PcmArray) -> FloatArray:
    """16-bit integers as samples in -1..1: `to_pcm16(from_pcm16(x)) == x` for every one of them."""
    return pcm.astype(np.float32) / np.float32(32768.0)


def on_grid(samples: FloatArray) -> FloatArray:
    """The nearest samples that 16 bits can hold: what is decided on them, a recording can repeat exactly."""
    return from_pcm16(to_pcm16(samples))
