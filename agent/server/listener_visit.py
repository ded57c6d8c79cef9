"""Listener's visit: one connection that follows a session: what it is told is sent, what it says is nothing.

Ends when the session is over, when either side closes, or when the listener reads too slowly. Knows how to talk to a
websocket, and nothing of how sentences come about.
"""

import asyncio
import json

from websockets.exceptions import ConnectionClosed

from agent.live.interpretation import Listening
from agent.live.live_session import House, LiveSession
from agent.live.outbox import NORMAL, OutboxClosed
from agent.realtime.interpreter import translation_session
from agent.realtime.messages import to_json
from agent.realtime.noema_events import NoemaKeepalive
from agent.realtime.translation import TranslationCreated
from agent.server.gate import Connection
from agent.server.parting import part


class ListenerVisit:
    """One connection and its place among the listeners of a session."""

    def __init__(self, connection: Connection, listening: Listening, session: LiveSession, house: House) -> None:
        self._connection = connection
        self._listening = listening
        self._session = session
        self._house = house
        self._said = 0

    @property
    def account(self) -> str:
        """What came of it, for the log."""
        return f"listened to {self._session.session_id} in {self._listening.language}, {self._said} messages out"

    async def run(self) -> None:
        """Until it is over. Cancelling is safe."""
        outbox = self._listening.outbox
        try:
            await self._connection.send(self._greeting())
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._ignore(), name="watch the listener")
                tasks.create_task(self._speak(), name="speak to the listener")
                tasks.create_task(outbox.broken(), name="watch the outbox")
                tasks.create_task(self._keep_alive(), name="keep the connection alive")
        except* (ConnectionClosed, OutboxClosed):
            pass
        label = "client" if outbox.farewell is None else outbox.farewell.label
        self._house.telemetry.closed.labels(label).inc()

    async def part(self) -> None:
        """Closes the connection as it is to be told."""
        await part(self._connection, self._listening.outbox, NORMAL)

    def _greeting(self) -> str:
        listening, session = self._listening, self._session
        shown = translation_session(session.session_id, session.defaults, listening.language)
        told = shown.model_copy(
            update={"listening_to": session.session_id, "source": listening.source, "spoken": listening.audio}
        )
        return to_json(TranslationCreated(session=told), "event_0")

    async def _speak(self) -> None:
        while True:
            await self._connection.send(await self._listening.outbox.take())
            self._said += 1

    async def _ignore(self) -> None:
        """Whoever listens has nothing to say, but that it has enough."""
        while True:
            message = await self._connection.recv()
            if len(message) < 1000 and '"session.close"' in str(message) and _closes(message):
                self._listening.outbox.break_off(NORMAL)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._house.config.keepalive_s)
            self._listening.outbox.put(to_json(NoemaKeepalive(), f"event_0_{self._said}"))


def _closes(message: str | bytes) -> bool:
    try:
        content = json.loads(message)
    except ValueError:
        return False
    return isinstance(content, dict) and content.get("type") == "session.close"
