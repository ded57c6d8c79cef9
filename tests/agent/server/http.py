"""What tests of the server share: raw HTTP over a socket of their own, and a server on a loopback port."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection, connect
from websockets.http11 import Request

from agent.config import ServerConfig
from agent.live.telemetry import Telemetry
from agent.server.access import Access, Refusal
from agent.server.gate import Connection
from agent.server.server import Endpoint, Server, busy


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case"""
    body: bytes


async def ask(
    port: int,
    path: str = "/",
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Reply:
    """One request on a connection of its own, read to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    said = {"Host": f"127.0.0.1:{port}", **(headers or {})}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items())]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    try:
        return reply_of(await reader.read())
    finally:
        writer.close()
        await writer.wait_closed()


async def read_on(client: "ClientConnection") -> None:
    """Reads until the connection is closed, which raises."""
    while True:
        await client.recv()


async def until(condition: Callable[[], object], limit_s: float = 20.0) -> None:
    """Waits for something that another task brings about."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - what it waits for sets no event
            await asyncio.sleep(0.005)


def reply_of(raw: bytes) -> Reply:
    """Bytes of a response, taken apart."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Reply(int(first.split()[1]), headers, body)


class Echo:
    """An endpoint that says everything again."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def admits(self, connection: Connection, request: Request) -> Refusal | None:
        """As the real one."""
        refusal = self._server.access.secret(request.headers)
        if refusal is None and not self._server.gate.seat(connection):
            return busy("capacity", "full")
        return refusal

    async def talk(self, connection: Connection) -> str:
        """Says everything again."""
        async for message in connection:
            await connection.send(message)
        return "echoed"

    async def drain(self) -> None:
        """Nothing is ever under way."""


@asynccontextmanager
async def echoing(
    config: ServerConfig | None = None, *, token: str | None = None, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[Server, None]:
    """A server on a free port of loopback, with an echo at /v1/realtime."""
    config = (config or ServerConfig()).model_copy(update={"port": 0})
    async with Server(config, Access(token, config.hosts, config.origins), Telemetry(), tls) as server:
        echo: Endpoint = Echo(server)
        server.open({"/v1/realtime": echo})
        yield server


def dial(server: Server, **more: object) -> connect:
    """A websocket client for /v1/realtime, told nothing about proxies."""
    options = {"compression": None, "proxy": None, **more}
    return connect(f"ws://127.0.0.1:{server.port}/v1/realtime?model=noema", **options)  # type: ignore[arg-type]


Client = ClientConnection
