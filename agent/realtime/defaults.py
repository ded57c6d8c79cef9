"""Session defaults: what a session is like before its client says anything, and what it may ask for.

Made by the server from its settings and its bundle, once for a session. Plain values: nothing here is looked up later.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from agent.core.events import Task
from agent.realtime.session_object import ListenersOffer, ResumeOffer

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class KnownLanguages:
    """The languages of a bundle, as it writes them."""

    text: tuple[str, ...]
    speech: tuple[str, ...]
    two_letters: Mapping[str, str] = field(default_factory=dict)
    """`en` → `eng`: how other clients name them"""

    def find(self, name: str, *, spoken: bool = False) -> str | None:
        """The bundle's tag for what a client wrote; with or without script, in two letters or three."""
        name = name.strip().replace("-", "_").casefold()
        base = name.partition("_")[0]
        base = self.two_letters.get(base, base)
        known = self.speech if spoken else self.text
        exact = [tag for tag in known if tag.casefold() == name]
        return next(iter(exact or [tag for tag in known if _base(tag) == base]), None)

    @property
    def heard_and_written(self) -> tuple[str, ...]:
        """What `auto` stands for: what is heard has to be said again."""
        found = (self.find(tag) for tag in self.speech)
        return tuple(dict.fromkeys(tag for tag in found if tag is not None))


def _base(tag: str) -> str:
    return tag.partition("_")[0].casefold()


@dataclass(frozen=True, slots=True)
class Bounds:
    """Values outside are moved to the nearest inside, which `session.updated` shows."""

    threshold: tuple[float, float] = (0.05, 0.95)
    prefix_padding_ms: tuple[int, int] = (0, 1000)
    silence_duration_ms: tuple[int, int] = (160, 4000)
    idle_timeout_ms: tuple[int, int] = (1000, 600_000)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a session is kept, and how long its texts may be."""

    items: int = 512
    """Kept for retrieve, delete and truncate; the oldest leave"""
    text_characters: int = 20_000
    """Of one item"""


@dataclass(frozen=True, slots=True)
class SessionDefaults:
    """What a session is like."""

    languages: KnownLanguages
    model: str = "noema"
    task: Task = "converse"
    tasks: tuple[Task, ...] = get_args(Task)
    """What a client may choose from: a bundle without a model that converses interprets"""
    language: str = "eng"
    """One, several (`eng,fra`), or `auto`"""
    reply_language: str | None = None
    """None: the speaker's own"""
    can_speak: bool = True
    """False: there is no voice, replies are in words"""
    reads_words: bool = False
    """Whether the thinker heeds instructions and temperature"""
    voices: tuple[str, ...] = ()
    voice: str | None = None
    """None: the voice as it is, which goes by the name of `default`"""
    threshold: float = 0.3
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 480
    """Until a client sets it, it adapts to the speaker"""
    bounds: Bounds = Bounds()
    limits: Limits = Limits()
    space_id: str = ""
    dim: int = 0
    expires_at: int | None = None
    """Seconds since 1970"""
    records: bool = False
    """Whether sessions are recorded unasked"""
    may_record: bool = False
    """Whether a client may ask for it"""
    resume: ResumeOffer | None = None
    """For a client that asks; None: this server keeps no sessions"""
    listeners: ListenersOffer | None = None
    """For a client that asks; None: nobody may listen"""
