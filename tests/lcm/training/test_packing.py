"""Packing: every sentence is read where it should be, rows are full, and nothing sees another document."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lcm.models.turns import ROLE_NARRATOR
from lcm.training.concepts import ConceptTable, Documents
from lcm.training.packing import PADDING, PackingPlan, Piece, batch_of, mistyped, packed, pieces_of, steps_of
from tests.lcm.training.conversations import DIALOGUES, TURNS, write_concepts

PLAN = PackingPlan(row=20, rows_a_step=4, crop_share=0.0, seed=0)


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Documents:
    return write_concepts(tmp_path_factory.mktemp("concepts")).documents("train")


def test_each_sentence_but_the_first_is_a_target_once(documents: Documents) -> None:
    for plan in (PLAN, PackingPlan(row=3, rows_a_step=4, crop_share=0.0, seed=0)):
        pieces = pieces_of(documents, plan, 0)
        targets = sorted(at for piece in pieces for at in range(piece.start + 1, piece.stop))
        assert targets == [at for at in range(DIALOGUES * TURNS) if at % TURNS]
        assert max(piece.read for piece in pieces) <= plan.row


def test_a_corpus_is_read_as_often_as_asked(documents: Documents) -> None:
    thrice = replace(PLAN, repeats={"self_dialogue": 3, "another": 9})
    assert len(pieces_of(documents, thrice, 0)) == 3 * len(pieces_of(documents, PLAN, 0))


def test_a_mistyped_corpus_is_noticed_and_one_of_another_folder_is_let_be(documents: Documents) -> None:
    names = ["self_dialogue", "self_dialog", "xpersona"]
    assert mistyped(documents, names) == [("self_dialog", "self_dialogue")]


def test_rows_are_filled_with_whole_pieces(documents: Documents) -> None:
    rows = packed(pieces_of(documents, PLAN, 0), PLAN, 0)
    assert sorted(p.start for row in rows for p in row) == sorted(p.start for p in pieces_of(documents, PLAN, 0))
    lengths = [sum(piece.read for piece in row) for row in rows]
    assert max(lengths) <= PLAN.row
    assert lengths.count(2 * (TURNS - 1)) >= len(rows) - 1, "two dialogues of seven fit into twenty"


def test_an_epoch_depends_on_its_number_alone(documents: Documents) -> None:
    assert steps_of(documents, PLAN, 1) == steps_of(documents, PLAN, 1)
    assert steps_of(documents, PLAN, 1) != steps_of(documents, PLAN, 2)


def test_a_row_holds_its_pieces_side_by_side_and_swaps_speakers(documents: Documents) -> None:
    batch = batch_of(
        documents, [[Piece(0, 5, swapped=True), Piece(8, 11, swapped=False)], [Piece(16, 18, swapped=False)]], 8
    )
    assert batch.sentences[0].tolist() == [*documents.sentences[0:4], *documents.sentences[8:10], PADDING, PADDING]
    assert batch.targets[0].tolist() == [*documents.sentences[1:5], *documents.sentences[9:11], PADDING, PADDING]
    assert batch.pieces[:, 0].tolist() == [0, 2]
    assert batch.turns.roles[0, :6].tolist() == [1, 0, 1, 0, 0, 1]
    assert batch.asked.roles[0, :6].tolist() == [0, 1, 0, 1, 1, 0]
    assert batch.turns.places[0, :6].tolist() == [0] * 6, "a new document begins a new turn"
    assert batch.known.sum(dim=1).tolist() == [6, 1]


def test_a_system_turn_stays_the_narrators_when_speakers_are_swapped(documents: Documents) -> None:
    roles = documents.roles.copy()
    roles[0] = ROLE_NARRATOR
    batch = batch_of(replace(documents, roles=roles), [[Piece(0, 5, swapped=True)]], 4)
    assert batch.turns.roles[0].tolist() == [ROLE_NARRATOR, 0, 1, 0]


def test_concepts_see_their_own_piece_no_further_than_the_window(documents: Documents) -> None:
    mask = batch_of(documents, [[Piece(0, 5, swapped=False), Piece(8, 11, swapped=False)]], 7).mask(3)[0, 0]
    seen = [[i for i in range(7) if row[i]] for row in mask.tolist()]
    assert seen == [[0], [0, 1], [0, 1, 2], [1, 2, 3], [4], [4, 5], [6]]


def test_a_sample_of_documents_holds_them_whole(documents: Documents) -> None:
    few = documents.sample(0.3)
    assert 0.1 * len(documents) < len(few) < 0.5 * len(documents)
    assert documents.sample(1.0).names == documents.names
    for number, name in enumerate(few.names):
        whole = documents.rows(documents.names.index(name))
        assert few.sentences[few.rows(number)].tolist() == documents.sentences[whole].tolist()


def test_the_tables_rows_are_what_the_batch_names(tmp_path: Path) -> None:
    table: ConceptTable = write_concepts(tmp_path)
    batch = batch_of(table.documents("train"), [[Piece(0, 5, swapped=False)]], 6)
    concepts = table.of(batch.sentences.clamp_min(0).numpy())
    torch.testing.assert_close(concepts[0, 0], table.of(batch.sentences[0, :1].numpy())[0])
