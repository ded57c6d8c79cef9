"""Packing: documents as concept rows in, rows of one length full of whole pieces of documents out.

A piece longer than a row is wrapped: it goes on in another row [LCM §2.3.5]. Concepts of one row see only those of
their own document. What an epoch holds depends on the seed and the epoch's number alone: a resumed run sees the same.
Knows nothing of models or losses.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lcm.models.turns import Turns
from lcm.training.concepts import SYMMETRIC, Documents, exchanged

PADDING = -1
_PACKED_TOGETHER = 4_096
"""Pieces among which whatever fills a row best is looked for"""


@dataclass(frozen=True, slots=True)
class PackedRows:
    """A batch: sentences read, and the sentence after each."""

    sentences: Tensor  # [B, T] row of the concept table; `PADDING` on the right
    targets: Tensor  # [B, T] that of the next sentence
    pieces: Tensor  # [B, T] number of the piece of a document, different throughout the batch; `PADDING`
    turns: Turns  # [B, T]
    asked: Turns  # [B, T] of the next sentence
    last: Tensor  # [B, T] whether the sentence ends its turn

    @property
    def known(self) -> Tensor:
        """[B, T]: what is no padding."""
        return self.sentences != PADDING

    def mask(self, window: int) -> Tensor:
        """[B, 1, T, T]: which concepts each one sees: itself and those before it, of its piece, `window` in all.

        Padding sees itself, so that nothing is undefined.
        """
        index = torch.arange(self.sentences.shape[1], device=self.sentences.device)
        near = (index[None] <= index[:, None]) & (index[None] > index[:, None] - window)
        same = self.pieces[:, :, None] == self.pieces[:, None]
        return (near & same)[:, None]

    def rows(self, chosen: slice) -> "PackedRows":
        """Some of the rows."""
        turns, asked = (Turns(t.roles[chosen], t.places[chosen]) for t in (self.turns, self.asked))
        return PackedRows(
            self.sentences[chosen], self.targets[chosen], self.pieces[chosen], turns, asked, self.last[chosen]
        )

    def to(self, device: torch.device) -> "PackedRows":
        """The same on `device`."""
        return PackedRows(
            self.sentences.to(device), self.targets.to(device), self.pieces.to(device), self.turns.to(device),
            self.asked.to(device), self.last.to(device),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PackingPlan:
    """How documents are cut and packed."""

    row: int
    """concepts read in a row"""
    rows_a_step: int
    crop_share: float
    """of the documents, which begin at a later sentence: the agent knows short pasts too"""
    seed: int
    repeats: Mapping[str, int] = field(default_factory=dict)
    """how often a corpus, such as `xpersona`, is read in an epoch; once if not named"""


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive sentences of a document; the last is a target only."""

    start: int
    """place in the documents' sentences"""
    stop: int
    swapped: bool
    """whether the speakers change places"""

    @property
    def read(self) -> int:
        """How much of a row it takes."""
        return self.stop - self.start - 1


def mistyped(documents: Documents, names: Iterable[str]) -> list[tuple[str, str]]:
    """Names that no corpus has, each with the one that is likely meant.

    A name that is like none is no mistake: one set of repeats serves several folders.
    """
    known = {_short(name) for name in documents.corpus_names}
    near = [(name, difflib.get_close_matches(name, known, n=1, cutoff=0.7)) for name in names if name not in known]
    return [(name, meant[0]) for name, meant in near if meant]


def _short(corpus: str) -> str:
    """«story/african_storybook.fra» → «african_storybook»."""
    return corpus.rsplit("/", maxsplit=1)[-1].split(".", maxsplit=1)[0]


def pieces_of(documents: Documents, plan: PackingPlan, epoch: int) -> list[Piece]:
    """The pieces of an epoch: each sentence but the first of a document is a target once, but for what is cropped."""
    rng = np.random.default_rng((plan.seed, epoch))
    pieces: list[Piece] = []
    corpora = [_short(documents.corpus(number)) for number in range(len(documents))]
    for number in [n for n, corpus in enumerate(corpora) for _ in range(plan.repeats.get(corpus, 1))]:
        rows = documents.rows(number)
        symmetric = corpora[number] in SYMMETRIC
        swapped = bool(symmetric and rng.random() < 0.5)  # noqa: PLR2004
        start, length = rows.start, rows.stop - rows.start
        if rng.random() < plan.crop_share and length > 4:
            start += int(rng.integers(length // 2))
        elif length > plan.row + 1:  # where a book is cut changes from epoch to epoch
            cut = start + 2 + int(rng.integers(plan.row - 1))
            pieces.append(Piece(start, cut, swapped))
            start = cut - 1
        while rows.stop - start >= 2:
            stop = min(start + plan.row + 1, rows.stop)
            pieces.append(Piece(start, stop, swapped))
            start = stop - 1
    return pieces


def packed(pieces: list[Piece], plan: PackingPlan, epoch: int) -> list[list[Piece]]:
    """Rows of pieces, shuffled: of some thousand pieces the longest first, each into the first row with room for it."""
    rng = np.random.default_rng((plan.seed, epoch, 1))
    order = rng.permutation(len(pieces))
    rows: list[list[Piece]] = []
    for first in range(0, len(order), _PACKED_TOGETHER):
        together = [pieces[i] for i in order[first : first + _PACKED_TOGETHER]]
        rows += _first_fit(sorted(together, key=lambda piece: -piece.read), plan.row)
    return [rows[i] for i in rng.permutation(len(rows))]


def _first_fit(pieces: list[Piece], row: int) -> list[list[Piece]]:
    rows: list[list[Piece]] = []
    with_room: list[list[int]] = [[] for _ in range(row + 1)]  # numbers of rows, by how much room they have
    for piece in pieces:
        room = next((r for r in range(piece.read, row + 1) if with_room[r]), None)
        if room is None:
            rows.append([])
            number, room = len(rows) - 1, row
        else:
            number = with_room[room].pop()
        rows[number].append(piece)
        with_room[room - piece.read].append(number)
    return rows


def batch_of(documents: Documents, rows: list[list[Piece]], length: int) -> PackedRows:
    """Rows of pieces as tensors of `length`."""
    shape = (len(rows), length)
    sentences, targets, pieces = (torch.full(shape, PADDING, dtype=torch.int64) for _ in range(3))
    roles, following = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    last, starts = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    number = 0
    for index, row in enumerate(rows):
        at = 0
        for piece in row:
            here, where = slice(at, at + piece.read), slice(piece.start, piece.stop)
            said = torch.from_numpy(documents.sentences[where].astype(np.int64))
            spoken = documents.roles[where].astype(np.int64)
            told = torch.from_numpy(exchanged(spoken) if piece.swapped else spoken)
            sentences[index, here], targets[index, here] = said[:-1], said[1:]
            roles[index, here], following[index, here] = told[:-1], told[1:]
            last[index, here] = torch.from_numpy(documents.last[where][:-1].astype(np.float32))
            pieces[index, here], starts[index, at] = number, True
            number, at = number + 1, at + piece.read
    turns = Turns.of(roles, starts)
    return PackedRows(sentences, targets, pieces, turns, turns.followed_by(following), last)


def steps_of(documents: Documents, plan: PackingPlan, epoch: int) -> list[list[list[Piece]]]:
    """The rows of each step of an epoch."""
    rows = packed(pieces_of(documents, plan, epoch), plan, epoch)
    return [rows[i : i + plan.rows_a_step] for i in range(0, len(rows), plan.rows_a_step)]


def iterate(documents: Documents, plan: PackingPlan, epoch: int, skip: int) -> Iterator[tuple[int, int, PackedRows]]:
    """Batches of one epoch from number `skip` on: number, how many there are, the batch."""
    steps = steps_of(documents, plan, epoch)
    for number, rows in enumerate(steps):
        if number >= skip:
            yield number, len(steps), batch_of(documents, rows, plan.row)
