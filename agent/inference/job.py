"""Job: one request to the model, from when it is made until nobody waits any more. Knows nothing of who does it.

Its answers lie in a bounded channel between whoever does it and whoever waits.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from agent.channel import Channel, ChannelClosed
from agent.core.inputs import Decode, EncodeSpeech, ModelRequest
from agent.errors import Overloaded
from agent.inference.batching import Waiting

_ANSWERS = 1024


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
