"""Domain events: what the turn machine says happened. Knows nothing of wires, devices or models.

Every event carries `at_sample`, the position on the one clock (input samples at 16 kHz) at which it took
effect. No event carries a measured time: two runs over the same inputs give the same events.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Task = Literal["converse", "translate", "transcribe"]
TurnEnd = Literal["done", "interrupted", "failed", "dropped"]


@dataclass(frozen=True, slots=True)
class UserStarted:
    """Someone began to speak."""

    at_sample: int
    start_sample: int


@dataclass(frozen=True, slots=True)
class UserPaused:
    """A pause that may turn out to be the end of the utterance."""

    at_sample: int
    end_sample: int


@dataclass(frozen=True, slots=True)
class UserResumed:
    """The pause was not the end: speech goes on."""

    at_sample: int


@dataclass(frozen=True, slots=True)
class UtteranceTaken:
    """One stretch of speech went to be understood. A turn holds one or more."""

    at_sample: int
    turn: int
    piece: int
    start_sample: int
    end_sample: int
    reason: str


@dataclass(frozen=True, slots=True)
class TurnCommitted:
    """The user's turn is complete: a reply is due."""

    at_sample: int
    turn: int
    source: Literal["speech", "text"]
    language: str
    """Empty while it is to be found out, as is a `reply_language` that depends on it: `LanguageIdentified` tells."""
    reply_language: str
    task: Task


@dataclass(frozen=True, slots=True)
class LanguageIdentified:
    """It was found out which of the session's languages the turn is spoken in, and so which the reply will be in."""

    at_sample: int
    turn: int
    language: str
    reply_language: str
    probability: float
    """How sure that is among the languages that were possible, 0..1."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the concepts of a turn say in the speaker's language.

    For speech this is a paraphrase (the concept decoded back), not a transcript.
    """

    at_sample: int
    turn: int
    text: str
    language: str
    paraphrase: bool


@dataclass(frozen=True, slots=True)
class ReplySentence:
    """One sentence of the reply."""

    at_sample: int
    turn: int
    index: int
    text: str
    language: str


@dataclass(frozen=True, slots=True, eq=False)
class ReplyAudio:
    """A stretch of the spoken reply."""

    at_sample: int
    turn: int
    index: int
    start_sample: int
    """Position on the reply timeline, 24 kHz."""
    samples: FloatArray
    """[T] at 24 kHz."""


@dataclass(frozen=True, slots=True)
class ReplyTruncated:
    """The user interrupted: playback is to stop, and only what was heard stays in the conversation."""

    at_sample: int
    turn: int
    heard_sample: int
    """Position on the reply timeline up to which it was heard."""
    kept_sentences: int


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """Nothing more comes of this turn."""

    at_sample: int
    turn: int
    status: TurnEnd


@dataclass(frozen=True, slots=True)
class Warned:
    """Something went wrong that the session survives; the message says what to do."""

    at_sample: int
    stage: str
    message: str


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The last event of a session."""

    at_sample: int
    turns: int


DomainEvent = (
    UserStarted
    | UserPaused
    | UserResumed
    | UtteranceTaken
    | TurnCommitted
    | LanguageIdentified
    | Heard
    | ReplySentence
    | ReplyAudio
    | ReplyTruncated
    | TurnEnded
    | Warned
    | SessionEnded
)
