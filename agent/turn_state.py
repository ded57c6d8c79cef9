"""Turn state: what the turn machine knows of one turn that is not over yet. Decides nothing, asks for nothing."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from agent.events import FloatArray, Task
from agent.inputs import Encoded


@dataclass(slots=True)
class SentenceState:
    """One sentence of the reply: thought, put into words, spoken."""

    concept: FloatArray | None
    text: str | None = None
    start_sample: int = 0
    """On the reply timeline, 24 kHz."""
    end_sample: int = 0
    finished: bool = False


@dataclass(slots=True)
class TurnState:
    """One turn: what was said, and how far its answer has come."""

    number: int
    source: Literal["speech", "text"]
    language: str
    """What it is in; only assumed as long as there are `candidates`"""
    reply_to: str | None
    """Language of the reply; None: the turn's own"""
    task: Task
    candidates: tuple[str, ...] = ()
    """Languages that it may be in; empty once that is known"""
    pieces: int = 0
    encoded: dict[int, Encoded] = field(default_factory=dict)
    committed: bool = False
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
    def finished(self) -> bool:
        """Whether nothing more comes of it."""
        return self.heard == "yes" and self.thinking == "over" and all(s.finished for s in self.sentences)

    def concepts(self) -> FloatArray:
        """Of all its pieces, [N, D]."""
        return np.concatenate([self.encoded[piece].concepts for piece in range(self.pieces)])
