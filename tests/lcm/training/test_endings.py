"""Models without turns learn where a text ends, say nothing behind it, and take it along into a bundle."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lcm.continuation import continuation, plan
from lcm.engine import ROLE_NARRATOR, Engine
from lcm.errors import TrainingDataError
from lcm.space import ConceptSpace
from lcm.training.concepts import ConceptTable
from lcm.training.endings import END_OF_TEXT, with_ends
from lcm.training.export import export_lcm
from lcm.training.extended_table import ExtendedTable
from lcm.training.lcm_trainer import LcmTrainer
from lcm.training.lcm_variants import DecodedTraining, VariantTraining, lcm_trainer
from lcm.training.packing import PADDING, batch_of, steps_of
from tests.lcm.training.conversations import DIALOGUES, SENTENCES, TURNS, write_concepts
from tests.lcm.training.small_lcms import BASE, RUN, TWO_TOWER, named, steps

PLAIN = BASE.model_copy(update={"model": replace(BASE.model, turns=False)})
NO_TURNS = [PLAIN, TWO_TOWER.model_copy(update={"model": replace(TWO_TOWER.model, turns=False)})]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def table(small_space: ConceptSpace, tmp_path_factory: pytest.TempPathFactory) -> ConceptTable:
    """Stories that are all the same: sentences 0, 1, 2, …"""
    folder = tmp_path_factory.mktemp("concepts")
    write_concepts(folder, small_space.space_id, small_space.dim)
    with np.load(folder / "documents.train.npz") as arrays:
        documents = dict(arrays)
    documents["sentences"] = np.tile(np.arange(TURNS, dtype=np.int32), DIALOGUES)
    documents["roles"] = np.full(DIALOGUES * TURNS, ROLE_NARRATOR, dtype=np.uint8)
    np.savez(folder / "documents.train.npz", **documents)
    return ConceptTable.open(folder)


@pytest.fixture(scope="module")
def end(small_space: ConceptSpace) -> torch.Tensor:
    language, text = END_OF_TEXT
    return small_space.encode_text([text], language)[0]


def trained(config: VariantTraining, table: ConceptTable, run: Path, bundle: Path, count: int) -> LcmTrainer:
    trainer = lcm_trainer(config, table, run, bundle=bundle)
    steps(trainer, count)
    trainer.save()
    return trainer


def test_each_document_ends_and_is_else_as_it_was(table: ConceptTable) -> None:
    plain = table.documents("train")
    ended = with_ends(plain, table)
    assert len(ended) == len(plain)
    for number in range(len(plain)):
        before, rows = plain.rows(number), ended.rows(number)
        assert ended.sentences[rows].tolist() == [*plain.sentences[before], SENTENCES]
        assert ended.roles[rows].tolist() == [*plain.roles[before], plain.roles[before][-1]]
        assert ended.last[rows].tolist() == [*plain.last[before], 1]
    assert [ended.sentences.dtype, ended.roles.dtype] == [plain.sentences.dtype, plain.roles.dtype]


@pytest.mark.parametrize("config", NO_TURNS, ids=named)
def test_the_end_is_the_last_target_of_each_document_and_read_of_none(
    config: VariantTraining, table: ConceptTable, end: torch.Tensor, small_bundle: Path, tmp_path: Path
) -> None:
    trainer = lcm_trainer(config, table, tmp_path, bundle=small_bundle)
    assert isinstance(trainer.table, ExtendedTable)
    plan = config.packing()
    batches = [batch_of(trainer.documents, rows, plan.row) for rows in steps_of(trainer.documents, plan, 0)]
    targets, read = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("targets", "sentences"))
    pieces = torch.cat([batch.pieces for batch in batches])
    is_end = targets == SENTENCES
    assert int(is_end.sum()) == DIALOGUES
    assert not bool((read == SENTENCES).any())
    following = torch.cat([pieces[:, 1:], torch.full((len(pieces), 1), PADDING)], dim=1)
    assert bool((following != pieces)[is_end].all()), "nothing of the document follows"
    assert torch.equal(trainer.table.of(np.array([3, SENTENCES]))[1], end)
    assert torch.equal(trainer.table.of(np.array([3, SENTENCES]))[0], table.of(np.array(3)))


def test_a_model_with_turns_learns_from_the_documents_as_they_are(table: ConceptTable, tmp_path: Path) -> None:
    trainer = lcm_trainer(BASE, table, tmp_path)
    assert trainer.table is table
    assert "ending.concept" not in trainer.averaged()


def test_it_stops_where_its_texts_stopped_and_does_not_say_so(
    table: ConceptTable, end: torch.Tensor, small_bundle: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(small_bundle, tmp_path / "bundle"))
    trained(PLAIN.model_copy(update={"epochs": 15, "crop_share": 0.0}), table, tmp_path / "run", bundle, 1_000)
    export_lcm(tmp_path / "run", bundle, PLAIN.sampling, variant=PLAIN.variant)
    engine = Engine.load(bundle, device="cpu")
    story = table.of(np.arange(TURNS))
    narrator = torch.full((TURNS,), ROLE_NARRATOR)
    torch.testing.assert_close(engine.model.ending.concept, end, rtol=0, atol=2e-3)
    [rest] = engine.predict([story[:5]], [narrator[:5]], max_concepts=8)
    assert len(rest) == TURNS - 5
    assert float(torch.cosine_similarity(rest, end[None]).max()) < 0.9
    [nothing] = engine.predict([story], [narrator], max_concepts=8)
    assert nothing.shape == (0, engine.dim)
    assert len(list(continuation(engine, story[:5], 8))) == TURNS - 5
    assert plan(engine, [told[None] for told in story], 2).shape == (0, engine.dim)


@pytest.mark.parametrize("config", NO_TURNS, ids=named)
def test_a_resumed_run_knows_its_end_without_the_bundle(
    config: VariantTraining, table: ConceptTable, end: torch.Tensor, small_bundle: Path, tmp_path: Path
) -> None:
    whole = trained(config, table, tmp_path / "whole", small_bundle, 6)
    trained(config, table, tmp_path / "cut", small_bundle, 3)
    resumed = lcm_trainer(config, table, tmp_path / "cut")
    steps(resumed, 3)
    averaged = resumed.averaged()
    assert torch.equal(averaged["ending.concept"], end)
    for name, value in whole.averaged().items():
        assert torch.equal(averaged[name], value), name
    after = config.model_copy(update={"initial": "whole"})
    assert torch.equal(lcm_trainer(after, table, tmp_path / "after").averaged()["ending.concept"], end)


def test_without_a_bundle_nobody_knows_what_ends_a_text(table: ConceptTable, tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="give --bundle"):
        lcm_trainer(PLAIN, table, tmp_path)


def test_a_bundle_of_another_space_is_refused(small_bundle: Path, tmp_path: Path) -> None:
    other = write_concepts(tmp_path / "concepts", "another", 32)
    with pytest.raises(TrainingDataError, match="the concepts are of another"):
        lcm_trainer(PLAIN, other, tmp_path / "run", bundle=small_bundle)


def test_the_decoder_is_asked_for_its_words(table: ConceptTable, small_bundle: Path, tmp_path: Path) -> None:
    config = DecodedTraining(**RUN, model=PLAIN.model)
    trainer = lcm_trainer(config, table, tmp_path, bundle=small_bundle)
    speaker = trainer.objective.speaker  # type: ignore[attr-defined]
    concepts = table.of(np.array([0, 1]))
    found = speaker.cross_entropy(concepts, [SENTENCES, 1], 40)
    expected = replace(speaker, texts=_Texts({0: END_OF_TEXT})).cross_entropy(concepts[:1], [0], 40)
    torch.testing.assert_close(found[:1], expected)
    steps(trainer, 2)


class _Texts(dict[int, tuple[str, str]]):
    """As a table's texts."""

    def of(self, rows: Iterator[int]) -> dict[int, tuple[str, str]]:
        return {row: self[row] for row in rows}
