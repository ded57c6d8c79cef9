"""Speculation: a reply begun at a soft pause, before anyone knows whether it is the end. Pure.

A fork of the answering believes that it is: it makes the requests and takes the results that would come. If the
silence lasts, the fork takes the place of the original, and what it kept to itself is told; if speech goes on, it
is dropped, and nobody has seen anything. An utterance is the same samples either way, so the reply is the same
reply. Of what the machine would do, the later sentences' voice and the words heard wait until it is certain.
"""

from dataclasses import replace

from agent.core.answering import Answering
from agent.core.events import DomainEvent
from agent.core.inputs import CancelTurn, CommitTurn, Decode, Request, Result, Speak
from agent.core.turn_state import Step
from audio.segmenter import Utterance


class Speculation:
    """One pause that may be an end."""

    def __init__(self, answering: Answering, utterance: Utterance, step: Step) -> None:
        self._fork = answering.fork()
        self._samples = utterance.samples
        self._events: list[DomainEvent] = []
        self._held: list[Request] = []
        self.begun_sample = answering.sample
        self.failed = False
        own = Step()
        turn = self._fork.begin("speech", own)
        self.turn = turn.number
        self._fork.take_utterance(turn, utterance, own)
        self._fork.commit(turn, own)
        self._fork.advance(own)
        self._keep(own, step)

    def take(self, item: Result, step: Step) -> None:
        """A result, which is the fork's: when it was made, nothing else was open."""
        if self.failed:
            return
        own = Step()
        self._fork.take_result(item, own)
        self._fork.advance(own)
        if any(isinstance(request, CancelTurn) for request in own.requests):
            self.failed = True  # it is tried again, if it turns out to be wanted
        self._keep(own, step)

    def holds_for(self, utterance: Utterance) -> bool:
        """Whether it was begun on this very utterance, and came to something."""
        return not self.failed and utterance.reason == "silence" and utterance.samples is self._samples

    def adopt(self, answering: Answering, step: Step) -> Answering:
        """It was the end: what takes the original's place. Events and what was held back go into `step`."""
        self._fork.sample = answering.sample
        self._fork.timeline.move(answering.timeline.heard)
        step.events.extend(replace(event, at_sample=answering.sample) for event in self._events)
        step.requests.extend([CommitTurn(self.turn), *self._held])
        return self._fork

    def discard(self, answering: Answering, step: Step) -> None:
        """It was not: what is under way is not wanted."""
        step.requests.append(CancelTurn(self.turn, self._fork.last_request))
        answering.skip_to(self._fork.last_request)

    def _keep(self, own: Step, step: Step) -> None:
        self._events += own.events
        for request in own.requests:
            if self._waits(request):
                self._held.append(request)
            elif not isinstance(request, CancelTurn | CommitTurn):
                step.requests.append(replace(request, committed=False))

    def _waits(self, request: Request) -> bool:
        words = isinstance(request, Decode) and request.index is None and not request.urgent
        return words or (isinstance(request, Speak) and request.index > 0)
