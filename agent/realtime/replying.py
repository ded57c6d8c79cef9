"""Replying: which turns are to be answered, which response is under way, and how those end that never began.

Every turn that wants a reply gets exactly one response, whatever becomes of it, and no two of them overlap. Knows
nothing of what was said.
"""

from collections.abc import Iterator
from typing import Protocol

from agent.core.events import ConceptsKnown, ReplyTruncated, TurnCommitted, TurnEnd
from agent.realtime.items import Items
from agent.realtime.problems import ProtocolError
from agent.realtime.response import Asked, Response, ResponseState
from agent.realtime.server_events import ItemTruncated, ServerEvent
from audio.frames import VOICE_RATE

SAMPLES_PER_MS = VOICE_RATE // 1000
_ENDINGS_KEPT = 64
"""Turns that ended unanswered while another was being answered; more are not told of"""


class ResponseMaker(Protocol):
    """Who knows the settings."""

    def new_response(self, turn: int, spoken: bool | None) -> ResponseState:
        """What a response to a turn is like: spoken or not, or as the settings say."""
        ...


class Replying:
    """One session's replies. Methods give the events that follow."""

    def __init__(self, items: Items, maker: ResponseMaker) -> None:
        self._items = items
        self._maker = maker
        self.reason = ""
        """The last warning: why something failed"""
        self._due: dict[int, Asked] = {}
        """Turns that will be answered, and what the client asked for in this response alone"""
        self._waiting: list[int] = []
        """Turns that are answered if the client asks, as they were committed"""
        self._asked = Asked()
        """For the turn that a request makes"""
        self._response: Response | None = None
        self._understood = {"audio": 0, "text": 0}
        """Concepts of the user that no reply has counted yet"""
        self._endings: list[tuple[int, TurnEnd]] = []
        """Turns that were due and ended unanswered, for when no response is under way"""
        self._truncation: tuple[int, ItemTruncated | None] | None = None
        """Of the response under way, once it is closed: how many sentences were heard, and how that is told"""

    def of(self, turn: int) -> Response | None:
        """The one under way, if it answers this turn."""
        return self._response if self._response is not None and self._response.state.turn == turn else None

    # What the client asks for

    def ask(self, asked: Asked) -> None:
        """A reply is asked for.

        Raises:
            ProtocolError: one is under way or due.
        """
        if self._response is not None or self._due:
            active = self._response.state.id if self._response else "one that is about to begin"
            reason = f"Conversation already has an active response: {active}. Wait until it is done, or cancel it."
            raise ProtocolError("conversation_already_has_active_response", reason)
        if self._waiting:
            self._due[self._waiting.pop()] = asked
        else:
            self._asked = asked

    def check_active(self, response_id: str | None) -> None:
        """A response is to be cancelled.

        Raises:
            ProtocolError: it is not under way.
        """
        active = None if self._response is None else self._response.state.id
        if active is None or response_id not in (None, active):
            raise ProtocolError("response_cancel_not_active", "Cancellation failed: no active response found.")

    # What happens

    def committed(self, event: TurnCommitted) -> None:
        """A turn is complete."""
        if not event.wants_reply:
            self._waiting.append(event.turn)
        elif event.source == "none":
            self._due[event.turn], self._asked = self._asked, Asked()
        else:
            self._due[event.turn] = Asked()

    def started(self, turn: int, *, spoken: bool | None) -> Iterator[ServerEvent]:
        """A turn is being answered."""
        assert self._response is None, "replies do not overlap"
        state = self._maker.new_response(turn, spoken)
        state.asked = self._due.pop(turn, Asked())
        self._response = Response(state, self._items)
        self._count(self._response)
        yield from self._response.created()

    def ended(self, turn: int, status: TurnEnd) -> Iterator[ServerEvent]:
        """Nothing more comes of a reply."""
        yield from self._close(turn, status)
        truncation, self._truncation = self._truncation, None
        if truncation is not None:
            yield from self._truncate(turn, *truncation)
        while self._endings:
            yield from self._unanswered(*self._endings.pop(0))

    def understood(self, event: ConceptsKnown) -> Iterator[ServerEvent]:
        """Concepts of either side: those of a user are counted, those of a reply begin what is said."""
        response = self.of(event.turn)
        if event.role == "agent":
            if response is not None:
                yield from response.begin_item()
            return
        item = self._items.of(event.turn, "user")
        kind = "audio" if item is not None and item.kind == "audio" else "text"
        self._understood[kind] += len(event.concepts)
        if response is not None:
            self._count(response)

    def _count(self, response: Response) -> None:
        """What was understood since the last reply is what this one answers, whichever came first."""
        response.state.heard += self._understood["audio"]
        response.state.read += self._understood["text"]
        self._understood = dict.fromkeys(self._understood, 0)

    def truncated(self, event: ReplyTruncated, *, told: bool) -> Iterator[ServerEvent]:
        """Speech stopped the sound of a reply. Of one under way it is told once that is closed."""
        item = self._items.of(event.turn, "assistant")
        if item is None or item.kind != "audio":
            return
        heard = min(max(event.heard_sample - item.start_sample, 0), item.samples) // SAMPLES_PER_MS
        # Other clients say themselves what was heard, and take this event for the answer.
        message = ItemTruncated(item_id=item.id, audio_end_ms=heard) if told else None
        if self.of(event.turn) is None:
            yield from self._truncate(event.turn, event.kept_sentences, message)
        else:
            self._truncation = (event.kept_sentences, message)

    def turn_ended(self, turn: int, status: TurnEnd) -> Iterator[ServerEvent]:
        """Nothing more comes of a turn. One that was due and never answered gets its response now."""
        if turn in self._waiting:
            self._waiting.remove(turn)
        if turn not in self._due:
            return
        if self._response is None:
            yield from self._unanswered(turn, status)
        elif len(self._endings) < _ENDINGS_KEPT:
            self._endings.append((turn, status))
        else:
            del self._due[turn]

    def _unanswered(self, turn: int, status: TurnEnd) -> Iterator[ServerEvent]:
        yield from self.started(turn, spoken=None)
        yield from self._close(turn, status)

    def _close(self, turn: int, status: TurnEnd) -> Iterator[ServerEvent]:
        response = self.of(turn)
        assert response is not None, "only a reply that started ends"
        yield from response.end(status, self.reason)
        self._response = None

    def _truncate(self, turn: int, sentences: int, message: ItemTruncated | None) -> Iterator[ServerEvent]:
        item = self._items.of(turn, "assistant")
        if item is not None:
            item.keep(sentences)
        if message is not None:
            yield message
