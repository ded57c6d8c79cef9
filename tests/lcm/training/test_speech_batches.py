"""Batches of speech: grouped by length, collated without loss, drawn by a process of their own."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch

from lcm.errors import TrainingDataError
from lcm.training.speech_batches import Example, SpeechFeed, SpeechMix, collated, grouped, teacher_text
from tests.lcm.training.speech_stores import tiny_stores


def examples(lengths: list[int]) -> list[Example]:
    generator = torch.Generator().manual_seed(0)
    return [Example(torch.randn(n, 80, generator=generator), [1] * (n % 5), f"text {n}", "eng") for n in lengths]


def test_groups_hold_everything_once_and_no_more_audio_than_asked_for() -> None:
    rng = np.random.default_rng(0)
    given = examples(rng.integers(20, 900, 200).tolist())
    groups = grouped(given, seconds=30)
    assert sorted(id(e) for g in groups for e in g) == sorted(id(e) for e in given)
    padded = [len(g) * max(len(e.features) for e in g) for g in groups]
    assert max(padded) <= 3_000
    assert sum(len(e.features) for e in given) > 0.85 * sum(padded)


def test_one_example_longer_than_a_batch_is_a_batch() -> None:
    assert [len(g) for g in grouped(examples([100, 5_000]), seconds=30)] == [1, 1]


def test_collated_examples_can_be_told_apart() -> None:
    batch = collated(examples([7, 12, 5]))
    assert batch.features.shape == (3, 12, 80)
    assert not batch.features[0, 7:].any()
    assert not batch.features[2, 5:].any()
    assert batch.lengths.tolist() == [7, 12, 5]
    assert batch.phone_counts.tolist() == [2, 2, 0]
    assert len(batch.phones) == 4


@pytest.mark.parametrize(
    ("written", "read"), [("HE'S NOT HERE", "he's not here"), ("Er ist's, sagt sie.", "Er ist's, sagt sie.")]
)
def test_the_teacher_reads_capitals_as_a_transcript(written: str, read: str) -> None:
    assert teacher_text(written) == read


@pytest.mark.slow
def test_the_feed_gives_what_was_asked_for_and_ends(tmp_path: Path) -> None:
    prepared, stores = tiny_stores(tmp_path)
    mix = SpeechMix(batch_seconds=20, pool_seconds=40, real_share=0.3, corpora=(("librispeech_en", 1.0),))
    seen = []
    with SpeechFeed(prepared, stores, mix, seed=0) as feed:
        for batch in feed:
            assert batch.features.shape[0] * batch.features.shape[1] <= 2_000
            assert np.isfinite(batch.features).all()
            seen += list(zip(batch.texts, batch.languages, batch.phone_counts.tolist(), strict=True))
            if len(seen) > 40:
                break
    texts = {text for text, _, _ in seen}
    assert "the quick brown fox" in texts  # the recording's transcript, in small letters
    assert {language for _, language, _ in seen} >= {"eng", "fra", "spa", "deu"}
    assert all(count > 0 for text, _, count in seen if text == "the quick brown fox")
    assert not texts & {"Das ist geheim."}  # a held-out sentence


@pytest.mark.slow
def test_a_producer_that_crashed_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prepared, stores = tiny_stores(tmp_path)
    mix = SpeechMix(batch_seconds=2, pool_seconds=20, corpora=(("librispeech_en", 1.0),))
    with SpeechFeed(prepared, stores, mix, seed=0) as feed:
        batches = iter(feed)
        next(batches)
        [producer] = multiprocessing.active_children()
        producer.kill()
        producer.join()
        while not caplog.records:  # what it had made before is used up first
            next(batches)
        assert next(batches).texts
    assert "exit code -9" in caplog.text
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_feed_without_recordings_says_so_instead_of_waiting(tmp_path: Path) -> None:
    prepared, stores = tiny_stores(tmp_path)
    (stores / "speech.train.jsonl").unlink()
    with SpeechFeed(prepared, stores, SpeechMix(), seed=0) as feed, pytest.raises(TrainingDataError):
        next(iter(feed))
