"""Reply timeline: what of the spoken replies was given out, and how much of it has been heard. Pure.

Positions are samples at 24 kHz, all replies of a session in a row. Knows nothing of turns but their numbers, and
nothing of the conversation.
"""

from collections import OrderedDict
from copy import deepcopy
from dataclasses import dataclass

_TURNS_KEPT = 8
"""How many turns back it is known where their sentences lie"""


@dataclass(slots=True)
class _Span:
    """Where one sentence sounds."""

    start_sample: int
    end_sample: int


class ReplyTimeline:
    """Grows with every stretch of sound; what was said in the last turns can be looked up."""

    def __init__(self, given: int = 0, heard: int = 0) -> None:
        self.given = given
        self.heard = heard
        self._spans: OrderedDict[int, dict[int, _Span]] = OrderedDict()

    def copy(self) -> "ReplyTimeline":
        """Another that goes its own way."""
        return deepcopy(self)

    @property
    def sounding(self) -> int:
        """How many samples are still to be heard."""
        return max(0, self.given - self.heard)

    @property
    def unheard_turns(self) -> list[int]:
        """Turns that have something still to be heard, the oldest first."""
        return [turn for turn, spans in self._spans.items() if any(s.end_sample > self.heard for s in spans.values())]

    def give(self, turn: int, index: int, count: int) -> int:
        """Appends sound of a sentence, and says where it begins."""
        start = self.given
        self.given += count
        spans = self._spans.setdefault(turn, {})
        spans.setdefault(index, _Span(start, start)).end_sample = self.given
        while len(self._spans) > _TURNS_KEPT:
            self._spans.popitem(last=False)
        return start

    def move(self, heard_sample: int) -> None:
        """So much has been heard by now."""
        self.heard = max(self.heard, heard_sample)

    def assume(self, count: int) -> None:
        """Time passes; nobody tells what is heard, so playback is taken to begin with what is given."""
        self.heard = min(self.given, self.heard + count)

    def cut(self) -> None:
        """Playback is cleared: nothing of it will sound any more."""
        self.heard = self.given

    def place(self, turn: int, samples: int) -> int | None:
        """The position `samples` after the beginning of a turn's reply; None if that is not known (any more)."""
        spans = self._spans.get(turn)
        return None if not spans else min(span.start_sample for span in spans.values()) + samples

    def sentences_heard(self, turn: int, position: int | None = None) -> int:
        """How many sentences of a turn were heard up to a position (now), the last of them at least by half.

        One without a sound goes with those around it.
        """
        position = self.heard if position is None else position
        spans = self._spans.get(turn, {})
        heard = [index for index, s in spans.items() if position >= (s.start_sample + s.end_sample) / 2]
        return max(heard) + 1 if heard else 0
