"""Turn state: what the turn machine knows of one turn that is not over yet. Decides nothing, asks for nothing."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from agent.core.events import DomainEvent, FloatArray, Task
from agent.core.inputs import Encoded, Input, Request, Role


@dataclass(frozen=True, slots=True)
class Step:
    """What one input led to, in this order."""

    item: Input | None = None
    """None: what was taken is no input"""
    events: list[DomainEvent] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    messages: list[Any] = field(default_factory=list)
    """In the language of a wire, where the core speaks one"""


@dataclass(slots=True)
class SentenceState:
    """One sentence of the reply: thought, put into words, spoken."""

    concept: FloatArray | None
    text: str | None = None
    finished: bool = False


@dataclass(slots=True)
class TurnState:
    """One turn: what was said, and how far its answer has come."""

    number: int
    source: Literal["speech", "text", "none", "context"]
    """context: only to be remembered"""
    language: str
    """What it is in; only assumed as long as there are `candidates`"""
    reply_to: str | None
    """Language of the reply; None: the turn's own"""
    task: Task
    candidates: tuple[str, ...] = ()
    """Languages that it may be in; empty once that is known"""
    spoken: bool = True
    wants_reply: bool = True
    instructions: str | None = None
    """For its reply alone; None: as the settings say when it is thought of. So it is with the next"""
    temperature: float | None = None
    role: Role = "user"
    """Who said it"""
    pieces: int = 0
    encoded: dict[int, Encoded] = field(default_factory=dict)
    committed: bool = False
    joined: bool = False
    """Whether it is part of the conversation"""
    reply: Literal["no", "started", "ended"] = "no"
    heard: Literal["no", "asked", "yes"] = "no"
    thinking: Literal["no", "asked", "over"] = "no"
    superseded: bool = False
    """The speaker went on before the answer began: what was said stays, nobody answers it."""
    sentences: list[SentenceState] = field(default_factory=list)

    @property
    def reply_language(self) -> str:
        """What the reply is in."""
        return self.reply_to or self.language

    @property
    def understood(self) -> bool:
        """Whether all of it is there, as concepts."""
        return self.committed and len(self.encoded) == self.pieces

    @property
    def replied(self) -> bool:
        """Whether nothing more comes of the reply."""
        return self.thinking == "over" and all(sentence.finished for sentence in self.sentences)

    @property
    def finished(self) -> bool:
        """Whether nothing more comes of it."""
        return self.heard == "yes" and self.replied

    def concepts(self) -> FloatArray:
        """Of all its pieces, [N, D]; with none, [0, 0]."""
        if not self.pieces:
            return np.zeros((0, 0), np.float32)
        return np.concatenate([self.encoded[piece].concepts for piece in range(self.pieces)])
