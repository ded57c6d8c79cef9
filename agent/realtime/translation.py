"""Translation messages: the wire of `/v1/realtime/translations`, for one client's interpreter and for listeners.

Shapes only, as OpenAI's translation endpoint has them. Fields of our own: `audio.input.language`, and what tells a
listener who speaks. Knows nothing of sessions.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from agent.realtime.client_events import ClientMessage, InputAudioBufferAppend
from agent.realtime.messages import parse_object, problem_of
from agent.realtime.models import ClientModel, Name, ServerModel, SparseModel
from agent.realtime.noema_events import NoemaKeepalive, NoemaWarning
from agent.realtime.server_events import ErrorEvent
from agent.realtime.session_object import Languages

Speaker: TypeAlias = Literal["user", "agent"]
Source: TypeAlias = Literal["speaker", "agent", "both"]
"""Whom a listener hears"""


# What a client sends


class TranslationInput(ClientModel):
    """Of the sound that comes in."""

    language: Languages | None = None
    """Ours: OpenAI's server finds it out from all it knows, ours among those named here"""
    transcription: Any = None
    noise_reduction: Any = None


class TranslationOutput(ClientModel):
    """Of what goes out."""

    language: Name | None = None


class TranslationAudio(ClientModel):
    """Both."""

    input: TranslationInput | None = None
    output: TranslationOutput | None = None


class TranslationPatch(ClientModel):
    """`session.update`'s session."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    type: Literal["translation"] = "translation"
    audio: TranslationAudio | None = None


class TranslationUpdate(ClientMessage):
    """Changes the session."""

    type: Literal["session.update"]
    session: TranslationPatch


class TranslationAppend(InputAudioBufferAppend):
    """Sound, `audio/pcm`."""

    type: Literal["session.input_audio_buffer.append"]  # type: ignore[assignment]  # the same but for its name


class TranslationClose(ClientMessage):
    """What was said is still interpreted, then the session is over."""

    type: Literal["session.close"]


TranslationClientEvent: TypeAlias = TranslationUpdate | TranslationAppend | TranslationClose


# What the server sends


class TranslationTranscriptionObject(ServerModel):
    """What is heard comes in words, too: a paraphrase."""

    model: str


class TranslationInputObject(ServerModel):
    """Of the sound that comes in."""

    language: str
    transcription: TranslationTranscriptionObject | None
    noise_reduction: None = None


class TranslationOutputObject(ServerModel):
    """Of what goes out."""

    language: str | None
    """None: the speaker's own, until one is set"""


class TranslationAudioObject(SparseModel):
    """Both; a listener sends nothing."""

    omitted: ClassVar[frozenset[str]] = frozenset({"input"})

    input: TranslationInputObject | None = None
    output: TranslationOutputObject


class TranslationSessionObject(SparseModel):
    """All of a session; for listeners, also what they hear and what they might."""

    omitted: ClassVar[frozenset[str]] = frozenset({"listening_to", "source", "spoken"})

    type: Literal["translation"] = "translation"
    object: Literal["realtime.translation_session"] = "realtime.translation_session"
    id: str
    model: str
    audio: TranslationAudioObject
    expires_at: int
    """Seconds since 1970"""
    languages: list[str]
    """What `audio.output.language` may be"""
    listening_to: str | None = None
    """A listener's: the session it listens to"""
    source: Source | None = None
    spoken: bool | None = None
    """A listener's: whether sound comes, too"""


class TranslationCreated(ServerModel):
    """The first event."""

    type: Literal["session.created"] = "session.created"
    session: TranslationSessionObject


class TranslationUpdated(ServerModel):
    """The session as it holds from here on."""

    type: Literal["session.updated"] = "session.updated"
    session: TranslationSessionObject


class TranslationClosed(ServerModel):
    """The last event."""

    type: Literal["session.closed"] = "session.closed"


class _OfSpeaker(SparseModel):
    """Listeners are told who speaks; `item_id` is one turn of one speaker."""

    omitted: ClassVar[frozenset[str]] = frozenset({"item_id", "speaker", "language"})

    elapsed_ms: int
    """On the clock of the session's input"""
    item_id: str | None = None
    speaker: Speaker | None = None
    language: str | None = None


class InputTranscriptDelta(ServerModel):
    """What was heard, in the speaker's language; a paraphrase."""

    type: Literal["session.input_transcript.delta"] = "session.input_transcript.delta"
    delta: str
    elapsed_ms: int


class OutputTranscriptDelta(_OfSpeaker):
    """What was said, in the language asked for: a sentence, with the space before it."""

    type: Literal["session.output_transcript.delta"] = "session.output_transcript.delta"
    delta: str


class OutputAudioDelta(_OfSpeaker):
    """The sound of it."""

    type: Literal["session.output_audio.delta"] = "session.output_audio.delta"
    delta: str
    """Base64"""
    format: Literal["pcm16"] = "pcm16"
    sample_rate: Literal[24000] = 24_000
    channels: Literal[1] = 1


TranslationServerEvent: TypeAlias = (
    ErrorEvent
    | TranslationCreated
    | TranslationUpdated
    | TranslationClosed
    | InputTranscriptDelta
    | OutputTranscriptDelta
    | OutputAudioDelta
    | NoemaWarning
    | NoemaKeepalive
)

_CLIENT: TypeAdapter[TranslationClientEvent] = TypeAdapter(
    Annotated[TranslationClientEvent, Field(discriminator="type")]
)
CLIENT_TYPES: Sequence[str] = ("session.update", "session.input_audio_buffer.append", "session.close")


def parse_translation_event(text: str | bytes) -> TranslationClientEvent:
    """Reads one frame.

    Raises:
        ProtocolError: it is no client event of this endpoint.
    """
    content = parse_object(text)
    try:
        return _CLIENT.validate_python(content)
    except ValidationError as error:
        raise problem_of(error, content, CLIENT_TYPES) from error
