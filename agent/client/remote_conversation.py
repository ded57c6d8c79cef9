"""Remote conversation: what a server elsewhere says of a session, as the events a local one would give. Pure.

Wire messages in, domain events out, for the screen and the loudspeaker that a local session has; and a position of the
loudspeaker in, as the message that tells the server. Every reply is a turn, numbered here, answering the utterances in
the order they were committed. Knows no socket and no device.
"""

import base64
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from agent.core.events import (
    DomainEvent,
    Heard,
    LanguageIdentified,
    ReplyAudio,
    ReplySentence,
    ReplyTruncated,
    TurnCommitted,
    TurnEnd,
    TurnEnded,
    UserStarted,
    UtteranceTaken,
    Warned,
)
from audio.frames import SAMPLE_RATE, VOICE_RATE, from_pcm16

Message = dict[str, Any]
_TRANSCRIPTION = "conversation.item.input_audio_transcription."
_KEPT = 64


@dataclass(slots=True, eq=False)
class _Turn:
    """An utterance and the reply to it."""

    number: int
    language: str
    reply_language: str
    heard: bool = False
    status: TurnEnd | None = None
    latency: bool = True
    """Whether it is known, or will not be"""
    sentences: int = 0
    ended: bool = False

    @property
    def complete(self) -> bool:
        """Whether nothing more comes of it."""
        return self.heard and self.status is not None and self.latency


@dataclass(slots=True)
class _Sound:
    """The sound of one item."""

    item_id: str
    start_sample: int
    """On the reply timeline"""
    samples: int = 0


@dataclass(slots=True)
class _Named:
    """What the server's names stand for here."""

    users: dict[str, _Turn] = field(default_factory=dict)
    """By item"""
    replies: dict[str, _Turn] = field(default_factory=dict)
    """By response"""
    unanswered: deque[_Turn] = field(default_factory=lambda: deque(maxlen=_KEPT))


class RemoteConversation:
    """One client's view of its session. `measured` takes what the server measured: turn, stage, milliseconds."""

    def __init__(self, measured: Callable[[int, str, float], None] = lambda turn, stage, milliseconds: None) -> None:
        self._measured = measured
        self._turns = 0
        self._sample = 0
        self._given = 0
        """End of the reply timeline"""
        self._language = self._reply_language = ""
        self._interruptible = True
        """Whether speech stops a reply: an interpreter speaks on"""
        self._named = _Named()
        self._sounds: deque[_Sound] = deque(maxlen=_KEPT)

    def at(self, sample: int) -> None:
        """The clock: so many samples were taken from the microphone."""
        self._sample = sample

    def take(self, message: Message) -> list[DomainEvent]:
        """What a message of the server means here."""
        kind: str = message["type"]
        if kind.startswith("session."):
            return list(self._session(message))
        if kind.startswith("input_audio_buffer."):
            return list(self._listened(message))
        if kind.startswith(_TRANSCRIPTION):
            return list(self._transcribed(message))
        if kind.startswith("response."):
            return list(self._replied(message))
        return list(self._remarked(message))

    def playback(self, position: int) -> Message | None:
        """The message that tells how much has been heard, by a position on the reply timeline; None: of nothing."""
        for sound in reversed(self._sounds):
            if sound.start_sample <= position:
                heard = min(position - sound.start_sample, sound.samples)
                audio_ms = heard * 1000 // VOICE_RATE
                return {"type": "noema.playback", "item_id": sound.item_id, "audio_ms": audio_ms}
        return None

    def _session(self, message: Message) -> Iterator[DomainEvent]:
        if message["type"] == "session.created":  # the items of one before are forgotten, and so are its turns
            self._named = _Named()
            self._sounds.clear()
            yield ReplyTruncated(self._sample, self._turns, self._given, 0)
        session = message["session"]
        self._interruptible = bool((session["audio"]["input"]["turn_detection"] or {}).get("interrupt_response"))
        noema = session.get("noema") or {}
        self._language = noema.get("language") or self._language
        self._reply_language = noema.get("reply_language") or ""

    def _listened(self, message: Message) -> Iterator[DomainEvent]:
        match message["type"].removeprefix("input_audio_buffer."):
            case "speech_started":
                yield UserStarted(self._sample, message["audio_start_ms"] * SAMPLE_RATE // 1000)
                if self._interruptible:
                    yield ReplyTruncated(self._sample, self._turns, self._given, 0)
            case "speech_stopped":
                end = message["audio_end_ms"] * SAMPLE_RATE // 1000
                yield UtteranceTaken(self._sample, self._turns + 1, 0, end, end, "silence")
            case "committed":
                turn = self._begin()
                _keep(self._named.users, message["item_id"], turn)
                self._named.unanswered.append(turn)
                yield TurnCommitted(self._sample, turn.number, "speech", turn.language, turn.reply_language, "converse")

    def _begin(self) -> _Turn:
        self._turns += 1
        return _Turn(self._turns, self._language, self._reply_language or self._language)

    def _transcribed(self, message: Message) -> Iterator[DomainEvent]:
        turn = self._named.users.get(message["item_id"])
        if turn is None or message["type"].endswith(".delta"):
            return
        turn.heard = True
        text = message.get("transcript", "")
        if text:
            yield Heard(self._sample, turn.number, text, turn.language, paraphrase=True)
        yield from self._end(turn)

    def _replied(self, message: Message) -> Iterator[DomainEvent]:
        kind = message["type"].removeprefix("response.")
        if kind == "created":
            yield from self._answer(message["response"]["id"])
            return
        turn = self._named.replies.get(message.get("response_id") or message["response"]["id"])
        if turn is None:
            return
        match kind:
            case "output_audio_transcript.delta" | "output_text.delta":
                number, turn.sentences = turn.sentences, turn.sentences + 1
                text = message["delta"].strip()
                yield ReplySentence(self._sample, turn.number, number, text, turn.reply_language)
            case "output_audio.delta":
                yield self._sounded(turn, message)
            case "done":
                yield from self._done(turn, message["response"])

    def _answer(self, response_id: str) -> Iterator[DomainEvent]:
        """A reply begins, to the oldest utterance that has none; or to nothing, when the agent speaks up."""
        for earlier in [turn for turn in self._named.replies.values() if turn.status is not None]:
            yield from self._end(earlier, anyway=True)
        turn = self._named.unanswered.popleft() if self._named.unanswered else self._begin()
        turn.heard |= turn not in self._named.users.values()
        _keep(self._named.replies, response_id, turn)

    def _sounded(self, turn: _Turn, message: Message) -> ReplyAudio:
        samples = from_pcm16(np.frombuffer(base64.b64decode(message["delta"]), dtype="<i2"))
        if not self._sounds or self._sounds[-1].item_id != message["item_id"]:
            self._sounds.append(_Sound(message["item_id"], self._given))
        start = self._given
        self._given += len(samples)
        self._sounds[-1].samples += len(samples)
        return ReplyAudio(self._sample, turn.number, max(0, turn.sentences - 1), start, samples)

    def _done(self, turn: _Turn, response: Message) -> Iterator[DomainEvent]:
        details = response.get("status_details") or {}
        turn.status = _status(response["status"], details)
        turn.latency = not response["output"]
        if turn.status == "failed":
            yield Warned(self._sample, "reply", (details.get("error") or {}).get("message", "it failed"))
        yield from self._end(turn)

    def _end(self, turn: _Turn, *, anyway: bool = False) -> Iterator[DomainEvent]:
        if not turn.ended and (turn.complete or anyway):
            turn.ended = True
            yield TurnEnded(self._sample, turn.number, turn.status or "done")

    def _remarked(self, message: Message) -> Iterator[DomainEvent]:
        match message["type"]:
            case "noema.language":
                turn = self._named.users.get(message["item_id"])
                if turn is not None:
                    turn.language, turn.reply_language = message["language"], message["reply_language"]
                    yield LanguageIdentified(
                        self._sample, turn.number, turn.language, turn.reply_language, message["probability"]
                    )
            case "noema.latency":
                turn = self._named.replies.get(message["response_id"])
                if turn is not None:
                    for stage, milliseconds in message["ms"].items():
                        self._measured(turn.number, stage, milliseconds)
                    turn.latency = True
                    yield from self._end(turn)
            case "noema.warning":
                yield Warned(self._sample, message["code"], message["message"])
            case "error":
                yield Warned(self._sample, "server", message["error"]["message"])


def _status(status: str, details: Message) -> TurnEnd:
    if status == "cancelled":
        return "interrupted" if details.get("reason") == "turn_detected" else "cancelled"
    known: dict[str, Literal["done", "failed"]] = {"completed": "done"}
    return known.get(status, "failed")


def _keep(turns: dict[str, _Turn], name: str, turn: _Turn) -> None:
    turns[name] = turn
    while len(turns) > _KEPT:
        del turns[next(iter(turns))]
