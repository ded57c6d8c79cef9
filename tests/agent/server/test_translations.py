"""The translation endpoint on the real server: listeners of a session, and interpreters of one client."""

import asyncio
import base64
import json
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from audio.frames import FloatArray
from tests.agent.server.running import Client, RunningServer, dialled, eventually, running, wire_sound

SOUND = "session.output_audio.delta"
WORDS = "session.output_transcript.delta"
LIMITS = {"max_listeners": 4, "max_listener_languages": 2, "outbox_bytes": 262_144, "close_s": 1.0}


@pytest.fixture(scope="module")
def live(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    store = tmp_path_factory.mktemp("store") / "sessions.sqlite"
    with running(str(small_bundle), store=store, limits=LIMITS) as server:
        yield server


@pytest.fixture(autouse=True)
async def _nothing_is_left(live: RunningServer) -> AsyncGenerator[None, None]:
    yield
    await eventually(lambda: not live.server.gate.open)
    assert live.count("noema_listeners") == 0


async def shared(owner: Client, **noema: Any) -> tuple[str, str]:
    """A session that others may listen to: its id and their token."""
    updated = await owner.update(output_modalities=["text"], noema={"listeners": True, **noema})
    return updated["session"]["id"], updated["session"]["noema"]["listeners"]["token"]


@asynccontextmanager
async def listening(
    live: RunningServer, session: str, token: str | None, *, more: dict[str, Any] | None = None, **query: str
) -> AsyncGenerator[Client, None]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{live.url}/translations?{urlencode({'session': session, **query})}"
    async with connect(url, additional_headers=headers, compression=None, proxy=None, **(more or {})) as socket_:
        yield Client(socket_)


@asynccontextmanager
async def interpreted(live: RunningServer) -> AsyncGenerator[Client, None]:
    async with connect(f"{live.url}/translations", compression=None, proxy=None) as socket_:
        yield Client(socket_)


async def closed(client: Client) -> int:
    """The code with which a connection ends."""
    while (code := client.socket.close_code) is None:
        with suppress(ConnectionClosed):
            await client.hear()
    return code


def sound_of(client: Client) -> FloatArray:
    content = b"".join(base64.b64decode(event["delta"]) for event in client.told if event["type"] == SOUND)
    return np.frombuffer(content, "<i2").astype(np.float32)


# Listeners


async def test_listeners_follow_a_session_each_in_a_language_of_its_own(live: RunningServer) -> None:
    async with dialled(live) as owner:
        session, token = await shared(owner)
        async with (
            listening(live, session, token, language="deu") as german,
            listening(live, session, token, language="fr", source="speaker", audio="false") as french,
        ):
            created = await german.until("session.created")
            assert created["session"]["languages"] == ["eng", "fra", "spa", "deu"]
            assert created["session"]["listening_to"] == session
            await french.until("session.created")
            assert (await owner.until("noema.listeners", count={"deu": 1, "fra": 1}))["count"]
            await owner.ask("The cat is hungry.")
            assert (await french.until(WORDS))["language"] == "fra"
            while (event := await german.until(WORDS))["speaker"] != "agent":
                assert event["language"] == "deu"
            await german.until(SOUND)
            assert np.abs(sound_of(german)).max() > 1000
        await owner.until("noema.listeners", count={})
        assert SOUND not in french.kinds()


async def test_the_link_holds_all_that_a_listener_needs(live: RunningServer) -> None:
    async with dialled(live) as owner:
        updated = await owner.update(noema={"listeners": True})
        offer = updated["session"]["noema"]["listeners"]
        link = urlsplit(offer["url"])
        fragment = {name: values[0] for name, values in parse_qs(link.fragment).items()}
        assert (link.netloc, link.path, link.query) == (f"127.0.0.1:{live.port}", "/listen", "")
        assert offer["qr_svg"].startswith("<svg")
        async with listening(live, fragment["session"], fragment["token"]) as listener:
            created = await listener.until("session.created")
            assert created["session"]["audio"]["output"]["language"] == "eng"  # what is spoken there


@pytest.mark.parametrize(
    ("query", "status", "told"),
    [
        ({"session": "sess_unknown", "language": "deu"}, 404, b"No such session"),
        ({"language": "deu", "token": "wrong"}, 401, b"token"),
        ({"language": "deu", "token": None}, 401, b"token"),
        ({"language": "klingon"}, 400, b"eng, fra, spa, deu"),
        ({"language": "deu", "source": "everyone"}, 400, b"speaker, agent, both"),
        ({"language": "deu", "audio": "loud"}, 400, b"true or false"),
    ],
)
async def test_who_may_not_listen_is_told_why(
    live: RunningServer, query: dict[str, Any], status: int, told: bytes
) -> None:
    async with dialled(live) as owner:
        session, token = await shared(owner)
        asked = {"session": session, "token": token} | query
        with pytest.raises(InvalidStatus) as refused:
            async with listening(live, asked.pop("session"), asked.pop("token"), **asked):
                pass
        assert refused.value.response.status_code == status
        assert refused.value.response.body is not None
        assert told in refused.value.response.body


async def test_a_session_is_listened_to_only_while_its_owner_shares_it(live: RunningServer) -> None:
    async with dialled(live) as owner:
        updated = await owner.update(output_modalities=["text"], noema={})
        session = updated["session"]["id"]
        with pytest.raises(InvalidStatus):
            async with listening(live, session, "any"):
                pass
        session, token = await shared(owner)
        async with listening(live, session, token, language="deu") as listener:
            await listener.until("session.created")
            await owner.update(noema={"listeners": False})
            await listener.until("session.closed")
            assert await closed(listener) == 1000
        with pytest.raises(InvalidStatus):
            async with listening(live, session, token):
                pass


async def test_when_the_owner_is_gone_for_good_listeners_are_told_that_it_is_over(live: RunningServer) -> None:
    async with dialled(live) as owner:
        session, token = await shared(owner)
        listener = await connect(
            f"{live.url}/translations?session={session}",
            additional_headers={"Authorization": f"Bearer {token}"},
            proxy=None,
        )
    client = Client(listener)
    await client.until("session.closed")
    assert await closed(client) == 1000


async def test_listeners_hear_on_when_the_owner_comes_back(live: RunningServer) -> None:
    async with dialled(live) as owner:
        session, token = await shared(owner, resume=True)
        resume = owner.told[-1]["session"]["noema"]["resume"]
        after = owner.told[-1]["event_id"]
        listener = await connect(
            f"{live.url}/translations?session={session}&audio=false&language=deu",
            additional_headers={"Authorization": f"Bearer {token}"},
            proxy=None,
        )
        client = Client(listener)
        await client.until("session.created")
    async with dialled(live) as owner:
        noema = {"resume": {"token": resume["token"], "after_event": after}}
        await owner.say("session.update", session={"type": "realtime", "noema": noema})
        await owner.until("noema.resumed")
        await owner.ask("Where is the station?")
        await client.until(WORDS)
        await owner.update(noema={"listeners": False})
        await client.until("session.closed")
    await listener.close()


async def test_listeners_and_languages_are_bounded(live: RunningServer) -> None:
    async with dialled(live) as owner:
        session, token = await shared(owner)
        async with (
            listening(live, session, token, language="deu") as german,
            listening(live, session, token, language="fra") as french,
        ):
            await german.until("session.created")
            await french.until("session.created")
            with pytest.raises(InvalidStatus) as refused:
                async with listening(live, session, token, language="spa"):
                    pass
            assert refused.value.response.status_code == 503
            async with (
                listening(live, session, token, language="fra") as third,
                listening(live, session, token, language="fra") as fourth,
            ):
                await third.until("session.created")
                await fourth.until("session.created")
                with pytest.raises(InvalidStatus) as refused:
                    async with listening(live, session, token, language="fra"):
                        pass
                assert refused.value.response.status_code == 503
                assert refused.value.response.headers["Retry-After"]


async def test_a_listener_that_never_reads_is_closed_and_nobody_notices(live: RunningServer) -> None:
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.connect(("127.0.0.1", live.port))
    deaf.setblocking(False)
    slow_before = live.count("noema_closed_total", reason="slow")
    async with dialled(live) as owner:
        session, token = await shared(owner)
        more = {"sock": deaf, "max_queue": 1, "close_timeout": 1}
        async with (
            listening(live, session, token, language="deu", more=more),
            listening(live, session, token, language="deu") as other,
        ):
            asked = " ".join(f"The cat number {number} is very hungry today." for number in range(24))
            asking = asyncio.create_task(owner.ask(asked))
            while live.count("noema_closed_total", reason="slow") == slow_before:
                await other.hear()
            assert (await asking)["status"] == "completed"
            told = other.kinds().count(WORDS)
            asking = asyncio.create_task(owner.ask("Where is the station?"))
            while other.kinds().count(WORDS) == told:
                await other.hear()
            await asking


async def test_what_a_listener_says_is_nothing_but_goodbye(live: RunningServer) -> None:
    async with dialled(live) as owner:
        session, token = await shared(owner)
        async with listening(live, session, token) as listener:
            for said in ("{", '{"type": "session.update", "session": {}}', b"\0", "[" * 10_000):
                await listener.socket.send(said)
            await listener.say("session.close")
            assert await closed(listener) == 1000
        assert (await owner.ask("Still there?"))["status"] == "completed"


# Interpreters


async def test_an_interpreter_says_in_another_language_what_it_hears(live: RunningServer, recording: Path) -> None:
    async with interpreted(live) as client:
        created = await client.until("session.created")
        assert created["session"]["type"] == "translation"
        audio = {"input": {"language": "eng", "transcription": {"model": "any"}}, "output": {"language": "de"}}
        await client.say("session.update", session={"audio": audio})
        updated = await client.until("session.updated")
        assert updated["session"]["audio"]["output"]["language"] == "deu"
        await speak(client, wire_sound(recording))
        await client.say("session.close")
        await client.until("session.closed")
        assert await closed(client) == 1000
    kinds = client.kinds()
    assert kinds.count(WORDS) == 2
    assert kinds.count("session.input_transcript.delta") == 2
    assert np.abs(sound_of(client)).max() > 1000
    assert "error" not in kinds
    elapsed = [event["elapsed_ms"] for event in client.told if "elapsed_ms" in event]
    assert elapsed == sorted(elapsed)
    ids = [event["event_id"] for event in client.told]
    assert len(set(ids)) == len(ids)


async def speak(client: Client, samples: FloatArray) -> None:
    """Sends sound as this endpoint takes it: 200 ms at a time."""
    content = (samples * 32767).astype("<i2").tobytes()
    for start in range(0, len(content), 9600):
        audio = base64.b64encode(content[start : start + 9600]).decode()
        await client.say("session.input_audio_buffer.append", audio=audio)


async def test_what_makes_no_sense_is_told_and_the_interpreter_goes_on(live: RunningServer) -> None:
    async with interpreted(live) as client:
        for said, code in (
            ("{", "invalid_json"),
            (b"\0", "invalid_value"),
            ('{"type": "response.create"}', "invalid_value"),
            (json.dumps({"type": "session.input_audio_buffer.append", "audio": "*"}), "invalid_value"),
        ):
            await client.socket.send(said)
            assert (await client.until("error"))["error"]["code"] == code
        await client.say("session.update", session={"audio": {"output": {"language": "fra"}}})
        await client.until("session.updated")


async def test_an_interpreter_whose_client_vanishes_is_gone(live: RunningServer, recording: Path) -> None:
    before = live.tasks()
    async with interpreted(live) as client:
        await client.until("session.created")
        await speak(client, wire_sound(recording))
        client.socket.transport.abort()
    await eventually(lambda: live.tasks() <= before)


async def test_a_server_that_ends_lets_interpreters_finish_and_clears_away_who_says_nothing(
    small_bundle: Path, recording: Path
) -> None:
    with running(str(small_bundle), limits={"idle_s": 1.0, "max_listeners": 0}) as ending:
        async with interpreted(ending) as silent:
            assert await closed(silent) == 1008
        async with dialled(ending) as owner:
            updated = await owner.update(noema={"listeners": True})
            assert updated["session"]["noema"]["listeners"] is None
        async with interpreted(ending) as client:
            await client.until("session.created")
            await speak(client, wire_sound(recording))
            await client.until(WORDS)
            await ending.call(ending.server.drain())
            assert await closed(client) == 1012
            assert client.kinds().count(WORDS) == 2
            assert "session.closed" in client.kinds()
