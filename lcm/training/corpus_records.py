"""What a corpus gives: documents one by one, each with the place at which reading goes on behind it. Plain data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lcm.training.data import Split

Position = tuple[int, int]
"""file, and how many of its records lie behind"""


@dataclass(frozen=True, slots=True)
class CorpusDocument:
    """A dialogue or a text."""

    corpus: str
    """«dialogue/self_dialogue», «story/my_books»"""
    language: str
    name: str
    """Identifier; `split` depends on it alone"""
    split: Split
    turns: Sequence[tuple[int, str]]
    """(role, text) of each turn or paragraph; its sentences are not yet told apart"""


@dataclass(frozen=True, slots=True)
class Unusable:
    """What had to be left out."""

    where: str
    """file:line, or the like"""
    kind: str
    """«not UTF-8»: a few kinds, so that they can be counted"""
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True, slots=True)
class Record:
    """A step of reading."""

    after: Position
    share: float
    """how much of the corpus has been read, 0 … 1"""
    document: CorpusDocument | None
    unusable: tuple[Unusable, ...] = ()


class Corpus(Protocol):
    """Documents in an order that never changes."""

    @property
    def identity(self) -> dict[str, Any]:
        """What the documents depend on, as JSON: what is half done goes on only where this is the same."""
        ...

    def records(self, start: Position) -> Iterator[Record]:
        """From a place on that `Record.after` told, (0, 0) at first."""
        ...
