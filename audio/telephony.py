"""Telephony: what the wire carries ↔ samples, as a stream: `audio/pcm` (24 kHz, 16 bits), `audio/pcmu`, `audio/pcma`.

`AudioDecoder` receives bytes in pieces of any size and gives samples at 16 kHz; `AudioEncoder` receives a reply at
24 kHz and gives bytes. Both are called fifty times a second for every session, so G.711 is two tables, filled once
from libsndfile. Knows nothing of messages or base64.
"""

import io
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from audio.frames import SAMPLE_RATE, VOICE_RATE, FloatArray, from_pcm16, to_pcm16
from audio.polyphase import PolyphaseResampler

AudioFormat: TypeAlias = Literal["audio/pcm", "audio/pcmu", "audio/pcma"]

RATES: dict[AudioFormat, int] = {"audio/pcm": 24_000, "audio/pcmu": 8_000, "audio/pcma": 8_000}
"""Hertz, mono"""
SAMPLE_BYTES: dict[AudioFormat, int] = {"audio/pcm": 2, "audio/pcmu": 1, "audio/pcma": 1}
"""Bytes of a sample; those of 16 bits are little-endian"""

_COMPANDING: dict[AudioFormat, str] = {"audio/pcmu": "ULAW", "audio/pcma": "ALAW"}
"""libsndfile's names of the two laws of ITU-T G.711"""


class AudioDecoder:
    """Bytes of one stream → samples at 16 kHz, the same however the bytes were chopped.

    20 ms of bytes give 20 ms of samples at once: a frame held back for its last samples would come one message, 20 ms,
    later. The sound in them is late by `delay` instead, 3 to 5 ms; what a flush gives is longer by that.
    """

    def __init__(self, audio_format: AudioFormat) -> None:
        self._law = _law(audio_format) if audio_format in _COMPANDING else None
        self._resampler = PolyphaseResampler(RATES[audio_format], SAMPLE_RATE, prompt=True)
        self._odd = b""

    @property
    def delay(self) -> int:
        """By how many samples sound is late."""
        return self._resampler.delay

    def push(self, content: bytes) -> FloatArray:  # [T]
        """Give what is ready. Half a sample at the end waits for its other half."""
        if self._law is not None:
            return self._resampler.push(self._law.decoded[np.frombuffer(content, dtype=np.uint8)])
        content = self._odd + content
        whole = len(content) - len(content) % 2
        self._odd = content[whole:]
        return self._resampler.push(from_pcm16(np.frombuffer(content[:whole], dtype="<i2")))

    def flush(self) -> FloatArray:  # [T]
        """Give the last milliseconds. What is pushed next is a new stream; half a sample left over is dropped."""
        self._odd = b""
        return self._resampler.flush()


class AudioEncoder:
    """A reply at 24 kHz → bytes, the same however the reply was chopped."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self._law = _law(audio_format) if audio_format in _COMPANDING else None
        rate = RATES[audio_format]
        self._resampler = None if rate == VOICE_RATE else PolyphaseResampler(VOICE_RATE, rate)

    def push(self, samples: FloatArray) -> bytes:
        """Give what is ready."""
        return self._encoded(samples if self._resampler is None else self._resampler.push(samples))

    def flush(self) -> bytes:
        """Give the last milliseconds of a reply; another may follow."""
        return b"" if self._resampler is None else self._encoded(self._resampler.flush())

    def _encoded(self, samples: FloatArray) -> bytes:
        pcm = to_pcm16(samples)
        if self._law is None:
            return pcm.astype("<i2", copy=False).tobytes()
        return self._law.encoded[pcm.view(np.uint16)].tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class _Law:
    """Every value of G.711, both ways."""

    decoded: FloatArray  # [256]
    encoded: NDArray[np.uint8]  # [65536]
    """By the bits of a 16-bit sample"""


@cache
def _law(audio_format: AudioFormat) -> _Law:
    subtype = _COMPANDING[audio_format]
    rate = RATES[audio_format]
    every_code = io.BytesIO(bytes(range(256)))
    pcm, _ = sf.read(every_code, dtype="int16", format="RAW", subtype=subtype, samplerate=rate, channels=1)
    every_sample = np.arange(1 << 16, dtype=np.uint16).view(np.int16)
    codes = io.BytesIO()
    sf.write(codes, every_sample, rate, format="RAW", subtype=subtype)
    return _Law(from_pcm16(pcm), np.frombuffer(codes.getvalue(), dtype=np.uint8))
