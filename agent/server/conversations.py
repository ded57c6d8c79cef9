"""Conversations: the endpoint of `/v1/realtime`: which session a connection talks with, and for how long.

Each session is a task here; each connection is a visit to one. A session that its client asked to be resumable goes
on for a while when the visit is over, and after that waits in the store; every other ends with its visit. Only if it
is being recorded, what was said is answered first, for at most `close_s`, so that the recording has it. Until then it
takes no seat and counts as a session whose client is away: of those, the longest left give way beyond `max_detached`.
"""

import asyncio
import logging
import secrets
from types import TracebackType
from typing import Self
from weakref import WeakValueDictionary

from websockets.http11 import Request

from agent.core.input_log import LogFormatError
from agent.errors import StoreError, exit_code, one_line
from agent.live.listeners import listener_token
from agent.live.live_session import House, LiveSession
from agent.live.outbox import Farewell, Outbox
from agent.realtime.session_object import ResumeRequest
from agent.server.access import Access, Refusal
from agent.server.defaults import session_defaults
from agent.server.gate import Connection, Gate
from agent.server.housekeeping import delete_recordings, finalise_recordings, forget_sessions
from agent.server.memory import tidy_up
from agent.server.parting import FAILED, RESTARTS, TAKEN_OVER
from agent.server.server import busy
from agent.server.sharing import base_of, listeners_offer
from agent.server.visit import Visit
from agent.store.session_store import SessionStore, new_token

_log = logging.getLogger(__name__)


class Conversations:
    """Every session of this server. An async context manager: leaving it ends them."""

    def __init__(self, house: House, access: Access, gate: Gate) -> None:
        self._house = house
        self._access = access
        self._gate = gate
        self._group = asyncio.TaskGroup()
        self._numbers = 0
        self._running: dict[str, asyncio.Task[None]] = {}
        self._sessions: dict[str, LiveSession] = {}
        self._visits: dict[str, Visit] = {}
        """By session"""
        self._away: dict[str, asyncio.TimerHandle] = {}
        """Sessions without a visit, the longest left first, and what will end them"""
        self._coming_back: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By session; there while somebody holds it or waits for it"""
        self._draining: Farewell | None = None
        watch = house.telemetry.watch
        watch("noema_open_sessions", "Sessions in memory", lambda: len(self._sessions))
        watch("noema_detached_sessions", "Of these, those whose client is away", lambda: len(self._away))
        watch("noema_model_queue_length", "Requests that wait for the model", lambda: house.there.worker.waiting)

    async def __aenter__(self) -> Self:
        """Takes visits from here on."""
        await self._group.__aenter__()
        house, create_task = self._house, self._group.create_task
        self._housekeeping = [
            create_task(finalise_recordings(), name="finalise recordings"),
            create_task(delete_recordings(house), name="delete recordings"),
            create_task(tidy_up(), name="tidy up"),
        ]
        if house.store is not None:
            forgetting = forget_sessions(house, house.store, lambda: list(self._sessions))
            self._housekeeping.append(create_task(forgetting, name="forget sessions"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends every session."""
        for timer in self._away.values():
            timer.cancel()
        for task in (*self._running.values(), *self._housekeeping):
            task.cancel()
        await self._group.__aexit__(None, None, None)

    # As an endpoint

    def admits(self, connection: Connection, request: Request) -> Refusal | None:
        """Whoever shows the token, as long as there are seats."""
        refusal = self._access.secret(request.headers)
        if refusal is None and not self._gate.seat(connection):
            return busy("capacity", "Every seat is taken; try again in a few seconds.\n")
        return refusal

    async def talk(self, connection: Connection) -> str:
        """One visit. Gives an account of it."""
        config = self._house.config
        session = self._begin(connection)
        outbox = Outbox(config.outbox_bytes)
        visit = Visit(connection, outbox, session, config, self._house.telemetry, self._take_up)
        self._visits[session.session_id] = visit
        session.connect(outbox)
        if self._draining is not None:  # it came in at the last moment
            outbox.close(self._draining)
        try:
            await visit.run()
        finally:
            self._left(visit)
        await visit.part()
        return visit.account

    async def drain(self, limit_s: float | None = None, farewell: Farewell = RESTARTS) -> None:
        """Lets replies under way finish, for at most `drain_s`, and closes every visit. May be cancelled."""
        self._draining = farewell
        limit_s = self._house.config.drain_s if limit_s is None else limit_s
        await asyncio.gather(
            *(self._part(session, self._running[name], limit_s) for name, session in self._sessions.items())
        )

    async def _part(self, session: LiveSession, running: asyncio.Task[None], limit_s: float) -> None:
        visit, close_s = self._visits.get(session.session_id), self._house.config.close_s
        finishing = asyncio.create_task(session.finish(), name=f"finish {session.session_id}")
        try:  # one whose client leaves meanwhile may never finish
            await asyncio.wait([finishing, running], timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if not (finishing.done() or running.done()):
                _log.warning("%s: its reply is cut off by the end of the server", session.session_id)
        finally:
            finishing.cancel()
        if visit is not None and self._draining is not None:
            visit.outbox.close(self._draining)
            try:
                async with asyncio.timeout(close_s):
                    await visit.over.wait()
            except TimeoutError:
                visit.outbox.break_off(self._draining)
        if session.is_being_recorded and not session.is_kept:  # until its end is written down
            await asyncio.wait([running], timeout=close_s)

    # Sessions

    def session(self, session_id: str) -> LiveSession | None:
        """A session in memory."""
        return self._sessions.get(session_id)

    def _begin(self, connection: Connection) -> LiveSession:
        token, session_id = new_token(), f"sess_{secrets.token_hex(12)}"
        config, listeners = self._house.config, None
        if config.max_listeners:
            listeners = listeners_offer(session_id, listener_token(token), base_of(connection, config))
        defaults = session_defaults(self._house.there, token if self._house.store is not None else None, listeners)
        session = LiveSession.begin(self._house, self.number(), defaults, session_id, token)
        self._house.telemetry.sessions.inc()
        self._start(session)
        return session

    def number(self) -> int:
        """For the model's line; no other session has it."""
        self._numbers += 1
        return self._numbers

    def _start(self, session: LiveSession) -> None:
        self._sessions[session.session_id] = session
        task = self._group.create_task(self._run(session), name=session.session_id)
        self._running[session.session_id] = task

    async def _run(self, session: LiveSession) -> None:
        """One session, from its beginning to its end: the boundary at which a fault stops."""
        farewell = RESTARTS
        try:
            await session.run()
        except Exception as error:  # noqa: BLE001 - one session must not end the others
            _log.error("%s failed: %s", session.session_id, one_line(error), exc_info=exit_code(error) is None)
            farewell = FAILED
        finally:
            self._forget(session)
            visit = self._visits.get(session.session_id)
            if visit is not None:
                visit.outbox.close(farewell)

    def _forget(self, session: LiveSession) -> None:
        del self._sessions[session.session_id], self._running[session.session_id]
        timer = self._away.pop(session.session_id, None)
        if timer is not None:
            timer.cancel()

    def _end(self, session: LiveSession) -> None:
        task = self._running.get(session.session_id)
        if task is not None:
            task.cancel()

    def _left(self, visit: Visit) -> None:
        """A visit is over: its session waits, if it is kept, or comes to its end, if it is being recorded."""
        session, config = visit.session, self._house.config
        if self._visits.get(session.session_id) is visit:
            del self._visits[session.session_id]
            session.disconnect()
            if session.is_kept:
                self._let_wait(session, config.detached_s)
            elif session.is_being_recorded:
                session.end()
                self._let_wait(session, config.close_s)
            else:
                self._end(session)
        visit.over.set()

    def _let_wait(self, session: LiveSession, limit_s: float) -> None:
        """Without a client, for so long: one that comes back later finds a kept session in the store."""
        if session.session_id not in self._sessions:
            return
        loop = asyncio.get_running_loop()
        self._away[session.session_id] = loop.call_later(limit_s, self._end, session)
        for session_id in list(self._away)[: max(0, len(self._away) - self._house.config.max_detached)]:
            self._away.pop(session_id).cancel()
            self._end(self._sessions[session_id])

    # Coming back

    async def _take_up(self, visit: Visit, request: ResumeRequest) -> bool:
        """A visit goes on with the session that a token opens, instead of the one that was made for it.

        False: there is none, or it cannot go on from there. Cancelling is safe.
        """
        if self._house.store is None or self._draining is not None:
            return False
        try:
            session_id = await self._house.store.find(request.token)
            if session_id is None:
                return False
            async with self._coming_back.setdefault(session_id, asyncio.Lock()):
                session = await self._find(self._house.store, session_id, request.token)
                if session is None or session is visit.session:
                    return False
                await self._connect(session, visit, request.after_event)
        except (StoreError, LogFormatError) as error:
            _log.info("a session is not taken up: %s", one_line(error))
            return False
        self._house.telemetry.resumed.inc()
        return True

    async def _connect(self, session: LiveSession, visit: Visit, after_event: str | None) -> None:
        """A visit goes on with a session; that which was made for it ends.

        Raises:
            StoreError: the session has ended, or cannot go on from there.
        """
        await self._make_room(session)
        try:
            await self._reconnect(session, visit.outbox, after_event)
        except BaseException:
            session.disconnect()
            self._let_wait(session, self._house.config.detached_s)
            raise
        fresh, visit.session = visit.session, session
        del self._visits[fresh.session_id]
        fresh.disconnect()
        self._end(fresh)
        self._visits[session.session_id] = visit

    async def _find(self, store: SessionStore, session_id: str, token: str) -> LiveSession | None:
        """A session that is kept, brought back where it is only in the store."""
        task = self._running.get(session_id)
        if task is not None and task.cancelling():
            await asyncio.wait([task])  # it is leaving for the store, and is found there
        running = self._sessions.get(session_id)
        if running is not None and running.is_kept:
            return running
        if running is not None:
            return None
        stored = await store.load(session_id)
        if stored is None:
            return None
        session = LiveSession.bring_back(self._house, self.number(), stored, token)
        self._start(session)
        return session

    async def _reconnect(self, session: LiveSession, outbox: Outbox, after_event: str | None) -> None:
        """As the session's own. One that ends meanwhile would never answer, and everyone who comes back would wait.

        Raises:
            StoreError: it has ended, or cannot go on from there.
        """
        running = self._running.get(session.session_id)
        if running is None:
            raise StoreError("the session has just ended")
        coming = asyncio.create_task(session.reconnect(outbox, after_event), name=f"reconnect {session.session_id}")
        try:
            await asyncio.wait([coming, running], return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                raise StoreError("the session has just ended")
            coming.result()
        finally:
            coming.cancel()

    async def _make_room(self, session: LiveSession) -> None:
        """Whoever talked with it before, perhaps over a connection that nobody has noticed to be dead, is parted."""
        before = self._visits.get(session.session_id)
        if before is not None:
            before.outbox.break_off(TAKEN_OVER)
            await before.over.wait()
        timer = self._away.pop(session.session_id, None)
        if timer is not None:
            timer.cancel()
