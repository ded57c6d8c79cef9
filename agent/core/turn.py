"""Turn machine: ordered inputs in, domain events and requests out. The pure core of the agent.

Receives audio frames with speech probabilities, typed text, playback positions, what a client asks for, and the
results of its own requests, each with its place on the one clock (samples). Gives what happened and what is to be
computed next. Knows no wall clock, no tasks, no devices and no models: the same inputs give the same events, anywhere.

    frames ─ Ear ─ utterances ─┐
    text, commits, requests ───┴ Answering ─ events, requests
                 soft pauses ─ Speculation ┘ (a fork of it)

A piece cut only because it grew too long leaves a conversation's turn open (nobody answers mid-sentence); an
interpreter answers each piece at once.
"""

from agent.core.answering import Answering
from agent.core.context import Conversation
from agent.core.ear import Ear
from agent.core.events import (
    IdleTimedOut,
    ReplyTruncated,
    SessionEnded,
    Speculated,
    UserPaused,
    UserResumed,
    UserStarted,
    Warned,
)
from agent.core.inputs import (
    AudioCleared,
    AudioCommitted,
    AudioInput,
    Command,
    Input,
    InputEnded,
    PlaybackPosition,
    ReplyRequested,
    Result,
    SettingsChanged,
)
from agent.core.speculation import Speculation
from agent.core.turn_options import TurnOptions
from agent.core.turn_state import Step, TurnState
from audio.frames import SAMPLE_RATE, VOICE_RATE
from audio.segmenter import SegmentEvent, SoftPause, SpeechResumed, SpeechStarted, Utterance

MANUAL_PIECES = 32
"""Utterances that one commit by hand may hold"""
PLAYBACK_PATIENCE = SAMPLE_RATE
"""Samples of a sounding reply without a position, after which a client that told positions counts as one that does not
"""


class TurnMachine:
    """One session's state. `push` takes the next input; inputs must come in the order they took effect."""

    def __init__(self, options: TurnOptions) -> None:
        self.options = options
        self._ear = Ear(options)
        self._answering = Answering(options)
        self._speculation: Speculation | None = None
        self._open: TurnState | None = None
        """The turn of speech that is not committed yet"""
        self._sample = 0
        self._deaf_until = 0
        self._playback_patience = 0
        """Samples for which a position is still waited for before playback is assumed"""
        self._idle_since: int | None = None
        """Since when nobody speaks; None where no reply has come since somebody did"""
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

    @property
    def conversation(self) -> Conversation:
        """What both sides have said."""
        return self._answering.conversation

    def take(self, item: Input) -> list[Step]:
        """What follows from an input, as a session asks for it."""
        return [self.push(item)]

    def push(self, item: Input) -> Step:
        """Takes one input and says what follows from it."""
        step = Step(item)
        self._sample = self._answering.sample = max(self._sample, item.at_sample)
        given = self._answering.timeline.given
        if isinstance(item, AudioInput):
            self._hear_frame(item, step)
        elif isinstance(item, InputEnded):
            self._end_input(step)
        elif isinstance(item, Command):
            self._obey(item, step)
        else:
            self._take_result(item, step)
        self._answering.advance(step)
        self._close_microphone()
        if self._answering.timeline.given > given:
            self._idle_since = self._sample
        if self._input_ended and self._answering.idle and not self._ended:
            self._ended = True
            step.events.append(SessionEnded(self._sample, self._answering.last_turn))
        return step

    # Listening

    def _hear_frame(self, item: AudioInput, step: Step) -> None:
        timeline = self._answering.timeline
        if self.options.assume_playback and timeline.sounding:
            self._assume_playback(len(item.samples))
        deaf = self.options.half_duplex and self._sample < self._deaf_until
        for event in self._ear.hear(item, deaf=deaf, sounding=self._interruptible and timeline.sounding > 0):
            self._segment(event, step)
        self._watch_idleness(step)

    def _assume_playback(self, samples: int) -> None:
        """Where nobody tells what is heard, or not any more, time does, from the last position on."""
        if self._playback_patience > 0:
            self._playback_patience -= samples
        else:
            self._answering.timeline.assume(samples * VOICE_RATE // SAMPLE_RATE)

    @property
    def _interruptible(self) -> bool:
        return self.options.interruptible and self._answering.settings.auto_interrupt

    def _segment(self, event: SegmentEvent, step: Step) -> None:
        match event:
            case SpeechStarted():
                self._idle_since = None
                step.events.append(UserStarted(self._sample, event.start_sample))
                if self._interruptible and not self._ear.manual:
                    self._interrupt(step)
            case SoftPause():
                step.events.append(UserPaused(self._sample, event.utterance.end_sample))
                if self._speculates:
                    self._speculation = Speculation(self._answering, event.utterance, step)
            case SpeechResumed():
                step.events.append(UserResumed(self._sample))
                self._discard_speculation(step)
            case Utterance():
                self._take_utterance(event, step)

    @property
    def _speculates(self) -> bool:
        paid = self.options.costly and self._answering.settings.task == "converse"
        return self.options.speculation and not paid and self._answering.idle and not self._ear.manual

    def _take_utterance(self, utterance: Utterance, step: Step) -> None:
        speculation = self._speculation
        if speculation is not None and speculation.holds_for(utterance):
            self._speculation = None
            step.events.append(Speculated(self._sample, speculation.turn, speculation.begun_sample, used=True))
            self._answering = speculation.adopt(self._answering, step)
            return
        self._discard_speculation(step)
        turn = self._open or self._answering.begin("speech", step)
        if self._ear.manual:
            self._take_piece(turn, utterance, step)
            return
        self._answering.take_utterance(turn, utterance, step)
        goes_on = utterance.reason == "maximum" and turn.task == "converse"
        if goes_on and turn.pieces < self.options.max_pieces and not self._input_ended:
            self._open = turn
        else:
            self._commit(turn, step)

    def _take_piece(self, turn: TurnState, utterance: Utterance, step: Step) -> None:
        """By hand, a pause ends nothing: what was said so far is understood meanwhile."""
        self._open = turn
        if turn.pieces < MANUAL_PIECES:
            self._answering.take_utterance(turn, utterance, step)
        else:
            message = f"more than {MANUAL_PIECES} utterances without a commit; the last was dropped"
            step.events.append(Warned(self._sample, "hear", message))

    def _commit(self, turn: TurnState, step: Step) -> None:
        self._open = None
        if self._answering.turn(turn.number) is not None:  # else it gave way to later ones
            self._answering.commit(turn, step)

    def _end_input(self, step: Step) -> None:
        self._input_ended = True
        for event in self._ear.commit():
            self._segment(event, step)
        self._discard_speculation(step)
        if self._open is not None:
            self._commit(self._open, step)

    def _watch_idleness(self, step: Step) -> None:
        """Speaks up when nobody has said anything for long after a reply."""
        answering, timeout_ms = self._answering, self._answering.settings.idle_timeout_ms
        if timeout_ms is None or self._idle_since is None or self._ear.manual:
            return
        if not answering.idle or answering.timeline.sounding or self._ear.speaking:
            self._idle_since = self._sample
        elif self._sample - self._idle_since >= timeout_ms * SAMPLE_RATE // 1000:
            start, self._idle_since = self._idle_since, None
            turn = answering.ask_reply(step, ReplyRequested(self._sample))
            step.events.append(IdleTimedOut(self._sample, turn.number, start))

    # What a client asks for

    def _obey(self, item: Command, step: Step) -> None:
        if not isinstance(item, PlaybackPosition):
            self._discard_speculation(step)  # it was begun on a conversation that is another now
        match item:
            case AudioCommitted():
                self._commit_audio(step)
            case AudioCleared():
                self._clear_audio(step)
            case SettingsChanged():
                self._answering.settings = item
                self._ear.change(item)
            case PlaybackPosition():
                self._playback_patience = PLAYBACK_PATIENCE
                self._answering.timeline.move(item.heard_sample)
            case _:
                self._answering.obey(item, step)

    def _commit_audio(self, step: Step) -> None:
        for event in self._ear.commit():
            self._segment(event, step)
        if self._open is not None:
            self._commit(self._open, step)

    def _clear_audio(self, step: Step) -> None:
        self._ear.clear()
        turn, self._open = self._open, None
        if turn is not None and self._answering.turn(turn.number) is not None:
            self._answering.end(turn, "cancelled", step)

    # Results, playback, interruption

    def _take_result(self, item: Result, step: Step) -> None:
        if self._speculation is not None:
            self._speculation.take(item, step)
        else:
            self._answering.take_result(item, step)

    def _discard_speculation(self, step: Step) -> None:
        speculation, self._speculation = self._speculation, None
        if speculation is not None:
            speculation.discard(self._answering, step)
            step.events.append(Speculated(self._sample, speculation.turn, speculation.begun_sample, used=False))

    def _close_microphone(self) -> None:
        """Deaf for as long as what was given out still sounds; reckoned anew with every position heard."""
        sounding = self._answering.timeline.sounding
        if sounding and self.options.half_duplex:
            guard = self.options.echo_guard_ms * SAMPLE_RATE // 1000
            self._deaf_until = self._sample + sounding * SAMPLE_RATE // VOICE_RATE + guard

    def _interrupt(self, step: Step) -> None:
        """Speech stops what is being answered, and what still sounds; only what was heard stays in the conversation."""
        answering, timeline = self._answering, self._answering.timeline
        under_way = [turn for turn in answering.turns if turn.thinking != "no" and turn.reply != "no"]
        concerned = dict.fromkeys([*timeline.unheard_turns, *(turn.number for turn in under_way)])
        cut = timeline.sounding > 0
        for number in concerned:
            kept = answering.keep_heard(number)
            if cut:
                step.events.append(ReplyTruncated(self._sample, number, timeline.heard, kept))
        for turn in answering.turns:
            if turn.committed and turn.wants_reply and turn.thinking == "no":
                answering.supersede(turn, step)
        for turn in under_way:
            answering.end(turn, "interrupted", step)
        timeline.cut()
        self._deaf_until = min(self._deaf_until, self._sample)
