"""The loudspeaker on a real playback device: positions are those of the reply timeline, across an interruption."""

import asyncio
import contextlib
from types import SimpleNamespace

import numpy as np

from agent.core.events import ReplyAudio, ReplyTruncated
from agent.core.inputs import Input, PlaybackPosition
from agent.loudspeaker import Loudspeaker
from audio.frames import VOICE_RATE
from audio.playback import Playback
from tests.audio.conftest import sound_devices
from tests.audio.waiting import until

__all__ = ["sound_devices"]
SECOND = np.full(VOICE_RATE, 0.1, dtype=np.float32)


class Hurried(Playback):
    """A playback whose device is the test, which takes sound as fast as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = SimpleNamespace(time=1.0)

    def take(self, samples: int) -> np.ndarray:
        """What would have sounded, silence where there was nothing; heard at once."""
        out = np.zeros((samples, 1), dtype=np.float32)
        self._on_block(out, samples, SimpleNamespace(outputBufferDacTime=-1e9, currentTime=1.0), None)
        return out[:, 0]


async def test_an_answer_longer_than_the_device_takes_is_heard_to_its_end() -> None:
    heard: list[int] = []

    async def command(item: Input) -> None:
        assert isinstance(item, PlaybackPosition)
        heard.append(item.heard_sample)

    playback = Hurried()
    loudspeaker = Loudspeaker(playback)
    seconds = [np.full(VOICE_RATE, (number + 1) / 1000, dtype=np.float32) for number in range(470)]
    for number, second in enumerate(seconds):
        await loudspeaker.on_event(ReplyAudio(0, 1, 0, number * VOICE_RATE, second))
    reporting = asyncio.create_task(loudspeaker.report(command))
    for start in range(0, 470, 10):
        assert np.array_equal(playback.take(10 * VOICE_RATE), np.concatenate(seconds[start : start + 10]))
        await until(lambda expected=(start + 10) * VOICE_RATE: heard[-1:] == [expected])  # type: ignore[misc]
    assert not playback.playing
    reporting.cancel()


async def test_what_waits_to_be_played_is_bounded_and_waiting_can_be_cancelled() -> None:
    playback = Hurried()
    loudspeaker = Loudspeaker(playback)
    place = 0

    async def speak(seconds: int) -> None:
        nonlocal place
        for _ in range(seconds):
            await loudspeaker.on_event(ReplyAudio(0, 1, 0, place, SECOND))
            place += VOICE_RATE

    await speak(1200)
    more = asyncio.create_task(speak(100))
    await until(lambda: place == 1230 * VOICE_RATE)
    more.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await more
    assert place == 1230 * VOICE_RATE
    more = asyncio.create_task(speak(5))
    for _ in range(2):
        playback.take(10 * VOICE_RATE)
    await more
    await loudspeaker.on_event(ReplyTruncated(0, 1, 0, 0))
    assert not playback.take(VOICE_RATE).any()
    await loudspeaker.on_event(ReplyAudio(0, 2, 0, place, SECOND))
    assert np.array_equal(playback.take(VOICE_RATE), SECOND)


async def test_positions_go_on_across_an_interruption(sound_devices: None) -> None:
    heard: list[int] = []

    async def command(item: Input) -> None:
        assert isinstance(item, PlaybackPosition)
        heard.append(item.heard_sample)

    async with Playback() as playback, asyncio.timeout(30):
        loudspeaker = Loudspeaker(playback)
        reporting = asyncio.create_task(loudspeaker.report(command))
        for number in range(5):
            await loudspeaker.on_event(ReplyAudio(0, 1, 0, number * VOICE_RATE, SECOND))
        await until(lambda: bool(heard) and heard[-1] > VOICE_RATE // 10)
        assert heard == sorted(heard)
        await loudspeaker.on_event(ReplyTruncated(0, 1, heard[-1], 0))
        assert not playback.playing
        before = len(heard)
        await loudspeaker.on_event(ReplyAudio(0, 2, 0, 5 * VOICE_RATE, SECOND))
        await until(lambda: len(heard) > before + 2)
        assert all(5 * VOICE_RATE <= place <= 6 * VOICE_RATE for place in heard[before:])
        reporting.cancel()
