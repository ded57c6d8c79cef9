"""Where sound comes from: a file or a microphone, as an async stream of frames on one sample clock.

Gives `AudioFrame`s. Knows nothing of what is done with them.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from audio.devices import DeviceId, load_sounddevice, refused, usable_rate
from audio.errors import DeviceError
from audio.files import iter_audio_frames
from audio.frames import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE, AudioFrame, FloatArray, Framer
from audio.resample import StreamResampler

FRAMES_PER_READ = 50
"""Frames decoded at once beside the event loop: one second"""
MAX_QUEUED_MS = 2000
"""What a microphone keeps for a consumer that is late"""


async def file_source(path: str | Path, speed: float | None = None) -> AsyncGenerator[AudioFrame, None]:
    """Stream a file. `speed` 1 is as fast as it was recorded, None as fast as the consumer takes it.

    Cancelling is safe.

    Raises:
        AudioFileError: the file cannot be used; one that is cut short says so when its end is reached.
    """
    if speed is not None and speed <= 0:
        raise ValueError(f"speed must be positive, got {speed}")
    loop = asyncio.get_running_loop()
    began = loop.time()
    frames = iter_audio_frames(path)
    while batch := await asyncio.to_thread(_take, frames, FRAMES_PER_READ):
        for frame in batch:
            if speed is not None:
                # A frame is there when its last sample is. Counted from the start: delays do not add up.
                due = began + frame.end_sample / SAMPLE_RATE / speed
                await asyncio.sleep(max(0.0, due - loop.time()))
            yield frame


class Microphone:
    """A microphone, opened for as long as the context lasts.

    It waits for nobody: when its queue is full it drops the oldest 20 ms and counts them. The sample clock
    goes on over what was dropped: the next frame starts that much later.
    """

    def __init__(self, device: DeviceId = None, *, max_queued_ms: int = MAX_QUEUED_MS) -> None:
        self._device = device
        self._blocks: deque[FloatArray] = deque()
        self._max_blocks = max(1, max_queued_ms // FRAME_MS)
        self._lock = threading.Lock()
        self._arrived = asyncio.Event()
        self._dropped = 0
        self._stopped = False
        self._rate = SAMPLE_RATE
        self._stream: Any = None

    @property
    def dropped_frames(self) -> int:
        """Frames lost so far because they were not taken in time."""
        return self._dropped

    async def __aenter__(self) -> Self:
        """Open the device and listen.

        Raises:
            DeviceError: there is none, or it refuses.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the device."""
        await asyncio.to_thread(self._stream.close)

    async def frames(self) -> AsyncGenerator[AudioFrame, None]:
        """Give frames as they arrive; what came before this call is forgotten. Cancelling is safe.

        Raises:
            DeviceError: the device went away.
        """
        resampler = StreamResampler(self._rate, SAMPLE_RATE)
        framer = Framer()
        with self._lock:
            self._blocks.clear()
            self._dropped = known = 0
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while (taken := self._next_block()) is not None:
                block, dropped = taken
                framer.skip(dropped - known)
                known = dropped
                for frame in framer.push(resampler.push(block)):
                    yield frame
            if self._stopped:
                raise DeviceError("the microphone stopped; was it unplugged? Plug it in and start again")

    def _open(self) -> None:
        sounddevice = load_sounddevice()
        self._rate = usable_rate("input", self._device, SAMPLE_RATE)
        try:
            self._stream = sounddevice.InputStream(
                samplerate=self._rate,
                blocksize=self._rate * FRAME_SAMPLES // SAMPLE_RATE,
                device=self._device,
                channels=1,
                dtype="float32",
                callback=self._on_block,
                finished_callback=self._on_finished,
            )
            self._stream.start()
        except sounddevice.PortAudioError as error:
            if self._stream is not None:
                self._stream.close()
            raise refused("input", self._device, error) from error

    def _next_block(self) -> tuple[FloatArray, int] | None:
        """The oldest block, and how many have been dropped before it."""
        with self._lock:
            return (self._blocks.popleft(), self._dropped) if self._blocks else None

    def _on_block(self, samples: FloatArray, count: int, _time: Any, _status: Any) -> None:
        """Take a block from PortAudio's thread."""
        block = np.array(samples[:count, 0])
        with self._lock:
            if len(self._blocks) >= self._max_blocks:
                self._blocks.popleft()
                self._dropped += 1
            self._blocks.append(block)
        self._wake()

    def _on_finished(self) -> None:
        self._stopped = True
        self._wake()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop has closed before the device
            self._loop.call_soon_threadsafe(self._arrived.set)


def _take(frames: Any, count: int) -> list[AudioFrame]:
    return list(islice(frames, count))
