"""Server events of the protocol, those that are sent. Shapes only; `event_id` is added when one is delivered."""

from typing import Literal, TypeAlias

from agent.realtime.item_object import ContentPart, ItemObject, ResponseObject
from agent.realtime.models import ServerModel
from agent.realtime.noema_events import NoemaEvent
from agent.realtime.session_object import SessionObject


class ErrorDetails(ServerModel):
    """What is wrong."""

    type: str
    code: str | None
    message: str
    param: str | None = None
    event_id: str | None = None
    """Of the client's message"""


class ErrorEvent(ServerModel):
    """Something could not be done; the session stays open."""

    type: Literal["error"] = "error"
    error: ErrorDetails


class SessionCreated(ServerModel):
    """The first event."""

    type: Literal["session.created"] = "session.created"
    session: SessionObject


class SessionUpdated(ServerModel):
    """The session as it holds from here on."""

    type: Literal["session.updated"] = "session.updated"
    session: SessionObject


class Conversation(ServerModel):
    """There is one."""

    id: str
    object: Literal["realtime.conversation"] = "realtime.conversation"


class ConversationCreated(ServerModel):
    """The second event."""

    type: Literal["conversation.created"] = "conversation.created"
    conversation: Conversation


class SpeechStarted(ServerModel):
    """Someone began to speak."""

    type: Literal["input_audio_buffer.speech_started"] = "input_audio_buffer.speech_started"
    audio_start_ms: int
    item_id: str


class SpeechStopped(ServerModel):
    """The utterance is over."""

    type: Literal["input_audio_buffer.speech_stopped"] = "input_audio_buffer.speech_stopped"
    audio_end_ms: int
    item_id: str


class TimeoutTriggered(ServerModel):
    """Nobody said anything for long."""

    type: Literal["input_audio_buffer.timeout_triggered"] = "input_audio_buffer.timeout_triggered"
    audio_start_ms: int
    audio_end_ms: int
    item_id: str


class BufferCommitted(ServerModel):
    """What was said is an item."""

    type: Literal["input_audio_buffer.committed"] = "input_audio_buffer.committed"
    previous_item_id: str | None
    item_id: str


class BufferCleared(ServerModel):
    """What was heard is forgotten."""

    type: Literal["input_audio_buffer.cleared"] = "input_audio_buffer.cleared"


class ItemAdded(ServerModel):
    """An item joins the conversation."""

    type: Literal["conversation.item.added"] = "conversation.item.added"
    previous_item_id: str | None
    item: ItemObject


class ItemDone(ServerModel):
    """An item is complete."""

    type: Literal["conversation.item.done"] = "conversation.item.done"
    previous_item_id: str | None
    item: ItemObject


class ItemRetrieved(ServerModel):
    """An item as it stands."""

    type: Literal["conversation.item.retrieved"] = "conversation.item.retrieved"
    item: ItemObject


class ItemDeleted(ServerModel):
    """An item is forgotten."""

    type: Literal["conversation.item.deleted"] = "conversation.item.deleted"
    item_id: str


class ItemTruncated(ServerModel):
    """What was not heard of an item is forgotten."""

    type: Literal["conversation.item.truncated"] = "conversation.item.truncated"
    item_id: str
    content_index: int = 0
    audio_end_ms: int


class TranscriptionDelta(ServerModel):
    """What was heard."""

    type: Literal["conversation.item.input_audio_transcription.delta"] = (
        "conversation.item.input_audio_transcription.delta"
    )
    item_id: str
    content_index: int = 0
    delta: str


class DurationUsage(ServerModel):
    """How long the speech was."""

    type: Literal["duration"] = "duration"
    seconds: float


class TranscriptionCompleted(ServerModel):
    """All of what was heard: a paraphrase."""

    type: Literal["conversation.item.input_audio_transcription.completed"] = (
        "conversation.item.input_audio_transcription.completed"
    )
    item_id: str
    content_index: int = 0
    transcript: str
    usage: DurationUsage


class TranscriptionError(ServerModel):
    """Why there are no words."""

    type: str = "transcription_error"
    code: str
    message: str
    param: str | None = None


class TranscriptionFailed(ServerModel):
    """What was heard will not be told."""

    type: Literal["conversation.item.input_audio_transcription.failed"] = (
        "conversation.item.input_audio_transcription.failed"
    )
    item_id: str
    content_index: int = 0
    error: TranscriptionError


class ResponseCreated(ServerModel):
    """A reply is being made."""

    type: Literal["response.created"] = "response.created"
    response: ResponseObject


class ResponseDone(ServerModel):
    """Nothing more comes of a reply."""

    type: Literal["response.done"] = "response.done"
    response: ResponseObject


class OutputItemAdded(ServerModel):
    """The reply's item."""

    type: Literal["response.output_item.added"] = "response.output_item.added"
    response_id: str
    output_index: int = 0
    item: ItemObject


class OutputItemDone(ServerModel):
    """The reply's item is complete."""

    type: Literal["response.output_item.done"] = "response.output_item.done"
    response_id: str
    output_index: int = 0
    item: ItemObject


class _OfPart(ServerModel):
    """Something of the one content part of a reply's one item."""

    response_id: str
    item_id: str
    output_index: int = 0
    content_index: int = 0


class ContentPartAdded(_OfPart):
    """The item's content begins."""

    type: Literal["response.content_part.added"] = "response.content_part.added"
    part: ContentPart


class ContentPartDone(_OfPart):
    """The item's content is complete."""

    type: Literal["response.content_part.done"] = "response.content_part.done"
    part: ContentPart


class TextDelta(_OfPart):
    """More of a written reply: a sentence, with the space before it."""

    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    delta: str


class TextDone(_OfPart):
    """All of a written reply."""

    type: Literal["response.output_text.done"] = "response.output_text.done"
    text: str


class AudioTranscriptDelta(_OfPart):
    """More of the words of a spoken reply: a sentence, with the space before it."""

    type: Literal["response.output_audio_transcript.delta"] = "response.output_audio_transcript.delta"
    delta: str


class AudioTranscriptDone(_OfPart):
    """All of the words of a spoken reply."""

    type: Literal["response.output_audio_transcript.done"] = "response.output_audio_transcript.done"
    transcript: str


class AudioDelta(_OfPart):
    """More of the sound of a reply, in the session's output format."""

    type: Literal["response.output_audio.delta"] = "response.output_audio.delta"
    delta: str
    """Base64"""


class AudioDone(_OfPart):
    """No more sound of a reply."""

    type: Literal["response.output_audio.done"] = "response.output_audio.done"


ServerEvent: TypeAlias = (
    ErrorEvent
    | SessionCreated
    | SessionUpdated
    | ConversationCreated
    | SpeechStarted
    | SpeechStopped
    | TimeoutTriggered
    | BufferCommitted
    | BufferCleared
    | ItemAdded
    | ItemDone
    | ItemRetrieved
    | ItemDeleted
    | ItemTruncated
    | TranscriptionDelta
    | TranscriptionCompleted
    | TranscriptionFailed
    | ResponseCreated
    | ResponseDone
    | OutputItemAdded
    | OutputItemDone
    | ContentPartAdded
    | ContentPartDone
    | TextDelta
    | TextDone
    | AudioTranscriptDelta
    | AudioTranscriptDone
    | AudioDelta
    | AudioDone
    | NoemaEvent
)
