"""Augmentation: a clean utterance in, the same one as some room, line and segmenter would give it, out. Numpy, pure.

Speed, a room's reverberation, a telephone's band or a microphone's colour, the cut before and after, background noise.
Also SpecAugment [Park et al. 2019, arXiv 1904.08779] on the features. Knows nothing of corpora or models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
from torch import Tensor

from lcm.space.fbank import SAMPLE_RATE

FloatArray = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class AugmentOptions:
    """How often and how much."""

    speed: float = 0.1
    """Largest change of speed and, with it, pitch"""
    reverberation_share: float = 0.35
    telephone_share: float = 0.12
    colour_share: float = 0.5
    noise_share: float = 0.55
    lowest_snr_db: float = 3.0
    highest_snr_db: float = 30.0
    longest_lead_ms: int = 400
    longest_tail_ms: int = 600
    masked_bins: int = 14
    masked_frames: int = 25


def resampled_at_speed(samples: FloatArray, rate: int, factor: float) -> FloatArray:
    """`samples` at 16 kHz, played `factor` times as fast."""
    return soxr.resample(samples, rate * factor, SAMPLE_RATE, quality="LQ").astype(np.float32, copy=False)


def augmented(
    speech: FloatArray, noises: Sequence[FloatArray], options: AugmentOptions, rng: np.random.Generator
) -> FloatArray:
    """`speech` [T] at 16 kHz, spoiled, with silence before and after it; any of the long `noises` may be drawn."""
    speech = speech * np.float32(0.1 / max(float(np.sqrt(np.mean(speech**2))), 1e-5))
    speech = _filtered(speech, options, rng)
    lead = int(rng.uniform(0, options.longest_lead_ms) * SAMPLE_RATE / 1000)
    tail = int(rng.uniform(0, options.longest_tail_ms) * SAMPLE_RATE / 1000)
    out = np.pad(speech, (lead, tail))
    # No microphone is ever silent: a bin of digital zeros would dominate the utterance's mean and deviation.
    out += _white(len(out), rng) * np.float32(0.1 * 10 ** (-rng.uniform(35, 75) / 20))
    if noises and rng.random() < options.noise_share:
        noise = _excerpt(noises[int(rng.integers(len(noises)))], len(out), rng)
        snr = rng.uniform(options.lowest_snr_db, options.highest_snr_db)
        level = float(np.sqrt(np.mean(noise**2)))
        out += noise * np.float32(0.1 * 10 ** (-snr / 20) / max(level, 1e-5))
    return out


def coloured_noises(rng: np.random.Generator, seconds: int = 30) -> list[FloatArray]:
    """Noise that falls by 0, 2, 4 and 6 dB an octave: from hiss to rumble."""
    count = seconds * SAMPLE_RATE
    spectrum = np.fft.rfft(_white(count, rng))
    hertz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE).clip(20)
    return [np.fft.irfft(spectrum * hertz ** (-slope / 2), count).astype(np.float32) for slope in (0.0, 0.7, 1.4, 2.0)]


def babble(voices: Sequence[FloatArray], rng: np.random.Generator, seconds: int = 30) -> FloatArray:
    """Some voices at once, over and over."""
    count = seconds * SAMPLE_RATE
    total = np.zeros(count, dtype=np.float32)
    for voice in voices:
        level = max(float(np.sqrt(np.mean(voice**2))), 1e-5)
        total += np.roll(np.resize(voice, count), int(rng.integers(count))) / np.float32(level)
    return total


def mask_features(features: Tensor, options: AugmentOptions, rng: np.random.Generator) -> Tensor:
    """SpecAugment: two bands and two stretches of [F, 80] at their mean, which is 0; in place."""
    frames, bins = features.shape
    for _ in range(2):
        width = int(rng.integers(options.masked_bins + 1))
        start = int(rng.integers(bins - width + 1))
        features[:, start : start + width] = 0
        length = min(int(rng.integers(options.masked_frames + 1)), frames // 10)
        start = int(rng.integers(frames - length + 1))
        features[start : start + length] = 0
    return features


def _filtered(speech: FloatArray, options: AugmentOptions, rng: np.random.Generator) -> FloatArray:
    """Room and line in one pass through the frequency domain."""
    reverberates = rng.random() < options.reverberation_share
    on_telephone = rng.random() < options.telephone_share
    is_coloured = rng.random() < options.colour_share
    if not (reverberates or on_telephone or is_coloured):
        return speech
    response = _room(rng) if reverberates else None
    size = _fast_size(len(speech) + (0 if response is None else len(response)))
    spectrum = np.fft.rfft(speech, size)
    if response is not None:
        spectrum *= np.fft.rfft(response, size)
    if on_telephone or is_coloured:
        spectrum *= _gains(len(spectrum), rng, telephone=on_telephone)
    return np.fft.irfft(spectrum, size)[: len(speech)].astype(np.float32, copy=False)


def _room(rng: np.random.Generator) -> FloatArray:
    """An impulse response: the direct sound, then noise that falls by 60 dB within 0.15–0.7 s."""
    decay = rng.uniform(0.15, 0.7)
    count = int(decay * 0.7 * SAMPLE_RATE)
    time = np.arange(count, dtype=np.float32) / SAMPLE_RATE
    response = _white(count, rng) * np.exp(np.float32(-6.9 / decay) * time)
    response *= np.float32(rng.uniform(0.1, 0.9)) / np.sqrt(np.sum(response**2))
    response[0] = 1.0
    return response


def _gains(count: int, rng: np.random.Generator, *, telephone: bool) -> FloatArray:
    """Gain of each of `count` frequencies: a smooth curve of ±8 dB, or a telephone's band."""
    hertz = np.linspace(0, SAMPLE_RATE / 2, count, dtype=np.float32)
    if telephone:
        low, high = rng.uniform(200, 400), rng.uniform(3000, 3800)
        edges = np.clip((hertz - low) / 100 + 1, 0, 1) * np.clip((high - hertz) / 200 + 1, 0, 1)
        return np.maximum(edges, 3e-3).astype(np.float32)
    knots = rng.uniform(-8, 8, 7)
    decibels = np.interp(hertz, (0, 250, 500, 1000, 2000, 4000, 8000), knots)
    return (10 ** (decibels / 20)).astype(np.float32)


def _excerpt(noise: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    start = int(rng.integers(max(len(noise) - count, 0) + 1))
    return np.resize(noise[start : start + count], count)


def _white(count: int, rng: np.random.Generator) -> FloatArray:
    return rng.standard_normal(count, dtype=np.float32)


def _fast_size(count: int) -> int:
    """The least 2ⁿ, 3·2ⁿ or 5·2ⁿ that is not below `count`."""
    power = 1 << max(count - 1, 1).bit_length()
    return min(size for size in (power, power * 3 // 4, power * 5 // 8) if size >= count)
