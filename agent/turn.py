"""Turn machine: ordered inputs in, domain events and requests out. The pure core of the agent.

Receives audio frames with speech probabilities, typed text, playback positions and the results of its own
requests, each with its place on the one clock (samples). Gives what happened and what is to be computed next.
Knows no wall clock, no tasks, no devices and no models: the same inputs give the same events, anywhere.

    speech ─ Segmenter ─ utterance ─ EncodeSpeech ┐
    typed text ─────────────────────── EncodeText ┴ Think ─ Decode ─ Speak

Turns are understood as they come and answered one after the other. A piece cut only because it grew too long
leaves a conversation's turn open (nobody answers mid-sentence); an interpreter answers each piece at once.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from agent.context import ROLE_AGENT, ROLE_USER, Conversation
from agent.events import (
    DomainEvent,
    Heard,
    LanguageIdentified,
    ReplyAudio,
    ReplySentence,
    ReplyTruncated,
    SessionEnded,
    TurnCommitted,
    TurnEnd,
    TurnEnded,
    UserPaused,
    UserResumed,
    UserStarted,
    UtteranceTaken,
    Warned,
)
from agent.inputs import (
    AudioInput,
    CancelTurn,
    ContextEntry,
    Decode,
    Decoded,
    Encoded,
    EncodeSpeech,
    EncodeText,
    Input,
    InputEnded,
    Interrupted,
    PlaybackPosition,
    Request,
    SettingsChanged,
    Speak,
    Think,
    Thought,
    TypedText,
    Voiced,
    WorkFailed,
)
from agent.reply_timeline import ReplyTimeline, SpokenSentence
from agent.turn_options import TurnOptions
from agent.turn_state import SentenceState, TurnState
from audio.frames import SAMPLE_RATE, VOICE_RATE, AudioFrame
from audio.segmenter import Segmenter, SoftPause, SpeechResumed, SpeechStarted, Utterance


@dataclass(frozen=True, slots=True)
class Step:
    """What one input led to."""

    events: list[DomainEvent] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)


class TurnMachine:
    """One session's state. `push` takes the next input; inputs must come in the order they took effect."""

    def __init__(self, options: TurnOptions) -> None:
        self.options = options
        self.conversation = Conversation(options.max_context_sentences)
        self._segmenter = Segmenter(options.segmenter)
        self._settings = SettingsChanged(0, options.language, options.reply_language, options.task, options.candidates)
        self._turns: OrderedDict[int, TurnState] = OrderedDict()
        self._open: TurnState | None = None
        self._sample = 0
        self._last_turn = 0
        self._last_request = 0
        self._timeline = ReplyTimeline()
        self._deaf_until = 0
        self._input_ended = False
        self._ended = False

    @property
    def ended(self) -> bool:
        """True once `SessionEnded` has been given."""
        return self._ended

    @property
    def sample(self) -> int:
        """The clock."""
        return self._sample

    def push(self, item: Input) -> Step:
        """Takes one input and says what follows from it."""
        step = Step()
        self._sample = max(self._sample, item.at_sample)
        match item:
            case AudioInput():
                self._hear_frame(item, step)
            case TypedText():
                self._take_text(item, step)
            case SettingsChanged():
                self._settings = item
            case PlaybackPosition():
                self._move_playback(item)
            case Interrupted():
                self._interrupt(step)
            case InputEnded():
                self._end_input(step)
            case Encoded() | Thought() | Decoded() | Voiced() | WorkFailed():
                self._take_result(item, step)
        self._advance(step)
        return step

    # Listening

    def _hear_frame(self, item: AudioInput, step: Step) -> None:
        samples, probability = item.samples, item.probability
        if self.options.half_duplex and self._deaf():
            samples, probability = np.zeros_like(samples), 0.0
        for event in self._segmenter.push(AudioFrame(samples, item.start_sample), probability):
            self._segment(event, step)

    def _deaf(self) -> bool:
        return self._sample < self._deaf_until

    def _segment(self, event: SpeechStarted | SoftPause | SpeechResumed | Utterance, step: Step) -> None:
        match event:
            case SpeechStarted():
                step.events.append(UserStarted(self._sample, event.start_sample))
                if self.options.interruptible:
                    self._interrupt(step)
            case SoftPause():
                step.events.append(UserPaused(self._sample, event.utterance.end_sample))
            case SpeechResumed():
                step.events.append(UserResumed(self._sample))
            case Utterance():
                self._take_utterance(event, step)

    def _take_utterance(self, utterance: Utterance, step: Step) -> None:
        turn = self._open or self._begin("speech", step)
        piece = turn.pieces
        turn.pieces += 1
        step.events.append(
            UtteranceTaken(
                self._sample,
                turn.number,
                piece,
                utterance.start_sample,
                utterance.end_sample,
                utterance.reason,
            )
        )
        number = self._next_request()
        step.requests.append(
            EncodeSpeech(number, turn.number, piece, utterance.samples, turn.language, candidates=turn.candidates)
        )
        goes_on = utterance.reason == "maximum" and turn.task == "converse"
        if goes_on and turn.pieces < self.options.max_pieces and not self._input_ended:
            self._open = turn
        else:
            self._commit(turn, step)

    def _take_text(self, item: TypedText, step: Step) -> None:
        turn = self._begin("text", step, item.language)
        turn.pieces = 1
        step.requests.append(EncodeText(self._next_request(), turn.number, 0, item.text, turn.language))
        self._commit(turn, step)

    def _begin(self, source: Literal["speech", "text"], step: Step, language: str | None = None) -> TurnState:
        while len(self._turns) >= self.options.max_waiting_turns:
            # The second oldest gives way: the oldest is being answered.
            waiting = list(self._turns.values())[1 if len(self._turns) > 1 else 0]
            message = "the machine is slower than the conversation; an older turn was dropped"
            step.events.append(Warned(self._sample, "think", message))
            self._end(waiting, "dropped", step)
        self._last_turn += 1
        settings = self._settings
        candidates = settings.candidates if source == "speech" else ()
        language = language or settings.language
        turn = TurnState(self._last_turn, source, language, settings.reply_language, settings.task, candidates)
        self._turns[turn.number] = turn
        return turn

    def _commit(self, turn: TurnState, step: Step) -> None:
        turn.committed = True
        if self._open is turn:
            self._open = None
        language = "" if turn.candidates else turn.language
        reply_language = turn.reply_to or language
        step.events.append(TurnCommitted(self._sample, turn.number, turn.source, language, reply_language, turn.task))

    def _end_input(self, step: Step) -> None:
        self._input_ended = True
        for event in self._segmenter.flush():
            self._segment(event, step)
        if self._open is not None:
            self._commit(self._open, step)

    # Answering

    def _take_result(self, item: Encoded | Thought | Decoded | Voiced | WorkFailed, step: Step) -> None:
        turn = self._turns.get(item.turn)
        if turn is None:  # interrupted or dropped meanwhile: nobody waits for it
            return
        match item:
            case Encoded():
                self._take_concepts(turn, item, step)
            case Thought():
                self._take_thought(turn, item, step)
            case Decoded() if item.index is None:
                self._take_words(turn, item.text, step)
            case Decoded(index=int(index)):
                self._take_sentence(turn, index, item.text, step)
            case Voiced():
                self._take_voice(turn, item, step)
            case WorkFailed():
                step.events.append(Warned(self._sample, item.stage, item.message))
                if item.stage == "hear" and not self.options.words_first:
                    turn.heard = "yes"  # nothing but the words to show are missing
                else:
                    self._end(turn, "failed", step)

    def _take_concepts(self, turn: TurnState, item: Encoded, step: Step) -> None:
        turn.encoded[item.piece] = item
        # The first piece decides: another follows only one that was cut at the greatest length, and is not longer.
        if turn.candidates and item.piece == 0:
            assert item.language is not None, "whoever is asked which language it is says so"
            assert item.probability is not None, "and how sure that is"
            turn.language, turn.candidates = item.language, ()
            step.events.append(
                LanguageIdentified(self._sample, turn.number, turn.language, turn.reply_language, item.probability)
            )

    def _advance(self, step: Step) -> None:
        """Starts what has become possible: only the oldest turn is answered."""
        while self._turns:
            turn = next(iter(self._turns.values()))
            if not turn.understood:
                break
            if turn.heard == "no" and turn.thinking == "no":
                self._start_answer(turn, step)
            elif self.options.words_first and turn.heard == "yes" and turn.thinking == "no":
                self._think(turn, step)
            if turn.number in self._turns and turn.finished:
                self._end(turn, "done", step)
            if turn.number in self._turns:
                break
        if self._input_ended and not self._turns and not self._ended:
            self._ended = True
            step.events.append(SessionEnded(self._sample, self._last_turn))

    def _start_answer(self, turn: TurnState, step: Step) -> None:
        texts = tuple(t for piece in range(turn.pieces) for t in (turn.encoded[piece].texts or ()))
        known = texts if turn.source == "text" else None
        self.conversation.user_said(turn.number, turn.concepts(), known, turn.language)
        if known is not None:
            turn.heard = "yes"
            event = Heard(self._sample, turn.number, " ".join(known), turn.language, paraphrase=False)
            step.events.append(event)
        if not len(turn.concepts()):
            turn.heard, turn.thinking = "yes", "over"
        elif self.options.words_first and turn.heard == "no":
            self._ask_words(turn, step)
        else:
            self._think(turn, step)

    def _think(self, turn: TurnState, step: Step) -> None:
        if turn.superseded:
            self._end(turn, "interrupted", step)
            return
        turn.thinking = "asked"
        if turn.task == "converse":
            context = self.conversation.view()
        else:  # only this turn, and all of it: the conversation forgets what exceeds its bound
            context = tuple(
                ContextEntry(turn.number, ROLE_USER, concept, None, turn.language) for concept in turn.concepts()
            )
        step.requests.append(Think(self._next_request(), turn.number, context, turn.task, turn.reply_language))

    def _take_thought(self, turn: TurnState, item: Thought, step: Step) -> None:
        if item.last:
            turn.thinking = "over"
            self._ask_words(turn, step)
            return
        index = len(turn.sentences)
        turn.sentences.append(SentenceState(item.concept))
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
        step.events.append(ReplySentence(self._sample, turn.number, index, text, turn.reply_language))
        self.conversation.agent_said(turn.number, sentence.concept, text, turn.reply_language)
        if self.options.spoken_reply and text.strip():
            step.requests.append(Speak(self._next_request(), turn.number, index, text, turn.reply_language))
        else:
            sentence.finished = True
        self._ask_words(turn, step)  # after the sentence's voice: hearing back never delays the reply

    def _ask_words(self, turn: TurnState, step: Step) -> None:
        if turn.heard == "no":
            turn.heard = "asked"
            words = Decode(
                self._next_request(),
                turn.number,
                None,
                turn.concepts(),
                turn.language,
                urgent=self.options.words_first,
            )
            step.requests.append(words)

    def _take_words(self, turn: TurnState, text: str, step: Step) -> None:
        turn.heard = "yes"
        self.conversation.user_words(turn.number, text)
        step.events.append(Heard(self._sample, turn.number, text, turn.language, paraphrase=True))

    def _take_voice(self, turn: TurnState, item: Voiced, step: Step) -> None:
        sentence = turn.sentences[item.index]
        if len(item.samples):
            start = self._timeline.give(len(item.samples))
            if sentence.end_sample == 0:
                sentence.start_sample = start
            sentence.end_sample = start + len(item.samples)
            step.events.append(ReplyAudio(self._sample, turn.number, item.index, start, item.samples))
            self._close_microphone()
        if item.last:
            sentence.finished = True
            if self.options.interruptible:
                spoken = SpokenSentence(turn.number, sentence.start_sample, sentence.end_sample)
                self._timeline.await_hearing(spoken)

    # Playback and interruption

    def _move_playback(self, item: PlaybackPosition) -> None:
        self._timeline.move(item.heard_sample)
        self._close_microphone()

    def _close_microphone(self) -> None:
        """Deaf for as long as what was emitted still sounds; reckoned anew with every position heard."""
        if self._timeline.sounding:
            sounding = self._timeline.sounding * SAMPLE_RATE // VOICE_RATE
            self._deaf_until = self._sample + sounding + self.options.echo_guard_ms * SAMPLE_RATE // 1000

    def _interrupt(self, step: Step) -> None:
        answering = [turn for turn in self._turns.values() if turn.thinking != "no"]
        concerned = dict.fromkeys([*self._timeline.unheard_turns, *(turn.number for turn in answering)])
        cut = self._timeline.sounding > 0
        for number in concerned:
            kept = self._heard_sentences(number)
            self.conversation.keep_heard(number, kept)
            if cut:
                step.events.append(ReplyTruncated(self._sample, number, self._timeline.heard, kept))
        for turn in self._turns.values():
            turn.superseded = turn.committed and turn.thinking == "no"
        for turn in answering:
            self._end(turn, "interrupted", step)
        self._timeline.cut()
        self._deaf_until = min(self._deaf_until, self._sample)

    def _heard_sentences(self, number: int) -> int:
        """How many sentences of a reply came to be heard, the last of them at least by half; or to be read."""
        turn = self._turns.get(number)
        if turn is not None and not self.options.spoken_reply:
            return sum(sentence.text is not None for sentence in turn.sentences)
        if turn is not None:
            sounded = [(index, s) for index, s in enumerate(turn.sentences) if s.end_sample]
            heard = [index for index, s in sounded if self._timeline.half_heard(s.start_sample, s.end_sample)]
            return heard[-1] + 1 if heard else 0  # one without a sound goes with those around it
        said = sum(e.turn == number and e.role == ROLE_AGENT for e in self.conversation.view())
        return max(0, said - self._timeline.missed(number))  # the context may have forgotten some already

    def _end(self, turn: TurnState, status: TurnEnd, step: Step) -> None:
        del self._turns[turn.number]
        if self._open is turn:
            self._open = None
        if status != "done":
            step.requests.append(CancelTurn(turn.number))
        step.events.append(TurnEnded(self._sample, turn.number, status))

    def _next_request(self) -> int:
        self._last_request += 1
        return self._last_request
