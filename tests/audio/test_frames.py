"""Framing: the same frames however the stream is chopped."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from audio.frames import FRAME_SAMPLES, AudioFrame, Framer, from_pcm16, on_grid, to_pcm16
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


def test_lost_frames_leave_a_gap_on_the_clock() -> None:
    framer = Framer()
    first = list(framer.push(np.ones(700, np.float32)))
    framer.skip(3)
    later = list(framer.push(np.ones(700, np.float32)))
    assert [frame.start_sample for frame in first + later] == [0, 320, 5 * 320, 6 * 320]


def test_every_sixteen_bit_sample_survives() -> None:
    pcm = np.arange(-32768, 32768).astype(np.int16)
    assert np.array_equal(to_pcm16(from_pcm16(pcm)), pcm)


def test_what_lies_outside_is_clipped_and_the_grid_is_reached_in_one_step() -> None:
    samples = np.array([-2.0, -1.0, -0.25, 0.0, 0.25, 0.999999, 1.0, 2.0], dtype=np.float32)
    assert to_pcm16(samples).tolist() == [-32768, -32768, -8192, 0, 8192, 32767, 32767, 32767]
    assert np.abs(on_grid(samples) - samples.clip(-1, 1)).max() < 1e-4
    assert np.array_equal(on_grid(on_grid(samples)), on_grid(samples))
