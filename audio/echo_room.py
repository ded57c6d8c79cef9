"""Echo room: a reply in, what a microphone hears of it out, through a simulated client, loudspeaker and room.

The client plays late, by another amount each time, and may stall in the middle; its loudspeaker is small and may
overdrive; the room answers with an exponentially fading noise (Polack's model, as in Jot and Chaigne 1991). For
measuring and testing the echo guard.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audio.frames import SAMPLE_RATE, VOICE_RATE, FloatArray
from audio.resample import resample

_REFLECTIONS_AFTER = SAMPLE_RATE // 500
"""The first wall is 30 cm away, there and back"""


@dataclass(frozen=True, slots=True)
class EchoRoom:
    """A client and where it stands."""

    gain_db: float
    """Of the echo against the reply as it was given out"""
    delay_ms: float
    jitter_ms: float = 0.0
    """Added to the delay, up to so much, another for every reply"""
    stall_ms: float = 0.0
    """Playback stops for so long, once in every reply"""
    reverberation_s: float = 0.3
    """Until the room's answer has faded by 60 dB"""
    direct_db: float = 0.0
    """The direct sound against the room's answer"""
    lowest_hz: float = 250.0
    highest_hz: float = 7000.0
    overdrive: float = 0.0
    """The loudest sample, in units of what the loudspeaker can do; 0: it can do anything"""
    seed: int = 0

    def hear(self, replies: list[tuple[int, FloatArray]], length: int) -> FloatArray:  # [length], 16 kHz
        """What the microphone hears of replies (24 kHz) that are given out at these samples (16 kHz)."""
        chance = np.random.default_rng(self.seed)
        answer = impulse_response(self.reverberation_s, self.direct_db, chance) * 10 ** (self.gain_db / 20)
        heard = np.zeros(length)
        for given_at, reply in replies:
            echo = convolve(self._played(reply, chance), answer)
            late_ms = self.delay_ms + chance.uniform(0, self.jitter_ms)
            start = given_at + round(late_ms * SAMPLE_RATE / 1000)
            heard[start : start + len(echo)] += echo[: max(0, length - start)]
        return heard.astype(np.float32)

    def _played(self, reply: FloatArray, chance: np.random.Generator) -> NDArray[np.float64]:
        """What comes out of the loudspeaker."""
        samples = resample(reply, VOICE_RATE, SAMPLE_RATE).astype(np.float64)
        stalled = int(chance.uniform(0.2, 0.8) * len(samples))
        pause = np.zeros(round(self.stall_ms * SAMPLE_RATE / 1000))
        samples = _band(np.concatenate([samples[:stalled], pause, samples[stalled:]]), self.lowest_hz, self.highest_hz)
        if not self.overdrive:
            return samples
        scale = self.overdrive / max(1e-9, float(np.abs(samples).max()))
        overdriven: NDArray[np.float64] = np.tanh(samples * scale) / scale
        return overdriven


def random_room(chance: np.random.Generator) -> EchoRoom:
    """A living room, an office, a kitchen: something people talk to machines in."""
    return EchoRoom(
        gain_db=chance.uniform(-25, 0),
        delay_ms=chance.uniform(0, 600),
        jitter_ms=chance.uniform(0, 40),
        stall_ms=chance.uniform(40, 200) if chance.random() < _STALLING else 0.0,
        reverberation_s=chance.uniform(0.15, 0.5),
        direct_db=chance.uniform(-6, 6),
        lowest_hz=chance.uniform(150, 400),
        highest_hz=chance.uniform(5000, 7900),
        overdrive=chance.uniform(0, 1.5) if chance.random() < _OVERDRIVEN else 0.0,
        seed=int(chance.integers(1 << 30)),
    )


def impulse_response(
    reverberation_s: float, direct_db: float, chance: np.random.Generator
) -> NDArray[np.float64]:  # [T]
    """The direct sound and noise that fades, of energy 1."""
    time = np.arange(int(reverberation_s * SAMPLE_RATE)) / SAMPLE_RATE
    response = chance.standard_normal(len(time)) * 10 ** (-3 * time / reverberation_s)
    response[:_REFLECTIONS_AFTER] = 0
    response *= 10 ** (-direct_db / 20) / np.linalg.norm(response)
    response[0] = 1
    return response / np.linalg.norm(response)


def convolve(samples: NDArray[np.float64], response: NDArray[np.float64]) -> NDArray[np.float64]:
    """Both, one after the other's measure."""
    length = len(samples) + len(response) - 1
    size = 1 << (length - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)[:length]


def _band(samples: NDArray[np.float64], lowest_hz: float, highest_hz: float) -> NDArray[np.float64]:
    """What a loudspeaker lets through: 12 dB an octave below, 24 above."""
    size = len(samples) + SAMPLE_RATE // 4
    hertz = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 1.0)
    passed = 1 / np.sqrt((1 + (lowest_hz / hertz) ** 4) * (1 + (hertz / highest_hz) ** 8))
    return np.fft.irfft(np.fft.rfft(samples, size) * passed, size)[: len(samples)]


_STALLING = 0.2
_OVERDRIVEN = 0.5
