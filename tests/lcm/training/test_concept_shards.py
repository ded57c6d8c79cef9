"""Concept shards: many files read as one table, and as the single file of old."""

import json
import lzma
from pathlib import Path

import numpy as np
import pytest

from lcm.errors import TrainingDataError
from lcm.training import concept_shards
from lcm.training.concept_shards import ShardedConcepts, ShardedTexts, concepts_path, sentences_path
from lcm.training.concepts import ConceptTable

ROWS, DIM = 23, 6
CONCEPTS = np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float16)
TEXTS = [("eng", f"Sentence «{n}»,\u2028 still itself.") for n in range(ROWS)]
"""U+2028 ends a line for `str.splitlines`, but not in the file"""


def packed(texts: list[tuple[str, str]]) -> bytes:
    return lzma.compress("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in texts).encode())


def write(folder: Path, sizes: list[int]) -> ConceptTable:
    """A table in shards of these sizes; in one file without a number if there are none."""
    folder.mkdir()
    manifest = {"space_id": "space", "rows": ROWS, "dim": DIM} | ({"shards": sizes} if sizes else {})
    (folder / "manifest.json").write_text(json.dumps(manifest))
    if not sizes:
        np.save(folder / "concepts.npy", CONCEPTS)
        (folder / "sentences.jsonl.xz").write_bytes(packed(TEXTS))
    start = 0
    for shard, size in enumerate(sizes):
        np.save(concepts_path(folder, shard), CONCEPTS[start : start + size])
        sentences_path(folder, shard).write_bytes(packed(TEXTS[start : start + size]))
        start += size
    return ConceptTable.open(folder)


@pytest.mark.parametrize("sizes", [[], [ROWS], [10, 10, 3], [1, 0, 22]], ids=str)
def test_a_table_reads_the_same_in_however_many_files(tmp_path: Path, sizes: list[int]) -> None:
    table = write(tmp_path / "table", sizes)
    assert table.concepts.shape == (ROWS, DIM)
    rows = np.array([[22, 0, 9], [10, 9, 19]])
    np.testing.assert_array_equal(table.of(rows).numpy(), CONCEPTS[rows].astype(np.float32))
    np.testing.assert_array_equal(table.concepts[rows.astype(np.int32)[0]], CONCEPTS[rows[0]])
    assert table.of(rows[:, :0]).shape == (2, 0, DIM)
    assert list(table.texts()) == TEXTS
    assert table.texts().of(rows.flatten()) == {row: TEXTS[row] for row in (0, 9, 10, 19, 22)}
    assert table.texts()[np.int32(10)] == TEXTS[10]  # type: ignore[call-overload]
    assert table.texts()[8:12] == TEXTS[8:12]


def test_a_row_that_is_not_there_is_no_other(tmp_path: Path) -> None:
    table = write(tmp_path / "table", [10, 10, 3])
    for row in (-1, ROWS):
        with pytest.raises(IndexError):
            table.of(np.array([0, row]))
        with pytest.raises(IndexError):
            table.texts()[row]


def test_few_shards_of_texts_are_held_and_none_is_unpacked_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "table", [1] * ROWS)
    monkeypatch.setattr(concept_shards, "UNPACKED_SHARDS", 3)
    for shard in range(4, ROWS):
        sentences_path(tmp_path / "table", shard).unlink()
    texts = ShardedTexts([sentences_path(tmp_path / "table", n) for n in range(ROWS)], [1] * ROWS)
    assert texts.of([3, 0, 1, 2]) == {n: TEXTS[n] for n in range(4)}
    assert len(texts._unpacked) == 3
    with pytest.raises(TrainingDataError, match="sentences-00004"):
        texts[4]


def test_shards_that_are_held_are_not_unpacked_again_for_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write(tmp_path / "table", [1] * ROWS)
    unpacked: list[Path] = []
    unpack = concept_shards._unpacked

    def counted(path: Path) -> tuple[bytes, concept_shards.Ints]:
        unpacked.append(path)
        return unpack(path)

    monkeypatch.setattr(concept_shards, "_unpacked", counted)
    monkeypatch.setattr(concept_shards, "UNPACKED_SHARDS", 4)
    texts = table.texts()
    for expected in (5, 1, 1, 1):
        unpacked.clear()
        assert texts.of(range(5)) == {row: TEXTS[row] for row in range(5)}
        assert len(unpacked) == expected


def test_a_shard_that_is_cut_or_missing_is_told_by_name(tmp_path: Path) -> None:
    write(tmp_path / "table", [10, 10, 3])
    np.save(concepts_path(tmp_path / "table", 1), CONCEPTS[:9])
    with pytest.raises(TrainingDataError, match="concepts-00001"):
        ConceptTable.open(tmp_path / "table")
    concepts_path(tmp_path / "table", 1).unlink()
    with pytest.raises(TrainingDataError, match="concepts-00001"):
        ConceptTable.open(tmp_path / "table")


def test_rows_are_gathered_without_loading_the_table(tmp_path: Path) -> None:
    table = write(tmp_path / "table", [10, 10, 3])
    assert all(isinstance(shard, np.memmap) for shard in table.concepts._shards)
    assert isinstance(table.concepts, ShardedConcepts)
