"""Room: everything a listener in the room would hear, the speakers and the agent, to a loudspeaker or a file.

A listener of a session. The clock is the frames that come in: reply audio is mixed in from the moment it exists.
Without a playback device the mix goes to a file instead, and `path` says which. Memory: what waits to be said.
"""

import asyncio
import tempfile
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agent.core.events import DomainEvent, FloatArray, ReplyAudio
from agent.core.inputs import AudioInput, Input
from agent.errors import OutputError
from audio.errors import DeviceError
from audio.frames import SAMPLE_RATE, VOICE_RATE
from audio.playback import Playback
from audio.resample import StreamResampler

if TYPE_CHECKING:
    from soundfile import SoundFile

_SPEAKER_GAIN = 0.6
_BLOCK = VOICE_RATE // 50
_AHEAD_S = 0.5


class Room:
    """Mixes one session."""

    def __init__(self, playback: Playback | None, file: "SoundFile | None", path: Path | None) -> None:
        self.path = path
        self._playback = playback
        self._file = file
        self._resampler = StreamResampler(SAMPLE_RATE, VOICE_RATE)
        self._waiting: deque[FloatArray] = deque()

    async def on_input(self, item: Input) -> None:
        """20 ms of the room pass."""
        if isinstance(item, AudioInput):
            self._play(_SPEAKER_GAIN * self._resampler.push(item.samples))

    async def on_event(self, event: DomainEvent) -> None:
        """The agent has something to say."""
        if isinstance(event, ReplyAudio):
            self._waiting.append(event.samples)

    async def finish(self) -> None:
        """Lets the agent finish, and the loudspeaker fall silent."""
        while self._waiting:
            self._play(np.zeros(_BLOCK, dtype=np.float32))
            if self._playback is not None:
                await self._playback.drain(below_seconds=_AHEAD_S)
        if self._playback is not None:
            await self._playback.drain()

    def _play(self, sound: FloatArray) -> None:
        mixed = sound.copy()
        filled = 0
        while self._waiting and filled < len(mixed):
            piece = self._waiting.popleft()
            taken = min(len(piece), len(mixed) - filled)
            mixed[filled : filled + taken] += piece[:taken]
            filled += taken
            if taken < len(piece):
                self._waiting.appendleft(piece[taken:])
        mixed = np.clip(mixed, -1.0, 1.0)
        if self._playback is not None:
            self._playback.write(mixed)
        elif self._file is not None:
            self._file.write(mixed)


@asynccontextmanager
async def open_room(out: Path | None, name: str, *, live: bool) -> AsyncGenerator[Room, None]:
    """A room with a loudspeaker if the session runs at the speed of speech and there is one, else a file."""
    playback = await _loudspeaker() if live and out is None else None
    if playback is not None:
        try:
            yield Room(playback, None, None)
        finally:
            await asyncio.to_thread(playback.close)
        return
    import soundfile

    folder = out or Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="noema-"))
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    path = folder / name
    try:
        with soundfile.SoundFile(path, "w", VOICE_RATE, 1, format="WAV") as file:
            yield Room(None, file, path)
    except soundfile.LibsndfileError as error:
        raise OutputError(f"{path}: cannot be written ({error.error_string}); choose another place") from error


async def _loudspeaker() -> Playback | None:
    playback = Playback()
    try:
        await asyncio.to_thread(playback.start)
    except DeviceError:
        return None
    return playback
