"""Requests: what a client event asks of the turn machine, and what it is answered; step by step, in that order.

Each function gives inputs and server events. Whoever takes an input lets the turn machine act on it, and tells what
came of that, before asking for the next: so an answer that comes after an input knows its outcome.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from agent.core.inputs import (
    AudioCleared,
    AudioCommitted,
    ContextForgotten,
    ContextGiven,
    Input,
    PlaybackPosition,
    ReplyCancelled,
    ReplyHeard,
    ReplyRequested,
    TypedText,
)
from agent.realtime.client_events import (
    ClientEvent,
    ClientMessage,
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemRetrieve,
    ConversationItemTruncate,
    InputAudioBufferAppend,
    InputAudioBufferClear,
    InputAudioBufferCommit,
    NoemaPlayback,
    OutputAudioBufferClear,
    ResponseCancel,
    ResponseCreate,
    ResponsePatch,
    SessionUpdate,
)
from agent.realtime.item_object import ItemPatch
from agent.realtime.items import Item, Sentence
from agent.realtime.noema_events import NoemaWarning
from agent.realtime.problems import ProtocolError
from agent.realtime.replying import SAMPLES_PER_MS
from agent.realtime.response import Asked
from agent.realtime.server_events import (
    BufferCleared,
    ItemAdded,
    ItemDeleted,
    ItemDone,
    ItemRetrieved,
    ItemTruncated,
    ServerEvent,
    SessionUpdated,
)
from agent.realtime.session_update import NO_READER, NO_SAMPLER, SessionUpdating
from agent.realtime.wire import Wire
from audio.frames import SAMPLE_RATE

Answers: TypeAlias = Iterator[Input | ServerEvent]

LEAST_COMMITTED_MS = 100
TRUNCATION_SLACK_MS = 100
"""Clients reckon with clocks of their own: so far beyond the end means the end"""


def answers(wire: Wire, event: ClientEvent, at_sample: int) -> Answers:
    """What follows from a client event at this place on the clock.

    Raises:
        ProtocolError: nothing does, and nothing has changed.
    """
    return _ANSWERS[type(event)](wire, event, at_sample)


def _warned(wire: Wire, warnings: Iterable[str]) -> Iterator[ServerEvent]:
    if wire.settings.noema is not None:
        for message in warnings:
            yield NoemaWarning(code="ignored", message=message)


def _update_session(wire: Wire, event: SessionUpdate, at_sample: int) -> Answers:
    updating = SessionUpdating(wire.settings, wire.defaults, begun=wire.begun)
    updating.apply(event.session)
    wire.settings = updating.settings
    yield wire.changed(at_sample)
    yield SessionUpdated(session=wire.session)
    yield from _warned(wire, updating.warnings)


# Sound


def _commit(wire: Wire, event: InputAudioBufferCommit, at_sample: int) -> Answers:
    hearing = wire.hearing
    buffered_ms = hearing.buffered * 1000 // SAMPLE_RATE
    empty = ProtocolError(
        "input_audio_buffer_commit_empty",
        f"Error committing input audio buffer: buffer too small. Expected at least {LEAST_COMMITTED_MS}ms of audio, "
        f"but buffer only has {buffered_ms}ms of speech that is no item yet.",
    )
    if buffered_ms < LEAST_COMMITTED_MS:
        raise empty
    yield AudioCommitted(at_sample)
    if hearing.buffered:  # the detector is on and heard nobody: a turn would have emptied it
        raise empty


def _append(wire: Wire, event: InputAudioBufferAppend, at_sample: int) -> Answers:
    """Nothing: sound comes as frames, and whoever decodes it answers for it."""
    yield from ()


def _clear(wire: Wire, event: InputAudioBufferClear, at_sample: int) -> Answers:
    yield AudioCleared(at_sample)
    yield from wire.hearing.stopped(at_sample)
    wire.hearing.buffered = 0
    yield BufferCleared()


def _clear_output(wire: Wire, event: OutputAudioBufferClear, at_sample: int) -> Answers:
    reason = "output_audio_buffer.clear is for WebRTC: here the client stops its own playback, then truncates the item"
    raise ProtocolError("unsupported_event", reason, "type")


def _play(wire: Wire, event: NoemaPlayback, at_sample: int) -> Answers:
    item = _spoken(wire, event.item_id, "item_not_found")
    yield PlaybackPosition(at_sample, item.start_sample + min(event.audio_ms * SAMPLES_PER_MS, item.samples))


# Items


def _create_item(wire: Wire, event: ConversationItemCreate, at_sample: int) -> Answers:
    text = _text(event.item, wire.defaults.limits.text_characters)
    last = wire.items.last_id
    if event.previous_item_id not in (None, last) and (event.previous_item_id != "root" or last is not None):
        reason = "items can only be appended: leave previous_item_id out, or name the last item"
        raise ProtocolError("invalid_value", reason, "previous_item_id")
    role = event.item.role
    assert role is not None, "checked with the text"
    name = wire.items.new_id() if event.item.id is None else wire.items.checked_id(event.item.id)
    item = Item(name, role, "text", sentences={0: Sentence(text)})
    if role == "system":
        yield from added(wire, item)
        yield wire.changed(at_sample)
        if not wire.defaults.reads_words:
            yield from _warned(wire, [f"item.role: system: {NO_READER}"])
        return
    wire.pending = item
    yield TypedText(at_sample, text, wants_reply=False) if role == "user" else ContextGiven(at_sample, "agent", text)


def added(wire: Wire, item: Item) -> Iterator[ServerEvent]:
    """An item that is complete joins the conversation."""
    previous = wire.items.add(item)
    yield ItemAdded(previous_item_id=previous, item=item.shown())
    yield ItemDone(previous_item_id=previous, item=item.shown())


_TEXT_TYPES = {
    "user": ("input_text", "text"),
    "system": ("input_text", "text"),
    "assistant": ("output_text", "text"),
}


def _text(item: ItemPatch, limit: int) -> str:
    """What a client's item says.

    Raises:
        ProtocolError: it is of a kind that cannot be taken.
    """
    if item.type != "message":
        reason = f"an item of type {item.type!r} cannot be taken: there are messages only, and no tools"
        raise ProtocolError("unsupported_item_type", reason, "item.type")
    if item.role is None:
        raise ProtocolError("missing_required_parameter", "Missing required parameter: 'item.role'.", "item.role")
    for number, part in enumerate(item.content or []):
        if part.type not in _TEXT_TYPES[item.role]:
            advice = f"of {item.role} only {_TEXT_TYPES[item.role][0]} can be taken; sound goes to input_audio_buffer"
            raise ProtocolError("unsupported_content_type", advice, f"item.content[{number}].type")
    text = " ".join(part.text or "" for part in item.content or []).strip()
    if not text:
        raise ProtocolError("invalid_value", "the item says nothing", "item.content")
    if len(text) > limit:
        raise ProtocolError("string_above_max_length", f"longer than {limit} characters", "item.content")
    return text


def _retrieve_item(wire: Wire, event: ConversationItemRetrieve, at_sample: int) -> Answers:
    yield ItemRetrieved(item=wire.items.named(event.item_id, "item_retrieve_invalid_item_id").shown())


def _delete_item(wire: Wire, event: ConversationItemDelete, at_sample: int) -> Answers:
    item = wire.items.named(event.item_id, "item_delete_invalid_item_id")
    if item.turn is not None:
        yield ContextForgotten(at_sample, item.turn, "user" if item.role == "user" else "agent")
    wire.items.remove(item)
    if item.role == "system":
        yield wire.changed(at_sample)
    yield ItemDeleted(item_id=item.id)


def _spoken(wire: Wire, name: str, code: str) -> Item:
    item = wire.items.named(name, code)
    if item.role != "assistant" or item.kind != "audio":
        reason = "Only model output audio messages can be truncated or played"
        raise ProtocolError("unsupported_content_type", reason, "item_id")
    return item


def _truncate_item(wire: Wire, event: ConversationItemTruncate, at_sample: int) -> Answers:
    item = _spoken(wire, event.item_id, "item_truncate_invalid_item_id")
    if event.content_index != 0:
        raise ProtocolError("invalid_value", "there is one content part, 0", "content_index")
    if not 0 <= event.audio_end_ms <= item.sent_ms + TRUNCATION_SLACK_MS:
        reason = f"Audio content of {item.sent_ms}ms is already shorter than {event.audio_end_ms}ms"
        raise ProtocolError("invalid_value", reason, "audio_end_ms")
    assert item.turn is not None, "a reply answers a turn"
    if wire.replying.of(item.turn) is not None:
        yield ReplyCancelled(at_sample)  # whoever stopped listening waits for no more of it
    heard = min(event.audio_end_ms * SAMPLES_PER_MS, item.samples)
    yield ReplyHeard(at_sample, item.turn, heard)
    item.keep(item.heard_sentences(heard))
    yield ItemTruncated(item_id=item.id, audio_end_ms=event.audio_end_ms)


# Responses


def _create_response(wire: Wire, event: ResponseCreate, at_sample: int) -> Answers:
    patch = event.response or ResponsePatch()
    if patch.conversation not in (None, "auto"):
        reason = "responses outside the conversation cannot be made: leave conversation out, or open another session"
        raise ProtocolError("invalid_value", reason, "response.conversation")
    if patch.input:
        reason = "a response answers the conversation: add its input as items first"
        raise ProtocolError("invalid_value", reason, "response.input")
    wanted, asked = _wanted(wire, patch, at_sample)
    wire.replying.ask(asked)
    yield wanted
    yield from _warned(wire, _ignored(wire, patch))


def _wanted(wire: Wire, patch: ResponsePatch, at_sample: int) -> tuple[ReplyRequested, Asked]:
    """What can be had of a response as a client wants it, for the turn machine and for the response object."""
    spoken = None if patch.output_modalities is None else "audio" in patch.output_modalities and wire.defaults.can_speak
    tools = patch.tools is not None or patch.tool_choice is not None
    own = patch.instructions
    if not wire.defaults.reads_words:
        return ReplyRequested(at_sample, spoken), Asked(patch.metadata, None if own is None else "", tools=tools)
    instructions = None if own is None else wire.instructed(own)
    wanted = ReplyRequested(at_sample, spoken, instructions, patch.temperature)
    return wanted, Asked(patch.metadata, own, patch.temperature, tools)


def _ignored(wire: Wire, patch: ResponsePatch) -> Iterator[str]:
    if "audio" in (patch.output_modalities or ()) and not wire.defaults.can_speak:
        yield "response.output_modalities: this server has no voice, replies are in words"
    if patch.instructions and not wire.defaults.reads_words:
        yield f"response.instructions: {NO_READER}"
    if patch.temperature is not None and not wire.defaults.reads_words:
        yield f"response.temperature: {NO_SAMPLER}"
    for name in ("audio", "tools", "tool_choice", "max_output_tokens", "prompt"):
        if getattr(patch, name) not in (None, [], "auto", "none", "inf"):
            yield f"response.{name}: what holds for the session holds for each response"


def _cancel_response(wire: Wire, event: ResponseCancel, at_sample: int) -> Answers:
    wire.replying.check_active(event.response_id)
    yield ReplyCancelled(at_sample)


_ANSWERS: dict[type[ClientMessage], Callable[[Wire, Any, int], Answers]] = {
    SessionUpdate: _update_session,
    InputAudioBufferAppend: _append,
    InputAudioBufferCommit: _commit,
    InputAudioBufferClear: _clear,
    ConversationItemCreate: _create_item,
    ConversationItemDelete: _delete_item,
    ConversationItemRetrieve: _retrieve_item,
    ConversationItemTruncate: _truncate_item,
    ResponseCreate: _create_response,
    ResponseCancel: _cancel_response,
    OutputAudioBufferClear: _clear_output,
    NoemaPlayback: _play,
}
