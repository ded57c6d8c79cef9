"""Client events: the eleven of the protocol, and `noema.playback`. Shapes only; `messages.py` reads them."""

import base64
import binascii
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from agent.realtime.item_object import ItemPatch
from agent.realtime.models import ClientModel, Modality, Name, OpaqueId
from agent.realtime.problems import ProtocolError
from agent.realtime.session_object import Instructions, SessionPatch, Temperature, from_flat

Metadata: TypeAlias = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


class ClientMessage(ClientModel):
    """What every one of them may carry: the client's own id of it, which errors name."""

    event_id: OpaqueId | None = None


class SessionUpdate(ClientMessage):
    """Changes the session."""

    type: Literal["session.update"]
    session: SessionPatch


class InputAudioBufferAppend(ClientMessage):
    """Sound, in the session's input format."""

    type: Literal["input_audio_buffer.append"]
    audio: str
    """Base64"""

    def content(self) -> bytes:
        """The bytes.

        Raises:
            ProtocolError: not base64.
        """
        try:
            return base64.b64decode(self.audio, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ProtocolError("invalid_value", f"audio is not base64: {error}", "audio", self.event_id) from error


class InputAudioBufferCommit(ClientMessage):
    """The speaker is done."""

    type: Literal["input_audio_buffer.commit"]


class InputAudioBufferClear(ClientMessage):
    """What was heard and is no turn yet is to be forgotten."""

    type: Literal["input_audio_buffer.clear"]


class ConversationItemCreate(ClientMessage):
    """Adds an item."""

    type: Literal["conversation.item.create"]
    previous_item_id: Name | None = None
    item: ItemPatch


class ConversationItemDelete(ClientMessage):
    """Takes an item out of the conversation."""

    type: Literal["conversation.item.delete"]
    item_id: Name


class ConversationItemRetrieve(ClientMessage):
    """Asks for an item."""

    type: Literal["conversation.item.retrieve"]
    item_id: Name


class ConversationItemTruncate(ClientMessage):
    """Playback was stopped: so much of an item was heard."""

    type: Literal["conversation.item.truncate"]
    item_id: Name
    content_index: int
    audio_end_ms: int


class ResponsePatch(ClientModel):
    """What one response is to be like."""

    output_modalities: Annotated[list[Modality], Field(min_length=1, max_length=2)] | None = None
    conversation: Name | None = None
    input: list[Any] | None = None
    metadata: Metadata | None = None
    instructions: Instructions | None = None
    temperature: Temperature | None = None
    audio: Any = None
    tools: Any = None
    tool_choice: Any = None
    max_output_tokens: Any = None
    prompt: Any = None

    @model_validator(mode="before")
    @classmethod
    def _nested(cls, value: object) -> object:
        return from_flat(value) if isinstance(value, dict) else value


class ResponseCreate(ClientMessage):
    """Asks for a reply."""

    type: Literal["response.create"]
    response: ResponsePatch | None = None


class ResponseCancel(ClientMessage):
    """The reply under way is not wanted any more."""

    type: Literal["response.cancel"]
    response_id: Name | None = None


class OutputAudioBufferClear(ClientMessage):
    """For clients whose playback buffer is the server's, which is so with WebRTC only."""

    type: Literal["output_audio_buffer.clear"]


class NoemaPlayback(ClientMessage):
    """So much of an item's sound has been heard."""

    type: Literal["noema.playback"]
    item_id: Name
    audio_ms: Annotated[int, Field(ge=0)]


ClientEvent: TypeAlias = (
    SessionUpdate
    | InputAudioBufferAppend
    | InputAudioBufferCommit
    | InputAudioBufferClear
    | ConversationItemCreate
    | ConversationItemDelete
    | ConversationItemRetrieve
    | ConversationItemTruncate
    | ResponseCreate
    | ResponseCancel
    | OutputAudioBufferClear
    | NoemaPlayback
)
