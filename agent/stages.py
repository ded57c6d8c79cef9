"""Stages: requests of the turn machine in, their results out, as inputs. What a session's tasks run.

Each stage takes its requests one after the other. A request of a turn cancelled meanwhile is dropped, and
work under way for it stops at the next step: between steps by the worker, between chunks by the voice. A
failure becomes a result too, so no turn ever waits for an answer that will not come.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from agent.channel import Channel
from agent.core.events import FloatArray
from agent.core.inputs import (
    CancelTurn,
    CommitTurn,
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
from agent.errors import Overloaded, exit_code, one_line
from agent.inference.job import Job
from agent.inference.model_worker import ModelWorker
from agent.inference.models import EncodedSpeech, EncodedText
from agent.inference.thinkers import Setback
from agent.metrics import Metrics
from audio.frames import on_grid
from audio.voice import Voice

VOICE_BLOCK = 2400
"""Reply audio travels in stretches of 100 ms, however the voice chopped it."""
_REQUESTS = 1024
_TURNS_KEPT = 256
_log = logging.getLogger(__name__)

Deliver = Callable[[Result], Awaitable[None]]


class Work:
    """The requests of one session on their way to the stages, and which turns are no longer wanted."""

    def __init__(self) -> None:
        self.understand: Channel[EncodeSpeech | EncodeText] = Channel(_REQUESTS, "block")
        self.hear: Channel[Decode] = Channel(_REQUESTS, "block")
        self.think: Channel[Think] = Channel(_REQUESTS, "block")
        self.decode: Channel[Decode] = Channel(_REQUESTS, "block")
        self.speak: Channel[Speak] = Channel(_REQUESTS, "block")
        self._cancelled: OrderedDict[int, int] = OrderedDict()
        """Turn → the last request of it that is not wanted"""
        self._committed: OrderedDict[int, None] = OrderedDict()
        self._jobs: dict[int, Job] = {}

    def give(self, request: Request) -> None:
        """Hands a request to its stage. Never waits: the machine bounds what it asks for."""
        match request:
            case EncodeSpeech() | EncodeText():
                self.understand.send_nowait(request)
            case Decode(index=None):
                self.hear.send_nowait(request)
            case Think():
                self.think.send_nowait(request)
            case Decode():
                self.decode.send_nowait(request)
            case Speak():
                self.speak.send_nowait(request)
            case CommitTurn():
                self._commit(request.turn)
            case _:
                self._cancel(request)

    def wanted(self, request: ModelRequest | Speak) -> bool:
        """Whether anyone still waits for its results."""
        return request.request > self._cancelled.get(request.turn, 0)

    def committed(self, turn: int) -> bool:
        """Whether what was begun for a turn as speculation has come to be wanted."""
        return turn in self._committed

    def _commit(self, turn: int) -> None:
        self._committed[turn] = None
        while len(self._committed) > _TURNS_KEPT:
            self._committed.popitem(last=False)
        for job in self._jobs.values():
            if job.request.turn == turn:
                job.commit()

    def _cancel(self, request: CancelTurn) -> None:
        self._cancelled[request.turn] = request.last_request
        while len(self._cancelled) > _TURNS_KEPT:
            self._cancelled.popitem(last=False)
        for job in [job for job in self._jobs.values() if job.request.turn == request.turn]:
            job.cancel()
        # The machine bounds what is wanted: what is not any more must not fill the lines.
        lines: tuple[Channel[Any], ...] = (self.understand, self.hear, self.think, self.decode, self.speak)
        for line in lines:
            line.take_back(lambda waiting: not self.wanted(waiting))

    def started(self, job: Job) -> None:
        """A job entered the model's line."""
        self._jobs[job.number] = job

    def over(self, job: Job) -> None:
        """A job left it; one that is still running is stopped."""
        job.cancel()
        self._jobs.pop(job.number, None)

    def close(self) -> None:
        """No more requests."""
        for channel in (self.understand, self.hear, self.think, self.decode, self.speak):
            channel.close()


class Stages:
    """understand, hear, think, decode and speak for one session."""

    def __init__(
        self, session: int, worker: ModelWorker, voice: Voice | None, metrics: Metrics, deliver: Deliver
    ) -> None:
        self.work = Work()
        self._session = session
        self._worker = worker
        self._voice = voice
        self._metrics = metrics
        self._deliver_result = deliver
        self._came: dict[int, int] = {}
        """Of a request that is asked again: how many of its results came the first time"""
        self._setback: Setback | None = None
        """Of the last reply"""

    def ask_again(self, request: ModelRequest | Speak, answered: int) -> None:
        """Gives a request that was cut off after so many results. They come first again, and are not delivered."""
        self._came[request.request] = answered
        self.work.give(request)

    async def understand(self) -> None:
        """Utterances and typed text → concepts."""
        async for request in self.work.understand:
            await self._guarded(request, "understand", self._encode)

    async def hear(self) -> None:
        """Concepts → what was heard, while the reply is made."""
        async for request in self.work.hear:
            await self._guarded(request, "hear", self._decode)

    async def think(self) -> None:
        """Context → thoughts, one at a time."""
        async for request in self.work.think:
            await self._guarded(request, "think", self._think)

    async def decode(self) -> None:
        """Concepts → sentences of the reply, while those before are spoken."""
        async for request in self.work.decode:
            await self._guarded(request, "decode", self._decode)

    async def speak(self) -> None:
        """Sentences → sound."""
        async for request in self.work.speak:
            await self._guarded(request, "speak", self._speak)

    async def _guarded(self, request: ModelRequest | Speak, stage: str, handle: Callable[..., Awaitable[None]]) -> None:
        if not self.work.wanted(request):
            return
        if self.work.committed(request.turn):
            request = replace(request, committed=True)
        try:
            await handle(request)
        except Overloaded as error:
            if not request.committed and self.work.committed(request.turn):  # it came to be wanted just then
                await self._guarded(request, stage, handle)
            else:
                await self._deliver(WorkFailed(0, request.request, request.turn, stage, one_line(error)))
        except Exception as error:  # noqa: BLE001 - the boundary: one failed turn must not end the session
            if exit_code(error) is None:
                _log.debug("stage %s failed", stage, exc_info=True)
            await self._deliver(WorkFailed(0, request.request, request.turn, stage, one_line(error)))

    async def _deliver(self, item: Result) -> None:
        came = self._came.get(item.request, 0)
        if came and not isinstance(item, WorkFailed):
            self._came[item.request] = came - 1
        else:
            await self._deliver_result(item)

    async def _encode(self, request: EncodeSpeech | EncodeText) -> None:
        with self._job(request) as job:
            async for answer in job.answers():
                self._metrics.add(request.turn, "encode", answer.milliseconds)
                await self._deliver(_encoded(request, answer.value))

    async def _think(self, request: Think) -> None:
        if self._came.get(request.request) and self._worker.models.remote(request.task):
            # Asked again, it would say something else: what was said of the reply is the reply.
            del self._came[request.request]
            await self._deliver(Thought(0, request.request, request.turn, None, None, last=True))
            return
        told, self._setback = self._setback, None
        with self._job(request) as job:
            async for answer in job.answers():
                part = answer.value
                if isinstance(part, Setback):
                    part = told if part.again and told else part
                    self._setback = part
                    if part != told:  # once, not in every turn for as long as it lasts
                        failed = WorkFailed(0, request.request, request.turn, "think", part.message, last=False)
                        await self._deliver(failed)
                    continue
                self._metrics.add(request.turn, "think", answer.milliseconds)
                await self._deliver(Thought(0, request.request, request.turn, part.concept, part.text, last=False))
        if self.work.wanted(request):
            await self._deliver(Thought(0, request.request, request.turn, None, None, last=True))

    async def _decode(self, request: Decode) -> None:
        with self._job(request) as job:
            async for answer in job.answers():
                if request.index is not None:  # hearing back is no part of the reply's latency
                    self._metrics.add(request.turn, "decode", answer.milliseconds)
                await self._deliver(Decoded(0, request.request, request.turn, request.index, answer.value))

    async def _speak(self, request: Speak) -> None:
        assert self._voice is not None, "a session without a voice asks for no speech"
        start = time.perf_counter()
        spoken = self._voice.speak(request.text, request.language, speed=request.speed, variant=request.voice)
        async with aclosing(spoken) as chunks:
            async for block in _blocks(chunks):
                if not self.work.wanted(request):
                    return
                self._metrics.add(request.turn, "voice", (time.perf_counter() - start) * 1000)
                await self._voiced(request, block, last=False)
        await self._voiced(request, np.zeros(0, np.float32), last=True)

    async def _voiced(self, request: Speak, samples: FloatArray, *, last: bool) -> None:
        await self._deliver(Voiced(0, request.request, request.turn, request.index, samples, last))

    @contextmanager
    def _job(self, request: ModelRequest) -> Iterator[Job]:
        """A job in the model's line, for as long as somebody waits for its answers."""
        job = self._worker.submit(self._session, request)
        self.work.started(job)
        try:
            yield job
        finally:
            self.work.over(job)


def _encoded(request: EncodeSpeech | EncodeText, found: EncodedSpeech | EncodedText) -> Encoded:
    if isinstance(found, EncodedText):
        return Encoded(0, request.request, request.turn, request.piece, found.concepts, found.texts)
    return Encoded(
        0,
        request.request,
        request.turn,
        request.piece,
        found.concepts,
        None,
        language=found.language,
        probability=found.probability,
    )


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
