"""Hearing: what the user says, on the wire: speech begins and ends, becomes an item, and is told in words.

    speech_started → speech_stopped → committed → item.added → item.done      (transcription: when it is known)

An interpreter's utterance that was cut for length is followed by another without a pause: both are told as speech
that began and ended. When the client itself says who speaks, only what was committed is told. Knows nothing of replies.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from agent.core.events import IdleTimedOut, TurnEnd, UtteranceTaken
from agent.realtime.items import Item, Items, Sentence
from agent.realtime.server_events import (
    BufferCommitted,
    DurationUsage,
    ItemAdded,
    ItemDone,
    ServerEvent,
    SpeechStarted,
    SpeechStopped,
    TimeoutTriggered,
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionError,
    TranscriptionFailed,
)
from audio.frames import SAMPLE_RATE

SAMPLES_PER_MS = SAMPLE_RATE // 1000


@dataclass(slots=True)
class Speech:
    """What is being said and is no item yet."""

    item_id: str
    announced: bool
    """Whether the client knows that it began"""
    turn: int | None = None
    """Once an utterance of it was taken"""
    end_sample: int = 0
    samples: int = 0


class Hearing:
    """One session's ear, as the client sees it. Methods give the events that follow."""

    def __init__(self, items: Items) -> None:
        self._items = items
        self.buffered = 0
        """Samples at 16 kHz since the last commit or clear"""
        self.begun = False
        """Whether anything was heard at all"""
        self._speech: Speech | None = None
        self._untold: list[int] = []
        """Spoken turns whose words are still to come"""

    def started(self, start_sample: int) -> Iterator[ServerEvent]:
        """Someone began to speak."""
        if self._speech is None:
            self._speech = Speech(self._items.new_id(), announced=True)
            yield SpeechStarted(audio_start_ms=start_sample // SAMPLES_PER_MS, item_id=self._speech.item_id)

    def taken(self, event: UtteranceTaken, *, by_hand: bool) -> Iterator[ServerEvent]:
        """A stretch of it went to be understood."""
        if self._speech is None and by_hand:
            self._speech = Speech(self._items.new_id(), announced=False)
        yield from self.started(event.start_sample)
        speech = self._speech
        assert speech is not None, "it was begun above"
        speech.turn, speech.end_sample = event.turn, event.end_sample
        speech.samples += event.end_sample - event.start_sample

    def committed(self, turn: int) -> Iterator[ServerEvent]:
        """What was said is a turn."""
        speech = self._speech or Speech(self._items.new_id(), announced=False)
        yield from self.stopped(speech.end_sample)
        self.buffered = 0
        self._untold.append(turn)
        yield from self._commit(speech.item_id, turn, speech.samples)

    def stopped(self, end_sample: int) -> Iterator[ServerEvent]:
        """Nobody speaks any more; what was said and became no item is forgotten."""
        speech, self._speech = self._speech, None
        if speech is not None and speech.announced:
            yield SpeechStopped(audio_end_ms=end_sample // SAMPLES_PER_MS, item_id=speech.item_id)

    def timed_out(self, event: IdleTimedOut) -> Iterator[ServerEvent]:
        """Nobody said anything for long: the silence becomes an item, as OpenAI's server has it."""
        item_id = self._items.new_id()
        yield TimeoutTriggered(
            audio_start_ms=event.start_sample // SAMPLES_PER_MS,
            audio_end_ms=event.at_sample // SAMPLES_PER_MS,
            item_id=item_id,
        )
        self.buffered = 0
        yield from self._commit(item_id, event.turn, 0)

    def told(self, turn: int, text: str, *, wanted: bool) -> Iterator[ServerEvent]:
        """What was heard, in words."""
        item = self._items.of(turn, "user")
        if turn not in self._untold:
            return  # it was typed
        self._untold.remove(turn)
        if item is None:
            return
        item.sentences = {0: Sentence(text)}
        if wanted:
            if text:
                yield TranscriptionDelta(item_id=item.id, delta=text)
            usage = DurationUsage(seconds=item.samples / SAMPLE_RATE)
            yield TranscriptionCompleted(item_id=item.id, transcript=text, usage=usage)

    def turn_ended(self, turn: int, status: TurnEnd, *, at_sample: int, wanted: bool) -> Iterator[ServerEvent]:
        """Nothing more comes of a turn: words that were not told will not be."""
        speech = self._speech
        if speech is not None and speech.turn == turn:
            yield from self.stopped(at_sample)
        if turn not in self._untold:
            return
        if status == "done":  # nothing was understood
            yield from self.told(turn, "", wanted=wanted)
            return
        self._untold.remove(turn)
        item = self._items.of(turn, "user")
        if item is not None and wanted:
            error = TranscriptionError(code=f"turn_{status}", message="the turn ended before it was put into words")
            yield TranscriptionFailed(item_id=item.id, error=error)

    def _commit(self, item_id: str, turn: int, samples: int) -> Iterator[ServerEvent]:
        item = Item(item_id, "user", "audio", samples=samples)
        previous = self._items.add(item)
        self._items.bind(item, turn)
        yield BufferCommitted(previous_item_id=previous, item_id=item_id)
        yield ItemAdded(previous_item_id=previous, item=item.shown())
        yield ItemDone(previous_item_id=previous, item=item.shown())
