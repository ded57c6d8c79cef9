"""Reply timeline: what of the spoken replies was given out, and how much of it has been heard. Pure.

Positions are samples at 24 kHz, all replies of a session in a row. Knows nothing of turns but their numbers, and
nothing of the conversation.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SpokenSentence:
    """One sentence of a reply, as far as it sounds."""

    turn: int
    start_sample: int
    end_sample: int


class ReplyTimeline:
    """Grows with every stretch of sound; sentences leave it once they have been heard."""

    def __init__(self) -> None:
        self.heard = 0
        self._given = 0
        self._unheard: list[SpokenSentence] = []

    @property
    def sounding(self) -> int:
        """How many samples are still to be heard."""
        return max(0, self._given - self.heard)

    @property
    def unheard_turns(self) -> list[int]:
        """Turns that have sentences still to be heard to their end, the oldest first."""
        return list(dict.fromkeys(sentence.turn for sentence in self._unheard))

    def give(self, count: int) -> int:
        """Appends sound, and says where it begins."""
        start = self._given
        self._given += count
        return start

    def await_hearing(self, sentence: SpokenSentence) -> None:
        """Keeps a sentence in mind until it has been heard."""
        self._unheard.append(sentence)

    def move(self, heard_sample: int) -> None:
        """So much has been heard by now."""
        self.heard = max(self.heard, heard_sample)
        self._unheard = [sentence for sentence in self._unheard if sentence.end_sample > self.heard]

    def cut(self) -> None:
        """Playback is cleared: nothing of it will sound any more."""
        self.heard = self._given
        self._unheard.clear()

    def half_heard(self, start_sample: int, end_sample: int) -> bool:
        """Whether at least half of a stretch has been heard."""
        return self.heard >= (start_sample + end_sample) / 2

    def missed(self, turn: int) -> int:
        """How many sentences of a turn have not been heard by half."""
        return sum(s.turn == turn and not self.half_heard(s.start_sample, s.end_sample) for s in self._unheard)
