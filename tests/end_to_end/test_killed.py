"""A server killed with `kill -9` and started again: its clients go on, nothing is said twice, nothing is lost."""

import asyncio
import base64
import json
import os
import selectors
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from audio.files import read_audio
from audio.frames import to_pcm16

pytestmark = pytest.mark.slow
TEXTS = ("The cat is hungry. Where is the station?", "Good morning, my friend.")
PATIENCE_S = 90.0
WIRE_RATE = 24_000
PIECE = WIRE_RATE // 10


class Server:
    """`noema serve`, which can be killed and started again."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        self.store = folder / "resume.db"
        self._environment = {**os.environ, "NOEMA_STORE": str(self.store), "PYTHONUNBUFFERED": "1"}
        config = folder / "agent.yaml"
        config.write_text(f"bundle: {bundle}\ndevice: cpu\nthinker: {{name: lcm}}\n")
        self._command = [sys.executable, "-m", "agent", "serve", "--port", "0", "--config", str(config)]

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, env=self._environment, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            assert selector.select(PATIENCE_S), "it does not start"
        address = next(line for line in self._process.stdout if "http://" in line)
        self.url = "ws" + address[address.index("http") + 4 :].strip().rstrip("/") + "/v1/realtime"

    def end(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
        with self._process:
            self._process.wait(PATIENCE_S)


@dataclass
class Client:
    """A client that keeps what it sends, and sends again what the server does not have."""

    server: Server
    kills: list[int]
    """How many messages it has got when the server dies"""
    told: list[dict[str, Any]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    sound: list[bytes] = field(default_factory=list)
    """Pieces of 100 ms"""
    resumed: list[dict[str, Any]] = field(default_factory=list)
    token: str = ""

    async def open(self) -> None:
        self._socket: ClientConnection = await connect(self.server.url, max_size=None)
        await self.say("session.update", session={"type": "realtime", "noema": {"resume": True}})
        self.token = (await self.until("session.updated"))["session"]["noema"]["resume"]["token"]

    async def close(self) -> None:
        await self._socket.close()

    async def say(self, kind: str, **fields: Any) -> None:
        self.events.append(json.dumps({"type": kind, **fields}))
        await self._socket.send(self.events[-1])

    async def ask(self, text: str) -> None:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        await self.say("conversation.item.create", item=item)
        await self.say("response.create")

    async def speak(self, pcm: bytes) -> None:
        self.sound.append(pcm)
        await self._send_sound(pcm)

    async def _send_sound(self, pcm: bytes) -> None:
        audio = base64.b64encode(pcm).decode()
        await self._socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))

    async def _hear(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            event: dict[str, Any] = json.loads(await self._socket.recv())
        return event

    async def until(self, kind: str) -> dict[str, Any]:
        while True:
            event = await self._hear()
            self.told.append(event)
            if self.kills and len(self.told) >= self.kills[0]:
                self.kills.pop(0)
                await self.come_back()
            if event["type"] == kind:
                return event

    async def come_back(self) -> None:
        """The server dies and starts again; the client goes on with it."""
        self.server.end(signal.SIGKILL)
        await self._socket.close()
        assert self.token.encode() not in self.server.store.read_bytes()
        self.server.start()
        self._socket = await connect(self.server.url, max_size=None)
        resume = {"token": self.token, "after_event": self.told[-1]["event_id"]}
        update = {"type": "session.update", "session": {"type": "realtime", "noema": {"resume": resume}}}
        await self._socket.send(json.dumps(update))
        while (event := await self._hear())["type"] != "noema.resumed":
            assert event["type"] in {"session.created", "conversation.created"}, event
        self.resumed.append(event)
        for text in self.events[event["client_events"] :]:
            await self._socket.send(text)
        for pcm in pieces(b"".join(self.sound)[2 * event["input_audio_samples"] :]):
            await self._send_sound(pcm)

    def replies(self) -> list[tuple[str, bytes]]:
        """Words and sound of every reply."""
        replies: dict[str, tuple[str, bytes]] = {}
        for event in self.told:
            words, sound = replies.get(event.get("response_id", ""), ("", b""))
            if event["type"] == "response.output_audio_transcript.delta":
                replies[event["response_id"]] = (words + event["delta"], sound)
            elif event["type"] == "response.output_audio.delta":
                replies[event["response_id"]] = (words, sound + base64.b64decode(event["delta"]))
        return list(replies.values())

    def numbers(self) -> list[int]:
        """Of the events, but for those that pass by."""
        parts = [event["event_id"].split("_") for event in self.told]
        return [int(number) for _, number, *passing in parts if not passing]


def pieces(pcm: bytes) -> list[bytes]:
    return [pcm[start : start + 2 * PIECE] for start in range(0, len(pcm), 2 * PIECE)]


@pytest.fixture
def server(small_bundle: Path, tmp_path: Path) -> Server:
    return Server(small_bundle, tmp_path)


async def typed(server: Server, kills: list[int]) -> Client:
    server.start()
    client = Client(server, kills)
    try:
        await client.open()
        for text in TEXTS:
            await client.ask(text)
            await client.until("response.done")
        await client.close()
    finally:
        server.end(signal.SIGTERM)
    return client


async def test_what_is_typed_is_answered_as_if_nothing_had_been(server: Server) -> None:
    whole = await typed(server, [])
    cut = await typed(server, [5, 40, len(whole.told) - 20])
    assert [event["type"] for event in cut.resumed] == ["noema.resumed"] * 3
    assert cut.replies() == whole.replies()
    assert len(cut.replies()) == len(TEXTS)
    assert cut.numbers() == list(range(1, len(cut.numbers()) + 1))


async def test_what_is_said_is_heard_once(server: Server, recording: Path) -> None:
    pcm = to_pcm16(read_audio(recording, sample_rate=WIRE_RATE)).astype("<i2").tobytes() + bytes(2 * WIRE_RATE)
    server.start()
    client = Client(server, [])
    try:
        await client.open()
        said = pieces(pcm)
        for number, piece in enumerate(said):
            await client.speak(piece)
            if number == len(said) // 3:  # in the middle of the first sentence
                await client.until("input_audio_buffer.speech_started")
                await client.come_back()
        for _ in range(2):
            await client.until("response.done")
        await client.close()
    finally:
        server.end(signal.SIGTERM)
    committed = [event["item_id"] for event in client.told if event["type"] == "input_audio_buffer.committed"]
    assert len(committed) == len(set(committed)) == 2
    assert 0 < client.resumed[0]["input_audio_samples"] <= len(pcm) // 2
    assert client.numbers() == list(range(1, len(client.numbers()) + 1))
