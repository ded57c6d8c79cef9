"""Outbox: what waits for one connection. Text in, the same text out, in order; bounded in bytes.

When it is full its reader is too slow, and the connection ends: nothing is ever dropped in silence but sound that
nobody is to hear any more. Knows nothing of sockets and of what the text says.
"""

import asyncio
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Farewell:
    """Why a connection ends, and how it is told so."""

    code: int
    """Close code of RFC 6455, or of ours from 4000 up"""
    reason: str
    """For people; at most 123 bytes go over the wire"""
    label: str
    """One word, for the metrics"""


class OutboxClosed(Exception):
    """Nothing more goes out."""

    def __init__(self, farewell: Farewell) -> None:
        super().__init__(farewell.reason)
        self.farewell = farewell


TOO_SLOW = Farewell(1008, "the client reads too slowly: nothing more is kept for it", "slow")
NORMAL = Farewell(1000, "", "done")


@dataclass(frozen=True, slots=True)
class _Waiting:
    text: str
    is_sound: bool
    size: int


class Outbox:
    """The way out to one connection. One task takes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._waiting: deque[_Waiting] = deque()
        self._changed = asyncio.Event()
        self._broken = asyncio.Event()
        self._farewell: Farewell | None = None
        self.bytes = 0
        self.dropped = 0
        """Stretches of sound that were taken back"""

    @property
    def farewell(self) -> Farewell | None:
        """Why it is closed; None while it is not."""
        return self._farewell

    @property
    def is_broken(self) -> bool:
        """Whether it was closed though something waited, or might have."""
        return self._broken.is_set()

    def put(self, text: str, *, is_sound: bool = False) -> None:
        """Adds a message. One too many closes it, at once and for good: what waits is forgotten."""
        if self._farewell is not None:
            return
        size = _size(text)
        if self.bytes + size > self._limit:
            self.break_off(TOO_SLOW)
            return
        self._append(_Waiting(text, is_sound, size))

    def catch_up(self, texts: list[str]) -> None:
        """Adds what a client missed while it was away. It is already in memory: the limit rises by as much."""
        self._limit += sum(map(_size, texts))
        for text in texts:
            self.put(text)

    def drop_sound(self) -> None:
        """Takes back the sound that has not left: of a reply that was interrupted, nobody is to hear more."""
        kept = [waiting for waiting in self._waiting if not waiting.is_sound]
        self.dropped += len(self._waiting) - len(kept)
        self._waiting = deque(kept)
        self.bytes = sum(waiting.size for waiting in kept)

    def close(self, farewell: Farewell) -> None:
        """Nothing more comes; what waits still goes out."""
        if self._farewell is None:
            self._farewell = farewell
            self._changed.set()

    def break_off(self, farewell: Farewell) -> None:
        """Nothing more goes out."""
        self.close(farewell)
        self._waiting.clear()
        self.bytes = 0
        self._broken.set()

    async def take(self) -> str:
        """The oldest message. Cancelling is safe.

        Raises:
            OutboxClosed: it is closed, and everything has been taken.
        """
        while not self._waiting:
            if self._farewell is not None:
                raise OutboxClosed(self._farewell)
            self._changed.clear()
            await self._changed.wait()
        waiting = self._waiting.popleft()
        self.bytes -= waiting.size
        return waiting.text

    async def broken(self) -> None:
        """Waits until it is broken off, whether or not somebody is taking.

        Raises:
            OutboxClosed: always, then.
        """
        await self._broken.wait()
        assert self._farewell is not None, "it is broken off with one"
        raise OutboxClosed(self._farewell)

    def _append(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self.bytes += waiting.size
        self._changed.set()


def _size(text: str) -> int:
    """In bytes, as it goes out. Sound is ASCII, which is known without looking at it."""
    return len(text) if text.isascii() else len(text.encode())
