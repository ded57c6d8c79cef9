"""What a client keeps until the server has it, and gives again after a cut."""

import base64
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.client.resume_queue import KEPT_EVENTS, KEPT_SAMPLES, ResumeQueue


def pcm(first: int, count: int) -> bytes:
    """Samples that tell which they are."""
    return b"".join((number % 65_536).to_bytes(2, "little") for number in range(first, first + count))


def taken(queue: ResumeQueue) -> list[Any]:
    """All that goes out: sound as bytes, other messages by their name."""
    found: list[Any] = []
    while (message := queue.take()) is not None:
        sound = message["type"] == "input_audio_buffer.append"
        found.append(base64.b64decode(message["audio"]) if sound else message["type"])
    return found


def begun() -> ResumeQueue:
    queue = ResumeQueue()
    queue.begin({"type": "session.update"})
    assert taken(queue) == ["session.update"]
    return queue


def test_what_the_server_has_is_not_sent_again_and_the_rest_is_in_its_order() -> None:
    queue = begun()
    queue.add_audio(pcm(0, 10))
    queue.add_event({"type": "second"})
    queue.add_audio(pcm(10, 10))
    queue.add_event({"type": "third"})
    taken(queue)
    queue.add_audio(pcm(20, 5))
    queue.resumed(15, 2)
    assert taken(queue) == [pcm(15, 5), "third", pcm(20, 5)]
    queue.resumed(20, 3)
    assert taken(queue) == [pcm(20, 5)]


def test_a_new_session_begins_with_nothing_of_the_old() -> None:
    queue = begun()
    queue.add_audio(pcm(0, 10))
    queue.add_event({"type": "noema.playback", "item_id": "old"})
    queue.begin({"type": "session.update"})
    assert taken(queue) == ["session.update"]


def test_of_where_playback_stands_only_the_newest_waits() -> None:
    queue = begun()
    for position in range(3):
        queue.add_event({"type": "noema.playback", "audio_ms": position})
    assert queue.take() == {"type": "noema.playback", "audio_ms": 2}
    queue.add_event({"type": "noema.playback", "audio_ms": 3})  # what was sent stays what it was
    assert queue.take() == {"type": "noema.playback", "audio_ms": 3}


def test_it_is_bounded_and_the_oldest_gives_way() -> None:
    queue = begun()
    for _ in range(40):
        queue.add_audio(bytes(2 * KEPT_SAMPLES // 30))
    assert len(taken(queue)) == 30
    for number in range(KEPT_EVENTS + 10):
        queue.add_event({"type": f"event {number}"})
    events = taken(queue)
    assert events[-1] == f"event {KEPT_EVENTS + 9}"
    queue.resumed(0, 0)
    again = [item for item in taken(queue) if isinstance(item, str)]
    assert again == [f"event {number}" for number in range(10, KEPT_EVENTS + 10)]


@given(st.data())
def test_cut_anywhere_the_server_has_everything_once(data: st.DataObject) -> None:
    """A server that keeps a prefix of what it got at each cut ends up with all of it, in order."""
    queue, sound, events = begun(), b"", ["session.update"]
    said, made = b"", ["session.update"]
    stored_samples, stored_events = 0, 1
    for number in range(data.draw(st.integers(1, 12))):
        if data.draw(st.booleans()):
            piece = pcm(len(said) // 2, data.draw(st.integers(1, 9)))
            said += piece
            queue.add_audio(piece)
        else:
            made.append(f"event {number}")
            queue.add_event({"type": made[-1]})
        if data.draw(st.booleans()):
            continue
        for item in taken(queue):
            if isinstance(item, bytes):
                sound += item
            else:
                events.append(item)
        if data.draw(st.booleans()):
            stored_samples = data.draw(st.integers(stored_samples, len(sound) // 2))
            stored_events = data.draw(st.integers(stored_events, len(events)))
            sound, events = sound[: 2 * stored_samples], events[:stored_events]
            queue.resumed(stored_samples, stored_events)
    for item in taken(queue):
        if isinstance(item, bytes):
            sound += item
        else:
            events.append(item)
    assert (sound, events) == (said, made)
