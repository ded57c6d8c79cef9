"""Written sentences as they sound: training sentences in, batches of phones out, misheard as a recogniser mishears.

A million sentences can be read in the time in which ten thousand are heard: the speech encoder's reader learns
meaning here. Each sentence is phonemised once, by espeak-ng, in one of its language's accents. Knows nothing of audio
or models.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lcm.errors import TrainingDataError
from lcm.training.phones import LABELS, phone_labels
from lcm.training.synthesis import ACCENTS, Espeak

UInt8Array = np.ndarray[Any, np.dtype[np.uint8]]
Int64Array = np.ndarray[Any, np.dtype[np.int64]]

_STORE = "phones.train.npz"
_POOL = 20_000  # sentences drawn at once and cut into batches of like length
_DELETED, _SUBSTITUTED = 0.3, 0.5
_INSERTED = 0.2


@dataclass(frozen=True, slots=True)
class PhoneBatch:
    """Sentences as a recogniser might hear them."""

    posteriors: Tensor  # [B, L, P] over phones and blank, zero past each sentence's end
    lengths: Tensor  # [B] phones
    texts: list[str]
    languages: list[str]


def prepare_phones(texts: Mapping[str, Sequence[str]], stores: Path, seed: int = 0) -> None:
    """Phonemise `texts` by language into `stores`; what is there is kept. Some 2,000 sentences a second."""
    if (stores / _STORE).exists():
        return
    espeak, rng = Espeak(), np.random.default_rng(seed)
    flat: list[UInt8Array] = []
    with tqdm(total=sum(map(len, texts.values())), desc="phones", unit="sentence", unit_scale=True) as bar:
        for language, sentences in texts.items():
            accents = ACCENTS[language]
            for block in range(0, len(sentences), 1_000):  # espeak-ng takes a voice slowly: one accent a block
                accent = accents[rng.integers(len(accents))]
                said = [phone_labels(espeak.ipa(text, accent)) for text in sentences[block : block + 1_000]]
                flat += [np.array(labels, dtype=np.uint8) for labels in said]
                bar.update(len(said))
    starts = np.concatenate([[0], np.cumsum([len(labels) for labels in flat])])
    stores.mkdir(parents=True, exist_ok=True)
    aside = stores / f".{_STORE}"
    np.savez(aside, labels=np.concatenate(flat), starts=starts, texts=np.array(_digest(texts)))
    aside.replace(stores / _STORE)


def _digest(texts: Mapping[str, Sequence[str]]) -> str:
    digest = hashlib.sha256()
    for sentences in texts.values():
        digest.update("\n".join(sentences).encode())
    return digest.hexdigest()


class PhoneTexts:
    """The training sentences with their phones; draws batches for ever."""

    def __init__(
        self, texts: Mapping[str, Sequence[str]], stores: Path, weights: Sequence[tuple[str, float]]
    ) -> None:  # fmt: skip
        """Open what `prepare_phones` made of `texts`; languages are drawn by `weights`.

        Raises:
            TrainingDataError: it is missing, or was made of other sentences.
        """
        try:
            with np.load(stores / _STORE) as arrays:
                self._labels, self._starts, made_of = arrays["labels"], arrays["starts"], str(arrays["texts"])
        except OSError as error:
            raise TrainingDataError(f"{stores / _STORE} is missing; prepare the phones") from error
        if made_of != _digest(texts):
            raise TrainingDataError(f"{stores / _STORE} was made of other sentences; remove it")
        self._texts = [text for sentences in texts.values() for text in sentences]
        self._languages = [language for language, sentences in texts.items() for _ in sentences]
        lengths, first = np.diff(self._starts), 0
        self._of_language: list[tuple[Int64Array, float]] = []
        for language, sentences in texts.items():
            sayable = first + np.flatnonzero(lengths[first : first + len(sentences)] > 0)
            self._of_language.append((sayable, dict(weights)[language]))
            first += len(sentences)

    def batches(self, rng: np.random.Generator, phones: int, misheard: float) -> Iterator[PhoneBatch]:
        """Batches of about `phones` phones; in each sentence up to `misheard` of them are wrong."""
        while True:
            drawn = np.concatenate([rng.choice(of, int(_POOL * share)) for of, share in self._of_language if len(of)])
            lengths = self._starts[drawn + 1] - self._starts[drawn]
            drawn = drawn[np.lexsort((rng.random(len(drawn)), lengths))]
            filled = np.cumsum(self._starts[drawn + 1] - self._starts[drawn])
            groups = np.split(drawn, np.flatnonzero(np.diff(filled // phones)) + 1)
            for number in rng.permutation(len(groups)):
                heard = [self._heard(int(index), rng, misheard) for index in groups[number]]
                yield collated_phones(
                    heard, [self._texts[i] for i in groups[number]], [self._languages[i] for i in groups[number]]
                )

    def _heard(self, index: int, rng: np.random.Generator, misheard: float) -> Tensor:
        labels = self._labels[self._starts[index] : self._starts[index + 1]]
        return posteriors(labels.astype(np.int64), rng, rng.uniform(0, misheard))


def collated_phones(rows: Sequence[Tensor], texts: list[str], languages: list[str]) -> PhoneBatch:
    """One batch of sentences' posteriors, each [L, P]."""
    lengths = torch.tensor([len(row) for row in rows])
    return PhoneBatch(torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True), lengths, texts, languages)


def posteriors(labels: Int64Array, rng: np.random.Generator, rate: float) -> Tensor:
    """What a recogniser that mistakes `rate` of the phones makes of `labels` [L]: [L', P], L' ≥ 1.

    Phones are left out, taken for another, or heard where there is none. Where it is right a second phone keeps some
    of the probability; where it is wrong the true one does.
    """
    true = labels[rng.random(len(labels)) >= _DELETED * rate]
    true = true if len(true) else labels[:1]
    heard = np.where(rng.random(len(true)) < _SUBSTITUTED * rate, rng.integers(1, LABELS, len(true)), true)
    first = rng.uniform(0.5, 1.0, len(true)) ** (0.3 if rate else 0.0)
    second = np.where(heard == true, rng.integers(0, LABELS, len(true)), true)
    ghosts = np.flatnonzero(rng.random(len(true)) < _INSERTED * rate)
    heard = np.insert(heard, ghosts, rng.integers(1, LABELS, len(ghosts)))
    first, second = np.insert(first, ghosts, 0.7), np.insert(second, ghosts, rng.integers(0, LABELS, len(ghosts)))
    rows = np.arange(len(heard))
    made = np.zeros((len(heard), LABELS), dtype=np.float32)
    np.add.at(made, (rows, heard), first)
    np.add.at(made, (rows, second), 1 - first)
    return torch.from_numpy(made)
