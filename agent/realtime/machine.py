"""Realtime machine: translates between the turn machine's domain and the wire, in both directions. Pure.

Client events in: what they ask of the turn machine, and what is answered. Domain events in: server events out, in
the order the protocol has them. Decides nothing about the conversation, and knows no clock but the one it is told.
Ids are counted, so the same inputs give the same messages.
"""

from collections.abc import Iterator
from typing import Literal

from agent.core.events import (
    ConceptsKnown,
    ContextAdded,
    DomainEvent,
    Heard,
    IdleTimedOut,
    LanguageIdentified,
    ReplyAudio,
    ReplyEnded,
    ReplySentence,
    ReplyStarted,
    ReplyTruncated,
    Speculated,
    TurnCommitted,
    TurnEnded,
    UserStarted,
    UtteranceTaken,
    Warned,
)
from agent.realtime.client_events import ClientEvent
from agent.realtime.defaults import SessionDefaults
from agent.realtime.hearing import SAMPLES_PER_MS
from agent.realtime.messages import error_event
from agent.realtime.noema_events import NoemaConcepts, NoemaLanguage, NoemaSpeculation, NoemaWarning
from agent.realtime.problems import ProtocolError
from agent.realtime.requests import Answers, added, answers
from agent.realtime.server_events import (
    Conversation,
    ConversationCreated,
    ServerEvent,
    SessionCreated,
)
from agent.realtime.settings import SessionSettings
from agent.realtime.wire import Wire

_ROLES: dict[str, Literal["user", "assistant"]] = {"user": "user", "agent": "assistant"}


class RealtimeMachine:
    """One session's side of the protocol."""

    def __init__(self, session_id: str, defaults: SessionDefaults) -> None:
        self.session_id = session_id
        self.defaults = defaults
        self._wire = Wire(session_id, defaults)

    @property
    def settings(self) -> SessionSettings:
        """As they hold now."""
        return self._wire.settings

    def opening(self) -> list[ServerEvent]:
        """What a client is told first."""
        return [
            SessionCreated(session=self._wire.session),
            ConversationCreated(conversation=Conversation(id=self._wire.conversation_id)),
        ]

    def hear(self, samples: int) -> None:
        """So many samples of sound came, at 16 kHz."""
        self._wire.hearing.buffered += samples
        self._wire.hearing.begun = True

    def client(self, event: ClientEvent, at_sample: int) -> Answers:
        """What a client event leads to: inputs of the turn machine and server events, in order.

        After each input, its domain events go through `domain` before the next is asked for. All have to be taken.
        """
        try:
            yield from answers(self._wire, event, at_sample)
        except ProtocolError as problem:
            problem.client_event_id = event.event_id
            yield error_event(problem)

    def domain(self, event: DomainEvent) -> Iterator[ServerEvent]:
        """What a client is told of a domain event. All of it has to be taken."""
        match event:
            case UserStarted() | UtteranceTaken() | IdleTimedOut() | Heard():
                return self._heard(event)
            case TurnCommitted() | ContextAdded() | TurnEnded():
                return self._turned(event)
            case ReplyStarted() | ReplySentence() | ReplyAudio() | ReplyEnded() | ReplyTruncated():
                return self._replied(event)
            case ConceptsKnown() | LanguageIdentified() | Speculated() | Warned():
                return self._noticed(event)
            case _:
                return iter(())

    def _heard(self, event: UserStarted | UtteranceTaken | IdleTimedOut | Heard) -> Iterator[ServerEvent]:
        wire, by_hand = self._wire, self.settings.turn_detection is None
        match event:
            case UserStarted():
                if not by_hand:
                    yield from wire.hearing.started(event.start_sample)
            case UtteranceTaken():
                yield from wire.hearing.taken(event, by_hand=by_hand)
            case IdleTimedOut():
                yield from wire.hearing.timed_out(event)
            case Heard():
                yield from wire.hearing.told(event.turn, event.text, wanted=wire.wants_words)

    def _turned(self, event: TurnCommitted | ContextAdded | TurnEnded) -> Iterator[ServerEvent]:
        wire = self._wire
        match event:
            case TurnCommitted():
                if event.source == "speech":
                    yield from wire.hearing.committed(event.turn)
                elif event.source == "text":
                    yield from self._bound(event.turn)
                wire.replying.committed(event)
            case ContextAdded():
                yield from self._bound(event.turn)
            case TurnEnded():
                yield from wire.hearing.turn_ended(
                    event.turn, event.status, at_sample=event.at_sample, wanted=wire.wants_words
                )
                yield from wire.replying.turn_ended(event.turn, event.status)

    def _bound(self, turn: int) -> Iterator[ServerEvent]:
        """The item that the client is adding is this turn."""
        item, self._wire.pending = self._wire.pending, None
        assert item is not None, "text comes from the client alone"
        yield from added(self._wire, item)
        self._wire.items.bind(item, turn)

    def _replied(
        self, event: ReplyStarted | ReplySentence | ReplyAudio | ReplyEnded | ReplyTruncated
    ) -> Iterator[ServerEvent]:
        replying = self._wire.replying
        match event:
            case ReplyStarted():
                yield from replying.started(event.turn, spoken=event.spoken)
            case ReplyEnded():
                yield from replying.ended(event.turn, event.status)
            case ReplyTruncated():
                yield from replying.truncated(event, told=self.settings.noema is not None)
            case ReplySentence() | ReplyAudio():
                response = replying.of(event.turn)
                assert response is not None, "nothing is said outside a reply"
                if isinstance(event, ReplySentence):
                    yield from response.say(event.index, event.text)
                else:
                    yield from response.sound(event.index, event.start_sample, event.samples)

    def _noticed(self, event: ConceptsKnown | LanguageIdentified | Speculated | Warned) -> Iterator[ServerEvent]:
        noema, replying = self.settings.noema, self._wire.replying
        match event:
            case ConceptsKnown():
                yield from replying.understood(event)
                if noema is not None and noema.concepts:
                    yield from self._concepts(event)
            case LanguageIdentified() if noema is not None:
                item = self._wire.items.of(event.turn, "user")
                if item is not None:
                    yield NoemaLanguage(
                        item_id=item.id,
                        language=event.language,
                        reply_language=event.reply_language,
                        probability=event.probability,
                    )
            case Speculated() if noema is not None:
                begun, now = event.begun_sample // SAMPLES_PER_MS, event.at_sample // SAMPLES_PER_MS
                yield NoemaSpeculation(used=event.used, begun_ms=begun, audio_ms=now)
            case Warned():
                replying.reason = event.message
                if noema is not None:
                    yield NoemaWarning(code=event.stage, message=event.message)

    def _concepts(self, event: ConceptsKnown) -> Iterator[ServerEvent]:
        role = _ROLES[event.role]
        item = self._wire.items.of(event.turn, role)
        if item is not None:
            count, dim = event.concepts.shape
            yield NoemaConcepts(
                item_id=item.id,
                role=role,
                index=event.index,
                language=event.language,
                space_id=self.defaults.space_id,
                dim=dim,
                count=count,
                concepts=NoemaConcepts.packed(event.concepts),
            )
