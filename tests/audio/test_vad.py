"""Both detectors: speech above silence and noise, the same however often, nothing kept after a reset."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from audio.errors import VadError
from audio.frames import VOICE_RATE, AudioFrame, FloatArray, Framer
from audio.resample import resample
from audio.segmenter import Segmenter, SegmenterOptions, Utterance
from audio.vad import OPERATING_POINTS, SileroVad, VadName, VoiceActivityDetector, load_vad
from audio.voice import Voice
from tests.audio.signals import joined, noise

names = pytest.mark.parametrize("name", get_args(VadName))


@pytest.fixture(scope="module")
def sentence() -> FloatArray:
    """One spoken sentence with a second of near silence on both sides, at 16 kHz."""

    async def speak() -> FloatArray:
        async with Voice() as voice:
            return await voice.synthesize("The weather is lovely today.", "eng")

    silence = noise(16_000, level=1e-4)
    return joined([silence, resample(asyncio.run(speak()), VOICE_RATE, 16_000), silence])


def frames_of(samples: FloatArray) -> list[AudioFrame]:
    framer = Framer()
    return [*framer.push(samples), *framer.flush()]


def heard_by(detector: VoiceActivityDetector, samples: FloatArray) -> FloatArray:
    return np.array([detector.probability(frame) for frame in frames_of(samples)], dtype=np.float32)


@names
def test_speech_scores_above_silence(name: VadName, sentence: FloatArray) -> None:
    probabilities = heard_by(load_vad(name), sentence)
    assert probabilities.min() >= 0.0
    assert probabilities.max() <= 1.0
    assert np.median(probabilities[60:-60]) > 0.8
    assert probabilities[10:45].max() < 0.2


@names
def test_a_reset_detector_hears_like_a_fresh_one(name: VadName, sentence: FloatArray) -> None:
    fresh = heard_by(load_vad(name), sentence)
    used = load_vad(name)
    heard_by(used, noise(48_000))
    used.reset()
    assert np.array_equal(heard_by(used, sentence), fresh)


@names
def test_a_sentence_is_one_utterance_with_all_its_sound(name: VadName, sentence: FloatArray) -> None:
    point = OPERATING_POINTS[name]
    options = SegmenterOptions(threshold=point.threshold, release_threshold=point.release_threshold)
    segmenter, detector = Segmenter(options), load_vad(name)
    events = [event for frame in frames_of(sentence) for event in segmenter.push(frame, detector.probability(frame))]
    (utterance,) = [event for event in [*events, *segmenter.flush()] if isinstance(event, Utterance)]
    loud = np.flatnonzero(np.abs(sentence) > 0.02)
    assert utterance.start_sample <= loud[0]
    assert utterance.end_sample >= loud[-1] - 1600


def test_silero_takes_windows_that_do_not_fit_the_frames() -> None:
    """Fed window by window straight into the network, the same stream gives the same probabilities."""
    samples = noise(512 * 20, seed=3, level=0.3)
    by_frames = heard_by(SileroVad(), samples)
    direct = SileroVad()
    expected = []
    for index in range(20):
        window = samples[index * 512 : (index + 1) * 512]
        context = samples[index * 512 - 64 : index * 512] if index else np.zeros(64, dtype=np.float32)
        direct._window = np.concatenate([context, window])[None]
        expected.append(direct._judge())
    complete = [(index + 1) * 320 // 512 for index in range(len(by_frames))]
    assert by_frames.tolist() == [expected[count - 1] if count else 0.0 for count in complete]


def test_the_segmenter_expects_the_default_detector() -> None:
    options, point = SegmenterOptions(), OPERATING_POINTS["silero"]
    assert (options.threshold, options.release_threshold) == (point.threshold, point.release_threshold)


def test_an_unknown_detector_names_the_known_ones() -> None:
    with pytest.raises(VadError, match="choose one of webrtc, silero"):
        load_vad("energy")  # type: ignore[arg-type]


def test_a_broken_network_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a network")
    with pytest.raises(VadError, match="restore the file"):
        SileroVad(tmp_path / "broken.onnx")


def test_no_detector_loads_torch() -> None:
    check = "import sys; from audio.vad import load_vad; load_vad('silero'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
