"""Inputs of the turn machine and the requests it makes: all that can differ between two runs is an input.

A recorded session is the ordered list of these inputs. Requests go to the model worker and the voice; what
they answer comes back as an input with the sample at which it was applied.
"""

from dataclasses import dataclass
from typing import Literal

from agent.core.events import FloatArray, Task

Role = Literal["user", "agent"]
Detection = Literal["vad", "manual"]


@dataclass(frozen=True, slots=True, eq=False)
class AudioInput:
    """One 20 ms frame and how likely it is to hold speech."""

    start_sample: int
    samples: FloatArray
    """[320] at 16 kHz, on the 16-bit grid, so that a recording holds exactly what was heard."""
    probability: float

    @property
    def at_sample(self) -> int:
        """The clock once this frame has been received."""
        return self.start_sample + len(self.samples)


@dataclass(frozen=True, slots=True)
class InputEnded:
    """No more audio and no more text will come; what is under way is still finished."""

    at_sample: int


@dataclass(frozen=True, slots=True)
class TypedText:
    """Text typed by the user: a whole turn."""

    at_sample: int
    text: str
    language: str | None = None
    wants_reply: bool = True
    """False: it is understood and kept; `ReplyRequested` asks for the reply"""


@dataclass(frozen=True, slots=True)
class ContextGiven:
    """A sentence or more that either side is to have said before: kept, not answered."""

    at_sample: int
    role: Role
    text: str
    language: str | None = None


@dataclass(frozen=True, slots=True)
class ContextForgotten:
    """What one side said in a turn is to be forgotten."""

    at_sample: int
    turn: int
    role: Role


@dataclass(frozen=True, slots=True)
class AudioCommitted:
    """The speaker is done, says the client: what was heard since the last commit is a turn, silence or not."""

    at_sample: int


@dataclass(frozen=True, slots=True)
class AudioCleared:
    """What was heard and is no turn yet is to be forgotten."""

    at_sample: int


@dataclass(frozen=True, slots=True)
class ReplyRequested:
    """A reply is wanted now: to the turn that waits for one, or else to the conversation as it stands."""

    at_sample: int
    spoken: bool | None = None
    """None: as the settings say. So it is with the next two"""
    instructions: str | None = None
    """For a thinker that reads words, in the place of those of the settings"""
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class ReplyCancelled:
    """The reply under way is not wanted any more. What was given out of it may go on sounding."""

    at_sample: int


@dataclass(frozen=True, slots=True)
class ReplyHeard:
    """Playback was stopped: of the reply to a turn, so much has been heard."""

    at_sample: int
    turn: int
    samples: int
    """Counted from the reply's first, 24 kHz"""


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    """What holds for every turn that begins from here on."""

    at_sample: int
    language: str
    reply_language: str | None
    """None: the speaker's own."""
    task: Task
    candidates: tuple[str, ...] = ()
    """Languages that may be spoken, found out for each turn; empty: `language` is. Typed text is in `language`."""
    spoken: bool = True
    """False: replies in words only, voice or no voice"""
    detection: Detection = "vad"
    """manual: the client says when an utterance is over, by `AudioCommitted`"""
    auto_reply: bool = True
    """False: spoken turns are answered when `ReplyRequested` asks"""
    auto_interrupt: bool = True
    """False: speech does not stop a reply"""
    threshold: float | None = None
    """Probability at which speech begins; None: what suits the detector. So are the next three the session's own"""
    pre_roll_ms: int | None = None
    hangover_ms: int | None = None
    """Silence that ends an utterance; None: it adapts to the speaker, where the session lets it"""
    idle_timeout_ms: int | None = None
    """Silence after a reply that makes the agent speak up; None: never"""
    voice: str | None = None
    """Variant of the voice; None: the session's"""
    speed: float = 1.0
    """Of the voice"""
    instructions: str = ""
    """For a thinker that reads words"""
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class PlaybackPosition:
    """How much of the spoken reply has been heard."""

    at_sample: int
    heard_sample: int
    """Position on the reply timeline, 24 kHz."""


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Concepts of one piece of a turn."""

    at_sample: int
    request: int
    turn: int
    piece: int
    concepts: FloatArray
    """[N, D], one row per sentence."""
    texts: tuple[str, ...] | None
    """The sentences, where they were typed."""
    last: bool = True
    language: str | None = None
    """What is spoken, where that was to be found out"""
    probability: float | None = None
    """Of `language`, 0..1"""


@dataclass(frozen=True, slots=True, eq=False)
class Thought:
    """One concept (or one sentence) of the reply, or the end of thinking."""

    at_sample: int
    request: int
    turn: int
    concept: FloatArray | None
    """[D]"""
    text: str | None
    """Where the thinker answers in words, as `retrieve` and `openai` do."""
    last: bool
    """True: thinking is over and this holds nothing."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """The sentence a concept was decoded into."""

    at_sample: int
    request: int
    turn: int
    index: int | None
    """Sentence of the reply; None: what was heard."""
    text: str
    last: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Voiced:
    """A stretch of one spoken sentence."""

    at_sample: int
    request: int
    turn: int
    index: int
    samples: FloatArray
    """[T] at 24 kHz, on the 16-bit grid."""
    last: bool


@dataclass(frozen=True, slots=True)
class WorkFailed:
    """A request came to nothing."""

    at_sample: int
    request: int
    turn: int
    stage: str
    message: str
    last: bool = True
    """False: not to nothing, but not to what it should have; the rest of its results follows"""


Result = Encoded | Thought | Decoded | Voiced | WorkFailed
Command = (
    TypedText
    | ContextGiven
    | ContextForgotten
    | AudioCommitted
    | AudioCleared
    | ReplyRequested
    | ReplyCancelled
    | ReplyHeard
    | SettingsChanged
    | PlaybackPosition
)
Input = AudioInput | InputEnded | Command | Result


@dataclass(frozen=True, slots=True, eq=False)
class EncodeSpeech:
    """Turn an utterance into concepts."""

    request: int
    turn: int
    piece: int
    samples: FloatArray
    """[T] at 16 kHz."""
    language: str
    committed: bool = True
    """False: speculation at a soft pause, which gives way to committed work."""
    candidates: tuple[str, ...] = ()
    """Find out which of these is spoken; empty: `language` is."""


@dataclass(frozen=True, slots=True)
class EncodeText:
    """Split text into sentences and turn each into a concept."""

    request: int
    turn: int
    piece: int
    text: str
    language: str
    committed: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class ContextEntry:
    """One sentence of the conversation."""

    turn: int
    role: int
    """0 user, 1 agent."""
    concept: FloatArray | None
    """[D]; None where a thinker answered in words."""
    text: str | None
    language: str


@dataclass(frozen=True, slots=True)
class Think:
    """Continue the conversation."""

    request: int
    turn: int
    context: tuple[ContextEntry, ...]
    task: Task
    reply_language: str
    committed: bool = True
    instructions: str = ""
    temperature: float | None = None
    seed: int = 0
    """Of the noise that the reply is drawn from"""


@dataclass(frozen=True, slots=True, eq=False)
class Decode:
    """Say concepts in a language: the reply, or what was heard."""

    request: int
    turn: int
    index: int | None
    concepts: FloatArray
    """[N, D]"""
    language: str
    committed: bool = True
    urgent: bool = True
    """False: nobody waits for it, as for what was heard while the reply is made"""


@dataclass(frozen=True, slots=True)
class Speak:
    """Say one sentence aloud."""

    request: int
    turn: int
    index: int
    text: str
    language: str
    committed: bool = True
    voice: str | None = None
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class CancelTurn:
    """Nothing that was asked for this turn so far is wanted any more."""

    turn: int
    last_request: int
    """What comes after it is wanted: the number of a discarded speculation's turn is used again."""


@dataclass(frozen=True, slots=True)
class CommitTurn:
    """What was asked for this turn as speculation is wanted now."""

    turn: int


ModelRequest = EncodeSpeech | EncodeText | Think | Decode
Request = ModelRequest | Speak | CancelTurn | CommitTurn
