"""Delivery: what a session says, numbered, stored where the session is to outlive its connection, and only then sent.

    core's messages ─┐
                     ├→ numbered → (committed to the store, many at once) → outbox of the connection, if there is one
    the server's own ┘

Some of the server's own pass by: a meter reading says nothing a second later, so it has no number and is not kept.
A number is told as `event_12`; what passes by repeats the last with a suffix, so whatever a client saw last, it can
say from where it missed something.
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from agent.core.events import DomainEvent, ReplyEnded, ReplyTruncated
from agent.core.inputs import AudioInput, ContextGiven, Input, TypedText
from agent.errors import StoreError, one_line
from agent.live.live_core import LiveCore
from agent.live.outbox import Outbox
from agent.realtime.messages import to_json
from agent.realtime.noema_events import NoemaWarning
from agent.realtime.server_events import AudioDelta, ServerEvent
from agent.store.session_store import SessionStore
from audio.frames import SAMPLE_RATE

_STORE_EVERY_S = 0.5
"""Sound is stored this often though nothing is said: a client keeps what the server does not have"""
_UNSTORED_BYTES = 8 * 1024 * 1024
"""What may wait while the disk hangs, a minute of talk; then the session is kept no more, and goes on"""
_FIRST_KEPT = 64
_EVENT_ID = re.compile(r"event_([0-9]{1,15})(?:_[0-9]+)?")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Message:
    number: int
    text: str
    is_sound: bool
    of_core: bool


class Delivery:
    """A listener of one session: sends what it says to whoever is connected.

    Args:
        session_id: what the store calls it.
        core: tells what has been taken, for the store.
        token_hash: by which the client finds it again.
        last_number: of the messages so far.
    """

    def __init__(self, session_id: str, core: LiveCore, token_hash: bytes, last_number: int = 0) -> None:
        self._session_id = session_id
        self._core = core
        self._token_hash = token_hash
        self._outbox: Outbox | None = None
        self._store: SessionStore | None = None
        self._is_there = False
        """Whether the store knows the session"""
        self._unwanted = False
        """Whether it is to forget it"""
        self._waiting: list[_Message] = []
        self._waiting_bytes = 0
        self._patience: asyncio.Timeout | None = None
        """With the disk, while something is being stored"""
        self._first: deque[_Message] = deque(maxlen=_FIRST_KEPT)
        """Before anything was heard: a session that comes to be stored is stored from its beginning"""
        self._has_begun = False
        self._numbered = self._sent = last_number
        self._said = 0
        """Messages of the core"""
        self.tells_place = False
        """Whether messages tell where on the clock they happened"""
        self._at_ms = 0
        self._silent_until = 0
        """Sound up to here is not to be heard any more"""
        self._passed = 0
        self.stored = core.position
        """What of all that the client sent is sure not to be lost"""
        self._changed = asyncio.Event()
        self._stirred = asyncio.Event()
        self._storing = asyncio.Lock()

    @property
    def is_kept(self) -> bool:
        """Whether the session is stored, so that its client can come back to it."""
        return self._store is not None

    # What is said

    async def on_input(self, item: Input) -> None:
        """Once there is sound or text, a session is stored from its beginning, or never."""
        self._at_ms = item.at_sample * 1000 // SAMPLE_RATE
        if isinstance(item, AudioInput | TypedText | ContextGiven) and not self._has_begun:
            self._has_begun = True
            self._first.clear()
        self._bound()

    async def on_event(self, event: DomainEvent) -> None:
        """What was interrupted is not to be heard any more, however slow the way to the client."""
        match event:
            case ReplyTruncated() | ReplyEnded(status="interrupted" | "cancelled"):
                self._silent_until = self._numbered
                if self._outbox is not None:
                    self._outbox.drop_sound()
            case _:
                pass

    async def on_message(self, message: ServerEvent) -> None:
        """Sends what the core says."""
        self._say(message, of_core=True)

    def own(self, message: ServerEvent) -> None:
        """Sends something of the server's own, which is kept like the rest."""
        self._say(message, of_core=False)

    def passing(self, message: ServerEvent) -> None:
        """Sends something that is not worth keeping."""
        if self._outbox is not None:
            self._passed += 1
            self._outbox.put(to_json(message, f"event_{self._sent}_{self._passed}"))

    def _say(self, message: ServerEvent, *, of_core: bool) -> None:
        self._numbered += 1
        self._said += of_core
        self._stirred.set()
        text = to_json(message, f"event_{self._numbered}", self._at_ms if self.tells_place else None)
        made = _Message(self._numbered, text, isinstance(message, AudioDelta), of_core)
        if self._store is not None:
            self._wait([made])
            self._bound()
            return
        if not self._has_begun:
            self._first.append(made)
        self._send([made])

    def _wait(self, messages: Sequence[_Message]) -> None:
        self._waiting += messages
        self._waiting_bytes += sum(len(message.text) for message in messages)
        self._changed.set()

    def _bound(self) -> None:
        """Lets what is being stored fail when too much waits for it."""
        if self._patience is not None and self._waiting_bytes + self._core.kept.waiting_bytes > _UNSTORED_BYTES:
            self._patience.reschedule(asyncio.get_running_loop().time())
            self._patience = None

    def _send(self, messages: Sequence[_Message]) -> None:
        for message in messages:
            self._sent = message.number
            if self._outbox is not None and not (message.is_sound and message.number <= self._silent_until):
                self._outbox.put(message.text, is_sound=message.is_sound)

    # Who listens

    def connect(self, outbox: Outbox) -> None:
        """From here on, messages go there."""
        self._outbox = outbox

    async def reconnect(self, outbox: Outbox, after_event: str | None, greeting: Callable[[], ServerEvent]) -> None:
        """From here on, messages go there, after all that came after an event that the client names.

        Cancelling is safe.

        Args:
            outbox: of the new connection.
            after_event: the last that the client saw; None: it saw none.
            greeting: comes first; made when everything so far has been stored.

        Raises:
            StoreError: not everything is there any more, or there is no such event.
        """
        number = _number_of(after_event)
        await self.flushed()
        async with self._storing:
            if self._store is None or number > self._numbered:
                raise StoreError("the session is not kept, or never said that")
            missed = await self._store.messages_after(self._session_id, number)
            if not self.is_kept:  # the disk took so long that nobody waits for it any more
                raise StoreError("the session is not kept any more")
            self._outbox = outbox
            self.passing(greeting())
            outbox.catch_up([self._core.kept.unmasked(text) for _, text in missed])

    def disconnect(self) -> None:
        """Nobody listens; what is said is stored, if it is."""
        self._outbox = None

    # The store

    def keep(self, store: SessionStore, *, is_there: bool = False) -> None:
        """From here on, what is said is stored before it is sent; with what was said before, unless it is there."""
        self._store = store
        self._is_there = is_there
        if not is_there:
            self._wait(self._first)
            self._core.kept.begin(self._said - sum(message.of_core for message in self._waiting))
        self._changed.set()

    def forget(self) -> None:
        """The store is to hold nothing of the session; what is said waits until that is so."""
        self._unwanted = True
        self._changed.set()

    async def store_batches(self) -> None:
        """Stores what there is to store, and then sends it, until cancelled."""
        while True:
            limit_s = _STORE_EVERY_S if self._store is not None else None
            with suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self._changed.wait()
            self._changed.clear()
            if self._store is not None:
                try:
                    async with asyncio.timeout(None) as self._patience, self._storing:
                        await self._settle(self._store)
                except StoreError as error:
                    self._give_up(error)
                except TimeoutError:
                    self._give_up(StoreError("the disk does not answer"))
                finally:
                    self._patience = None
            self._stirred.set()

    async def flushed(self) -> None:
        """Waits until all that the core has said is on its way, and stored where it is to be. Cancelling is safe."""
        while self._said < self._core.messages or (self._store is not None and self._unsettled):
            self._stirred.clear()
            if self._store is not None and self._unsettled:
                self._changed.set()
            await self._stirred.wait()

    @property
    def _unstored(self) -> bool:
        return bool(self._waiting or self._core.kept.waiting)

    @property
    def _unsettled(self) -> bool:
        return self._unwanted or self._unstored

    async def _settle(self, store: SessionStore) -> None:
        """Everything so far is stored, then sent; or the session is forgotten, and then that is told.

        Raises:
            StoreError: the disk refuses.
        """
        if not self._unwanted:
            await self._commit(store)
            return
        if self._is_there:
            await store.delete(self._session_id)
        self._stop_keeping()

    async def _commit(self, store: SessionStore) -> None:
        if not self._unstored:
            return
        messages = tuple(self._waiting)
        lines = [(message.number, message.text) for message in messages]
        of_core = sum(message.of_core for message in messages)
        batch = self._core.kept.batch(lines, of_core, self._core.position)
        if not self._is_there:
            await store.create(self._session_id, self._token_hash)
            self._is_there = True
        await store.append(self._session_id, batch)
        self.stored = batch.position
        self._send_waiting(len(messages))

    def _give_up(self, error: StoreError) -> None:
        """What the store does not take is sent as well: only resuming is lost."""
        code, advice = "noema_resume_lost", "the session can no longer be resumed: it cannot be stored"
        if self._unwanted:
            code, advice = "noema_not_forgotten", "the session stays stored until its time is up: the disk refuses"
        _log.warning("%s: %s (%s)", self._session_id, advice, one_line(error))
        self.passing(NoemaWarning(code=code, message=advice))
        self._stop_keeping()

    def _stop_keeping(self) -> None:
        """From here on, everything is sent as it is said."""
        self._store = None
        self._core.kept.stop()
        self._send_waiting(len(self._waiting))

    def _send_waiting(self, count: int) -> None:
        """Sends the oldest; the first batch holds what had been sent before the session was to be kept."""
        messages = self._waiting[:count]
        del self._waiting[:count]
        self._waiting_bytes -= sum(len(message.text) for message in messages)
        self._send([message for message in messages if message.number > self._sent])


def _number_of(event_id: str | None) -> int:
    """The number of an event of ours.

    Raises:
        StoreError: it is none.
    """
    if event_id is None:
        return 0
    match = _EVENT_ID.fullmatch(event_id)
    if match is None:
        raise StoreError("there is no such event")
    return int(match[1])
