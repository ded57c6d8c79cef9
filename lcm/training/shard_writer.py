"""Shard writer: a corpus in, a folder of concept shards out, whatever happens meanwhile.

Shard by shard: its sentences and its documents are collected and written, then its sentences encoded, a chunk at a
time. Killed at any point it goes on behind the last chunk that is on the disk, and the folder is the same to the bit:
a shard's rows are decided before the first is encoded, and a chunk's batches depend on its sentences alone. Concepts
are written, not memory-mapped: a full disk is then an error, not a crash. The manifest comes last. Knows nothing of
where documents come from.
"""

import contextlib
import errno
import fcntl
import json
import lzma
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np

from lcm.errors import TrainingDataError
from lcm.space import ConceptSpace
from lcm.training.concept_shards import concepts_path, read_sentences, sentences_path
from lcm.training.corpus_records import Corpus, Unusable
from lcm.training.data import MAX_CHARS
from lcm.training.document_files import join_documents
from lcm.training.shard_collector import REMEMBERED, Part, Remembered, collect

SOURCE = "source.json"
"""In a folder: of which corpus and with which settings it was begun"""
SHARD_ROWS = 131_072
CHUNK = 2_048
"""sentences encoded between two writes; sorted by length inside"""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a folder is."""

    rows: int
    """encoded, whenever"""
    new: int
    """of them by this run"""
    counts: Counter[str]
    """of what was collected: documents, sentences, and what was left out"""
    share: float
    """of the corpus, read"""
    unusable: tuple[Unusable, ...] = ()
    """found since the last time"""


def write_shards(
    corpus: Corpus,
    out: Path,
    space: ConceptSpace,
    *,
    shard_rows: int = SHARD_ROWS,
    chunk: int = CHUNK,
    strict: bool = False,
    replace: bool = False,
) -> Generator[Progress, None, None]:
    """Write the concepts of `corpus` to `out`, or go on with it; yields after every chunk. Stopping is safe.

    Args:
        corpus: what to encode.
        out: a folder, new or one that holds the beginning of the same.
        space: whose concepts.
        shard_rows: distinct sentences a shard.
        chunk: sentences encoded at once.
        strict: stop at the first record that cannot be used.
        replace: throw away what `out` holds of something else, rather than refuse.

    Raises:
        TrainingDataError: the disk is full, `out` holds something else or is being written to, or no document is left.
    """
    identity = {
        "corpus": corpus.identity,
        "space_id": space.space_id,
        "max_chars": MAX_CHARS,
        "shard_rows": shard_rows,
        "chunk": chunk,
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _alone(out):
            _claim(out, identity, replace=replace)
            if not (out / "manifest.json").exists():
                yield from _shards(corpus, out, space, shard_rows, chunk, strict=strict)
            for path in out.glob("part-*.npz"):
                path.unlink()
    except OSError as error:
        if error.errno in _NO_ROOM:
            advice = "make room and run the same command again: it goes on where it was"
            raise TrainingDataError(f"no room left for {out} ({error.strerror}); {advice}") from error
        raise TrainingDataError(f"cannot write to {out} ({error})") from error


def _shards(
    corpus: Corpus, out: Path, space: ConceptSpace, shard_rows: int, chunk: int, *, strict: bool
) -> Iterator[Progress]:
    done = _collected(out)
    rows, new, counts = 0, 0, Counter[str]()
    for number, earlier in enumerate(done):
        for count, fresh in _encoded(out, number, earlier["rows"], space, chunk):
            new += fresh
            yield Progress(rows + count, new, counts, earlier["share"])
        rows += earlier["rows"]
        counts.update(earlier["counts"])
    if not done or not done[-1]["final"]:
        first = Part(rows, (0, 0) if not done else tuple(done[-1]["after"]))
        records = corpus.records(first.after)
        for part in collect(records, first, _remembered(out, done), shard_rows, strict=strict):
            counts.update(part.counts)
            yield Progress(rows, new, counts, part.share, tuple(part.unusable))
            if part.final and not counts["documents"]:
                raise TrainingDataError(_nothing_left(counts))
            _write_part(out, len(done), part)
            done.append(_summary(part))
            for count, fresh in _encoded(out, len(done) - 1, len(part.rows), space, chunk):
                new += fresh
                yield Progress(rows + count, new, counts, part.share)
            rows += len(part.rows)
    sizes = join_documents(out, [_part_path(out, number) for number in range(len(done))])
    manifest = {
        "space_id": space.space_id,
        "rows": rows,
        "dim": space.dim,
        "shards": [part["rows"] for part in done],
        "documents": sizes,
        "counts": dict(sorted(counts.items())),
    }
    _write_aside(out / "manifest.json", lambda file: file.write((json.dumps(manifest) + "\n").encode()))


def _remembered(out: Path, done: list[dict[str, Any]]) -> Remembered:
    """The sentences of the latest shards, as they were known when the process ended that wrote them."""
    first, shards = 0, []
    for number, part in enumerate(done):
        if number >= len(done) - REMEMBERED:
            shards.append((first, read_sentences(sentences_path(out, number))))
        first += part["rows"]
    return Remembered(shards)


def _claim(out: Path, identity: dict[str, Any], *, replace: bool) -> None:
    """Make `out` a folder of this corpus, or see that it is one; where nothing is written yet, settings may change."""
    note = out / SOURCE
    found = json.loads(note.read_text(encoding="utf-8")) if note.exists() else None
    wanted = json.loads(json.dumps(identity))
    if found == wanted:
        return
    ours = [path for pattern in _FILES for path in out.glob(pattern)]
    if any(path != note for path in ours) and not replace:
        what = "concepts of something else" if found is None else _difference(found, wanted)
        raise TrainingDataError(f"{out} holds {what}; remove it, or give another --out")
    for path in [out / "manifest.json", *ours]:  # the manifest first: without it the rest is nothing
        path.unlink(missing_ok=True)
    _write_aside(note, lambda file: file.write((json.dumps(identity) + "\n").encode()))


_FILES = ("manifest.json", SOURCE, "concepts*.npy*", "sentences*.jsonl.xz*", "documents.*.npz*", "part-*.npz*")


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """What somebody changed, for an error."""
    before, after = ({**entry, **entry["corpus"]} for entry in (found, wanted))
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    names = [name for name in names if name != "corpus"]
    return f"what was begun with other settings or files ({', '.join(names)})"


def _nothing_left(counts: Counter[str]) -> str:
    left_out = ", ".join(f"{name}: {count}" for name, count in sorted(counts.items())) or "no documents"
    return f"no document of two sentences or more could be used ({left_out})"


def _part_path(out: Path, number: int) -> Path:
    return out / f"part-{number:05d}.npz"


def _summary(part: Part) -> dict[str, Any]:
    return {
        "rows": len(part.rows),
        "after": list(part.after),
        "share": part.share,
        "final": part.final,
        "counts": dict(part.counts),
    }


def _write_part(out: Path, number: int, part: Part) -> None:
    """A shard's sentences, then its documents: once those are there the shard is decided."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part.rows).encode()
    packed = lzma.compress(lines, preset=1)
    _write_aside(sentences_path(out, number), lambda file: file.write(packed))
    arrays = {f"{split}.{name}": a for split, of in part.splits.items() for name, a in of.arrays().items()}
    summary = np.array(json.dumps(_summary(part)))
    _write_aside(_part_path(out, number), lambda file: np.savez(file, summary=summary, **arrays))


def _collected(out: Path) -> list[dict[str, Any]]:
    """Summaries of the shards that are decided."""
    found: list[dict[str, Any]] = []
    while (path := _part_path(out, len(found))).exists():
        with np.load(path) as part:
            found.append(json.loads(str(part["summary"])))
    return found


def _encoded(out: Path, number: int, rows: int, space: ConceptSpace, chunk: int) -> Iterator[tuple[int, int]]:
    """Encode what is missing of a shard; yields after each chunk how many rows it has, and how many are new."""
    path = concepts_path(out, number)
    if path.exists() or not rows:
        yield rows, 0
        return
    sentences = read_sentences(sentences_path(out, number))
    header = _header(rows, space.dim)
    aside = path.with_suffix(".npy.part")
    with aside.open("r+b" if aside.exists() else "w+b") as file:
        written = max(0, file.seek(0, os.SEEK_END) - len(header)) // (2 * space.dim)
        done = (
            rows if written == rows else written // chunk * chunk
        )  # what follows the last whole chunk may be half a row
        file.truncate(len(header) + 2 * space.dim * done if done else 0)
        file.seek(0, os.SEEK_END)
        if not done:
            file.write(header)
        for start in range(done, rows, chunk):
            some = sentences[start : start + chunk]
            concepts = space.encode_text([text for _, text in some], [language for language, _ in some])
            file.write(concepts.numpy().astype("<f2").tobytes())
            file.flush()
            os.fsync(file.fileno())
            yield start + len(some), len(some)
    aside.replace(path)


def _header(rows: int, dim: int) -> bytes:
    header = BytesIO()
    shape = {"descr": "<f2", "fortran_order": False, "shape": (rows, dim)}
    np.lib.format.write_array_header_1_0(header, shape)
    return header.getvalue()


def _write_aside(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """All of a file, or nothing."""
    aside = path.with_name(path.name + ".part")
    with aside.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Nobody else writes to `out` meanwhile; a lock dies with its process."""
    with (out / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingDataError(
                f"another process is writing to {out}; wait for it, or give another --out"
            ) from error
        yield
