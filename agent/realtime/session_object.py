"""The session: the patch that a client sends in `session.update`, and the object that the server shows.

Shapes only; `settings.py` says what becomes of a patch. Only the fields that a patch holds are changed, and null is
a value. The flat fields of the time before general availability are put where they belong now.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from agent.core.events import Task
from agent.realtime.models import (
    AudioFormatObject,
    ClientModel,
    GivenFormat,
    Modality,
    Name,
    OpaqueId,
    ServerModel,
    SparseModel,
)

Milliseconds = Annotated[int, Field(ge=0, le=3_600_000)]
Instructions = Annotated[str, Field(max_length=20_000)]
Temperature = Annotated[float, Field(ge=0, le=2)]
Languages = Annotated[str, Field(max_length=1000)]
"""`eng`, `eng,fra` or `auto`"""


# What a client sends


class TranscriptionPatch(ClientModel):
    """Asks for what was heard, in words."""

    model: Name | None = None
    language: Name | None = None
    prompt: Any = None


class TurnDetectionPatch(ClientModel):
    """Who says when a turn is over."""

    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    prefix_padding_ms: Milliseconds | None = None
    silence_duration_ms: Milliseconds | None = None
    idle_timeout_ms: Milliseconds | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None
    eagerness: Name | None = None


class InputPatch(ClientModel):
    """Of the sound that comes in."""

    format: GivenFormat | None = None
    transcription: TranscriptionPatch | None = None
    turn_detection: TurnDetectionPatch | None = None
    noise_reduction: Any = None


def _voice_name(value: object) -> object:
    """A voice of one's own is an object with an id."""
    return value.get("id", value) if isinstance(value, dict) else value


class OutputPatch(ClientModel):
    """Of the sound that goes out."""

    format: GivenFormat | None = None
    voice: Annotated[Name, BeforeValidator(_voice_name)] | None = None
    speed: Annotated[float, Field(ge=0.25, le=1.5)] | None = None


class AudioPatch(ClientModel):
    """Both."""

    input: InputPatch | None = None
    output: OutputPatch | None = None


class ResumeRequest(ClientModel):
    """The session that a client wants back."""

    token: Name
    after_event: OpaqueId | None = None


class NoemaPatch(ClientModel):
    """The extension. A client that sends it, be it empty, is sent `noema.*` events."""

    concepts: bool | None = None
    latency: bool | None = None
    meter: bool | None = None
    task: Task | None = None
    language: Languages | None = None
    reply_language: Name | None = None
    resume: bool | ResumeRequest | None = None
    record: bool | None = None
    listeners: bool | None = None


class SessionPatch(ClientModel):
    """`session.update`'s session."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)  # so that a warning can name what is unknown

    type: Name = "realtime"
    output_modalities: Annotated[list[Modality], Field(min_length=1, max_length=2)] | None = None
    instructions: Instructions | None = None
    audio: AudioPatch | None = None
    temperature: Temperature | None = None
    model: Any = None
    tools: Any = None
    tool_choice: Any = None
    max_output_tokens: Any = None
    truncation: Any = None
    include: Any = None
    tracing: Any = None
    prompt: Any = None
    noema: NoemaPatch | None = None

    @model_validator(mode="before")
    @classmethod
    def _nested(cls, value: object) -> object:
        return from_flat(value) if isinstance(value, dict) else value


_FLAT = {
    "modalities": ("output_modalities",),
    "max_response_output_tokens": ("max_output_tokens",),
    "input_audio_format": ("audio", "input", "format"),
    "input_audio_transcription": ("audio", "input", "transcription"),
    "input_audio_noise_reduction": ("audio", "input", "noise_reduction"),
    "turn_detection": ("audio", "input", "turn_detection"),
    "output_audio_format": ("audio", "output", "format"),
    "voice": ("audio", "output", "voice"),
    "speed": ("audio", "output", "speed"),
}
"""Where a field of the time before general availability stands now"""


def from_flat(session: dict[str, Any]) -> dict[str, Any]:
    """A session, or a wanted response, with old fields in their new places; what stands there already stays."""
    nested = {name: value for name, value in session.items() if name not in _FLAT}
    for name, (*path, last) in _FLAT.items():
        if name not in session:
            continue
        place = nested
        for step in path:
            inner = place.get(step)
            if inner is not None and not isinstance(inner, dict):
                break  # of a wrong type: validation says so
            place[step] = place = dict(inner or {})
        else:
            place.setdefault(last, session[name])
    return nested


# What the server shows


class TranscriptionObject(ServerModel):
    """What was heard is put into words by the model itself."""

    model: str
    language: str | None = None


class TurnDetectionObject(ServerModel):
    """The detector's values as they hold."""

    type: Literal["server_vad"] = "server_vad"
    threshold: float
    prefix_padding_ms: int
    silence_duration_ms: int
    idle_timeout_ms: int | None
    create_response: bool
    interrupt_response: bool


class InputObject(ServerModel):
    """Of the sound that comes in."""

    format: AudioFormatObject
    transcription: TranscriptionObject | None
    noise_reduction: None = None
    turn_detection: TurnDetectionObject | None


class OutputObject(ServerModel):
    """Of the sound that goes out."""

    format: AudioFormatObject
    voice: str
    speed: float


class AudioObject(ServerModel):
    """Both."""

    input: InputObject
    output: OutputObject


class ResumeOffer(ServerModel):
    """How to come back to this session."""

    token: str
    keep_s: float
    """How long it is kept after the connection is gone"""


class ListenersOffer(ServerModel):
    """How others can listen."""

    token: str
    url: str
    qr_svg: str


class NoemaObject(ServerModel):
    """The extension, as it holds."""

    task: Task
    tasks: list[Task]
    """To choose from"""
    language: str
    """As `language` was given: one, several, or `auto`"""
    reply_language: str | None
    """None: the speaker's own"""
    languages: dict[str, list[str]]
    """`text` and `speech`"""
    space_id: str
    dim: int
    recording: bool
    resume: ResumeOffer | None
    listeners: ListenersOffer | None
    voices: list[str]
    concepts: bool
    latency: bool
    meter: bool


class SessionObject(SparseModel):
    """All of a session."""

    omitted: ClassVar[frozenset[str]] = frozenset({"temperature", "noema"})

    type: Literal["realtime"] = "realtime"
    object: Literal["realtime.session"] = "realtime.session"
    id: str
    model: str
    output_modalities: list[Modality]
    instructions: str
    audio: AudioObject
    tools: list[Any] = Field(default_factory=list)
    tool_choice: Literal["none"] = "none"
    max_output_tokens: Literal["inf"] = "inf"
    truncation: Literal["auto"] = "auto"
    tracing: None = None
    prompt: None = None
    include: None = None
    expires_at: int | None
    """Seconds since 1970"""
    temperature: float | None = None
    noema: NoemaObject | None = None
