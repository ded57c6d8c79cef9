"""Nonsense at every level, against the real server: bytes, HTTP, frames, JSON, events. NOEMA_FUZZ_S: for how long."""

import asyncio
import base64
import json
import logging
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.agent.server.running import RunningServer, dialled, eventually, running

SECONDS = float(os.environ.get("NOEMA_FUZZ_S", "4"))
SOUND = base64.b64encode(bytes(4800)).decode()
EVENTS: list[dict[str, Any]] = [
    {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"], "instructions": "Hello"}},
    {"type": "session.update", "session": {"audio": {"input": {"turn_detection": None}}}},
    {
        "type": "session.update",
        "session": {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 0.5}}}},
    },
    {
        "type": "session.update",
        "session": {"audio": {"output": {"voice": "f1", "speed": 1.2, "format": {"type": "audio/pcmu"}}}},
    },
    {
        "type": "session.update",
        "session": {"noema": {"task": "translate", "reply_language": "fra", "language": "auto"}},
    },
    {"type": "session.update", "session": {"noema": {"resume": {"token": "x", "after_event": "event_1"}}}},
    {
        "type": "session.update",
        "session": {"noema": {"concepts": True, "meter": True, "latency": True, "resume": True}},
    },
    {"type": "input_audio_buffer.append", "audio": SOUND},
    {"type": "input_audio_buffer.append", "audio": base64.b64encode(os.urandom(9600)).decode()},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {
        "type": "conversation.item.create",
        "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi."}]},
    },
    {
        "type": "conversation.item.create",
        "item": {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be."}]},
    },
    {"type": "conversation.item.retrieve", "item_id": "item_1"},
    {"type": "conversation.item.delete", "item_id": "item_1"},
    {"type": "conversation.item.truncate", "item_id": "item_1", "content_index": 0, "audio_end_ms": 100},
    {"type": "response.create", "response": {"output_modalities": ["text"]}},
    {"type": "response.create"},
    {"type": "response.cancel"},
    {"type": "output_audio_buffer.clear"},
    {"type": "noema.playback", "item_id": "item_1", "audio_ms": 100},
]
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    2**63,
    1e308,
    "",
    "x" * 3000,
    "\ud7ff\U0010ffff\0",
    [],
    {},
    [[[]]],
    {"type": "x"},
    "audio/pcm",
]


@pytest.fixture(scope="module")
def live(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    limits = {"close_s": 0.5, "handshake_s": 1.0, "detached_s": 0.0, "max_message_bytes": 262_144}
    with running(str(small_bundle), store=tmp_path_factory.mktemp("store") / "r.db", limits=limits) as server:
        yield server


def mutated(chance: random.Random, value: Any) -> Any:
    """The same with something odd in one place."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        name = chance.choice(list(value))
        if chance.random() < 0.1:
            return {key: inner for key, inner in value.items() if key != name}
        return {**value, name: mutated(chance, value[name])}
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        return [*value[:place], mutated(chance, value[place]), *value[place + 1 :]]
    return chance.choice(ODD)


def garbled(chance: random.Random, text: str) -> str:
    """The same with a few characters changed, lost or doubled."""
    characters = list(text)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(characters) + 1)
        characters[place : place + chance.randint(0, 2)] = chance.choice(
            ['"', "{", "}", "\\u", ",", "\0", "é", "9" * 400, ""]
        )
    return "".join(characters)


def frame(chance: random.Random) -> bytes:
    """A websocket frame that may be legal."""
    content = chance.randbytes(chance.choice([0, 1, 125, 126, 300, 70_000]))
    first = chance.choice([0x81, 0x82, 0x88, 0x89, 0x8A, 0x01, 0x80, 0x00, 0xC1, 0x83, 0xFF, chance.randrange(256)])
    mask = chance.choice([0x80, 0x80, 0x80, 0])
    length = len(content)
    if chance.random() < 0.1:
        length = chance.choice([2**16 - 1, 2**31, 2**63 - 1])
    if length < 126:
        head = bytes([first, mask | length])
    elif length < 2**16:
        head = bytes([first, mask | 126]) + length.to_bytes(2, "big")
    else:
        head = bytes([first, mask | 127]) + length.to_bytes(8, "big")
    return head + (b"\0\0\0\0" if mask else b"") + content


async def send_raw(port: int, content: bytes) -> None:
    """Bytes on a connection of their own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with suppress(OSError):
        writer.write(content)
        await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(10):
            while await reader.read(65_536):
                pass
    writer.close()


async def garbage(live: RunningServer, chance: random.Random) -> None:
    """What is no HTTP, or hardly."""
    request = f"GET /v1/realtime?model=x HTTP/1.1\r\nHost: 127.0.0.1:{live.port}\r\nUpgrade: websocket\r\n\r\n"
    content = chance.choice(
        [chance.randbytes(400).decode("latin-1"), garbled(chance, request), garbled(chance, request * 3)]
    )
    await send_raw(live.port, content.encode("utf-8", "replace"))


async def frames(live: RunningServer, chance: random.Random) -> None:
    """Frames after a handshake that is right."""
    lines = ["GET /v1/realtime HTTP/1.1", f"Host: 127.0.0.1:{live.port}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 13", "", ""]
    content = "\r\n".join(lines).encode() + b"".join(frame(chance) for _ in range(chance.randint(1, 6)))
    await send_raw(live.port, content)


async def events(live: RunningServer, chance: random.Random) -> None:
    """Messages in any order, many of them wrong; sometimes cut off, sometimes not read."""
    path = chance.choice(["/v1/realtime", "/v1/realtime", "/v1/realtime/translations"])
    url = f"ws://127.0.0.1:{live.port}{path}"
    async with connect(url, compression=None, proxy=None, max_queue=None, close_timeout=1) as socket:
        for _ in range(chance.randint(1, 25)):
            event = chance.choice(EVENTS)
            if chance.random() < 0.4:
                event = mutated(chance, event)
            text = json.dumps(event)
            if chance.random() < 0.2:
                text = garbled(chance, text)
            await socket.send(text.encode("utf-8", "replace") if chance.random() < 0.05 else text)
        if chance.random() < 0.3:
            socket.transport.abort()


async def one_after_the_other(live: RunningServer, seed: int, until: float) -> None:
    """Nonsense until the time is up; a fault is told with its seed."""
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        seed += 1000
        chance = random.Random(seed)
        with suppress(WebSocketException, OSError, UnicodeEncodeError):
            await chance.choice([garbage, frames, events, events])(live, chance)


@pytest.mark.timeout(SECONDS + 120)
async def test_no_nonsense_does_any_harm(live: RunningServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    until = asyncio.get_running_loop().time() + SECONDS
    async with dialled(live) as witness:
        await witness.update(output_modalities=["text"])
        async with asyncio.TaskGroup() as tasks:
            for lane in range(6):
                tasks.create_task(one_after_the_other(live, lane, until))
        assert (await witness.ask("Are you well?"))["status"] == "completed"
        assert not [event for event in witness.told if event["type"] == "error"]
    await eventually(live.idle, 60)
    faults = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert faults == []
