"""Interpretation: what is said in a session, in one language, made once for however many listen in it.

Receives sentences as concepts, or with their words where somebody has put them into this language already; gives each
listener wire messages: the sentence in words, and its sound if anyone wants that. Works one sentence after the other,
and asks model and voice as one whom nobody waits for. Knows nothing of turns but their numbers, nor of sockets.
"""

import asyncio
import base64
import itertools
import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from agent.channel import Channel
from agent.core.events import FloatArray
from agent.core.inputs import Decode, Role
from agent.errors import exit_code, one_line
from agent.inference.model_worker import ModelWorker
from agent.live.outbox import Outbox
from agent.realtime.noema_events import NoemaWarning
from agent.realtime.translation import OutputAudioDelta, OutputTranscriptDelta, Source, TranslationServerEvent
from audio.frames import SAMPLE_RATE
from audio.telephony import AudioEncoder
from audio.voice import Voice

_log = logging.getLogger(__name__)
_NUMBERS = itertools.count(-1, -1)
"""In the model's line every language is a session of its own, so that they share batches: eight decode in the time of
two. Sessions have positive numbers"""
_BLOCK_BYTES = 9600
"""Sound travels in stretches of 200 ms: for whom it is not quick, a message costs more than a moment"""
_ROLES: dict[Source, tuple[Role, ...]] = {"speaker": ("user",), "agent": ("agent",), "both": ("user", "agent")}


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """A sentence that one side said."""

    number: int
    """Place among all that was said in the session"""
    at_sample: int
    turn: int
    role: Role
    index: int
    """Among the sentences of its turn and role"""
    echo: bool
    """An interpreter's sentence: the speaker's own, said again"""
    concept: FloatArray | None = None
    """[1, D]"""
    words: asyncio.Future[str] | None = None
    """What it is in this language, where that comes from elsewhere; empty: nothing after all"""


@dataclass(frozen=True, slots=True, eq=False)
class Listening:
    """One listener's place. `outbox` is the way to it; one that takes too little is closed by that."""

    language: str
    source: Source
    audio: bool
    since: int
    """The first sentence that it hears"""
    outbox: Outbox

    def wants(self, said: Said) -> bool:
        """Whether a sentence is for this listener: it began to listen before, and listens to who says it."""
        if said.number < self.since or (said.echo and self.source == "both"):
            return False
        return said.role in _ROLES[self.source]


@dataclass(frozen=True, slots=True)
class Interpreters:
    """What interpretations of a session work with."""

    worker: ModelWorker
    voice: Voice | None
    wanted: Callable[[Said], bool]
    """Whether a sentence still stands: what was cut off before it was interpreted is not said"""
    written: Callable[[TranslationServerEvent], str]
    """A message as it is sent"""


class Interpretation:
    """One language. It has listeners for as long as it lives."""

    def __init__(self, language: str, interpreters: Interpreters, backlog: int) -> None:
        self.language = language
        self.listeners: list[Listening] = []
        self._by = interpreters
        self._number = next(_NUMBERS)
        self._said: Channel[Said] = Channel(backlog, "drop_oldest")
        self._lost = 0
        """Sentences left out, as far as listeners know"""
        self._last: tuple[int, Role] | None = None

    def push(self, said: Said) -> None:
        """Takes a sentence if anyone wants it; the oldest of too many that wait is left out. Never waits."""
        if any(listening.wants(said) for listening in self.listeners):
            self._said.send_nowait(said)

    def close(self) -> None:
        """Nothing more is said; what waits is still interpreted."""
        self._said.close()

    async def run(self) -> None:
        """Interprets until it is closed and done. Cancelling is safe."""
        async for said in self._said:
            if self._said.dropped > self._lost:
                self._warn("behind", f"{self._said.dropped - self._lost} sentences were left out to catch up")
                self._lost = self._said.dropped
            try:
                await self._interpret(said)
            except Exception as error:  # noqa: BLE001 - the boundary: the next sentence may well succeed
                if exit_code(error) is None:
                    _log.debug("interpreting failed", exc_info=True)
                self._warn("left_out", one_line(error))

    async def _interpret(self, said: Said) -> None:
        if not self._by.wanted(said) or not self._takers(said):
            return
        text = await self._words(said)
        if not text or not self._by.wanted(said):
            return
        delta = f" {text}" if self._last == (said.turn, said.role) else text
        self._last = said.turn, said.role
        self._tell(said, OutputTranscriptDelta(delta=delta, **self._about(said)))
        if self._by.voice is not None and self._takers(said, audio=True):
            await self._speak(self._by.voice, said, text)

    async def _words(self, said: Said) -> str:
        if said.words is not None:
            return await said.words
        assert said.concept is not None, "what is said is there in concepts or in words"
        job = self._by.worker.submit(
            self._number, Decode(said.number, said.turn, said.index, said.concept, self.language, urgent=False)
        )
        try:
            return " ".join([answer.value async for answer in job.answers()])
        finally:
            job.cancel()

    async def _speak(self, voice: Voice, said: Said, text: str) -> None:
        encoder, sound = AudioEncoder("audio/pcm"), b""
        async with aclosing(voice.speak(text, self.language, urgent=False)) as chunks:
            async for chunk in chunks:
                if not self._takers(said, audio=True):
                    return
                sound += encoder.push(chunk)
                if len(sound) >= _BLOCK_BYTES:
                    self._tell_sound(said, sound)
                    sound = b""
        if sound:
            self._tell_sound(said, sound)

    def _tell_sound(self, said: Said, sound: bytes) -> None:
        delta = base64.b64encode(sound).decode("ascii")
        self._tell(said, OutputAudioDelta(delta=delta, **self._about(said)), audio=True)

    def _about(self, said: Said) -> dict[str, Any]:
        return {
            "elapsed_ms": said.at_sample * 1000 // SAMPLE_RATE,
            "item_id": f"turn_{said.turn}_{said.role}",
            "speaker": said.role,
            "language": self.language,
        }

    def _takers(self, said: Said, *, audio: bool = False) -> list[Listening]:
        return [one for one in self.listeners if one.wants(said) and (one.audio or not audio)]

    def _tell(self, said: Said, event: TranslationServerEvent, *, audio: bool = False) -> None:
        message = self._by.written(event)
        for listening in self._takers(said, audio=audio):
            listening.outbox.put(message)

    def _warn(self, code: str, message: str) -> None:
        told = self._by.written(NoemaWarning(code=code, message=message))
        for listening in self.listeners:
            listening.outbox.put(told)
