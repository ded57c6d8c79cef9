"""The server: requests in; pages, figures, refusals and open websockets out. Where all of agent/server meets.

    GET /healthz            200 as long as the event loop lives
    GET /readyz             200, or 503 and why: loading, draining, hung
    GET /metrics            for Prometheus; needs the token where there is one
    GET /v1/realtime        a websocket, handed to the endpoint of that path once it may come in
    GET /, /listen, …       the files of agent/web

Every answer but a websocket closes its connection. Queries are read by nobody here and logged nowhere, nor is any
header. Knows nothing of what is said on a websocket.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Any, Literal, Protocol, Self, cast

from websockets.asyncio.server import Server as WebsocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from agent.config import ServerConfig
from agent.live.telemetry import Telemetry
from agent.server.access import SUBPROTOCOL, Access, Refusal
from agent.server.gate import RETRY_AFTER_S, Connection, Gate
from agent.server.listening import refused_to_listen
from agent.server.pages import SAFE, Answer, Pages
from agent.server.parting import RESTARTS

State = Literal["loading", "ready", "draining", "hung"]
_BACKLOG = 512
_FRAMES_WAITING = 4
"""Frames read ahead of the session: a few, for each may be as long as a message"""
_log = logging.getLogger(__name__)

# websockets logs headers and paths at its debug level: ours never gets there, whatever the root's is.
_wire_log = logging.getLogger("noema.websockets")
_wire_log.setLevel(logging.ERROR)


class Endpoint(Protocol):
    """What talks on the websockets of one path."""

    def admits(self, connection: Connection, request: Request) -> Refusal | None:
        """Whether a websocket may be opened, its host and origin apart."""
        ...

    async def talk(self, connection: Connection) -> str:
        """Talks until either side closes. Gives an account of it, for the log."""
        ...

    async def drain(self) -> None:
        """Lets what is under way finish, and closes. May be cancelled."""
        ...


class Server:
    """Listens from entering to leaving; ready once it has endpoints."""

    def __init__(self, config: ServerConfig, access: Access, telemetry: Telemetry, tls: ssl.SSLContext | None) -> None:
        self.config = config
        self.telemetry = telemetry
        self.gate = Gate(config.max_handshakes, config.max_sessions)
        self.state: State = "loading"
        self.access = access
        self._tls = tls
        self._pages = Pages()
        self._endpoints: Mapping[str, Endpoint] = {}
        self._listening: WebsocketServer
        self._lag: asyncio.Task[None]
        watch = telemetry.watch
        watch("noema_ready", "1 while new sessions are taken", lambda: self.state == "ready")
        watch("noema_open_connections", "Websockets that are open", lambda: len(self.gate.open))
        watch("noema_handshakes", "Connections before their handshake", lambda: len(self.gate.waiting))
        watch("noema_turned_away_total", "Connections beyond max_handshakes", lambda: self.gate.turned_away)

    async def __aenter__(self) -> Self:
        """Listens.

        Raises:
            UsageError: the port is taken, or the address is not one of this machine's.
        """
        config = self.config
        listening = serve(
            self._talk,
            config.host,
            config.port,
            ssl=self._tls,
            create_connection=cast(type[ServerConnection], partial(Connection, self.gate)),
            process_request=self._answer_in_time,
            select_subprotocol=_subprotocol,
            compression=None,
            logger=_wire_log,
            server_header=None,
            open_timeout=config.handshake_s,
            ping_interval=config.ping_s,
            ping_timeout=config.ping_timeout_s,
            close_timeout=config.close_s,
            max_size=config.max_message_bytes,
            max_queue=_FRAMES_WAITING,
            backlog=_BACKLOG,
        )
        try:
            self._listening = await listening
        except OSError as error:
            raise refused_to_listen(config.host, config.port, error) from error
        self._lag = asyncio.create_task(self.telemetry.watch_loop(), name="loop-lag")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes whatever is still open, for at most `close_s` seconds."""
        await self.close(self.config.close_s)
        self._lag.cancel()
        await asyncio.gather(self._lag, return_exceptions=True)

    @property
    def port(self) -> int:
        """The port, where 0 asked for any."""
        return int(self._listening.sockets[0].getsockname()[1])

    def open(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Ready: websockets are taken from here on. A path has no slash at its end."""
        self._endpoints = endpoints
        self.state = "ready"

    async def drain(self) -> None:
        """Takes nobody in any more and lets replies under way finish, for at most `drain_s`. May be cancelled."""
        self.state = "draining"
        async with asyncio.TaskGroup() as tasks:
            for path, endpoint in self._endpoints.items():
                tasks.create_task(endpoint.drain(), name=f"drain {path}")

    async def close(self, limit_s: float) -> None:
        """Stops listening and closes every connection: those that talk with 1012, the rest at once."""
        for connection in self.gate.open:
            connection.close_timeout = limit_s
        self._listening.close(code=RESTARTS.code, reason=RESTARTS.reason)
        for connection in list(self.gate.waiting):
            if connection.response is None:
                connection.transport.abort()
        try:
            async with asyncio.timeout(limit_s + 1.0):
                await self._listening.wait_closed()
        except TimeoutError:
            for connection in list(self.gate.waiting | self.gate.open):
                connection.transport.abort()

    def _answer_in_time(
        self, connection: ServerConnection, request: Request
    ) -> Response | Coroutine[Any, Any, None] | None:
        """As `_answer`, if there is still somebody to hear it.

        Who sends frames before he has an answer, and wrong ones, has been parted with: websockets would stumble
        over its answer, with a trace in the log.
        """
        return _gone(connection) if connection.protocol.eof_sent else self._answer(connection, request)

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """What answers a request; None: a websocket is opened."""
        assert isinstance(connection, Connection), "every connection is made as one"
        path = request.path.partition("?")[0]
        endpoint = self._endpoints.get(path.rstrip("/"))
        if endpoint is not None or path.startswith("/v1/"):
            return self._refuse(self._admit(connection, request, endpoint), request)
        if request.method not in ("GET", "HEAD"):
            allowed = Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "method", "GET and HEAD only.\n", {"Allow": "GET, HEAD"})
            return self._refuse(allowed, request)
        if path in ("/healthz", "/readyz"):
            return _response(self._health(path), request)
        if path == "/metrics":
            refusal = self.access.page(request.headers) or self.access.secret(request.headers)
            return self._refuse(refusal, request) or _response(self._metrics(), request)
        page = self._pages.get(path, request.headers)
        missing = Refusal(HTTPStatus.NOT_FOUND, "path", "Nothing is here.\n") if page is None else None
        refused = self._refuse(self.access.page(request.headers) or missing, request)
        if refused is not None or page is None:
            return refused
        return _response(page, request)

    def _admit(self, connection: Connection, request: Request, endpoint: Endpoint | None) -> Refusal | None:
        if self.state != "ready":
            return busy("not-ready", f"Not ready: {self.state}.\n")
        if endpoint is None:
            return Refusal(HTTPStatus.NOT_FOUND, "path", "Nothing is here.\n")
        return self.access.websocket(request.headers) or endpoint.admits(connection, request)

    def _refuse(self, refusal: Refusal | None, request: Request) -> Response | None:
        if refusal is None:
            return None
        self.telemetry.refused.labels(refusal.reason).inc()
        _log.debug("%s refused: %s", request.path.partition("?")[0], refusal.reason)
        return _response(_text(refusal.status, refusal.message, refusal.headers), request)

    def _health(self, path: str) -> Answer:
        if path == "/healthz":
            return _text(HTTPStatus.OK, "ok\n")
        if self.state == "ready":
            return _text(HTTPStatus.OK, "ready\n")
        return _text(HTTPStatus.SERVICE_UNAVAILABLE, f"{self.state}\n", {"Retry-After": str(RETRY_AFTER_S)})

    def _metrics(self) -> Answer:
        content, type_ = self.telemetry.page()
        return Answer(HTTPStatus.OK, {"Content-Type": type_, "Cache-Control": "no-store", **SAFE}, content)

    async def _talk(self, connection: ServerConnection) -> None:
        """One websocket, from its handshake to its end."""
        assert isinstance(connection, Connection), "every connection is made as one"
        assert connection.request is not None, "the handshake is done"
        connection.opened()
        self.telemetry.connections.inc()
        path = connection.request.path.partition("?")[0].rstrip("/")
        name = f"{connection.id.hex[:8]} {_client(connection)}"
        began = time.monotonic()
        _log.info("%s connected to %s; %d open", name, path, len(self.gate.open))
        account = "broken off"
        try:
            account = await self._endpoints[path].talk(connection)
        except ConnectionClosed:
            pass
        finally:
            seconds, still = time.monotonic() - began, len(self.gate.open - {connection})
            code = connection.close_code or "cut"
            _log.info("%s gone (%s) after %.1f s: %s; %d open", name, code, seconds, account, still)


async def _gone(connection: ServerConnection) -> None:
    connection.transport.abort()
    await connection.wait_closed()


def busy(reason: str, message: str) -> Refusal:
    """Not now: try again soon."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, reason, message, {"Retry-After": str(RETRY_AFTER_S)})


def _text(status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None) -> Answer:
    said = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store", **SAFE, **(headers or {})}
    return Answer(status, said, text.encode())


def _response(answer: Answer, request: Request) -> Response:
    """An answer as it goes over the wire; a HEAD gets all of it but the body."""
    headers = Headers(dict(answer.headers))
    headers["Connection"] = "close"
    if answer.status != HTTPStatus.NOT_MODIFIED:
        headers["Content-Length"] = str(len(answer.body))
    body = b"" if request.method == "HEAD" else answer.body
    return Response(answer.status.value, answer.status.phrase, headers, body)


def _subprotocol(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Browsers want one of those they offered; the one that carries the token is never said aloud."""
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None


def _client(connection: Connection) -> str:
    address = connection.remote_address
    return f"{address[0]}" if isinstance(address, tuple) else "local"
