"""Playback: PCM in, sound out, and at any moment the position that has been heard.

Receives mono float32 at the voice's rate. Knows nothing of who speaks or why it is interrupted.
"""

import asyncio
import threading
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from audio.devices import DeviceId, load_sounddevice, refused, usable_rate
from audio.errors import DeviceError
from audio.frames import VOICE_RATE, FloatArray
from audio.resample import StreamResampler

MAX_QUEUED_SECONDS = 300.0
"""What may wait to be played; `drain` keeps it far below"""
LATENCY_MS = 60
"""Between a write and its sound, and still heard after `clear`; a third of it crackles on a busy machine"""


@dataclass(frozen=True, slots=True)
class _Block:
    """Samples handed to the device, and when the first of them sounds."""

    heard_at: float
    """On the stream's clock, in seconds"""
    first: int
    count: int


class Playback:
    """A loudspeaker, opened for as long as the context lasts.

    Positions count samples at `VOICE_RATE` since the start, or since the last `clear`.
    """

    def __init__(self, device: DeviceId = None, *, latency_ms: int = LATENCY_MS) -> None:
        self._device = device
        self._latency_ms = latency_ms
        self._lock = threading.Lock()
        self._queue: deque[FloatArray] = deque()
        self._queued = 0
        """Samples in the queue, at the device's rate, like all counts in here"""
        self._given = 0
        """Samples handed to the device"""
        self._written = 0
        """Samples written, at `VOICE_RATE`"""
        self._blocks: deque[_Block] = deque()
        self._rate = VOICE_RATE
        self._resampler = StreamResampler(VOICE_RATE, VOICE_RATE)
        self._stream: Any = None
        self._stopped = False

    async def __aenter__(self) -> Self:
        """Open the device.

        Raises:
            DeviceError: there is none, or it refuses.
        """
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the device at once; what is still queued is not heard."""
        await asyncio.to_thread(self.close)

    def start(self) -> None:
        """Open the device; see `__aenter__`."""
        sounddevice = load_sounddevice()
        self._rate = usable_rate("output", self._device, VOICE_RATE)
        self._resampler = StreamResampler(VOICE_RATE, self._rate)
        self._stopped = False
        try:
            self._stream = sounddevice.OutputStream(
                samplerate=self._rate,
                device=self._device,
                channels=1,
                dtype="float32",
                # No fixed block size: it underruns without end on PulseAudio's ALSA plugin.
                latency=self._latency_ms / 1000,
                callback=self._on_block,
                finished_callback=self._on_finished,
            )
            self._stream.start()
        except sounddevice.PortAudioError as error:
            self.close()
            raise refused("output", self._device, error) from error

    def close(self) -> None:
        """Close the device. Closing twice is harmless."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def write(self, samples: FloatArray) -> None:
        """Queue samples to be played after those before; returns at once.

        Raises:
            DeviceError: not started, gone away, or more than `MAX_QUEUED_SECONDS` are waiting.
        """
        self._check()
        resampled = self._resampler.push(samples)
        with self._lock:
            if self._queued + len(resampled) > MAX_QUEUED_SECONDS * self._rate:
                raise DeviceError(f"more than {MAX_QUEUED_SECONDS:.0f} s wait to be played; await drain() first")
            self._queue.append(resampled.copy())
            self._queued += len(resampled)
            self._written += len(samples)

    @property
    def heard_samples(self) -> int:
        """How much has left the loudspeaker, as far as the device tells its latency."""
        now = self._stream.time if self._stream is not None else None
        with self._lock:
            heard = self._heard(now)
            if heard == self._given + self._queued:
                return self._written  # all of it: what the resampler holds back is a few milliseconds of nothing
            return heard * VOICE_RATE // self._rate

    @property
    def playing(self) -> bool:
        """Whether something written has yet to be heard."""
        return self._waiting_seconds() > 0

    def clear(self) -> int:
        """Drop what has not been handed to the device, for barge-in; positions begin again at 0.

        Returns how much had been heard. The device still plays what it holds, its latency's worth.
        """
        heard = self.heard_samples
        with self._lock:
            self._queue.clear()
            self._blocks.clear()
            self._queued = self._given = self._written = 0
        self._resampler = StreamResampler(VOICE_RATE, self._rate)
        return heard

    async def drain(self, below_seconds: float = 0.0) -> None:
        """Wait until no more than `below_seconds` are left to be heard. Cancelling is safe.

        Raises:
            DeviceError: the device went away.
        """
        while (waiting := self._waiting_seconds() - below_seconds) > 0:
            self._check()
            await asyncio.sleep(max(waiting, 0.005))

    def _check(self) -> None:
        if self._stream is None:
            raise DeviceError("the loudspeaker is not open; start the playback first")
        if self._stopped:
            raise DeviceError("the loudspeaker stopped; was it unplugged? Plug it in and start again")

    def _waiting_seconds(self) -> float:
        now = self._stream.time if self._stream is not None else None
        with self._lock:
            return (self._queued + self._given - self._heard(now)) / self._rate

    def _heard(self, now: float | None) -> int:
        """Samples heard at a time of the stream's clock; the lock is held."""
        if now is None:
            return self._given
        while len(self._blocks) > 1 and self._blocks[1].heard_at <= now:
            self._blocks.popleft()
        if not self._blocks:
            return self._given
        block = self._blocks[0]
        played = int((now - block.heard_at) * self._rate)
        return block.first + min(max(played, 0), block.count)

    def _on_block(self, out: FloatArray, count: int, time: Any, _status: Any) -> None:
        """Fill a block for PortAudio's thread."""
        filled = 0
        with self._lock:
            while filled < count and self._queue:
                piece = self._queue.popleft()
                taken = min(count - filled, len(piece))
                out[filled : filled + taken, 0] = piece[:taken]
                filled += taken
                if taken < len(piece):
                    self._queue.appendleft(piece[taken:])
            if filled:
                heard_at = time.outputBufferDacTime or time.currentTime
                self._blocks.append(_Block(heard_at, self._given, filled))
                self._given += filled
                self._queued -= filled
                self._heard(time.currentTime)  # lets go of blocks that are over
        out[filled:count] = 0.0

    def _on_finished(self) -> None:
        self._stopped = True
