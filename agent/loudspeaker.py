"""Loudspeaker: reply audio to a playback device, and the position heard back as an input.

A listener. Positions are those of the reply timeline, which goes on across interruptions, whereas a device
starts anew after each. Replies are made faster than they sound: the device is given the next half minute, the rest
waits here, so that nobody else has to wait. Knows nothing of turns.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

from agent.channel import ChannelClosed
from agent.core.events import DomainEvent, FloatArray, ReplyAudio, ReplyTruncated
from agent.core.inputs import Input, PlaybackPosition
from audio.frames import VOICE_RATE
from audio.playback import Playback

_POLL_S = 0.05
_AHEAD_SAMPLES = 30 * VOICE_RATE
"""What the device is given before it is due"""
_MAX_WAITING_SAMPLES = 1200 * VOICE_RATE
"""115 MB, more than the longest single answer at the slowest voice"""


class Loudspeaker:
    """Plays the replies of one session."""

    def __init__(self, playback: Playback) -> None:
        self._playback = playback
        self._first: int | None = None
        """Where on the reply timeline the device's count began."""
        self._waiting: deque[FloatArray] = deque()
        self._waiting_samples = 0
        self._written = 0
        """What the device was given since its count began"""
        self._reported = -1

    async def on_input(self, item: Input) -> None:
        """Inputs make no sound."""

    async def on_event(self, event: DomainEvent) -> None:
        """Plays, or falls silent. Returns at once unless 20 minutes wait already. Cancelling is safe."""
        if isinstance(event, ReplyAudio):
            if self._first is None:
                self._first = event.start_sample
            self._waiting.append(event.samples)
            self._waiting_samples += len(event.samples)
            self._feed()
            while self._waiting_samples > _MAX_WAITING_SAMPLES:
                await asyncio.sleep(_POLL_S)
                self._feed()
        elif isinstance(event, ReplyTruncated):
            self._playback.clear()
            self._waiting.clear()
            self._waiting_samples = self._written = 0
            self._first = None

    def _feed(self) -> None:
        """Gives the device what it has room for."""
        while self._waiting and self._written - self._playback.heard_samples < _AHEAD_SAMPLES:
            self._playback.write(self._waiting[0])
            piece = self._waiting.popleft()
            self._waiting_samples -= len(piece)
            self._written += len(piece)

    async def report(self, command: Callable[[PlaybackPosition], Awaitable[None]], every_s: float = _POLL_S) -> None:
        """Plays on, and tells the machine what has been heard, until cancelled or nobody listens any more."""
        with suppress(ChannelClosed):
            while True:
                await asyncio.sleep(every_s)
                if self._first is None:
                    continue
                self._feed()
                heard = self._first + self._playback.heard_samples
                if heard != self._reported:
                    self._reported = heard
                    await command(PlaybackPosition(0, heard))
