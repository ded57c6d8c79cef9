"""The 16-bit grid: sound is put on it before anything is decided, so that a recording holds what was heard.

`to_pcm16(from_pcm16(x)) == x` for every 16-bit x. Pure.
"""

import numpy as np
from numpy.typing import NDArray

from agent.events import FloatArray

PcmArray = NDArray[np.int16]


def to_pcm16(samples: FloatArray) -> PcmArray:
    """Samples in −1..1 as 16-bit integers; what lies outside is clipped."""
    pcm: PcmArray = np.clip(np.rint(samples * np.float32(32768.0)), -32768, 32767).astype(np.int16)
    return pcm


def from_pcm16(pcm: PcmArray) -> FloatArray:
    """16-bit integers as samples in −1..1."""
    return pcm.astype(np.float32) / np.float32(32768.0)


def on_grid(samples: FloatArray) -> FloatArray:
    """The nearest samples that 16 bits can hold."""
    return from_pcm16(to_pcm16(samples))
