"""Loudspeaker: reply audio to a playback device, and the position heard back as an input.

A listener. Positions are those of the reply timeline, which goes on across interruptions, whereas a device
starts anew after each. Knows nothing of turns.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from agent.channel import ChannelClosed
from agent.events import DomainEvent, ReplyAudio, ReplyTruncated
from agent.inputs import Input, PlaybackPosition
from audio.playback import Playback

_POLL_S = 0.05


class Loudspeaker:
    """Plays the replies of one session."""

    def __init__(self, playback: Playback) -> None:
        self._playback = playback
        self._first: int | None = None
        """Where on the reply timeline the device's count began."""
        self._reported = -1

    async def on_input(self, item: Input) -> None:
        """Inputs make no sound."""

    async def on_event(self, event: DomainEvent) -> None:
        """Plays, or falls silent."""
        if isinstance(event, ReplyAudio):
            if self._first is None:
                self._first = event.start_sample
            self._playback.write(event.samples)
        elif isinstance(event, ReplyTruncated):
            self._playback.clear()
            self._first = None

    async def report(self, command: Callable[[Input], Awaitable[None]]) -> None:
        """Tells the machine what has been heard, until cancelled or nobody listens any more."""
        with suppress(ChannelClosed):
            while True:
                await asyncio.sleep(_POLL_S)
                if self._first is None:
                    continue
                heard = self._first + self._playback.heard_samples
                if heard != self._reported:
                    self._reported = heard
                    await command(PlaybackPosition(0, heard))
