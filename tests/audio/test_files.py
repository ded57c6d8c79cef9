"""Audio files: every format both ways, long ones in constant memory, bad ones in one line."""

import os
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from audio.errors import AudioFileError, AudioWriteError
from audio.files import FORMATS, audio_info, is_audio, iter_audio_frames, read_audio, write_audio
from audio.frames import FRAME_SAMPLES
from tests.audio.signals import joined, noise, tone


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100])
def test_what_is_written_is_read_back(tmp_path: Path, suffix: str, rate: int) -> None:
    path = tmp_path / f"tone{suffix}"
    write_audio(path, tone(1.0, rate), rate)
    assert abs(audio_info(path).seconds - 1.0) < 0.01
    heard = read_audio(path)
    assert len(heard) == pytest.approx(16_000, abs=160)
    expected = tone(1.0, 16_000)[: len(heard)]
    assert np.corrcoef(heard[: len(expected)], expected)[0, 1] > 0.99
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", FORMATS)
def test_streaming_gives_the_samples_of_reading_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"long{suffix}"
    write_audio(path, tone(6.01, 44_100), 44_100)
    whole = read_audio(path)
    frames = list(iter_audio_frames(path))
    assert [frame.start_sample for frame in frames[:3]] == [0, FRAME_SAMPLES, 2 * FRAME_SAMPLES]
    assert np.array_equal(joined(frame.samples for frame in frames)[: len(whole)], whole)


def test_stereo_at_8_khz_becomes_the_mean_of_its_channels(tmp_path: Path) -> None:
    left = tone(0.5, 8_000)
    sf.write(tmp_path / "stereo.wav", np.stack([left, 0 * left], axis=1), 8_000, subtype="FLOAT")
    info = audio_info(tmp_path / "stereo.wav")
    assert (info.channels, info.sample_rate, info.frames, info.format) == (2, 8_000, 4_000, "WAV FLOAT")
    heard = read_audio(tmp_path / "stereo.wav")
    assert np.abs(heard - tone(0.5, 16_000) / 2)[800:-800].max() < 1e-3


def test_a_very_short_file_is_read(tmp_path: Path) -> None:
    write_audio(tmp_path / "short.wav", tone(0.05, 16_000), 16_000)
    assert len(read_audio(tmp_path / "short.wav")) == 800
    assert len(list(iter_audio_frames(tmp_path / "short.wav"))) == 3


def test_samples_that_are_no_number_or_out_of_range_are_tamed(tmp_path: Path) -> None:
    wild = np.array([np.nan, np.inf, -np.inf, 7.0, 0.25], dtype=np.float32)
    sf.write(tmp_path / "wild.wav", wild, 16_000, subtype="FLOAT")
    assert read_audio(tmp_path / "wild.wav").tolist() == [0.0, 1.0, -1.0, 1.0, 0.25]


@pytest.mark.slow
def test_three_hours_stream_in_constant_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    minute = (noise(8_000 * 60) * 32767).astype(np.int16)
    with sf.SoundFile(path, "w", 8_000, 1, subtype="PCM_16") as file:
        for _ in range(180):
            file.write(minute)
    count, early = 0, 0.0
    for count, _frame in enumerate(iter_audio_frames(path), start=1):
        if count == 1_000:
            early = _peak_memory_mb()
    assert count == 3 * 3600 * 50
    assert _peak_memory_mb() - early < 50  # the whole would be 691 MB
    with pytest.raises(AudioFileError, match="lasts 10800 s"):
        read_audio(path)


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@pytest.mark.parametrize("suffix", FORMATS)
def test_sound_is_known_by_its_header(tmp_path: Path, suffix: str) -> None:
    write_audio(tmp_path / f"tone{suffix}", tone(1.0, 16_000), 16_000)
    unnamed = (tmp_path / f"tone{suffix}").rename(tmp_path / "tone")
    assert is_audio(unnamed)
    assert not any(map(is_audio, (tmp_path, tmp_path / "none", Path(__file__))))


def _broken_files(folder: Path) -> dict[str, Path]:
    names = {name: folder / name for name in ("missing.wav", "empty.wav", "text.wav", "text.mp3", "silent.wav")}
    names["empty.wav"].touch()
    names["text.wav"].write_text("this is not sound\n" * 100, encoding="utf-8")
    names["text.mp3"].write_text("nor is this\n" * 100, encoding="utf-8")
    sf.write(names["silent.wav"], np.empty(0, dtype=np.float32), 16_000)
    names["folder.wav"] = folder / "folder.wav"
    names["folder.wav"].mkdir()
    names["pipe.wav"] = folder / "pipe.wav"
    os.mkfifo(names["pipe.wav"])
    for name, rate, channels in (("slow.wav", 10, 1), ("fast.wav", 1_000_000, 1), ("wide.wav", 16_000, 65)):
        names[name] = folder / name
        sf.write(names[name], np.zeros((100, channels), dtype=np.float32), rate)
    return names


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.wav", "check the path"),
        ("empty.wav", "is empty"),
        ("text.wav", "is not audio"),
        ("text.mp3", "is not audio"),
        ("silent.wav", "holds no sound"),
        ("folder.wav", "check the path"),
        ("pipe.wav", "is a pipe"),
        ("slow.wav", "has 10 samples per second"),
        ("fast.wav", "has 1000000 samples per second"),
        ("wide.wav", "has 65 channels"),
    ],
)
def test_a_file_that_is_no_sound_is_one_line_that_says_what_to_do(tmp_path: Path, name: str, says: str) -> None:
    path = _broken_files(tmp_path)[name]
    for use in (read_audio, lambda bad: list(iter_audio_frames(bad))):
        with pytest.raises(AudioFileError, match=says) as caught:
            use(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("kept", [0.9, 0.5, 0.02])
def test_a_truncated_file_is_refused_not_half_read(tmp_path: Path, suffix: str, kept: float) -> None:
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    write_audio(whole, noise(48_000 * 10), 48_000)
    content = whole.read_bytes()
    cut.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(AudioFileError, match=r"cut short|is not audio|holds no sound"):
        read_audio(cut)


def test_a_wav_of_unknown_length_is_read_to_its_end(tmp_path: Path) -> None:
    write_audio(tmp_path / "whole.wav", tone(1.0, 16_000), 16_000)
    content = bytearray((tmp_path / "whole.wav").read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"  # what a pipe leaves in the header
    (tmp_path / "streamed.wav").write_bytes(content)
    assert np.array_equal(read_audio(tmp_path / "streamed.wav"), read_audio(tmp_path / "whole.wav"))


def test_too_long_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    write_audio(tmp_path / "long.ogg", tone(3.0, 16_000), 16_000)
    with pytest.raises(AudioFileError, match="lasts 3 s, which is more than 2 s; cut it"):
        read_audio(tmp_path / "long.ogg", max_seconds=2.0)


def test_many_channels_are_read_in_smaller_blocks(tmp_path: Path) -> None:
    mono = noise(70_000, level=0.1)
    sf.write(tmp_path / "wide.wav", np.repeat(mono[:, None], 64, axis=1), 16_000, subtype="FLOAT")
    tracemalloc.start()
    try:
        assert np.allclose(read_audio(tmp_path / "wide.wav"), mono, atol=1e-6)
        assert tracemalloc.get_traced_memory()[1] < 5e6  # all channels of one whole block would be 17 MB
    finally:
        tracemalloc.stop()


def test_an_unknown_suffix_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match=r"\.wav \.flac \.mp3 \.ogg \.opus"):
        write_audio(tmp_path / "sound.doc", tone(0.1, 16_000), 16_000)


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(AudioWriteError, match="cannot be written"):
        write_audio(tmp_path / "nowhere" / "sound.wav", tone(0.1, 16_000), 16_000)


def test_a_full_disk_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    """The limit on a file's size stands in for the full disk: the same write fails at the same place."""
    target = tmp_path / "sound.wav"
    target.write_bytes(b"what was there before")
    script = f"""
import resource, signal, sys
import numpy as np
from audio.errors import AudioWriteError
from audio.files import write_audio
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    write_audio({str(target)!r}, np.zeros(16_000, dtype=np.float32), 16_000)
except AudioWriteError as error:
    sys.exit(0 if "cannot be written" in str(error) else 3)
sys.exit(4)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", script], check=False, env=environment)
    assert done.returncode == 0
    assert target.read_bytes() == b"what was there before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["sound.wav"]
