"""Shard collector: documents in, parts of a folder out: new sentences numbered, documents as rows of numbers.

Pure: it encodes and writes nothing. A sentence that stood in this shard or in one of the `REMEMBERED` before it keeps
its number, so that it is encoded once; what lies further back is forgotten, and memory stays bounded.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lcm.errors import TrainingDataError
from lcm.space.sentences import split_sentences
from lcm.training.corpus_records import CorpusDocument, Position, Record, Unusable
from lcm.training.data import MAX_CHARS, SPLITS, Split

REMEMBERED = 7
REPEATS = 8
"""a shard whose documents have so many sentences a row is closed, however few are new"""
TOLD = 20
"""so many records that cannot be used are kept of a shard, to show them; all are counted"""

Sentence = tuple[str, str]
"""language, text"""
Said = tuple[int, bool, str]
"""role, whether it ends its turn, text"""


@dataclass(slots=True)
class SplitPart:
    """The documents that one shard adds to a split; `Documents` says what each list holds."""

    sentences: list[int] = field(default_factory=list)
    roles: list[int] = field(default_factory=list)
    last: list[bool] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    corpora: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    corpus_names: dict[str, int] = field(default_factory=dict)

    def arrays(self) -> dict[str, Any]:
        """As it is written."""
        return {
            "sentences": np.array(self.sentences, dtype=np.int32),
            "roles": np.array(self.roles, dtype=np.uint8),
            "last": np.array(self.last, dtype=np.uint8),
            "lengths": np.array(self.lengths, dtype=np.int64),
            "corpora": np.array(self.corpora, dtype=np.int16),
            "names": np.array(self.names, dtype=np.str_),
            "corpus_names": np.array(list(self.corpus_names), dtype=np.str_),
        }


@dataclass(slots=True)
class Part:
    """One shard, collected."""

    first_row: int
    after: Position
    """where reading goes on behind it"""
    share: float = 0.0
    final: bool = False
    rows: list[Sentence] = field(default_factory=list)
    splits: dict[Split, SplitPart] = field(default_factory=lambda: {split: SplitPart() for split in SPLITS})
    counts: Counter[str] = field(default_factory=Counter)
    """documents, sentences, and what was left out: too_short, wordless, «unusable: KIND»"""
    unusable: list[Unusable] = field(default_factory=list)
    """the first of them"""

    @property
    def sentences(self) -> int:
        """Repeated ones counted each time."""
        return sum(len(split.sentences) for split in self.splits.values())


class Remembered:
    """Which sentences have a number already: those of the latest shards."""

    def __init__(self, shards: Sequence[tuple[int, Sequence[Sentence]]] = ()) -> None:
        """Of earlier shards: the first row and the sentences of each."""
        self._shards: deque[dict[bytes, int]] = deque(maxlen=REMEMBERED + 1)
        for first, sentences in shards:
            self._shards.append({_digest(sentence): first + n for n, sentence in enumerate(sentences)})
        self.next_shard()

    def next_shard(self) -> None:
        """Begin another; the oldest is forgotten."""
        self._shards.append({})

    def find(self, sentence: Sentence) -> int | None:
        """Its row."""
        digest = _digest(sentence)
        return next((shard[digest] for shard in reversed(self._shards) if digest in shard), None)

    def add(self, sentence: Sentence, row: int) -> None:
        """One of the present shard."""
        self._shards[-1][_digest(sentence)] = row


def collect(
    records: Iterator[Record], first: Part, remembered: Remembered, most: int, *, strict: bool
) -> Iterator[Part]:
    """Parts of at most `most` new sentences, and `REPEATS` times as many in all, cut between documents.

    Only a longer document makes a longer part; of a corpus that repeats itself some parts hold no new sentence.

    Args:
        records: from `first.after` on.
        first: still empty; the others follow it.
        remembered: what stood in earlier shards.
        most: rows a shard.
        strict: stop at the first record that cannot be used.

    Raises:
        TrainingDataError: `strict`, and there was one.
    """
    part = first
    for record in records:
        if strict and record.unusable:
            raise TrainingDataError(str(record.unusable[0]))
        said, wordless = ([], 0) if record.document is None else _said(record.document)
        if part.sentences and _is_full(part, said, record.document, remembered, most):
            yield part
            part = Part(part.first_row + len(part.rows), part.after)
            remembered.next_shard()
        part.after, part.share = record.after, record.share
        part.unusable += record.unusable[: TOLD - len(part.unusable)]
        part.counts.update(f"unusable: {unusable.kind}" for unusable in record.unusable)
        if wordless:
            part.counts["wordless"] += wordless
        if record.document is not None:
            _add(part, record.document, said, remembered)
    part.final = True
    yield part


def _said(document: CorpusDocument) -> tuple[list[Said], int]:
    """The document's sentences, and how many were dropped for want of a letter or digit."""
    said: list[Said] = []
    dropped = 0
    for role, turn in document.turns:
        every = split_sentences(turn, document.language, max_chars=MAX_CHARS)
        kept = [sentence for sentence in every if any(c.isalnum() for c in sentence)]
        said += [(role, number == len(kept), sentence) for number, sentence in enumerate(kept, start=1)]
        dropped += len(every) - len(kept)
    return said, dropped


def _is_full(
    part: Part, said: Sequence[Said], document: CorpusDocument | None, remembered: Remembered, most: int
) -> bool:
    if document is None or len(said) < 2:
        return False
    if part.sentences + len(said) > most * REPEATS:
        return True
    if len(part.rows) + len(said) <= most:
        return False
    new = {text for _, _, text in said if remembered.find((document.language, text)) is None}
    return len(part.rows) + len(new) > most


def _add(part: Part, document: CorpusDocument, said: Sequence[Said], remembered: Remembered) -> None:
    if len(said) < 2:  # nothing follows anything
        part.counts["too_short"] += 1
        return
    split = part.splits[document.split]
    for role, last, text in said:
        sentence = (document.language, text)
        if (row := remembered.find(sentence)) is None:
            row = part.first_row + len(part.rows)
            remembered.add(sentence, row)
            part.rows.append(sentence)
        split.sentences.append(row)
        split.roles.append(role)
        split.last.append(last)
    split.lengths.append(len(said))
    name = f"{document.corpus}.{document.language}"
    split.corpora.append(split.corpus_names.setdefault(name, len(split.corpus_names)))
    split.names.append(document.name)
    part.counts.update({"documents": 1, "sentences": len(said)})


def _digest(sentence: Sentence) -> bytes:
    return hashlib.blake2b("\n".join(sentence).encode(), digest_size=16).digest()
