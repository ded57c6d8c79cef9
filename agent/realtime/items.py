"""Items: what the conversation consists of for the client, as far back as is kept. State and its rules, no events.

An item is what one side said in a turn: of user and agent, the turn machine knows it by (turn, role). Nothing here
knows what was meant by it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from agent.realtime.item_object import InputAudioPart, InputTextPart, ItemObject, OutputAudioPart, OutputTextPart
from agent.realtime.models import ItemRole, ItemStatus
from agent.realtime.problems import ProtocolError


@dataclass(slots=True)
class Sentence:
    """One sentence of an item, and where in the item's sound it lies, 24 kHz."""

    text: str
    start_sample: int = 0
    end_sample: int = 0


@dataclass(slots=True)
class Item:
    """What one side said in a turn."""

    id: str
    role: ItemRole
    kind: Literal["text", "audio"]
    turn: int | None = None
    """None: not bound yet, or of the system"""
    status: ItemStatus = "completed"
    sentences: dict[int, Sentence] = field(default_factory=dict)
    """Of a spoken user's item: the transcript, once it is known"""
    start_sample: int = 0
    """Of a reply's sound on the reply timeline, 24 kHz"""
    samples: int = 0
    """Of sound: a reply's at 24 kHz, a user's at 16 kHz"""
    sent_ms: int = 0
    """Of a reply's sound, as the client can count it"""

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(self.sentences[index].text for index in sorted(self.sentences))

    def shown(self, *, content: bool = True) -> ItemObject:
        """As the wire has it; without content while it is being made."""
        part: InputTextPart | InputAudioPart | OutputTextPart | OutputAudioPart
        if self.role != "assistant":
            transcript = self.text if self.sentences else None
            part = InputTextPart(text=self.text) if self.kind == "text" else InputAudioPart(transcript=transcript)
        else:
            part = OutputTextPart(text=self.text) if self.kind == "text" else OutputAudioPart(transcript=self.text)
        return ItemObject(id=self.id, status=self.status, role=self.role, content=[part] if content else [])

    def heard_sentences(self, samples: int) -> int:
        """How many sentences lie in so much of the sound, the last of them at least by half."""
        heard = [i for i, s in self.sentences.items() if s.end_sample and 2 * samples >= s.start_sample + s.end_sample]
        return max(heard) + 1 if heard else 0

    def keep(self, sentences: int) -> None:
        """Forgets what comes after so many."""
        self.sentences = {index: sentence for index, sentence in self.sentences.items() if index < sentences}


class Items:
    """The items that are kept, in the order of the conversation."""

    def __init__(self, prefix: str, limit: int) -> None:
        """Ids begin with `item_{prefix}_`."""
        self._prefix = f"item_{prefix}_"
        self._limit = limit
        self._made = 0
        self._kept: dict[str, Item] = {}
        self._turns: dict[tuple[int, ItemRole], Item] = {}

    @property
    def last_id(self) -> str | None:
        """What the next item follows."""
        return next(reversed(self._kept), None)

    @property
    def any_made(self) -> bool:
        """Whether there ever was one."""
        return self._made > 0

    def new_id(self) -> str:
        """An id that no other item has."""
        self._made += 1
        return f"{self._prefix}{self._made}"

    def checked_id(self, name: str) -> str:
        """A client's own id for an item; it may be that of one that was deleted.

        Raises:
            ProtocolError: it is taken, or ours to give.
        """
        if name in self._kept:
            raise ProtocolError("item_create_duplicate_item_id", f"there is an item {name!r} already", "item.id")
        number = name.removeprefix(self._prefix)
        if number != name and not (number.isdecimal() and int(number) <= self._made):
            raise ProtocolError("invalid_value", f"ids that begin with {self._prefix} are given here", "item.id")
        self._made += 1
        return name

    def add(self, item: Item) -> str | None:
        """Appends one; gives the id of the one before. Beyond the limit the oldest leaves."""
        previous = self.last_id
        self._kept[item.id] = item
        while len(self._kept) > self._limit:
            self.remove(next(iter(self._kept.values())))
        return previous

    def before(self, item: Item) -> str | None:
        """The id of the item before one; None too where it is not kept."""
        ids = list(self._kept)
        place = ids.index(item.id) if item.id in self._kept else 0
        return ids[place - 1] if place else None

    def bind(self, item: Item, turn: int) -> None:
        """From now on the turn machine knows it by its turn."""
        item.turn = turn
        self._turns[turn, item.role] = item

    def remove(self, item: Item) -> None:
        """Forgets one."""
        self._kept.pop(item.id, None)
        if item.turn is not None:
            self._turns.pop((item.turn, item.role), None)

    def of(self, turn: int, role: ItemRole) -> Item | None:
        """What one side said in a turn; None if it is not kept (any more)."""
        return self._turns.get((turn, role))

    def of_system(self) -> Iterable[Item]:
        """Instructions given as items."""
        return (item for item in self._kept.values() if item.role == "system")

    def named(self, name: str, code: str) -> Item:
        """The item that a client means.

        Raises:
            ProtocolError: there is none; `code` tells what it was wanted for, and clients know each by heart.
        """
        item = self._kept.get(name)
        if item is None:
            reason = f"no item {name!r} in the conversation: deleted, unknown, or older than the last {self._limit}"
            raise ProtocolError(code, reason, "item_id")
        return item
