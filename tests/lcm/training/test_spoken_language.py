"""The spoken language head learns phones, not corpora; a run resumes, and its head belongs to one encoder."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from lcm.bundle import Bundle
from lcm.bundle_writer import BundleWriter
from lcm.errors import TrainingDataError
from lcm.space.fbank import fbank
from lcm.space.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from lcm.space.spoken_language import PART, spoken_language_from_part
from lcm.training.export import export_spoken_language
from lcm.training.speech_batches import Example, SpeechBatch, collated
from lcm.training.spoken_language import (
    Heard,
    SpokenLanguageTrainer,
    SpokenLanguageTraining,
    calibrated,
    piece_of,
    regression,
)
from tests.lcm.training.speech_stores import spoken, tiny_stores

LANGUAGES = ["eng", "fra", "spa", "deu"]
ENCODER = SpeechEncoderConfig(dim=32, layers=1, heads=2, ffn_dim=32, reader_layers=1, reader_ffn_dim=32, concept_dim=16)
SHORT = SpokenLanguageTraining(steps=3, batch_seconds=20, checkpoint_every=10**9)


def heard_of(languages: list[int], *, recorded: bool, corpus_phone: float = 0.0, count: int = 200) -> Heard:
    """Utterances in which each language has a phone of its own, and the corpus one as well."""
    generator = torch.Generator().manual_seed(sum(languages) + recorded)
    spoken_in = torch.tensor(languages).repeat_interleave(count)
    shares = 0.1 * torch.rand(len(spoken_in), 6, generator=generator)
    shares[torch.arange(len(spoken_in)), spoken_in] += 0.05
    shares[:, 5] += corpus_phone
    heard = Heard(6)
    heard.add(shares, spoken_in.tolist(), [recorded] * len(spoken_in))
    return heard


def both(first: Heard, second: Heard) -> Heard:
    heard = Heard(6)
    for of in (first, second):
        heard.add(of.shares, of.languages.tolist(), of.recorded.tolist())
    return heard


def accuracy(fitted: tuple[torch.Tensor, torch.Tensor], heard: Heard) -> float:
    weight, bias = fitted
    return float(((heard.shares @ weight.T + bias).argmax(dim=1) == heard.languages).float().mean())


def test_a_language_is_known_by_its_phones() -> None:
    assert accuracy(regression(heard_of([0, 1, 2, 3], recorded=False), 4, 1e-4), heard_of([0, 3], recorded=True)) > 0.6


def test_recordings_teach_nothing_about_languages_that_nobody_recorded() -> None:
    synthetic = heard_of([0, 1, 2, 3], recorded=False)
    people = heard_of([0, 3], recorded=True, corpus_phone=0.2)  # what all recordings share, and no voice of espeak-ng
    french = heard_of([1], recorded=True, corpus_phone=0.2)
    alone = accuracy(regression(synthetic, 4, 1e-4), french)
    together = both(synthetic, people)
    assert accuracy(regression(together, 4, 1e-4), french) > alone - 0.1
    together.recorded[:] = False  # as if espeak-ng had said it all
    assert accuracy(regression(together, 4, 1e-4), french) < alone - 0.3


def test_a_rare_language_counts_as_much_as_a_frequent_one() -> None:
    few = both(heard_of([0], recorded=False, count=20), heard_of([1, 2, 3], recorded=False, count=400))
    fitted = regression(few, 4, 1e-4)
    assert accuracy(fitted, heard_of([0], recorded=False)) > 0.5


def test_the_temperature_makes_probabilities_true() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4_000, 4, generator=generator)
    true = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    assert calibrated([3 * logits], [true]) == pytest.approx(3, rel=0.1)


def test_a_piece_has_the_features_that_it_would_have_alone() -> None:
    waveform = torch.from_numpy(spoken("the quick brown fox jumps over the lazy dog"))
    whole, rng = fbank(waveform), np.random.default_rng(3)
    piece = piece_of(whole, 0.8, rng)
    assert piece.shape == (80, 80)
    start = int(np.random.default_rng(3).integers(len(whole) - 80 + 1))
    alone = fbank(waveform[start * 160 : start * 160 + 79 * 160 + 400])
    torch.testing.assert_close(piece, alone, atol=1e-3, rtol=0)
    torch.testing.assert_close(piece_of(whole, 60.0, rng), whole, atol=1e-4, rtol=0)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A space and a speech encoder, both of random weights."""
    torch.manual_seed(0)
    writer = BundleWriter(tmp_path / "bundle")
    space_id = writer.write_space(b"tokens", LANGUAGES, {"concept_dim": 16}, {"weight": torch.zeros(2)})
    writer.write_part("speech_encoder", asdict(ENCODER), SpeechEncoder(ENCODER).state_dict(), space_id)
    writer.describe(languages={"text": LANGUAGES, "speech": LANGUAGES})
    return tmp_path / "bundle"


def trainer(folder: Path) -> SpokenLanguageTrainer:
    return SpokenLanguageTrainer(
        SHORT, folder / "prepared", folder / "stores", folder / "run", Bundle.open(folder / "bundle")
    )


def batch() -> SpeechBatch:
    """Each language once by espeak-ng, English and German by people as well."""
    generator = torch.Generator().manual_seed(0)
    said = [*((tag, "") for tag in LANGUAGES), ("eng", "librispeech_en"), ("deu", "kerstin_de")]
    return collated(
        [Example(torch.randn(150 + 9 * n, 80, generator=generator), [], "", *of) for n, of in enumerate(said)]
    )


def test_a_run_goes_on_where_it_was_and_its_head_is_exported(tmp_path: Path, bundle: Path) -> None:
    tiny_stores(tmp_path)
    run, rng = trainer(tmp_path), np.random.default_rng(0)
    for _ in range(2):
        run.hear(batch(), rng)
    run.save()
    resumed = trainer(tmp_path)
    assert (resumed.step, len(resumed.heard)) == (2, 12)
    assert torch.equal(resumed.heard.shares, run.heard.shares)
    with pytest.raises(TrainingDataError, match="no head yet"):
        export_spoken_language(tmp_path / "run/checkpoint.pt", bundle)
    resumed.hear(batch(), rng)
    *_, row = resumed.train()  # nothing is left to hear
    assert {"librispeech_en", "pieces_of_librispeech_en", "unrecorded_librispeech_en"} <= set(row)
    BundleWriter(bundle).describe(metrics={"text": 1, "speech": {"spoken_language": 2}})
    export_spoken_language(tmp_path / "run/checkpoint.pt", bundle)
    opened = Bundle.open(bundle)
    head = spoken_language_from_part(opened.part(PART), opened.part("speech_encoder"))
    torch.testing.assert_close(head.head.weight.data, resumed.head.head.weight.data, atol=1e-2, rtol=1e-3)
    assert list(head.config.languages) == LANGUAGES
    assert opened.description["metrics"] == {"text": 1, "speech": {}}


def test_what_was_heard_with_another_encoder_is_refused(tmp_path: Path, bundle: Path) -> None:
    tiny_stores(tmp_path)
    run = trainer(tmp_path)
    for seed in range(3):
        run.hear(batch(), np.random.default_rng(seed))
    list(run.train())
    changed = SpeechEncoder(ENCODER).state_dict()
    BundleWriter(bundle).write_part("speech_encoder", asdict(ENCODER), changed, Bundle.open(bundle).space_id)
    with pytest.raises(TrainingDataError, match="another speech encoder than that of"):
        export_spoken_language(tmp_path / "run/checkpoint.pt", bundle)
    with pytest.raises(TrainingDataError, match="another speech encoder; remove it"):
        trainer(tmp_path)


@pytest.mark.slow
def test_a_run_hears_what_the_feed_gives(tmp_path: Path, bundle: Path) -> None:
    tiny_stores(tmp_path)
    run = trainer(tmp_path)
    *_, row = run.train()
    assert (run.step, bundle.exists()) == (3, True)
    assert row["utterances"] == len(run.heard) > 10
    assert run.heard.recorded.any()
    assert not run.heard.recorded.all()
    assert set(run.heard.languages[run.heard.recorded].tolist()) <= {0, 3}
    assert set(run.heard.synthetic().languages.tolist()) == {0, 1, 2, 3}
