"""Metrics: how long each stage takes and how late the event loop runs, in bounded memory.

The only place where wall time counts. Nothing measured here ever reaches an event or a decision.
"""

import asyncio
import math
import resource
import sys
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from pathlib import Path

from agent.core.events import DomainEvent, ReplyAudio, Speculated, TurnCommitted

STAGES = ("encode", "think", "decode", "voice", "first_audio")
_KEPT = 4096
_TURNS = 64


def percentile(values: list[float], share: float) -> float | None:
    """The smallest value that `share` (0..1) of the values do not exceed: nearest rank. None for no values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass(slots=True)
class TurnTimes:
    """Measured times of one turn, in milliseconds; None where a stage did not run."""

    committed_at: float | None = None
    speculated: bool = False
    stages: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, float | None]:
        """Every stage, rounded to a tenth of a millisecond."""
        return {stage: round(self.stages[stage], 1) if stage in self.stages else None for stage in STAGES}


class Metrics:
    """Stage times by turn and over the session, and the lag of the loop."""

    def __init__(self) -> None:
        self._series: dict[str, deque[float]] = {stage: deque(maxlen=_KEPT) for stage in STAGES}
        self._turns: OrderedDict[int, TurnTimes] = OrderedDict()
        self.loop_lag_ms: deque[float] = deque(maxlen=_KEPT)
        self.speculated = 0
        """Replies begun at a pause that came to be used"""
        self.discarded = 0
        """Those that did not"""

    def _turn(self, turn: int) -> TurnTimes:
        times = self._turns.setdefault(turn, TurnTimes())
        while len(self._turns) > _TURNS:
            self._turns.popitem(last=False)
        return times

    def add(self, turn: int, stage: str, milliseconds: float) -> None:
        """Counts the first run of a stage in a turn: later sentences overlap with the voice before them."""
        times = self._turn(turn)
        if stage not in times.stages:
            times.stages[stage] = milliseconds
            self._series[stage].append(milliseconds)

    def observe(self, event: DomainEvent) -> None:
        """Follows events as they are decided: the wait for the first audio, and what becomes of speculation."""
        match event:
            case TurnCommitted():
                self._turn(event.turn).committed_at = time.perf_counter()
            case ReplyAudio():
                committed = self._turn(event.turn).committed_at
                if committed is not None:
                    self.add(event.turn, "first_audio", (time.perf_counter() - committed) * 1000)
            case Speculated(used=True):
                self.speculated += 1
                self._turn(event.turn).speculated = True
            case Speculated():
                self.discarded += 1
                self._turns.pop(event.turn, None)  # its number is used again
            case _:
                pass

    def was_speculated(self, turn: int) -> bool:
        """Whether a turn's reply was begun before the turn was over."""
        return turn in self._turns and self._turns[turn].speculated

    def turn(self, turn: int) -> dict[str, float | None]:
        """Measured times of a turn."""
        return self._turns.get(turn, TurnTimes()).as_json()

    def series(self) -> dict[str, list[float]]:
        """Every measurement kept, in milliseconds: one list a stage, and the loop's lag."""
        return {**{stage: list(values) for stage, values in self._series.items()}, "loop_lag": list(self.loop_lag_ms)}

    async def watch_loop(self, interval_s: float = 0.02) -> None:
        """Measures how late the loop wakes up, until cancelled."""
        while True:
            start = time.perf_counter()
            await asyncio.sleep(interval_s)
            self.loop_lag_ms.append(max(0.0, (time.perf_counter() - start - interval_s) * 1000))


def summary(series: dict[str, list[float]]) -> dict[str, dict[str, float | None]]:
    """Median and 95th percentile of each series."""
    return {
        name: {"p50": _rounded(percentile(values, 0.5)), "p95": _rounded(percentile(values, 0.95))}
        for name, values in series.items()
    }


def peak_rss_mb() -> float:
    """The most memory this process has held, in MB."""
    try:  # Linux hands `ru_maxrss` down to the programs that a process starts; this it does not
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1)
    except (OSError, ValueError, IndexError):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 * 1024 if sys.platform == "darwin" else 1024), 1)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
