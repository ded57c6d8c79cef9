"""A chat endpoint on loopback that answers as each test says, byte for byte."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Answer = Callable[["Exchange"], Coroutine[Any, Any, None]]

DONE = b"data: [DONE]\n\n"


@dataclass(eq=False)
class Exchange:
    """One question, and the connection on which it is answered."""

    headers: dict[str, str]
    question: dict[str, Any]
    writer: asyncio.StreamWriter

    async def begin(self, status: str = "200 OK", kind: str = "text/event-stream", **headers: str) -> None:
        """Status and headers. The end of the connection ends the answer."""
        lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def send(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()

    async def say(self, *stretches: str) -> None:
        for stretch in stretches:
            await self.send(words(stretch))


@dataclass(eq=False)
class ChatServer:
    """What it was asked, how it answers, and whether whoever asked has gone."""

    base_url: str
    answer: Answer
    asked: list[Exchange] = field(default_factory=list)
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client closes a connection before its answer has ended"""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: a question, its answer, the end."""
        try:
            await self._serve(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        finally:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        question = json.loads(await reader.readexactly(int(headers["content-length"])))
        self.asked.append(Exchange(headers, question, writer))
        self.was_asked.set()
        answering, leaving = asyncio.create_task(self.answer(self.asked[-1])), asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait([answering, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                raise ConnectionResetError("whoever asked has gone")
            await answering
        finally:
            answering.cancel()
            leaving.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)


@asynccontextmanager
async def chat_server(
    answer: Answer, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[ChatServer]:
    """One that answers every question so."""
    chat = ChatServer("", answer)
    serving: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(chat.serve(reader, writer)))

    async with await asyncio.start_server(connected, host, 0, ssl=tls) as server:
        chat.base_url = f"{'https' if tls else 'http'}://{host}:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield chat
        finally:
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)


def words(stretch: str | None, **choice: Any) -> bytes:
    """An event with words of the answer."""
    return event({"choices": [{"index": 0, "delta": {"content": stretch}, "finish_reason": None, **choice}]})


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def says(*stretches: str) -> Answer:
    """A whole answer, streamed."""

    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.say(*stretches)
        await exchange.send(DONE)

    return answer


def sends(content: bytes, status: str = "200 OK", kind: str = "application/json", **headers: str) -> Answer:
    """A whole answer, as it stands."""

    async def answer(exchange: Exchange) -> None:
        await exchange.begin(status, kind, **headers)
        await exchange.send(content)

    return answer


async def never(_: Exchange) -> None:
    """No answer at all."""
    await asyncio.Event().wait()
