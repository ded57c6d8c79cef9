"""Sources and playback: a file at its own speed, and real sound through a real (if silent) sound server."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from audio.devices import list_devices
from audio.errors import AudioFileError, DeviceError
from audio.files import iter_audio_frames, write_audio
from audio.frames import VOICE_RATE, AudioFrame, FloatArray
from audio.playback import Playback
from audio.resample import StreamResampler, resample
from audio.source import Microphone, file_source
from tests.audio.signals import joined, noise, tone
from tests.audio.waiting import until


async def test_a_file_source_gives_the_frames_of_the_file(tmp_path: Path) -> None:
    write_audio(tmp_path / "sound.flac", noise(50_000), 22_050)
    frames = [frame async for frame in file_source(tmp_path / "sound.flac")]
    expected = list(iter_audio_frames(tmp_path / "sound.flac"))
    assert [frame.start_sample for frame in frames] == [frame.start_sample for frame in expected]
    assert np.array_equal(joined(f.samples for f in frames), joined(f.samples for f in expected))


async def test_speed_1_takes_as_long_as_the_sound_and_twice_half(tmp_path: Path) -> None:
    write_audio(tmp_path / "sound.wav", tone(0.6, 16_000), 16_000)
    loop = asyncio.get_running_loop()
    for speed in (1.0, 2.0):
        began = loop.time()
        async for frame in file_source(tmp_path / "sound.wav", speed):
            assert loop.time() - began >= frame.end_sample / 16_000 / speed - 0.001
        assert loop.time() - began < 0.6 / speed + 0.5


async def test_a_file_source_passes_on_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match="check the path"):
        await anext(file_source(tmp_path / "missing.wav"))


async def test_what_is_played_is_heard_by_the_microphone_and_counted(sound_devices: None) -> None:
    """A burst of noise goes out and comes back: the same sound, and the position heard is true."""
    burst = resample(noise(16_000, level=0.1), 16_000, VOICE_RATE)
    heard: list[AudioFrame] = []
    async with Microphone() as microphone, Playback() as playback:
        frames = microphone.frames()
        listener = asyncio.create_task(_listen_into(heard, frames))
        # A null sink wakes up slowly; sound counts only once both ends run.
        playback.write(np.zeros(VOICE_RATE // 10, dtype=np.float32))
        async with asyncio.timeout(20):
            await playback.drain()
            await until(lambda: len(heard) > 0)
            assert playback.heard_samples == VOICE_RATE // 10
            before = playback.playing
            playback.write(burst)
            assert (before, playback.playing) == (False, True)
            await playback.drain()
            end = len(heard) + 25
            await until(lambda: len(heard) > end)
        assert playback.heard_samples == VOICE_RATE // 10 + len(burst)
        assert microphone.dropped_frames == 0
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
    assert all(b.start_sample == a.end_sample for a, b in pairwise(heard))
    recorded, expected = joined(frame.samples for frame in heard), noise(16_000, level=0.1)
    # By pieces: on a busy machine the server may stumble once, which shifts all that follows.
    pieces = [_best_correlation(recorded, piece) for piece in np.split(expected, 8)]
    assert np.median(pieces) > 0.9


@pytest.mark.parametrize("device_rate", [24_000, 44_100, 48_000])
def test_all_that_was_written_is_heard_in_the_end_at_any_rate_of_the_device(device_rate: int) -> None:
    """Driven as PortAudio drives it: no sound server refuses 24 kHz, while bare hardware does."""
    playback = Playback()
    playback._rate = device_rate
    playback._resampler = StreamResampler(VOICE_RATE, device_rate)
    clock = SimpleNamespace(time=0.0)
    playback._stream = clock
    out = np.empty((device_rate // 100, 1), dtype=np.float32)
    for _ in range(3):
        playback.write(tone(0.1, VOICE_RATE))
    for _ in range(100):
        playback._on_block(out, len(out), SimpleNamespace(outputBufferDacTime=clock.time, currentTime=clock.time), None)
        assert playback.heard_samples < 3 * VOICE_RATE // 10 or not playback.playing
        clock.time += 0.01
    assert playback.heard_samples == 3 * VOICE_RATE // 10


async def test_clear_stops_the_sound_and_says_what_was_heard(sound_devices: None) -> None:
    async with Playback() as playback:
        playback.write(tone(20.0, VOICE_RATE))
        async with asyncio.timeout(20):
            await until(lambda: playback.heard_samples >= VOICE_RATE // 2)
            heard = playback.clear()
            assert VOICE_RATE // 2 <= heard < VOICE_RATE * 5
            assert playback.heard_samples == 0
            assert not playback.playing
            await playback.drain()
            # What is said next counts from zero again.
            playback.write(tone(0.1, VOICE_RATE))
            await playback.drain()
        assert playback.heard_samples == VOICE_RATE // 10


async def test_a_late_listener_loses_the_oldest_and_the_clock_goes_on(sound_devices: None) -> None:
    async with Microphone(max_queued_ms=100) as microphone:
        async with asyncio.timeout(20):
            frames = microphone.frames()
            first = await anext(frames)
            await until(lambda: microphone.dropped_frames >= 10)
            later = [await anext(frames) for _ in range(8)]
            await frames.aclose()
        assert len(microphone._blocks) <= 5
        assert first.start_sample == 0
        assert later[-1].start_sample >= (10 + 8) * 320


async def test_what_came_before_anybody_listened_is_forgotten(sound_devices: None) -> None:
    async with Microphone(max_queued_ms=100) as microphone, asyncio.timeout(20):
        await until(lambda: microphone.dropped_frames >= 3)
        frames = microphone.frames()
        heard = [await anext(frames) for _ in range(3)]
        await frames.aclose()
        assert [frame.start_sample for frame in heard] == [0, 320, 640]


async def test_a_device_that_is_not_there_says_how_to_find_one(sound_devices: None) -> None:
    assert any(device.is_default_input for device in list_devices())
    with pytest.raises(DeviceError, match="the microphone 'nonsense' cannot be used"):
        async with Microphone("nonsense"):
            pass
    with pytest.raises(DeviceError, match="the loudspeaker 'nonsense' cannot be used"):
        async with Playback("nonsense"):
            pass


async def test_too_much_at_once_and_nowhere_to_go_are_refused(sound_devices: None) -> None:
    playback = Playback()
    with pytest.raises(DeviceError, match="not open"):
        playback.write(tone(0.1, VOICE_RATE))
    async with playback:
        with pytest.raises(DeviceError, match=r"drain\(\) first"):
            playback.write(np.zeros(VOICE_RATE * 301, dtype=np.float32))


def test_a_machine_without_devices_says_so() -> None:
    """In a process of its own: PortAudio looks for devices once, when it is loaded."""
    check = """
import asyncio, sys
from audio.errors import DeviceError
from audio.source import Microphone
async def listen():
    async with Microphone():
        sys.exit(4)
try:
    asyncio.run(listen())
except DeviceError as error:
    sys.exit(0 if "\\n" not in str(error) else 3)
"""
    environment = {**os.environ, "PULSE_SERVER": "unix:/nowhere"}
    done = subprocess.run([sys.executable, "-c", check], check=False, env=environment, capture_output=True)
    if done.returncode == 4:
        pytest.skip("this machine has a microphone of its own")
    assert done.returncode == 0, done.stderr.decode()[-500:]


async def _listen_into(heard: list[AudioFrame], frames: AsyncIterator[AudioFrame]) -> None:
    async for frame in frames:
        heard.append(frame)  # noqa: PERF401 - the test looks at what has arrived so far


def _best_correlation(recorded: FloatArray, expected: FloatArray) -> float:
    size = len(recorded) + len(expected)
    spectrum = np.fft.rfft(recorded, size) * np.conj(np.fft.rfft(expected, size))
    lag = int(np.argmax(np.fft.irfft(spectrum, size)[: len(recorded) - len(expected)]))
    return float(np.corrcoef(recorded[lag : lag + len(expected)], expected)[0, 1])
