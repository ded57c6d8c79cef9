"""Recordings: audio files in, one memory-mapped array of 16-bit samples at 16 kHz out, with a line about each.

Everything that training and evaluation hear again and again is decoded or spoken once and kept here: the speech
corpora, background noise, flite's voices, the synthetic test sets. Knows nothing of features or models.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from lcm.errors import TrainingDataError
from lcm.space.fbank import SAMPLE_RATE
from lcm.training import synthesis
from lcm.training.data import SPLITS, key, made_of, read_split, share

FloatArray = np.ndarray[Any, np.dtype[np.float32]]

FLITE_SENTENCES = 4_000
TEST_SENTENCES, DEV_SENTENCES = 1_000, 250
_MOST_CHARS = 120
_PER_FESTIVAL = 50


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording in a store."""

    start: int
    """Where it begins in the store, in samples"""
    length: int
    """Samples"""
    language: str
    text: str
    corpus: str
    speaker: str = ""


class Recordings:
    """A store that has been written: `store[i]` is clip i as float32 in −1 … 1."""

    def __init__(self, path: Path) -> None:
        """Open `path`.jsonl and `path`.i16."""
        try:
            lines = _beside(path, ".jsonl").read_text(encoding="utf-8").splitlines()
            self.clips = [Clip(**json.loads(line)) for line in lines]
            self._samples = np.memmap(_beside(path, ".i16"), dtype=np.int16, mode="r")
        except OSError as error:
            raise TrainingDataError(f"cannot read {path}.*: {error.strerror}; prepare the recordings again") from error

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> FloatArray:
        clip = self.clips[index]
        samples = np.asarray(self._samples[clip.start : clip.start + clip.length])
        return samples.astype(np.float32) * np.float32(2**-15)


def write_recordings(path: Path, clips: Iterable[tuple[FloatArray, dict[str, str]]]) -> None:
    """Write samples and what is known of each; the line list comes last, so that half a store is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines, start = [], 0
    with _beside(path, ".i16").open("wb") as out:
        for samples, about in clips:
            scaled = np.clip(np.rint(samples * 2**15), -(2**15), 2**15 - 1).astype(np.int16)
            out.write(scaled.tobytes())
            lines.append(json.dumps(asdict(Clip(start, len(scaled), **about)), ensure_ascii=False))
            start += len(scaled)
    aside = _beside(path, ".jsonl.new")
    aside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    aside.replace(_beside(path, ".jsonl"))


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def decoded(content: bytes) -> FloatArray:
    """Mono samples at 16 kHz of an audio file's bytes."""
    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    return resampled(samples.mean(axis=1), rate)


def resampled(samples: FloatArray, rate: float) -> FloatArray:
    """`samples` at 16 kHz."""
    return samples if rate == SAMPLE_RATE else soxr.resample(samples, rate, SAMPLE_RATE).astype(np.float32)


def prepare_recordings(prepared: Path, data: Path, out: Path) -> None:
    """Decode every corpus split and the noise of `data`/speech into stores under `out`; what is there is kept.

    Raises:
        TrainingDataError: an archive is missing, or what is there was made of other splits.
    """
    made_of(out, prepared)
    for split in SPLITS:
        if not (out / f"speech.{split}.jsonl").exists():
            write_recordings(out / f"speech.{split}", _corpus_clips(prepared, data, split))
    if not (out / "noise.jsonl").exists():
        about = {"language": "", "text": "", "corpus": "noise"}
        noise = ((decoded(content), about) for _, content in _members(data / "speech" / "noise.tar"))
        write_recordings(out / "noise", noise)


def prepare_flite(prepared: Path, out: Path, count: int = FLITE_SENTENCES) -> None:
    """Training sentences in flite's three voices, which stem from real speakers; needs flite."""
    if (out / "flite.train.jsonl").exists():
        return
    rows = [r["text"] for r in read_split(prepared, "sentences.train") if r["language"] == "eng"]
    fitting = sorted((t for t in rows if 10 < len(t) <= _MOST_CHARS), key=lambda t: share(t, "flite"))[:count]
    spoken = (
        (decoded(synthesis.flite(text, voice)), {"language": "eng", "text": text, "corpus": "flite", "speaker": voice})
        for number, text in enumerate(fitting)
        for voice in [synthesis.FLITE_VOICES[number % len(synthesis.FLITE_VOICES)]]
    )
    write_recordings(out / "flite.train", spoken)


def held_out_sentences(prepared: Path, language: str, split: str, count: int) -> list[str]:
    """Held-out sentences of one language that fit one concept of speech, unique, in an order fixed by their text."""
    texts: dict[str, str] = {}
    for pair in read_split(prepared, f"parallel.{split}"):
        for tag, text in zip(pair["languages"], pair["texts"], strict=True):
            if tag == language and 10 < len(text) <= _MOST_CHARS:
                texts.setdefault(key(text), text)
    return sorted(texts.values(), key=lambda t: share(t, "speech test"))[:count]


def prepare_synthetic(prepared: Path, out: Path, languages: Sequence[str] = tuple(synthesis.ACCENTS)) -> None:
    """`synthetic.test` and `synthetic.dev`: held-out sentences by held-out variants of espeak-ng."""
    for split, count in (("test", TEST_SENTENCES), ("dev", DEV_SENTENCES)):
        if (out / f"synthetic.{split}.jsonl").exists():
            continue
        asked = [
            (language, text, synthesis.held_out_speaker(language, number))
            for language in languages
            for number, text in enumerate(held_out_sentences(prepared, language, split, count))
        ]
        spoken = synthesis.speak_reproducibly([(text, speaker) for _, text, speaker in asked])
        write_recordings(
            out / f"synthetic.{split}",
            (
                (resampled(samples.astype(np.float32) * np.float32(2**-15), synthesis.ESPEAK_RATE),
                 {"language": language, "text": text, "corpus": "synthetic", "speaker": speaker.variant})
                for (language, text, speaker), samples in zip(asked, spoken, strict=True)
            ),
        )  # fmt: skip


def prepare_unseen_engine(prepared: Path, out: Path, count: int = TEST_SENTENCES) -> None:
    """`unseen_engine.test`: held-out English sentences by festival's two voices; needs festival."""
    if not (out / "unseen_engine.test.jsonl").exists():
        sentences = held_out_sentences(prepared, "eng", "test", count)
        write_recordings(out / "unseen_engine.test", _festival_clips(sentences))


def _festival_clips(sentences: list[str]) -> Iterator[tuple[FloatArray, dict[str, str]]]:
    for block, start in enumerate(range(0, len(sentences), _PER_FESTIVAL)):
        voice = synthesis.FESTIVAL_VOICES[block % len(synthesis.FESTIVAL_VOICES)]
        texts = sentences[start : start + _PER_FESTIVAL]
        for text, wav in zip(texts, synthesis.festival(texts, voice), strict=True):
            yield decoded(wav), {"language": "eng", "text": text, "corpus": "festival", "speaker": voice}


def _corpus_clips(prepared: Path, data: Path, split: str) -> Iterator[tuple[FloatArray, dict[str, str]]]:
    wanted: dict[str, dict[str, dict[str, Any]]] = {}
    for row in read_split(prepared, f"speech.{split}"):
        wanted.setdefault(row["corpus"], {})[row["file"]] = row
    for corpus, rows in sorted(wanted.items()):
        found = 0
        for name, content in _members(data / "speech" / f"{corpus}.tar"):
            if name in rows:
                found += 1
                about = {field: rows[name][field] for field in ("language", "text", "corpus", "speaker")}
                yield decoded(content), about
        if found != len(rows):
            raise TrainingDataError(f"{corpus}.tar lacks {len(rows) - found} recordings of its list; fetch it again")


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                content = tar.extractfile(member)
                if content is not None and not member.name.endswith(".md"):
                    yield Path(member.name).name, content.read()
    except (OSError, tarfile.TarError) as error:
        raise TrainingDataError(f"cannot read {archive} ({error}); point --data at the training data") from error
