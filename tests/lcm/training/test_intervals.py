"""Bootstrap over documents: known means, and intervals that know how many documents there are."""

import numpy as np
import pytest

from lcm.training.intervals import estimate


def test_the_mean_is_over_items_and_the_interval_over_documents() -> None:
    values = np.array([0.0] * 50 + [100.0] * 50)
    two = estimate(values, np.array([0] * 50 + [1] * 50))
    assert two is not None
    assert (two.mean, two.low, two.high, two.count, two.documents) == (50.0, 0.0, 100.0, 100, 2)
    many = estimate(values, np.arange(100))
    assert many is not None
    # the standard error of a mean of 100 coin tosses is 5
    assert many.high - many.low == pytest.approx(2 * 1.96 * 5, abs=2)


def test_weights_count() -> None:
    found = estimate(np.array([1.0, 4.0, 9.0]), np.array([0, 0, 0]), np.array([1.0, 2.0, 0.0]))
    assert found is not None
    assert found.mean == pytest.approx(3.0)
    assert found.count == 2


def test_what_was_not_measured_is_left_out() -> None:
    found = estimate(np.array([np.nan, 2.0]), np.array([0, 1]))
    assert found is not None
    assert (found.mean, found.count, found.documents) == (2.0, 1, 1)
    assert estimate(np.array([np.nan]), np.array([0])) is None


def test_the_same_values_have_the_same_interval() -> None:
    values = np.random.default_rng(1).random(40)
    assert estimate(values, np.arange(40) // 4) == estimate(values, np.arange(40) // 4)
