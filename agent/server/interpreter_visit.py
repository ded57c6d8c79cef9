"""Interpreter's visit: one connection and its own session, which lasts as long as it: sound in, another language out.

Owns the session from its first message to its last. A client that closes it is told all that it has said; one that
vanishes takes it along. Knows websockets and what a session needs, and nothing of what is said.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress

from websockets.exceptions import ConnectionClosed

from agent.channel import Channel, ChannelClosed
from agent.core.events import DomainEvent
from agent.core.inputs import Input
from agent.core.turn import TurnMachine
from agent.live.live_session import House
from agent.live.outbox import NORMAL, Farewell, Outbox, OutboxClosed
from agent.live.uplink import pieces
from agent.metrics import Metrics
from agent.order import ArrivalOrder
from agent.realtime.defaults import SessionDefaults
from agent.realtime.interpreter import Interpreter, interpreting
from agent.realtime.messages import error_event, to_json
from agent.realtime.problems import ProtocolError
from agent.realtime.settings import spoken_languages
from agent.realtime.translation import (
    TranslationAppend,
    TranslationClientEvent,
    TranslationClose,
    TranslationServerEvent,
    TranslationUpdate,
    parse_translation_event,
)
from agent.server.gate import Connection
from agent.server.parting import EXPIRED, Clock, part, session_expired
from agent.session import Parts, run_session
from audio.frames import AudioFrame, Framer
from audio.telephony import AudioDecoder
from audio.vad import load_vad

_WAITING = 4
"""Messages read ahead of the session: a few, for each may be as long as a message may be"""


class InterpreterVisit:
    """One client and its interpreter; a listener of that session.

    Args:
        connection: the websocket.
        house: what sessions share.
        number: of the session in the model's line.
        defaults: what holds until the client says otherwise.
        session_id: what the session is called.
    """

    def __init__(
        self, connection: Connection, house: House, number: int, defaults: SessionDefaults, session_id: str
    ) -> None:
        languages = spoken_languages(defaults.language, defaults)
        options = house.there.turn_options(languages, None, "translate", live=True)
        self.outbox = Outbox(house.config.outbox_bytes)
        self.over = asyncio.Event()
        self._connection = connection
        self._house = house
        self._number = number
        self._defaults = defaults
        self._core = Interpreter(TurnMachine(interpreting(options)), defaults, session_id)
        self._session_id = session_id
        self._said: Channel[TranslationUpdate | TranslationAppend | ProtocolError] = Channel(_WAITING, "block")
        self._farewell = NORMAL
        self._heard = self._told = 0
        self._clock = Clock(house.config)

    @property
    def account(self) -> str:
        """What came of it, for the log."""
        return f"{self._session_id} interpreted, {self._heard} messages in, {self._told} out"

    def finish(self, farewell: Farewell) -> None:
        """Takes nothing more; what was said is still interpreted, then the connection is closed. Safe to call twice."""
        self._farewell = farewell
        self._said.close()

    async def run(self) -> None:
        """Until it is over. Cancelling is safe."""
        for message in self._core.opening():
            await self.on_message(message)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._converse(), name=self._session_id)
                tasks.create_task(self._listen(), name="listen to the client")
                tasks.create_task(self._speak(), name="speak to the client")
                tasks.create_task(self.outbox.broken(), name="watch the outbox")
                tasks.create_task(self._watch_clock(), name="watch the clock")
        except* (ConnectionClosed, OutboxClosed):
            pass
        finally:
            self.over.set()
        label = "client" if self.outbox.farewell is None else self.outbox.farewell.label
        self._house.telemetry.closed.labels(label).inc()

    async def part(self) -> None:
        """Closes the connection as it is to be told."""
        await part(self._connection, self.outbox, self._farewell)

    # The session

    async def _converse(self) -> None:
        there = self._house.there
        vad = await asyncio.to_thread(load_vad, there.config.vad.name)
        parts = Parts(there.worker, vad, there.voice, Metrics(), self._number)
        order = ArrivalOrder(lambda: self._core.sample)
        await run_session(self._source(), order, self._core, parts, [self])
        self.outbox.close(self._farewell)

    async def _source(self) -> AsyncGenerator[AudioFrame | TranslationUpdate | ProtocolError, None]:
        """What the client sends, in its order, until it has said enough."""
        decoder, framer = AudioDecoder("audio/pcm"), Framer()
        async for event in self._said:
            if not isinstance(event, TranslationAppend):
                yield event
                continue
            try:
                content = event.content()
            except ProtocolError as problem:
                yield problem
                continue
            for piece in pieces(content):
                for frame in framer.push(decoder.push(piece)):
                    yield frame
        for frame in (*framer.push(decoder.flush()), *framer.flush()):
            yield frame

    async def _listen(self) -> None:
        """What the client sends, as fast as the session takes it; after its last word, whether it is there."""
        while True:
            event = self._read(await self._connection.recv())
            if isinstance(event, TranslationClose):
                self._said.close()
            else:
                with suppress(ChannelClosed):
                    await self._said.send(event)

    def _read(self, message: str | bytes) -> TranslationClientEvent | ProtocolError:
        self._heard += 1
        self._clock.heard()
        self._house.telemetry.messages.inc()
        problem = ProtocolError("invalid_value", "messages are JSON in text frames, sound too")
        if isinstance(message, str):
            try:
                return parse_translation_event(message)
            except ProtocolError as error:
                problem = error
        self._house.telemetry.mistakes.inc()
        return problem

    async def on_input(self, item: Input) -> None:
        """A session's listener; what comes in is nothing to tell."""

    async def on_event(self, event: DomainEvent) -> None:
        """The core has put it into words of the wire already."""

    async def on_message(self, message: TranslationServerEvent) -> None:
        """Tells the client."""
        self._told += 1
        self.outbox.put(to_json(message, f"event_{self._told}"))

    # The connection

    async def _speak(self) -> None:
        while True:
            await self._connection.send(await self.outbox.take())

    async def _watch_clock(self) -> None:
        """Ends what has lasted too long, and whoever says nothing."""
        farewell = await self._clock.run_out(self._expires_in_s, lambda: None)
        if farewell is EXPIRED:
            await self.on_message(error_event(session_expired(self._house.config)))
        self.finish(farewell)

    def _expires_in_s(self) -> float:
        at = self._defaults.expires_at
        return float("inf") if at is None else at - time.time()
