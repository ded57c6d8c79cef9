"""An open loudspeaker: a client without echo cancellation sends back the reply that it plays, and is not somebody."""

import asyncio
import base64
import time
from collections.abc import Iterator

import numpy as np
import pytest

from audio.frames import VOICE_RATE, FloatArray, from_pcm16
from audio.voice import Voice
from tests.agent.server.running import Client, RunningServer, dialled, eventually, running

PIECE = VOICE_RATE // 50
DELAY = VOICE_RATE // 5
"""200 ms between a reply's arrival and its echo: buffers, and the way through the room"""

TAIL = VOICE_RATE
"""So much is sent after a reply's last sample: its reflections, and silence enough to see what they were taken for"""


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running("mini") as found:
        yield found


@pytest.fixture(scope="module")
def voices() -> dict[str, FloatArray]:
    """What a person says, 24 kHz."""

    async def spoken() -> dict[str, FloatArray]:
        async with Voice() as voice:
            return {
                "question": await voice.synthesize("Can you tell me where the station is?", "eng", variant="m3"),
                "stop": await voice.synthesize("No, wait, I want to say something else.", "eng", variant="f2"),
            }

    return asyncio.run(spoken())


class Room:
    """A microphone beside the loudspeaker that plays the replies, both at the speed of sound."""

    def __init__(self, client: Client, echo: float) -> None:
        self.client = client
        self.echo = echo
        self.waiting: FloatArray = np.zeros(0, np.float32)
        self.events: list[str] = []
        self.played = 0
        """Samples of replies that came back"""
        self.sent = 0
        """Samples"""
        self._said: FloatArray = np.zeros(0, np.float32)
        self._reflections = np.zeros(VOICE_RATE // 10, np.float32)
        decay = np.exp(-np.linspace(0, 7, len(self._reflections)))
        self._reflections[:] = np.random.default_rng(7).normal(0, 0.02, len(decay)) * decay
        self._reflections[0] = 1.0

    @property
    def starts(self) -> int:
        """How often the server took something for somebody who begins to speak."""
        return self.events.count("input_audio_buffer.speech_started")

    def say(self, samples: FloatArray) -> None:
        self._said = samples

    async def listen(self) -> None:
        while True:
            event = await self.client.hear()
            self.events.append(event["type"])
            if event["type"] == "response.output_audio.delta":
                sound = from_pcm16(np.frombuffer(base64.b64decode(event["delta"]), "<i2"))
                silence = np.zeros(0 if len(self.waiting) else DELAY, np.float32)
                self.waiting = np.concatenate([self.waiting, silence, sound])
            elif event["type"] == "input_audio_buffer.speech_started":
                self.waiting = self.waiting[:0]

    async def sound(self) -> None:
        began, tail = time.monotonic(), np.zeros(len(self._reflections) - 1, np.float32)
        while True:
            mine, self._said = self._said[:PIECE], self._said[PIECE:]
            theirs, self.waiting = self.waiting[:PIECE], self.waiting[PIECE:]
            self.played += len(theirs)
            echo = np.convolve(np.pad(theirs, (0, PIECE - len(theirs))), self._reflections)
            echo[: len(tail)] += tail
            tail = echo[PIECE:].copy()
            heard = self.echo * echo[:PIECE] + np.pad(mine, (0, PIECE - len(mine)))
            heard = heard + np.random.default_rng(self.sent).normal(0, 0.0005, PIECE)
            await self.client.speak(heard.astype(np.float32), piece_ms=20)
            self.sent += PIECE
            await asyncio.sleep(max(0.0, began + self.sent / VOICE_RATE - time.monotonic()))

    async def until_silent(self) -> None:
        """The reply has been played, and the server has heard the last of its echo, and some silence."""
        await eventually(lambda: not len(self.waiting))
        end, updates = self.sent + TAIL, self.events.count("session.updated")
        await eventually(lambda: self.sent >= end)
        await self.client.say("session.update", session={"type": "realtime"})  # takes effect after what was sent
        await eventually(lambda: self.events.count("session.updated") > updates)


@pytest.mark.slow
@pytest.mark.parametrize("interrupts", [False, True])
async def test_its_own_echo_does_not_interrupt_it_and_a_person_does(
    server: RunningServer, voices: dict[str, FloatArray], interrupts: bool
) -> None:
    async with dialled(server) as client, asyncio.TaskGroup() as tasks:
        await client.update(audio={"output": {"speed": 0.7}})
        room = Room(client, echo=0.5)
        both = [tasks.create_task(room.listen()), tasks.create_task(room.sound())]
        for number in range(2):  # the first reply shows the guard what the room is like
            before = room.played
            room.say(voices["question"])
            if interrupts and number:
                await eventually(lambda: room.played >= before + VOICE_RATE // 2)  # noqa: B023
                room.say(2 * voices["stop"])
                await eventually(lambda: room.starts == number + 2, 5)  # noqa: B023
            else:
                await eventually(lambda: room.events.count("response.done") > number)  # noqa: B023
                await room.until_silent()
                assert room.starts == number + 1
                assert room.played - before > VOICE_RATE // 2
        for task in both:
            task.cancel()
