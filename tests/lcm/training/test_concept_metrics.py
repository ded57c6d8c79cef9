"""Metrics of concepts against answers known beforehand: in the plane, where distances are counted by hand."""

import json
import lzma
from pathlib import Path

import numpy as np
import pytest
import torch

from lcm.training.concept_metrics import Truths, concept_values, contrast_batches, contrastive_accuracy, variance_share
from lcm.training.concepts import ConceptTable, Documents
from lcm.training.reply_items import ReplyItem, ReplyItems, reply_items
from tests.lcm.training.conversations import write_concepts


def plane(folder: Path, points: list[tuple[float, float]]) -> ConceptTable:
    np.save(folder / "concepts.npy", np.array(points, dtype=np.float16))
    with lzma.open(folder / "sentences.jsonl.xz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(["eng", f"Sentence {n}."]) + "\n" for n in range(len(points)))
    manifest = {"space_id": "plane", "rows": len(points), "dim": 2}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return ConceptTable.open(folder)


def one_dialogue(*rows: int) -> Documents:
    count = len(rows)
    return Documents(
        np.array(rows), np.arange(count) % 2, np.ones(count, dtype=np.int64), np.array([0, count]), np.array([0]),
        ("dialogue/self_dialogue.eng",), ("d0",),
    )  # fmt: skip


def test_neither_the_truth_nor_its_neighbours_are_counted(tmp_path: Path) -> None:
    table = plane(tmp_path, [(0, 1), (1, 0), (2, 0), (3, 0), (4, 0), (9, 0)])
    items = ReplyItems(one_dialogue(0, 1, 2, 3, 4, 5), (ReplyItem(0, 2, "dialogue", (), ()),))
    [batch] = contrast_batches(items)
    assert batch.sentences[batch.counted[0].numpy()].tolist() == [0, 4, 5]
    truths = Truths.of(items, table, context=2)
    # (3, 0) is 1 from its truth (2, 0) and from (4, 0); (0, 1) and (9, 0) are farther, and (3, 0) is next door.
    assert contrastive_accuracy(torch.tensor([[3.0, 0.0]]), truths).tolist() == pytest.approx([2 / 3])
    assert contrastive_accuracy(torch.tensor([[2.0, 0.0]]), truths).tolist() == [1.0]
    assert contrastive_accuracy(torch.tensor([[7.0, 0.0]]), truths).tolist() == pytest.approx([1 / 3])


def test_a_sentence_said_twice_is_no_distractor_of_itself(tmp_path: Path) -> None:
    table = plane(tmp_path, [(0, 1), (1, 0), (2, 0), (5, 0)])
    items = ReplyItems(one_dialogue(2, 0, 1, 0, 2, 3), (ReplyItem(0, 4, "dialogue", (), ()),))
    [batch] = contrast_batches(items)
    assert batch.sentences[batch.counted[0].numpy()].tolist() == [0, 1]
    assert contrastive_accuracy(torch.tensor([[2.0, 0.0]]), Truths.of(items, table, context=4)).tolist() == [1.0]


def test_paraphrasing_is_relative_to_the_truth(tmp_path: Path) -> None:
    table = plane(tmp_path, [(1, 0), (0, 1), (3, 4)])
    items = ReplyItems(one_dialogue(0, 1, 2), (ReplyItem(0, 2, "dialogue", (), ()),))
    truths = Truths.of(items, table, context=8)
    values = concept_values(torch.tensor([[6.0, 0.0]]), truths)
    assert values["par"].tolist() == pytest.approx([1.0 / 0.8])
    assert values["l2"].tolist() == pytest.approx([5.0])
    assert values["norm"].tolist() == pytest.approx([6.0])
    assert values["cosine"].tolist() == pytest.approx([0.6])
    near = Truths.of(items, table, context=1)
    assert concept_values(torch.tensor([[6.0, 0.0]]), near)["par"].tolist() == pytest.approx([0.0]), "sees (0, 1) alone"


def test_a_truth_at_right_angles_to_its_context_says_nothing_of_paraphrasing(tmp_path: Path) -> None:
    table = plane(tmp_path, [(1, 0), (0, 1)])
    items = ReplyItems(one_dialogue(0, 1), (ReplyItem(0, 1, "dialogue", (), ()),))
    assert np.isnan(concept_values(torch.tensor([[1.0, 0.0]]), Truths.of(items, table, context=8))["par"]).all()


def test_every_item_has_a_batch_of_its_own_group(tmp_path: Path) -> None:
    table = write_concepts(tmp_path)
    items = reply_items(table.documents("test"), table, per_corpus=200)
    batches = contrast_batches(items, size=100)
    assert sorted(np.concatenate([batch.items for batch in batches]).tolist()) == list(range(len(items.items)))
    assert len(batches) > 2
    assert all(len(batch.sentences) >= 80 for batch in batches), "too few would be too easy"
    again = contrast_batches(items, size=100)
    assert all((a.sentences == b.sentences).all() for a, b in zip(batches, again, strict=True))


def test_a_long_document_is_wrapped(tmp_path: Path) -> None:
    plane(tmp_path, [(n, 0) for n in range(300)])
    items = ReplyItems(one_dialogue(*range(300)), tuple(ReplyItem(0, at, "dialogue", (), ()) for at in (5, 130)))
    [batch] = contrast_batches(items)
    assert sorted(batch.sentences.tolist()) == list(range(256)), "the first two stretches of 128, not the third"


def test_the_mean_has_no_variance() -> None:
    truths = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert variance_share(truths, truths) == pytest.approx(1.0)
    assert variance_share(truths / 2, truths) == pytest.approx(0.25)
    assert variance_share(truths.mean(dim=0).expand(50, -1), truths) == pytest.approx(0.0)
