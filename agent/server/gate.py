"""Gate: how many are let in at a time, counted from the first packet to the last.

A connection counts as waiting until its handshake is done, and holds a seat from there until it is gone. Who comes
when all places are taken is told so at once, before anything is spent on him.
"""

import asyncio
from typing import Any

from websockets.asyncio.server import ServerConnection

RETRY_AFTER_S = 5
_BUSY = b"Too many connections; try again in a few seconds.\n"
_TURNED_AWAY = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Retry-After: %d\r\nContent-Length: %d\r\n\r\n%b"
) % (RETRY_AFTER_S, len(_BUSY), _BUSY)
_LINGER_S = 1.0
"""For the answer to be read: a socket that is closed with something unread takes the answer back"""


class Gate:
    """Places for connections that wait, and seats for those that came in."""

    def __init__(self, max_waiting: int, max_seats: int) -> None:
        self._max_waiting = max_waiting
        self._max_seats = max_seats
        self.waiting: set[Connection] = set()
        self.open: set[Connection] = set()
        self.turned_away = 0

    @property
    def seats_taken(self) -> int:
        """Connections with a seat, the handshake done or not."""
        return sum(connection.has_seat for connection in self.waiting | self.open)

    def has_room(self) -> bool:
        """Whether one more may wait."""
        return len(self.waiting) < self._max_waiting

    def seat(self, connection: "Connection") -> bool:
        """Gives a seat if one is free; it is kept until the connection is gone."""
        if self.seats_taken >= self._max_seats:
            return False
        connection.has_seat = True
        return True


class Connection(ServerConnection):
    """A connection that counts itself."""

    def __init__(self, gate: Gate, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.has_seat = False
        self._gate = gate
        self._lingering: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Comes in, or is turned away."""
        if self._gate.has_room():
            self._gate.waiting.add(self)
            super().connection_made(transport)
            return
        assert isinstance(transport, asyncio.Transport), "websockets are spoken over streams"
        self._gate.turned_away += 1
        transport.write(_TURNED_AWAY)
        if transport.can_write_eof():
            transport.write_eof()
        self._lingering = self.loop.call_later(_LINGER_S, transport.abort)

    def opened(self) -> None:
        """The handshake is done."""
        self._gate.waiting.discard(self)
        self._gate.open.add(self)

    def data_received(self, data: bytes) -> None:
        """Takes what comes, from those who came in."""
        if self._lingering is None:
            super().data_received(data)

    def eof_received(self) -> None:
        """The other side has said all it will."""
        if self._lingering is None:
            super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gives its place back."""
        if self._lingering is not None:
            self._lingering.cancel()
            return
        self._gate.waiting.discard(self)
        self._gate.open.discard(self)
        super().connection_lost(exc)
