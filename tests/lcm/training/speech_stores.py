"""Prepared splits and recordings in miniature, spoken by espeak-ng: small enough for a test, in the real format."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lcm.training.recordings import FloatArray, resampled, write_recordings
from lcm.training.synthesis import ESPEAK_RATE, Espeak, Speaker

SENTENCES = {
    "eng": ["The cat is hungry.", "Where do you live?", "I have never seen him.", "It rains."],
    "fra": ["Le chat a faim.", "Où habitez-vous ?", "Je ne l'ai jamais vu.", "Il pleut."],
    "spa": ["El gato tiene hambre.", "¿Dónde vives?", "Nunca lo he visto.", "Llueve."],
    "deu": ["Die Katze hat Hunger.", "Wo wohnst du?", "Ich habe ihn nie gesehen.", "Es regnet."],
}


def spoken(text: str, accent: str = "en-us") -> FloatArray:
    """A sentence at 16 kHz."""
    samples = Espeak().speak(text, Speaker(accent, "m1")).astype(np.float32) * np.float32(2**-15)
    return resampled(samples, ESPEAK_RATE)


def tiny_stores(folder: Path) -> tuple[Path, Path]:
    """Folders of prepared splits and of stores."""
    prepared, stores = folder / "prepared", folder / "stores"
    prepared.mkdir()
    rows = [{"language": tag, "source": "x", "text": t} for tag, texts in SENTENCES.items() for t in texts]
    _write(prepared / "sentences.train.jsonl", rows)
    _write(prepared / "parallel.train.jsonl", [])
    held_out = {"component": 0, "languages": ["eng", "deu"], "texts": ["This is secret.", "Das ist geheim."]}
    _write(prepared / "parallel.test.jsonl", [held_out])
    _write(prepared / "parallel.dev.jsonl", [])
    fox = spoken("the quick brown fox")
    about = {"language": "eng", "corpus": "librispeech_en", "speaker": "1"}
    corpora = ("librispeech_en", "speechocean_en", "kerstin_de")
    heard = [(fox, about | {"text": "THE QUICK BROWN FOX", "corpus": corpus}) for corpus in corpora]
    write_recordings(stores / "speech.train", heard)
    for split in ("dev", "test"):
        texts = ("JUMPS OVER", "THE LAZY DOG", "AND RUNS AWAY")
        write_recordings(stores / f"speech.{split}", [(spoken(t.lower()), about | {"text": t}) for t in texts])
    secret = {"language": "deu", "corpus": "synthetic", "text": "Das ist geheim.", "speaker": "m7"}
    for split in ("dev", "test"):
        write_recordings(stores / f"synthetic.{split}", [(spoken("Das ist geheim.", "de"), secret)])
    noise = 0.1 * np.random.default_rng(0).standard_normal(32_000, dtype=np.float32)
    write_recordings(stores / "noise", [(noise, {"language": "", "corpus": "noise", "text": ""})])
    return prepared, stores


def _write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
