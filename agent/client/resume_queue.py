"""Resume queue: what a client is to send, and what it sent until the server is known to have it. Pure.

The wire acknowledges nothing while it lasts. After a cut the server says how many samples and how many other messages
took effect; the queue drops those and gives the rest again, in the order in which it came. Knows no socket, no clock.
"""

import base64
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from audio.frames import VOICE_RATE

SAMPLE_BYTES = 2
KEPT_SAMPLES = 30 * VOICE_RATE
"""Sound that is kept; older is with the server almost surely, or stale"""
KEPT_EVENTS = 500
_PLAYBACK = "noema.playback"


@dataclass(slots=True)
class _Entry:
    """One message. `place` is None until it was sent in this session."""

    audio: bytes
    event: dict[str, Any] | None = None
    place: int | None = None
    """Of sound: the samples before it; of another message: its number, from 1"""


class ResumeQueue:
    """Messages of one client."""

    def __init__(self) -> None:
        self._entries: deque[_Entry] = deque()
        self._sent = 0
        """So many of them went out on this connection"""
        self._samples = 0
        self._events = 0
        self._kept_samples = 0
        self._kept_events = 0

    @property
    def waiting(self) -> int:
        """How many wait to go out."""
        return len(self._entries) - self._sent

    def add_audio(self, pcm: bytes) -> None:
        """Sound in `audio/pcm`."""
        self._add(_Entry(pcm))

    def add_event(self, event: dict[str, Any]) -> None:
        """Any other message. Of where playback stands, the newest takes the place of one that still waits."""
        last = self._entries[-1].event if self.waiting else None
        if last is not None and last["type"] == event["type"] == _PLAYBACK:
            self._entries[-1].event = event
        else:
            self._add(_Entry(b"", event))

    def take(self) -> dict[str, Any] | None:
        """The next message to go out, which counts as sent from here on; None: nothing waits."""
        if not self.waiting:
            return None
        entry = self._entries[self._sent]
        self._sent += 1
        if entry.event is None:
            entry.place = self._samples
            self._samples += len(entry.audio) // SAMPLE_BYTES
            return {"type": "input_audio_buffer.append", "audio": base64.b64encode(entry.audio).decode("ascii")}
        self._events += 1
        entry.place = self._events
        return entry.event

    def begin(self, first: dict[str, Any]) -> None:
        """A new session: nothing of the old one counts, and what was meant for it is not said again."""
        self._entries.clear()
        self._sent = self._samples = self._events = self._kept_samples = self._kept_events = 0
        self.add_event(first)

    def resumed(self, samples: int, events: int) -> None:
        """The session goes on; the server has so many of our samples and of our other messages."""
        kept = [left for entry in self._entries if (left := _left(entry, samples, events)) is not None]
        self._entries.clear()
        self._sent = self._kept_samples = self._kept_events = 0
        self._samples, self._events = samples, events
        for entry in kept:
            self._add(entry)

    def _add(self, entry: _Entry) -> None:
        self._entries.append(entry)
        self._count(entry, 1)
        while self._kept_samples > KEPT_SAMPLES:
            self._forget_oldest(sound=True)
        while self._kept_events > KEPT_EVENTS:
            self._forget_oldest(sound=False)

    def _count(self, entry: _Entry, sign: int) -> None:
        self._kept_samples += sign * len(entry.audio) // SAMPLE_BYTES
        self._kept_events += sign * (entry.event is not None)

    def _forget_oldest(self, *, sound: bool) -> None:
        place = next(n for n, entry in enumerate(self._entries) if (entry.event is None) == sound)
        self._count(self._entries[place], -1)
        del self._entries[place]
        self._sent -= place < self._sent


def _left(entry: _Entry, samples: int, events: int) -> _Entry | None:
    """What of a message the server does not have, to be sent anew; None: it has all of it."""
    if entry.place is None:
        return entry
    if entry.event is not None:
        return replace(entry, place=None) if entry.place > events else None
    rest = entry.audio[max(0, samples - entry.place) * SAMPLE_BYTES :]
    return _Entry(rest) if rest else None
