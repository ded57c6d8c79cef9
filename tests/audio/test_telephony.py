"""The wire's audio formats: exact where they can be, within their own error where not, however they are chopped."""

import io
import itertools
from typing import get_args

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from audio.frames import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE, VOICE_RATE, FloatArray, from_pcm16, to_pcm16
from audio.telephony import RATES, SAMPLE_BYTES, AudioDecoder, AudioEncoder, AudioFormat
from tests.audio.signals import joined, noise, tone

FORMATS: tuple[AudioFormat, ...] = get_args(AudioFormat)
COMPANDED = [("audio/pcmu", "ULAW"), ("audio/pcma", "ALAW")]


def decoded(audio_format: AudioFormat, content: bytes) -> FloatArray:
    decoder = AudioDecoder(audio_format)
    return joined([decoder.push(content), decoder.flush()])[decoder.delay :]


def encoded(audio_format: AudioFormat, samples: FloatArray) -> bytes:
    encoder = AudioEncoder(audio_format)
    return encoder.push(samples) + encoder.flush()


@given(st.sampled_from(FORMATS), st.lists(st.integers(0, 700), min_size=1, max_size=12))
def test_bytes_give_the_same_samples_however_they_are_chopped(audio_format: AudioFormat, sizes: list[int]) -> None:
    content = np.random.default_rng(1).bytes(sum(sizes))
    decoder = AudioDecoder(audio_format)
    bounds = [0, *np.cumsum(sizes)]
    pieces = [decoder.push(content[start:end]) for start, end in itertools.pairwise(bounds)]
    expected = decoded(audio_format, content)
    assert np.array_equal(joined([*pieces, decoder.flush()])[decoder.delay :], expected)
    sent = len(content) // SAMPLE_BYTES[audio_format]
    assert len(expected) == -(-sent * SAMPLE_RATE // RATES[audio_format])


@given(st.sampled_from(FORMATS), st.lists(st.integers(0, 700), min_size=1, max_size=12))
def test_a_reply_gives_the_same_bytes_however_it_is_chopped(audio_format: AudioFormat, sizes: list[int]) -> None:
    samples = noise(sum(sizes), level=0.3)
    encoder = AudioEncoder(audio_format)
    pieces = [encoder.push(piece) for piece in np.split(samples, np.cumsum(sizes)[:-1])]
    assert b"".join([*pieces, encoder.flush()]) == encoded(audio_format, samples)


@pytest.mark.parametrize("audio_format", FORMATS)
def test_an_encoder_begins_anew_after_each_reply(audio_format: AudioFormat) -> None:
    encoder = AudioEncoder(audio_format)
    first, second = (encoder.push(noise(1001)) + encoder.flush() for _ in range(2))
    assert first == second == encoded(audio_format, noise(1001))


@pytest.mark.parametrize(("audio_format", "subtype"), COMPANDED)
def test_every_code_and_every_sample_is_what_libsndfile_makes_of_it(audio_format: AudioFormat, subtype: str) -> None:
    from audio.telephony import _law

    law = _law(audio_format)
    for code in range(256):
        pcm, _ = sf.read(
            io.BytesIO(bytes([code])), dtype="int16", format="RAW", subtype=subtype, samplerate=8000, channels=1
        )
        assert law.decoded[code] == from_pcm16(pcm)[0]
    samples = np.random.default_rng(2).integers(-32768, 32768, 5000).astype(np.int16)
    file = io.BytesIO()
    sf.write(file, samples, 8000, format="RAW", subtype=subtype)
    assert law.encoded[samples.view(np.uint16)].tobytes() == file.getvalue()


@pytest.mark.parametrize(("audio_format", "subtype"), COMPANDED)
def test_companding_errs_by_half_a_step_at_most(audio_format: AudioFormat, subtype: str) -> None:
    from audio.telephony import _law

    law = _law(audio_format)
    samples = np.arange(-32768, 32768).astype(np.int16)
    again = to_pcm16(law.decoded[law.encoded[samples.view(np.uint16)]]).astype(int)
    # 16 steps an octave: 1/32 of the value is half a step; near zero, half of 8 or 16, and one for rounding.
    # Beyond the last code both laws clip.
    kept = np.abs(samples.astype(int)) <= 32_124
    bound = np.abs(samples.astype(int)) / 32 + (8 if subtype == "ULAW" else 17)
    assert (np.abs(again - samples) <= bound)[kept].all()
    assert (np.diff(again) >= 0).all()


@pytest.mark.parametrize(("audio_format", "error"), [("audio/pcm", 1e-4), ("audio/pcmu", 0.02), ("audio/pcma", 0.02)])
def test_a_tone_comes_back(audio_format: AudioFormat, error: float) -> None:
    back = decoded(audio_format, encoded(audio_format, tone(0.5, VOICE_RATE)))
    assert len(back) == SAMPLE_RATE // 2
    assert np.abs(back - tone(0.5, SAMPLE_RATE))[1000:-1000].max() < error


def test_pcm_is_little_endian_and_the_reply_passes_untouched() -> None:
    samples = from_pcm16(np.array([1, -2, 32767, -32768], dtype=np.int16))
    assert encoded("audio/pcm", samples) == bytes([1, 0, 254, 255, 255, 127, 0, 128])
    assert encoded("audio/pcm", np.array([2.0, -2.0], dtype=np.float32)) == bytes([255, 127, 0, 128])


def test_half_a_sample_waits_for_its_other_half_and_is_dropped_at_the_end() -> None:
    content = to_pcm16(noise(2400)).astype("<i2").tobytes()
    decoder = AudioDecoder("audio/pcm")
    one_by_one = [decoder.push(content[at : at + 1]) for at in range(len(content))]
    decoder.push(b"\x7f")
    first = joined([*one_by_one, decoder.flush()])
    second = joined([decoder.push(content), decoder.flush()])
    assert np.array_equal(first[decoder.delay :], decoded("audio/pcm", content))
    assert np.array_equal(second, first)


@pytest.mark.parametrize("audio_format", FORMATS)
def test_a_frame_of_bytes_gives_a_frame_of_samples_at_once_and_little_late(audio_format: AudioFormat) -> None:
    decoder = AudioDecoder(audio_format)
    frame = bytes(RATES[audio_format] * FRAME_MS // 1000 * SAMPLE_BYTES[audio_format])
    assert {len(decoder.push(frame)) for _ in range(50)} == {FRAME_SAMPLES}
    assert len(decoder.flush()) == decoder.delay < SAMPLE_RATE * 0.006
