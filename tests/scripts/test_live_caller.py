"""The live benchmark's caller: what counts as an interruption, as late, and as waiting."""

import base64
from typing import Any, cast

import pytest
from websockets.asyncio.client import ClientConnection

from scripts.bench_live import _figures, _gives_way
from scripts.live_caller import RATE, Caller, Manner, Told

SECOND = base64.b64encode(bytes(2 * RATE)).decode()


@pytest.fixture
def caller() -> Caller:
    """Its clock began at 0; a reply is under way, of which two seconds came at 1.02."""
    caller = Caller(cast(ClientConnection, None), [b""], Manner(1, 0, 0.0))
    caller._speech_ends = 0.5
    caller.take({"type": "input_audio_buffer.committed", "at_ms": 1000}, 1.0)
    caller.take({"type": "response.created", "response": {"id": "r1"}}, 1.01)
    for _ in range(2):
        caller.take(delta("r1"), 1.02)
    return caller


def delta(response: str) -> dict[str, Any]:
    return {"type": "response.output_audio.delta", "response_id": response, "delta": SECOND}


def started(at_ms: int) -> dict[str, Any]:
    return {"type": "input_audio_buffer.speech_started", "at_ms": at_ms}


def test_a_reply_is_waited_for_up_to_its_first_sound(caller: Caller) -> None:
    assert caller.told.after_hangover_ms == [pytest.approx(20)]
    assert caller.told.after_speech_ms == [pytest.approx(520)]


def test_a_reply_that_sounds_is_interrupted_and_what_comes_then_is_late(caller: Caller) -> None:
    caller._interrupted, caller._response = "r1", None
    caller.take(delta("r1"), 1.5)
    caller.take(started(2000), 2.005)
    caller.take(delta("r1"), 2.01)
    caller.take(started(3000), 3.005)
    assert caller.told.barge_in_ms == [pytest.approx(5)]
    assert caller.told.late_deltas == 1


def test_where_the_reply_is_over_or_nobody_interrupts_nothing_was_interrupted(caller: Caller) -> None:
    caller.take(started(2000), 2.005)
    caller._interrupted, caller._response = "r1", None
    caller.take(started(4000), 4.005)
    assert caller.told.barge_in_ms == []


def test_what_gives_way_is_named_with_the_cause_first() -> None:
    load = {"told": [], "server_cpu": 1.5, "loop_cpu": 0.9, "callers_cpu": 0.1, "lag_ms": 90.0, "rss_mb": 500.0}
    calm = load | {"told": [told(8.0, [])], "server_cpu": 0.1, "loop_cpu": 0.1, "lag_ms": 4.0}
    busy = load | {"told": [told(8.0, []), told(300.0, ["no reply to utterance 3"])]}
    one = _figures(calm)
    assert _gives_way(one, one) == []
    causes = _gives_way(_figures(busy), one)
    assert causes[0] == "the event loop's thread (0.9 of one core)"
    assert causes[-2:] == ["replies come late", "turns fail"]


def told(after_hangover_ms: float, failures: list[str]) -> dict[str, Any]:
    told = Told(after_hangover_ms=[after_hangover_ms], sent_late_ms=[1.0], failures=failures)
    return {name: getattr(told, name) for name in Told.__dataclass_fields__}
