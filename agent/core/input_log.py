"""Input log: inputs and events as lines of JSON, and back. Pure; knows nothing of files.

Sound does not stand in the lines: a frame is a place in `audio.flac` and one byte of speech probability, a
stretch of reply a place in `reply.flac` and its SHA-256. Events become canonical lines, so that two runs can
be compared line by line.
"""

import base64
import hashlib
import json
import math
import re
from dataclasses import MISSING, fields
from functools import cache
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from agent.core.events import ConceptsKnown, DomainEvent, FloatArray, ReplyAudio
from agent.core.inputs import AudioInput, Encoded, Input, Thought, Voiced
from audio.frames import to_pcm16

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_INPUTS: dict[str, type[Input]] = {cls.__name__: cls for cls in get_args(Input) if cls is not AudioInput}
_PROBABILITY_STEPS = 255
_SURROGATE = re.compile("[\ud800-\udfff]")
_INTEGERS = range(2**63)
"""Positions, numbers and counts, as a file may hold them"""


class LogFormatError(Exception):
    """A line of a log cannot be read; the message says which and why."""


def quantized_probability(probability: float) -> float:
    """The probability as the log can hold it: one of 256 values."""
    return round(min(1.0, max(0.0, probability)) * _PROBABILITY_STEPS) / _PROBABILITY_STEPS


def probability_byte(probability: float) -> int:
    """A quantized probability as one byte."""
    return round(probability * _PROBABILITY_STEPS)


def probability_from_byte(byte: int) -> float:
    """The inverse of `probability_byte`."""
    return byte / _PROBABILITY_STEPS


def audio_line(start_sample: int, probabilities: bytes) -> str:
    """Frames in a row, starting at `start_sample`: one byte of probability each."""
    packed = base64.b64encode(probabilities).decode()
    return _line({"type": "Audio", "start_sample": start_sample, "probabilities": packed})


def unpacked_probabilities(content: dict[str, Any]) -> bytes:
    """The probabilities of a row that `audio_line` wrote."""
    try:
        return base64.b64decode(content["probabilities"], validate=True)
    except (KeyError, ValueError, TypeError) as error:
        raise LogFormatError(f"a damaged Audio line ({error_text(error)})") from error


def input_line(item: Input, reply_offset: int = 0) -> str:
    """Any input but a frame; `reply_offset` says where in the reply's sound a `Voiced` stands."""
    assert not isinstance(item, AudioInput), "frames are logged in rows, by audio_line"
    content: dict[str, Any] = {"type": type(item).__name__}
    for entry in fields(item):
        value = getattr(item, entry.name)
        if isinstance(item, Voiced) and entry.name == "samples":
            content["offset"], content["length"] = reply_offset, len(value)
        elif isinstance(value, np.ndarray):
            content[entry.name] = {"shape": list(value.shape), "float32": _packed(value)}
        else:
            content[entry.name] = value
    return _line(content)


def parse_line(line: str) -> dict[str, Any]:
    """One line as a dictionary with a `type`."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LogFormatError(f"not a line of JSON: {line[:60]!r}") from error
    if not isinstance(content, dict) or not isinstance(content.get("type"), str):
        raise LogFormatError(f"a line without a type: {line[:60]!r}")
    return content


def checked_fields(cls: "type[DataclassInstance]", values: dict[str, Any]) -> dict[str, Any]:
    """The values as they are, if each has the type that its field of `cls` declares; else `LogFormatError`."""
    known = {entry.name for entry in fields(cls)}
    for name, value in values.items():
        if name not in known:
            raise LogFormatError(f"a damaged {cls.__name__} ({name} is unknown)")
        try:
            _field_type(cls, name).validate_python(value)
        except ValidationError as error:
            raise LogFormatError(f"a damaged {cls.__name__} ({name}: {error_text(error)})") from error
        if not all(map(_is_in_range, value if isinstance(value, tuple) else (value,))):
            raise LogFormatError(f"a damaged {cls.__name__} ({name} is out of range)")
    return values


def whole_number(content: dict[str, Any], name: str) -> int:
    """A position or length that no field of an input holds as it stands in the log."""
    value = content.get(name)
    if type(value) is not int or value not in _INTEGERS:
        raise LogFormatError(f"a damaged {content['type']} line ({name} is no position or length)")
    return value


def error_text(error: Exception) -> str:
    """What is wrong with a value, in a few words."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return ": ".join([*map(str, first["loc"]), first["msg"]])
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def input_from(content: dict[str, Any], reply: FloatArray | None = None) -> Input:
    """The input a parsed line stands for; `reply` is the sound of a `Voiced`."""
    kind = content["type"]
    cls = _INPUTS.get(kind)
    if cls is None:
        raise LogFormatError(f"unknown input {kind!r}: was this recorded by a newer version?")
    values: dict[str, Any] = {}
    try:
        for entry in fields(cls):
            if cls is Voiced and entry.name == "samples":
                values["samples"] = reply
            elif entry.name in content or entry.default is MISSING:  # else it is newer than the recording
                values[entry.name] = _value(content[entry.name])
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise LogFormatError(f"a damaged {kind} line ({error_text(error)})") from error
    item = cls(**checked_fields(cls, values))
    _check_shapes(item)
    return item


def event_line(event: DomainEvent) -> str:
    """An event as a canonical line."""
    content: dict[str, Any] = {"type": type(event).__name__}
    for entry in fields(event):
        value = getattr(event, entry.name)
        if isinstance(event, ReplyAudio) and entry.name == "samples":
            content["length"] = len(value)
            content["sha256"] = hashlib.sha256(to_pcm16(value).tobytes()).hexdigest()
        elif isinstance(event, ConceptsKnown) and entry.name == "concepts":
            content["shape"] = list(value.shape)  # their last digits differ from machine to machine
        else:
            content[entry.name] = value
    return _line(content)


@cache
def _field_type(cls: type, name: str) -> TypeAdapter[Any]:
    return TypeAdapter(get_type_hints(cls)[name], config=ConfigDict(strict=True, arbitrary_types_allowed=True))


def _is_in_range(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return type(value) is not int or value in _INTEGERS


def _check_shapes(item: Input) -> None:
    if isinstance(item, Encoded):
        texts = item.texts if item.texts is not None else item.concepts
        if item.concepts.ndim != 2 or len(texts) != len(item.concepts):
            raise LogFormatError("a damaged Encoded line (not one concept for each sentence)")
        if item.probability is not None and not 0 <= item.probability <= 1:
            raise LogFormatError("a damaged Encoded line (probability is none)")
    if isinstance(item, Thought) and item.concept is not None and item.concept.ndim != 1:
        raise LogFormatError("a damaged Thought line (not one concept)")


def _value(value: Any) -> Any:
    if isinstance(value, dict) and "float32" in value:
        raw = np.frombuffer(base64.b64decode(value["float32"]), dtype="<f4")
        return raw.reshape(value["shape"]).astype(np.float32)
    return tuple(value) if isinstance(value, list) else value


def _packed(value: FloatArray) -> str:
    return base64.b64encode(np.ascontiguousarray(value, dtype="<f4").tobytes()).decode()


def _line(content: dict[str, Any]) -> str:
    line = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    if _SURROGATE.search(line):  # half a character, as JSON may hold it: no file takes it but as an escape
        line = json.dumps(content, separators=(",", ":"))
    return line
