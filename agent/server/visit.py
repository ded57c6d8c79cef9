"""Visit: one connection's time with a session: what it sends is heard, what is said to it is sent, the clock watched.

Ends when either side closes, when the client reads too slowly, says nothing for too long or has stayed too long.
Knows how to talk to a websocket and to a session, and nothing of what they say.
"""

import asyncio
from collections.abc import Awaitable, Callable

from websockets.exceptions import ConnectionClosed

from agent.config import ServerConfig
from agent.live.live_session import LiveSession
from agent.live.outbox import Outbox, OutboxClosed
from agent.live.telemetry import Telemetry
from agent.live.uplink import read_message
from agent.realtime.client_events import ClientEvent, SessionUpdate
from agent.realtime.problems import ProtocolError
from agent.realtime.session_object import ResumeRequest
from agent.server.gate import Connection
from agent.server.parting import EXPIRED, Clock, part, session_expired


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
        self._clock = Clock(config)

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
        await part(self._connection, self.outbox)

    async def _listen(self) -> None:
        """What the client sends, in order, as fast as the session takes it."""
        while True:
            message = await self._connection.recv()
            self._heard += 1
            self._clock.heard()
            self._telemetry.messages.inc()
            event = read_message(message)
            if isinstance(event, ProtocolError):
                self._telemetry.mistakes.inc()
            request = _resume_request(event) if self._heard == 1 else None
            if request is None:
                await self.session.hear(event)
            elif not await self._take_up(self, request):
                await self._begin_instead(event)

    async def _begin_instead(self, event: ClientEvent | ProtocolError) -> None:
        """The session that was asked for is not to be had; what else the message says holds for the fresh one."""
        assert isinstance(event, SessionUpdate), "it asked for a session"
        advice = "no such session is kept here, or not from there on: begin a new one"
        self.session.complain(ProtocolError("noema_resume_unknown", advice, "session.noema.resume", event.event_id))
        rest = _without_resume(event)
        if rest is not None:
            await self.session.hear(rest)

    async def _speak(self) -> None:
        """What is said to the client."""
        while True:
            await self._connection.send(await self.outbox.take())
            self._said += 1

    async def _watch_clock(self) -> None:
        """Keeps the connection alive, and ends what has lasted too long."""
        farewell = await self._clock.run_out(lambda: self.session.expires_in_s, self._still_there)
        if farewell is EXPIRED:
            self.session.complain(session_expired(self._config))
        self.outbox.close(farewell)

    def _still_there(self) -> None:
        self.session.keep_alive()  # whichever it is by now


def _resume_request(event: ClientEvent | ProtocolError) -> ResumeRequest | None:
    """The earlier session that a first message asks for."""
    noema = event.session.noema if isinstance(event, SessionUpdate) else None
    return noema.resume if noema is not None and isinstance(noema.resume, ResumeRequest) else None


def _without_resume(event: SessionUpdate) -> SessionUpdate | None:
    """What a message asks for beside an earlier session; None: nothing."""
    content = event.model_dump(exclude_unset=True, exclude={"session": {"noema": {"resume"}}})
    session = content["session"]
    if not session["noema"]:
        del session["noema"]
    return SessionUpdate.model_validate(content) if session.keys() - {"type"} else None
