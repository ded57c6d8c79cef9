"""Recordings longer than a concept become several, cut where the speaker pauses."""

from pathlib import Path

import pytest
import torch

from audio.files import read_audio
from lcm.bundle_writer import BundleWriter
from lcm.errors import AudioInputError, LanguageError
from lcm.space import ConceptSpace
from lcm.space.fbank import SAMPLE_RATE
from tests.lcm.space.golden_bundle import NEWER, write_golden_bundle

RECORDING = Path(__file__).parents[2] / "recordings" / "first_words" / "audio.flac"


@pytest.fixture(scope="module")
def mini() -> ConceptSpace:
    return ConceptSpace.load("mini", device="cpu", parts=["speech_encoder"])


@pytest.fixture(scope="module")
def spoken() -> torch.Tensor:
    once = torch.from_numpy(read_audio(RECORDING))
    return torch.cat([once] * (1 + 70 * SAMPLE_RATE // len(once)))


def test_each_piece_has_the_concept_of_its_stretch(mini: ConceptSpace, spoken: torch.Tensor) -> None:
    pieces = mini.encode_recording(spoken[: 20 * SAMPLE_RATE])
    assert pieces[0].start_seconds == 0.0
    assert pieces[-1].end_seconds == 20.0
    assert len(pieces) >= 3
    assert all(piece.end_seconds - piece.start_seconds <= mini.bundle.longest_seconds for piece in pieces)
    for piece in pieces:
        stretch = spoken[round(piece.start_seconds * SAMPLE_RATE) : round(piece.end_seconds * SAMPLE_RATE)]
        assert (mini.encode_speech([stretch])[0] - piece.concept).abs().max() < 1e-4


def test_sonar_hears_thirty_seconds_at_once(tmp_path: Path, spoken: torch.Tensor) -> None:
    folder = write_golden_bundle(tmp_path / "golden", NEWER)
    BundleWriter(folder).describe(longest_seconds=30.0)
    space = ConceptSpace.load(folder, "cpu", parts=[])
    pieces = space.encode_recording(spoken[: 70 * SAMPLE_RATE], language="fra")
    assert pieces[-1].end_seconds == 70.0
    assert 8.0 < max(piece.end_seconds - piece.start_seconds for piece in pieces) <= 30.0


def test_another_rate_is_resampled(mini: ConceptSpace, spoken: torch.Tensor) -> None:
    pieces = mini.encode_recording(spoken[: 12 * SAMPLE_RATE], sample_rate=2 * SAMPLE_RATE)
    assert [(piece.start_seconds, piece.end_seconds) for piece in pieces] == [(0.0, 6.0)]


def test_what_is_no_recording_is_refused(mini: ConceptSpace) -> None:
    with pytest.raises(AudioInputError):
        mini.encode_recording(torch.zeros(10))
    with pytest.raises(AudioInputError):
        mini.encode_recording(torch.full((SAMPLE_RATE,), float("nan")))
    with pytest.raises(LanguageError):
        mini.encode_recording(torch.zeros(SAMPLE_RATE), language="ita")
