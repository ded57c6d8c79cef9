"""Segmenter: frames and speech probabilities in, Utterances out. Pure: no clock, no I/O.

    silence ──speech for min_speech──▶ SpeechStarted ──▶ speaking
    speaking ──silent for soft_pause──▶ SoftPause ──speech──▶ SpeechResumed ──▶ speaking
                                            └──silent for hangover──▶ Utterance

An utterance runs from a pre-roll before its first speech to a fixed tail after its last. The tail is no
longer than the soft pause, so the utterance inside a SoftPause and the one committed later are the same
samples, and work begun on the first holds for the second. One that grows too long is cut at its quietest
place, and what follows goes on as the next utterance: no sample lost, none doubled. All positions are samples
since the source began.
"""

from collections import deque
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from audio.frames import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE, AudioFrame, FloatArray, to_pcm16


@dataclass(frozen=True, slots=True)
class SegmenterOptions:
    """When speech begins, pauses and ends."""

    threshold: float = 0.3
    """Probability at which speech begins; each detector has its own, see `audio.vad.OPERATING_POINTS`"""
    release_threshold: float = 0.21
    """Probability below which it stops; between the two, what was goes on"""
    pre_roll_ms: int = 300
    """Kept before the first speech: detectors are late, and digits and onsets get lost"""
    min_speech_ms: int = 100
    """Speech needed before SpeechStarted; less is a click"""
    soft_pause_ms: int = 160
    """Silence after which it is worth beginning on the reply"""
    hangover_ms: int = 480
    """Silence after which the utterance is over"""
    tail_ms: int = 160
    """Kept after the last speech"""
    max_utterance_ms: int = 8000
    """What the encoder takes at most, pre-roll and tail included"""
    cut_search_ms: int = 2500
    """The last part of an over-long utterance, in which its quietest place is sought"""
    cut_window_ms: int = 100
    """Width of such a place"""

    @property
    def longest_hangover_ms(self) -> int:
        """What `hangover_ms` may be raised to, the rest being as it is: after a cut it still has to fit."""
        return self.max_utterance_ms - self.cut_search_ms - self.tail_ms - 2 * FRAME_MS

    @property
    def longest_pre_roll_ms(self) -> int:
        """What `pre_roll_ms` may be raised to: an onset, confirmed as late as can be, has to fit."""
        return self.max_utterance_ms - self.min_speech_ms - self.soft_pause_ms - 2 * FRAME_MS

    def __post_init__(self) -> None:
        """Refuse options under which an utterance could change between soft pause and commit."""
        if not 0.0 < self.release_threshold <= self.threshold < 1.0:
            raise ValueError("thresholds must satisfy 0 < release_threshold <= threshold < 1")
        if not 0 <= self.tail_ms <= self.soft_pause_ms <= self.hangover_ms:
            raise ValueError("times must satisfy 0 <= tail_ms <= soft_pause_ms <= hangover_ms")
        if self.pre_roll_ms < 0 or self.min_speech_ms < 0 or self.soft_pause_ms <= 0:
            raise ValueError("pre_roll_ms and min_speech_ms must not be negative, soft_pause_ms must be positive")
        # A cut comes a tail before the maximum: the window must fit into what has been searched by then.
        if not FRAME_MS <= self.cut_window_ms <= self.cut_search_ms - self.tail_ms - 2 * FRAME_MS:
            raise ValueError(
                f"cut_window_ms must lie between {FRAME_MS} ms and cut_search_ms - tail_ms - {2 * FRAME_MS} ms"
            )
        if self.pre_roll_ms > self.longest_pre_roll_ms or self.hangover_ms > self.longest_hangover_ms:
            raise ValueError("max_utterance_ms must exceed cut_search_ms + hangover_ms + tail_ms, and any onset")


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """A stretch of speech, ready to be understood."""

    samples: FloatArray  # [end_sample - start_sample]
    start_sample: int
    end_sample: int
    at_sample: int
    """The clock when this was decided"""
    reason: Literal["silence", "maximum", "end"]
    """maximum: cut because it grew too long, the speech goes on. end: the source ended, or flush"""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Somebody speaks. Does not follow a cut at the maximum, where speech never stopped."""

    start_sample: int
    """Where the utterance will begin, pre-roll included"""
    speech_sample: int
    """Where its first speech was"""
    at_sample: int


@dataclass(frozen=True, slots=True, eq=False)
class SoftPause:
    """A short silence: this is the utterance as it would be committed."""

    utterance: Utterance
    speech_end: int
    """Sample after the last speech"""
    at_sample: int


@dataclass(frozen=True, slots=True)
class SpeechResumed:
    """The soft pause was not the end: discard what was begun on it."""

    at_sample: int


SegmentEvent: TypeAlias = SpeechStarted | SoftPause | SpeechResumed | Utterance


@dataclass(frozen=True, slots=True)
class _Held:
    """A frame that an utterance may still need."""

    frame: AudioFrame
    loudness: int
    """Energy, scaled down where the detector hears no speech: a pause loses against a soft consonant. An integer,
    because sums of floats depend on the machine, and with them which of two quiet places is the quieter"""


class Segmenter:
    """Cuts one stream of frames. Holds at most one utterance and its hangover, whatever comes."""

    def __init__(self, options: SegmenterOptions | None = None) -> None:
        self.options = options or SegmenterOptions()
        self._held: deque[_Held] = deque()
        self._now: int | None = None
        self._floor = 0
        """End of the last utterance: the next one may not begin before it"""
        self._voiced = False
        self._start: int | None = None
        """Where the utterance begins, once there is a first sign of speech"""
        self._first_speech = 0
        """Where that sign was"""
        self._heard = 0
        """Speech since that sign"""
        self._unheard = 0
        """Silence since that sign, before speech is confirmed"""
        self._speech_end = 0
        """Sample after the last speech"""
        self._started = False
        self._paused: Utterance | None = None

    @property
    def options(self) -> SegmenterOptions:
        """When speech begins, pauses and ends; others may be set at any time, and hold from the next frame on."""
        return self._options

    @options.setter
    def options(self, options: SegmenterOptions) -> None:
        self._options = options
        self._pre_roll = _samples(options.pre_roll_ms)
        self._soft_pause = _samples(options.soft_pause_ms)
        self._hangover = _samples(options.hangover_ms)
        self._tail = _samples(options.tail_ms)
        self._maximum = _samples(options.max_utterance_ms)

    @property
    def speaking(self) -> bool:
        """Whether speech has been confirmed and its utterance is not yet over."""
        return self._started

    def push(self, frame: AudioFrame, probability: float, *, min_speech_ms: int | None = None) -> list[SegmentEvent]:
        """Take the next frame and the probability that it holds speech.

        Args:
            frame: 20 ms.
            probability: 0..1.
            min_speech_ms: what SpeechStarted takes at this moment; None: as the options say.

        Raises:
            ValueError: the frame does not follow the one before, or is not a whole frame.
        """
        if len(frame.samples) != FRAME_SAMPLES:
            raise ValueError(f"a frame has {FRAME_SAMPLES} samples, not {len(frame.samples)}: use Framer")
        if self._now is None:
            self._floor = frame.start_sample
        elif frame.start_sample != self._now:
            raise ValueError(f"frame begins at sample {frame.start_sample}, expected {self._now}: frames must follow")
        self._now = frame.end_sample
        self._held.append(_Held(frame, _loudness(frame.samples, probability)))
        self._voiced = probability >= (self.options.release_threshold if self._voiced else self.options.threshold)
        least = _samples(self.options.min_speech_ms if min_speech_ms is None else min_speech_ms)
        events = self._on_speech(frame, least) if self._voiced else self._on_silence(self._now, least)
        self._forget()
        return events

    def flush(self) -> list[SegmentEvent]:
        """Commit what has been said so far: the source ended, or the client says so. Frames may follow."""
        events: list[SegmentEvent] = []
        if self._started:
            assert self._now is not None, "speech starts in push, which sets the clock"
            end = min(self._speech_end + self._tail, self._now)
            events.append(self._paused_at(self._now, "end") or self._utterance(end, self._now, "end"))
            self._floor = end
        self._rest()
        self._voiced = False
        self._forget()
        return events

    def _on_speech(self, frame: AudioFrame, least: int) -> list[SegmentEvent]:
        now = frame.end_sample
        if self._start is None:
            self._start = max(frame.start_sample - self._pre_roll, self._floor)
            self._first_speech = frame.start_sample
        self._heard += FRAME_SAMPLES
        self._speech_end = now
        events = self._confirm(now, least)
        if self._paused is not None:
            self._paused = None
            events.append(SpeechResumed(now))
        if self._started and now + self._tail - self._start > self._maximum:
            events.append(self._cut(now))
        return events

    def _confirm(self, now: int, least: int) -> list[SegmentEvent]:
        """Speech has begun, once there is enough of it. It may be silent just now, if less is enough than before."""
        if self._started or self._heard < least:
            return []
        assert self._start is not None, "what was heard began somewhere"
        self._started = True
        return [SpeechStarted(self._start, self._first_speech, now)]

    def _on_silence(self, now: int, least: int) -> list[SegmentEvent]:
        if self._start is None:
            return []
        events = self._confirm(now, least)
        if not self._started:
            self._unheard += FRAME_SAMPLES
            if self._unheard >= self._soft_pause:  # more silence than speech can hide: it was a click
                self._rest()
            return []
        silence = now - self._speech_end
        if self._paused is None and silence >= self._soft_pause:
            self._paused = self._utterance(self._speech_end + self._tail, now, "silence")
            events.append(SoftPause(self._paused, self._speech_end, now))
        if silence >= self._hangover:
            committed = self._paused_at(now, "silence")
            assert committed is not None, "the hangover is no shorter than the soft pause"
            events.append(committed)
            self._floor = committed.end_sample
            self._rest()
        return events

    def _paused_at(self, now: int, reason: Literal["silence", "end"]) -> Utterance | None:
        """Commit the very samples that the soft pause announced."""
        return None if self._paused is None else replace(self._paused, at_sample=now, reason=reason)

    def _cut(self, now: int) -> Utterance:
        assert self._start is not None, "only an utterance that began can grow too long"
        end = self._quietest_place(self._start)
        utterance = self._utterance(end, now, "maximum")
        self._floor = self._start = end
        return utterance

    def _quietest_place(self, start: int) -> int:
        """Centre of the quietest window in the last part of what fits; of equals, the latest."""
        latest = start + self._maximum
        earliest = latest - _samples(self.options.cut_search_ms)
        places = [
            held for held in self._held if earliest <= held.frame.start_sample and held.frame.end_sample <= latest
        ]
        width = max(1, self.options.cut_window_ms // FRAME_MS)
        loudness = np.convolve([held.loudness for held in places], np.ones(width, dtype=np.int64), mode="valid")
        quietest = len(loudness) - 1 - int(np.argmin(loudness[::-1]))
        return places[quietest].frame.start_sample + width * FRAME_SAMPLES // 2

    def _utterance(self, end: int, now: int, reason: Literal["silence", "maximum", "end"]) -> Utterance:
        start = self._start
        assert start is not None, "an utterance has a beginning"
        first = self._held[0].frame.start_sample
        samples = np.concatenate([held.frame.samples for held in self._held if held.frame.start_sample < end])
        return Utterance(samples[start - first : end - first], start, end, now, reason)

    def _rest(self) -> None:
        self._start = None
        self._heard = 0
        self._unheard = 0
        self._started = False
        self._paused = None

    def _forget(self) -> None:
        """Drop frames that no utterance can need: before its start, or older than the pre-roll."""
        assert self._now is not None or not self._held, "frames arrive with the clock"
        keep = self._start if self._start is not None else max((self._now or 0) - self._pre_roll, self._floor)
        while self._held and self._held[0].frame.end_sample <= keep:
            self._held.popleft()


def _loudness(samples: FloatArray, probability: float) -> int:
    energy = int(np.square(to_pcm16(samples), dtype=np.int64).sum())  # 39 bits
    return energy * round(1000 * (0.1 + probability))


def _samples(milliseconds: int) -> int:
    return milliseconds * SAMPLE_RATE // 1000
