"""Open turns: what was said and what a client asks for in, as turns; what is to be understood, out. Pure.

Every turn that is not over, from when it is begun to when it ends, and the conversation that they make. Knows
nothing of how utterances are found, nor of how turns are answered, but that there is room for so many that wait.
"""

import copy
from collections import OrderedDict
from typing import Literal, Self

from agent.core.context import Conversation
from agent.core.events import (
    ContextAdded,
    ReplyEnded,
    TurnCommitted,
    TurnEnd,
    TurnEnded,
    UtteranceTaken,
    Warned,
)
from agent.core.inputs import (
    CancelTurn,
    ContextForgotten,
    ContextGiven,
    EncodeSpeech,
    EncodeText,
    ReplyCancelled,
    ReplyHeard,
    ReplyRequested,
    SettingsChanged,
    TypedText,
)
from agent.core.reply_timeline import ReplyTimeline
from agent.core.turn_options import TurnOptions
from agent.core.turn_state import Step, TurnState
from audio.segmenter import Utterance

MAX_SILENT_TURNS = 512
"""Turns without a reply that may wait to be understood: a history given at once"""
Source = Literal["speech", "text", "none", "context"]


class OpenTurns:
    """The conversation, and every turn that is not over. Events and requests go into the `Step` handed in."""

    def __init__(self, options: TurnOptions) -> None:
        self.options = options
        self.conversation = Conversation(options.max_context_sentences)
        self.timeline = ReplyTimeline()
        self.settings = SettingsChanged(0, options.language, options.reply_language, options.task, options.candidates)
        self.sample = 0
        self.last_turn = 0
        self.last_request = 0
        self._void_request = 0
        """Results of requests up to here are of a discarded speculation"""
        self._turns: OrderedDict[int, TurnState] = OrderedDict()

    @property
    def idle(self) -> bool:
        """Whether no turn is open."""
        return not self._turns

    @property
    def turns(self) -> list[TurnState]:
        """Turns that are not over, as they were begun."""
        return list(self._turns.values())

    def turn(self, number: int) -> TurnState | None:
        """A turn that is not over."""
        return self._turns.get(number)

    def fork(self) -> Self:
        """Another that stands where this one stands, and shares nothing that changes."""
        assert self.idle, "speculation begins when nothing else is under way"
        other = copy.copy(self)
        other.conversation, other.timeline = self.conversation.copy(), self.timeline.copy()
        other._turns = OrderedDict()
        return other

    def skip_to(self, request: int) -> None:
        """Forgets a fork that made requests up to this one: their results mean nothing, their numbers are used."""
        self._void_request = self.last_request = request

    # What a client asks for

    def obey(
        self,
        item: TypedText | ContextGiven | ContextForgotten | ReplyRequested | ReplyCancelled | ReplyHeard,
        step: Step,
    ) -> None:
        """What concerns the conversation and its turns."""
        match item:
            case TypedText():
                self._take_text(item, step)
            case ContextGiven():
                self._take_context(item, step)
            case ContextForgotten():
                self._forget(item, step)
            case ReplyRequested():
                self.ask_reply(step, item)
            case ReplyCancelled():
                for turn in self.turns:
                    if turn.reply == "started":
                        self.end(turn, "cancelled", step)
            case ReplyHeard():
                position = self.timeline.place(item.turn, item.samples)
                heard = 0 if position is None else self.timeline.sentences_heard(item.turn, position)
                self.conversation.keep_heard(item.turn, heard)

    def _forget(self, item: ContextForgotten, step: Step) -> None:
        turn = self._turns.get(item.turn)
        if turn is not None and (item.role == turn.role or turn.reply == "started"):
            self.end(turn, "cancelled", step)
        self.conversation.forget(item.turn, item.role)

    # What was said

    def take_utterance(self, turn: TurnState, utterance: Utterance, step: Step) -> None:
        """One more stretch of speech belongs to a turn."""
        piece = turn.pieces
        turn.pieces += 1
        place = (utterance.start_sample, utterance.end_sample, utterance.reason)
        step.events.append(UtteranceTaken(self.sample, turn.number, piece, *place))
        number = self._next_request()
        step.requests.append(
            EncodeSpeech(number, turn.number, piece, utterance.samples, turn.language, candidates=turn.candidates)
        )

    def _take_text(self, item: TypedText, step: Step) -> None:
        """A turn that was typed."""
        turn = self.begin("text", step, item.language)
        turn.wants_reply = item.wants_reply
        self._ask_concepts(turn, item.text, step)
        self.commit(turn, step)

    def _take_context(self, item: ContextGiven, step: Step) -> None:
        """Something said before, by either side."""
        turn = self.begin("context", step, item.language)
        turn.role, turn.wants_reply, turn.committed = item.role, False, True
        self._ask_concepts(turn, item.text, step)
        step.events.append(ContextAdded(self.sample, turn.number, item.role))

    def ask_reply(self, step: Step, wanted: ReplyRequested) -> TurnState:
        """A reply is wanted: to the last turn that waits for one, or in a turn in which nothing was said."""
        waiting = [t for t in self._turns.values() if t.committed and t.source != "context" and not t.wants_reply]
        if waiting:
            turn = waiting[-1]
            turn.wants_reply, turn.thinking = True, "no"
        else:
            turn = self.begin("none", step)
            turn.language = self.conversation.last_language() or turn.language
            turn.heard, turn.joined, turn.wants_reply = "yes", True, True
            self.commit(turn, step)
        if wanted.spoken is not None:
            turn.spoken = wanted.spoken and self.options.spoken_reply
        turn.instructions, turn.temperature = wanted.instructions, wanted.temperature
        return turn

    def begin(self, source: Source, step: Step, language: str | None = None) -> TurnState:
        """A turn begins, with the settings of this moment."""
        self._make_room(step)
        self.last_turn += 1
        settings = self.settings
        turn = TurnState(
            self.last_turn,
            source,
            language or settings.language,
            settings.reply_language,
            settings.task,
            settings.candidates if source == "speech" else (),
            spoken=settings.spoken and self.options.spoken_reply,
            wants_reply=settings.auto_reply if source == "speech" else True,
        )
        self._turns[turn.number] = turn
        return turn

    def _make_room(self, step: Step) -> None:
        """Of those that wait for a reply the second oldest gives way: the oldest is being answered."""
        waiting = [turn for turn in self._turns.values() if turn.wants_reply]
        silent = [turn for turn in self._turns.values() if not turn.wants_reply]
        too_many = waiting[1:2] or waiting if len(waiting) >= self.options.max_waiting_turns else []
        too_many += silent[:1] if len(silent) >= MAX_SILENT_TURNS else []
        for turn in too_many:
            message = "the machine is slower than the conversation; an older turn was dropped"
            step.events.append(Warned(self.sample, "think", message))
            self.end(turn, "dropped", step)

    def commit(self, turn: TurnState, step: Step) -> None:
        """All of it has been said."""
        assert turn.source != "context", "nobody answers what is only to be remembered"
        turn.committed = True
        self._turns.move_to_end(turn.number)
        language = "" if turn.candidates else turn.language
        reply_language = turn.reply_to or language
        step.events.append(
            TurnCommitted(self.sample, turn.number, turn.source, language, reply_language, turn.task, turn.wants_reply)
        )

    def _ask_concepts(self, turn: TurnState, text: str, step: Step) -> None:
        turn.pieces = 1
        step.requests.append(EncodeText(self._next_request(), turn.number, 0, text, turn.language))

    # Ends

    def _end_reply(self, turn: TurnState, status: TurnEnd, step: Step) -> None:
        if turn.reply == "started":
            turn.reply = "ended"
            step.events.append(ReplyEnded(self.sample, turn.number, status))

    def supersede(self, turn: TurnState, step: Step) -> None:
        """The speaker went on before the answer began: what was said stays, nobody answers it."""
        turn.superseded = True
        self._end_reply(turn, "interrupted", step)

    def keep_heard(self, number: int) -> int:
        """Of the reply to a turn, keeps the sentences that came to be heard, and says how many those are."""
        turn = self._turns.get(number)
        if turn is not None and not turn.spoken:  # it was read
            return sum(sentence.text is not None for sentence in turn.sentences)
        kept = self.timeline.sentences_heard(number)
        self.conversation.keep_heard(number, kept)
        return kept

    def end(self, turn: TurnState, status: TurnEnd, step: Step) -> None:
        """Nothing more comes of a turn."""
        del self._turns[turn.number]
        if status != "done":
            step.requests.append(CancelTurn(turn.number, self.last_request))
        self._end_reply(turn, status, step)
        if turn.source != "context":
            step.events.append(TurnEnded(self.sample, turn.number, status))

    def _next_request(self) -> int:
        self.last_request += 1
        return self.last_request
