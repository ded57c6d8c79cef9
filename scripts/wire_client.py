"""Wire client: a plain client of the Realtime protocol, as fast as the server takes it. For load and for fuzzing.

Receives what to say; gives what is answered. Keeps nothing of what it was told. Knows nothing of real time, of
sentences, or of what is right.
"""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

RATE = 24_000
"""Of audio/pcm on the wire"""
SAMPLE_BYTES = 2
PIECE_S = 0.1
PATIENCE_S = 60.0

Event = dict[str, Any]


class WireClient:
    """One connection.

    Args:
        socket: connected.
        told: is given each message of the server, in order.
    """

    def __init__(self, socket: ClientConnection, told: Callable[[Event], None] = lambda event: None) -> None:
        self.socket = socket
        self.heard_bytes = 0
        """Of the sound of replies"""
        self._told = told

    async def say(self, kind: str, **fields: Any) -> None:
        """Sends a message."""
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def hear(self) -> Event:
        """The next message. Cancelling is safe."""
        event: Event = json.loads(await self.socket.recv())
        if event["type"] == "response.output_audio.delta":
            self.heard_bytes += len(base64.b64decode(event["delta"]))
        self._told(event)
        return event

    async def until(self, *kinds: str, patience_s: float = PATIENCE_S) -> Event:
        """Hears up to a message of one of these kinds. Cancelling is safe.

        Raises:
            TimeoutError: it did not come.
        """
        async with asyncio.timeout(patience_s):
            while (event := await self.hear())["type"] not in kinds:
                pass
        return event

    async def update(self, **session: Any) -> Event:
        """Changes the session and waits until that holds."""
        await self.say("session.update", session={"type": "realtime", **session})
        session_now: Event = (await self.until("session.updated"))["session"]
        return session_now

    async def type(self, text: str) -> None:
        """Types something that is to be answered."""
        content = [{"type": "input_text", "text": text}]
        await self.say("conversation.item.create", item={"type": "message", "role": "user", "content": content})
        await self.say("response.create")

    async def speak(self, sound: bytes, kind: str = "input_audio_buffer.append") -> None:
        """Sends sound (audio/pcm) in pieces, none waited for."""
        size = round(RATE * PIECE_S) * SAMPLE_BYTES
        for start in range(0, len(sound), size):
            piece = base64.b64encode(sound[start : start + size]).decode()
            await self.say(kind, audio=piece)


@asynccontextmanager
async def dialled(url: str, told: Callable[[Event], None] = lambda event: None) -> AsyncGenerator[WireClient, None]:
    """A client that is connected, and was told so."""
    async with connect(url, compression=None, proxy=None, max_size=None, max_queue=None) as socket:
        client = WireClient(socket, told)
        await client.until("session.created")
        yield client
