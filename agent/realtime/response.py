"""Response: the life of one reply on the wire, from `response.created` to `response.done`.

    created → output_item.added → item.added → content_part.added → deltas … → their *.done → content_part.done
            → item.done → output_item.done → done

One item with one content part, which begin with the first thing there is to say: a reply may end before. Knows
nothing of turns but their numbers, nor of what comes before and after.
"""

import base64
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from agent.core.events import FloatArray, TurnEnd
from agent.realtime.item_object import (
    AudioPart,
    ResponseAudio,
    ResponseObject,
    ResponseOutput,
    StatusDetails,
    StatusError,
    TextPart,
    Usage,
)
from agent.realtime.items import Item, Items, Sentence
from agent.realtime.models import AudioFormatObject, ItemStatus
from agent.realtime.server_events import (
    AudioDelta,
    AudioDone,
    AudioTranscriptDelta,
    AudioTranscriptDone,
    ContentPartAdded,
    ContentPartDone,
    ItemAdded,
    ItemDone,
    OutputItemAdded,
    OutputItemDone,
    ResponseCreated,
    ResponseDone,
    ServerEvent,
    TextDelta,
    TextDone,
)
from audio.frames import VOICE_RATE
from audio.telephony import RATES, SAMPLE_BYTES, AudioEncoder, AudioFormat

_ENDS: dict[TurnEnd, StatusDetails] = {
    "done": StatusDetails(type="completed"),
    "interrupted": StatusDetails(type="cancelled", reason="turn_detected"),
    "cancelled": StatusDetails(type="cancelled", reason="client_cancelled"),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asked for in one response alone, as it holds; None: it did not."""

    metadata: dict[str, Any] | None = None
    instructions: str | None = None
    """Empty where nobody reads them"""
    temperature: float | None = None
    tools: bool = False
    """Of which there are none"""


@dataclass(slots=True)
class ResponseState:
    """What a reply is like, and how far it has come."""

    id: str
    turn: int
    conversation_id: str
    spoken: bool
    audio_format: AudioFormat
    voice: str
    asked: Asked = Asked()
    heard: int = 0
    """Concepts that were said to it"""
    read: int = 0
    """Concepts that were written to it"""
    sent_bytes: int = 0


class Response:
    """One reply. Every method gives the events that follow."""

    def __init__(self, state: ResponseState, items: Items) -> None:
        self.state = state
        self._items = items
        self._encoder = AudioEncoder(state.audio_format)
        self._item: Item | None = None

    def created(self) -> Iterator[ServerEvent]:
        """It begins."""
        yield ResponseCreated(response=self._shown())

    def begin_item(self) -> Iterator[ServerEvent]:
        """There is something to say; nothing follows if that was so before."""
        if self._item is not None:
            return
        state = self.state
        item = Item(self._items.new_id(), "assistant", "audio" if state.spoken else "text", status="in_progress")
        previous = self._items.add(item)
        self._items.bind(item, state.turn)
        self._item = item
        yield OutputItemAdded(response_id=state.id, item=item.shown(content=False))
        yield ItemAdded(previous_item_id=previous, item=item.shown(content=False))
        part = AudioPart(transcript="") if state.spoken else TextPart(text="")
        yield ContentPartAdded(response_id=state.id, item_id=item.id, part=part)

    def say(self, index: int, text: str) -> Iterator[ServerEvent]:
        """One more sentence."""
        yield from self.begin_item()
        item = self._begun
        delta = f" {text}" if item.sentences else text
        item.sentences[index] = Sentence(text)
        if not delta.strip():
            return
        if self.state.spoken:
            yield AudioTranscriptDelta(response_id=self.state.id, item_id=item.id, delta=delta)
        else:
            yield TextDelta(response_id=self.state.id, item_id=item.id, delta=delta)

    def sound(self, index: int, start_sample: int, samples: FloatArray) -> Iterator[ServerEvent]:
        """One more stretch of sound; `start_sample` is its place on the reply timeline."""
        yield from self.begin_item()
        item = self._begun
        if not item.samples:
            item.start_sample = start_sample
        sentence = item.sentences.setdefault(index, Sentence(""))
        if not sentence.end_sample:
            sentence.start_sample = start_sample - item.start_sample
        item.samples = sentence.end_sample = start_sample - item.start_sample + len(samples)
        yield from self._delta(self._encoder.push(samples))

    def end(self, status: TurnEnd, error: str) -> Iterator[ServerEvent]:
        """Nothing more comes. Cut short, it gives no more sound; `error` says why it failed, where it did."""
        if self._item is not None:
            yield from self._end_item("completed" if status == "done" else "incomplete")
        yield ResponseDone(response=self._shown(_details(status, error)))

    @property
    def _begun(self) -> Item:
        assert self._item is not None, "begin_item comes first"
        return self._item

    def _delta(self, content: bytes) -> Iterator[ServerEvent]:
        if not content:
            return
        state, item = self.state, self._begun
        state.sent_bytes += len(content)
        bytes_per_second = RATES[state.audio_format] * SAMPLE_BYTES[state.audio_format]
        item.sent_ms = math.ceil(1000 * max(state.sent_bytes / bytes_per_second, item.samples / VOICE_RATE))
        delta = base64.b64encode(content).decode("ascii")
        yield AudioDelta(response_id=state.id, item_id=item.id, delta=delta)

    def _end_item(self, status: ItemStatus) -> Iterator[ServerEvent]:
        state, item = self.state, self._begun
        item.status = status
        if state.spoken:
            if status == "completed":
                yield from self._delta(self._encoder.flush())
            yield AudioDone(response_id=state.id, item_id=item.id)
            yield AudioTranscriptDone(response_id=state.id, item_id=item.id, transcript=item.text)
            yield ContentPartDone(response_id=state.id, item_id=item.id, part=AudioPart(transcript=item.text))
        else:
            yield TextDone(response_id=state.id, item_id=item.id, text=item.text)
            yield ContentPartDone(response_id=state.id, item_id=item.id, part=TextPart(text=item.text))
        yield ItemDone(previous_item_id=self._items.before(item), item=item.shown())
        yield OutputItemDone(response_id=state.id, item=item.shown())

    def _shown(self, details: StatusDetails | None = None) -> ResponseObject:
        state = self.state
        output = ResponseOutput(format=AudioFormatObject.of(state.audio_format), voice=state.voice)
        return ResponseObject(
            id=state.id,
            status=details.type if details else "in_progress",
            status_details=details,
            output=[self._item.shown()] if details and self._item else [],
            conversation_id=state.conversation_id,
            output_modalities=["audio"] if state.spoken else ["text"],
            audio=ResponseAudio(output=output),
            usage=self._usage() if details else None,
            metadata=state.asked.metadata,
            instructions=state.asked.instructions,
            temperature=state.asked.temperature,
            tools=[] if state.asked.tools else None,
            tool_choice="none" if state.asked.tools else None,
        )

    def _usage(self) -> Usage:
        made, spoken = len(self._item.sentences) if self._item else 0, self.state.spoken
        said, written = (made, 0) if spoken else (0, made)
        return Usage.of(heard=self.state.heard, read=self.state.read, said=said, written=written)


def _details(status: TurnEnd, error: str) -> StatusDetails:
    known = _ENDS.get(status)
    if known is not None:
        return known
    code = "overloaded" if status == "dropped" else "reply_failed"
    message = error or "the reply could not be made"
    return StatusDetails(type="failed", error=StatusError(type="server_error", code=code, message=message))
