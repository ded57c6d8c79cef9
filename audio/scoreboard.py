"""Scoreboard of the voice activity detectors on labelled meetings, clean and in noise.

Receives a folder with `speech/ami_vad.tar` (30 s excerpts and who spoke when, RTTM) and `speech/noise.tar`.
Gives what a listener would notice of each detector together with the segmenter. The thresholds are chosen on the
first half of the excerpts and everything is reported on the second, whose speakers are others. Knows nothing of
models.
"""

import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from audio.errors import AudioFileError
from audio.files import read_audio
from audio.frames import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE, AudioFrame, FloatArray, Framer
from audio.segmenter import Segmenter, SegmenterOptions, Utterance
from audio.vad import VadName, load_vad

SNRS_DB = (None, 20, 10, 5)
"""None is the recording as it is"""
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
RELEASE = 0.7
"""Release threshold as a part of the threshold"""
COLLAR_FRAMES = 25
"""Half a second around labelled speech in which an utterance is not false: pre-roll and tail are wanted"""
SAME_TURN_FRAMES = 15
"""Labelled speech with shorter gaps is one turn"""
TURN_END_FRAMES = 50
"""Silence after which a turn has certainly ended: its utterance's end can be held against it"""
ONSET_FRAMES = 3
"""What may be missing of an onset; labels are no more exact than that"""

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Excerpt:
    """A labelled recording."""

    name: str
    samples: FloatArray  # [T]
    speech: BoolArray  # [frames]


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """What a detector made of one excerpt under one condition."""

    excerpt: Excerpt
    snr_db: int | None
    frames: list[AudioFrame]
    probabilities: FloatArray  # [frames]


def vad_scoreboard(data_dir: str | Path) -> dict[str, Any]:
    """Measure every detector; a minute's work. All figures are per cent but the areas and thresholds.

    Raises:
        AudioFileError: the data are not there.
    """
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        excerpts, noises = _load(Path(data_dir) / "speech", Path(folder))
    half = len(excerpts) // 2
    board: dict[str, Any] = {}
    for name in get_args(VadName):
        tuning = list(_hear(name, excerpts[:half], noises))
        threshold = min(THRESHOLDS, key=partial(_cost, tuning))
        held_out = list(_hear(name, excerpts[half:], noises))
        board[name] = {"threshold": threshold, "release_threshold": round(RELEASE * threshold, 3)}
        for snr in SNRS_DB:
            board[name][_label(snr)] = _score([heard for heard in held_out if heard.snr_db == snr], threshold)
        board[name]["all"] = _score(held_out, threshold)
        board[name]["noise_alone"] = {
            noise: _false_in_noise(name, samples, threshold) for noise, samples in noises.items()
        }
    return {
        "detectors": board,
        "tuned_on": [excerpt.name for excerpt in excerpts[:half]],
        "reported_on": [excerpt.name for excerpt in excerpts[half:]],
        "noises": sorted(noises),
        "speech_share": round(100 * float(np.concatenate([e.speech for e in excerpts[half:]]).mean()), 1),
        "seconds": round(time.perf_counter() - began, 1),
    }


def format_scoreboard(board: dict[str, Any]) -> str:
    """The scoreboard as a table for people."""
    lines = [
        f"{'detector':9}{'noise':>8}{'ROC-AUC':>9}{'missed %':>10}{'false %':>9}{'lost turns %':>14}"
        f"{'clipped onsets %':>18}{'end lag ms':>12}{'utterances':>12}"
    ]
    for name, figures in board["detectors"].items():
        for condition in (*map(_label, SNRS_DB), "all"):
            row = figures[condition]
            lines.append(
                f"{name:9}{condition:>8}{row['roc_auc']:9.3f}{row['missed_speech']:10.1f}"
                f"{row['false_speech']:9.1f}{row['lost_turns']:14.1f}{row['clipped_onsets']:18.1f}"
                f"{row['end_lag_ms']:12d}{row['utterances']:12d}"
            )
        alone = ", ".join(f"{noise} {share}" for noise, share in figures["noise_alone"].items())
        lines.append(f"{'':9}threshold {figures['threshold']}, release {figures['release_threshold']}")
        lines.append(f"{'':9}heard as speech in noise alone, %: {alone}")
    return "\n".join(lines)


def roc_auc(scores: FloatArray, positive: BoolArray) -> float:
    """Area under the ROC curve: how often speech scores above silence, ties counting half."""
    values, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    assert len(values) == len(counts), "one count per value"
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    hits, misses = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def _load(speech: Path, folder: Path) -> tuple[list[Excerpt], dict[str, FloatArray]]:
    for archive in ("ami_vad.tar", "noise.tar"):
        try:
            with tarfile.open(speech / archive) as tar:
                tar.extractall(folder / archive, filter="data")
        except (OSError, tarfile.TarError) as error:
            raise AudioFileError(
                f"{speech / archive}: cannot be unpacked ({error}); give the folder of the training data"
            ) from error
    turns = _read_rttm(folder / "ami_vad.tar" / "train.rttm")
    excerpts = []
    for path in sorted((folder / "ami_vad.tar").glob("*.flac")):
        samples = read_audio(path)
        speech_frames = np.zeros(-(-len(samples) // FRAME_SAMPLES), dtype=np.bool_)
        for start, end in turns.get(path.stem, []):
            first, last = (round(time * SAMPLE_RATE / FRAME_SAMPLES) for time in (start, end))
            speech_frames[first:last] = True
        excerpts.append(Excerpt(path.stem, samples, speech_frames))
    noises = {path.stem: read_audio(path) for path in sorted((folder / "noise.tar").glob("*.flac"))}
    return excerpts, noises


def _read_rttm(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Who spoke when: file → (start, end) in seconds."""
    turns: dict[str, list[tuple[float, float]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        _kind, name, _channel, start, length, *_ = line.split()
        turns.setdefault(name, []).append((float(start), float(start) + float(length)))
    return turns


def _hear(
    name: VadName,
    excerpts: Iterable[Excerpt],
    noises: dict[str, FloatArray],
    levels: tuple[int | None, ...] = SNRS_DB,
) -> Iterator[Heard]:
    """Every excerpt clean, and with every noise at every level."""
    for excerpt in excerpts:
        for snr in levels:
            for noise in [None] if snr is None else noises.values():
                samples = excerpt.samples if noise is None or snr is None else _mix(excerpt, noise, snr)
                framer = Framer()
                frames = [*framer.push(samples), *framer.flush()]
                detector = load_vad(name)
                heard = np.array([detector.probability(frame) for frame in frames], dtype=np.float32)
                yield Heard(excerpt, snr, frames, heard)


def _false_in_noise(name: VadName, noise: FloatArray, threshold: float) -> float:
    """How much of a recording without any speech is taken for utterances."""
    silent = Excerpt("noise", noise, np.zeros(-(-len(noise) // FRAME_SAMPLES), dtype=np.bool_))
    (heard,) = _hear(name, [silent], {}, levels=(None,))
    taken, _ = _taken(heard, _options(threshold))
    return round(100 * float(taken.mean()), 1)


def _mix(excerpt: Excerpt, noise: FloatArray, snr_db: int) -> FloatArray:
    """Add noise at a level below that of the excerpt's speech, and keep the sum in range."""
    speech = excerpt.samples[np.repeat(excerpt.speech, FRAME_SAMPLES)[: len(excerpt.samples)]]
    noise = np.resize(noise, len(excerpt.samples))
    gain = np.sqrt(np.mean(speech**2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
    mixed: FloatArray = excerpt.samples + np.float32(gain) * noise
    return mixed / max(1.0, float(np.abs(mixed).max()))


def _score(heard: list[Heard], threshold: float) -> dict[str, Any]:
    """Scores over several recordings, pooled."""
    options = _options(threshold)
    missed = spoken = false = silent = clipped = lost = turns = utterances = 0
    lags: list[int] = []
    for each in heard:
        speech = each.excerpt.speech
        taken, count = _taken(each, options)
        lags += _end_lags(speech, taken)
        away = np.convolve(speech, np.ones(2 * COLLAR_FRAMES + 1), mode="same") == 0
        missed += int((speech & ~taken).sum())
        spoken += int(speech.sum())
        false += int((away & taken).sum())
        silent += int(away.sum())
        for start, end in _turns(speech):
            turns += 1
            if not taken[start:end].any():
                lost += 1
            elif not taken[min(start + ONSET_FRAMES, end - 1)]:
                clipped += 1
        utterances += count
    probabilities = np.concatenate([each.probabilities for each in heard])
    return {
        "roc_auc": round(roc_auc(probabilities, np.concatenate([each.excerpt.speech for each in heard])), 4),
        "missed_speech": round(100 * missed / spoken, 2),
        "false_speech": round(100 * false / silent, 2),
        "lost_turns": round(100 * lost / turns, 2),
        "clipped_onsets": round(100 * clipped / max(1, turns - lost), 2),
        "end_lag_ms": round(float(np.median(lags)) * FRAME_MS) if lags else 0,
        "utterances": utterances,
    }


def _cost(tuning: list[Heard], threshold: float) -> float:
    """What the threshold is chosen by.

    False speech counts twice: a lost murmur costs a word, while a false utterance interrupts and is answered.
    An end noticed 20 ms later counts like one per cent of lost speech: every reply waits for it.
    """
    scores = [_score([heard for heard in tuning if heard.snr_db == snr], threshold) for snr in SNRS_DB]
    return float(
        sum(
            s["missed_speech"] + 2 * s["false_speech"] + 0.5 * s["clipped_onsets"] + max(0, s["end_lag_ms"]) / 20
            for s in scores
        )
    )


def _end_lags(speech: BoolArray, taken: BoolArray) -> list[int]:
    """Frames between the end of a turn and that of the utterance it ends in, where silence follows."""
    lags = []
    for start, end in _turns(speech):
        if speech[end : end + TURN_END_FRAMES].any() or end + TURN_END_FRAMES > len(speech):
            continue
        heard = np.flatnonzero(taken[start:end])
        if len(heard):
            last = start + int(heard[-1])
            silence = np.flatnonzero(~taken[last:])
            lags.append(last + (int(silence[0]) if len(silence) else len(taken) - last) - end)
    return lags


def _options(threshold: float) -> SegmenterOptions:
    return SegmenterOptions(threshold=threshold, release_threshold=RELEASE * threshold)


def _taken(heard: Heard, options: SegmenterOptions) -> tuple[BoolArray, int]:
    """Which frames are in an utterance, and how many utterances there are."""
    segmenter = Segmenter(options)
    taken = np.zeros(len(heard.frames), dtype=np.bool_)
    events = [
        event
        for frame, probability in zip(heard.frames, heard.probabilities, strict=True)
        for event in segmenter.push(frame, float(probability))
    ]
    utterances = [event for event in [*events, *segmenter.flush()] if isinstance(event, Utterance)]
    for utterance in utterances:
        taken[utterance.start_sample // FRAME_SAMPLES : -(-utterance.end_sample // FRAME_SAMPLES)] = True
    return taken, len(utterances)


def _turns(speech: BoolArray) -> list[tuple[int, int]]:
    """First frame and frame after the last of each stretch of speech without a gap that is more than a breath."""
    spoken = np.flatnonzero(speech)
    if len(spoken) == 0:
        return []
    breaks = np.flatnonzero(np.diff(spoken) > SAME_TURN_FRAMES)
    starts = spoken[np.concatenate([[0], breaks + 1])]
    ends = spoken[np.concatenate([breaks, [len(spoken) - 1]])] + 1
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]


def _label(snr_db: int | None) -> str:
    return "clean" if snr_db is None else f"{snr_db} dB"
