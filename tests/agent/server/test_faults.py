"""What clients do wrong, and what goes wrong here: the server stays up, others do not notice, nothing is left."""

import asyncio
import base64
import contextlib
import gc
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agent.errors import ThinkerError, WorkerHung
from agent.inference.models import Models
from agent.live.telemetry import resident_bytes
from agent.realtime.machine import RealtimeMachine
from agent.server.parting import FAILED
from agent.server.watchdog import watch
from audio.frames import FloatArray
from tests.agent.server.http import ask
from tests.agent.server.running import Client, RunningServer, dialled, eventually, running, wire_sound

LIMITS = {
    "max_sessions": 16,
    "max_handshakes": 256,
    "outbox_bytes": 262_144,
    "max_message_bytes": 1_048_576,
    "max_input_s": 30,
    "ping_s": 60.0,
    "close_s": 1.0,
}


@pytest.fixture(scope="module")
def live(small_bundle: Path) -> Iterator[RunningServer]:
    with running(str(small_bundle), limits=LIMITS) as server:
        yield server


@pytest.fixture
def speech(recording: Path) -> FloatArray:
    return wire_sound(recording)


@pytest.fixture(autouse=True)
async def _nothing_is_left(live: RunningServer) -> Any:
    """After every test: no session, no task, no connection more than before; a newcomer is served."""
    await eventually(live.idle)
    before = live.tasks()
    yield
    await eventually(live.idle)
    await eventually(lambda: live.tasks() <= before)
    async with dialled(live) as client:
        await client.update(output_modalities=["text"])
        assert (await client.ask("Still there?"))["status"] == "completed"


async def speaks(client: Client) -> dict[str, Any]:
    """A reply that is spoken, up to its first sound."""
    await client.update(output_modalities=["audio"])
    await client.type("Where is the station?")
    return await client.until("response.output_audio.delta")


# Clients that go


async def test_a_client_vanishes_in_the_middle_of_an_utterance(live: RunningServer, speech: FloatArray) -> None:
    async with dialled(live) as other, dialled(live) as client:
        await client.speak(speech[: len(speech) // 4])
        await client.until("input_audio_buffer.speech_started")
        client.socket.transport.abort()
        await eventually(lambda: len(live.server.gate.open) == 1)
        assert (await other.ask("Who is there?"))["status"] == "completed"


async def test_a_client_vanishes_in_the_middle_of_a_reply(live: RunningServer) -> None:
    async with dialled(live) as other, dialled(live) as client:
        await speaks(client)
        client.socket.transport.abort()
        await eventually(lambda: len(live.server.gate.open) == 1)
        assert (await other.ask("Who is there?"))["status"] == "completed"


async def test_what_a_vanished_client_asked_for_is_not_computed(live: RunningServer) -> None:
    async with dialled(live) as client:
        for number in range(50):
            await client.type(f"Sentence {number} of many. " * 20)
        client.socket.transport.abort()
    await eventually(live.idle)


# Clients that are slow


async def test_a_client_that_never_reads_is_closed_and_nothing_is_kept_for_it(live: RunningServer) -> None:
    before = live.count("noema_closed_total", reason="slow")
    async with dialled(live) as other:
        deaf = await _deaf_client(live.port)
        try:
            await _flood(deaf, lambda: live.count("noema_closed_total", reason="slow") > before)
        finally:
            deaf.close()
        assert (await other.ask("Who is there?"))["status"] == "completed"
        assert not [event for event in other.told if event["type"] == "error"]


async def _deaf_client(port: int) -> socket.socket:
    """A websocket whose other side nobody reads."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", port))
    key = base64.b64encode(os.urandom(16)).decode()
    lines = ["GET /v1/realtime HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
    await loop.sock_sendall(raw, "\r\n".join(lines).encode())
    return raw


async def _flood(raw: socket.socket, until: Any) -> None:
    """Asks for more and more answers."""
    update = json.dumps({"type": "session.update", "session": {"type": "realtime", "instructions": "x" * 4000}})
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(60):
        while not until():
            try:
                await asyncio.wait_for(loop.sock_sendall(raw, _frame(update.encode()) * 20), 1)
            except (OSError, TimeoutError):  # closed, or nobody reads us either any more
                await asyncio.sleep(0.01)


def _frame(content: bytes) -> bytes:
    """A masked text frame; the mask is zero."""
    return b"\x81\xfe" + len(content).to_bytes(2, "big") + b"\0\0\0\0" + content


async def test_a_client_that_sends_a_byte_now_and_then_keeps_only_its_seat(small_bundle: Path) -> None:
    limits = {**LIMITS, "ping_s": 0.2, "ping_timeout_s": 0.3}
    with running(str(small_bundle), limits=limits) as server:
        raw = await _deaf_client(server.port)
        await eventually(lambda: server.server.gate.open)
        loop = asyncio.get_running_loop()
        slow = _frame(json.dumps({"type": "session.update", "session": {}}).encode())

        async def drip() -> None:
            for byte in slow:
                await loop.sock_sendall(raw, bytes([byte]))
                await asyncio.sleep(0.1)

        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await drip()
        raw.close()
        await eventually(server.idle)


async def test_a_client_that_says_nothing_for_long_is_parted_with(small_bundle: Path) -> None:
    with running(str(small_bundle), limits={**LIMITS, "idle_s": 0.5}) as server:
        async with dialled(server) as client:
            with pytest.raises(ConnectionClosed):
                await client.until("never")
        assert (client.socket.close_code, client.socket.close_reason) == (
            1008,
            "nothing was heard of the client for too long",
        )


@pytest.mark.parametrize("kept", [False, True])
async def test_a_session_ends_when_its_time_is_up(small_bundle: Path, tmp_path: Path, kept: bool) -> None:
    store = tmp_path / "resume.db" if kept else None
    with running(str(small_bundle), store=store, limits={**LIMITS, "session_s": 1.0}) as server:
        async with dialled(server) as client:
            await client.update(noema={"resume": kept})
            error = await client.until("error")
            assert error["error"]["code"] == "session_expired"
            with pytest.raises(ConnectionClosed):
                await client.hear()
        assert client.socket.close_code == 1008


# Clients that talk nonsense


async def test_a_message_of_20_mib_ends_its_connection_only(live: RunningServer) -> None:
    async with dialled(live) as other:
        client = await connect(live.url, compression=None, proxy=None, max_size=None)
        await client.recv()
        await client.recv()
        with contextlib.suppress(ConnectionClosed):
            await client.send("x" * (20 << 20))
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1009
        assert (await other.ask("Who is there?"))["status"] == "completed"


WRONG: list[tuple[str | bytes, str, str | None]] = [
    ("{", "invalid_json", None),
    ("[]", "invalid_json", None),
    ("nonsense", "invalid_json", None),
    ("", "invalid_json", None),
    ("[" * 100_000, "invalid_json", None),
    ("{}", "invalid_value", "type"),
    ('{"type": 7}', "invalid_value", "type"),
    ('{"type": "session.destroy"}', "invalid_value", "type"),
    ('{"type": "response.done"}', "invalid_value", "type"),
    ('{"type": "session.update"}', "missing_required_parameter", "session"),
    ('{"type": "session.update", "session": 7}', "invalid_type", "session"),
    ('{"type": "input_audio_buffer.append"}', "missing_required_parameter", "audio"),
    ('{"type": "input_audio_buffer.append", "audio": 7}', "invalid_type", "audio"),
    ('{"type": "input_audio_buffer.append", "audio": "not base64!"}', "invalid_value", "audio"),
    ('{"type": "conversation.item.delete", "item_id": null}', "invalid_type", "item_id"),
    (b"\x00\x01\x02", "invalid_value", None),
    (b'{"type": "input_audio_buffer.clear"}', "invalid_value", None),
]


@pytest.mark.parametrize(("message", "code", "param"), WRONG, ids=lambda value: repr(value)[:40])
async def test_nonsense_is_answered_and_the_session_goes_on(
    live: RunningServer, message: str | bytes, code: str, param: str | None
) -> None:
    async with dialled(live) as client:
        await client.socket.send(message)
        error = (await client.until("error"))["error"]
        assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
        assert error["message"]
        await client.update(output_modalities=["text"])


async def test_an_error_names_the_message_that_it_is_about(live: RunningServer) -> None:
    async with dialled(live) as client:
        await client.say("session.update", event_id="mine", session={"output_modalities": "loud"})
        error = (await client.until("error"))["error"]
        assert (error["event_id"], error["param"]) == ("mine", "session.output_modalities")


async def test_text_that_is_no_utf8_ends_its_connection_only(live: RunningServer) -> None:
    async with dialled(live) as other, dialled(live) as client:
        await client.socket.send(b"\xff\xfe", text=True)
        with pytest.raises(ConnectionClosed):
            await client.hear()
        assert client.socket.close_code == 1007
        await other.update(output_modalities=["text"])


async def test_sound_may_come_before_anything_else(live: RunningServer, speech: FloatArray) -> None:
    async with connect(live.url, compression=None, proxy=None, max_size=None) as raw:
        client = Client(raw)
        await client.speak(speech)
        done = await client.until("response.done")
        assert done["response"]["status"] in ("completed", "cancelled")
        assert client.kinds()[:2] == ["session.created", "conversation.created"]


async def test_sound_that_is_never_committed_is_bounded(live: RunningServer, speech: FloatArray) -> None:
    async with dialled(live) as client:
        await client.update(audio={"input": {"turn_detection": None}})
        told = asyncio.create_task(client.until("error"))
        while not told.done():
            await client.speak(speech, piece_ms=1000)
        assert (await told)["error"]["code"] == "input_audio_buffer_full"
        await client.say("input_audio_buffer.clear")
        await client.until("input_audio_buffer.cleared")


async def test_a_flood_of_sound_is_read_no_faster_than_it_is_heard(live: RunningServer, speech: FloatArray) -> None:
    async with dialled(live) as client:
        before = resident_bytes()
        sending = asyncio.create_task(client.speak(np.tile(speech, 12)))  # a minute of it, at once
        await client.until("response.created")
        await sending
        assert resident_bytes() - before < 64 * 2**20
        client.socket.transport.abort()


# Many clients


async def test_two_hundred_at_once_get_a_seat_or_are_told_to_come_back(live: RunningServer) -> None:
    done = asyncio.Event()

    async def one() -> str:
        try:
            async with dialled(live, open_timeout=60) as client:
                response = await client.ask("Hello.")
                await done.wait()
                return str(response["status"])
        except InvalidStatus as error:
            return f"{error.response.status_code} {error.response.headers['Retry-After']}"

    tasks = [asyncio.create_task(one()) for _ in range(200)]
    await eventually(lambda: sum(task.done() for task in tasks) == 200 - LIMITS["max_sessions"], 60)
    done.set()
    answers = await asyncio.gather(*tasks)
    assert answers.count("completed") == LIMITS["max_sessions"]
    assert answers.count("503 5") == 200 - LIMITS["max_sessions"]


async def test_no_event_crosses_sessions(live: RunningServer, speech: FloatArray) -> None:
    async def one(mark: int) -> Client:
        async with dialled(live) as client:
            await client.update(output_modalities=["audio" if mark % 2 else "text"], noema={"concepts": True})
            for turn in range(3):
                await client.ask(f"Mark {mark} turn {turn}.")
            if mark % 3 == 0:
                await client.speak(speech)
                await client.until("response.done")
            return client

    clients = await asyncio.gather(*(one(mark) for mark in range(8)))
    owners: dict[str, int] = {}
    for mark, client in enumerate(clients):
        texts = re.findall(r"Mark (\d+) turn", json.dumps(client.told))
        assert set(texts) == {str(mark)}
        for identity in set(re.findall(r'"(?:item|resp|conv|sess)_([0-9a-f]{12})', json.dumps(client.told))):
            assert owners.setdefault(identity, mark) == mark
        numbers = [int(event["event_id"].split("_")[1]) for event in client.told]
        assert numbers == list(range(1, len(numbers) + 1))


# Faults here


async def test_a_model_that_fails_once_fails_one_reply(live: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    encode_text, asked_for = Models.encode_text, Event()

    def encode(models: Models, request: Any) -> Any:
        if "bad luck" in request.text:
            asked_for.wait(10)  # else it may have failed before anybody asked for a reply
            raise ThinkerError("out of luck")
        return encode_text(models, request)

    monkeypatch.setattr(Models, "encode_text", encode)
    async with dialled(live) as other, dialled(live) as client:
        asked = asyncio.create_task(other.ask("Hello."))
        await client.type("This is bad luck.")
        await client.until("response.created")
        asked_for.set()
        assert (await client.until("response.done"))["response"]["status"] == "failed"
        assert (await client.ask("And now?"))["status"] == "completed"
        assert (await asked)["status"] == "completed"


async def test_a_bug_in_one_session_ends_that_session(live: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    client_of = RealtimeMachine.client

    def stumble(machine: RealtimeMachine, event: Any, at_sample: int) -> Any:
        if event.event_id == "stumble":
            raise ZeroDivisionError
        return client_of(machine, event, at_sample)

    monkeypatch.setattr(RealtimeMachine, "client", stumble)
    async with dialled(live) as other, dialled(live) as client:
        await client.say("response.cancel", event_id="stumble")
        with pytest.raises(ConnectionClosed):
            await client.until("never")
        assert client.socket.close_code == 1011
        assert (await other.ask("Hello."))["status"] == "completed"


async def test_a_model_that_hangs_is_given_up_and_everyone_is_told(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = Event()
    with running(str(small_bundle), limits=LIMITS) as server:
        monkeypatch.setattr(Models, "encode_text", lambda *args: free.wait())
        async with dialled(server) as client:
            watching = asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(watch(server.there.worker, 0.5), server.loop)
            )
            asked = asyncio.create_task(client.ask("Hello."))
            with pytest.raises(WorkerHung, match=r"taken to hang.*worker_timeout_s") as caught:
                await watching
            server.loop.call_soon_threadsafe(server.there.worker.give_up, caught.value)
            assert (await asked)["status"] == "failed"
            parting = asyncio.create_task(server.call(server.talks.drain(2.0, FAILED)))
            with pytest.raises(ConnectionClosed):
                await client.until("never")
            assert client.socket.close_code == 1011
            await parting
        free.set()


async def test_memory_returns(live: RunningServer, speech: FloatArray) -> None:
    async def visits(count: int) -> None:
        for _ in range(count):
            async with dialled(live) as one, dialled(live) as two:
                await asyncio.gather(one.ask("Hello."), two.speak(speech[:48_000]))
                await speaks(two)
        await eventually(live.idle)

    await visits(10)
    objects, resident = await live.call(_held()), resident_bytes()
    await visits(40)
    assert await live.call(_held()) <= objects + 20
    # The allocator keeps some tens of megabytes more or less; the detectors of these sessions alone would be 200.
    assert resident_bytes() - resident < 100 * 2**20


async def _held() -> int:
    """Objects of sessions and connections that are alive."""
    gc.collect()
    ours = ("agent.", "audio.", "websockets.")
    return sum(str(type(thing).__module__).startswith(ours) for thing in gc.get_objects())


async def test_health_is_told_throughout(live: RunningServer) -> None:
    assert (await ask(live.port, "/readyz")).status == 200
