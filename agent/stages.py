"""Stages: requests of the turn machine in, their results out, as inputs. What a session's tasks run.

Each stage takes its requests one after the other. A request of a turn cancelled meanwhile is dropped, and
work under way for it stops at the next step: between steps by the worker, between chunks by the voice. A
failure becomes a result too, so no turn ever waits for an answer that will not come.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any

import numpy as np

from agent.channel import Channel
from agent.errors import exit_code, one_line
from agent.events import FloatArray
from agent.inputs import (
    Decode,
    Decoded,
    Encoded,
    EncodeSpeech,
    EncodeText,
    ModelRequest,
    Request,
    Result,
    Speak,
    Think,
    Thought,
    Voiced,
    WorkFailed,
)
from agent.metrics import Metrics
from agent.model_worker import Job, ModelWorker
from agent.models import EncodedText
from agent.thinkers import ThoughtPart
from audio.frames import on_grid
from audio.voice import Voice

VOICE_BLOCK = 2400
"""Reply audio travels in stretches of 100 ms, however the voice chopped it."""
_REQUESTS = 1024
_CANCELLED_KEPT = 256
_log = logging.getLogger(__name__)

Deliver = Callable[[Result], Awaitable[None]]


class Work:
    """The requests of one session on their way to the stages, and which turns are no longer wanted."""

    def __init__(self) -> None:
        self.understand: Channel[EncodeSpeech | EncodeText | Decode] = Channel(_REQUESTS, "block")
        self.think: Channel[Think] = Channel(_REQUESTS, "block")
        self.speak: Channel[Decode | Speak] = Channel(_REQUESTS, "block")
        self._cancelled: OrderedDict[int, None] = OrderedDict()
        self._jobs: dict[int, Job] = {}

    def give(self, request: Request) -> None:
        """Hands a request to its stage. Never waits: the machine bounds what it asks for."""
        match request:
            case EncodeSpeech() | EncodeText() | Decode(index=None):
                self.understand.send_nowait(request)
            case Think():
                self.think.send_nowait(request)
            case Decode() | Speak():
                self.speak.send_nowait(request)
            case _:
                self._cancel(request.turn)

    def wanted(self, turn: int) -> bool:
        """Whether anyone still waits for results of this turn."""
        return turn not in self._cancelled

    def _cancel(self, turn: int) -> None:
        self._cancelled[turn] = None
        while len(self._cancelled) > _CANCELLED_KEPT:
            self._cancelled.popitem(last=False)
        for job in [job for job in self._jobs.values() if job.request.turn == turn]:
            job.cancel()

    def started(self, job: Job) -> None:
        """A job entered the model's line."""
        self._jobs[job.number] = job

    def over(self, job: Job) -> None:
        """A job left it; one that is still running is stopped."""
        job.cancel()
        self._jobs.pop(job.number, None)

    def close(self) -> None:
        """No more requests."""
        for channel in (self.understand, self.think, self.speak):
            channel.close()


class Stages:
    """understand, think and speak for one session."""

    def __init__(
        self, session: int, worker: ModelWorker, voice: Voice | None, metrics: Metrics, deliver: Deliver
    ) -> None:
        self.work = Work()
        self._session = session
        self._worker = worker
        self._voice = voice
        self._metrics = metrics
        self._deliver = deliver

    async def understand(self) -> None:
        """Utterances and typed text → concepts; concepts → what was heard."""
        async for request in self.work.understand:
            handle = self._hear_back if isinstance(request, Decode) else self._encode
            await self._guarded(request, "understand", handle)

    async def think(self) -> None:
        """Context → thoughts, one at a time."""
        async for request in self.work.think:
            await self._guarded(request, "think", self._think)

    async def speak(self) -> None:
        """Concepts → sentences; sentences → sound."""
        async for request in self.work.speak:
            handle = self._say_in_words if isinstance(request, Decode) else self._say_aloud
            await self._guarded(request, "speak", handle)

    async def _guarded(self, request: ModelRequest | Speak, stage: str, handle: Callable[..., Awaitable[None]]) -> None:
        if not self.work.wanted(request.turn):
            return
        try:
            await handle(request)
        except Exception as error:  # noqa: BLE001 - the boundary: one failed turn must not end the session
            if exit_code(error) is None:
                _log.debug("stage %s failed", stage, exc_info=True)
            await self._deliver(WorkFailed(0, request.request, request.turn, stage, one_line(error)))

    async def _encode(self, request: EncodeSpeech | EncodeText) -> None:
        async for value, milliseconds in self._answers(request):
            self._metrics.add(request.turn, "encode", milliseconds)
            concepts = value.concepts if isinstance(value, EncodedText) else value
            texts = value.texts if isinstance(value, EncodedText) else None
            result = Encoded(0, request.request, request.turn, request.piece, concepts, texts)
            await self._deliver(result)

    async def _think(self, request: Think) -> None:
        first = True
        async for part, milliseconds in self._thoughts(request):
            if first:
                self._metrics.add(request.turn, "think", milliseconds)
                first = False
            await self._deliver(Thought(0, request.request, request.turn, part.concept, part.text, last=False))
        if self.work.wanted(request.turn):
            await self._deliver(Thought(0, request.request, request.turn, None, None, last=True))

    async def _thoughts(self, request: Think) -> AsyncIterator[tuple[ThoughtPart, float]]:
        thinker = self._worker.models.thinker(request.task)
        if thinker.uses_model:
            async for part, milliseconds in self._answers(request):
                yield part, milliseconds
            return
        steps: Iterator[ThoughtPart] = thinker.think(request)
        while self.work.wanted(request.turn):
            start = asyncio.get_running_loop().time()
            # A network's answer is awaited off the loop and off the model's thread.
            step = await asyncio.to_thread(next, steps, None)
            if step is None:
                return
            yield step, (asyncio.get_running_loop().time() - start) * 1000

    async def _hear_back(self, request: Decode) -> None:
        async for text, _ in self._answers(request):
            await self._deliver(Decoded(0, request.request, request.turn, None, text))

    async def _say_in_words(self, request: Decode) -> None:
        async for text, milliseconds in self._answers(request):
            self._metrics.add(request.turn, "decode", milliseconds)
            await self._deliver(Decoded(0, request.request, request.turn, request.index, text))

    async def _say_aloud(self, request: Speak) -> None:
        assert self._voice is not None, "a session without a voice asks for no speech"
        start = asyncio.get_running_loop().time()
        first = True
        async with aclosing(self._voice.speak(request.text, request.language)) as chunks:
            async for block in _blocks(chunks):
                if not self.work.wanted(request.turn):
                    return
                if first:
                    spent = (asyncio.get_running_loop().time() - start) * 1000
                    self._metrics.add(request.turn, "voice", spent)
                    self._metrics.first_audio(request.turn)
                    first = False
                await self._voiced(request, block, last=False)
        await self._voiced(request, np.zeros(0, np.float32), last=True)

    async def _voiced(self, request: Speak, samples: FloatArray, *, last: bool) -> None:
        await self._deliver(Voiced(0, request.request, request.turn, request.index, samples, last))

    async def _answers(self, request: ModelRequest) -> AsyncIterator[tuple[Any, float]]:
        job = self._worker.submit(self._session, request)
        self.work.started(job)
        try:
            async for answer in job.answers():
                yield answer.value, answer.milliseconds
        finally:
            self.work.over(job)


async def _blocks(chunks: AsyncIterator[FloatArray]) -> AsyncIterator[FloatArray]:
    """The same sound in stretches of `VOICE_BLOCK`, the last one shorter, on the 16-bit grid."""
    rest = np.zeros(0, dtype=np.float32)
    async for chunk in chunks:
        rest = np.concatenate([rest, chunk])
        while len(rest) >= VOICE_BLOCK:
            yield on_grid(rest[:VOICE_BLOCK])
            rest = rest[VOICE_BLOCK:]
    if len(rest):
        yield on_grid(rest)
