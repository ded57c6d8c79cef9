"""Translations: the endpoint of `/v1/realtime/translations`: listeners of a session, and interpreters of one client.

?session=ID&language=deu&source=…&audio=…   listens to a live session; shows that session's listener token
(nothing)                                   has an interpreter of its own; as for `/v1/realtime`, shows the server's
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs

from websockets.http11 import Request

from agent.errors import Overloaded, one_line
from agent.live.live_session import House, LiveSession
from agent.realtime.settings import unknown_language
from agent.realtime.translation import Source
from agent.server.access import TOKEN_NEEDED, Access, Refusal, shows
from agent.server.defaults import session_defaults
from agent.server.gate import Connection, Gate
from agent.server.interpreter_visit import InterpreterVisit
from agent.server.listener_visit import ListenerVisit
from agent.server.parting import RESTARTS
from agent.server.server import busy

FULL = 1013
"""Close code: try again later (RFC 6455's registry)"""
_SOURCES: tuple[Source, ...] = ("speaker", "agent", "both")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a listener wants."""

    session: LiveSession
    language: str
    source: Source
    audio: bool


class Translations:
    """Everyone who listens, and every interpreter.

    Args:
        house: what every session of the server shares.
        access: who may have an interpreter.
        gate: seats; an interpreter takes one, a listener does not.
        session: the live session of an id.
        number: a number for the model's line that no other session has.
    """

    def __init__(
        self,
        house: House,
        access: Access,
        gate: Gate,
        session: Callable[[str], LiveSession | None],
        number: Callable[[], int],
    ) -> None:
        self._house = house
        self._access = access
        self._gate = gate
        self._session = session
        self._number = number
        self._listeners: set[ListenerVisit] = set()
        self._interpreters: set[InterpreterVisit] = set()
        self._draining = False
        house.telemetry.watch("noema_listeners", "Listeners of sessions", lambda: len(self._listeners))

    def admits(self, connection: Connection, request: Request) -> Refusal | None:
        """Whether somebody may listen, or have an interpreter."""
        query = _query(request)
        if "session" in query:
            return self._admits_listener(request, query)
        refusal = self._access.secret(request.headers)
        if refusal is None and not self._gate.seat(connection):
            return busy("capacity", "Every seat is taken; try again in a few seconds.\n")
        return refusal

    def _admits_listener(self, request: Request, query: dict[str, str]) -> Refusal | None:
        session = self._session(query["session"])
        if session is None or not session.hub.shared:
            advice = "No such session is here, or nobody may listen to it (any more).\n"
            return Refusal(HTTPStatus.NOT_FOUND, "session", advice)
        if not shows(request.headers, session.listener_token):
            return TOKEN_NEEDED
        asked = _asked(session, query)
        if isinstance(asked, Refusal):
            return asked
        if len(self._listeners) >= self._house.config.max_listeners:
            return busy("listeners", "As many listen as may; try again in a few seconds.\n")
        if not session.hub.has_room(asked.language):
            return busy("languages", "This session is interpreted into as many languages as it may be.\n")
        return None

    async def talk(self, connection: Connection) -> str:
        """One listener, or one interpreter. Gives an account of it."""
        assert connection.request is not None, "the handshake is done"
        query = _query(connection.request)
        if "session" in query:
            return await self._listen(connection, query)
        defaults = session_defaults(self._house.there, None)
        visit = InterpreterVisit(connection, self._house, self._number(), defaults, f"sess_{secrets.token_hex(12)}")
        self._house.telemetry.sessions.inc()
        self._interpreters.add(visit)
        if self._draining:
            visit.finish(RESTARTS)
        try:
            await visit.run()
        finally:
            self._interpreters.discard(visit)
        await visit.part()
        return visit.account

    async def _listen(self, connection: Connection, query: dict[str, str]) -> str:
        """One listener; all that `admits` found may have changed in the meantime."""
        session = self._session(query["session"])
        asked = None if session is None else _asked(session, query)
        if session is None or not isinstance(asked, Asked):
            await connection.close(FULL, "the session has just ended")
            return "came too late"
        try:
            if len(self._listeners) >= self._house.config.max_listeners:
                raise Overloaded("as many listen as may")
            listening = session.hub.join(asked.language, asked.source, audio=asked.audio)
        except Overloaded as error:
            await connection.close(FULL, one_line(error))
            return "no room"
        visit = ListenerVisit(connection, listening, session, self._house)
        self._listeners.add(visit)
        try:
            await visit.run()
        finally:
            self._listeners.discard(visit)
            session.hub.leave(listening)
        await visit.part()
        return visit.account

    async def drain(self, limit_s: float | None = None) -> None:
        """Lets interpreters say what they have heard, for at most `drain_s`. May be cancelled.

        Listeners hear the end of what is drained elsewhere; they are closed with the server.
        """
        self._draining = True
        visits = list(self._interpreters)
        for visit in visits:
            visit.finish(RESTARTS)
        try:
            async with asyncio.timeout(self._house.config.drain_s if limit_s is None else limit_s):
                await asyncio.gather(*(visit.over.wait() for visit in visits))
        except TimeoutError:
            for visit in visits:
                visit.outbox.break_off(RESTARTS)


def _query(request: Request) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(request.path.partition("?")[2]).items()}


def _asked(session: LiveSession, query: dict[str, str]) -> Asked | Refusal:
    """What a listener's query asks for; of a language left out, the first that the speaker may speak."""
    known = session.defaults.languages
    name, source, audio = query.get("language"), query.get("source", "both"), query.get("audio", "true")
    language = session.languages[0] if name is None else known.find(name)
    if language is None:
        return _wrong(unknown_language(name or "", known.text))
    if source not in _SOURCES:
        return _wrong(f"source is one of {', '.join(_SOURCES)}")
    if audio not in _FLAGS:
        return _wrong("audio is true or false")
    return Asked(session, language, source, _FLAGS[audio])


def _wrong(message: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, "query", f"{message}\n")
