"""The measure of other languages asks the same questions in the words of those, and loses nothing on the way."""

import numpy as np
import pytest
import torch

from lcm.engine import Engine
from lcm.space import ConceptSpace
from lcm.training.concepts import ConceptTable
from scripts.evaluate_zero_shot import OTHERS, Translated, english, measured, rows_of
from tests.lcm.training.conversations import SENTENCES, write_concepts

SAID = ("I need a doctor.", "Where is the station?", "I like music.", "What time is it?")


@pytest.fixture(scope="module")
def space() -> ConceptSpace:
    return ConceptSpace.load("mini", "cpu", parts=["text_encoder", "text_decoder"])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, space: ConceptSpace) -> ConceptTable:
    written = write_concepts(tmp_path_factory.mktemp("concepts"), dim=space.dim)
    concepts = space.encode_text([SAID[n % len(SAID)] for n in range(SENTENCES)], "eng")
    np.save(written.folder / "concepts.npy", concepts.numpy().astype(np.float16))
    return ConceptTable.open(written.folder)


def test_a_row_becomes_what_its_words_in_that_language_say(table: ConceptTable, space: ConceptSpace) -> None:
    rows = np.array([4, 7, 11])
    french = Translated.of_table(table, rows, space, "fra")
    asked = np.array([[11, 4], [7, 7]])
    said = space.decode_text(table.of(asked.flatten()), "fra")
    assert said[1] == "J'ai besoin d'un médecin."
    expected = space.encode_text(said, "fra").view(2, 2, -1)
    torch.testing.assert_close(french.of(asked), expected, rtol=0, atol=1e-4)


def test_every_language_is_asked_and_a_translation_stays_near(table: ConceptTable, space: ConceptSpace) -> None:
    items = english(table.documents("test"), table, 20)
    assert len(items.items) == 20
    shown = set(rows_of(items, 40).tolist())
    assert shown >= {row for item in items.items for row in (items.truth(item), *item.others)}
    figures = measured({"base": Engine.load("mini", space=space)}, items, table, space)
    assert figures["sentences"] == len(shown)
    assert figures["base"].keys() == figures["copy_last"].keys() == {"eng", *OTHERS}
    assert figures["base"]["eng"]["cosine_to_english"] == 1
    assert all(0.5 < figures["base"][language]["cosine_to_english"] < 1 for language in OTHERS)
    assert 0 <= figures["base"]["deu"]["dialogue"]["hits"] <= 100
