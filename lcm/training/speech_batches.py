"""Speech batches: stores of recordings and training sentences in, features with phones and texts out, endlessly.

Producers are processes of their own: espeak-ng speaks, soxr and numpy spoil, torch makes the features, while the
trainer computes. What they draw depends on chance as well as on the seed: training speech need not come twice.
Knows nothing of models or concepts.
"""

import contextlib
import logging
import os
import queue
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lcm.errors import TrainingDataError
from lcm.space.fbank import SAMPLE_RATE, fbank
from lcm.space.speech_encoder import SUBSAMPLING
from lcm.training.augment import (
    AugmentOptions,
    augmented,
    babble,
    coloured_noises,
    mask_features,
    resampled_at_speed,
)
from lcm.training.data import read_split
from lcm.training.phones import needed_frames, phone_labels
from lcm.training.recordings import FloatArray, Recordings
from lcm.training.synthesis import ESPEAK_RATE, MAIN_ACCENT, Espeak, TrainingVariants, random_speaker
from lcm.training.text_batches import transcript

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_log = logging.getLogger(__name__)

Float16Array = np.ndarray[Any, np.dtype[np.float16]]
Int64Array = np.ndarray[Any, np.dtype[np.int64]]

_FRAMES_A_SECOND = 100
_SENTENCES_A_LANGUAGE = 250_000
_WAITING_BATCHES = 8


@dataclass(frozen=True, slots=True)
class SpeechMix:
    """What a producer draws from."""

    batch_seconds: float = 100.0
    pool_seconds: float = 1_200.0
    """Drawn at once and cut into batches of like length"""
    longest_seconds: float = 12.0
    most_chars: int = 110
    real_share: float = 0.25
    flite_share: float = 0.05
    corpora: tuple[tuple[str, float], ...] = (("librispeech_en", 0.5), ("speechocean_en", 0.25), ("kerstin_de", 0.25))
    languages: tuple[tuple[str, float], ...] = (("eng", 0.4), ("fra", 0.2), ("spa", 0.2), ("deu", 0.2))
    augment: AugmentOptions = field(default_factory=AugmentOptions)


@dataclass(frozen=True, slots=True)
class SpeechBatch:
    """One step's utterances, as they come through the queue."""

    features: Float16Array  # [B, F, 80], zero past each utterance's end
    lengths: Int64Array  # [B] frames of 10 ms
    phones: Int64Array  # labels of all utterances, one after the other
    phone_counts: Int64Array  # [B]; 0: spoken too fast for CTC, to be left out of it
    texts: list[str]
    languages: list[str]
    corpora: list[str]
    """Empty for a voice of espeak-ng"""


@dataclass(frozen=True, slots=True)
class Example:
    """One utterance."""

    features: torch.Tensor  # [F, 80]
    phones: list[int]
    text: str
    language: str
    corpus: str = ""
    """Empty for a voice of espeak-ng"""


def teacher_text(text: str) -> str:
    """What the teacher reads for a transcript: as written, unless that is in capitals throughout."""
    return transcript(text) if text.isupper() else text


def training_texts(prepared: Path, most_chars: int) -> dict[str, list[str]]:
    """Sentences of the training splits by language, each once, of a length that fits one utterance."""
    texts: dict[str, dict[str, None]] = {language: {} for language in MAIN_ACCENT}
    for row in read_split(prepared, "sentences.train"):
        texts[row["language"]][row["text"]] = None
    for row in read_split(prepared, "parallel.train"):
        for language, text in zip(row["languages"], row["texts"], strict=True):
            texts[language][text] = None
    return {language: [t for t in of if 2 <= len(t) <= most_chars] for language, of in texts.items()}


class ExampleSource:
    """Draws utterances; lives in a producer, since espeak-ng is one a process."""

    def __init__(self, prepared: Path, stores: Path, mix: SpeechMix, seed: int, folder: Path) -> None:
        self._mix = mix
        self._rng = np.random.default_rng(seed)
        self._variants = TrainingVariants(folder, self._rng)
        self._espeak = Espeak(self._variants.data)
        texts = training_texts(prepared, mix.most_chars)
        self._texts = {
            language: [of[i] for i in self._rng.permutation(len(of))[:_SENTENCES_A_LANGUAGE]]
            for language, of in texts.items()
        }
        self._real = Recordings(stores / "speech.train")
        self._flite = Recordings(stores / "flite.train") if (stores / "flite.train.jsonl").exists() else None
        self._of_corpus = {corpus: self._fitting(self._real, corpus) for corpus, _ in mix.corpora}
        noise = Recordings(stores / "noise")
        self._recorded_noise = [noise[i] for i in range(len(noise))]
        self._noises: list[FloatArray] = []

    def pool(self) -> list[Example]:
        """About `pool_seconds` of speech, by voices and in noises that no pool before it had."""
        self._variants.draw(self._rng)
        anyone = [self._real[int(i)] for i in self._rng.integers(len(self._real), size=8)]
        crowd = [babble(anyone[:3], self._rng), babble(anyone[3:], self._rng)]
        self._noises = [*self._recorded_noise, *coloured_noises(self._rng), *crowd]
        examples: list[Example] = []
        seconds = 0.0
        while seconds < self._mix.pool_seconds:
            if (example := self._draw()) is not None:
                examples.append(example)
                seconds += len(example.features) / _FRAMES_A_SECOND
        return examples

    def _draw(self) -> Example | None:
        kind = self._rng.random()
        speed = 1 + self._rng.uniform(-1, 1) * self._mix.augment.speed
        if kind < self._mix.real_share:
            corpus = _weighted(self._mix.corpora, self._rng)
            indices = self._of_corpus[corpus]
            return self._recorded(self._real, int(indices[self._rng.integers(len(indices))]), speed)
        if self._flite is not None and kind < self._mix.real_share + self._mix.flite_share:
            return self._recorded(self._flite, int(self._rng.integers(len(self._flite))), speed)
        return self._synthesised(speed)

    def _recorded(self, store: Recordings, index: int, speed: float) -> Example | None:
        clip = store.clips[index]
        samples = resampled_at_speed(store[index], SAMPLE_RATE, speed)
        text = teacher_text(clip.text)
        return self._example(samples, text, clip.language, MAIN_ACCENT[clip.language], clip.corpus)

    def _synthesised(self, speed: float) -> Example | None:
        language = _weighted(self._mix.languages, self._rng)
        texts = self._texts[language]
        text = texts[self._rng.integers(len(texts))]
        speaker = random_speaker(language, self._variants.names, self._rng)
        spoken = self._espeak.speak(text, speaker)
        samples = resampled_at_speed(spoken.astype(np.float32) * np.float32(2**-15), ESPEAK_RATE, speed)
        return self._example(samples, text, language, speaker.accent)

    def _example(self, samples: FloatArray, text: str, language: str, accent: str, corpus: str = "") -> Example | None:
        """None if there is nothing to hear, or too much of it for one concept."""
        if not SAMPLE_RATE // 10 < len(samples) < self._mix.longest_seconds * SAMPLE_RATE or not samples.any():
            return None
        heard = augmented(samples, self._noises, self._mix.augment, self._rng)
        features = mask_features(fbank(torch.from_numpy(heard)), self._mix.augment, self._rng)
        phones = phone_labels(self._espeak.ipa(text, accent))
        if needed_frames(phones) > len(features) // SUBSAMPLING:
            phones = []
        return Example(features, phones, text, language, corpus)

    def _fitting(self, store: Recordings, corpus: str) -> Int64Array:
        longest = self._mix.longest_seconds / (1 - self._mix.augment.speed) * SAMPLE_RATE
        chosen = [i for i, clip in enumerate(store.clips) if clip.corpus == corpus and clip.length < longest]
        if not chosen:
            raise TrainingDataError(f"no recordings of {corpus} to train on; prepare the recordings again")
        return np.array(chosen)


def grouped(examples: list[Example], seconds: float) -> list[list[Example]]:
    """The examples in groups of like length, at most `seconds` of audio with padding."""
    groups: list[list[Example]] = [[]]
    for example in sorted(examples, key=lambda e: len(e.features)):
        if groups[-1] and (len(groups[-1]) + 1) * len(example.features) > seconds * _FRAMES_A_SECOND:
            groups.append([])
        groups[-1].append(example)
    return groups


def collated(examples: list[Example]) -> SpeechBatch:
    """One batch of these examples."""
    lengths = np.array([len(e.features) for e in examples])
    features = np.zeros((len(examples), int(lengths.max()), examples[0].features.shape[1]), dtype=np.float16)
    for row, example in zip(features, examples, strict=True):
        row[: len(example.features)] = example.features.numpy()
    return SpeechBatch(
        features,
        lengths,
        np.array([label for e in examples for label in e.phones], dtype=np.int64),
        np.array([len(e.phones) for e in examples], dtype=np.int64),
        [e.text for e in examples],
        [e.language for e in examples],
        [e.corpus for e in examples],
    )


def dev_examples(stores: Path, most: int = 150, longest_seconds: float = 12.0) -> dict[str, list[Example]]:
    """Held-out utterances as they are, by set: `synthetic_eng` and so on, and the corpora; texts unique in a set."""
    espeak = Espeak()
    sets: dict[str, dict[str, Example]] = {}
    for name in ("synthetic.dev", "speech.dev"):
        store = Recordings(stores / name)
        for index, clip in enumerate(store.clips):
            of_set = sets.setdefault(f"synthetic_{clip.language}" if clip.corpus == "synthetic" else clip.corpus, {})
            if len(of_set) < most and clip.length < longest_seconds * SAMPLE_RATE:
                text = teacher_text(clip.text)
                phones = phone_labels(espeak.ipa(text, MAIN_ACCENT[clip.language]))
                features = fbank(torch.from_numpy(store[index])).half()
                of_set.setdefault(text, Example(features, phones, text, clip.language, clip.corpus))
    return {name: list(of_set.values()) for name, of_set in sets.items()}


class SpeechFeed:
    """Owns the producer processes; iterate it for batches. A context manager: leaving ends them.

    A producer that died after it gave something is replaced: in some hundred thousand sentences of random voices
    espeak-ng crashes once.
    """

    def __init__(self, prepared: Path, stores: Path, mix: SpeechMix, *, seed: int, producers: int = 1) -> None:
        self._source = (prepared, stores, mix, seed)
        self._batches: queue.Queue[SpeechBatch | None] = queue.Queue(_WAITING_BATCHES)
        self._processes: dict[int, BaseProcess] = {}
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._keep_alive, args=(n,)) for n in range(producers)]

    def __enter__(self) -> "SpeechFeed":
        """Start the producers."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """End the producers; batches not yet taken are lost."""
        self._ended.set()
        for thread in self._threads:
            while thread.is_alive():
                for process in list(self._processes.values()):
                    process.terminate()
                thread.join(timeout=0.1)

    def __iter__(self) -> Iterator[SpeechBatch]:
        """Batches, for ever.

        Raises:
            TrainingDataError: a producer died before its first batch; what it said is on stderr.
        """
        while (batch := self._batches.get()) is not None:
            yield batch
        raise TrainingDataError("the process that makes speech has failed; see its message above")

    def _keep_alive(self, number: int) -> None:
        """One producer after the other, each until it dies; whatever ends that, the trainer is told."""
        try:
            while self._pass_on(number):
                code = self._processes[number].exitcode
                _log.warning("producer %d died (exit code %s); another follows", number, code)
        finally:
            self._put(None)

    def _pass_on(self, number: int) -> bool:
        """Starts a producer and passes its batches on until it dies. Whether it gave any, and is to be replaced."""
        context, given = get_context("spawn"), False
        receiving, sending = context.Pipe(duplex=False)
        with tempfile.TemporaryDirectory(prefix="noema-") as folder:
            process = context.Process(
                target=_produce, args=(sending, *self._source, number, Path(folder) / "voices"), daemon=True
            )
            process.start()
            self._processes[number] = process
            sending.close()  # or its end would not be seen here
            with receiving, contextlib.suppress(EOFError, OSError):
                while not self._ended.is_set():
                    self._put(receiving.recv())
                    given = True
            process.join()
        return given and not self._ended.is_set()

    def _put(self, batch: SpeechBatch | None) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(queue.Full):
                return self._batches.put(batch, timeout=1)


def _produce(
    batches: "Connection[SpeechBatch, None]",
    prepared: Path,
    stores: Path,
    mix: SpeechMix,
    seed: int,
    number: int,
    folder: Path,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's to handle; it ends its producers
    torch.set_num_threads(1)
    # A restart must not hear the first hour again: the seed alone does not decide.
    rng = np.random.default_rng((seed, number, int.from_bytes(os.urandom(8), "big")))
    source = ExampleSource(prepared, stores, mix, int(rng.integers(2**62)), folder)
    with contextlib.suppress(BrokenPipeError):  # the trainer has gone
        while True:
            groups = grouped(source.pool(), mix.batch_seconds)
            for group in rng.permutation(len(groups)):
                batches.send(collated(groups[group]))


def _weighted(choices: tuple[tuple[str, float], ...], rng: np.random.Generator) -> str:
    weights = np.array([weight for _, weight in choices])
    return choices[rng.choice(len(choices), p=weights / weights.sum())][0]
