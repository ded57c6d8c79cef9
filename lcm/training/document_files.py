"""Document files: the documents of every shard in, one `documents.SPLIT.npz` a split out.

Array by array and shard by shard, straight into the archive: no split has to fit into memory to be written. Knows
nothing of what the numbers mean, but that `lengths` become `starts` and corpora are numbered anew.
"""

import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lcm.training.data import SPLITS

Array = np.ndarray[Any, np.dtype[Any]]


def join_documents(out: Path, parts: Sequence[Path]) -> dict[str, int]:
    """Write `documents.SPLIT.npz` of each split, as `Documents` has it.

    Args:
        out: the folder.
        parts: archives of `SPLIT.NAME` arrays as `SplitPart` gives them, in order.

    Returns:
        How many documents each split has.

    Raises:
        OSError: the disk is full, or a part cannot be read.
    """
    return {split: _join(out / f"documents.{split}.npz", split, parts) for split in SPLITS}


def _join(path: Path, split: str, parts: Sequence[Path]) -> int:
    def of(name: str) -> Iterator[Array]:
        for part in parts:
            with np.load(part) as arrays:
                yield arrays[f"{split}.{name}"]

    numbers: dict[str, int] = {}
    of_part = [[numbers.setdefault(n, len(numbers)) for n in names.tolist()] for names in of("corpus_names")]
    sentences, documents, longest = 0, 0, 1
    for lengths, names in zip(of("lengths"), of("names"), strict=True):
        sentences, documents = sentences + int(lengths.sum()), documents + len(lengths)
        longest = max(longest, names.dtype.itemsize // 4)
    corpora = (
        np.array(numbering)[own] if len(own) else own for own, numbering in zip(of("corpora"), of_part, strict=True)
    )
    corpus_names = np.array(list(numbers), dtype=np.str_)
    aside = path.with_name(path.name + ".part")
    with aside.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            _write_array(archive, "sentences", np.dtype(np.int32), sentences, of("sentences"))
            _write_array(archive, "roles", np.dtype(np.uint8), sentences, of("roles"))
            _write_array(archive, "last", np.dtype(np.uint8), sentences, of("last"))
            _write_array(archive, "starts", np.dtype(np.int64), documents + 1, _starts(of("lengths")))
            _write_array(archive, "corpora", np.dtype(np.int16), documents, corpora)
            _write_array(archive, "corpus_names", corpus_names.dtype, len(numbers), iter([corpus_names]))
            _write_array(archive, "names", np.dtype(f"<U{longest}"), documents, of("names"))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    return documents


def _write_array(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], length: int, pieces: Iterator[Array]
) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        header = {"descr": dtype.str, "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(member, header)
        for piece in pieces:
            member.write(np.ascontiguousarray(piece, dtype=dtype).tobytes())


def _starts(lengths: Iterator[Array]) -> Iterator[Array]:
    total = 0
    yield np.zeros(1, dtype=np.int64)
    for some in lengths:
        yield total + np.cumsum(some)
        total += int(some.sum())
