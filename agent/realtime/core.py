"""Realtime core: the turn machine and the wire as one core of a session. Pure.

Frames, results and other inputs go to the turn machine, client events through the wire to it; its events become
messages in the very step in which they happen. So client events take effect in their order among frames and results.
"""

from collections.abc import Iterator

from agent.core.inputs import AudioInput, Input
from agent.core.turn import TurnMachine
from agent.core.turn_state import Step
from agent.realtime.client_events import ClientEvent, ClientMessage
from agent.realtime.machine import RealtimeMachine
from agent.realtime.messages import error_event
from agent.realtime.models import ServerModel
from agent.realtime.problems import ProtocolError


class RealtimeCore:
    """Decides, and says it in the wire's language."""

    def __init__(self, machine: TurnMachine, wire: RealtimeMachine) -> None:
        self.machine = machine
        self.wire = wire

    @property
    def ended(self) -> bool:
        """Whether the session is over."""
        return self.machine.ended

    @property
    def sample(self) -> int:
        """The clock."""
        return self.machine.sample

    def take(self, item: Input | ClientEvent | ProtocolError) -> list[Step]:
        """What follows from an input, or from what the client sent: one step for each input that it came to."""
        if isinstance(item, ProtocolError):
            return [Step(messages=[error_event(item)])]
        if isinstance(item, ClientMessage):
            return list(self._obey(item))
        if isinstance(item, AudioInput):
            self.wire.hear(len(item.samples))
        return [self._step(item)]

    def _obey(self, event: ClientEvent) -> Iterator[Step]:
        for answer in self.wire.client(event, self.machine.sample):
            if isinstance(answer, ServerModel):
                yield Step(messages=[answer])
            else:
                yield self._step(answer)

    def _step(self, item: Input) -> Step:
        step = self.machine.push(item)
        for event in step.events:
            step.messages.extend(self.wire.domain(event))
        return step
