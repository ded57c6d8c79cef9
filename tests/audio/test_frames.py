"""Framing: the same frames however the stream is chopped."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from audio.frames import FRAME_SAMPLES, AudioFrame, Framer, from_pcm16, to_pcm16
from tests.audio.signals import joined, noise


@given(st.lists(st.integers(0, 1500), max_size=12))
def test_any_chopping_gives_the_same_frames(sizes: list[int]) -> None:
    samples = noise(sum(sizes))
    framer = Framer()
    frames: list[AudioFrame] = []
    position = 0
    for size in sizes:
        frames += framer.push(samples[position : position + size])
        position += size
    frames += framer.flush()
    assert [frame.start_sample for frame in frames] == [i * FRAME_SAMPLES for i in range(len(frames))]
    assert all(len(frame.samples) == FRAME_SAMPLES for frame in frames)
    stream = joined(frame.samples for frame in frames)
    assert np.array_equal(stream[: len(samples)], samples)
    assert not stream[len(samples) :].any()
    assert len(stream) - len(samples) < FRAME_SAMPLES


def test_frames_survive_a_caller_that_reuses_its_buffer() -> None:
    buffer = np.ones(FRAME_SAMPLES + 10, dtype=np.float32)
    framer = Framer()
    (first,) = framer.push(buffer)
    buffer[:] = 0.0
    (second,) = framer.flush()
    assert first.samples.all()
    assert second.samples[:10].all()


def test_pcm16_clips_and_returns_what_it_was_given() -> None:
    samples = np.array([-2.0, -1.0, -0.25, 0.0, 0.25, 1.0, 2.0], dtype=np.float32)
    pcm = to_pcm16(samples)
    assert pcm.tolist() == [-32767, -32767, -8192, 0, 8192, 32767, 32767]
    assert np.abs(from_pcm16(pcm) - samples.clip(-1, 1)).max() < 1e-4
