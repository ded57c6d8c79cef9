"""Live core: the core of a session whose client may come back; counts what of all that it sent has been taken.

Stands between a session and its kept core, and knows whether a reply is under way. What the client says arrives as
`Said`, its sound as frames. A position is told in samples of the client's own rate, of which 20 ms are a whole number
at every rate there is. Pure, but for those who wait until something has been taken.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agent.core.events import DomainEvent, ReplyEnded, ReplyStarted, TurnCommitted, TurnEnded
from agent.core.inputs import AudioInput, Input
from agent.core.kept_core import KeptCore
from agent.core.stored_session import ClientPosition
from agent.core.turn_state import Step
from agent.realtime.client_events import ClientEvent, SessionUpdate
from agent.realtime.messages import parse_client_event, parse_object
from agent.realtime.problems import ProtocolError
from audio.frames import FRAME_SAMPLES

_PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Said:
    """A message of the client's, in its place among the frames; or what was wrong with one."""

    event: ClientEvent | ProtocolError
    number: int
    """How many messages other than sound there were, this one included"""
    samples: int | None = None
    """Samples that the client sent by then, where the frames up to here hold all of them"""


class LiveCore:
    """Takes what a client sends and says how far that has come.

    Args:
        kept: the core.
        rate: of the client's samples, asked once there are some.
        position: what had been taken when the core was kept.
    """

    def __init__(self, kept: KeptCore, rate: Callable[[], int], position: ClientPosition | None = None) -> None:
        self.kept = kept
        self._rate = rate
        position = position or ClientPosition()
        self._events = position.events
        self._samples = position.audio_samples
        self._samples_at = kept.heard_sample or 0
        """Place on the clock up to which frames hold so many of the client's samples"""
        self._taken = 0
        self._changed = asyncio.Event()
        self.messages = 0
        """Given by the core since this process began"""
        self._under_way: set[int] = set()
        """Turns that are being answered"""
        self.on_update: Callable[[], None] = lambda: None
        """Called when the client has changed its session, before anything of that is told"""

    @property
    def ended(self) -> bool:
        """Whether the session is over."""
        return self.kept.ended

    @property
    def sample(self) -> int:
        """The clock."""
        return self.kept.sample

    @property
    def position(self) -> ClientPosition:
        """What of all that the client sent has been taken."""
        heard = (self.kept.heard_sample or 0) - self._samples_at
        samples = self._samples + heard // FRAME_SAMPLES * (self._rate() // 50) if heard else self._samples
        return ClientPosition(samples, self._events)

    def take(self, item: Input | Said) -> list[Step]:
        """What follows from an input, or from what the client said."""
        steps = self._obey(item) if isinstance(item, Said) else self.kept.take(item)
        for step in steps:
            self.messages += len(step.messages)
            self._follow(step.events)
        self._taken += isinstance(item, Said | AudioInput)
        self._changed.set()
        return steps

    async def taken(self, count: int) -> None:
        """Waits until so many frames and messages have been taken since this process began. Cancelling is safe."""
        while self._taken < count:
            self._changed.clear()
            await self._changed.wait()

    async def answered(self) -> None:
        """Waits until no reply is under way. Cancelling is safe."""
        while self._under_way:
            self._changed.clear()
            await self._changed.wait()

    def _follow(self, events: Iterable[DomainEvent]) -> None:
        for event in events:
            match event:
                case TurnCommitted(wants_reply=True) | ReplyStarted():
                    self._under_way.add(event.turn)
                case ReplyEnded() | TurnEnded():
                    self._under_way.discard(event.turn)
                case _:
                    pass

    def _obey(self, said: Said) -> list[Step]:
        steps = self.kept.take(said.event)
        self._events = said.number
        if said.samples is not None:
            self._samples, self._samples_at = said.samples, self.kept.heard_sample or 0
        if isinstance(said.event, SessionUpdate):
            self.on_update()
        return steps


def text_of(event: ClientEvent | ProtocolError) -> str:
    """A client's message, or what was wrong with one, as text that `event_of` reads."""
    if isinstance(event, ProtocolError):
        return json.dumps({_PROBLEM: [event.code, event.message, event.param, event.client_event_id, event.kind]})
    return event.model_dump_json(exclude_unset=True)


def event_of(text: str) -> ClientEvent | ProtocolError:
    """The inverse of `text_of`."""
    problem = parse_object(text).get(_PROBLEM)
    return parse_client_event(text) if problem is None else ProtocolError(*problem)
