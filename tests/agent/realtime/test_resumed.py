"""A live session cut off anywhere goes on as if nothing had been, on the wire too: the same messages, the same ids."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core.inputs import InputEnded
from agent.core.kept_core import KeptCore
from agent.core.turn import TurnMachine
from agent.core.turn_options import TurnOptions
from agent.live.live_core import event_of, text_of
from agent.realtime.core import RealtimeCore
from agent.realtime.machine import RealtimeMachine
from agent.realtime.messages import to_json
from agent.realtime.problems import ProtocolError
from agent.store.store_database import StoreDatabase, StoreLimits, open_database
from tests.agent.cut_talk import Delivery, Talk, check_goes_on, cuts
from tests.agent.realtime.client import DEFAULTS

OPTIONS = TurnOptions(interruptible=True, assume_playback=True, speculation=True, adaptive_hangover=True)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreDatabase]:
    opened = open_database(tmp_path_factory.mktemp("store") / "resume.db", StoreLimits(), lambda: 0.0, pytest.fail)
    yield opened
    opened.close()


def client_events(number: int) -> list[dict[str, Any]]:
    """What a client may say; ids as the server counts them, so that some exist."""
    item = f"item_test_{number}"
    noema = {"concepts": True, "reply_language": ("fra", "deu")[number % 2]}
    audio = {"output": {"format": {"type": "audio/pcmu"}}, "input": {"turn_detection": None}}
    text = {
        "type": "message",
        "role": ("user", "system")[number % 2],
        "content": [{"type": "input_text", "text": "Hi."}],
    }
    return [
        {"type": "session.update", "session": {"type": "realtime", "noema": noema}},
        {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"]}},
        {"type": "session.update", "session": {"type": "realtime", "audio": audio if number % 3 else None}},
        {"type": "conversation.item.create", "item": text},
        {"type": "conversation.item.create", "item": text, "previous_item_id": item},
        {"type": "conversation.item.delete", "item_id": item},
        {"type": "conversation.item.retrieve", "item_id": item},
        {"type": "conversation.item.truncate", "item_id": item, "content_index": 0, "audio_end_ms": 60 * number},
        {"type": "noema.playback", "item_id": item, "audio_ms": 60 * number},
        {"type": "input_audio_buffer.commit", "event_id": f"mine {number}"},
        {"type": "input_audio_buffer.clear"},
        {"type": "response.create", "response": {"metadata": {"a": "b"}}},
        {"type": "response.create"},
        {"type": "response.cancel"},
    ]


def said(number: int) -> Any:
    events = client_events(number // 20)
    if number % 20 >= len(events):
        return ProtocolError("invalid_json", "not JSON", None, "mine")
    return event_of(json.dumps(events[number % 20]))


ACTIONS = (*(8 * ("client",)), *(2 * ("speech", "silence", "answer", "answer", "pause")), "catch up", *(6 * ("store",)))
SCRIPTS = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 199)), min_size=20, max_size=60)


@settings(deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(script=SCRIPTS)
def test_a_session_goes_on_from_every_batch(database: StoreDatabase, script: list[tuple[str, int]]) -> None:
    core = RealtimeCore(TurnMachine(OPTIONS), RealtimeMachine("sess_test", DEFAULTS))
    kept = KeptCore(core, text_of)
    talk = Talk(kept, np.random.default_rng(len(script)), said)
    kept.begin()
    session_id = f"session {id(talk)}"
    with database.transaction():
        database.create(session_id, session_id.encode())
    delivery = Delivery(talk, database, session_id, lambda message: to_json(message, "event"), (event_of, text_of))
    short = [(action, number if action == "client" else number % 10) for action, number in script]
    found = list(cuts(talk, delivery, [*short, ("store", 0)]))
    talk.take(InputEnded(kept.sample))
    talk.catch_up()
    for taken, sent, back in found:
        check_goes_on(talk, delivery, taken, sent, back)
    with database.transaction():
        database.delete(session_id)
