"""Resampling: streamed equals whole, in place and in pitch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio.resample import StreamResampler, resample
from tests.audio.signals import joined, noise, tone


@given(
    st.sampled_from([(8_000, 16_000), (22_050, 24_000), (44_100, 16_000), (48_000, 16_000), (16_000, 16_000)]),
    st.lists(st.integers(0, 4000), min_size=1, max_size=8),
)
def test_streamed_equals_whole(rates: tuple[int, int], sizes: list[int]) -> None:
    samples = noise(sum(sizes))
    stream = StreamResampler(*rates)
    pieces = []
    position = 0
    for size in sizes:
        pieces.append(stream.push(samples[position : position + size]))
        position += size
    if rates[0] != rates[1]:
        pieces.append(stream.flush())
    assert np.array_equal(joined(pieces), resample(samples, *rates))


@pytest.mark.parametrize(("from_rate", "to_rate"), [(8_000, 16_000), (44_100, 16_000), (22_050, 24_000)])
def test_a_tone_stays_where_and_what_it_was(from_rate: int, to_rate: int) -> None:
    resampled = resample(tone(1.0, from_rate), from_rate, to_rate)
    assert len(resampled) == to_rate
    middle = slice(to_rate // 10, -to_rate // 10)
    assert np.abs(resampled - tone(1.0, to_rate))[middle].max() < 1e-4


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        StreamResampler(0, 16_000)
