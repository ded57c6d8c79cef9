"""Fragility: measured through the real decoder and encoder, once, and gone on with where it was interrupted."""

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lcm.errors import TrainingDataError
from lcm.models.normalizer import Normalizer
from lcm.space import ConceptSpace
from lcm.training import fragility as module
from lcm.training.concepts import ConceptTable
from lcm.training.fragility import fragility, fragility_path, prepare_fragility
from lcm.training.lcm_variants import lcm_trainer
from tests.lcm.training.conversations import write_concepts
from tests.lcm.training.small_lcms import PLANNING, TWO_TOWER, steps

SHORT = ["Yes, please.", "I like dogs.", "How are you?", "Good morning!"]
LONG = [
    "Kareem Abdul-Jabbar used to have such a dominant dunk that it got banned in college!",
    "Jim Sullivan was a popular performer in California, and decided in 1975 to head for Memphis.",
    "In 2010, the Saints defeated Peyton Manning and the Colts easily to win their first ever title.",
    "The quarterly report of the Danish ministry lists 4,312 barrels of herring shipped from Esbjerg.",
]


@pytest.fixture(scope="module")
def space() -> ConceptSpace:
    return ConceptSpace.load("mini", device="cpu", parts=["text_encoder", "text_decoder"])


@pytest.fixture
def table(space: ConceptSpace, tmp_path: Path) -> ConceptTable:
    concepts = space.encode_text(SHORT + LONG, "eng").numpy().astype(np.float16)
    np.save(tmp_path / "concepts.npy", concepts)
    with lzma.open(tmp_path / "sentences.jsonl.xz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(["eng", text]) + "\n" for text in SHORT + LONG)
    manifest = {"space_id": space.space_id, "rows": len(concepts), "dim": space.dim}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return ConceptTable.open(tmp_path)


def normalizer() -> Normalizer:
    """Of the training concepts, as the bundle's LCM has it."""
    from lcm.engine import Engine

    return Engine.load("mini", "base", device="cpu").model.normalizer


def test_long_sentences_are_more_fragile_than_short_ones(space: ConceptSpace) -> None:
    concepts = space.encode_text(SHORT + LONG, "eng")
    found = fragility(concepts, ["eng"] * 8, space, normalizer(), torch.Generator().manual_seed(0))
    assert bool(((found >= 0) & (found <= 1)).all())
    assert found[:4].mean() < found[4:].mean() - 0.1


class Interrupting:
    """A space that decodes so many batches and then gets Ctrl-C."""

    def __init__(self, space: ConceptSpace, calls: float) -> None:
        self.space, self.calls, self.dim = space, calls, space.dim

    def decode_text(self, *given: Any, **named: Any) -> list[str]:
        if self.calls <= 0:
            raise KeyboardInterrupt
        self.calls -= 1
        return self.space.decode_text(*given, **named)

    def encode_text(self, *given: Any) -> torch.Tensor:
        return self.space.encode_text(*given)


def test_an_interrupted_measurement_goes_on(
    space: ConceptSpace, table: ConceptTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 2)
    rows, whole, cut = np.array([0, 1, 3, 4, 5, 7]), table.folder / "whole.npy", table.folder / "cut.npy"
    prepare_fragility(whole, space, table, rows, normalizer())
    with pytest.raises(KeyboardInterrupt):
        prepare_fragility(cut, Interrupting(space, 6), table, rows, normalizer())  # type: ignore[arg-type]
    assert not cut.exists()
    rest = Interrupting(space, 8)
    prepare_fragility(cut, rest, table, rows, normalizer())  # type: ignore[arg-type]
    assert rest.calls == 0, "of three batches, one was done"
    np.testing.assert_array_equal(np.load(cut), np.load(whole))
    assert np.isnan(np.load(cut)).nonzero()[0].tolist() == [2, 6], "nobody asked for these"
    assert not list(table.folder.glob("*.part.npy"))


def test_it_is_kept_for_one_decoder_and_its_documents(tmp_path: Path) -> None:
    table, other = write_concepts(tmp_path / "a"), write_concepts(tmp_path / "b", stories=True)
    documents = table.documents("train")
    path = fragility_path(table, documents, ["one"])
    assert path.parent == table.folder
    assert path == fragility_path(table, documents, ["one"])
    assert path != fragility_path(table, documents, ["two"])
    assert path != fragility_path(table, other.documents("train"), ["one"])


def test_a_training_measures_once_and_weighs_breaks_as_one(
    small_bundle: Path, small_space: ConceptSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write_concepts(tmp_path / "concepts", small_space.space_id, small_space.dim, stories=True)
    for config in (TWO_TOWER, PLANNING):
        by_fragility = config.model_copy(
            update={"objective": config.objective.model_copy(update={"weighting": "fragility"})}
        )
        with pytest.raises(TrainingDataError, match="give --bundle"):
            lcm_trainer(by_fragility, table, tmp_path / config.variant)
        trainer = lcm_trainer(by_fragility, table, tmp_path / config.variant, bundle=small_bundle)
        importance = trainer.objective.importance  # type: ignore[attr-defined]
        assert len(importance) == len(table.concepts) + 1
        assert importance[-1] == 1
        assert importance[:-1].mean() == pytest.approx(1)
        assert importance.std() > 0
        steps(trainer, 2)
        monkeypatch.setattr(ConceptSpace, "load", None)  # from now on nothing is measured
