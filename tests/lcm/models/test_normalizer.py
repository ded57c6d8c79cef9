"""The normaliser: σ from the interquartile range, dead dimensions floored, exact inverse."""

from typing import Any

import numpy as np
import torch

from lcm.models.normalizer import IQR_OF_UNIT_GAUSSIAN, Normalizer


def gaussian(rows: int = 200_000) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(0)
    spread = np.array([0.5, 1.0, 2.0, 1.0])
    concepts: np.ndarray[Any, np.dtype[np.float32]] = (3.0 + rng.standard_normal((rows, 4)) * spread).astype(np.float32)
    return concepts


def test_the_iqr_of_a_gaussian_is_1_349_sigma() -> None:
    concepts = gaussian()
    low, high = np.quantile(concepts[:, 2] / 2.0, (0.25, 0.75))
    assert abs((high - low) - IQR_OF_UNIT_GAUSSIAN) < 0.01

    fitted = Normalizer.fitted(concepts)

    torch.testing.assert_close(fitted.scale, torch.tensor([0.5, 1.0, 2.0, 1.0]), rtol=0.01, atol=0)
    torch.testing.assert_close(fitted.centre, torch.full((4,), 3.0), rtol=0, atol=0.02)
    normalised = fitted(torch.from_numpy(concepts))
    torch.testing.assert_close(normalised.std(dim=0), torch.ones(4), rtol=0.01, atol=0)


def test_outliers_do_not_move_it() -> None:
    concepts = gaussian()
    spoiled = concepts.copy()
    spoiled[:100] = 1e4
    torch.testing.assert_close(Normalizer.fitted(spoiled).scale, Normalizer.fitted(concepts).scale, rtol=0.01, atol=0)


def test_a_dead_dimension_gets_a_floor() -> None:
    concepts = gaussian(1_000)
    concepts[:, 1] = 7.0
    fitted = Normalizer.fitted(concepts)
    assert 0.05 < float(fitted.scale[1]) < 0.2
    assert float(fitted(torch.from_numpy(concepts))[:, 1].abs().max()) == 0.0


def test_all_dead_still_divides() -> None:
    fitted = Normalizer.fitted(np.full((10, 3), 2.0, dtype=np.float32))
    assert bool((fitted.scale > 0).all())


def test_inverse_undoes_it() -> None:
    concepts = torch.from_numpy(gaussian(100))
    fitted = Normalizer.fitted(concepts.numpy())
    torch.testing.assert_close(fitted.inverse(fitted(concepts)), concepts)


def test_it_is_saved_with_the_model() -> None:
    fitted = Normalizer.fitted(gaussian(1_000))
    other = Normalizer(4)
    other.load_state_dict(fitted.state_dict())
    torch.testing.assert_close(other.scale, fitted.scale)
