"""Callers of the live benchmark: a process that speaks to a server over websockets, in real time, as people would.

Receives a folder of utterances (wav, 24 kHz) and what to do on the command line; gives one line of JSON with what
every caller measured on its own clock, and what the server says of each reply's stages. Started by `bench_live`.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

RATE = 24_000
CHUNK_MS = 20
CHUNK = RATE * CHUNK_MS // 1000
TURN_LIMIT_S = 30.0
STAGES = ("encode", "think", "decode", "voice")
INTERRUPT_AFTER_S = 0.5
"""Of the reply, before a caller who interrupts begins"""


@dataclass
class Told:
    """What one caller measured."""

    after_hangover_ms: list[float] = field(default_factory=list)
    after_speech_ms: list[float] = field(default_factory=list)
    barge_in_ms: list[float] = field(default_factory=list)
    """From when enough was said to interrupt a reply that still sounded, to the news of it"""
    stages_ms: list[float] = field(default_factory=list)
    """Encode, think, decode and voice of each reply, together"""
    waited_ms: list[float] = field(default_factory=list)
    """What was left of that to wait for after the turn was over"""
    speculated: int = 0
    discarded: int = 0
    late_deltas: int = 0
    """Sound of a reply that came after the news that it was interrupted"""
    sent_late_ms: list[float] = field(default_factory=list)
    """By how much each piece of sound left later than it should have: the caller's own load"""
    turns: int = 0
    """Begun"""
    replies: list[str] = field(default_factory=list)
    """Words and a hash of the sound of each reply that nobody interrupted"""
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a caller converses."""

    turns: int
    interrupt_every: int
    """Each so many turns he interrupts the reply; 0: never"""
    every_s: float
    """He begins to speak at multiples of this on the clock of his sound, so that two calls are the same samples;
    0: when the reply is over"""


class Caller:
    """One client."""

    def __init__(self, connection: ClientConnection, utterances: Sequence[bytes], manner: Manner) -> None:
        self.told = Told()
        self._connection = connection
        self._utterances = utterances
        self._manner = manner
        self._sent = 0
        """Samples so far"""
        self._say_at = 0
        """Sample at which to begin what is to be said"""
        self._began = 0.0
        self._speech: bytes = b""
        self._speech_ends: float | None = None
        self._committed_at: float | None = None
        self._first_delta: asyncio.Event = asyncio.Event()
        self._done: asyncio.Event = asyncio.Event()
        self._response: str | None = None
        self._sounds_until = 0.0
        """When what has come of the reply has been played"""
        self._interrupted: str | None = None
        """The response that is spoken over, from when that begins until it took hold"""
        self._over: str | None = None
        """The response that was interrupted last"""
        self._sound = hashlib.sha256()
        self._reply_bytes = 0
        self._words = ""

    async def call(self) -> Told:
        """The whole conversation."""
        session = {
            "type": "realtime",
            "audio": {"input": {"transcription": {"model": "noema"}}},
            "noema": {"latency": True},
        }
        await self._connection.send(json.dumps({"type": "session.update", "session": session}))
        self._began = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as tasks:
                helpers = [tasks.create_task(self._stream()), tasks.create_task(self._listen())]
                await self._converse()
                for helper in helpers:
                    helper.cancel()
        except* WebSocketException as closed:
            self.told.failures.append(f"cut off: {closed.exceptions[0]}")
        return self.told

    async def _converse(self) -> None:
        await asyncio.sleep(0.5)
        number = 0
        while number < self._manner.turns:
            every = self._manner.interrupt_every
            interrupts = every > 0 and number % every == every - 1
            answered = await self._say(number)
            number += 1
            if interrupts and answered:
                await asyncio.sleep(INTERRUPT_AFTER_S)
                self._interrupted = self._response
                answered = await self._say(number)
                number += 1
            if not answered or not await self._came(self._done):
                self.told.failures.append(f"no reply to utterance {number - 1}, or no end of it")
                continue
            self.told.replies.append(f"{self._words} {self._sound.hexdigest()[:16]}")
            await asyncio.sleep(self._reply_bytes / 2 / RATE + 0.3)  # it is listened to

    async def _say(self, number: int) -> bool:
        """Says it; whether a reply to it is heard."""
        self.told.turns += 1
        self._first_delta.clear()
        self._done.clear()
        self._response = None
        self._speech_ends = self._committed_at = None
        self._sound, self._reply_bytes, self._words = hashlib.sha256(), 0, ""
        self._say_at = round((number + 1) * self._manner.every_s * RATE)
        self._speech = self._utterances[number % len(self._utterances)]
        return await self._came(self._first_delta)

    async def _came(self, event: asyncio.Event) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(TURN_LIMIT_S):
                await event.wait()
        return event.is_set()

    async def _stream(self) -> None:
        """Sound without a pause, silence where nothing is said: each piece when its last sample would be there."""
        while True:
            piece = b""
            if self._sent >= self._say_at:
                piece, self._speech = self._speech[: 2 * CHUNK], self._speech[2 * CHUNK :]
            if piece and not self._speech:
                self._speech_ends = self._when((self._sent + len(piece) / 2) * 1000 / RATE)
            piece = piece.ljust(2 * CHUNK, b"\0")
            self._sent += CHUNK
            await asyncio.sleep(max(0.0, self._when(self._sent * 1000 / RATE) - time.perf_counter()))
            message = {"type": "input_audio_buffer.append", "audio": base64.b64encode(piece).decode()}
            self.told.sent_late_ms.append((time.perf_counter() - self._when(self._sent * 1000 / RATE)) * 1000)
            await self._connection.send(json.dumps(message))

    def _when(self, audio_ms: float) -> float:
        """When a place of the sound that is sent lies, on this process's clock."""
        return self._began + audio_ms / 1000

    async def _listen(self) -> None:
        while True:
            self.take(json.loads(await self._connection.recv()), time.perf_counter())

    def take(self, event: dict[str, Any], now: float) -> None:
        """A message, and when it came."""
        told = self.told
        match event["type"]:
            case "input_audio_buffer.speech_started" if self._interrupted is not None:
                if now < self._sounds_until:  # else there was nothing left to interrupt
                    told.barge_in_ms.append((now - self._when(event["at_ms"])) * 1000)
                self._over, self._interrupted, self._sounds_until = self._interrupted, None, now
            case "input_audio_buffer.committed":
                self._committed_at = self._when(event["at_ms"])
            case "response.created":
                self._response = event["response"]["id"]
            case "response.output_audio.delta":
                self._take_sound(event, now)
            case "response.output_audio_transcript.delta" if event["response_id"] == self._response:
                self._words += event["delta"]
            case "response.done" if event["response"]["id"] == self._response:
                self._done.set()
            case "noema.speculation":
                told.speculated += event["used"]
                told.discarded += not event["used"]
            case "noema.latency" if event["ms"].get("first_audio") is not None:
                told.stages_ms.append(sum(event["ms"].get(stage, 0.0) for stage in STAGES))
                told.waited_ms.append(event["ms"]["first_audio"])
            case "error":
                told.failures.append(event["error"]["message"])
            case _:
                pass

    def _take_sound(self, event: dict[str, Any], now: float) -> None:
        if event["response_id"] != self._response or self._committed_at is None:
            self.told.late_deltas += event["response_id"] == self._over
            return
        sound = base64.b64decode(event["delta"])
        self._sounds_until = max(self._sounds_until, now) + len(sound) / 2 / RATE
        self._sound.update(sound)
        self._reply_bytes += len(sound)
        if not self._first_delta.is_set():
            self._first_delta.set()
            self.told.after_hangover_ms.append((now - self._committed_at) * 1000)
            if self._speech_ends is not None:
                self.told.after_speech_ms.append((now - self._speech_ends) * 1000)


async def _calls(args: argparse.Namespace) -> list[Told]:
    utterances = [_pcm(path) for path in sorted(args.folder.glob("*.wav"))]

    async def one(number: int) -> Told:
        await asyncio.sleep(number * 0.37)  # people do not begin at once
        shift = number % len(utterances)
        own = [*utterances[shift:], *utterances[:shift]]
        try:
            async with connect(args.url, compression=None, max_size=None, proxy=None) as connection:
                return await Caller(connection, own, Manner(args.turns, args.interrupt_every, args.every_s)).call()
        except (OSError, WebSocketException) as error:
            return Told(failures=[f"not let in: {error}"])

    return await asyncio.gather(*(one(args.first + number) for number in range(args.callers)))


def _pcm(path: Path) -> bytes:
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == RATE, f"{path} has {rate} Hz"
    return bytes(np.asarray(samples, dtype="<i2").tobytes())


def main() -> int:
    """Calls, and says what was measured."""
    parser = argparse.ArgumentParser(prog="python -m scripts.live_caller", description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first of them")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--interrupt-every", type=int, default=0, metavar="N", help="0: never")
    parser.add_argument("--every-s", type=float, default=0.0, metavar="S", help="0: when the reply is over")
    args = parser.parse_args()
    told = asyncio.run(_calls(args))
    print(json.dumps({"cpu_s": time.process_time(), "callers": [asdict(one) for one in told]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
