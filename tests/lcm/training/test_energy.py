"""The energy score: least where the samples are distributed as the truth is, and worked out by hand."""

import pytest
import torch
from pydantic import ValidationError

from lcm.training.energy import Energy, energy_score


def test_it_is_least_where_samples_follow_the_truth() -> None:
    generator = torch.Generator().manual_seed(0)
    truths = torch.randn(20_000, 4, generator=generator)
    samples = torch.randn(8, 20_000, 4, generator=generator)
    right = energy_score(samples, truths).mean()
    wrong = {"moved": samples + 0.3, "narrow": 0.7 * samples, "wide": 1.3 * samples, "the mean": 0 * samples}
    for name, drawn in wrong.items():
        assert energy_score(drawn, truths).mean() > right + 0.005, name


def test_by_hand() -> None:
    samples = torch.tensor([[[3.0, 4.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 0.0]]])  # lengths 5 and 0, 5 apart
    found = energy_score(samples, torch.zeros(1, 4))
    torch.testing.assert_close(found, torch.tensor([(5 / 2 - 5 / 2) / 2]))
    found = energy_score(samples, torch.tensor([[3.0, 4.0, 12.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([((12 + 13) / 2 - 5 / 2) / 2]))


def test_one_sample_is_refused() -> None:
    with pytest.raises(ValidationError, match="samples"):
        Energy(samples=1)
