"""Kept core: a session's core, and all that is needed to bring it back after a crash. Pure.

Stands between the session and its core: notes what the core takes, which of its requests are not answered yet,
and how many messages it gave. `batch` gives what has to be stored before messages are sent. `restored` is the
way back: from a checkpoint through the items that were stored since, to the core as it stood, with the messages
that were never stored and the requests to ask again.

The core is a function of its items. So a stored message needs the items that led to it, and nothing else: items
stored beyond that lead to the messages that are still to be given, once more, when they are taken again.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent.core.core_state import freeze, thaw
from agent.core.events import TurnEnded
from agent.core.inputs import AudioInput, CancelTurn, CommitTurn, Input, ModelRequest, Result, Speak, Voiced, WorkFailed
from agent.core.stored_session import (
    Batch,
    Checkpoint,
    ClientPosition,
    ClientText,
    StoredItem,
    StoredSession,
    from_rows,
    to_rows,
)
from agent.core.turn_state import Step
from agent.errors import StoreError

if TYPE_CHECKING:
    from agent.session import Core

CHECKPOINT_BYTES = 256 * 1024
"""Items since the last checkpoint, eight seconds of sound, after which it is time for another"""
_ITEM_BYTES = 4096
"""Of any other input: at most about a sentence as a concept"""


@dataclass(frozen=True, slots=True)
class Outstanding:
    """A request that is not answered to its end."""

    request: ModelRequest | Speak
    answered: int = 0
    """Results of it that came. Asked again, models and the voice give the same ones first: they are not to be taken
    twice. A chat endpoint may give others; what it says is then cut together from two replies."""


class KeptCore:
    """A core that can be brought back."""

    def __init__(self, core: "Core", client_text: Callable[[Any], str], secret: str = "") -> None:
        """Wraps a core that has taken nothing yet.

        Args:
            core: made of plain data.
            client_text: what the client sends between frames, as the text it came as.
            secret: what opens the session, ASCII. The core may know and say it; something else is stored in its place.
        """
        self._core = core
        self._client_text = client_text
        self._secret = secret
        self._mask = _mask(secret)
        self._open: dict[int, Outstanding] = {}
        self._heard_sample: int | None = None
        self._given = 0
        self._delivered = 0
        self._keeping = False
        self._items: list[StoredItem] = []
        self._items_bytes = 0
        self._checkpoint: Checkpoint | None = None
        self._bytes = 0
        self._turn_ended = False

    @property
    def core(self) -> "Core":
        """What decides."""
        return self._core

    @property
    def ended(self) -> bool:
        """Whether the session is over."""
        return self._core.ended

    @property
    def sample(self) -> int:
        """The clock."""
        return self._core.sample

    @property
    def heard_sample(self) -> int | None:
        """Where the next frame begins; None before the first, which may begin anywhere."""
        return self._heard_sample

    @property
    def outstanding(self) -> list[Outstanding]:
        """Requests that are not answered to their end, in the order in which they were made."""
        return list(self._open.values())

    @property
    def waiting(self) -> int:
        """Items that no batch has brought yet."""
        return len(self._items)

    @property
    def waiting_bytes(self) -> int:
        """The memory that they take, roughly."""
        return self._items_bytes

    def take(self, item: Any) -> list[Step]:
        """What follows from an item, as the core has it."""
        if self._keeping:
            kept = item if isinstance(item, Input) else ClientText(self._client_text(item))
            self._items.append(kept)
            self._items_bytes += _bytes_of(kept)
        if isinstance(item, AudioInput):
            self._heard_sample = item.at_sample
        elif isinstance(item, Result):
            self._note_result(item)
        steps = list(self._core.take(item))
        for step in steps:
            self._note_step(step)
        return steps

    def unmasked(self, text: str) -> str:
        """A message as it was before it was stored."""
        return text.replace(self._mask, self._secret) if self._secret else text

    def begin(self, sent: int = 0) -> None:
        """From here on, everything is kept.

        Args:
            sent: how many of the core's messages were sent before, and will be in no batch.
        """
        self._keeping, self._delivered = True, sent
        self._freeze()

    def stop(self) -> None:
        """Nothing is kept any more."""
        self._keeping = False
        self._forget_items()
        self._checkpoint = None

    def batch(self, messages: Iterable[tuple[int, str]], core_messages: int, position: ClientPosition) -> Batch:
        """What has to be stored before these messages are sent. Batches are to be stored in this order.

        Args:
            messages: number and JSON of each, in ascending order.
            core_messages: how many of them are the core's: all that it gave since the last batch and that are
                not still on their way, in its order; for the first batch, all that were not sent before.
            position: what of all that the client sent has been taken.
        """
        assert self._keeping, "nothing is noted unless it is to be kept"
        due = (self._turn_ended and not self._open) or self._bytes >= CHECKPOINT_BYTES
        masked = tuple((number, self._masked(text)) for number, text in messages)
        self._delivered += core_messages
        if due and self._delivered == self._given:
            self._freeze()
        checkpoint = self._checkpoint
        if checkpoint is not None and checkpoint.messages > self._delivered:
            # Older messages are still on their way: nothing can be resumed before they are stored.
            return Batch((), masked, position, self._delivered)
        rows, self._checkpoint = tuple(to_rows(self._items)), None
        self._forget_items()
        self._bytes += sum(row.size for row in rows)
        return Batch(rows, masked, position, self._delivered, checkpoint)

    def _freeze(self) -> None:
        state = freeze((self._core, self._open, self._heard_sample))
        if self._secret:  # of the same length, so that the state stays what it is
            state = state.replace(self._secret.encode(), self._mask.encode())
        self._checkpoint = Checkpoint(state, self._given)
        self._forget_items()
        self._bytes, self._turn_ended = 0, False

    def _forget_items(self) -> None:
        self._items, self._items_bytes = [], 0

    def _masked(self, text: str) -> str:
        return text.replace(self._secret, self._mask) if self._secret else text

    def _note_result(self, item: Result) -> None:
        outstanding = self._open.get(item.request)
        if outstanding is not None and item.last:
            del self._open[item.request]
        elif outstanding is not None and not isinstance(item, WorkFailed):  # a setback need not come again
            self._open[item.request] = replace(outstanding, answered=outstanding.answered + 1)

    def _note_step(self, step: Step) -> None:
        self._given += len(step.messages)
        self._turn_ended = self._turn_ended or any(isinstance(event, TurnEnded) for event in step.events)
        for request in step.requests:
            if isinstance(request, CancelTurn):
                gone = [
                    n for n, o in self._open.items() if o.request.turn == request.turn and n <= request.last_request
                ]
                for number in gone:
                    del self._open[number]
            elif isinstance(request, CommitTurn):
                for number, o in self._open.items():
                    if o.request.turn == request.turn:
                        self._open[number] = replace(o, request=replace(o.request, committed=True))
            else:
                self._open[request.request] = Outstanding(request)


@dataclass(frozen=True, slots=True)
class Restoration:
    """A session as it stood when the last batch was stored."""

    core: KeptCore
    """Goes on from there; `outstanding` is to be asked again"""
    steps: list[Step]
    """What was taken since the checkpoint, and led to: it happened before"""
    messages: list[Any]
    """Of those, what was never stored, and so never sent: the first to be given"""


def restored(
    stored: StoredSession, client_event: Callable[[str], Any], client_text: Callable[[Any], str], secret: str = ""
) -> Restoration:
    """Brings a session back.

    Args:
        stored: what the store holds.
        client_event: the inverse of `client_text`.
        client_text: as `KeptCore` takes it.
        secret: as `KeptCore` took it.

    Raises:
        StoreError: another version kept it, or it is damaged.
        LogFormatError: it is damaged.
    """
    state = stored.checkpoint.state
    if secret:
        state = state.replace(_mask(secret).encode(), secret.encode())
    core, outstanding, heard_sample = thaw(state)
    kept = KeptCore(core, client_text, secret)
    kept._open, kept._heard_sample, kept._given = outstanding, heard_sample, stored.checkpoint.messages
    steps: list[Step] = []
    for item in from_rows(stored.rows):
        steps += kept.take(client_event(item.text) if isinstance(item, ClientText) else item)
    messages = [message for step in steps for message in step.messages]
    kept._keeping = True
    kept._bytes = sum(row.size for row in stored.rows)
    kept._delivered = stored.core_messages
    unsent = kept._given - kept._delivered
    if not 0 <= unsent <= len(messages):
        raise StoreError(f"session {stored.session_id} is damaged: {unsent} of {len(messages)} messages were not sent")
    return Restoration(kept, steps, messages[len(messages) - unsent :])


def _bytes_of(item: StoredItem) -> int:
    match item:
        case AudioInput() | Voiced():
            return item.samples.nbytes
        case ClientText(text):
            return len(text)
        case _:
            return _ITEM_BYTES


def _mask(secret: str) -> str:
    """As long as the secret, and nothing that anybody would say."""
    return hashlib.sha256(b"masked " + secret.encode("ascii")).hexdigest()[: len(secret)]
