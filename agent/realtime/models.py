"""Models: what the shapes of both directions have in common. pydantic stays at this edge."""

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_serializer, model_validator
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from audio.telephony import RATES, AudioFormat

Name: TypeAlias = Annotated[str, Field(max_length=128)]
"""Ids and the names of things"""
OpaqueId: TypeAlias = Annotated[str, Field(max_length=512)]
"""What a client calls its own events"""
Modality: TypeAlias = Literal["text", "audio"]
ItemRole: TypeAlias = Literal["user", "assistant", "system"]
ItemStatus: TypeAlias = Literal["in_progress", "completed", "incomplete"]
ResponseStatus: TypeAlias = Literal["in_progress", "completed", "cancelled", "incomplete", "failed"]

_OLD_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}


class ClientModel(BaseModel):
    """What clients send: fields that we do not know are passed over, wrong types are not."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class ServerModel(BaseModel):
    """What the server sends, nulls included."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SparseModel(ServerModel):
    """What the server sends, without those of its fields in `omitted` that are None."""

    omitted: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_missing(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        return {name: value for name, value in content.items() if value is not None or name not in self.omitted}


class AudioFormatObject(SparseModel):
    """How sound is written: 16-bit little-endian at 24 kHz, or G.711 at 8 kHz; mono. The same in both directions."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    omitted: ClassVar[frozenset[str]] = frozenset({"rate"})

    type: AudioFormat
    rate: int | None = None

    @model_validator(mode="after")
    def _at_its_rate(self) -> "AudioFormatObject":
        if self.rate is not None and self.rate != RATES[self.type]:
            raise ValueError(f"{self.type} has a rate of {RATES[self.type]}")
        return self

    @classmethod
    def of(cls, audio_format: AudioFormat) -> "AudioFormatObject":
        """As the server shows it: only `audio/pcm` tells its rate, as OpenAI's does."""
        return cls(type=audio_format, rate=RATES[audio_format] if audio_format == "audio/pcm" else None)


def _named(value: object) -> object:
    """Before general availability a format was a name."""
    return {"type": _OLD_FORMATS.get(value, value)} if isinstance(value, str) else value


GivenFormat: TypeAlias = Annotated[AudioFormatObject, BeforeValidator(_named)]
