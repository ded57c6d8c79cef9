"""Phonemised sentences: what is read is what was written, but for the mishearing asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lcm.errors import TrainingDataError
from lcm.training.phone_texts import PhoneTexts, posteriors, prepare_phones
from lcm.training.phones import LABELS, phone_labels
from lcm.training.synthesis import ACCENTS, Espeak
from tests.lcm.training.speech_stores import SENTENCES

WEIGHTS = [("eng", 0.4), ("fra", 0.2), ("spa", 0.2), ("deu", 0.2)]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    prepare_phones(SENTENCES, folder)
    return folder


def test_a_batch_holds_the_phones_of_its_texts(stores: Path) -> None:
    texts = PhoneTexts(SENTENCES, stores, WEIGHTS)
    batch = next(texts.batches(np.random.default_rng(0), phones=60, misheard=0.0))
    espeak = Espeak()
    for row, length, text, language in zip(batch.posteriors, batch.lengths, batch.texts, batch.languages, strict=True):
        assert text in SENTENCES[language]
        said = [phone_labels(espeak.ipa(text, accent)) for accent in ACCENTS[language]]
        assert row[:length].argmax(dim=1).tolist() in said
        assert row[length:].abs().sum() == 0


def test_batches_have_their_size_and_every_language_its_share(stores: Path) -> None:
    feed = PhoneTexts(SENTENCES, stores, WEIGHTS).batches(np.random.default_rng(0), phones=4_000, misheard=0.3)
    drawn = [next(feed) for _ in range(60)]
    languages = [language for batch in drawn for language in batch.languages]
    assert 0.35 < languages.count("eng") / len(languages) < 0.45
    assert max(int(batch.lengths.sum()) for batch in drawn) < 5_000


def test_other_sentences_are_refused(stores: Path) -> None:
    with pytest.raises(TrainingDataError, match="other sentences"):
        PhoneTexts({**SENTENCES, "deu": ["Etwas anderes."]}, stores, WEIGHTS)


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_each_heard_phone_has_probabilities(rate: float) -> None:
    made = posteriors(np.arange(1, 60), np.random.default_rng(0), rate)
    assert made.shape[1] == LABELS
    torch.testing.assert_close(made.sum(dim=1), torch.ones(len(made)))
    wrong = (made.argmax(dim=1)[:, None] != torch.arange(1, 60)).all(dim=1).sum()
    assert wrong == 0 or rate > 0


def test_a_sentence_never_vanishes() -> None:
    rng = np.random.default_rng(0)
    assert all(len(posteriors(np.array([5]), rng, 1.0)) >= 1 for _ in range(50))


def test_more_mishearing_means_more_wrong_phones() -> None:
    labels = np.tile(np.arange(1, 60), 20)

    def kept(rate: float) -> float:
        return float(posteriors(labels, np.random.default_rng(0), rate)[:, labels[0]].sum())

    assert kept(0.0) > kept(0.2) > kept(0.6)
