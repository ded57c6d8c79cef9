"""Turns: several sides measured in one run, one after the other, so that all meet the same noise."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

SETTLE_S = 0.2
"""The threads of one side go on waiting for work for a moment; the other's turn begins after it"""


def taken_in_turns(sides: Mapping[str, Callable[[], float]], most: int, budget_s: float) -> dict[str, list[float]]:
    """What every side says it took, once a round, until `most` rounds are over or the time is spent."""
    rounds = list(_rounds(sides, most, budget_s))
    return {side: [one[side] for one in rounds] for side in sides}


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Of the rounds."""
    return rounded(statistics.median(a / b for a, b in zip(above, below, strict=True)))


def rounded(value: float) -> float:
    """Three digits."""
    return float(f"{value:.3g}")


def _rounds(sides: Mapping[str, Callable[[], float]], most: int, budget_s: float) -> Iterator[dict[str, float]]:
    deadline = time.monotonic() + budget_s
    for number in range(most):
        if number and time.monotonic() >= deadline:
            return
        taken = {}
        for side, call in sides.items():
            time.sleep(SETTLE_S)
            taken[side] = call()
        yield taken
