"""What the segmenter leaves of a clip: evaluation hears speech as the agent would. Thin."""

from collections.abc import Callable

import numpy as np

from audio.frames import FloatArray, Framer
from audio.segmenter import Segmenter, SegmenterOptions, Utterance
from audio.vad import load_vad


def segmenter_cut() -> Callable[[FloatArray], FloatArray]:
    """A function from a clip at 16 kHz to its utterances, joined; empty if none was heard."""
    vad = load_vad("webrtc")

    def cut(samples: FloatArray) -> FloatArray:
        vad.reset()
        segmenter, framer = Segmenter(SegmenterOptions()), Framer()
        silence = np.zeros(16_000, dtype=np.float32)  # the clip may end in speech
        frames = framer.push(np.concatenate([samples, silence]))
        events = [event for frame in frames for event in segmenter.push(frame, vad.probability(frame))]
        utterances = [e.samples for e in [*events, *segmenter.flush()] if isinstance(e, Utterance)]
        return np.concatenate(utterances) if utterances else silence[:0]

    return cut
