"""Training of the speech encoder: each term of the loss, and a run that can be broken off."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.bundle import Bundle
from lcm.bundle_writer import BundleWriter
from lcm.errors import TrainingDataError
from lcm.space.speech_encoder import BLANK, SpeechEncoder, speech_encoder_from_part
from lcm.space.text_encoder import TextEncoder, TextEncoderConfig
from lcm.training.export import export_speech
from lcm.training.phone_texts import PhoneBatch, collated_phones
from lcm.training.phones import LABELS
from lcm.training.speech import SpeechTrainer, Teacher
from lcm.training.speech_batches import Example, SpeechBatch, collated
from lcm.training.speech_losses import Lesson, bank_contrast, hearing_losses, phone_loss, reading_losses
from lcm.training.speech_model import SpeechTraining, optimisers
from tests.lcm.training.speech_stores import tiny_stores

TINY = SpeechTraining(
    dim=32, layers=2, heads=2, ffn_dim=32, kernel=5, reader_layers=1, reader_ffn_dim=32, concept_dim=16, bank=8,
    reading_steps=0, reading_phones=40, warmup_steps=1, batch_seconds=20, checkpoint_every=10**9, evaluate_every=10**9,
)  # fmt: skip


def batch(lengths: Sequence[int] = (120, 80, 96), labels: int = 6) -> SpeechBatch:
    generator = torch.Generator().manual_seed(0)
    return collated(
        [
            Example(torch.randn(n, 80, generator=generator), [1 + (n + i) % 60 for i in range(labels)], f"{n}", "eng")
            for n in lengths
        ]
    )


def texts() -> PhoneBatch:
    rows = [F.one_hot(torch.arange(1 + n, 8 + 2 * n), LABELS).float() for n in range(3)]
    return collated_phones(rows, ["a", "b", "c"], ["eng"] * 3)


def unit(rows: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(rows, 16, generator=torch.Generator().manual_seed(seed)), dim=1)


def concepts(texts: Sequence[str], _languages: Sequence[str]) -> Tensor:
    """A fixed concept for each text."""
    return torch.cat([unit(1, sum(map(ord, text))) for text in texts])


def test_an_utterance_without_labels_does_not_count_for_ctc() -> None:
    made = batch((100, 100))
    logits = torch.randn(2, 25, LABELS, generator=torch.Generator().manual_seed(0))
    both = phone_loss(logits, torch.tensor([25, 25]), made)
    first = collated([Example(torch.zeros(100, 80), made.phones[:6].tolist(), "", "eng")])
    alone = phone_loss(logits[:1], torch.tensor([25]), first)
    silent = collated(
        [Example(torch.zeros(100, 80), made.phones[:6].tolist(), "", ""), Example(torch.zeros(100, 80), [], "", "")]
    )
    torch.testing.assert_close(phone_loss(logits, torch.tensor([25, 25]), silent), alone)
    assert not torch.isclose(both, alone)


def test_ctc_is_least_where_the_phones_are_read() -> None:
    made = batch((100,))
    path = torch.full((1, 25), BLANK)
    path[0, 1:24:4] = torch.from_numpy(made.phones)
    right = 20.0 * F.one_hot(path, LABELS)
    assert phone_loss(right, torch.tensor([25]), made) < 0.01
    assert phone_loss(right.flip(1), torch.tensor([25]), made) > 1


def test_contrast_takes_no_sentence_of_the_same_meaning_as_a_negative() -> None:
    targets, bank = unit(3), unit(5, 1)
    concepts = F.normalize(targets + 0.1 * unit(3, 2), dim=1)
    plain = bank_contrast(concepts, Lesson(targets, bank), 0.05, 0.95)
    doubled = bank_contrast(concepts, Lesson(targets, torch.cat([bank, targets])), 0.05, 0.95)
    torch.testing.assert_close(plain, doubled)
    harder = bank_contrast(concepts, Lesson(targets, torch.cat([bank, concepts])), 0.05, 0.9999)
    assert harder > plain


def learnt(model: SpeechEncoder, terms: dict[str, Tensor]) -> set[str]:
    """The weights that have a gradient."""
    torch.stack(list(terms.values())).sum().backward()
    return {name for name, p in model.named_parameters() if p.grad is not None}


def test_without_a_teacher_only_what_hears_learns() -> None:
    model = SpeechEncoder(TINY.encoder())
    names = learnt(model, hearing_losses(model, batch(), None, TINY))
    assert names == {n for n, _ in model.named_parameters() if not n.startswith(("reader", "detail"))}


def test_text_teaches_the_reader_alone() -> None:
    model = SpeechEncoder(TINY.encoder())
    names = learnt(model, reading_losses(model, texts(), Lesson(unit(3), unit(8, 1)), TINY))
    assert names == {n for n, _ in model.named_parameters() if n.startswith("reader")}


def test_speech_with_a_teacher_teaches_every_weight() -> None:
    model = SpeechEncoder(TINY.encoder())
    names = learnt(model, hearing_losses(model, batch(), Lesson(unit(3), unit(8, 1)), TINY))
    assert names == {n for n, _ in model.named_parameters()}


def test_each_weight_has_one_optimiser() -> None:
    model = SpeechEncoder(TINY.encoder())
    held = [id(p) for o in optimisers(model, TINY) for g in o.param_groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


TEACHER = Teacher(concepts, "one")


def trainer(folder: Path, config: SpeechTraining = TINY, taught_by: Teacher | None = TEACHER) -> SpeechTrainer:
    return SpeechTrainer(config, folder / "prepared", folder / "stores", folder / "run", taught_by)


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Path, Path]:
    return tiny_stores(tmp_path)


@pytest.mark.usefixtures("stores")
def test_the_encoder_learns_a_batch_by_heart(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    first = run.train_step(batch(), texts())
    for _ in range(80):
        last = run.train_step(batch(), texts())
    assert last["distance"] < 0.4 * first["distance"]
    assert last["contrast"] < 0.5 * first["contrast"]
    assert last["phones"] < 0.8 * first["phones"]
    assert last["read_distance"] < 0.5 * first["read_distance"]


@pytest.mark.usefixtures("stores")
def test_a_run_broken_off_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    for _ in range(3):
        run.train_step(batch(), texts())
    run.finish_in(5)
    run.save()
    resumed = trainer(tmp_path)
    assert (resumed.step, resumed.hours, resumed.steps) == (run.step, run.hours, 8)
    for one in (run, resumed):
        for _ in range(2):
            one.train_step(batch(), texts())
    for name, value in run.weights.average.items():
        assert torch.equal(value, resumed.weights.average[name]), name


@pytest.mark.usefixtures("stores")
def test_the_reader_begins_with_the_text_encoders_layers(tmp_path: Path) -> None:
    config = TextEncoderConfig(50, 32, 1, 2, 32, concept_dim=16, pooling="attention")
    begin = TextEncoder(config).state_dict()
    run = trainer(tmp_path, taught_by=Teacher(concepts, "one", begin))
    reader = run.model.reader.state_dict()
    taken = {name for name, value in reader.items() if name in begin and torch.equal(value, begin[name])}
    assert taken == set(reader) - {"embed.weight"}
    torch.testing.assert_close(run.weights.average["reader.pooler.queries"], begin["pooler.queries"])


@pytest.mark.usefixtures("stores")
def test_a_space_once_learnt_is_kept(tmp_path: Path) -> None:
    trainer(tmp_path, taught_by=None).save()
    trainer(tmp_path).save()  # phones belong to no space
    for other in (Teacher(concepts, "another"), None):
        with pytest.raises(TrainingDataError, match="learnt space one"):
            trainer(tmp_path, taught_by=other)


@pytest.mark.usefixtures("stores")
def test_the_export_is_the_averaged_encoder_of_its_space(tmp_path: Path) -> None:
    writer = BundleWriter(tmp_path / "bundle")
    space_id = writer.write_space(b"tokens", ["eng"], {"concept_dim": 16}, {"weight": torch.zeros(2)})
    run = trainer(tmp_path, taught_by=Teacher(concepts, space_id))
    run.train_step(batch(), texts())
    run.save()
    export_speech(tmp_path / "run/checkpoint.pt", tmp_path / "bundle", ["eng"])
    bundle = Bundle.open(tmp_path / "bundle")
    part = bundle.part("speech_encoder")
    exported = speech_encoder_from_part(part.config, part.tensors())
    for name, value in run.weights.average.items():
        torch.testing.assert_close(exported.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    assert bundle.languages["speech"] == ["eng"]
    run.teacher = Teacher(concepts, "another")
    run.save()
    with pytest.raises(TrainingDataError, match="learnt space another"):
        export_speech(tmp_path / "run/checkpoint.pt", tmp_path / "bundle")


@pytest.mark.slow
@pytest.mark.usefixtures("stores")
def test_a_run_reads_then_hears_measures_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    config = TINY.model_copy(update={"steps": 100, "reading_steps": 50, "evaluate_every": 50, "checkpoint_every": 25})
    run = trainer(tmp_path, config)
    read, heard = (row for row in run.train() if row)
    assert (read["step"], read["hours"], heard["step"]) == (50, 0, 100)
    assert "reading_error_librispeech_en" in read
    assert "phones" not in read
    assert heard["hours"] > 0
    assert {"phones", "distance", "read_distance"} <= set(heard)
    assert {"phone_error_librispeech_en", "retrieval_error_librispeech_en"} <= set(heard)
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1]) == heard
    resumed = trainer(tmp_path, config)
    assert (resumed.step, resumed.read) == (100, 50)
