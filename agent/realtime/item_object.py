"""Items, their content and responses: as the server shows them, and the items that a client may send. Shapes only."""

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field

from agent.realtime.models import (
    AudioFormatObject,
    ClientModel,
    ItemRole,
    ItemStatus,
    Modality,
    Name,
    ResponseStatus,
    ServerModel,
    SparseModel,
)

# What a client sends


class ContentPatch(ClientModel):
    """A part of an item. Which types there are depends on the role: the machine says what is wrong."""

    type: Name
    text: str | None = None
    transcript: str | None = None


class ItemPatch(ClientModel):
    """An item to be added."""

    type: Name
    id: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    role: ItemRole | None = None
    content: Annotated[list[ContentPatch], Field(max_length=64)] | None = None


# What the server shows


class InputTextPart(ServerModel):
    """Typed by the user, or given by the client."""

    type: Literal["input_text"] = "input_text"
    text: str


class InputAudioPart(ServerModel):
    """Said by the user. The transcript is there once it is known; the sound is not kept."""

    type: Literal["input_audio"] = "input_audio"
    transcript: str | None


class OutputTextPart(ServerModel):
    """A reply in words."""

    type: Literal["output_text"] = "output_text"
    text: str


class OutputAudioPart(ServerModel):
    """A spoken reply. The sound is not kept."""

    type: Literal["output_audio"] = "output_audio"
    transcript: str


class ItemObject(ServerModel):
    """An item of the conversation."""

    id: str
    object: Literal["realtime.item"] = "realtime.item"
    type: Literal["message"] = "message"
    status: ItemStatus
    role: ItemRole
    content: list[
        Annotated[InputTextPart | InputAudioPart | OutputTextPart | OutputAudioPart, Field(discriminator="type")]
    ]


class TextPart(ServerModel):
    """The content of a response in words, as `response.content_part.*` show it."""

    type: Literal["text"] = "text"
    text: str


class AudioPart(ServerModel):
    """The content of a spoken response, as `response.content_part.*` show it."""

    type: Literal["audio"] = "audio"
    transcript: str


ContentPart: TypeAlias = Annotated[TextPart | AudioPart, Field(discriminator="type")]


class StatusError(ServerModel):
    """Why a response failed."""

    type: str
    code: str
    message: str


class StatusDetails(ServerModel):
    """How a response ended."""

    type: Literal["completed", "cancelled", "incomplete", "failed"]
    reason: Literal["turn_detected", "client_cancelled"] | None = None
    error: StatusError | None = None


class CachedTokens(ServerModel):
    """Nothing is cached between replies."""

    text_tokens: int = 0
    audio_tokens: int = 0
    image_tokens: int = 0


class InputTokens(ServerModel):
    """What was taken in."""

    text_tokens: int
    audio_tokens: int
    image_tokens: int = 0
    cached_tokens: int = 0
    cached_tokens_details: CachedTokens = CachedTokens()


class OutputTokens(ServerModel):
    """What was given out."""

    text_tokens: int
    audio_tokens: int


class Usage(ServerModel):
    """A token of ours is a concept: one sentence. Taken in: those of the turn that is answered."""

    total_tokens: int
    input_tokens: int
    output_tokens: int
    input_token_details: InputTokens
    output_token_details: OutputTokens

    @classmethod
    def of(cls, *, heard: int, read: int, said: int, written: int) -> "Usage":
        """Of so many concepts each."""
        return cls(
            total_tokens=heard + read + said + written,
            input_tokens=heard + read,
            output_tokens=said + written,
            input_token_details=InputTokens(text_tokens=read, audio_tokens=heard),
            output_token_details=OutputTokens(text_tokens=written, audio_tokens=said),
        )


class ResponseOutput(ServerModel):
    """How a response sounds."""

    format: AudioFormatObject
    voice: str


class ResponseAudio(ServerModel):
    """Only what goes out."""

    output: ResponseOutput


class ResponseObject(SparseModel):
    """A response. The last four are shown, as they hold, to a client that asked for them in this response."""

    omitted: ClassVar[frozenset[str]] = frozenset({"instructions", "temperature", "tools", "tool_choice"})

    id: str
    object: Literal["realtime.response"] = "realtime.response"
    status: ResponseStatus
    status_details: StatusDetails | None = None
    output: list[ItemObject] = Field(default_factory=list)
    conversation_id: str
    output_modalities: list[Modality]
    max_output_tokens: Literal["inf"] = "inf"
    audio: ResponseAudio
    usage: Usage | None = None
    metadata: dict[str, Any] | None = None
    instructions: str | None = None
    temperature: float | None = None
    tools: list[Any] | None = None
    tool_choice: Literal["none"] | None = None
