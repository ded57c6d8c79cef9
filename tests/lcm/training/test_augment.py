"""Augmentation: what it adds is there, and what it must not touch stays."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lcm.space.fbank import SAMPLE_RATE
from lcm.training.augment import (
    AugmentOptions,
    FloatArray,
    augmented,
    babble,
    coloured_noises,
    mask_features,
    resampled_at_speed,
)

NONE = AugmentOptions(reverberation_share=0, telephone_share=0, colour_share=0, noise_share=0, speed=0)


def tone(hertz: float, seconds: float = 1.0) -> FloatArray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.float32)


def energy(samples: FloatArray, low: float, high: float) -> float:
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    return float(spectrum[(hertz >= low) & (hertz < high)].sum())


@pytest.mark.parametrize("seed", range(5))
def test_lead_and_tail_are_as_long_as_the_segmenters_and_never_digital_silence(seed: int) -> None:
    out = augmented(tone(440), [], NONE, np.random.default_rng(seed))
    added = len(out) - SAMPLE_RATE
    assert 0 <= added <= (NONE.longest_lead_ms + NONE.longest_tail_ms) * SAMPLE_RATE / 1000
    assert (out == 0).mean() < 0.01
    assert out.dtype == np.float32


def test_the_noise_keeps_its_distance_to_the_speech() -> None:
    options = replace(NONE, noise_share=1, lowest_snr_db=10, highest_snr_db=10, longest_lead_ms=0, longest_tail_ms=0)
    rng = np.random.default_rng(0)
    speech = tone(1_000)
    out = augmented(speech, coloured_noises(rng)[:1], options, rng)
    of_noise = energy(out, 2_000, 8_000) * 8 / 6  # white: as much in each hertz
    assert 10 * np.log10(energy(out, 900, 1_100) / of_noise) == pytest.approx(10, abs=0.5)


def test_the_telephone_takes_the_lows_and_the_highs() -> None:
    options = replace(NONE, telephone_share=1, longest_lead_ms=0, longest_tail_ms=0)
    mixed = tone(60) + tone(1_000) + tone(6_000)
    out = augmented(mixed, [], options, np.random.default_rng(0))
    for low, high in ((0, 90), (5_000, 8_000)):
        assert energy(out, low, high) < 1e-3 * energy(out, 900, 1_100)


def test_a_room_rings_on_but_keeps_the_length() -> None:
    options = replace(NONE, reverberation_share=1, longest_lead_ms=0, longest_tail_ms=0)
    click = np.zeros(SAMPLE_RATE, dtype=np.float32)
    click[1_000] = 1.0
    out = augmented(click, [], options, np.random.default_rng(3))
    assert len(out) == len(click)
    rings = float(np.sqrt(np.mean(out[1_010:2_600] ** 2)))
    assert rings > 5 * float(np.sqrt(np.mean(out[:900] ** 2)))


def test_faster_is_shorter_and_higher() -> None:
    faster = resampled_at_speed(tone(1_000), SAMPLE_RATE, 1.1)
    assert len(faster) == pytest.approx(SAMPLE_RATE / 1.1, abs=2)
    assert energy(faster, 1_080, 1_120) > 0.9 * energy(faster, 0, 8_000)


def test_masks_cover_whole_bins_or_whole_frames_and_not_everything() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        masked = mask_features(torch.ones(200, 80), AugmentOptions(), rng)
        bins, frames = (masked == 0).all(dim=0), (masked == 0).all(dim=1)
        assert ((masked == 0) == (bins[None] | frames[:, None])).all()
        assert bins.sum() <= 2 * AugmentOptions().masked_bins
        assert frames.sum() <= 200 // 5


def test_babble_is_of_all_its_voices() -> None:
    crowd = babble([tone(300), tone(2_000, 0.5)], np.random.default_rng(0), seconds=2)
    assert len(crowd) == 2 * SAMPLE_RATE
    assert energy(crowd, 280, 320) == pytest.approx(energy(crowd, 1_980, 2_020), rel=0.2)
