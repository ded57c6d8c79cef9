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
TurnEnd = Literal["done", "interrupted", "cancelled", "failed", "dropped"]
"""interrupted: by speech; cancelled: by the client; dropped: the machine was too slow"""


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
class Speculated:
    """What became of a reply that was begun at a pause, before anyone knew whether it was the end."""

    at_sample: int
    turn: int
    """The number it has; another turn takes it if this one was not used"""
    begun_sample: int
    """The clock when the pause was noticed"""
    used: bool
    """False: speech went on, and nobody saw anything of it"""


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
    source: Literal["speech", "text", "none"]
    """none: nothing was said, a reply was asked for"""
    language: str
    """Empty while it is to be found out, as is a `reply_language` that depends on it: `LanguageIdentified` tells."""
    reply_language: str
    task: Task
    wants_reply: bool = True


@dataclass(frozen=True, slots=True)
class ContextAdded:
    """Something was added to the conversation that nobody answers."""

    at_sample: int
    turn: int
    role: Literal["user", "agent"]


@dataclass(frozen=True, slots=True)
class IdleTimedOut:
    """Nobody has spoken for long after a reply; the agent speaks up in a turn of its own."""

    at_sample: int
    turn: int
    start_sample: int
    """Where the silence began"""


@dataclass(frozen=True, slots=True, eq=False)
class ConceptsKnown:
    """What one side says, as concepts: the user's turn, or one sentence of the reply."""

    at_sample: int
    turn: int
    role: Literal["user", "agent"]
    index: int
    """Of the first of them among the sentences of its turn and role"""
    concepts: FloatArray
    """[N, D]"""
    language: str
    """Of who says it"""


@dataclass(frozen=True, slots=True)
class ReplyStarted:
    """A turn is being answered. One at a time."""

    at_sample: int
    turn: int
    spoken: bool


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """Nothing more comes of a reply that was started."""

    at_sample: int
    turn: int
    status: TurnEnd


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
    | Speculated
    | UtteranceTaken
    | TurnCommitted
    | ContextAdded
    | IdleTimedOut
    | ConceptsKnown
    | ReplyStarted
    | ReplyEnded
    | LanguageIdentified
    | Heard
    | ReplySentence
    | ReplyAudio
    | ReplyTruncated
    | TurnEnded
    | Warned
    | SessionEnded
)
