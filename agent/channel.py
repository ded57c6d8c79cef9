"""Channel: a bounded queue between two tasks that says what happens when it is full.

    block        the sender waits (replay: nothing may be lost)
    drop_oldest  the oldest item is dropped and counted (a live microphone: the newest sound matters)
    close        the channel closes (a client too slow to follow)

One event loop; several senders, one receiver. Knows nothing of what travels through it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, Literal, TypeVar

T = TypeVar("T")
WhenFull = Literal["block", "drop_oldest", "close"]


class ChannelClosed(Exception):
    """Nothing more can be sent, or nothing more will come."""


class Channel(Generic[T]):
    """A bounded channel. Cancelling `send` or `receive` is safe: no item is lost or sent twice."""

    def __init__(self, capacity: int, when_full: WhenFull = "block") -> None:
        if capacity < 1:
            raise ValueError("a channel holds at least one item")
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._when_full = when_full
        self._closed = False
        self._wakers: set[asyncio.Future[None]] = set()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        """True once nothing more can be sent; what was sent before can still be received."""
        return self._closed

    async def send(self, item: T) -> None:
        """Sends, waiting for room if the channel blocks."""
        while self._when_full == "block" and len(self._items) >= self._capacity and not self._closed:
            await self._wait()
        self.send_nowait(item)

    def send_nowait(self, item: T) -> None:
        """Sends at once; a full blocking channel raises `asyncio.QueueFull`."""
        if self._closed:
            raise ChannelClosed
        if len(self._items) >= self._capacity:
            self._make_room()
        self._items.append(item)
        self._wake()

    def _make_room(self) -> None:
        if self._when_full == "block":
            raise asyncio.QueueFull
        if self._when_full == "close":
            self.close()
            raise ChannelClosed
        self._items.popleft()
        self.dropped += 1

    async def receive(self) -> T:
        """The oldest item; raises `ChannelClosed` when the channel is closed and empty."""
        while not self._items:
            if self._closed:
                raise ChannelClosed
            await self._wait()
        item = self._items.popleft()
        self._wake()
        return item

    def take_back(self, unwanted: Callable[[T], bool]) -> None:
        """Forgets what was sent and not received yet, where nobody wants it any more."""
        self._items = deque(item for item in self._items if not unwanted(item))
        self._wake()

    def close(self) -> None:
        """No more items; safe to call twice."""
        self._closed = True
        self._wake()

    def __aiter__(self) -> AsyncIterator[T]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[T]:
        while True:
            try:
                item = await self.receive()
            except ChannelClosed:
                return
            yield item

    async def _wait(self) -> None:
        waker = asyncio.get_running_loop().create_future()
        self._wakers.add(waker)
        try:
            await waker
        finally:
            self._wakers.discard(waker)

    def _wake(self) -> None:
        for waker in self._wakers:
            if not waker.done():
                waker.set_result(None)
