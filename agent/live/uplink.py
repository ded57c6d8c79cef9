"""Uplink: what one client sends, as a session takes it: frames, and between them its messages, in one order.

Receives events one after the other; gives them to whoever iterates over `source`. It waits for that one, so a client
that sends faster than its session listens is read no faster. What was sent and not taken when a connection is gone
is forgotten: the client sends it again. Knows nothing of sockets.
"""

from collections.abc import AsyncGenerator, Callable, Iterator

from agent.channel import Channel
from agent.live.live_core import LiveCore, Said
from agent.realtime.client_events import (
    ClientEvent,
    InputAudioBufferAppend,
    InputAudioBufferClear,
    InputAudioBufferCommit,
    SessionUpdate,
)
from agent.realtime.messages import parse_client_event
from agent.realtime.problems import ProtocolError
from agent.realtime.settings import SessionSettings
from audio.frames import AudioFrame, Framer
from audio.telephony import RATES, SAMPLE_BYTES, AudioDecoder, AudioFormat

_WAITING = 8
_PIECE_BYTES = 48_000
"""A second of audio/pcm"""


def read_message(message: str | bytes) -> ClientEvent | ProtocolError:
    """A message of a websocket, read; or what is wrong with it."""
    if isinstance(message, bytes):
        return ProtocolError(
            "invalid_value", "messages are JSON in text frames, sound too: see input_audio_buffer.append"
        )
    try:
        return parse_client_event(message)
    except ProtocolError as problem:
        return problem


def pieces(content: bytes) -> Iterator[bytes]:
    """Sound of one message, in pieces that are decoded at once; then the loop has its turn."""
    return (content[start : start + _PIECE_BYTES] for start in range(0, len(content), _PIECE_BYTES))


class Uplink:
    """The way in.

    Args:
        core: what the items go to.
        settings: as they hold once everything before has been taken.
        max_input_s: sound that may wait for a commit, where the client commits.
    """

    def __init__(self, core: LiveCore, settings: Callable[[], SessionSettings], max_input_s: float) -> None:
        self._core = core
        self._settings = settings
        self._max_input_s = max_input_s
        self._items: Channel[AudioFrame | Said] = Channel(_WAITING, "block")
        self._given = 0
        self._updated_at = 0
        """How many items had been given when the settings were last about to change"""
        self._uncommitted = 0
        self._open = True
        self._begin_anew()

    async def source(self) -> AsyncGenerator[AudioFrame | Said, None]:
        """Frames and messages, in the order in which the client sent them."""
        async for item in self._items:
            yield item

    async def push(self, event: ClientEvent | ProtocolError) -> None:
        """Takes the next event of the client. To be cancelled only when nothing more will come before `settle`."""
        if not self._open:
            return
        if isinstance(event, InputAudioBufferAppend):
            await self._hear(event)
            return
        self._events += 1
        ends = isinstance(event, InputAudioBufferCommit | InputAudioBufferClear)
        if ends:
            self._uncommitted = 0
        await self._say(event, all_samples=ends)

    async def settle(self) -> None:
        """Waits until what was given has been taken and forgets the rest, up to less than 20 ms of sound."""
        await self._core.taken(self._given)
        self._begin_anew()

    def stop(self) -> None:
        """What comes from here on is not taken; the client keeps it."""
        self._open = False

    def end(self) -> None:
        """Nothing more will come, ever: `source` ends with what was given."""
        self._open = False
        self._items.close()

    def _begin_anew(self) -> None:
        position = self._core.position
        self._events = position.events
        self._samples = position.audio_samples
        self._half = 0
        """Bytes of a sample whose rest is still to come"""
        self._format: AudioFormat | None = None
        self._framer = Framer(self._core.kept.heard_sample or 0)

    async def _hear(self, event: InputAudioBufferAppend) -> None:
        try:
            content = event.content()
        except ProtocolError as problem:
            await self._say(problem, all_samples=False)
            return
        await self._core.taken(self._updated_at)
        settings = self._settings()
        if settings.input_format != self._format:  # so far there was no sound, or less than a frame
            self._format = settings.input_format
            self._decoder = AudioDecoder(self._format)
        count, self._half = divmod(self._half + len(content), SAMPLE_BYTES[self._format])
        self._samples += count
        self._uncommitted = self._uncommitted + count if settings.turn_detection is None else 0
        if self._uncommitted > self._max_input_s * RATES[self._format]:
            self._uncommitted -= count
            await self._say(self._full(event), all_samples=True)
            return
        for piece in pieces(content):
            for frame in self._framer.push(self._decoder.push(piece)):
                await self._give(frame)

    def _full(self, event: InputAudioBufferAppend) -> ProtocolError:
        advice = f"more than {self._max_input_s:g} s of sound are neither committed nor cleared; do either"
        return ProtocolError("input_audio_buffer_full", advice, "audio", event.event_id)

    async def _say(self, event: ClientEvent | ProtocolError, *, all_samples: bool) -> None:
        if all_samples:
            await self._flush()
        await self._give(Said(event, self._events, self._samples if all_samples else None))
        if isinstance(event, SessionUpdate):
            self._updated_at = self._given

    async def _flush(self) -> None:
        """What is less than a frame is filled up with silence: it belongs to what was said before."""
        if self._format is None:
            return
        self._half = 0
        for frame in self._framer.push(self._decoder.flush()):
            await self._give(frame)
        for frame in self._framer.flush():
            await self._give(frame)

    async def _give(self, item: AudioFrame | Said) -> None:
        if self._open:  # else it came in the same message as what was taken last
            await self._items.send(item)
            self._given += 1
