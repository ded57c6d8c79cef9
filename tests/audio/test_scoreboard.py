"""The scoreboard: its arithmetic on small cases, and a whole one on a meeting of our own making."""

import asyncio
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from audio.errors import AudioFileError
from audio.frames import VOICE_RATE, FloatArray
from audio.resample import resample
from audio.scoreboard import SNRS_DB, Excerpt, _end_lags, _mix, _turns, format_scoreboard, roc_auc, vad_scoreboard
from audio.voice import Voice
from tests.audio.signals import joined, noise


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_roc_auc_is_the_share_of_pairs_in_order(scored: list[tuple[int, bool]]) -> None:
    speech = [score for score, is_speech in scored if is_speech]
    silence = [score for score, is_speech in scored if not is_speech]
    if not speech or not silence:
        return
    wins = sum((s > n) + 0.5 * (s == n) for s in speech for n in silence)
    scores = np.array([score for score, _ in scored], dtype=np.float32)
    labels = np.array([is_speech for _, is_speech in scored])
    assert roc_auc(scores, labels) == pytest.approx(wins / (len(speech) * len(silence)))


def test_a_turn_spans_breaths_but_not_pauses() -> None:
    speech = np.zeros(200, dtype=np.bool_)
    speech[10:20] = speech[30:40] = speech[100:110] = True
    assert _turns(speech) == [(10, 40), (100, 110)]
    assert _turns(np.zeros(5, dtype=np.bool_)) == []


def test_the_end_of_a_turn_is_held_against_the_utterance_it_ends_in() -> None:
    speech = np.zeros(300, dtype=np.bool_)
    speech[10:100] = speech[280:300] = True
    taken = np.zeros(300, dtype=np.bool_)
    taken[5:110] = taken[270:300] = True
    assert _end_lags(speech, taken) == [10]


@pytest.mark.parametrize("snr", [level for level in SNRS_DB if level is not None])
def test_noise_is_mixed_at_the_level_asked_for(snr: int) -> None:
    samples = joined([np.zeros(16_000, dtype=np.float32), noise(16_000, level=0.05)])
    speech = np.arange(100) >= 50
    added = _mix(Excerpt("x", samples, speech), noise(9_000, seed=1), snr) - samples
    measured = 10 * np.log10(np.mean(samples[16_000:] ** 2) / np.mean(added**2))
    assert measured == pytest.approx(snr, abs=0.2)


def _make_data(folder: Path) -> None:
    """Two excerpts in which a sentence is spoken between silences, their labels, and a noise."""

    async def speak(text: str) -> FloatArray:
        async with Voice() as voice:
            return resample(await voice.synthesize(text, "eng"), VOICE_RATE, 16_000)

    speech = folder / "speech"
    speech.mkdir()
    labels = []
    with tarfile.open(speech / "ami_vad.tar", "w") as tar:
        for name, text in (("trn00", "Shall we begin with the budget?"), ("trn01", "I have no objection.")):
            spoken = asyncio.run(speak(text))
            silence = noise(32_000, level=1e-4)
            sf.write(folder / f"{name}.flac", joined([silence, spoken, silence]), 16_000)
            tar.add(folder / f"{name}.flac", f"{name}.flac")
            labels.append(f"SPEAKER {name} 1 2.0 {len(spoken) / 16_000:.3f} <NA> <NA> A <NA> <NA>\n")
        (folder / "train.rttm").write_text("".join(labels), encoding="utf-8")
        tar.add(folder / "train.rttm", "train.rttm")
    with tarfile.open(speech / "noise.tar", "w") as tar:
        sf.write(folder / "hiss.flac", noise(32_000), 16_000)
        tar.add(folder / "hiss.flac", "hiss.flac")


def test_a_clean_sentence_is_found_and_a_worse_detector_shows(tmp_path: Path) -> None:
    _make_data(tmp_path)
    board = vad_scoreboard(tmp_path)
    assert (board["tuned_on"], board["reported_on"], board["noises"]) == (["trn00"], ["trn01"], ["hiss"])
    clean = board["detectors"]["silero"]["clean"]
    assert clean["roc_auc"] > 0.9
    assert clean["missed_speech"] < 15
    assert clean["false_speech"] == 0
    assert board["detectors"]["webrtc"]["noise_alone"]["hiss"] > board["detectors"]["silero"]["noise_alone"]["hiss"]
    assert len(format_scoreboard(board).splitlines()) == 1 + 2 * (len(SNRS_DB) + 1 + 2)


def test_missing_data_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match="give the folder of the training data"):
        vad_scoreboard(tmp_path)
