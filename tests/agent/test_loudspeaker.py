"""The loudspeaker on a real playback device: positions are those of the reply timeline, across an interruption."""

import asyncio

import numpy as np

from agent.events import ReplyAudio, ReplyTruncated
from agent.inputs import Input, PlaybackPosition
from agent.loudspeaker import Loudspeaker
from audio.frames import VOICE_RATE
from audio.playback import Playback
from tests.audio.conftest import sound_devices
from tests.audio.waiting import until

__all__ = ["sound_devices"]
SECOND = np.full(VOICE_RATE, 0.1, dtype=np.float32)


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
