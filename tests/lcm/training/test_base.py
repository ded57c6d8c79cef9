"""Training of the Base-LCM: it learns, resumes to the same losses, and its windows cover what they should."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lcm.bundle import BundleWriter
from lcm.engine import Engine
from lcm.errors import TrainingDataError
from lcm.training.base import BaseTrainer, BaseTraining, contrast_logits, reply_rows
from lcm.training.base_batches import PADDING, WindowPlan, epoch_windows, planned, windows_of
from lcm.training.concepts import ConceptTable
from lcm.training.evaluate_lcm import answers, concept_figures, hit_figures, lcm_baselines, predictions
from lcm.training.export import export_base
from lcm.training.reply_items import reply_items
from tests.lcm.training.conversations import DIALOGUES, DIM, TURNS, write_concepts

SMALL = BaseTraining(
    dim=32, layers=1, heads=2, ffn_dim=48, dropout=0.1, window=6, sentences_a_step=60, epochs=6, lr=3e-3,
    bank_negatives=8, warmup_steps=5, evaluate_items=20, checkpoint_every=1_000,
)  # fmt: skip


@pytest.fixture(scope="module")
def concepts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("concepts")
    write_concepts(folder)
    return folder


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_it_learns_what_follows(concepts: Path, tmp_path: Path) -> None:
    trainer = BaseTrainer(SMALL, concepts, tmp_path)
    rows = [row for row in trainer.train() if row]
    hits = [row["hits dialogue"] for row in rows if "hits dialogue" in row]
    assert len(hits) == SMALL.epochs
    assert hits[-1] > 40.0, "chance is 5"


def test_a_resumed_run_has_the_same_losses(concepts: Path, tmp_path: Path) -> None:
    def steps(trainer: BaseTrainer, count: int) -> None:
        for _ in islice(trainer.train(), count):
            pass

    whole = BaseTrainer(SMALL, concepts, tmp_path / "whole")
    steps(whole, 14)
    cut = BaseTrainer(SMALL, concepts, tmp_path / "cut")
    steps(cut, 6)
    cut.save()
    resumed = BaseTrainer(SMALL, concepts, tmp_path / "cut")
    assert resumed.step == 6
    steps(resumed, 8)
    assert (resumed.step, resumed.epoch) == (whole.step, whole.epoch)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, rtol=0, atol=0)


def test_a_bundle_part_answers_as_the_trained_model(concepts: Path, tmp_path: Path) -> None:
    trainer = BaseTrainer(SMALL, concepts, tmp_path / "run")
    trainer.save()
    writer = BundleWriter(tmp_path / "bundle", "small")
    space = writer.write_space(b"tokens", ["eng"], {"concept_dim": DIM}, {"weight": torch.zeros(2)})
    trainer.table = ConceptTable(trainer.table.concepts, trainer.table.folder, space)
    trainer.save()
    export_base(tmp_path / "run/checkpoint.pt", tmp_path / "bundle")
    engine = Engine.load(tmp_path / "bundle", device="cpu")
    context, roles = torch.randn(3, DIM), torch.tensor([0, 1, 0])
    [expected] = Engine(trainer.model).predict_next([context], [roles])
    torch.testing.assert_close(engine.predict_next([context], [roles])[0].concept, expected.concept, rtol=0, atol=0.02)


def test_a_sample_of_documents_holds_them_whole(concepts: Path) -> None:
    documents = ConceptTable.open(concepts).documents("train")
    few = documents.sample(0.3)
    assert 0.1 * len(documents) < len(few) < 0.5 * len(documents)
    assert documents.sample(1.0).names == documents.names
    for number, name in enumerate(few.names):
        whole = documents.rows(documents.names.index(name))
        assert few.sentences[few.rows(number)].tolist() == documents.sentences[whole].tolist()


def test_windows_cover_each_dialogue_and_depend_on_the_epoch_alone(concepts: Path) -> None:
    documents = ConceptTable.open(concepts).documents("train")
    plan = WindowPlan(window=6, crop_share=0.0, sentences_a_step=60, seed=0)
    windows = epoch_windows(documents, plan, 0)
    targets = sorted(at for where, _ in windows for at in range(where.start + 1, where.stop))
    assert targets == [at for at in range(DIALOGUES * TURNS) if at % TURNS], "each sentence but the first, once"
    assert {where.stop - where.start for where, _ in windows} <= set(range(2, 8))
    assert planned(documents, plan, 1) == planned(documents, plan, 1)
    assert planned(documents, plan, 1) != planned(documents, plan, 2)


def test_a_window_is_padded_on_the_right_and_swaps_its_speakers(concepts: Path) -> None:
    documents = ConceptTable.open(concepts).documents("train")
    windows = windows_of(documents, [(slice(0, 5), True), (slice(8, 11), False)])
    assert windows.sentences[1].tolist() == [*documents.sentences[8:11], PADDING, PADDING]
    assert windows.known.sum(dim=1).tolist() == [4, 2]
    assert windows.turns.roles[0].tolist() == [1, 0, 1, 0]
    assert windows.turns.next_roles[0].tolist() == [0, 1, 0, 1]
    assert bool(windows.starts_reply[0].all())


def test_the_contrast_is_among_distinct_sentences_of_other_windows() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(6, DIM, generator=generator)
    predicted = torch.randn(3, DIM, generator=generator)
    rows, others, of_window = torch.tensor([1, 4, 1]), torch.tensor([5, 1, 5]), torch.tensor([0, 0, 1])
    logits, wanted = contrast_logits(predicted, (rows, table[rows]), (others, table[others]), of_window)
    assert wanted.tolist() == [0, 1, 0], "of the distinct sentences 1, 4 and 5"
    expected = F.normalize(predicted, dim=1) @ F.normalize(table[[1, 4, 5]], dim=1).T
    hidden = torch.tensor([[False, True, False], [True, False, False], [False, False, False]])
    torch.testing.assert_close(logits[~hidden], expected[~hidden], rtol=0, atol=0.01)
    assert bool((logits[hidden] == float("-inf")).all()), "what was said beside it in the same window"


def test_first_sentences_of_replies_cross_no_dialogue(concepts: Path) -> None:
    documents = ConceptTable.open(concepts).documents("train")
    assert len(reply_rows(documents)) == DIALOGUES * (TURNS - 1)


def test_concepts_of_another_space_are_refused(concepts: Path) -> None:
    with pytest.raises(TrainingDataError, match="not other"):
        ConceptTable.open(concepts, "other")
    with pytest.raises(TrainingDataError, match=r"scripts\.train"):
        ConceptTable.open(concepts / "nowhere")


def test_a_perfect_prediction_has_perfect_figures(concepts: Path) -> None:
    table = ConceptTable.open(concepts)
    items = reply_items(table.documents("test"), table, per_corpus=50)
    assert len(items.items) == 50
    truths = table.of(np.array([items.truth(item) for item in items.items]))
    figures = concept_figures(truths, items, table, context=6)
    assert figures["l2"] == 0.0
    assert figures["ca"] == 100.0
    assert figures["par"] == pytest.approx(1.0)
    hits = hit_figures(answers(truths, items, table), items)
    assert hits["dialogue"] == 100.0
    assert hits["ci"]["dialogue"] == [100.0, 100.0]


def test_distractors_come_from_other_dialogues_and_differ(concepts: Path) -> None:
    table = ConceptTable.open(concepts)
    items = reply_items(table.documents("test"), table, per_corpus=50)
    texts = table.texts()
    for item in items.items:
        shown = [texts[row][1] for row in (items.truth(item), *item.others)]
        assert len(set(shown)) == 20
    assert items.items == reply_items(table.documents("test"), table, per_corpus=50).items


def test_baselines_stand_beside_chance(concepts: Path, tmp_path: Path) -> None:
    table = ConceptTable.open(concepts)
    items = reply_items(table.documents("test"), table, per_corpus=200)
    baselines = lcm_baselines(table, table.documents("train"), items, context=6)
    # Here a training context tells the reply exactly, and nothing else does.
    assert baselines["nearest_training_reply"]["hits_at_1_of_20"]["dialogue"] == 100.0
    assert baselines["mean_concept"]["hits_at_1_of_20"]["dialogue"] < 25.0
    assert baselines["chance"]["hits_at_1_of_20"]["dialogue"] == 5.0
    untrained = BaseTrainer(SMALL, concepts, tmp_path)
    said = answers(predictions(Engine(untrained.model), table, items), items, table)
    assert hit_figures(said, items)["dialogue"] < 30.0
