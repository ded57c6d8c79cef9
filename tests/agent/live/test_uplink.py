"""What a client sends becomes frames and messages in one order, and every sample of it is accounted for."""

import asyncio
import base64
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from agent.core.inputs import AudioInput
from agent.core.kept_core import KeptCore
from agent.core.stored_session import ClientPosition
from agent.core.turn import TurnMachine
from agent.core.turn_options import TurnOptions
from agent.live.live_core import LiveCore, Said, event_of, text_of
from agent.live.uplink import Uplink, read_message
from agent.realtime.client_events import InputAudioBufferAppend
from agent.realtime.core import RealtimeCore
from agent.realtime.defaults import KnownLanguages, SessionDefaults
from agent.realtime.machine import RealtimeMachine
from agent.realtime.messages import parse_client_event
from agent.realtime.problems import ProtocolError
from audio.frames import FRAME_SAMPLES, AudioFrame
from audio.telephony import RATES

DEFAULTS = SessionDefaults(KnownLanguages(("eng",), ("eng",)))
FRAME = 480


class Line:
    """An uplink whose items are taken as they come."""

    def __init__(self, max_input_s: float = 60.0) -> None:
        wire = RealtimeMachine("sess_test", DEFAULTS)
        self.kept = KeptCore(RealtimeCore(TurnMachine(TurnOptions()), wire), text_of)
        self.core = LiveCore(self.kept, lambda: RATES[wire.settings.input_format])
        self.uplink = Uplink(self.core, lambda: wire.settings, max_input_s)
        self.items: list[AudioFrame | Said] = []
        self.paused = asyncio.Event()
        self.paused.set()

    async def take(self) -> None:
        async for item in self.uplink.source():
            await self.paused.wait()
            self.items.append(item)
            if isinstance(item, AudioFrame):
                self.core.take(AudioInput(item.start_sample, item.samples, 0.0))
            else:
                self.core.take(item)

    async def send(self, text: str) -> None:
        await self.uplink.push(read_message(text))

    async def append(self, content: bytes) -> None:
        audio = base64.b64encode(content).decode()
        await self.uplink.push(InputAudioBufferAppend(type="input_audio_buffer.append", audio=audio))

    def kinds(self) -> list[str]:
        return [
            "frame" if isinstance(item, AudioFrame) else getattr(item.event, "type", "problem") for item in self.items
        ]


@asynccontextmanager
async def open_line(max_input_s: float = 60.0) -> AsyncGenerator[Line, None]:
    line = Line(max_input_s)
    taking = asyncio.create_task(line.take())
    try:
        yield line
    finally:
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)


def pcm(samples: int) -> bytes:
    noise = np.random.default_rng(0).integers(-1000, 1000, samples)
    return noise.astype("<i2").tobytes()


async def test_sound_and_messages_keep_their_order() -> None:
    async with open_line() as line:
        await line.append(pcm(3 * FRAME))
        await line.send('{"type": "response.cancel"}')
        await line.append(pcm(2 * FRAME))
        await line.send("nonsense")
        await line.uplink.settle()
        kinds = line.kinds()
        assert [kind for kind in kinds if kind != "frame"] == ["response.cancel", "problem"]
        assert kinds.index("response.cancel") in (2, 3)  # the resampler looks a little ahead
        assert line.core.position.events == 2


@pytest.mark.parametrize("piece", [1, 7, 960, 100_000])
async def test_frames_are_the_same_however_the_sound_was_chopped(piece: int) -> None:
    content = pcm(40 * FRAME)
    async with open_line() as whole, open_line() as pieces:
        await whole.append(content)
        for start in range(0, len(content), piece):
            await pieces.append(content[start : start + piece])
        await whole.uplink.settle()
        await pieces.uplink.settle()
        frames = [[item for item in line.items if isinstance(item, AudioFrame)] for line in (whole, pieces)]
        assert [frame.start_sample for frame in frames[0]] == [n * FRAME_SAMPLES for n in range(len(frames[0]))]
        assert len(frames[0]) == len(frames[1])
        for one, other in zip(*frames, strict=True):
            np.testing.assert_array_equal(one.samples, other.samples)


async def test_what_is_kept_is_a_whole_number_of_frames() -> None:
    async with open_line() as line:
        await line.append(pcm(10 * FRAME + 333))
        await line.uplink.settle()
        assert line.core.position == ClientPosition(line.core.kept.heard_sample * 3 // 2, 0)  # type: ignore[operator]
        assert 9 * FRAME <= line.core.position.audio_samples <= 10 * FRAME


async def test_the_client_sends_the_rest_again_and_the_clock_goes_on() -> None:
    async with open_line() as line:
        content = pcm(20 * FRAME)
        await line.append(content[: 2 * (7 * FRAME + 100)])
        await line.uplink.settle()
        kept = line.core.position.audio_samples
        await line.append(content[2 * kept :])
        await line.send('{"type": "input_audio_buffer.commit"}')
        await line.uplink.settle()
        assert line.core.position == ClientPosition(20 * FRAME, 1)
        starts = [item.start_sample for item in line.items if isinstance(item, AudioFrame)]
        assert starts == [n * FRAME_SAMPLES for n in range(len(starts))]


@pytest.mark.parametrize("kind", ["commit", "clear"])
async def test_a_commit_takes_the_last_milliseconds_with_it(kind: str) -> None:
    async with open_line() as line:
        await line.append(pcm(5 * FRAME + 17))
        await line.send(f'{{"type": "input_audio_buffer.{kind}"}}')
        await line.uplink.settle()
        assert line.kinds() == ["frame"] * 6 + [f"input_audio_buffer.{kind}"]
        assert line.core.position == ClientPosition(5 * FRAME + 17, 1)
        await line.append(pcm(4 * FRAME))
        await line.uplink.settle()
        assert 5 * FRAME + 17 + 3 * FRAME <= line.core.position.audio_samples <= 5 * FRAME + 17 + 4 * FRAME


async def test_a_commit_of_nothing_makes_no_sound() -> None:
    async with open_line() as line:
        await line.send('{"type": "input_audio_buffer.commit"}')
        await line.uplink.settle()
        assert line.kinds() == ["input_audio_buffer.commit"]


async def test_half_a_sample_waits_for_its_other_half() -> None:
    async with open_line() as line:
        content = pcm(FRAME * 2)
        await line.append(content[:5])
        await line.append(content[5:])
        await line.send('{"type": "input_audio_buffer.commit"}')
        await line.uplink.settle()
        assert line.core.position.audio_samples == 2 * FRAME


async def test_the_format_is_the_one_that_holds_when_the_sound_comes() -> None:
    async with open_line() as line:
        await line.send(
            '{"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/pcmu"}}}}}'
        )
        await line.append(b"\xff" * 160 * 10)
        await line.send('{"type": "input_audio_buffer.commit"}')
        await line.uplink.settle()
        assert line.core.position == ClientPosition(1600, 2)
        assert line.kinds().count("frame") in (10, 11)


async def test_a_refused_format_does_not_hold() -> None:
    async with open_line() as line:
        update = '{"format": {"type": "audio/pcmu"}, "transcription": {"model": 7}}'
        await line.send(f'{{"type": "session.update", "session": {{"audio": {{"input": {update}}}}}}}')
        await line.append(pcm(10 * FRAME))
        await line.send('{"type": "input_audio_buffer.commit"}')
        await line.uplink.settle()
        assert line.core.position.audio_samples == 10 * FRAME


async def test_sound_that_nobody_commits_is_refused_in_time_and_accounted_for() -> None:
    async with open_line(max_input_s=0.5) as line:
        await line.send('{"type": "session.update", "session": {"audio": {"input": {"turn_detection": null}}}}')
        for _ in range(30):
            await line.append(pcm(FRAME))
        await line.uplink.settle()
        problems = [
            item.event for item in line.items if isinstance(item, Said) and isinstance(item.event, ProtocolError)
        ]
        assert {problem.code for problem in problems} == {"input_audio_buffer_full"}
        assert len(problems) == 5
        assert line.core.position.audio_samples == 30 * FRAME
        await line.send('{"type": "input_audio_buffer.clear"}')
        await line.append(pcm(FRAME))
        await line.uplink.settle()
        assert line.kinds()[-1] == "frame" or line.kinds()[-1] == "input_audio_buffer.clear"


async def test_sound_that_is_no_base64_counts_for_nothing() -> None:
    async with open_line() as line:
        await line.send('{"type": "input_audio_buffer.append", "audio": "!"}')
        await line.uplink.settle()
        assert line.kinds() == ["problem"]
        assert line.core.position == ClientPosition(0, 0)


async def test_once_stopped_it_takes_nothing() -> None:
    async with open_line() as line:
        line.uplink.stop()
        await line.append(pcm(10 * FRAME))
        await line.send('{"type": "response.cancel"}')
        await line.uplink.settle()
        assert line.items == []


async def test_once_stopped_it_takes_nothing_of_a_message_that_is_half_taken() -> None:
    async with open_line() as line:
        line.paused.clear()
        await line.append(pcm(FRAME + 1))
        sending = asyncio.create_task(line.append(pcm(200 * FRAME)))
        for _ in range(20):
            await asyncio.sleep(0)
        line.uplink.stop()
        settling = asyncio.create_task(line.uplink.settle())
        line.paused.set()
        await settling
        await sending
        await line.uplink.settle()
        starts = [item.start_sample for item in line.items if isinstance(item, AudioFrame)]
        assert starts == [n * FRAME_SAMPLES for n in range(len(starts))]
        assert 0 < len(starts) < 50


async def test_whoever_sends_faster_waits() -> None:
    async with open_line() as line:
        line.paused.clear()
        sending = asyncio.create_task(line.append(pcm(100 * FRAME)))
        await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not sending.done()
        line.paused.set()
        await sending


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"session.update","session":{"type":"realtime","audio":{"input":{"turn_detection":null}}}}',
        '{"type":"session.update","session":{"voice":"f1","input_audio_format":"g711_ulaw"}}',
        '{"type":"conversation.item.truncate","event_id":"e","item_id":"i","content_index":0,"audio_end_ms":7}',
    ],
)
def test_what_was_said_can_be_stored_and_read_again(text: str) -> None:
    event = parse_client_event(text)
    again = event_of(text_of(event))
    assert again == event
    assert not isinstance(again, ProtocolError)
    assert again.model_fields_set == event.model_fields_set


def test_so_can_what_was_wrong_with_it() -> None:
    problem = ProtocolError("code", "message", "param", "mine", "server_error")
    again = event_of(text_of(problem))
    assert isinstance(again, ProtocolError)
    assert vars(again) == vars(problem)
