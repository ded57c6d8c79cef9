"""Answering: what was said in, as utterances and text; what is to be computed for it, and what came of it, out. Pure.

    utterance ─ EncodeSpeech ┐
    text ──────── EncodeText ┴ (joins the conversation) ─ Think ─ Decode ─ Speak

Turns are understood as they come and answered one after the other, in the order they were committed. A turn
nobody wants a reply to only joins the conversation. Knows nothing of how utterances are found, nor of whether
what it does is speculation: `fork` gives another that goes its own way.
"""

import copy
from collections import OrderedDict
from typing import Literal

from agent.context import ROLE_USER, Conversation
from agent.events import (
    ConceptsKnown,
    ContextAdded,
    Heard,
    LanguageIdentified,
    ReplyAudio,
    ReplyEnded,
    ReplySentence,
    ReplyStarted,
    TurnCommitted,
    TurnEnd,
    TurnEnded,
    UtteranceTaken,
    Warned,
)
from agent.inputs import (
    CancelTurn,
    ContextEntry,
    ContextForgotten,
    ContextGiven,
    Decode,
    Decoded,
    Encoded,
    EncodeSpeech,
    EncodeText,
    ReplyCancelled,
    ReplyHeard,
    ReplyRequested,
    Result,
    SettingsChanged,
    Speak,
    Think,
    Thought,
    TypedText,
    Voiced,
    WorkFailed,
)
from agent.reply_timeline import ReplyTimeline
from agent.turn_options import TurnOptions
from agent.turn_state import SentenceState, Step, TurnState
from audio.segmenter import Utterance

MAX_SILENT_TURNS = 512
"""Turns without a reply that may wait to be understood: a history given at once"""
Source = Literal["speech", "text", "none", "context"]


class Answering:
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

    def fork(self) -> "Answering":
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

    # What came of it

    def take_result(self, item: Result, step: Step) -> None:
        """The answer to a request."""
        turn = self._turns.get(item.turn)
        if turn is None or item.request <= self._void_request:
            return  # interrupted, dropped or discarded meanwhile: nobody waits for it
        match item:
            case Encoded():
                self._take_concepts(turn, item, step)
            case Thought():
                self._take_thought(turn, item, step)
            case Decoded(index=None):
                self._take_words(turn, item.text, step)
            case Decoded(index=int(index)):
                self._take_sentence(turn, index, item.text, step)
            case Voiced():
                self._take_voice(turn, item, step)
            case WorkFailed():
                step.events.append(Warned(self.sample, item.stage, item.message))
                if not item.last:
                    return  # what was asked for comes all the same
                if item.stage == "hear" and not self._reads_words(turn):
                    turn.heard = "yes"  # nothing but the words to show are missing
                else:
                    self.end(turn, "failed", step)

    def _take_concepts(self, turn: TurnState, item: Encoded, step: Step) -> None:
        turn.encoded[item.piece] = item
        # The first piece decides: another follows only one that was cut at the greatest length, and is not longer.
        if turn.candidates and item.piece == 0:
            assert item.language is not None, "whoever is asked which language it is says so"
            assert item.probability is not None, "and how sure that is"
            turn.language, turn.candidates = item.language, ()
            step.events.append(
                LanguageIdentified(self.sample, turn.number, turn.language, turn.reply_language, item.probability)
            )

    def advance(self, step: Step) -> None:
        """Starts what has become possible: only the oldest committed turn is answered."""
        while (turn := next((t for t in self._turns.values() if t.committed), None)) is not None:
            if turn.wants_reply and not turn.superseded and turn.reply == "no":
                turn.reply = "started"
                step.events.append(ReplyStarted(self.sample, turn.number, turn.spoken))
            if not turn.understood:
                return
            if not turn.joined:
                self._join(turn, step)
            self._go_on(turn, step)
            if turn.number in self._turns and turn.finished:
                self.end(turn, "done", step)
            if turn.number in self._turns:
                return

    def _join(self, turn: TurnState, step: Step) -> None:
        """What was said becomes part of the conversation."""
        turn.joined = True
        concepts = turn.concepts()
        texts = tuple(t for piece in range(turn.pieces) for t in (turn.encoded[piece].texts or ()))
        known = texts if turn.source != "speech" else None
        self.conversation.said(turn.number, turn.role, concepts, known, turn.language)
        if len(concepts):
            step.events.append(ConceptsKnown(self.sample, turn.number, turn.role, 0, concepts, turn.language))
        if turn.source == "text":
            event = Heard(self.sample, turn.number, " ".join(texts), turn.language, paraphrase=False)
            step.events.append(event)
        if known is not None or not len(concepts):
            turn.heard = "yes"

    def _go_on(self, turn: TurnState, step: Step) -> None:
        if turn.thinking != "no":
            return
        if self._reads_words(turn) and turn.heard != "yes":
            self._ask_words(turn, step)
        elif turn.superseded:
            self.end(turn, "interrupted", step)
        elif not turn.wants_reply or (turn.source != "none" and not len(turn.concepts())):
            turn.thinking = "over"
            self._end_reply(turn, "done", step)
            self._ask_words(turn, step)
        else:
            self._think(turn, step)

    def _reads_words(self, turn: TurnState) -> bool:
        """Whether whoever answers needs to know what was said in words."""
        return self.options.words_first and turn.task == "converse"

    def _think(self, turn: TurnState, step: Step) -> None:
        turn.thinking = "asked"
        settings = self.settings
        step.requests.append(
            Think(
                self._next_request(),
                turn.number,
                self._context(turn),
                turn.task,
                turn.reply_language,
                instructions=settings.instructions if turn.instructions is None else turn.instructions,
                temperature=settings.temperature if turn.temperature is None else turn.temperature,
            )
        )

    def _context(self, turn: TurnState) -> tuple[ContextEntry, ...]:
        if turn.task == "converse":
            return self.conversation.view()
        if turn.source == "none":
            return self.conversation.unanswered()
        # Only this turn, and all of it: the conversation forgets what exceeds its bound.
        return tuple(ContextEntry(turn.number, ROLE_USER, concept, None, turn.language) for concept in turn.concepts())

    def _take_thought(self, turn: TurnState, item: Thought, step: Step) -> None:
        if item.last:
            turn.thinking = "over"
            self._end_reply_if_over(turn, step)
            self._ask_words(turn, step)
            return
        index = len(turn.sentences)
        turn.sentences.append(SentenceState(item.concept))
        if item.concept is not None:
            event = ConceptsKnown(self.sample, turn.number, "agent", index, item.concept[None], turn.reply_language)
            step.events.append(event)
        if item.text is not None:
            self._take_sentence(turn, index, item.text, step)
        else:
            assert item.concept is not None, "a thought without words carries its concept"
            step.requests.append(
                Decode(self._next_request(), turn.number, index, item.concept[None], turn.reply_language)
            )

    def _take_sentence(self, turn: TurnState, index: int, text: str, step: Step) -> None:
        sentence = turn.sentences[index]
        sentence.text = text
        step.events.append(ReplySentence(self.sample, turn.number, index, text, turn.reply_language))
        self.conversation.agent_said(turn.number, sentence.concept, text, turn.reply_language)
        if turn.spoken and text.strip():
            settings = self.settings
            step.requests.append(
                Speak(
                    self._next_request(),
                    turn.number,
                    index,
                    text,
                    turn.reply_language,
                    voice=settings.voice,
                    speed=settings.speed,
                )
            )
        else:
            sentence.finished = True
            self._end_reply_if_over(turn, step)
        self._ask_words(turn, step)  # after the sentence's voice: hearing back never delays the reply

    def _ask_words(self, turn: TurnState, step: Step) -> None:
        if turn.heard == "no":
            turn.heard = "asked"
            number, urgent = self._next_request(), self._reads_words(turn)
            step.requests.append(Decode(number, turn.number, None, turn.concepts(), turn.language, urgent=urgent))

    def _take_words(self, turn: TurnState, text: str, step: Step) -> None:
        turn.heard = "yes"
        self.conversation.user_words(turn.number, text)
        step.events.append(Heard(self.sample, turn.number, text, turn.language, paraphrase=True))

    def _take_voice(self, turn: TurnState, item: Voiced, step: Step) -> None:
        sentence = turn.sentences[item.index]
        if len(item.samples):
            start = self.timeline.give(turn.number, item.index, len(item.samples))
            step.events.append(ReplyAudio(self.sample, turn.number, item.index, start, item.samples))
        if item.last:
            sentence.finished = True
            self._end_reply_if_over(turn, step)

    # Ends

    def _end_reply_if_over(self, turn: TurnState, step: Step) -> None:
        if turn.replied:
            self._end_reply(turn, "done", step)

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
