"""Answering: turns and results of requests in; what is computed for them next, and what came of it, out. Pure.

    utterance ─ EncodeSpeech ┐
    text ──────── EncodeText ┴ (joins the conversation) ─ Think ─ Decode ─ Speak

Turns are understood as they come and answered one after the other, in the order they were committed. A turn
nobody wants a reply to only joins the conversation. Knows nothing of whether what it does is speculation: `fork`
gives another that goes its own way.
"""

from agent.core.context import ROLE_USER
from agent.core.events import (
    ConceptsKnown,
    Heard,
    LanguageIdentified,
    ReplyAudio,
    ReplySentence,
    ReplyStarted,
    Warned,
)
from agent.core.inputs import (
    ContextEntry,
    Decode,
    Decoded,
    Encoded,
    Result,
    Speak,
    Think,
    Thought,
    Voiced,
    WorkFailed,
)
from agent.core.open_turns import OpenTurns
from agent.core.turn_state import SentenceState, Step, TurnState


class Answering(OpenTurns):
    """The open turns, and how they are answered."""

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
                seed=self.options.seed + turn.number,
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

    def _end_reply_if_over(self, turn: TurnState, step: Step) -> None:
        if turn.replied:
            self._end_reply(turn, "done", step)
