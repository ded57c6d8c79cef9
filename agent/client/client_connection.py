"""Client connection: a websocket to a Noema server elsewhere: messages as objects, every failure as one line.

What a server says ends up in a terminal: here it loses what would steer that. Knows how connections are opened,
refused and cut; nothing of what is said on them.
"""

import asyncio
import json
import random
import re
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidProxy, InvalidStatus, InvalidURI
from websockets.http11 import Response

from agent.client.server_address import TOKEN_VARIABLE, ServerAddress
from agent.data_folder import data_folder
from agent.errors import RemoteError, one_line

_OPEN_S = 10.0
_CLOSE_S = 2.0
_MAX_BYTES = 16_777_216
_WAITS_S = (0.3, 1.0, 2.0, 4.0, 8.0, 15.0)
_STEADY_S = 5.0
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_ADVICE = {
    1001: "the server is going away",
    1008: "the server ended the connection",
    1012: "the server restarts",
    1013: "the server is full",
}


class Cut(Exception):
    """The connection is gone. `code` is the close code, 1006 where nobody said goodbye."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason or _ADVICE.get(code, "the connection was cut"))
        self.code = code


class Connection:
    """A websocket that is open."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, message: dict[str, Any]) -> None:
        """Sends, waiting for room.

        Raises:
            Cut: the connection is gone.
        """
        try:
            await self._socket.send(json.dumps(message))
        except ConnectionClosed as error:
            raise _cut(error) from error

    async def receive(self) -> dict[str, Any]:
        """The next message. Cancelling is safe.

        Raises:
            Cut: the connection is gone.
            RemoteError: what came is no message.
        """
        try:
            content = _plain(json.loads(await self._socket.recv()))
        except ConnectionClosed as error:
            raise _cut(error) from error
        except (ValueError, RecursionError) as error:
            raise RemoteError("the server says what no Noema server says") from error
        if not isinstance(content, dict) or not isinstance(content.get("type"), str):
            raise RemoteError("the server says what no Noema server says")
        return content


@asynccontextmanager
async def connected(place: ServerAddress, path: str) -> AsyncGenerator[Connection, None]:
    """A connection to a path of a server.

    Raises:
        RemoteError: the server does not answer, or does not let us in.
        UsageError: the certificate to trust cannot be read.
    """
    headers = {"Authorization": f"Bearer {place.token}"} if place.token else {}
    opening = connect(
        place.url + path,
        additional_headers=headers,
        user_agent_header="noema",
        ssl=place.context(),
        compression=None,
        open_timeout=_OPEN_S,
        close_timeout=_CLOSE_S,
        max_size=_MAX_BYTES,
        proxy=None if place.is_here else True,
    )
    try:
        socket = await opening
    except (OSError, TimeoutError, InvalidHandshake, InvalidProxy, InvalidURI, EOFError) as error:
        raise _refused(place, error) from error
    async with socket:
        yield Connection(socket)


class Patience:
    """How long to wait before trying again: longer each time, until a connection has lasted; never exactly alike."""

    def __init__(self) -> None:
        self._failures = 0
        self._since: float | None = None

    def connected(self) -> None:
        """There is a connection."""
        self._since = asyncio.get_running_loop().time()

    async def rest(self) -> None:
        """Waits, as there is none. Cancelling is safe."""
        since, self._since = self._since, None
        if since is not None and asyncio.get_running_loop().time() - since > _STEADY_S:
            self._failures = 0
        await asyncio.sleep(_WAITS_S[min(self._failures, len(_WAITS_S) - 1)] * random.uniform(0.75, 1.25))
        self._failures += 1


def _cut(error: ConnectionClosed) -> Cut:
    return Cut(error.rcvd.code, _plain(error.rcvd.reason)) if error.rcvd is not None else Cut(1006, "")


def _plain(content: Any) -> Any:
    """What a server says, without control characters."""
    match content:
        case str():
            return _CONTROLS.sub(" ", content)
        case dict():
            return {name: _plain(value) for name, value in content.items()}
        case list():
            return [_plain(value) for value in content]
    return content


def _refused(place: ServerAddress, error: BaseException) -> RemoteError:
    """What to tell the user, and whether trying again may help."""
    if isinstance(error, InvalidStatus):
        return _answered(place, error.response)
    if isinstance(error, ssl.SSLCertVerificationError):
        return RemoteError(
            f"nobody that this machine knows vouches for {place.url} ({error.verify_message}); if it is your own "
            f"server, copy certificate.pem from there (here it would be {data_folder() / 'tls'}) and give it with --ca"
        )
    if isinstance(error, TimeoutError):
        return RemoteError(f"{place.url} does not answer within {_OPEN_S:g} s", temporary=True)
    if isinstance(error, InvalidProxy | InvalidURI):
        return RemoteError(f"{place.url} cannot be reached ({one_line(error)}); check --url and the proxy's variables")
    if isinstance(error, ssl.SSLError | InvalidHandshake | EOFError | ConnectionResetError):
        with_tls = "uses no TLS, try ws:// in place of wss://" if place.is_secure else "uses TLS, try wss://"
        return RemoteError(f"what answers at {place.url} is no Noema server, or if it {with_tls}", temporary=True)
    reason = one_line(error)
    return RemoteError(
        f"nobody answers at {place.url} ({reason}); is `noema serve` running there? Give another with --url",
        temporary=True,
    )


def _answered(place: ServerAddress, response: Response) -> RemoteError:
    said = bytes(response.body or b"")[:300].decode("utf-8", "replace").strip()
    status = response.status_code
    if status == HTTPStatus.UNAUTHORIZED:
        advice = f"put it into {TOKEN_VARIABLE} or into a file for --token-file"
        problem = "does not know this token" if place.token else "wants a token"
        return RemoteError(f"{place.url} {problem}; {advice}", status=status)
    told = " ".join(_plain(said).split()) if said else f"status {status}"
    return RemoteError(f"{place.url} says: {told}", temporary=status >= HTTPStatus.INTERNAL_SERVER_ERROR, status=status)
