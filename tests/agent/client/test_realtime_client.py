"""Our own client against the real server: cut, refused, resumed; and what it makes of what it is told."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent.client.client_connection import connected
from agent.client.realtime_client import RealtimeClient
from agent.client.remote_conversation import RemoteConversation
from agent.client.server_address import ServerAddress, address
from agent.core.events import Heard, ReplyAudio, ReplySentence, ReplyTruncated, TurnCommitted, TurnEnded, UserStarted
from agent.errors import RemoteError
from agent.metrics import Metrics
from agent.server.tls import self_signed
from audio.frames import to_pcm16
from tests.agent.server.running import RunningServer, eventually, running, wire_sound

# Sound is sent faster than anybody speaks: what follows would interrupt the reply to what came before.
DETECTION = {"type": "server_vad", "interrupt_response": False}
SESSION = {
    "type": "realtime",
    "audio": {"input": {"turn_detection": DETECTION}},
    "noema": {"resume": True, "latency": True},
}
OPENING = {"type": "session.update", "session": SESSION}


@pytest.fixture(scope="module")
def live(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(str(small_bundle), store=tmp_path_factory.mktemp("store") / "sessions.sqlite") as server:
        yield server


class Wire:
    """The way between a client and a server: it can be cut, and stay so for a while."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._pairs: set[asyncio.StreamWriter] = set()
        self.open = True
        self.cuts = 0

    @asynccontextmanager
    async def laid(self) -> AsyncGenerator[str, None]:
        """The URL of its end."""
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        try:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            self.cut()
            server.close()

    def cut(self) -> None:
        """Ends what runs over it, without a word."""
        self.cuts += 1
        for writer in self._pairs:
            writer.transport.abort()
        self._pairs.clear()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._pairs |= {writer, far_writer}
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65_536):
        writer.write(piece)
        await writer.drain()
    writer.close()


class Talk:
    """A client, and everything it was told."""

    def __init__(self, url: str) -> None:
        self.messages: list[dict[str, Any]] = []
        self.told: list[str] = []
        self.client = RealtimeClient(ServerAddress(url), OPENING, self._hear, self.told.append)

    async def _hear(self, message: dict[str, Any]) -> None:
        self.messages.append(message)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]

    def type(self, text: str) -> None:
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        self.client.send({"type": "conversation.item.create", "item": item})
        self.client.send({"type": "response.create"})

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        task = asyncio.create_task(self.client.run())
        try:
            await self.until("session.updated", 1)
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def until(self, kind: str, count: int) -> None:
        await eventually(lambda: len(self.of(kind)) >= count)


async def test_cut_again_and_again_it_says_and_hears_everything_once(live: RunningServer, recording: Path) -> None:
    wire = Wire(live.port)
    async with wire.laid() as url:
        talk = Talk(url)
        async with talk.running():
            talk.type("The cat is hungry.")
            await talk.until("response.output_audio.delta", 1)
            wire.cut()
            await talk.until("noema.resumed", 1)
            await talk.until("response.done", 1)
            content = to_pcm16(wire_sound(recording)).astype("<i2").tobytes()
            for number, start in enumerate(range(0, len(content), 9600)):
                talk.client.send_audio(content[start : start + 9600])
                if number in (5, 12):
                    wire.cut()
                    await talk.until("noema.resumed", wire.cuts)
            await talk.until("conversation.item.input_audio_transcription.completed", 2)
            await talk.until("response.done", 3)
    assert [message["response"]["status"] for message in talk.of("response.done")] == ["completed"] * 3
    assert len(talk.of("input_audio_buffer.committed")) == 2
    numbers = [m["event_id"] for m in talk.messages if "_" not in m["event_id"].removeprefix("event_")]
    assert len(set(numbers)) == len(numbers)
    assert [int(number.split("_")[1]) for number in numbers] == list(range(1, len(numbers) + 1))
    assert talk.told[-1] == "connected again"


async def test_while_the_server_is_away_it_tries_again(live: RunningServer) -> None:
    wire = Wire(live.port)
    async with wire.laid() as url:
        talk = Talk(url)
        async with talk.running():
            wire.open = False
            wire.cut()
            await eventually(lambda: len(talk.told) >= 2)
            talk.type("Are you there?")
            wire.open = True
            await talk.until("response.done", 1)
            assert len(talk.of("noema.resumed")) == 1


async def test_a_conversation_that_the_server_no_longer_has_begins_anew(live: RunningServer) -> None:
    wire = Wire(live.port)
    async with wire.laid() as url:
        talk = Talk(url)
        async with talk.running():
            talk.client._token = "forgotten"
            wire.cut()
            await talk.until("session.updated", 2)
            assert any("new one begins" in line for line in talk.told)
            talk.type("Where is the station?")
            await talk.until("response.done", 1)
            assert len(talk.of("session.created")) == 2


async def test_two_clients_do_not_fight_over_a_session(live: RunningServer) -> None:
    talk, other = Talk(f"ws://127.0.0.1:{live.port}"), Talk(f"ws://127.0.0.1:{live.port}")
    running_first = asyncio.create_task(talk.client.run())
    await talk.until("session.updated", 1)
    other.client._token, other.client._after = talk.client._token, talk.client._after
    running_second = asyncio.create_task(other.client.run())
    with pytest.raises(RemoteError, match="another connection"):
        await running_first
    running_second.cancel()
    await asyncio.wait([running_second])


async def test_who_is_not_there_or_no_noema_is_named(live: RunningServer, tmp_path: Path) -> None:
    async def tried(place: ServerAddress) -> str:
        with pytest.raises(RemoteError) as problem:
            async with connected(place, "/v1/realtime"):
                pass
        return str(problem.value)

    assert "is `noema serve` running there?" in await tried(ServerAddress("ws://127.0.0.1:9"))
    assert "nobody answers" in await tried(ServerAddress("ws://no-such-host.invalid"))
    assert "try ws:// in place of wss://" in await tried(ServerAddress(f"wss://127.0.0.1:{live.port}"))
    with pytest.raises(RemoteError, match="Nothing is here"):
        async with connected(ServerAddress(f"ws://127.0.0.1:{live.port}"), "/v1/nothing"):
            pass

    async def speak_otherwise(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org\r\n")
        writer.close()

    server = await asyncio.start_server(speak_otherwise, "127.0.0.1", 0)
    async with server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert "no Noema server, or if it uses TLS, try wss://" in await tried(ServerAddress(url))


async def test_a_certificate_of_ones_own_has_to_be_given(tmp_path: Path) -> None:
    import ssl

    certificate, key, _ = self_signed(tmp_path, ["127.0.0.1", "localhost"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def nothing_here(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\nConnection: close\r\n\r\nNothing.")
        writer.close()

    server = await asyncio.start_server(nothing_here, "127.0.0.1", 0, ssl=context)
    async with server:
        url = f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(RemoteError, match="--ca"):
            async with connected(address(url, None, None, None), "/v1/realtime"):
                pass
        with pytest.raises(RemoteError, match="Nothing"):
            async with connected(address(url, None, None, certificate), "/v1/realtime"):
                pass


async def test_what_is_told_becomes_the_events_of_a_local_session(live: RunningServer, recording: Path) -> None:
    metrics = Metrics()
    conversation = RemoteConversation(metrics.add)
    talk = Talk(f"ws://127.0.0.1:{live.port}")
    async with talk.running():
        talk.client.send_audio(to_pcm16(wire_sound(recording)).astype("<i2").tobytes())
        await talk.until("noema.latency", 2)
        await talk.until("conversation.item.input_audio_transcription.completed", 2)
    events = [event for message in talk.messages for event in conversation.take(message)]
    told = [(type(event), event.turn) for event in events if isinstance(event, TurnCommitted | TurnEnded | Heard)]
    for turn in (1, 2):
        assert [kind for kind, number in told if number == turn and kind is not Heard] == [TurnCommitted, TurnEnded]
        assert (Heard, turn) in told
        assert told.index((Heard, turn)) < told.index((TurnEnded, turn))
        assert [e.language for e in events if isinstance(e, ReplySentence) and e.turn == turn]
        assert metrics.turn(turn)["encode"]
    assert sum(isinstance(event, UserStarted) for event in events) == 2
    sounds = [event for event in events if isinstance(event, ReplyAudio)]
    for before, after in pairwise(sounds):
        assert after.start_sample == before.start_sample + len(before.samples)
    items = list(dict.fromkeys(m["item_id"] for m in talk.of("response.output_audio.delta")))
    middle = sounds[0].start_sample + 24_000
    assert conversation.playback(middle) == {"type": "noema.playback", "item_id": items[0], "audio_ms": 1000}
    last = conversation.playback(sounds[-1].start_sample)
    assert last is not None
    assert last["item_id"] == items[-1]


def test_speech_silences_what_still_sounds_at_once() -> None:
    conversation = RemoteConversation()
    events = conversation.take(
        {"type": "input_audio_buffer.speech_started", "audio_start_ms": 100, "item_id": "item_1"}
    )
    assert [type(event) for event in events] == [UserStarted, ReplyTruncated]


@pytest.mark.parametrize(
    ("detection", "silenced"), [({"interrupt_response": True}, True), (DETECTION, False), (None, False)]
)
def test_an_interpreter_speaks_on_when_somebody_speaks(detection: dict[str, Any] | None, silenced: bool) -> None:
    conversation = RemoteConversation()
    conversation.take({"type": "session.updated", "session": {"audio": {"input": {"turn_detection": detection}}}})
    started = {"type": "input_audio_buffer.speech_started", "audio_start_ms": 100, "item_id": "item_1"}
    assert any(isinstance(event, ReplyTruncated) for event in conversation.take(started)) is silenced


async def test_a_client_of_a_server_that_keeps_nothing_is_told_that_a_new_session_begins(small_bundle: Path) -> None:
    told: list[str] = []
    begun: list[str] = []

    async def heard(message: dict[str, Any]) -> None:
        if message["type"] == "session.updated":
            begun.append(message["session"]["id"])

    with running(str(small_bundle)) as forgetful:
        place = ServerAddress(f"ws://127.0.0.1:{forgetful.port}")
        opening = {"type": "session.update", "session": {"type": "realtime", "noema": {"resume": True}}}
        task = asyncio.create_task(RealtimeClient(place, opening, heard, told.append).run())
        await eventually(lambda: begun)
        [connection] = forgetful.server.gate.open
        forgetful.loop.call_soon_threadsafe(connection.transport.abort)
        await eventually(lambda: len(begun) == 2)
        task.cancel()
        await asyncio.wait([task])
    assert begun[0] != begun[1]
    assert told[-1] == "the server keeps no conversations; a new one begins"
