"""Model worker: the one thread that owns torch, shared by every session.

Receives requests from the event loop, gives their answers back to it; `batching` decides what runs next. The
loop never calls torch; the thread never touches the loop but through `call_soon_threadsafe`. A job nobody
waits for any more is dropped before it runs, and between its steps. A thinker that waits for a network keeps
neither waiting (`remote_thinking.py`): only its sentences pass through the line, to become concepts.
Knows nothing of turns.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from agent.core.inputs import Decode, EncodeSpeech, EncodeText, ModelRequest, Think
from agent.errors import AgentError, Overloaded
from agent.inference.batching import next_batch, to_shed
from agent.inference.job import Answer, Job
from agent.inference.remote_thinking import RemoteThinking

if TYPE_CHECKING:
    from agent.inference.models import Models

_LINE = 256
_MAX_BATCH = 8


class ModelWorker:
    """Runs one `Models` on its own thread. `load` is called there too: importing torch takes a second."""

    def __init__(self, load: "Callable[[], Models]") -> None:
        self._load = load
        self._models: Models | None = None
        self._changed = threading.Condition()
        self._line: dict[int, Job] = {}
        self._over: list[int] = []
        """Sessions that are to be forgotten"""
        self._last = 0
        self._elsewhere = RemoteThinking(self.submit, self._line_up)
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
        await self._elsewhere.close()
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
        else:
            self._elsewhere.begin(job, thinker, self.models)
        return job

    def forget(self, session: int) -> None:
        """A session is over: nothing of it is kept."""
        with self._changed:
            self._over.append(session)
            self._changed.notify()

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
                while self._over:
                    self.models.forget(self._over.pop())
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
                first.steps = models.think(first.request, first.session)
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
