"""Ear: frames in, what was said out: by the segmenter, or when the client says so. Pure.

Decides what a frame is worth: nothing while the agent itself speaks through an open loudspeaker (half duplex), and
while a reply sounds, speech has to last before it counts, so that a short «mhm» changes nothing. Adapts the silence
that ends an utterance to the speaker. Knows nothing of turns and replies but whether one sounds.
"""

from collections import deque
from dataclasses import replace

import numpy as np

from agent.core.inputs import AudioInput, SettingsChanged
from agent.core.turn_options import TurnOptions
from audio.frames import FRAME_SAMPLES, SAMPLE_RATE, AudioFrame
from audio.hangover import AdaptiveHangover
from audio.segmenter import (
    Segmenter,
    SegmenterOptions,
    SegmentEvent,
    SoftPause,
    SpeechResumed,
    SpeechStarted,
    Utterance,
)

LEAST_COMMITTED = SAMPLE_RATE // 10
"""Less than this that a client commits is nothing"""


class Ear:
    """Hears one session."""

    def __init__(self, options: TurnOptions) -> None:
        self._options = options
        self._segmenter = Segmenter(options.segmenter)
        longest_ms = options.segmenter.longest_hangover_ms
        bounds_ms = (min(options.hangover_bounds_ms[0], longest_ms), min(options.hangover_bounds_ms[1], longest_ms))
        self._hangover = AdaptiveHangover(options.segmenter.hangover_ms, bounds_ms)
        self._adapts = options.adaptive_hangover
        self._manual = False
        self._kept: deque[AudioFrame] = deque(maxlen=_frames(options.segmenter.max_utterance_ms))
        """By hand: what was heard since the last commit, in case the detector finds no speech in it"""
        self._found = False
        """Whether it did"""
        self._paused_at: int | None = None
        self._ended_at: int | None = None
        """End of the last utterance's speech, as long as the next may show that it was no end"""

    @property
    def speaking(self) -> bool:
        """Whether speech was confirmed and is not over."""
        return self._segmenter.speaking

    @property
    def manual(self) -> bool:
        """Whether the client says when an utterance is over."""
        return self._manual

    def hear(self, item: AudioInput, *, deaf: bool, sounding: bool) -> list[SegmentEvent]:
        """The next frame.

        Args:
            item: the frame.
            deaf: whether it is to be taken for silence.
            sounding: whether a reply is being heard.
        """
        samples, probability = item.samples, item.probability
        if deaf:
            samples, probability = np.zeros_like(samples), 0.0
        frame = AudioFrame(samples, item.start_sample)
        if self._manual:
            self._kept.append(frame)
        least_ms = max(self._options.barge_in_ms, self._segmenter.options.min_speech_ms) if sounding else None
        events = self._segmenter.push(frame, probability, min_speech_ms=least_ms)
        for event in events:
            self._found = self._found or isinstance(event, Utterance)
            self._learn(event)
        return events

    def change(self, settings: SettingsChanged) -> None:
        """Takes the settings that concern hearing; an utterance under way goes on."""
        own = self._options.segmenter
        threshold = own.threshold if settings.threshold is None else settings.threshold
        release = own.release_threshold * threshold / own.threshold
        pre_roll = own.pre_roll_ms if settings.pre_roll_ms is None else settings.pre_roll_ms
        self._adapts = self._options.adaptive_hangover and settings.hangover_ms is None
        self._segmenter.options = self._with_hangover(
            replace(own, threshold=threshold, release_threshold=release, pre_roll_ms=pre_roll),
            own.hangover_ms if settings.hangover_ms is None else settings.hangover_ms,
        )
        self._adapt()
        manual = settings.detection == "manual"
        if manual != self._manual:
            self._manual = manual
            self._start_anew()

    def commit(self) -> list[SegmentEvent]:
        """The client says that the speaker is done: what is left, as one more utterance, speech or not."""
        events = self._segmenter.flush()
        kept, found = list(self._kept), self._found
        self._start_anew()
        if events or found or not self._manual or len(kept) * FRAME_SAMPLES < LEAST_COMMITTED:
            return events
        start, end = kept[0].start_sample, kept[-1].end_sample
        samples = np.concatenate([frame.samples for frame in kept])
        return [Utterance(samples, start, end, end, "end")]

    def clear(self) -> None:
        """Forgets what is under way."""
        self._segmenter.flush()
        self._start_anew()

    def _start_anew(self) -> None:
        self._kept.clear()
        self._found = False
        self._ended_at = None

    def _learn(self, event: SegmentEvent) -> None:
        """What pauses the speaker makes within what he says."""
        match event:
            case SpeechStarted():
                if self._ended_at is not None:
                    self._hangover.ended_too_soon((event.speech_sample - self._ended_at) * 1000 // SAMPLE_RATE)
                self._ended_at = None
            case SoftPause():
                self._paused_at = event.speech_end
            case SpeechResumed() if self._paused_at is not None:
                self._hangover.paused((event.at_sample - self._paused_at) * 1000 // SAMPLE_RATE)
                self._paused_at = None
            case Utterance(reason="silence"):
                self._ended_at, self._paused_at = self._paused_at, None
                self._hangover.ended()
            case _:
                return
        self._adapt()

    def _adapt(self) -> None:
        if self._adapts:
            self._segmenter.options = self._with_hangover(self._segmenter.options, self._hangover.milliseconds)

    @staticmethod
    def _with_hangover(options: SegmenterOptions, milliseconds: int) -> SegmenterOptions:
        """With another hangover; a client's may be shorter than the soft pause, which then gives way with the tail."""
        soft = min(options.soft_pause_ms, milliseconds)
        return replace(options, hangover_ms=milliseconds, soft_pause_ms=soft, tail_ms=min(options.tail_ms, soft))


def _frames(milliseconds: int) -> int:
    return milliseconds * SAMPLE_RATE // 1000 // FRAME_SAMPLES
