"""Sounds and streams the audio tests share."""

from collections.abc import Iterable, Iterator

import numpy as np

from audio.frames import FRAME_SAMPLES, AudioFrame, FloatArray


def tone(seconds: float, rate: int, hertz: float = 440.0) -> FloatArray:
    """A sine at half of full scale."""
    time = np.arange(int(seconds * rate), dtype=np.float64) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def noise(samples: int, seed: int = 0, level: float = 0.1) -> FloatArray:
    """White noise."""
    return (level * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def numbered_frames(count: int, start_sample: int = 0) -> Iterator[AudioFrame]:
    """Frames whose samples tell their own position, so that any sample lost or doubled shows."""
    for index in range(count):
        start = start_sample + index * FRAME_SAMPLES
        yield AudioFrame(np.arange(start, start + FRAME_SAMPLES, dtype=np.float32) / 1e6, start)


def joined(pieces: Iterable[FloatArray]) -> FloatArray:
    """All pieces as one waveform."""
    return np.concatenate([np.empty(0, dtype=np.float32), *pieces])
