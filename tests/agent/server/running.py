"""A whole server on a thread of its own, with real modules, and clients that talk to it: what its tests share."""

import asyncio
import base64
import json
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from agent.config import AgentConfig, ServerConfig
from agent.core.events import Task
from agent.live.live_session import House
from agent.live.telemetry import Telemetry
from agent.opening import Opened, opened
from agent.server.access import Access
from agent.server.conversations import Conversations
from agent.server.server import Server
from agent.server.translations import Translations
from agent.store.session_store import SessionStore
from audio.files import read_audio
from audio.frames import FloatArray, to_pcm16

Result = TypeVar("Result")
WIRE_RATE = 24_000
PATIENCE_S = 60.0


class RunningServer:
    """A server that listens; everything of it is to be touched on its own loop, through `call`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: Server, talks: Conversations, there: Opened) -> None:
        self.loop = loop
        self.server = server
        self.talks = talks
        self.there = there
        self.url = f"ws://127.0.0.1:{server.port}/v1/realtime"

    @property
    def port(self) -> int:
        return self.server.port

    async def call(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Runs something on the server's loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def tasks(self) -> set[str]:
        """Names of all tasks on the server's loop."""
        return {task.get_name() for task in asyncio.all_tasks(self.loop)}

    def count(self, name: str, **labels: str) -> float:
        """What /metrics says."""
        return self.server.telemetry.registry.get_sample_value(name, labels) or 0.0

    def idle(self) -> bool:
        """Whether nothing of any session is left."""
        return not (self.count("noema_open_sessions") or self.server.gate.open or self.there.worker.waiting)


@contextmanager
def running(
    bundle: str,
    *,
    store: Path | None = None,
    limits: dict[str, Any] | None = None,
    record: bool = False,
    recordings_days: float | None = None,
) -> Iterator[RunningServer]:
    """A server with the models of a bundle."""
    config = AgentConfig(
        bundle=bundle,
        device="cpu",
        record=record,
        recordings_days=recordings_days,
        recordings_bytes=None,
        server=ServerConfig(**{"port": 0, **(limits or {})}),
    )
    ready = threading.Event()
    found: list[tuple[RunningServer, asyncio.Event]] = []
    failed: list[object] = []

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            access = Access(None, config.server.hosts, config.server.origins)
            server = await stack.enter_async_context(Server(config.server, access, Telemetry(), None))
            there = await stack.enter_async_context(opened(config, get_args(Task), spoken=True))
            kept = None
            if store is not None:
                kept = await stack.enter_async_context(SessionStore(store, warn=failed.append))
            house = House(there, config.server, server.telemetry, kept)
            talks = await stack.enter_async_context(Conversations(house, access, server.gate))
            translations = Translations(house, access, server.gate, talks.session, talks.number)
            server.open({"/v1/realtime": talks, "/v1/realtime/translations": translations})
            stop = asyncio.Event()
            found.append((RunningServer(asyncio.get_running_loop(), server, talks, there), stop))
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="server")
    thread.start()
    ready.wait()
    try:
        assert found, failed
        yield found[0][0]
    finally:
        if found:
            found[0][0].loop.call_soon_threadsafe(found[0][1].set)
        thread.join(60)
    assert not thread.is_alive()
    assert not failed


class Client:
    """A client of the protocol; keeps everything it was told."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.told: list[dict[str, Any]] = []

    async def say(self, kind: str, **fields: Any) -> None:
        """Sends a message."""
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def hear(self) -> dict[str, Any]:
        """The next message."""
        async with asyncio.timeout(PATIENCE_S):
            event: dict[str, Any] = json.loads(await self.socket.recv())
        self.told.append(event)
        return event

    async def until(self, kind: str, **wanted: Any) -> dict[str, Any]:
        """Hears up to a message of this kind."""
        while True:
            event = await self.hear()
            if event["type"] == kind and all(event.get(name) == value for name, value in wanted.items()):
                return event

    async def update(self, **session: Any) -> dict[str, Any]:
        """Changes the session and waits until that holds."""
        await self.say("session.update", session={"type": "realtime", **session})
        return await self.until("session.updated")

    async def ask(self, text: str) -> dict[str, Any]:
        """Types something and waits for the whole reply."""
        await self.type(text)
        return (await self.until("response.done"))["response"]  # type: ignore[no-any-return]

    async def type(self, text: str) -> None:
        """Types something that is to be answered."""
        content = [{"type": "input_text", "text": text}]
        await self.say("conversation.item.create", item={"type": "message", "role": "user", "content": content})
        await self.say("response.create")

    async def speak(self, samples: FloatArray, *, piece_ms: int = 100) -> None:
        """Sends sound at the wire's rate, as fast as it is taken."""
        size = WIRE_RATE * piece_ms // 1000
        for start in range(0, len(samples), size):
            content = to_pcm16(samples[start : start + size]).astype("<i2").tobytes()
            await self.say("input_audio_buffer.append", audio=base64.b64encode(content).decode())

    def kinds(self) -> list[str]:
        """Types of everything that was told."""
        return [event["type"] for event in self.told]

    def sound(self) -> FloatArray:
        """All sound that was told."""
        deltas = [event["delta"] for event in self.told if event["type"] == "response.output_audio.delta"]
        return np.concatenate([np.frombuffer(base64.b64decode(delta), "<i2") for delta in deltas]).astype(np.float32)


@asynccontextmanager
async def dialled(running: RunningServer, **more: Any) -> AsyncGenerator[Client, None]:
    """A client that is connected, and was told so."""
    async with connect(running.url, compression=None, proxy=None, max_size=None, max_queue=None, **more) as socket:
        client = Client(socket)
        await client.until("conversation.created")
        yield client


def wire_sound(path: Path) -> FloatArray:
    """A recording at the wire's rate."""
    return read_audio(path, sample_rate=WIRE_RATE)


async def eventually(condition: Callable[[], object], limit_s: float = 30.0) -> None:
    """Waits for something that happens elsewhere."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - it happens on another thread's loop
            await asyncio.sleep(0.01)
