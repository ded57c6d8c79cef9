"""Batching: which of the waiting jobs the model runs next. Pure.

Committed work goes before speculative, urgent kinds before others, then first come, first served; a job that
runs in several steps goes back to the end of the line after each, so a long reply lets others in between.
Jobs of the same kind from *different* sessions share a batch. Jobs of one session never do: whether two of
them meet in the line depends on timing, and a replay must not. Nothing ever waits for a batch to fill.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

PATIENCE = 32
"""How many later jobs may overtake one of the next lower urgency: it waits, but not for ever."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the choice needs to know of a job."""

    job: int
    session: int
    batch_key: Hashable | None
    """Jobs with equal keys may share a batch; None: alone."""
    committed: bool
    urgency: int
    """0: someone waits for it; higher gives way for a while."""
    place: int
    """Place in the line."""


def next_batch(waiting: Sequence[Waiting], max_batch: int) -> list[int]:
    """The jobs to run now, the most pressing first; empty if none wait."""
    if not waiting:
        return []
    line = sorted(waiting, key=_rank)
    first = line[0]
    batch, sessions = [first.job], {first.session}
    if first.batch_key is None:
        return batch
    for other in line[1:]:
        if len(batch) >= max_batch:
            break
        if other.batch_key == first.batch_key and other.session not in sessions:
            batch.append(other.job)
            sessions.add(other.session)
    return batch


def to_shed(waiting: Sequence[Waiting], capacity: int) -> list[int]:
    """The speculative jobs to drop so that at most `capacity` wait, the newest first."""
    excess = len(waiting) - capacity
    if excess <= 0:
        return []
    speculative = sorted((w for w in waiting if not w.committed), key=lambda w: -w.place)
    return [w.job for w in speculative[:excess]]


def _rank(waiting: Waiting) -> tuple[bool, int]:
    return (not waiting.committed, waiting.place + PATIENCE * waiting.urgency)
