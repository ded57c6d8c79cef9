"""Step means: what each step gave in, a row of means and of how fast it went out. Knows nothing of what is learnt."""

import time
from collections.abc import Mapping

from torch import Tensor


class StepMeans:
    """Of the steps since it was made; sums stay on their device until a row is asked for."""

    def __init__(self, rate: str) -> None:
        """`rate` is what a row calls the amount that was read a second."""
        self._rate, self._started, self._steps, self._amount = rate, time.monotonic(), 0, 0.0
        self._sums: dict[str, Tensor] = {}

    @property
    def spent_s(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._started

    def add(self, terms: Mapping[str, Tensor], amount: float) -> None:
        """One step that read so much."""
        self._steps += 1
        self._amount += amount
        for name, value in terms.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.float()

    def row(self) -> dict[str, float]:
        """The means; empty if there was no step."""
        if not self._steps:
            return {}
        means = {name: round(float(total) / self._steps, 4) for name, total in self._sums.items()}
        return means | {self._rate: round(self._amount / self.spent_s, 1)}
