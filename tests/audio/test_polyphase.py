"""Polyphase resampling: streamed equals whole, in place, in pitch, without aliases, and soon."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio.polyphase import PolyphaseResampler
from tests.audio.signals import joined, noise, tone

RATES = [(24_000, 16_000), (8_000, 16_000), (24_000, 8_000), (48_000, 16_000), (16_000, 16_000)]


@given(st.sampled_from(RATES), st.lists(st.integers(0, 2000), min_size=1, max_size=12))
def test_streamed_equals_whole(rates: tuple[int, int], sizes: list[int]) -> None:
    samples = noise(sum(sizes))
    stream, whole = PolyphaseResampler(*rates), PolyphaseResampler(*rates)
    pieces = [stream.push(piece) for piece in np.split(samples, np.cumsum(sizes)[:-1])]
    expected = joined([whole.push(samples), whole.flush()])
    assert np.array_equal(joined([*pieces, stream.flush()]), expected)
    assert len(expected) == -(-len(samples) * rates[1] // rates[0])


@pytest.mark.parametrize("rates", RATES)
def test_a_tone_stays_where_and_what_it_was(rates: tuple[int, int]) -> None:
    stream = PolyphaseResampler(*rates)
    resampled = joined([stream.push(tone(1.0, rates[0])), stream.flush()])
    middle = slice(rates[1] // 10, -rates[1] // 10)
    assert np.abs(resampled - tone(1.0, rates[1]))[middle].max() < 1e-4


@pytest.mark.parametrize(("rates", "hertz"), [((24_000, 16_000), 8_200), ((24_000, 8_000), 4_100)])
def test_what_the_lower_rate_cannot_hold_is_gone(rates: tuple[int, int], hertz: float) -> None:
    resampled = PolyphaseResampler(*rates).push(tone(1.0, rates[0], hertz))
    assert np.abs(resampled[1000:-1000]).max() < 0.5 * 10 ** (-75 / 20)


@pytest.mark.parametrize(
    ("rates", "held_ms"), [((24_000, 16_000), 2.8), ((8_000, 16_000), 5.6), ((24_000, 8_000), 5.6)]
)
def test_no_more_than_half_the_filter_is_held_back(rates: tuple[int, int], held_ms: float) -> None:
    stream = PolyphaseResampler(*rates)
    for pieces in range(1, 20):
        given = pieces * rates[1] // 50 - sum(len(stream.push(noise(rates[0] // 50))) for _ in range(pieces))
        stream.flush()
        assert given / rates[1] * 1000 <= held_ms


def test_after_a_flush_a_new_stream_begins() -> None:
    stream = PolyphaseResampler(24_000, 16_000)
    first, second = (joined([stream.push(noise(1001)), stream.flush()]) for _ in range(2))
    assert np.array_equal(first, second)
    assert len(stream.flush()) == 0


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        PolyphaseResampler(16_000, 0)
