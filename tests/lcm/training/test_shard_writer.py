"""The shard writer: shards, what is remembered, and going on after any end."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lcm.errors import TrainingDataError
from lcm.space import ConceptSpace
from lcm.training import shard_collector
from lcm.training.concepts import ConceptTable
from lcm.training.corpus_records import CorpusDocument, Position, Record, Unusable
from lcm.training.data import SPLITS, Split
from lcm.training.shard_collector import Part, Remembered, collect
from lcm.training.shard_writer import Progress, write_shards


@dataclass(frozen=True)
class Told:
    """A corpus of documents that are told one by one."""

    documents: tuple[tuple[str, ...], ...]
    name: str = "told"

    @property
    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "documents": len(self.documents)}

    def records(self, start: Position) -> Iterator[Record]:
        for number, sentences in enumerate(self.documents):
            if number < start[1]:
                continue
            split: Split = SPLITS[number % 3]
            document = CorpusDocument(f"story/{self.name}", "eng", f"d{number}", split, [(2, s) for s in sentences])
            unusable = (Unusable(f"told:{number}", "odd"),) if number % 5 == 4 else ()
            yield Record((0, number + 1), (number + 1) / len(self.documents), document, unusable)


def numbered(count: int, length: int = 4) -> Told:
    """Documents of which each begins with the last one's end."""
    return Told(tuple(tuple(f"Number {n * (length - 1) + i}." for i in range(length)) for n in range(count)))


def written(folder: Path) -> dict[str, bytes]:
    """Everything that is left in the end."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def finish(corpus: Told, out: Path, space: ConceptSpace) -> list[Progress]:
    return list(write_shards(corpus, out, space, shard_rows=10, chunk=4))


def test_every_sentence_has_its_concept_and_every_document_its_sentences(
    tmp_path: Path, small_space: ConceptSpace
) -> None:
    corpus = numbered(20)
    finish(corpus, tmp_path / "out", small_space)
    table = ConceptTable.open(tmp_path / "out", small_space.space_id)
    texts = table.texts()
    assert len(texts) == 61, "what two documents share is encoded once"
    expected = small_space.encode_text([text for _, text in texts], "eng")
    torch.testing.assert_close(table.of(np.arange(61)), expected, rtol=2e-3, atol=2e-3)
    for number, split in enumerate(SPLITS):
        documents = table.documents(split)
        assert documents.names == tuple(f"d{n}" for n in range(number, 20, 3))
        for place, name in enumerate(documents.names):
            rows = documents.sentences[documents.rows(place)]
            assert tuple(texts[row][1] for row in rows) == corpus.documents[int(name[1:])]
            assert documents.corpus(place) == "story/told.eng"


@pytest.mark.parametrize("stop", range(1, 25))
def test_stopped_anywhere_it_goes_on_to_the_same_bits(tmp_path: Path, small_space: ConceptSpace, stop: int) -> None:
    corpus = numbered(20)
    steps = finish(corpus, tmp_path / "whole", small_space)
    assert 24 <= len(steps) <= 40
    running = write_shards(corpus, tmp_path / "cut", small_space, shard_rows=10, chunk=4)
    for _ in range(stop):
        at = next(running)
    running.close()
    rest = finish(corpus, tmp_path / "cut", small_space)
    assert written(tmp_path / "cut") == written(tmp_path / "whole")
    assert at.new + rest[-1].new == 61, "no sentence is encoded twice"


def test_a_chunk_that_was_half_written_is_written_again(tmp_path: Path, small_space: ConceptSpace) -> None:
    corpus = numbered(20)
    finish(corpus, tmp_path / "whole", small_space)
    running = write_shards(corpus, tmp_path / "cut", small_space, shard_rows=10, chunk=4)
    while not (half := tmp_path / "cut/concepts-00002.npy.part").exists():
        next(running)
    running.close()
    whole = half.read_bytes()
    for length in (0, 50, len(whole) - 3, len(whole) - 1):
        half.write_bytes(whole[:length])
        running = write_shards(corpus, tmp_path / "cut", small_space, shard_rows=10, chunk=4)
        next(running)
        running.close()
    half.write_bytes(half.read_bytes()[:-5] if half.exists() else b"")
    finish(corpus, tmp_path / "cut", small_space)
    assert written(tmp_path / "cut") == written(tmp_path / "whole")


def test_what_stood_long_ago_is_forgotten_and_encoded_again(
    tmp_path: Path, small_space: ConceptSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_collector, "REMEMBERED", 1)
    fresh = [(f"Hello {n}.", *(f"Word {n} {i}." for i in range(8))) for n in range(5)]
    finish(Told((*fresh, fresh[0])), tmp_path / "out", small_space)
    texts = list(ConceptTable.open(tmp_path / "out").texts())
    assert len(texts) == 54
    finish(Told((fresh[0], fresh[1], fresh[0])), tmp_path / "near", small_space)
    assert len(list(ConceptTable.open(tmp_path / "near").texts())) == 18


def test_shards_are_no_larger_than_asked_unless_one_document_is(tmp_path: Path, small_space: ConceptSpace) -> None:
    long = tuple(f"Line {n} of many." for n in range(25))
    corpus = Told((*numbered(4).documents, long, *numbered(4).documents))
    finish(corpus, tmp_path / "out", small_space)
    sizes = [len(shard) for shard in ConceptTable.open(tmp_path / "out").concepts._shards]
    assert sum(sizes) == 13 + 25
    assert [size for size in sizes if size > 10] == [25]


def test_a_corpus_that_repeats_itself_fills_no_memory(tmp_path: Path, small_space: ConceptSpace) -> None:
    corpus = Told((("The same again.", "And again."),) * 200)
    parts = list(collect(corpus.records((0, 0)), Part(0, (0, 0)), Remembered(), 10, strict=False))
    assert [(part.sentences, len(part.rows)) for part in parts] == [(80, 2), *[(80, 0)] * 4]
    steps = finish(corpus, tmp_path / "whole", small_space)
    assert steps[-1].counts["documents"] == 200
    table = ConceptTable.open(tmp_path / "whole")
    assert len(table.concepts._shards) == 5
    assert [text for _, text in table.texts()] == ["The same again.", "And again."]
    assert table.of(np.array([1, 0])).shape == (2, small_space.dim)
    assert sum(len(table.documents(split)) for split in SPLITS) == 200
    running = write_shards(corpus, tmp_path / "cut", small_space, shard_rows=10, chunk=4)
    while not (tmp_path / "cut/part-00002.npz").exists():
        next(running)
    running.close()
    finish(corpus, tmp_path / "cut", small_space)
    assert written(tmp_path / "cut") == written(tmp_path / "whole")


def test_another_corpus_or_setting_is_refused_and_changes_nothing(tmp_path: Path, small_space: ConceptSpace) -> None:
    finish(numbered(5), tmp_path / "out", small_space)
    before = written(tmp_path / "out")
    with pytest.raises(TrainingDataError, match=r"\(documents\); remove it"):
        finish(numbered(6), tmp_path / "out", small_space)
    with pytest.raises(TrainingDataError, match="chunk"):
        list(write_shards(numbered(5), tmp_path / "out", small_space, shard_rows=10, chunk=5))
    assert written(tmp_path / "out") == before
    list(write_shards(numbered(6), tmp_path / "out", small_space, replace=True))
    assert len(ConceptTable.open(tmp_path / "out").texts()) == 19


def test_a_folder_of_the_old_form_is_never_written_over(tmp_path: Path, small_space: ConceptSpace) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "concepts.npy").write_bytes(b"hours of work")
    with pytest.raises(TrainingDataError, match="something else"):
        finish(numbered(5), tmp_path, small_space)
    assert (tmp_path / "concepts.npy").read_bytes() == b"hours of work"


def test_two_at_once_are_one_too_many(tmp_path: Path, small_space: ConceptSpace) -> None:
    running = write_shards(numbered(20), tmp_path / "out", small_space, shard_rows=10, chunk=4)
    next(running)
    with pytest.raises(TrainingDataError, match="another process is writing"):
        finish(numbered(20), tmp_path / "out", small_space)
    running.close()
    finish(numbered(20), tmp_path / "out", small_space)


def test_a_corpus_without_a_document_says_what_was_wrong_with_it(tmp_path: Path, small_space: ConceptSpace) -> None:
    corpus = Told((("Alone.",), ("***", "…"), ("One.",), ("Two.",), ("Three.",)))
    with pytest.raises(TrainingDataError, match=r"too_short: 5, unusable: odd: 1, wordless: 2"):
        finish(corpus, tmp_path / "out", small_space)
    assert not (tmp_path / "out/manifest.json").exists()


def test_strict_stops_at_the_first_and_can_be_gone_on_without(tmp_path: Path, small_space: ConceptSpace) -> None:
    with pytest.raises(TrainingDataError, match=r"^told:4: odd$"):
        list(write_shards(numbered(20), tmp_path / "out", small_space, shard_rows=10, chunk=4, strict=True))
    finish(numbered(20), tmp_path / "out", small_space)
    finish(numbered(20), tmp_path / "whole", small_space)
    assert written(tmp_path / "out") == written(tmp_path / "whole")
