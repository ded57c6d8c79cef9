"""Model worker: the one thread that owns torch, shared by every session.

Receives requests from the event loop, gives their answers back to it; `batching` decides what runs next. The
loop never calls torch; the thread never touches the loop but through `call_soon_threadsafe`. A job nobody
waits for any more is dropped before it runs, and between its steps. A thinker that waits for a network keeps
neither waiting: its jobs are tasks on the loop, and only its sentences pass through the line, to become concepts.
Knows nothing of turns.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.batching import Waiting, next_batch, to_shed
from agent.channel import Channel, ChannelClosed
from agent.errors import AgentError, Overloaded, ThinkerResting, exit_code, one_line
from agent.inputs import Decode, EncodeSpeech, EncodeText, ModelRequest, Think
from agent.thinkers import RemoteThinker, Setback, ThoughtPart

if TYPE_CHECKING:
    from agent.models import Models

_LINE = 256
_MAX_BATCH = 8
_ANSWERS = 1024
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """One result of a job and what it cost."""

    value: Any
    """EncodeSpeech → EncodedSpeech; EncodeText → EncodedText; Think → ThoughtPart or Setback; Decode → str."""
    milliseconds: float
    """Time it took to make, waiting in line not counted."""


class Job:
    """A request in the line. Iterate over it for its answers; `cancel` it when nobody waits any more."""

    def __init__(self, number: int, session: int, request: ModelRequest) -> None:
        self.number = number
        self.session = session
        self.request = request
        self.place = number
        self.cancelled = False
        self.steps: Iterator[Any] | None = None
        self.remote: asyncio.Task[None] | None = None
        self.failure: BaseException | None = None
        self._committed = request.committed
        self._answers: Channel[Answer] = Channel(_ANSWERS, "close")

    def cancel(self) -> None:
        """Drops the job before its next step; its answers end, and so does its connection. Safe to call twice."""
        self.cancelled = True
        self._answers.close()
        if self.remote is not None:
            self.remote.cancel()

    def commit(self) -> None:
        """Speculation until now, it is wanted: it takes its place among what was committed all along."""
        self._committed = True

    def shed(self) -> None:
        """Drops the job to make room; whoever waits is told."""
        self.failure = Overloaded("the model has too much to do for a reply that may not be wanted")
        self.cancel()

    def waiting(self) -> Waiting:
        """What `batching` needs to know."""
        request = self.request
        key = type(request).__name__ if isinstance(request, EncodeSpeech | Decode) else None
        urgency = int(isinstance(request, Decode) and not request.urgent)
        return Waiting(self.number, self.session, key, self._committed, urgency, self.place)

    def deliver(self, answer: Answer | None, failure: BaseException | None = None) -> None:
        """On the loop: one more answer, or None for the end."""
        if self._answers.closed:
            return
        if answer is None:
            self.failure = failure
            self._answers.close()
            return
        try:
            self._answers.send_nowait(answer)
        except ChannelClosed:  # full: it closed itself
            self.failure = Overloaded("answers came faster than they were taken; give less text at a time")
            self.cancelled = True

    async def answers(self) -> AsyncIterator[Answer]:
        """The answers as they come; a failed job raises its error after them."""
        async for answer in self._answers:
            yield answer
        if self.failure is not None:
            raise self.failure


class ModelWorker:
    """Runs one `Models` on its own thread. `load` is called there too: importing torch takes a second."""

    def __init__(self, load: "Callable[[], Models]") -> None:
        self._load = load
        self._models: Models | None = None
        self._changed = threading.Condition()
        self._line: dict[int, Job] = {}
        self._last = 0
        self._remote: set[asyncio.Task[None]] = set()
        self._under_way: list[Job] = []
        self._steps = 0
        self._given_up: AgentError | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="noema-model", daemon=True)

    async def __aenter__(self) -> "ModelWorker":
        self._loop = asyncio.get_running_loop()
        self._loaded: asyncio.Future[None] = self._loop.create_future()
        self._thread.start()
        try:
            await self._loaded
        except BaseException:
            self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._remote:
            task.cancel()
        await asyncio.gather(*self._remote, return_exceptions=True)
        self._stop()
        # The step under way is short; a daemon thread does not keep the process if it is not.
        await asyncio.to_thread(self._thread.join, 2.0)

    @property
    def models(self) -> "Models":
        """What runs here; for its facts (languages, thinkers), not for computing on the loop."""
        assert self._models is not None, "the worker is used inside its context, which loads it"
        return self._models

    @property
    def waiting(self) -> int:
        """Requests in the line."""
        return len(self._line)

    @property
    def step(self) -> int | None:
        """The step under way, by its number; None while there is none. One that stays for very long hangs."""
        return self._steps if self._under_way else None

    def give_up(self, error: AgentError) -> None:
        """The step under way hangs, and a thread cannot be ended: whoever waits is told, and whoever comes."""
        with self._changed:
            self._given_up = error
            jobs = [*self._under_way, *self._line.values()]
            self._line.clear()
        for job in jobs:
            job.deliver(None, error)

    def submit(self, session: int, request: ModelRequest) -> Job:
        """Puts a request in the line; speculation gives way when the line is full."""
        if self._given_up is not None:
            raise self._given_up
        with self._changed:
            self._last += 1
            job = Job(self._last, session, request)
        thinker = self.models.remote(request.task) if isinstance(request, Think) else None
        if thinker is None:
            self._line_up(job)
            return job
        job.remote = asyncio.create_task(self._think_elsewhere(job, thinker), name=f"think-{job.number}")
        self._remote.add(job.remote)
        job.remote.add_done_callback(self._remote.discard)
        return job

    def _line_up(self, job: Job) -> None:
        with self._changed:
            self._line[job.number] = job
            for number in to_shed([j.waiting() for j in self._line.values()], _LINE):
                self._line.pop(number).shed()
            if len(self._line) > _LINE:
                del self._line[job.number]
                raise Overloaded("the model has too much to do; try again when fewer sessions are open")
            self._changed.notify()

    def _stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def _run(self) -> None:
        try:
            self._models = self._load()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the worker
            self._tell(_fail, self._loaded, error)
            return
        self._tell(_succeed, self._loaded)
        while (batch := self._take()) is not None:
            self._serve(batch)

    def _take(self) -> list[Job] | None:
        with self._changed:
            while not self._stopping:
                for number in [n for n, job in self._line.items() if job.cancelled]:
                    self._close(self._line.pop(number))
                chosen = next_batch([job.waiting() for job in self._line.values()], _MAX_BATCH)
                if chosen:
                    return [self._line.pop(number) for number in chosen]
                self._changed.wait()
        return None

    def _serve(self, batch: list[Job]) -> None:
        self._steps += 1
        self._under_way = batch
        try:
            self._answer(batch)
        finally:
            self._under_way = []

    def _answer(self, batch: list[Job]) -> None:
        start = time.perf_counter()
        try:
            answered = list(zip(batch, self._step(batch), strict=True))
        except Exception as error:  # noqa: BLE001 - the boundary between jobs: one must not stop the others
            if len(batch) > 1:
                for job in batch:
                    self._serve([job])
            else:
                self._tell(batch[0].deliver, None, error)
            return
        spent = (time.perf_counter() - start) * 1000
        for job, value in answered:
            if value is not None:
                self._tell(job.deliver, Answer(value, spent))
            if value is not None and job.steps is not None:
                self._line_up_again(job)
            else:
                self._tell(job.deliver, None)

    def _step(self, batch: list[Job]) -> list[Any]:
        models, first = self.models, batch[0]
        if isinstance(first.request, Think):
            if first.steps is None:
                first.steps = models.think(first.request)
            return [next(first.steps, None)]
        if isinstance(first.request, EncodeText):
            return [models.encode_text(first.request)]

        def cancelled() -> bool:
            return all(job.cancelled for job in batch)

        answers: Sequence[Any] | None
        if isinstance(first.request, EncodeSpeech):
            requests = [job.request for job in batch if isinstance(job.request, EncodeSpeech)]
            answers = models.encode_speech(requests, cancelled)
        else:
            answers = models.decode([job.request for job in batch if isinstance(job.request, Decode)], cancelled)
        return [None] * len(batch) if answers is None else list(answers)

    async def _think_elsewhere(self, job: Job, thinker: RemoteThinker) -> None:
        """On the loop. Cancelling it closes the connection at once."""
        assert isinstance(job.request, Think), "nothing else is done elsewhere"
        said = False
        try:
            async with aclosing(thinker.think(job.request)) as sentences:
                start = time.perf_counter()
                async for sentence in sentences:
                    spent = (time.perf_counter() - start) * 1000
                    for part in await self._as_concepts(job, job.request, sentence):
                        job.deliver(Answer(part, spent))
                    said, start = True, time.perf_counter()
        except Exception as error:  # noqa: BLE001 - the boundary: whoever waits is told, or answered otherwise
            if exit_code(error) is None:
                _log.debug("thinking elsewhere failed", exc_info=True)
            self._make_do(job, job.request, error, said=said)
            return
        job.deliver(None)

    async def _as_concepts(self, job: Job, request: Think, sentence: str) -> list[ThoughtPart]:
        """A sentence joins the others of the conversation, wherever it comes from."""
        if not self.models.encodes_text:
            return [ThoughtPart(None, sentence)]
        encode = EncodeText(request.request, request.turn, 0, sentence, request.reply_language)
        encoding = self.submit(job.session, encode)
        try:
            encoded = [answer.value async for answer in encoding.answers()]
        finally:
            encoding.cancel()
        return [ThoughtPart(c, text) for e in encoded for text, c in zip(e.texts, e.concepts, strict=True)]

    def _make_do(self, job: Job, request: Think, error: Exception, *, said: bool) -> None:
        """What is left of a reply that failed: what was said of it, or else what the model says in its place."""
        if said:
            job.deliver(Answer(Setback(f"{one_line(error)}; the reply ends here"), 0.0))
            job.deliver(None)
        elif self.models.thinks(request.task):
            message, again = f"{one_line(error)}; retrieve answers meanwhile", isinstance(error, ThinkerResting)
            job.deliver(Answer(Setback(message, again), 0.0))
            try:
                self._line_up(job)
            except Overloaded as overloaded:
                job.deliver(None, overloaded)
        else:
            job.deliver(None, error)

    def _line_up_again(self, job: Job) -> None:
        with self._changed:
            self._last += 1
            job.place = self._last
            self._line[job.number] = job

    @staticmethod
    def _close(job: Job) -> None:
        close = getattr(job.steps, "close", None)
        if close is not None:
            close()

    def _tell(self, call: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # the loop is gone, and with it everyone who waited
            self._stop()


def _succeed(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
