"""Remote thinking: the jobs of a thinker that waits for a network, as tasks on the loop; sentences in, thoughts out.

Only its sentences pass through the model's line, to become concepts; and what it fails to answer does, where the
model can answer in its place. Knows nothing of the thread, and of the network no more than that it may fail.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from agent.core.inputs import EncodeText, ModelRequest, Think
from agent.errors import Overloaded, ThinkerResting, exit_code, one_line
from agent.inference.job import Answer, Job
from agent.inference.thinkers import RemoteThinker, Setback, ThoughtPart

if TYPE_CHECKING:
    from agent.inference.models import Models

_log = logging.getLogger(__name__)


class RemoteThinking:
    """What is being thought of elsewhere.

    Args:
        submit: gives the model a request of a session.
        line_up: gives the model a job that was to be done elsewhere.
    """

    def __init__(self, submit: Callable[[int, ModelRequest], Job], line_up: Callable[[Job], None]) -> None:
        self._submit = submit
        self._line_up = line_up
        self._under_way: set[asyncio.Task[None]] = set()

    def begin(self, job: Job, thinker: RemoteThinker, models: "Models") -> None:
        """Has a job done elsewhere; `models` makes concepts of what is said, and answers where nothing is."""
        job.remote = asyncio.create_task(self._think(job, thinker, models), name=f"think-{job.number}")
        self._under_way.add(job.remote)
        job.remote.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        """Ends all of it, and its connections."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _think(self, job: Job, thinker: RemoteThinker, models: "Models") -> None:
        """On the loop. Cancelling it closes the connection at once."""
        assert isinstance(job.request, Think), "nothing else is done elsewhere"
        said = False
        try:
            async with aclosing(thinker.think(job.request)) as sentences:
                start = time.perf_counter()
                async for sentence in sentences:
                    spent = (time.perf_counter() - start) * 1000
                    for part in await self._as_concepts(job, job.request, models, sentence):
                        job.deliver(Answer(part, spent))
                    said, start = True, time.perf_counter()
        except Exception as error:  # noqa: BLE001 - the boundary: whoever waits is told, or answered otherwise
            if exit_code(error) is None:
                _log.debug("thinking elsewhere failed", exc_info=True)
            self._make_do(job, job.request, models, error, said=said)
            return
        job.deliver(None)

    async def _as_concepts(self, job: Job, request: Think, models: "Models", sentence: str) -> list[ThoughtPart]:
        """A sentence joins the others of the conversation, wherever it comes from."""
        if not models.encodes_text:
            return [ThoughtPart(None, sentence)]
        encode = EncodeText(request.request, request.turn, 0, sentence, request.reply_language)
        encoding = self._submit(job.session, encode)
        try:
            encoded = [answer.value async for answer in encoding.answers()]
        finally:
            encoding.cancel()
        return [ThoughtPart(c, text) for e in encoded for text, c in zip(e.texts, e.concepts, strict=True)]

    def _make_do(self, job: Job, request: Think, models: "Models", error: Exception, *, said: bool) -> None:
        """What is left of a reply that failed: what was said of it, or else what the model says in its place."""
        if said:
            job.deliver(Answer(Setback(f"{one_line(error)}; the reply ends here"), 0.0))
            job.deliver(None)
        elif models.thinks(request.task):
            message, again = f"{one_line(error)}; retrieve answers meanwhile", isinstance(error, ThinkerResting)
            job.deliver(Answer(Setback(message, again), 0.0))
            try:
                self._line_up(job)
            except Overloaded as overloaded:
                job.deliver(None, overloaded)
        else:
            job.deliver(None, error)
