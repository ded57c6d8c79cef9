"""A session outlives its connection: nothing is said twice, nothing is lost, whether or not the server began anew."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from audio.frames import FloatArray
from tests.agent.server.running import Client, RunningServer, dialled, eventually, running, wire_sound

KEPT: dict[str, Any] = {"resume": True}
FRAME = 480
"""20 ms on the wire"""


@pytest.fixture(scope="module")
def live(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(str(small_bundle), store=tmp_path_factory.mktemp("store") / "resume.db") as server:
        yield server


@pytest.fixture
def speech(recording: Path) -> FloatArray:
    return wire_sound(recording)


async def begin(client: Client, **noema: Any) -> str:
    """A session that is kept; the token that opens it again."""
    updated = await client.update(output_modalities=["text"], noema={**KEPT, **noema})
    return str(updated["session"]["noema"]["resume"]["token"])


async def take_up(client: Client, token: str, after: str | None) -> dict[str, Any]:
    """Asks for a session; the answer."""
    client.told.clear()
    await client.say(
        "session.update", session={"type": "realtime", "noema": {"resume": {"token": token, "after_event": after}}}
    )
    event = await client.hear()
    assert event["type"] in ("noema.resumed", "error")
    return event


def numbers(client: Client) -> list[int]:
    """Of the events that are kept, in the order in which they came."""
    return [int(event["event_id"].split("_")[1]) for event in client.told if event["event_id"].count("_") == 1]


async def test_what_was_missed_comes_once_and_in_order(live: RunningServer) -> None:
    async with dialled(live) as client:
        token = await begin(client)
        await client.ask("What is your name?")
        seen = client.told[5]["event_id"]
        missed = [event for event in client.told if int(event["event_id"].split("_")[1]) > 6]
        session = client.told[0]["session"]["id"]
    async with dialled(live) as client:
        resumed = await take_up(client, token, seen)
        assert (resumed["session"]["id"], resumed["after_event"]) == (session, seen)
        assert (resumed["client_events"], resumed["input_audio_samples"]) == (3, 0)
        while len(client.told) <= len(missed):
            await client.hear()
        assert client.told[1:] == missed
        await client.ask("And how old are you?")
        assert numbers(client) == list(range(7, 7 + len(client.told) - 1))


async def test_the_conversation_goes_on_where_it_was(live: RunningServer) -> None:
    async with dialled(live) as client:
        token = await begin(client)
        await client.ask("Remember this.")
        last = client.told[-1]["event_id"]
        items = [event["item"]["id"] for event in client.told if event["type"] == "conversation.item.done"]
    async with dialled(live) as client:
        await take_up(client, token, last)
        for item in items:
            await client.say("conversation.item.retrieve", item_id=item)
            assert (await client.until("conversation.item.retrieved"))["item"]["id"] == item


async def test_sound_goes_on_at_the_sample_that_the_server_has(live: RunningServer, speech: FloatArray) -> None:
    cut = len(speech) // 3
    async with dialled(live) as client:
        token = await begin(client)
        await client.speak(speech[:cut])
        await client.until("input_audio_buffer.speech_started")
        client.socket.transport.abort()
    async with dialled(live) as client:
        resumed = await take_up(client, token, None)
        kept = resumed["input_audio_samples"]
        assert kept % FRAME == 0
        assert 0 < kept <= cut
        await client.speak(speech[kept:])
        done = await client.until("response.done")
        assert done["response"]["status"] in ("completed", "cancelled")
        assert client.kinds().count("input_audio_buffer.speech_started") <= 2  # two sentences


async def test_a_commit_counts_every_sample_before_it(live: RunningServer, speech: FloatArray) -> None:
    odd = speech[: FRAME * 60 + 17]
    async with dialled(live) as client:
        token = await begin(client)
        await client.update(audio={"input": {"turn_detection": None}})
        await client.speak(odd)
        await client.say("input_audio_buffer.commit")
        await client.until("input_audio_buffer.committed")
        client.socket.transport.abort()
    async with dialled(live) as client:
        resumed = await take_up(client, token, None)
        assert resumed["input_audio_samples"] == len(odd)
        assert resumed["client_events"] == 3


async def test_a_reply_goes_on_while_nobody_is_there(live: RunningServer) -> None:
    async with dialled(live) as client:
        token = await begin(client)
        await client.type("Tell me something.")
        created = await client.until("response.created")
        client.socket.transport.abort()
    async with dialled(live) as client:
        await take_up(client, token, created["event_id"])
        done = await client.until("response.done")
        assert done["response"]["id"] == created["response"]["id"]
        assert done["response"]["status"] == "completed"


async def test_whoever_held_the_session_before_is_parted(live: RunningServer) -> None:
    async with dialled(live) as old, dialled(live) as new:
        token = await begin(old)
        assert (await take_up(new, token, None))["type"] == "noema.resumed"
        with pytest.raises(ConnectionClosed):
            await old.until("never")
        assert old.socket.close_code == 4001
        assert (await new.ask("Who is there?"))["status"] == "completed"


@pytest.mark.parametrize("after", ["event_9999", "nonsense", ""])
async def test_a_place_that_never_was_is_unknown(live: RunningServer, after: str) -> None:
    async with dialled(live) as client:
        token = await begin(client)
    async with dialled(live) as client:
        assert (await take_up(client, token, after))["error"]["code"] == "noema_resume_unknown"
        assert (await client.ask("Still there?"))["status"] == "completed"
    async with dialled(live) as client:  # the session itself took no harm
        assert (await take_up(client, token, None))["type"] == "noema.resumed"


async def test_a_token_that_opens_nothing_leaves_the_fresh_session(live: RunningServer) -> None:
    async with dialled(live) as client:
        assert (await take_up(client, "no such token", None))["error"]["code"] == "noema_resume_unknown"
        token = await begin(client)
        assert token


async def test_what_else_was_asked_for_holds_for_the_fresh_session(live: RunningServer) -> None:
    async with dialled(live) as client:
        lost = {"resume": {"token": "no such token"}, "reply_language": "fra", "meter": True}
        told = await client.update(output_modalities=["text"], noema=lost)
        assert [event["type"] for event in client.told[-2:]] == ["error", "session.updated"]
        assert told["session"]["output_modalities"] == ["text"]
        assert told["session"]["noema"]["reply_language"] == "fra"
        assert told["session"]["noema"]["resume"] is None
        token = await begin(client)
    async with dialled(live) as client:
        assert (await take_up(client, token, None))["client_events"] == 2


async def test_the_token_of_a_session_that_is_not_kept_opens_nothing(live: RunningServer) -> None:
    async with dialled(live) as one, dialled(live) as two:
        await one.update(noema={})
        assert (await take_up(two, "", None))["error"]["code"] == "noema_resume_unknown"


async def test_after_the_first_sound_it_is_too_late(live: RunningServer, speech: FloatArray) -> None:
    async with dialled(live) as client:
        await client.speak(speech[:24_000])
        await client.say("session.update", session={"type": "realtime", "noema": KEPT})
        assert (await client.until("error"))["error"]["code"] == "noema_resume_too_late"


async def test_a_session_waits_for_its_client_and_then_in_the_store(small_bundle: Path, tmp_path: Path) -> None:
    limits = {"detached_s": 0.0}
    with running(str(small_bundle), store=tmp_path / "resume.db", limits=limits) as server:
        async with dialled(server) as client:
            token = await begin(client)
            await client.ask("Remember this.")
            last = client.told[-1]["event_id"]
        await eventually(server.idle)
        async with dialled(server) as client:
            assert (await take_up(client, token, last))["client_events"] == 3
            assert (await client.ask("Do you?"))["status"] == "completed"
            assert numbers(client)[0] == int(last.split("_")[1]) + 1


async def test_only_so_many_wait_in_memory(small_bundle: Path, tmp_path: Path) -> None:
    limits = {"max_detached": 2}
    with running(str(small_bundle), store=tmp_path / "resume.db", limits=limits) as server:
        tokens = []
        for _ in range(4):
            async with dialled(server) as client:
                tokens.append(await begin(client))
        await eventually(lambda: server.count("noema_open_sessions") == 2)
        assert server.count("noema_detached_sessions") == 2
        for token in tokens:
            async with dialled(server) as client:
                assert (await take_up(client, token, None))["type"] == "noema.resumed"


async def test_it_goes_on_after_the_server_began_anew(small_bundle: Path, tmp_path: Path, speech: FloatArray) -> None:
    store = tmp_path / "resume.db"
    with running(str(small_bundle), store=store) as server:
        async with dialled(server) as client:
            token = await begin(client)
            await client.ask("Remember this.")
            await client.speak(speech[: len(speech) // 2])
            await client.until("input_audio_buffer.speech_started")
            parting = asyncio.create_task(server.call(server.talks.drain()))
            with pytest.raises(ConnectionClosed):
                await client.until("never")
            assert client.socket.close_code == 1012
            last = client.told[-1]["event_id"]
            await parting
    with running(str(small_bundle), store=store) as server:
        async with dialled(server) as client:
            resumed = await take_up(client, token, last)
            assert resumed["client_events"] == 3
            await client.speak(speech[resumed["input_audio_samples"] :])
            await client.until("input_audio_buffer.speech_stopped")  # a reply that had begun before is over by then
            await client.until("response.done")
            assert numbers(client)[0] == int(last.split("_")[1]) + 1


async def test_who_comes_back_while_the_session_leaves_for_the_store_finds_it_there(live: RunningServer) -> None:
    async with dialled(live) as client:
        token = await begin(client)
        await client.ask("Remember this.")
        session_id, last = client.told[0]["session"]["id"], client.told[-1]["event_id"]
    await eventually(lambda: live.count("noema_detached_sessions"))
    gone = asyncio.Event()

    async def leave() -> None:
        session = live.talks.session(session_id)
        assert session is not None
        session._recording.close = gone.wait  # type: ignore[method-assign, assignment]  # a long recording
        live.talks._end(session)

    await live.call(leave())
    async with dialled(live) as client:
        coming_back = asyncio.create_task(take_up(client, token, last))
        await eventually(lambda: session_id in live.talks._coming_back)
        live.loop.call_soon_threadsafe(gone.set)
        assert (await coming_back)["type"] == "noema.resumed"
        assert (await client.ask("And this."))["status"] == "completed"


async def test_a_session_that_ends_while_its_client_comes_back_keeps_nobody_waiting(live: RunningServer) -> None:
    async with dialled(live) as client:
        token = await begin(client)
        await client.ask("Remember this.")
        session_id, last = client.told[0]["session"]["id"], client.told[-1]["event_id"]
    await eventually(lambda: live.count("noema_detached_sessions"))

    async def stick() -> None:
        session = live.talks.session(session_id)
        assert session is not None
        session._uplink._given += 1  # something that was given is never taken

    await live.call(stick())
    async with dialled(live) as client:
        coming_back = asyncio.create_task(take_up(client, token, last))
        await eventually(lambda: session_id in live.talks._coming_back)
        live.loop.call_soon_threadsafe(live.talks._running[session_id].cancel)
        assert (await coming_back)["error"]["code"] == "noema_resume_unknown"
    async with dialled(live) as client:
        assert (await take_up(client, token, last))["type"] == "noema.resumed"


async def test_whoever_comes_back_waits_for_nobody_elses_session(live: RunningServer) -> None:
    async with dialled(live) as client:
        stuck = await begin(client)
        session_id = client.told[0]["session"]["id"]
    async with dialled(live) as client:
        other = await begin(client)
    await eventually(lambda: live.count("noema_detached_sessions") >= 2)

    async def stick() -> None:
        session = live.talks.session(session_id)
        assert session is not None
        session._uplink._given += 1  # something that was given is never taken

    await live.call(stick())
    async with dialled(live) as one, dialled(live) as two:
        waiting = asyncio.create_task(take_up(one, stuck, None))
        await eventually(lambda: session_id in live.talks._coming_back)
        assert (await take_up(two, other, None))["type"] == "noema.resumed"
        assert not waiting.done()
        live.loop.call_soon_threadsafe(live.talks._running[session_id].cancel)
        assert (await waiting)["type"] == "error"
    await eventually(lambda: not live.talks._coming_back)


async def test_a_session_that_its_client_wants_forgotten_is_nowhere_once_that_is_told(live: RunningServer) -> None:
    store = live.talks._house.store
    assert store is not None
    async with dialled(live) as client:
        token = await begin(client)
        await client.ask("Forget this.")
        session_id = client.told[0]["session"]["id"]
        assert await live.call(store.load(session_id)) is not None
        told = await client.update(noema={"resume": False})
        assert told["session"]["noema"]["resume"] is None
        assert await live.call(store.find(token)) is None
        assert (await client.ask("And go on."))["status"] == "completed"
        assert numbers(client) == list(range(1, len(client.told) + 1))
        assert await live.call(store.load(session_id)) is None
    await eventually(lambda: live.talks.session(session_id) is None)  # it ends with its connection, as others do
    async with dialled(live) as client:
        assert (await take_up(client, token, None))["error"]["code"] == "noema_resume_unknown"


async def test_a_client_may_leave_at_once_when_it_wants_its_session_forgotten(live: RunningServer) -> None:
    store = live.talks._house.store
    assert store is not None
    async with dialled(live) as client:
        token = await begin(client)
        await client.ask("Forget this.")
        await client.say("session.update", session={"type": "realtime", "noema": {"resume": False}})

    async def known() -> bool:
        return await store.find(token) is not None

    async with asyncio.timeout(30):
        while await live.call(known()):  # noqa: ASYNC110 - it happens on another thread's loop
            await asyncio.sleep(0.01)


async def test_a_session_whose_client_closes_as_it_should_is_kept_all_the_same(live: RunningServer) -> None:
    async with dialled(live) as client:
        token = await begin(client)
        await client.socket.close(1000)
    async with dialled(live) as client:
        assert (await take_up(client, token, None))["type"] == "noema.resumed"
