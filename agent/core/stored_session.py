"""Stored session: what of a session is kept so that it can go on after a crash, and as which rows. Pure.

A checkpoint, the items its core has taken since then, and the messages that led to (the outbox). Items are
inputs and the client's own events; sound stands beside their lines, as in a recording. Knows nothing of
databases, nor of what the client's events mean.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.core.input_log import (
    LogFormatError,
    audio_line,
    checked_fields,
    input_from,
    input_line,
    parse_line,
    probability_byte,
    probability_from_byte,
    unpacked_probabilities,
    whole_number,
)
from agent.core.inputs import AudioInput, Input, Voiced
from audio.frames import FRAME_SAMPLES, FloatArray, from_pcm16, to_pcm16

_ROW_FRAMES = 50
_CLIENT = "Client"


@dataclass(frozen=True, slots=True)
class ClientText:
    """An event of the client's, as it stands on the wire."""

    text: str


StoredItem = Input | ClientText


@dataclass(frozen=True, slots=True)
class Row:
    """One item, or frames that follow one another."""

    line: str
    sound: bytes = b""
    """16 bits a sample, little-endian; of frames at 16 kHz, of a voice at 24 kHz"""

    @property
    def size(self) -> int:
        """Bytes, roughly."""
        return len(self.line) + len(self.sound)


@dataclass(frozen=True, slots=True)
class ClientPosition:
    """What of all that the client sent the stored items hold; it sends again what comes after."""

    audio_samples: int = 0
    """At the rate of the client's format, since the session began"""
    events: int = 0
    """Its messages other than sound"""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A session as it stood once: older items are not needed any more."""

    state: bytes
    """Of the core, frozen"""
    messages: int
    """How many messages the core had given by then"""


@dataclass(frozen=True, slots=True)
class Batch:
    """What happened since the last batch, to be stored together."""

    rows: tuple[Row, ...]
    """Items in the order in which they were taken; those after the checkpoint, where there is one"""
    messages: tuple[tuple[int, str], ...]
    """Number and JSON of what is to be sent, in ascending order"""
    position: ClientPosition
    core_messages: int
    """How many messages of the core were given to be stored, these included, since the session began"""
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session as the store holds it."""

    session_id: str
    checkpoint: Checkpoint
    rows: tuple[Row, ...]
    position: ClientPosition
    core_messages: int
    last_message: int
    """Number of the last message that was stored; 0: none was"""


def to_rows(items: Iterable[StoredItem]) -> Iterator[Row]:
    """Items as rows; frames that follow one another share one."""
    frames: list[AudioInput] = []
    for item in items:
        if frames and not _follows(item, frames):
            yield _frames_row(frames)
            frames = []
        match item:
            case AudioInput():
                frames.append(item)
            case ClientText(text):
                yield Row(json.dumps({"type": _CLIENT, "text": text}))
            case Voiced(samples=samples):
                yield Row(input_line(item), _pcm(samples))
            case _:
                yield Row(input_line(item))
    if frames:
        yield _frames_row(frames)


def from_rows(rows: Iterable[Row]) -> Iterator[StoredItem]:
    """The inverse of `to_rows`.

    Raises:
        LogFormatError: a row is damaged.
    """
    for row in rows:
        content = parse_line(row.line)
        kind = content["type"]
        if kind == "Audio":
            yield from _frames(content, row.sound)
        elif kind == _CLIENT:
            yield ClientText(**checked_fields(ClientText, {"text": content.get("text")}))
        else:
            yield input_from(content, _samples(row.sound) if kind == Voiced.__name__ else None)


def _follows(item: StoredItem, frames: list[AudioInput]) -> bool:
    return isinstance(item, AudioInput) and item.start_sample == frames[-1].at_sample and len(frames) < _ROW_FRAMES


def _frames_row(frames: list[AudioInput]) -> Row:
    probabilities = bytes(probability_byte(frame.probability) for frame in frames)
    return Row(audio_line(frames[0].start_sample, probabilities), b"".join(_pcm(frame.samples) for frame in frames))


def _frames(content: dict[str, Any], sound: bytes) -> Iterator[AudioInput]:
    start, probabilities = whole_number(content, "start_sample"), unpacked_probabilities(content)
    samples = _samples(sound)
    if len(samples) != len(probabilities) * FRAME_SAMPLES:
        raise LogFormatError("a damaged Audio line (its sound has another length)")
    for number, byte in enumerate(probabilities):
        offset = number * FRAME_SAMPLES
        frame = samples[offset : offset + FRAME_SAMPLES]
        yield AudioInput(start + offset, frame, probability_from_byte(byte))


def _pcm(samples: FloatArray) -> bytes:
    return to_pcm16(samples).astype("<i2").tobytes()


def _samples(sound: bytes) -> FloatArray:
    try:
        return from_pcm16(np.frombuffer(sound, dtype="<i2"))
    except ValueError as error:
        raise LogFormatError("sound of half a sample") from error
