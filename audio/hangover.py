"""Hangover: how long a silence must be to end what somebody says, from the pauses that he makes. Pure.

Somebody who halts between words is given more time, somebody fluent is answered sooner. Whole milliseconds only,
so that it is the same on every machine.
"""

from collections import deque

_REMEMBERED = 12
_ENOUGH = 4
"""Observations before the hangover may fall below what it began with"""
_STEP_MS = 20


class AdaptiveHangover:
    """The silence that ends an utterance, for one speaker.

    A quarter more than the second longest of his last pauses (one long pause is no habit), within bounds.
    """

    def __init__(self, initial_ms: int, bounds_ms: tuple[int, int]) -> None:
        self._initial_ms = initial_ms
        self._low_ms, self._high_ms = bounds_ms
        self._pauses: deque[int] = deque(maxlen=_REMEMBERED)
        self._paused = False

    @property
    def milliseconds(self) -> int:
        """The hangover now."""
        longest = sorted(self._pauses)[-2:]
        estimate = longest[0] * 5 // 4 if len(longest) > 1 else 0
        if len(self._pauses) < _ENOUGH:
            estimate = max(estimate, self._initial_ms)
        rounded = -(-estimate // _STEP_MS) * _STEP_MS
        return min(max(rounded, self._low_ms), self._high_ms)

    def paused(self, milliseconds: int) -> None:
        """Silence within what was said."""
        self._pauses.append(milliseconds)
        self._paused = True

    def ended(self) -> None:
        """An utterance is over."""
        if not self._paused:
            self._pauses.append(0)
        self._paused = False

    def ended_too_soon(self, milliseconds: int) -> None:
        """Speech came again so soon after an end that it may have been none; `milliseconds` since the speech before."""
        if milliseconds <= self._high_ms:
            self._pauses.append(milliseconds)
