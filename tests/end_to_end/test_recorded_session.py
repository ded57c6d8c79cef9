"""The end-to-end snapshot: a session recorded once gives every event again, on any machine and at any speed.

When the turn machine changes on purpose, record it anew: `noema replay FILE --record`, and look at what changed.
"""

from pathlib import Path

import pytest

from agent.recordings.recorded import is_complete, read_event_lines
from agent.recordings.replay import EventComparer, replay_session

SESSION = Path(__file__).parents[1] / "recordings" / "first_words"


@pytest.mark.parametrize("speed", [None, 40.0])
async def test_a_session_recorded_elsewhere_gives_the_same_events(speed: float | None) -> None:
    lines = list(read_event_lines(SESSION / "events.jsonl"))
    comparer = EventComparer(iter(lines), "events.jsonl", complete=is_complete(SESSION))
    await replay_session(SESSION, speed=speed, listeners=[comparer])
    assert comparer.finish() == len(lines) > 10
