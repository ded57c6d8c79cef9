"""Live session: one client's conversation on this server, with or without a connection.

Owns the session from its first message to its last: the core, what comes in (`Uplink`), what goes out (`Delivery`)
and what is remarked (`Commentary`). Connections come and go: a session that its client asked to be resumable outlives
them, every other ends with its own, or soon after it where it is recorded. Knows nothing of websockets.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from agent.config import ServerConfig
from agent.core.kept_core import KeptCore, Outstanding, Restoration, restored
from agent.core.stored_session import StoredSession
from agent.core.turn import TurnMachine
from agent.errors import StoreError
from agent.live.commentary import Commentary
from agent.live.delivery import Delivery
from agent.live.guarded_detector import GuardedDetector
from agent.live.listeners import ListenerHub, ListenerLimits, listener_token
from agent.live.live_core import LiveCore, event_of, text_of
from agent.live.live_recording import LiveRecording
from agent.live.outbox import Outbox
from agent.live.telemetry import Telemetry
from agent.live.uplink import Uplink
from agent.metrics import Metrics
from agent.opening import Opened
from agent.order import ArrivalOrder
from agent.realtime.client_events import ClientEvent
from agent.realtime.core import RealtimeCore
from agent.realtime.defaults import SessionDefaults
from agent.realtime.machine import RealtimeMachine
from agent.realtime.messages import error_event
from agent.realtime.noema_events import NoemaKeepalive, NoemaListeners, NoemaResumed, NoemaWarning
from agent.realtime.problems import ProtocolError
from agent.realtime.settings import SessionSettings, shown_session, spoken_languages
from agent.session import Listener, Parts, run_session
from agent.store.session_store import SessionStore, token_hash
from audio.telephony import RATES
from audio.vad import load_vad


@dataclass(frozen=True, slots=True)
class House:
    """What every session of a server shares."""

    there: Opened
    config: ServerConfig
    telemetry: Telemetry
    store: SessionStore | None
    """None: no session outlives its connection"""
    recording_began: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a session begins to be recorded"""


class LiveSession:
    """One conversation. `run` has to be running for anything to happen."""

    def __init__(
        self,
        house: House,
        number: int,
        kept: KeptCore,
        token: str,
        *,
        stored: StoredSession | None = None,
        first: Sequence[Any] = (),
    ) -> None:
        """Use `begin` or `bring_back`.

        Args:
            house: what it shares with others.
            number: in the model's line; no other session of this process has it.
            kept: its core.
            token: by which its client comes back.
            stored: what the store holds of it, where it is brought back.
            first: messages of the core that were never sent.
        """
        core = cast(RealtimeCore, kept.core)
        self._house = house
        self._number = number
        self._wire: RealtimeMachine = core.wire
        self._token = token
        self._first = first
        self._outstanding: list[Outstanding] = kept.outstanding
        self._core = LiveCore(kept, self._rate, None if stored is None else stored.position)
        self._core.on_update = self._updated
        self._core.messages = len(first)
        self._metrics = Metrics()
        self._delivery = Delivery(
            self.session_id, self._core, token_hash(token), 0 if stored is None else stored.last_message
        )
        self._delivery.tells_place = self.settings.noema is not None
        self._commentary = Commentary(self._wire, self._delivery, self._metrics, house.telemetry)
        # What is brought back cannot be recorded from its beginning, and a recording without that is none.
        wanted = (lambda: False) if stored is not None else (lambda: self.is_recorded)
        self._recording = LiveRecording(
            house.there, core.machine.options, wanted, house.recording_began.set, self._recording_stopped
        )
        limits = ListenerLimits(
            house.config.max_listener_languages, house.config.listener_backlog, house.config.outbox_bytes
        )
        self.hub = ListenerHub(
            house.there.worker,
            house.there.voice,
            limits=limits,
            changed=self._listened,
            goes_on=lambda: self.is_kept,
        )
        """Who listens"""
        self._share()
        self._uplink = Uplink(self._core, lambda: self.settings, house.config.max_input_s)
        if stored is not None and house.store is not None:
            self._delivery.keep(house.store, is_there=True)

    @classmethod
    def begin(cls, house: House, number: int, defaults: SessionDefaults, session_id: str, token: str) -> "LiveSession":
        """A new session."""
        there = house.there
        languages = spoken_languages(defaults.language, defaults)
        options = there.turn_options(languages, defaults.reply_language, live=True, session=session_id)
        options = replace(options, half_duplex=False, interruptible=True, assume_playback=True)
        wire = RealtimeMachine(session_id, defaults)
        kept = KeptCore(RealtimeCore(TurnMachine(options), wire), text_of, token)
        return cls(house, number, kept, token)

    @classmethod
    def bring_back(cls, house: House, number: int, stored: StoredSession, token: str) -> "LiveSession":
        """A session that the store kept.

        Raises:
            StoreError: another version kept it, or it is damaged.
        """
        found: Restoration = restored(stored, event_of, text_of, token)
        return cls(house, number, found.core, token, stored=stored, first=found.messages)

    @property
    def session_id(self) -> str:
        """As the client knows it."""
        return self._wire.session_id

    @property
    def settings(self) -> SessionSettings:
        """As they hold now."""
        return self._wire.settings

    @property
    def defaults(self) -> SessionDefaults:
        """What it was like before its client said anything."""
        return self._wire.defaults

    @property
    def languages(self) -> tuple[str, ...]:
        """What may be spoken to it."""
        return spoken_languages(self.settings.language, self.defaults)

    @property
    def listener_token(self) -> str:
        """What listeners show."""
        return listener_token(self._token)

    @property
    def is_kept(self) -> bool:
        """Whether it outlives its connection."""
        return self._delivery.is_kept

    @property
    def is_recorded(self) -> bool:
        """Whether what is said is written down; the client sees the same."""
        asked = self.settings.noema is not None and self.settings.noema.record
        return asked or self._wire.defaults.records

    @property
    def is_being_recorded(self) -> bool:
        """Whether a recording of it is under way, and would lack what is cut off."""
        return self._recording.goes_on

    @property
    def expires_in_s(self) -> float:
        """How long it may still last."""
        at = self._wire.defaults.expires_at
        return float("inf") if at is None else at - time.time()

    async def run(self) -> None:
        """Converses until cancelled, or until everything is answered after `end`."""
        vad = GuardedDetector(await asyncio.to_thread(load_vad, self._house.there.config.vad.name))
        there = self._house.there
        parts = Parts(there.worker, vad, there.voice, self._metrics, self._number)
        listeners: list[Listener] = [vad, self._recording, self._delivery, self._commentary, self.hub]
        for message in self._first:
            await self._delivery.on_message(message)
        order = ArrivalOrder(lambda: self._core.sample)
        try:
            async with asyncio.TaskGroup() as tasks:
                storing = tasks.create_task(self._delivery.store_batches(), name="store")
                tasks.create_task(self.hub.run(), name="listeners")
                await run_session(self._uplink.source(), order, self._core, parts, listeners, self._outstanding)
                storing.cancel()
                self.hub.close()
        finally:
            await self._recording.close()

    # A connection

    def connect(self, outbox: Outbox) -> None:
        """The first connection: it is told who is there."""
        self._delivery.connect(outbox)
        for message in self._wire.opening():
            self._delivery.own(message)

    async def reconnect(self, outbox: Outbox, after_event: str | None) -> None:
        """Another connection takes the session up. Cancelling is safe.

        Raises:
            StoreError: it cannot go on from there.
        """
        if self.expires_in_s <= 0:
            raise StoreError("the session has expired")
        await self._uplink.settle()
        await self._delivery.reconnect(outbox, after_event, lambda: self._resumed(after_event))

    def disconnect(self) -> None:
        """Nobody is there any more."""
        self._delivery.disconnect()

    async def hear(self, event: ClientEvent | ProtocolError) -> None:
        """Takes what the client sends; waits when it sends faster than the session listens."""
        await self._uplink.push(event)

    def complain(self, problem: ProtocolError) -> None:
        """Tells the client at once of something that concerns this connection, and is not for the core to tell."""
        self._delivery.passing(error_event(problem))

    def keep_alive(self) -> None:
        """Tells a client that knows the extension that the connection lives."""
        if self.settings.noema is not None:
            self._delivery.passing(NoemaKeepalive())

    def end(self) -> None:
        """Nobody will say anything more: the session ends by itself once all that was said is answered."""
        self._uplink.end()

    async def finish(self) -> None:
        """Takes nothing more, and waits until what is under way is answered and told. Cancelling is safe."""
        self._uplink.stop()
        await self._uplink.settle()
        await self._core.answered()
        await self._delivery.flushed()

    def _updated(self) -> None:
        """The client changed its session: it may be a kept one from here on, or to be kept no more."""
        noema, store = self.settings.noema, self._house.store
        self._delivery.tells_place = noema is not None
        if noema is not None and noema.resume and store is not None and not self.is_kept:
            self._delivery.keep(store)
        elif noema is not None and noema.forgotten:
            self._delivery.forget()
        self._share()

    def _share(self) -> None:
        noema = self.settings.noema
        self.hub.share(noema is not None and noema.listeners)

    def _listened(self, count: Mapping[str, int]) -> None:
        if self.settings.noema is not None:
            self._delivery.passing(NoemaListeners(count=dict(count)))

    def _recording_stopped(self) -> None:
        if self.settings.noema is not None:
            message = "the disk refuses: the session goes on, the recording does not"
            self._delivery.passing(NoemaWarning(code="noema_recording_stopped", message=message))

    def _rate(self) -> int:
        return RATES[self.settings.input_format]

    def _resumed(self, after_event: str | None) -> NoemaResumed:
        position = self._delivery.stored
        return NoemaResumed(
            session=shown_session(self.settings, self._wire.defaults, self.session_id),
            after_event=after_event,
            input_audio_samples=position.audio_samples,
            client_events=position.events,
        )
