"""The voice: a sentence and its language in, chunks of PCM out while it is still being spoken.

The speaking is done by `audio/voice_worker.py`, one small process that forks a child per sentence, so that
the same sentence is the same samples however often and in whatever order it is asked for. Knows nothing of
models, clients or loudspeakers.

The voice is espeak-ng, GPL-3.0-or-later, which the package espeakng-loader brings; it runs in that other
process.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import numpy as np

from audio import voice_worker
from audio.errors import VoiceError
from audio.frames import VOICE_RATE, FloatArray, from_pcm16
from audio.languages import espeak_voice, speakable
from audio.resample import StreamResampler

START_SECONDS = 10.0
ANSWER_SECONDS = 10.0
MIN_RATE_WPM, MAX_RATE_WPM = 80, 450
"""Words a minute that espeak-ng can speak"""
PATIENT_NICE = 10
MAX_CHILDREN = 64
"""Sentences spoken at once; more wait"""


@dataclass(frozen=True, slots=True)
class VoiceOptions:
    """How the voice sounds."""

    rate_wpm: int = 165
    """Words a minute, 80..450"""
    pitch: int = 50
    """0..99"""
    volume: int = 100
    """0..200; above 100 it may clip"""
    variant: str | None = None
    """Timbre, one of `audio.languages.VARIANTS`"""

    def __post_init__(self) -> None:
        """Refuse what espeak-ng would silently bend into its range."""
        for name, value, low, high in (
            ("rate_wpm", self.rate_wpm, MIN_RATE_WPM, MAX_RATE_WPM),
            ("pitch", self.pitch, 0, 99),
            ("volume", self.volume, 0, 200),
        ):
            if not low <= value <= high:
                raise VoiceError(f"the voice's {name} must lie between {low} and {high}, not {value}")
        espeak_voice("eng", self.variant)  # refuses an unknown one now, rather than with every sentence


class Voice:
    """Speaks sentences, several at once if asked. An async context manager that owns the worker process."""

    def __init__(self, options: VoiceOptions | None = None) -> None:
        self._options = options or VoiceOptions()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._starting = asyncio.Lock()
        self._children = asyncio.Semaphore(MAX_CHILDREN)

    async def __aenter__(self) -> Self:
        """Start the worker.

        Raises:
            VoiceError: espeak-ng is missing or does not start.
        """
        async with self._starting:
            await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the worker, and whoever still speaks."""
        await self._stop()

    async def speak(
        self,
        text: str,
        language: str,
        *,
        rate_wpm: int | None = None,
        pitch: int | None = None,
        variant: str | None = None,
        speed: float = 1.0,
        urgent: bool = True,
    ) -> AsyncGenerator[FloatArray, None]:
        """Give the sentence as chunks at `VOICE_RATE`, the first within milliseconds; none if wordless.

        `speed` multiplies the rate, as far as the voice can follow (80 to 450 words a minute). What is not `urgent`
        leaves the processors to whoever needs them.

        Cancelling or closing at any point is safe: it ends the child and touches no other sentence.

        Raises:
            VoiceError: the language or a parameter is unknown, or the worker cannot be kept alive.
        """
        options = replace(
            self._options,
            rate_wpm=self._options.rate_wpm if rate_wpm is None else rate_wpm,
            pitch=self._options.pitch if pitch is None else pitch,
            variant=self._options.variant if variant is None else variant,
        )
        request: dict[str, str | int] = {
            "text": speakable(text),
            "voice": espeak_voice(language, options.variant),
            "rate_wpm": min(max(round(options.rate_wpm * speed), MIN_RATE_WPM), MAX_RATE_WPM),
            "pitch": options.pitch,
            "volume": options.volume,
            "nice": 0 if urgent else PATIENT_NICE,
        }
        if not request["text"]:
            return
        resampler = StreamResampler(voice_worker.SAMPLE_RATE, VOICE_RATE)
        async with self._children, self._sentence(request) as sentence:
            while (samples := await sentence.next_samples()) is not None:
                chunk = resampler.push(samples)
                if len(chunk):
                    yield chunk.clip(-1.0, 1.0)
        last = resampler.flush()
        if len(last):
            yield last.clip(-1.0, 1.0)

    async def synthesize(
        self,
        text: str,
        language: str,
        *,
        rate_wpm: int | None = None,
        pitch: int | None = None,
        variant: str | None = None,
    ) -> FloatArray:  # [T]
        """Speak a whole sentence; empty if nothing in it can be said."""
        spoken = self.speak(text, language, rate_wpm=rate_wpm, pitch=pitch, variant=variant)
        chunks = [chunk async for chunk in spoken]
        return np.concatenate(chunks) if chunks else np.empty(0, dtype=np.float32)

    @asynccontextmanager
    async def _sentence(self, request: dict[str, str | int]) -> AsyncIterator["_Sentence"]:
        """A child that has begun to speak; leaving closes its socket, which ends it."""
        sentence = await self._open()
        try:
            try:
                await sentence.begin(request)
            except _BrokeOffError:
                # The worker died just then. Nothing has been heard yet, so it may be said again.
                sentence.close()
                sentence = await self._open()
                await sentence.begin(request)
            yield sentence
        finally:
            sentence.close()

    async def _open(self) -> "_Sentence":
        """A socket whose other end a child of the worker holds."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                await self._hand_over(theirs)
            return _Sentence(*await asyncio.open_unix_connection(sock=ours))
        except BaseException:
            ours.close()
            raise

    async def _hand_over(self, sentence: socket.socket) -> None:
        """Give a sentence's socket to the worker, starting it again if it died."""
        async with self._starting:
            for _ in range(2):
                if self._control is not None:
                    with suppress(OSError):
                        socket.send_fds(self._control, [b"S"], [sentence.fileno()])
                        return
                if self._process is not None:
                    self._process.kill()  # the worker alone: children of a dead one finish their sentences
                await self._forget_worker()
                await self._start()
        raise VoiceError("the voice process keeps dying; see whether memory is short")

    async def _start(self) -> None:
        library, data = _espeak_paths()
        ours, theirs = socket.socketpair()
        with theirs:
            # -I -S: nothing of the environment or of site-packages, so that it starts in a few milliseconds.
            command = [sys.executable, "-I", "-S", voice_worker.__file__, str(theirs.fileno()), library, data]
            self._process = subprocess.Popen(  # noqa: ASYNC220 - a few milliseconds, once
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        ours.setblocking(False)
        self._control = ours
        try:
            async with asyncio.timeout(START_SECONDS):
                await _greeting(ours)
        except TimeoutError as error:
            await self._stop()
            raise VoiceError("espeak-ng does not start; see whether the machine is overloaded") from error
        except BaseException:
            await self._stop()
            raise

    async def _stop(self) -> None:
        if self._process is not None:
            # The worker leads a group of its own, with its children in it. None has anything to save.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        await self._forget_worker()

    async def _forget_worker(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            process, self._process = self._process, None
            await asyncio.to_thread(process.wait)


class _BrokeOffError(VoiceError):
    """A child ended in the middle of its sentence."""


class _Sentence:
    """Our side of the socket to one child."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._first: FloatArray | None = None
        self._ended = False

    async def begin(self, request: dict[str, str | int]) -> None:
        """Ask, and wait until the child speaks."""
        content = json.dumps(request).encode()
        self._writer.write(voice_worker.LENGTH.pack(len(content)) + content)
        self._first = await self._receive()

    async def next_samples(self) -> FloatArray | None:
        """The next samples, None at the end."""
        first, self._first = self._first, None
        return await self._receive() if first is None and not self._ended else first

    def close(self) -> None:
        """End the child, wherever it is."""
        self._writer.transport.abort()

    async def _receive(self) -> FloatArray | None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                header = await self._reader.readexactly(voice_worker.PACKET.size)
                kind, length = voice_worker.PACKET.unpack(header)
                content = await self._reader.readexactly(length)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
            raise _BrokeOffError("the voice broke off in the middle of a sentence; say it again") from error
        if kind == b"E":
            raise VoiceError(content.decode())
        self._ended = kind == b"Z"
        return None if self._ended else from_pcm16(np.frombuffer(content, dtype=np.int16))


async def _greeting(control: socket.socket) -> None:
    """Wait until the worker says that espeak-ng is loaded."""
    loop = asyncio.get_running_loop()
    header = await loop.sock_recv(control, voice_worker.PACKET.size)
    if len(header) == voice_worker.PACKET.size:
        kind, length = voice_worker.PACKET.unpack(header)
        if kind == b"Z":
            return
        reason = (await loop.sock_recv(control, length)).decode()
        raise VoiceError(f"espeak-ng does not start: {reason}; reinstall espeakng-loader")
    raise VoiceError("the voice process ended before it was ready; reinstall espeakng-loader")


def _espeak_paths() -> tuple[str, str]:
    """Where espeakng-loader keeps the library and its data."""
    try:
        import espeakng_loader

        library, data = espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
    except (ImportError, RuntimeError) as error:
        raise VoiceError(f"the voice needs espeakng-loader ({error}); run: pip install -e .") from error
    return str(library), str(data)
