"""Weights of the diffusion objective, worked out by hand."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from lcm.models.schedule import NoiseSchedule
from lcm.training.diffusion import importance, snr_weights


@dataclass(frozen=True)
class ThreeTimes(NoiseSchedule):
    """A tenth of noise, half, and nothing else."""

    def alphas_cumprod(self) -> Tensor:
        return torch.tensor([0.9, 0.5, 0.0])


def test_signal_to_noise_is_clamped_on_both_sides_and_one_in_the_mean() -> None:
    mean = (5 + 1 + 0.001) / 3  # 0.9 / 0.1 is 9, above 5; 0 / 1 is 0, below 0.001
    torch.testing.assert_close(snr_weights(ThreeTimes(), 5.0), torch.tensor([5 / mean, 1 / mean, 0.001 / mean]))
    assert float(snr_weights(NoiseSchedule(), 5.0).mean()) == pytest.approx(1)


def test_what_is_fragile_weighs_less() -> None:
    robust, fragile = 1 / (1 + math.exp(-3.5)), 1 / (1 + math.exp(0.5))
    mean = (robust + fragile) / 2
    found = importance(torch.tensor([0.0, float("nan"), 1.0]))
    torch.testing.assert_close(found, torch.tensor([robust / mean, 1.0, fragile / mean]))
