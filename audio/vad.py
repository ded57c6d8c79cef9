"""Voice activity detection: a frame in, the probability that somebody speaks out.

Two detectors behind one interface. `WebRtcVad` is a table of Gaussians in integer arithmetic: a few
microseconds a frame, the same on every machine. `SileroVad` is a small recurrent network run by onnxruntime:
0.05 ms a frame and far better in noise. Both carry state along the stream: one detector per stream. Knows
nothing of utterances.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from audio.errors import VadError
from audio.frames import FRAME_SAMPLES, SAMPLE_RATE, AudioFrame, FloatArray, to_pcm16

VadName: TypeAlias = Literal["webrtc", "silero"]

DEFAULT_VAD: VadName = "silero"
"""WebRTC's takes a running tap and washing-up for speech most of the time, Silero's hardly ever"""

SILERO_MODEL = Path(__file__).parent / "silero" / "silero_vad_16k.onnx"
"""Silero's network (MIT), kept here because the thresholds were measured on these very weights, and because
its package imports torch and carries eight networks to use one"""


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The thresholds that suit a detector, as `audio.scoreboard` chose them."""

    threshold: float
    release_threshold: float


OPERATING_POINTS: dict[VadName, OperatingPoint] = {
    "webrtc": OperatingPoint(0.95, 0.665),
    "silero": OperatingPoint(0.3, 0.21),
}


class VoiceActivityDetector(Protocol):
    """Hears one stream, frame by frame, in order."""

    def probability(self, frame: AudioFrame) -> float:
        """How likely this frame holds speech, 0..1."""
        ...

    def reset(self) -> None:
        """Forget the stream heard so far."""
        ...


class WebRtcVad:
    """The detector of WebRTC. Its four degrees of strictness vote, which turns yes or no into a score.

    The vote is smoothed over a few frames, since single ones flicker.
    """

    SMOOTHING = 0.5
    """Weight of the past in the running mean"""

    def __init__(self) -> None:
        self._mean = 0.0
        self.reset()

    def probability(self, frame: AudioFrame) -> float:
        """How likely this frame holds speech, 0..1."""
        pcm = to_pcm16(frame.samples).tobytes()
        votes = sum(judge.is_speech(pcm, SAMPLE_RATE) for judge in self._judges)
        self._mean += (1.0 - self.SMOOTHING) * (votes / len(self._judges) - self._mean)
        return self._mean

    def reset(self) -> None:
        """Forget the stream heard so far."""
        import webrtcvad

        self._judges = [webrtcvad.Vad(strictness) for strictness in range(4)]
        self._mean = 0.0


class SileroVad:
    """Silero's network on 32 ms windows, each with the last 4 ms of the one before.

    Frames of 20 ms are collected until a window is full, so a probability is up to 32 ms old.
    """

    WINDOW_SAMPLES = 512
    CONTEXT_SAMPLES = 64

    def __init__(self, model: Path = SILERO_MODEL) -> None:
        self._network = _network(model)
        self._rate = np.array(SAMPLE_RATE, dtype=np.int64)
        self._filled = 0
        self._last = 0.0
        self.reset()

    def probability(self, frame: AudioFrame) -> float:
        """How likely the last full window holds speech, 0..1; 0 before the first."""
        begin, end = self._filled, self._filled + FRAME_SAMPLES
        if end < self.WINDOW_SAMPLES:
            self._window[0, self.CONTEXT_SAMPLES + begin : self.CONTEXT_SAMPLES + end] = frame.samples
            self._filled = end
            return self._last
        room = self.WINDOW_SAMPLES - begin
        self._window[0, self.CONTEXT_SAMPLES + begin :] = frame.samples[:room]
        self._last = self._judge()
        self._window[0, : self.CONTEXT_SAMPLES] = self._window[0, -self.CONTEXT_SAMPLES :]
        self._filled = FRAME_SAMPLES - room
        self._window[0, self.CONTEXT_SAMPLES : self.CONTEXT_SAMPLES + self._filled] = frame.samples[room:]
        return self._last

    def reset(self) -> None:
        """Forget the stream heard so far."""
        self._window: FloatArray = np.zeros((1, self.CONTEXT_SAMPLES + self.WINDOW_SAMPLES), dtype=np.float32)
        self._state: FloatArray = np.zeros((2, 1, 128), dtype=np.float32)
        self._filled = 0
        self._last = 0.0

    def _judge(self) -> float:
        speech, self._state = self._network.run(None, {"input": self._window, "state": self._state, "sr": self._rate})
        return float(speech[0, 0])


@cache
def _network(model: Path) -> Any:
    """The network, which every stream shares: what it remembers of one is handed in with each window.

    One for each stream would take 2 MB, and as they come and go in changing threads, leave ever more holes in memory.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # A small network: threads of its own would only take the cores from the model.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(model), sess_options=options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common type of their own
        raise VadError(f"{model}: cannot be loaded; restore the file, or choose the webrtc detector") from error


def load_vad(name: VadName = DEFAULT_VAD) -> VoiceActivityDetector:
    """A fresh detector for one stream.

    Raises:
        VadError: its package is missing, or there is no detector of that name.
    """
    detectors: dict[str, type[WebRtcVad] | type[SileroVad]] = {"webrtc": WebRtcVad, "silero": SileroVad}
    if name not in detectors:
        raise VadError(f"no detector is called '{name}'; choose one of {', '.join(detectors)}")
    try:
        return detectors[name]()
    except ImportError as error:
        raise VadError(f"the {name} detector needs the package {error.name}; run: pip install -e .") from error
