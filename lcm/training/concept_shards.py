"""Concept shards: where a folder of concepts keeps its rows, and reading them as one table.

Row n of the table is row n − starts[s] of shard s: its concept in `concepts-0000s.npy`, its language and text in
`sentences-0000s.jsonl.xz`. A folder of one `concepts.npy` reads as a table of one shard. Concepts are memory-mapped and
texts are unpacked when they are asked for: nothing here grows with the corpus. Knows nothing of documents or models.
"""

import json
import lzma
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from lcm.errors import TrainingDataError

UNPACKED_SHARDS = 16
"""so many shards' texts are held at once, some 9 MB each"""

Ints = np.ndarray[Any, np.dtype[np.integer[Any]]]
Halves = np.ndarray[Any, np.dtype[np.float16]]


def concepts_path(folder: Path, shard: int) -> Path:
    """float16 [n, C]."""
    return folder / f"concepts-{shard:05d}.npy"


def sentences_path(folder: Path, shard: int) -> Path:
    """A line `["eng", "A sentence."]` each row."""
    return folder / f"sentences-{shard:05d}.jsonl.xz"


class ShardedConcepts:
    """Arrays [n, C] that read as one [N, C]."""

    def __init__(self, shards: Sequence[Halves]) -> None:
        self._shards = list(shards)
        self._starts = np.append(0, np.cumsum([len(shard) for shard in shards]))

    @classmethod
    def open(cls, paths: Sequence[Path], rows: Sequence[int], dim: int) -> "ShardedConcepts":
        """Memory-map them.

        Args:
            paths: one a shard.
            rows: how many each must hold.
            dim: how wide each must be.

        Raises:
            TrainingDataError: one is missing, cut off, or of another shape.
        """
        shards: list[Halves] = []
        for path, count in zip(paths, rows, strict=True):
            try:
                shard = np.load(path, mmap_mode="r") if count else np.empty((0, dim), dtype=np.float16)
            except (OSError, ValueError) as error:
                raise TrainingDataError(f"cannot read {path} ({error})") from error
            if shard.shape != (count, dim):
                raise TrainingDataError(f"{path} holds {shard.shape} where the manifest says {(count, dim)}")
            shards.append(shard)
        return cls(shards)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def shape(self) -> tuple[int, int]:
        """[N, C]."""
        return len(self), int(self._shards[0].shape[1])

    def __getitem__(self, rows: Ints) -> Halves:
        """[...] rows → [..., C]; each shard is read once, front to back."""
        if len(self._shards) == 1:
            return np.asarray(self._shards[0][rows])
        wanted = np.asarray(rows).reshape(-1)
        order = np.argsort(wanted, kind="stable")
        ascending = wanted[order]
        if len(ascending) and not 0 <= ascending[0] <= ascending[-1] < len(self):
            raise IndexError(f"rows {ascending[0]} to {ascending[-1]} of a table of {len(self)}")
        bounds = np.searchsorted(ascending, self._starts)
        out = np.empty((len(wanted), self.shape[1]), dtype=np.float16)
        for shard in np.flatnonzero(np.diff(bounds)):
            own = slice(bounds[shard], bounds[shard + 1])
            out[order[own]] = self._shards[shard][ascending[own] - self._starts[shard]]
        return out.reshape(*np.shape(rows), self.shape[1])


class ShardedTexts(Sequence[tuple[str, str]]):
    """(language, text) of every row. For many rows anywhere ask `of`; going through all in order is quick too."""

    def __init__(self, paths: Sequence[Path], rows: Sequence[int]) -> None:
        self._paths = list(paths)
        self._starts = np.append(0, np.cumsum(rows))
        self._unpacked: dict[int, tuple[bytes, Ints]] = {}  # shard → its lines, and where each begins

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, row: int) -> tuple[str, str]: ...
    @overload
    def __getitem__(self, row: slice) -> list[tuple[str, str]]: ...
    def __getitem__(self, row: int | slice) -> tuple[str, str] | list[tuple[str, str]]:
        if isinstance(row, slice):
            return [self[r] for r in range(*row.indices(len(self)))]
        if not 0 <= row < len(self):  # the end of an iteration too
            raise IndexError(f"row {row} of a table of {len(self)}")
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        content, begins = self._lines(shard)
        at = row - int(self._starts[shard])
        language, text = json.loads(content[begins[at] : begins[at + 1]])
        return language, text

    def of(self, rows: Iterable[int]) -> dict[int, tuple[str, str]]:
        """(language, text) of some rows: each shard is unpacked at most once, and none that is held."""
        wanted = np.unique(np.fromiter(map(int, rows), dtype=np.int64))
        shards = np.searchsorted(self._starts, wanted, side="right") - 1
        # Those held are read first: in ascending order each would make way for another just before its turn.
        held = np.isin(shards, list(self._unpacked))
        return {row: self[row] for row in [*wanted[held].tolist(), *wanted[~held].tolist()]}

    def _lines(self, shard: int) -> tuple[bytes, Ints]:
        if (found := self._unpacked.pop(shard, None)) is None:
            found = _unpacked(self._paths[shard])
            while len(self._unpacked) >= UNPACKED_SHARDS:
                del self._unpacked[next(iter(self._unpacked))]
        self._unpacked[shard] = found  # the latest stands last
        return found


def read_sentences(path: Path) -> list[tuple[str, str]]:
    """(language, text) of each row of a shard; raises as `ShardedTexts` does."""
    content, _ = _unpacked(path)
    return [(language, text) for language, text in map(json.loads, content.splitlines())]


def _unpacked(path: Path) -> tuple[bytes, Ints]:
    try:
        content = lzma.decompress(path.read_bytes())
    except (OSError, lzma.LZMAError) as error:
        raise TrainingDataError(f"cannot read {path} ({error})") from error
    ends = np.flatnonzero(np.frombuffer(content, dtype=np.uint8) == ord("\n")) + 1
    return content, np.append(0, ends)
