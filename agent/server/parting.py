"""Parting: when a connection's time is up, why connections end, and how each is told.

What every kind of visit shares; knows nothing of sessions.
"""

import asyncio
from collections.abc import Callable

from agent.config import ServerConfig
from agent.live.outbox import Farewell, Outbox
from agent.realtime.problems import ProtocolError
from agent.server.gate import Connection

SILENT = Farewell(1008, "nothing was heard of the client for too long", "idle")
EXPIRED = Farewell(1008, "the session has lasted as long as it may", "expired")
TAKEN_OVER = Farewell(4001, "the session goes on in another connection", "taken-over")
FAILED = Farewell(1011, "a fault in the server ended the session", "failed")
RESTARTS = Farewell(1012, "the server restarts; connect again", "drain")
_SLOW_CLOSE_S = 1.0
"""For one that does not read, there is no use in waiting until it reads that it is to go"""


async def part(connection: Connection, outbox: Outbox, otherwise: Farewell | None = None) -> None:
    """Closes a connection as its outbox was closed.

    Args:
        connection: whose visit is over.
        outbox: of the connection.
        otherwise: what to say where nobody has closed the outbox; None: the client has closed the connection.
    """
    if outbox.is_broken:
        connection.close_timeout = _SLOW_CLOSE_S
    farewell = outbox.farewell or otherwise
    if farewell is not None:
        await connection.close(farewell.code, farewell.reason)


def session_expired(config: ServerConfig) -> ProtocolError:
    """What a client is told before its connection is closed with `EXPIRED`."""
    return ProtocolError("session_expired", f"a session lasts {config.session_s / 60:g} minutes at most")


class Clock:
    """Since when a client is silent, and how long its session may still last."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self.heard()

    def heard(self) -> None:
        """The client has said something."""
        self._last_heard = asyncio.get_running_loop().time()

    async def run_out(self, expires_in_s: Callable[[], float], still_there: Callable[[], None]) -> Farewell:
        """Waits until time is up; says of which kind. Cancelling is safe.

        Args:
            expires_in_s: how long the session may still last.
            still_there: called every `keepalive_s`.
        """
        config, loop = self._config, asyncio.get_running_loop()
        while True:
            silent_in_s, left_s = self._last_heard + config.idle_s - loop.time(), expires_in_s()
            if silent_in_s <= 0:
                return SILENT
            if left_s <= 0:
                return EXPIRED
            await asyncio.sleep(min(silent_in_s, left_s, config.keepalive_s))
            still_there()
