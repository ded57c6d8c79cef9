"""Assumed playback: a reply as it is given out in, what a client that plays at once plays at this moment out.

Counts with the microphone's frames, so that what was played and what is heard lie side by side. Knows nothing of
clients, and of their delay only that there is one.
"""

from collections import deque

import numpy as np

from audio.frames import FRAME_SAMPLES, SAMPLE_RATE, VOICE_RATE, FloatArray
from audio.polyphase import PolyphaseResampler

MAX_GIVEN_SECONDS = 120
"""What may wait to be played; what is given beyond is taken for silence"""


class AssumedPlayback:
    """What was given and is not yet played, at 16 kHz."""

    def __init__(self) -> None:
        self._resampler = PolyphaseResampler(VOICE_RATE, SAMPLE_RATE)
        self._pieces: deque[FloatArray] = deque()
        self._waiting = 0

    @property
    def over(self) -> bool:
        """Whether nothing waits to be played."""
        return self._waiting == 0

    def give(self, samples: FloatArray) -> None:  # [T], 24 kHz
        """It is played now, or after what was given before."""
        if self._waiting < MAX_GIVEN_SECONDS * SAMPLE_RATE:
            self._append(self._resampler.push(samples))

    def cut(self) -> None:
        """What is not yet played will not be."""
        self._resampler.flush()
        self._pieces.clear()
        self._waiting = 0

    def next_frame(self) -> FloatArray:  # [FRAME_SAMPLES]
        """What is played during the microphone's next frame."""
        if self._waiting < FRAME_SAMPLES:  # the end of a reply, or a voice that cannot keep up
            self._append(self._resampler.flush())
        frame = np.zeros(FRAME_SAMPLES, dtype=np.float32)
        filled = 0
        while self._pieces and filled < FRAME_SAMPLES:
            piece = self._pieces.popleft()
            taken = min(len(piece), FRAME_SAMPLES - filled)
            frame[filled : filled + taken] = piece[:taken]
            filled += taken
            if taken < len(piece):
                self._pieces.appendleft(piece[taken:])
        self._waiting -= filled
        return frame

    def _append(self, samples: FloatArray) -> None:
        if len(samples):
            self._pieces.append(samples)
            self._waiting += len(samples)
