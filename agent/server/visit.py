"""Visit: one connection's time with a session: what it sends is heard, what is said to it is sent, the clock watched.

Ends when either side closes, when the client reads too slowly, says nothing for too long or has stayed too long.
Knows how to talk to a websocket and to a session, and nothing of what they say.
"""

import asyncio
from collections.abc import Awaitable, Callable

from websockets.exceptions import ConnectionClosed

from agent.config import ServerConfig
from agent.live import LiveSession
from agent.outbox import Farewell, Outbox, OutboxClosed
from agent.realtime.client_events import SessionUpdate
from agent.realtime.problems import ProtocolError
from agent.realtime.session_object import ResumeRequest
from agent.server.gate import Connection
from agent.server.telemetry import Telemetry
from agent.uplink import read_message

SILENT = Farewell(1008, "nothing was heard of the client for too long", "idle")
EXPIRED = Farewell(1008, "the session has lasted as long as it may", "expired")
_SLOW_CLOSE_S = 1.0
"""For one that does not read, there is no use in waiting until it reads that it is to go"""


class Visit:
    """One connection and the session it talks with.

    Args:
        connection: the websocket.
        outbox: what is to be sent.
        session: made for it; another may take its place at the first message.
        config: limits.
        telemetry: counts.
        take_up: lets the visit go on with the session that the client wants back.
    """

    def __init__(
        self,
        connection: Connection,
        outbox: Outbox,
        session: LiveSession,
        config: ServerConfig,
        telemetry: Telemetry,
        take_up: "Callable[[Visit, ResumeRequest], Awaitable[bool]]",
    ) -> None:
        self.outbox = outbox
        self.session = session
        self.over = asyncio.Event()
        """Set once the session is free for another"""
        self._connection = connection
        self._config = config
        self._telemetry = telemetry
        self._take_up = take_up
        self._heard = 0
        self._said = 0
        self._last_heard = asyncio.get_running_loop().time()

    @property
    def account(self) -> str:
        """What came of it, for the log."""
        return f"{self.session.session_id}, {self._heard} messages in, {self._said} out"

    async def run(self) -> None:
        """Until it is over. Cancelling is safe."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(), name="listen to the client")
                tasks.create_task(self._speak(), name="speak to the client")
                tasks.create_task(self.outbox.broken(), name="watch the outbox")
                tasks.create_task(self._watch_clock(), name="watch the clock")
        except* (ConnectionClosed, OutboxClosed):
            pass
        farewell = self.outbox.farewell
        self._telemetry.closed.labels("client" if farewell is None else farewell.label).inc()

    async def part(self) -> None:
        """Closes the connection as it is to be told."""
        farewell = self.outbox.farewell
        if farewell is not None:
            if self.outbox.is_broken:
                self._connection.close_timeout = _SLOW_CLOSE_S
            await self._connection.close(farewell.code, farewell.reason)

    async def _listen(self) -> None:
        """What the client sends, in order, as fast as the session takes it."""
        while True:
            message = await self._connection.recv()
            self._heard += 1
            self._last_heard = asyncio.get_running_loop().time()
            self._telemetry.messages.inc()
            event = read_message(message)
            if isinstance(event, ProtocolError):
                self._telemetry.mistakes.inc()
            if isinstance(event, SessionUpdate) and self._heard == 1 and await self._resumes(event):
                continue
            await self.session.hear(event)

    async def _resumes(self, event: SessionUpdate) -> bool:
        """Whether a first message asks for an earlier session; then it is answered here and counts for none."""
        noema = event.session.noema
        if noema is None or not isinstance(noema.resume, ResumeRequest):
            return False
        if not await self._take_up(self, noema.resume):
            advice = "no such session is kept here, or not from there on: begin a new one"
            self.session.complain(ProtocolError("noema_resume_unknown", advice, "session.noema.resume", event.event_id))
        return True

    async def _speak(self) -> None:
        """What is said to the client."""
        while True:
            await self._connection.send(await self.outbox.take())
            self._said += 1

    async def _watch_clock(self) -> None:
        """Keeps the connection alive, and ends what has lasted too long."""
        loop, config = asyncio.get_running_loop(), self._config
        while True:
            silent_in_s = self._last_heard + config.idle_s - loop.time()
            expires_in_s = self.session.expires_in_s
            if silent_in_s <= 0:
                self.outbox.close(SILENT)
                return
            if expires_in_s <= 0:
                minutes = f"{config.session_s / 60:g} minutes"
                self.session.complain(ProtocolError("session_expired", f"a session lasts {minutes} at most"))
                self.outbox.close(EXPIRED)
                return
            await asyncio.sleep(min(silent_in_s, expires_in_s, config.keepalive_s))
            self.session.keep_alive()
