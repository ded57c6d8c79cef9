"""Recordings of sessions whose client is gone: what it said and was told is in there, and nobody waits for it long."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from agent.core.input_log import event_line
from agent.inference.models import Models
from agent.recordings.recorded import is_complete, read_event_lines, read_steps
from audio.frames import FloatArray
from tests.agent.server.running import Client, RunningServer, dialled, eventually, running, wire_sound
from tests.noema_command import Noema


@pytest.fixture
def sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "sessions"  # where `noema` looks as well
    folder.mkdir()
    monkeypatch.setenv("NOEMA_SESSIONS", str(folder))
    return folder


@pytest.fixture
def live(small_bundle: Path, sessions: Path) -> Iterator[RunningServer]:
    assert sessions.is_dir()
    with running(str(small_bundle), record=True, limits={"max_sessions": 1}) as server:
        yield server


@pytest.fixture
def speech(recording: Path) -> FloatArray:
    return wire_sound(recording)


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """The model finds the words for what was heard only once this is set: long after the reply."""
    decode, found = Models.decode, Event()

    def late(models: Models, requests: Any, *more: Any) -> Any:
        if any(request.index is None for request in requests):
            found.wait(60)
        return decode(models, requests, *more)

    monkeypatch.setattr(Models, "decode", late)
    yield found
    found.set()


def only(sessions: Path) -> Path:
    """The one recording there is."""
    (folder,) = sessions.iterdir()
    return folder


async def converse(client: Client, speech: FloatArray) -> None:
    """A turn that is typed and one that is spoken, up to the end of its reply."""
    await client.update(output_modalities=["text"])
    await client.ask("Write this down.")
    await client.speak(speech[: len(speech) // 2])
    await client.speak(0 * speech)
    await client.until("response.done")


async def test_a_client_that_leaves_after_the_reply_is_recorded_to_the_end(
    live: RunningServer, sessions: Path, speech: FloatArray, words: Event, noema: Noema
) -> None:
    async with dialled(live) as client:
        await converse(client, speech)
    await eventually(lambda: not live.server.gate.open)
    words.set()
    await eventually(live.idle)
    folder = only(sessions)
    assert is_complete(folder)
    replayed = await asyncio.to_thread(noema, "replay", folder, "--against", folder / "events.jsonl", "--json")
    assert replayed.code == 0, replayed.err
    turns: Any = replayed.json["turns"]
    assert [bool(turn["heard"]) for turn in turns] == [True, True]


async def test_what_is_still_written_down_takes_no_seat(live: RunningServer, speech: FloatArray, words: Event) -> None:
    async with dialled(live) as client:
        await converse(client, speech)
    await eventually(lambda: not live.server.gate.open)
    async with dialled(live):
        assert live.count("noema_detached_sessions") == 1
    words.set()
    await eventually(live.idle)


async def test_a_recording_is_waited_for_only_so_long(
    small_bundle: Path, sessions: Path, speech: FloatArray, words: Event
) -> None:
    with running(str(small_bundle), record=True, limits={"close_s": 0.2}) as server:
        async with dialled(server) as client:
            await converse(client, speech)
        await eventually(lambda: not server.count("noema_open_sessions"))
        assert not words.is_set()
        words.set()
    folder = only(sessions)
    assert not is_complete(folder)
    again = [event_line(event) for _, step in read_steps(folder) for event in step.events]
    assert again == list(read_event_lines(folder / "events.jsonl"))


async def test_a_server_that_stops_waits_for_the_recording(
    live: RunningServer, sessions: Path, speech: FloatArray, words: Event
) -> None:
    async with dialled(live) as client:
        await converse(client, speech)
        stopping = asyncio.create_task(live.call(live.talks.drain()))
        with pytest.raises(ConnectionClosed):
            await client.until("never")
        assert client.socket.close_code == 1012
    assert not stopping.done()
    words.set()
    await stopping
    folder = only(sessions)
    assert is_complete(folder)


async def test_a_server_that_stops_waits_for_those_who_left_before(
    live: RunningServer, sessions: Path, speech: FloatArray, words: Event
) -> None:
    async with dialled(live) as client:
        await converse(client, speech)
    await eventually(lambda: live.count("noema_detached_sessions"))
    stopping = asyncio.create_task(live.call(live.talks.drain()))
    words.set()
    await stopping
    folder = only(sessions)
    assert is_complete(folder)


async def test_a_server_that_stops_waits_no_longer_for_a_client_that_left(
    small_bundle: Path, sessions: Path, speech: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, encode = Event(), Models.encode_text
    monkeypatch.setattr(Models, "encode_text", lambda *args: (found.wait(60), encode(*args))[1])
    with running(str(small_bundle), record=True, limits={"close_s": 0.2, "drain_s": 600.0}) as server:
        async with dialled(server) as client:
            await client.type("This is never answered.")
            await client.until("response.created")
        await server.call(server.talks.drain())
        assert not server.count("noema_open_sessions")
        found.set()
    folder = only(sessions)
    assert not is_complete(folder)


async def test_a_second_signal_waits_for_no_recording(live: RunningServer, speech: FloatArray, words: Event) -> None:
    async with dialled(live) as client:
        await converse(client, speech)
    await eventually(lambda: live.count("noema_detached_sessions"))
    stopping = asyncio.create_task(live.call(live.talks.drain()))
    await eventually(lambda: live.talks._draining)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert live.count("noema_detached_sessions") == 1
    words.set()
    await eventually(live.idle)
