"""Server events of the extension: for clients whose `session.update` carried a `noema` object. Shapes only.

Not all of them come out of the machine: latency, meter, listeners, keep-alive and resuming are the server's own.
"""

import base64
from typing import ClassVar, Literal, TypeAlias

import numpy as np

from agent.core.events import FloatArray
from agent.realtime.models import ServerModel, SparseModel
from agent.realtime.session_object import SessionObject


class NoemaConcepts(ServerModel):
    """What one side says, as concepts, before it is put into words."""

    type: Literal["noema.concepts"] = "noema.concepts"
    item_id: str
    role: Literal["user", "assistant"]
    index: int
    """Of the first of them among the item's sentences"""
    language: str
    space_id: str
    dim: int
    count: int
    encoding: Literal["float16"] = "float16"
    concepts: str
    """Base64 of [count, dim], little-endian, a row after the other"""

    @staticmethod
    def packed(concepts: FloatArray) -> str:  # [N, D]
        """Concepts as this event carries them. What half precision cannot hold becomes its largest number."""
        largest = np.finfo(np.float16).max
        return base64.b64encode(np.clip(concepts, -largest, largest).astype("<f2").tobytes()).decode("ascii")


class NoemaLanguage(ServerModel):
    """Which language is spoken, where several were possible."""

    type: Literal["noema.language"] = "noema.language"
    item_id: str
    language: str
    reply_language: str
    probability: float


class NoemaSpeculation(ServerModel):
    """What became of a reply that was begun at a pause."""

    type: Literal["noema.speculation"] = "noema.speculation"
    used: bool
    begun_ms: int
    audio_ms: int


class NoemaWarning(ServerModel):
    """Something does not hold, or went wrong, and the session goes on."""

    type: Literal["noema.warning"] = "noema.warning"
    code: str
    message: str


class LatencyMs(SparseModel):
    """What each stage took, in milliseconds; a stage that was not needed is missing."""

    omitted: ClassVar[frozenset[str]] = frozenset({"encode", "think", "decode", "voice", "first_audio"})

    encode: float | None = None
    think: float | None = None
    decode: float | None = None
    voice: float | None = None
    first_audio: float | None = None


class NoemaLatency(ServerModel):
    """How long a reply took; measured."""

    type: Literal["noema.latency"] = "noema.latency"
    response_id: str
    item_id: str
    speculated: bool
    ms: LatencyMs


class NoemaMeter(ServerModel):
    """How loud it is and how likely it is speech."""

    type: Literal["noema.meter"] = "noema.meter"
    audio_ms: int
    level: float
    probability: float


class NoemaResumed(ServerModel):
    """The session goes on; the events that were missed follow."""

    type: Literal["noema.resumed"] = "noema.resumed"
    session: SessionObject
    after_event: str | None
    input_audio_samples: int
    """So many of all samples that the client appended are kept: it sends again from there"""
    client_events: int
    """So many of all its other messages took effect"""


class NoemaListeners(ServerModel):
    """How many listen, by language."""

    type: Literal["noema.listeners"] = "noema.listeners"
    count: dict[str, int]


class NoemaKeepalive(ServerModel):
    """The connection lives."""

    type: Literal["noema.keepalive"] = "noema.keepalive"


NoemaEvent: TypeAlias = (
    NoemaConcepts
    | NoemaLanguage
    | NoemaSpeculation
    | NoemaWarning
    | NoemaLatency
    | NoemaMeter
    | NoemaResumed
    | NoemaListeners
    | NoemaKeepalive
)
