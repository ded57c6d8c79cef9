"""The segmenter: when speech starts, pauses and ends, and that no sample is lost, doubled or kept."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.frames import FRAME_MS, FRAME_SAMPLES, AudioFrame
from audio.segmenter import (
    Segmenter,
    SegmenterOptions,
    SegmentEvent,
    SoftPause,
    SpeechResumed,
    SpeechStarted,
    Utterance,
)
from tests.audio.signals import numbered_frames

SHORT = SegmenterOptions(
    threshold=0.5,
    release_threshold=0.35,
    pre_roll_ms=60,
    min_speech_ms=40,
    soft_pause_ms=60,
    hangover_ms=120,
    tail_ms=50,
    max_utterance_ms=600,
    cut_search_ms=200,
    cut_window_ms=40,
)
"""Small times, so that a short random stream meets every case"""

# Runs of frames of one probability; on, off and the band between the thresholds are all likely.
streams = st.lists(
    st.tuples(st.sampled_from([0.0, 0.2, 0.4, 0.6, 1.0]), st.integers(1, 25)), min_size=1, max_size=25
).map(lambda runs: [probability for probability, count in runs for _ in range(count)])


def segment(
    probabilities: Sequence[float], options: SegmenterOptions, frames: Iterable[AudioFrame] | None = None
) -> list[SegmentEvent]:
    segmenter = Segmenter(options)
    events: list[SegmentEvent] = []
    for frame, probability in zip(frames or numbered_frames(len(probabilities)), probabilities, strict=True):
        events += segmenter.push(frame, probability)
    return events + segmenter.flush()


def utterances(events: Iterable[SegmentEvent]) -> list[Utterance]:
    return [event for event in events if isinstance(event, Utterance)]


def spoken(speech_ms: int, silence_ms: int) -> list[float]:
    return [1.0] * (speech_ms // FRAME_MS) + [0.0] * (silence_ms // FRAME_MS)


def holds_its_samples(utterance: Utterance) -> bool:
    expected = np.arange(utterance.start_sample, utterance.end_sample, dtype=np.float32) / 1e6
    return np.array_equal(utterance.samples, expected)


def test_an_utterance_runs_from_the_pre_roll_to_the_tail() -> None:
    events = segment([0.0] * 50 + spoken(1000, 1000), SegmenterOptions())
    started, pause, committed = events
    ms = 16
    assert isinstance(started, SpeechStarted)
    assert (started.start_sample, started.at_sample) == (700 * ms, 1100 * ms)
    assert isinstance(pause, SoftPause)
    assert pause.at_sample == (2000 + 160) * ms
    assert isinstance(committed, Utterance)
    assert (committed.start_sample, committed.end_sample) == (700 * ms, (2000 + 160) * ms)
    assert (committed.at_sample, committed.reason) == ((2000 + 480) * ms, "silence")
    assert holds_its_samples(committed)


def test_what_the_soft_pause_announces_is_what_is_committed() -> None:
    _, pause, committed = segment(spoken(500, 600), SegmenterOptions())
    assert isinstance(pause, SoftPause)
    assert isinstance(committed, Utterance)
    assert pause.utterance.samples is committed.samples
    assert pause.utterance.end_sample == committed.end_sample


def test_speech_after_a_soft_pause_takes_it_back() -> None:
    events = segment(spoken(500, 200) + spoken(500, 600), SegmenterOptions())
    assert [type(event) for event in events] == [
        SpeechStarted,
        SoftPause,
        SpeechResumed,
        SoftPause,
        Utterance,
    ]
    (committed,) = utterances(events)
    assert committed.end_sample == (1200 + 160) * 16


def test_a_click_is_no_speech_and_many_clicks_are_not_either() -> None:
    assert segment(spoken(40, 400) * 20, SegmenterOptions()) == []


def test_a_word_with_a_stop_in_it_is_speech() -> None:
    events = segment(spoken(60, 60) + spoken(60, 800), SegmenterOptions(min_speech_ms=120))
    assert [event.reason for event in utterances(events)] == ["silence"]


def test_between_the_thresholds_what_was_goes_on() -> None:
    options = SegmenterOptions(threshold=0.6, release_threshold=0.3)
    assert segment([0.5] * 100, options) == []
    events = segment([0.7] * 10 + [0.4] * 40 + [0.1] * 40, options)
    assert utterances(events)[0].end_sample == 50 * FRAME_SAMPLES + 160 * 16


def test_the_pre_roll_never_reaches_into_the_utterance_before() -> None:
    options = SegmenterOptions(hangover_ms=160, pre_roll_ms=300)
    first, second = utterances(segment(spoken(400, 200) + spoken(400, 600), options))
    assert second.start_sample == first.end_sample


def test_flush_commits_what_was_said_and_goes_on() -> None:
    segmenter = Segmenter()
    frames = list(numbered_frames(60))
    for frame in frames[:30]:
        segmenter.push(frame, 1.0)
    (first,) = segmenter.flush()
    assert isinstance(first, Utterance)
    assert (first.end_sample, first.reason) == (30 * FRAME_SAMPLES, "end")
    assert not segmenter.speaking
    for frame in frames[30:]:
        segmenter.push(frame, 1.0)
    (second,) = segmenter.flush()
    assert isinstance(second, Utterance)
    assert second.start_sample == first.end_sample
    assert segmenter.flush() == []


def test_an_over_long_utterance_is_cut_in_its_quietest_pause() -> None:
    """At full probability throughout, only the sound itself tells where the pause is."""
    frames = []
    for frame in numbered_frames(600):
        second = frame.start_sample / 16_000
        quiet = 6.5 <= second < 6.7
        level = np.float32(0.001 if quiet else 0.1)
        frames.append(AudioFrame(np.full(FRAME_SAMPLES, level), frame.start_sample))
    cut, _rest = utterances(segment([1.0] * 600, SegmenterOptions(), frames))
    assert cut.reason == "maximum"
    assert 6.5 <= cut.end_sample / 16_000 <= 6.7


def test_of_equally_loud_places_the_cut_takes_the_latest_on_every_machine() -> None:
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.1, FRAME_SAMPLES).astype(np.float32)
    # The same samples in other orders: sums of floats would differ in their last digits.
    frames = [AudioFrame(rng.permutation(sound), index * FRAME_SAMPLES) for index in range(600)]
    cut, _rest = utterances(segment([1.0] * 600, SegmenterOptions(), frames))
    assert cut.end_sample == cut.at_sample - 5 * FRAME_SAMPLES // 2  # the middle of the last 100 ms


def test_of_two_equal_sounds_the_cut_takes_the_one_not_heard_as_speech() -> None:
    probabilities = [1.0] * 320 + [0.55] * 10 + [1.0] * 200
    frames = [AudioFrame(np.full(FRAME_SAMPLES, 0.1, np.float32), i * FRAME_SAMPLES) for i in range(530)]
    cut, _rest = utterances(segment(probabilities, SegmenterOptions(), frames))
    assert 320 <= cut.end_sample / FRAME_SAMPLES <= 330


@settings(max_examples=300)
@given(streams)
def test_every_utterance_is_whole_and_none_overlaps(probabilities: list[float]) -> None:
    found = utterances(segment(probabilities, SHORT))
    for utterance in found:
        assert holds_its_samples(utterance)
        assert 0 < len(utterance.samples) <= 600 * 16
        assert utterance.end_sample <= utterance.at_sample
    for before, after in pairwise(found):
        assert before.end_sample <= after.start_sample
        if before.reason == "maximum":
            assert before.end_sample == after.start_sample


@settings(max_examples=300)
@given(streams)
def test_events_come_in_order_and_agree(probabilities: list[float]) -> None:
    """Started, then pauses and resumptions, then utterances; a pause not taken back is what is committed."""
    started: SpeechStarted | None = None
    paused: Utterance | None = None
    for event in segment(probabilities, SHORT):
        match event:
            case SpeechStarted():
                assert started is None
                started = event
            case SoftPause(utterance=utterance):
                assert started is not None
                assert paused is None
                paused = utterance
            case SpeechResumed():
                assert paused is not None
                paused = None
            case Utterance(reason="maximum"):
                assert started is not None
                assert paused is None
                assert event.start_sample == started.start_sample
                started = SpeechStarted(event.end_sample, event.end_sample, event.at_sample)
            case Utterance():
                assert started is not None
                assert event.start_sample == started.start_sample
                assert paused is None or paused.samples is event.samples
                started = paused = None
    assert started is None


@settings(max_examples=200)
@given(streams, st.integers(0, 10_000))
def test_where_the_clock_begins_changes_nothing(probabilities: list[float], origin: int) -> None:
    here = utterances(segment(probabilities, SHORT))
    there = utterances(segment(probabilities, SHORT, numbered_frames(len(probabilities), origin)))
    assert [u.start_sample + origin for u in here] == [u.start_sample for u in there]
    assert [u.end_sample + origin for u in here] == [u.end_sample for u in there]


@settings(max_examples=200)
@given(streams)
def test_confirmed_speech_is_in_some_utterance(probabilities: list[float]) -> None:
    """Forty milliseconds of certain speech in a row are confirmed, so each of their samples is committed."""
    found = utterances(segment(probabilities, SHORT))
    for index in range(1, len(probabilities)):
        if probabilities[index - 1] == probabilities[index] == 1.0:
            start, end = index * FRAME_SAMPLES, (index + 1) * FRAME_SAMPLES
            covered = sum(max(0, min(end, u.end_sample) - max(start, u.start_sample)) for u in found)
            assert covered == end - start


@pytest.mark.parametrize("probability", [0.0, 0.4, 1.0])
def test_memory_stays_bounded_whatever_comes_for_ever(probability: float) -> None:
    options = SegmenterOptions()
    segmenter = Segmenter(options)
    most = (options.max_utterance_ms + options.hangover_ms) // FRAME_MS + 1
    for frame in numbered_frames(20_000):
        segmenter.push(frame, probability)
        assert len(segmenter._held) <= most


def test_memory_stays_bounded_for_endless_clicks() -> None:
    segmenter = Segmenter()
    for index, frame in enumerate(numbered_frames(20_000)):
        segmenter.push(frame, float(index % 7 == 0))
        assert len(segmenter._held) <= 100


def test_a_frame_that_does_not_follow_is_refused() -> None:
    segmenter = Segmenter()
    first, _second, third = numbered_frames(3)
    segmenter.push(first, 0.0)
    with pytest.raises(ValueError, match="expected 320"):
        segmenter.push(third, 0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tail_ms": 200},
        {"hangover_ms": 100},
        {"threshold": 0.2, "release_threshold": 0.4},
        {"release_threshold": 0.0},
        {"max_utterance_ms": 3000},
        {"cut_window_ms": 5000},
        {"cut_window_ms": 2400},
        {"soft_pause_ms": 0, "tail_ms": 0},
        {"pre_roll_ms": -1},
    ],
)
def test_options_that_would_break_a_promise_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        SegmenterOptions(**wrong)
