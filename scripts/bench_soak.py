"""Memory over hundreds of turns, no two alike: what the server holds after fifty of them, and at the end.

Receives how many turns; gives the resident memory of a server process after each ten of them. Sessions come and go,
and one stays throughout. Each turn is a sentence that was not said before, by another timbre, pace and pitch: spoken,
committed by hand, typed, spoken over the reply, interpreted or resumed after a cut, all faster than real time.
"""

import argparse
import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from audio.frames import to_pcm16
from audio.languages import VARIANTS
from audio.voice import Voice
from scripts.server_process import ServerProcess, serving
from scripts.wire_client import RATE, SAMPLE_BYTES, Event, WireClient, dialled

WHO = ("I", "We", "They", "My brother", "The doctor", "Our neighbour", "Your sister", "The old man")
DID = ("found", "lost", "bought", "forgot", "saw", "sold", "broke")
WHAT = (
    "the keys",
    "a red car",
    "two tickets",
    "the letter",
    "an umbrella",
    "some bread",
    "the map",
    "a small dog",
    "it",
)
WHEN = (
    "yesterday",
    "this morning",
    "last week",
    "at the station",
    "in the garden",
    "on the way home",
    "again",
    "twice",
)
FIRST_TURNS = 50
"""By then everything has been used once: what comes on top is growth"""
EVERY = 10
MOST_GROWTH = 1.05
CALLERS = 2
"""At once, beside the one that stays"""
TIMBRES = (None, *(variant for variant in VARIANTS if variant != "whisper"))
"""A whisper is no speech to some detectors"""
LEVEL = 0.5
PAUSE = bytes(RATE * SAMPLE_BYTES)
END_S = 30.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """How long."""
    parser.add_argument("--turns", type=int, default=500, help="at least 10 (default: 500)")
    parser.add_argument("--bundle", default="mini")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures."""
    with tempfile.TemporaryDirectory() as scratch, serving(Path(scratch), _settings(args.bundle)) as server:
        soak = Soak(server, args.turns)
        began = time.monotonic()
        asyncio.run(soak.run())
        wall_s = round(time.monotonic() - began, 1)
        return {
            "benchmark": "soak",
            "bundle": args.bundle,
            **soak.figures(),
            "wall_s": wall_s,
            "complaints": server.complaints()[:5],
        }


def _settings(bundle: str) -> dict[str, Any]:
    return {"bundle": bundle, "server": {"detached_s": 2.0}}


def sentences() -> Iterator[str]:
    """No two alike, neighbours in nothing alike."""
    every = [" ".join(words) + "." for words in itertools.product(WHO, DID, WHAT, WHEN)]
    step = next(n for n in itertools.count(len(every) // 3) if np.gcd(n, len(every)) == 1)
    return (every[number * step % len(every)] for number in itertools.count())


@dataclass
class Soak:
    """One run."""

    server: ServerProcess
    turns: int
    done: int = 0
    sessions: int = 0
    rss_mb: dict[int, float] = field(default_factory=dict)
    """After so many turns"""

    async def run(self) -> None:
        """All turns, then everybody leaves."""
        self._texts, self._manners = sentences(), itertools.cycle(MANNERS)
        async with Voice() as self._voice:
            async with self.session() as lasting, asyncio.TaskGroup() as tasks:
                for number in range(CALLERS):
                    tasks.create_task(self._call(), name=f"caller {number}")
                tasks.create_task(self._stay(lasting), name="the one that stays")
            async with asyncio.timeout(END_S):
                while (await asyncio.to_thread(self.server.metrics))["noema_open_sessions"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)

    async def _call(self) -> None:
        while self.done < self.turns:
            await next(self._manners)(self)

    async def _stay(self, client: WireClient) -> None:
        while self.done < self.turns:
            await spoken(self, client)

    @asynccontextmanager
    async def session(self, **settings: Any) -> AsyncGenerator[WireClient, None]:
        """A connection whose session has these settings."""
        async with dialled(self.server.realtime) as client:
            self.sessions += 1
            await client.update(**settings)
            yield client

    def text(self) -> str:
        """The next sentence."""
        return next(self._texts)

    async def sound(self) -> bytes:
        """The next sentence, spoken."""
        text, number = self.text(), self.done
        pace, pitch, timbre = 140 + 7 * number % 60, 30 + 11 * number % 40, TIMBRES[number % len(TIMBRES)]
        samples = await self._voice.synthesize(text, "eng", rate_wpm=pace, pitch=pitch, variant=timbre)
        return to_pcm16((LEVEL * samples).astype(np.float32)).astype("<i2").tobytes()

    def count(self) -> None:
        """One more turn is over."""
        self.done += 1
        if self.done % EVERY == 0 and self.done <= self.turns:
            self.rss_mb[self.done] = self.server.rss_mb()

    def figures(self) -> dict[str, Any]:
        """What came of it."""
        ends_at = max(self.rss_mb)
        first, last = self.rss_mb[min(FIRST_TURNS, ends_at)], self.rss_mb[ends_at]
        return {
            "turns": self.done,
            "sessions": self.sessions,
            f"rss_mb_after_{FIRST_TURNS}": first,
            "rss_mb_at_the_end": last,
            "ratio": round(last / first, 4),
            "within_bound": last <= MOST_GROWTH * first,
            "rss_mb_once_all_left": self.server.rss_mb(),
            "rss_mb": self.rss_mb,
        }


# Manners of conversing


async def spoken(soak: Soak, client: WireClient) -> None:
    """One turn, whose end is found by the server, and whose reply is listened to."""
    client.heard_bytes = 0
    await client.speak(await soak.sound() + PAUSE)
    await client.until("response.done")
    await client.speak(bytes(client.heard_bytes))
    soak.count()


async def _speaking(soak: Soak) -> None:
    async with soak.session(audio={"input": {"transcription": {"model": "noema"}}}, noema={"concepts": True}) as client:
        for _ in range(4):
            await spoken(soak, client)


async def _interrupting(soak: Soak) -> None:
    async with soak.session(audio={"output": {"voice": "f3"}}) as client:
        for _ in range(2):
            await client.speak(await soak.sound() + PAUSE)
            await client.until("response.output_audio.delta")
            await client.speak(await soak.sound() + PAUSE)
            for _ in range(2):
                await client.until("response.done")
                soak.count()


async def _typing(soak: Soak) -> None:
    async with soak.session(output_modalities=["text"]) as client:
        for _ in range(2):
            await client.type(soak.text())
            await client.until("response.done")
            soak.count()


async def _by_hand(soak: Soak) -> None:
    async with soak.session(audio={"input": {"turn_detection": None}, "output": {"voice": "f2"}}) as client:
        for _ in range(2):
            await client.speak(await soak.sound())
            await client.say("input_audio_buffer.commit")
            await client.say("response.create")
            await client.until("response.done")
            soak.count()


async def _resuming(soak: Soak) -> None:
    resume: dict[str, str] = {}

    def told(event: Event) -> None:
        resume["after_event"] = event["event_id"]

    async with dialled(soak.server.realtime, told) as client:
        soak.sessions += 1
        shown = await client.update(noema={"resume": True})
        resume["token"] = shown["noema"]["resume"]["token"]
        await spoken(soak, client)
        client.socket.transport.abort()
    async with dialled(soak.server.realtime) as client:
        soak.sessions += 1
        await client.say("session.update", session={"type": "realtime", "noema": {"resume": resume}})
        await client.until("noema.resumed")
        await spoken(soak, client)


async def _interpreting(soak: Soak) -> None:
    async with dialled(f"{soak.server.realtime}/translations") as client:
        soak.sessions += 1
        language = ("fra", "spa", "deu")[soak.done % 3]
        session = {"type": "translation", "audio": {"output": {"language": language}}}
        await client.say("session.update", session=session)
        for _ in range(2):
            await client.speak(await soak.sound() + PAUSE, "session.input_audio_buffer.append")
            await client.until("session.output_transcript.delta")
            soak.count()
        await client.say("session.close")
        await client.until("session.closed")


MANNERS = (_speaking, _interrupting, _typing, _speaking, _by_hand, _resuming, _interpreting)
