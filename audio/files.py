"""Audio files in and out: wav, flac, mp3, ogg, opus of any rate and channel count, through libsndfile.

Gives mono float32 at the rate asked for, whole or as a stream of frames in constant memory. A file that
cannot be used raises `AudioFileError`, one line that says what to do. Knows nothing of devices.
"""

import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

from audio.errors import AudioFileError, AudioWriteError
from audio.frames import SAMPLE_RATE, AudioFrame, FloatArray, Framer
from audio.resample import StreamResampler, resample

BLOCK_FRAMES = 65_536
"""Read at once: some seconds, a few hundred kilobytes; fewer where there are many channels"""
MAX_SECONDS = 1800.0
"""What `read_audio` takes into memory unless told otherwise"""

# What microphones and converters give. A block of a lower rate would become many times as much at ours.
_LOWEST_RATE, _HIGHEST_RATE = 4_000, 768_000
_MOST_CHANNELS = 64
_MAX_BLOCK_SAMPLES = 2 * BLOCK_FRAMES
"""Of all channels together"""

_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """How libsndfile names a file format, and the rates its encoder takes (None: any)."""

    container: str
    encoding: str
    rates: tuple[int, ...] | None = None


FORMATS = {
    ".wav": AudioFormat("WAV", "PCM_16"),
    ".flac": AudioFormat("FLAC", "PCM_16"),
    ".mp3": AudioFormat("MP3", "MPEG_LAYER_III", _MP3_RATES),
    ".ogg": AudioFormat("OGG", "VORBIS"),
    ".opus": AudioFormat("OGG", "OPUS", _OPUS_RATES),
}
"""What `write_audio` writes, by suffix; reading looks at the content instead"""


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a file says about itself."""

    frames: int
    """Samples per channel"""
    sample_rate: int
    """Hertz"""
    channels: int
    seconds: float
    format: str
    """libsndfile's name, such as ``FLAC PCM_16``"""


def is_audio(path: str | Path) -> bool:
    """Whether it is a file whose header promises sound, whatever its name ends in."""
    try:
        with _open(Path(path)):
            return True
    except AudioFileError:
        return False


def audio_info(path: str | Path) -> AudioInfo:
    """Read the header; only where it does not tell the length, the sound as well."""
    with _open(Path(path)) as file:
        frames = file.frames
        if not _knows_its_length(file):
            frames = sum(len(block) for block in _mono_blocks(Path(path), file))
        return AudioInfo(
            frames=frames,
            sample_rate=file.samplerate,
            channels=file.channels,
            seconds=frames / file.samplerate,
            format=f"{file.format} {file.subtype}",
        )


def read_audio(
    path: str | Path, *, sample_rate: int = SAMPLE_RATE, max_seconds: float = MAX_SECONDS
) -> FloatArray:  # [T]
    """Read a whole file as mono float32 in -1..1, resampled.

    Raises:
        AudioFileError: not audio, empty, cut short, or longer than `max_seconds`.
    """
    path = Path(path)
    blocks: list[FloatArray] = []
    room = int(max_seconds * sample_rate)
    for block in _resampled_blocks(path, sample_rate, max_seconds):
        # The header's length is a guess in some mp3 files and in streamed wav, so it is counted as well.
        room -= len(block)
        if room < -sample_rate:
            raise _too_long(path, None, max_seconds)
        blocks.append(block)
    return np.concatenate(blocks)


def iter_audio_frames(path: str | Path) -> Iterator[AudioFrame]:
    """Stream a file of any length as 20 ms frames, in constant memory; the last one is filled with silence.

    Raises:
        AudioFileError: not audio or empty, at once; cut short, when the end is reached.
    """
    framer = Framer()
    for block in _resampled_blocks(Path(path), SAMPLE_RATE, None):
        yield from framer.push(block)
    yield from framer.flush()


def write_audio(path: str | Path, samples: FloatArray, sample_rate: int) -> None:
    """Write mono samples; the suffix chooses the format (wav, flac, mp3, ogg, opus).

    Opus and mp3 take a few rates only (Opus: 8, 12, 16, 24, 48 kHz); any other is resampled to 48 kHz. The
    file appears whole or not at all: it is written aside and renamed.

    Raises:
        AudioFileError: an unknown suffix, or nothing to write.
        AudioWriteError: the disk refuses.
    """
    path = Path(path)
    chosen = FORMATS.get(path.suffix.lower())
    if chosen is None:
        raise AudioFileError(f"{path}: cannot write '{path.suffix}' files; use one of {' '.join(FORMATS)}")
    if samples.ndim != 1 or len(samples) == 0:
        raise AudioFileError(f"{path}: nothing to write, the sound has shape {samples.shape}; give mono samples")
    if chosen.rates is not None and sample_rate not in chosen.rates:
        samples, sample_rate = resample(samples, sample_rate, 48_000), 48_000
    _replace_file(path, _encode(path, _in_range(samples), sample_rate, chosen))


def _encode(path: Path, samples: FloatArray, sample_rate: int, chosen: AudioFormat) -> bytes:
    """Encode in memory: libsndfile hides some write errors, so the disk is left to Python."""
    encoded = io.BytesIO()
    try:
        with sf.SoundFile(
            encoded, "w", sample_rate, channels=1, format=chosen.container, subtype=chosen.encoding
        ) as file:
            # In blocks: libsndfile's Vorbis encoder overflows its stack on one very long write.
            for start in range(0, len(samples), BLOCK_FRAMES):
                file.write(samples[start : start + BLOCK_FRAMES])
    except sf.LibsndfileError as error:
        raise AudioFileError(
            f"{path}: cannot encode {sample_rate} Hz as {chosen.encoding} ({error.error_string}); try .wav"
        ) from error
    return encoded.getvalue()


def _replace_file(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise AudioWriteError(f"{path}: cannot be written ({reason}); choose another folder or free space") from error


@contextmanager
def _open(path: Path) -> Iterator[sf.SoundFile]:
    """Open for reading, every failure as one line."""
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a pipe would wait for whoever writes to it
            raise AudioFileError(f"{path}: is a pipe or a device, not a file; save the sound to a file first")
        with path.open("rb") as probe:
            if not probe.read(1):
                raise AudioFileError(f"{path}: the file is empty; record it again")
    except OSError as error:
        reason = error.strerror or str(error)
        raise AudioFileError(f"{path}: cannot be opened ({reason}); check the path") from error
    try:
        file = sf.SoundFile(os.fsencode(path))
    except (sf.LibsndfileError, TypeError) as error:  # TypeError: a .raw suffix, which carries no header
        raise AudioFileError(f"{path}: is not audio; give a wav, flac, mp3, ogg or opus file") from error
    with file:
        _check_header(path, file)
        yield file


def _check_header(path: Path, file: sf.SoundFile) -> None:
    """Refuse what no recording has: memory would depend on what a header claims."""
    if not _LOWEST_RATE <= file.samplerate <= _HIGHEST_RATE:
        raise AudioFileError(
            f"{path}: has {file.samplerate} samples per second, not {_LOWEST_RATE} to {_HIGHEST_RATE}; "
            "is its header right? Export it again"
        )
    if file.channels > _MOST_CHANNELS:
        raise AudioFileError(
            f"{path}: has {file.channels} channels, more than {_MOST_CHANNELS}; export one of them, or a mix"
        )


def _resampled_blocks(path: Path, sample_rate: int, max_seconds: float | None) -> Iterator[FloatArray]:
    """Give mono blocks at `sample_rate`; at least one is not empty."""
    with _open(path) as file:
        seconds = file.frames / file.samplerate
        if max_seconds is not None and _knows_its_length(file) and seconds > max_seconds:
            raise _too_long(path, seconds, max_seconds)
        resampler = StreamResampler(file.samplerate, sample_rate)
        for block in _mono_blocks(path, file):
            yield _in_range(resampler.push(block))
        if file.samplerate != sample_rate:
            yield _in_range(resampler.flush())


def _mono_blocks(path: Path, file: sf.SoundFile) -> Iterator[FloatArray]:
    read = 0
    frames = min(BLOCK_FRAMES, _MAX_BLOCK_SAMPLES // file.channels)
    while True:
        try:
            block: FloatArray = file.read(frames, dtype="float32", always_2d=True)  # [T, channels]
        except sf.LibsndfileError as error:
            raise _damaged(path, read / file.samplerate) from error
        if len(block) == 0:
            break
        read += len(block)
        yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
    if read == 0:
        raise AudioFileError(f"{path}: holds no sound; record it again")
    if _is_cut_short(file, read):
        raise _damaged(path, read / file.samplerate)


def _knows_its_length(file: sf.SoundFile) -> bool:
    return bool(file.frames < 2**62)  # a streamed flac says 2**63 - 1


def _is_cut_short(file: sf.SoundFile, read: int) -> bool:
    """Whether the file ends before it said it would. Each format tells in its own way."""
    if file.format == "WAV":
        # libsndfile trusts the file's size over the header, and notes it; a streamed wav has 0 or -1 there.
        promised = re.search(r"^data : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
        return promised is not None and int(promised[2]) < int(promised[1]) < 0x7FFF_0000
    if file.format == "OGG":
        return "Junk after the last page" in file.extra_info
    if file.format in {"MP3", "MPEG"}:
        return _has_xing_header(Path(os.fsdecode(file.name))) and read < 0.98 * file.frames
    return _knows_its_length(file) and read < file.frames


def _has_xing_header(path: Path) -> bool:
    """Whether an mp3 states its length; without that header libsndfile guesses it from the bit rate."""
    with path.open("rb") as file:
        beginning = file.read(BLOCK_FRAMES)
    return b"Xing" in beginning or b"Info" in beginning


def _in_range(samples: FloatArray) -> FloatArray:
    """Samples in -1..1: float files may hold more, or NaN, and resampling overshoots."""
    if len(samples) and not (samples.min() >= -1.0 and samples.max() <= 1.0):  # NaN compares false
        return np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0).clip(-1.0, 1.0)
    return samples


def _damaged(path: Path, seconds: float) -> AudioFileError:
    return AudioFileError(f"{path}: is damaged or cut short after {seconds:.1f} s; copy or export it again")


def _too_long(path: Path, seconds: float | None, max_seconds: float) -> AudioFileError:
    length = "" if seconds is None else f" {seconds:.0f} s, which is"
    return AudioFileError(f"{path}: lasts{length} more than {max_seconds:.0f} s; cut it, or stream it as frames")
