"""Client: a session on a server elsewhere, over as many connections as it takes.

Receives what is to be sent, and hands over what the server says, each message once and in order. When a connection is
cut it makes another and takes the session up where it was; if the server has forgotten the session, it begins a new
one and says so. Knows how a session is opened and resumed, and nothing of what is said.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from agent.client.client_connection import Connection, Cut, Patience, connected
from agent.client.resume_queue import ResumeQueue
from agent.client.server_address import ServerAddress
from agent.errors import RemoteError, one_line

PATH = "/v1/realtime"
_TAKEN_OVER = 4001
_RESUME_S = 15.0
_LEAVE_S = 1.0


class RealtimeClient:
    """One conversation with a server.

    Args:
        place: the server.
        opening: the session.update with which a session begins; with `noema.resume`, for it to outlive a connection.
        heard: takes what the server says.
        told: takes what became of the connection, for people.
    """

    def __init__(
        self,
        place: ServerAddress,
        opening: dict[str, Any],
        heard: Callable[[dict[str, Any]], Awaitable[None]],
        told: Callable[[str], None],
    ) -> None:
        self._place = place
        self._opening = opening
        self._heard = heard
        self._told = told
        self._queue = ResumeQueue()
        self._more = asyncio.Event()
        self._has_begun = False
        self._token: str | None = None
        self._after: str | None = None
        """The last event that was taken"""

    def send(self, event: dict[str, Any]) -> None:
        """Sends a message, now or when there is a connection."""
        self._queue.add_event(event)
        self._more.set()

    def send_audio(self, pcm: bytes) -> None:
        """Sends sound: 24 kHz, 16 bits, little-endian. While there is no connection, the last half minute is kept."""
        self._queue.add_audio(pcm)
        self._more.set()

    async def run(self) -> None:
        """Talks until cancelled. Cancelling ends the session: the server is to forget it, and has a second to say so.

        Raises:
            RemoteError: there is no server, it does not let us in, or the session goes on in another client.
        """
        patience, reached = Patience(), False
        while True:
            try:
                async with connected(self._place, PATH) as connection:
                    patience.connected()
                    reached = True
                    try:
                        await self._talk(connection)
                    except asyncio.CancelledError:
                        await self._leave(connection)
                        raise
            except RemoteError as error:
                if not (reached and error.temporary):
                    raise
                reason = one_line(error)
            except Cut as cut:
                if cut.code == _TAKEN_OVER:
                    raise RemoteError(one_line(cut)) from cut
                reason = one_line(cut)
            self._told(f"{reason}; connecting again")
            await patience.rest()

    async def _talk(self, connection: Connection) -> None:
        """One connection.

        Raises:
            Cut: it is gone.
        """
        cut: Exception | None = None
        await self._begin(connection)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send(connection), name="send")
                tasks.create_task(self._receive(connection), name="receive")
        except* Cut as group:
            cut = group.exceptions[0]
        assert cut is not None, "it talks until it is cut"
        raise cut

    async def _begin(self, connection: Connection) -> None:
        """A session, new or taken up again."""
        if self._token is None:
            if self._has_begun:
                self._told("the server keeps no conversations; a new one begins")
            self._has_begun = True
            self._queue.begin(self._opening)
            return
        await connection.send(_resume({"token": self._token, "after_event": self._after}))
        try:
            async with asyncio.timeout(_RESUME_S):
                fresh, resumed = await _resumption(connection)
        except TimeoutError as error:
            raise Cut(1006, "the server does not take the conversation up again") from error
        if resumed is not None:
            self._queue.resumed(resumed["input_audio_samples"], resumed["client_events"])
            self._told("connected again")
            await self._heard(resumed)
            return
        self._told("the server no longer has this conversation; a new one begins")
        self._token = self._after = None
        self._queue.begin(self._opening)
        if fresh is not None:
            await self._heard(fresh)

    async def _leave(self, connection: Connection) -> None:
        """Nobody comes back: the server need not keep what was said."""
        if self._token is None:
            return
        with suppress(Cut, RemoteError, TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                await connection.send(_resume(False))
                while (await connection.receive())["type"] != "session.updated":
                    pass

    async def _send(self, connection: Connection) -> None:
        while True:
            while (message := self._queue.take()) is not None:
                await connection.send(message)
            self._more.clear()
            await self._more.wait()

    async def _receive(self, connection: Connection) -> None:
        while True:
            message = await connection.receive()
            with suppress(KeyError, TypeError):
                self._token = message["session"]["noema"]["resume"]["token"]
            await self._heard(message)
            if self._token is not None:
                self._after = message.get("event_id", self._after)


def _resume(what: dict[str, Any] | bool) -> dict[str, Any]:
    return {"type": "session.update", "session": {"type": "realtime", "noema": {"resume": what}}}


async def _resumption(connection: Connection) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """How the server answers one who comes back.

    Gives:
        How the session began that it made for this connection, and how the earlier one goes on; None: it is unknown.
    """
    fresh: dict[str, Any] | None = None
    while True:
        message = await connection.receive()
        if message["type"] == "noema.resumed":
            return fresh, message
        if message["type"] == "session.created":
            fresh = message
        elif message["type"] == "error" and message["error"].get("code") == "noema_resume_unknown":
            return fresh, None
