"""OpenAI's own Python client, as it comes, against the real server with the bundle that ships.

The order of events is the protocol's, as a partial order: transcription events may fall anywhere, and the deltas of
one reply in any order among themselves.
"""

import asyncio
import base64
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection

from audio.frames import VOICE_RATE, FloatArray, from_pcm16, to_pcm16
from audio.voice import Voice
from tests.agent.realtime.test_order import AUDIO_ENDS, BEGINS, TEXT_ENDS, USER
from tests.agent.server.running import RunningServer, running

STORY = " ".join(f"This is sentence number {number} of a long story." for number in range(60))
QUIET_S = 2.0
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running("mini") as found:
        yield found


@pytest.fixture(scope="module")
def question() -> FloatArray:
    """Somebody asks for the way, 24 kHz."""

    async def spoken() -> FloatArray:
        async with Voice() as voice:
            return await voice.synthesize("Good morning, how are you today?", "eng")

    return asyncio.run(spoken())


class Talk:
    """A connection of the client, and what it was told."""

    def __init__(self, connection: AsyncRealtimeConnection) -> None:
        self.connection = connection
        self.events: list[Any] = []

    async def until(self, kind: str) -> Any:
        """Listens up to an event of this kind."""
        while True:
            async with asyncio.timeout(PATIENCE_S):
                event = await self.connection.recv()
            assert event.type != "error" or kind == "error", event
            self.events.append(event)
            if event.type == kind:
                return event

    async def update(self, **session: Any) -> Any:
        """Changes the session; what was told before is forgotten."""
        wanted: Any = {"type": "realtime", **session}
        await self.connection.session.update(session=wanted)
        updated = await self.until("session.updated")
        self.events.clear()
        return updated.session

    async def write(self, text: str) -> None:
        """Types something."""
        content: list[Any] = [{"type": "input_text", "text": text}]
        await self.connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})

    async def speak(self, samples: FloatArray, quiet_s: float = QUIET_S) -> None:
        """Says something, then nothing for a while; in pieces of 50 ms, faster than real time."""
        quiet = np.zeros(int(quiet_s * VOICE_RATE), np.float32)
        content = to_pcm16(np.concatenate([samples, quiet])).astype("<i2").tobytes()
        for start in range(0, len(content), 2400):
            await self.connection.input_audio_buffer.append(
                audio=base64.b64encode(content[start : start + 2400]).decode()
            )

    def kinds(self, *, deltas: bool = False) -> list[str]:
        """What was told, without what floats."""
        kinds = [event.type for event in self.events if "input_audio_transcription" not in event.type]
        return kinds if deltas else [kind for kind in kinds if not kind.endswith(".delta")]

    def of(self, kind: str) -> list[Any]:
        """Every event of a kind."""
        return [event for event in self.events if event.type == kind]

    def sound(self) -> FloatArray:
        """All that is to be heard."""
        content = b"".join(base64.b64decode(event.delta) for event in self.of("response.output_audio.delta"))
        return from_pcm16(np.frombuffer(content, "<i2"))


@asynccontextmanager
async def talking(server: RunningServer) -> AsyncGenerator[Talk, None]:
    """The client, told nothing but where the server is."""
    async with (
        AsyncOpenAI(api_key="x", websocket_base_url=f"ws://127.0.0.1:{server.port}/v1") as client,
        client.realtime.connect(model="noema") as connection,
    ):
        talk = Talk(connection)
        await talk.until("conversation.created")
        assert talk.kinds() == ["session.created", "conversation.created"]
        talk.events.clear()
        yield talk


async def test_text_in_and_text_out(server: RunningServer) -> None:
    async with talking(server) as talk:
        session = await talk.update(output_modalities=["text"])
        assert session.output_modalities == ["text"]
        await talk.write("Good morning, how are you today?")
        await talk.connection.response.create()
        done = await talk.until("response.done")
        assert talk.kinds() == ["conversation.item.added", "conversation.item.done", *BEGINS, *TEXT_ENDS]
        said = talk.of("response.output_text.done")[0].text
        assert said == "".join(event.delta for event in talk.of("response.output_text.delta"))
        assert said
        assert done.response.status == "completed"
        assert done.response.output[0].content[0].text == said
        identities = [event.event_id for event in talk.events]
        assert len(set(identities)) == len(identities)


async def test_sound_in_and_sound_out(server: RunningServer, question: FloatArray) -> None:
    async with talking(server) as talk:
        await talk.update(audio={"input": {"transcription": {"model": "noema"}}})
        await talk.speak(question)
        done = await talk.until("response.done")
        if not talk.of("conversation.item.input_audio_transcription.completed"):
            await talk.until("conversation.item.input_audio_transcription.completed")
        assert talk.kinds() == [*USER, *BEGINS, *AUDIO_ENDS]
        assert done.response.status == "completed"
        assert np.sqrt(np.mean(talk.sound() ** 2)) > 0.01
        assert talk.of("response.output_audio_transcript.done")[0].transcript
        heard = talk.of("conversation.item.input_audio_transcription.completed")[0]
        assert heard.item_id == talk.of("input_audio_buffer.committed")[0].item_id
        assert heard.transcript


async def test_g711_in_and_out(server: RunningServer, question: FloatArray) -> None:
    from audio.resample import resample
    from audio.telephony import AudioEncoder

    telephone: Any = {"type": "audio/pcmu"}
    async with talking(server) as talk:
        await talk.update(audio={"input": {"format": telephone}, "output": {"format": telephone}})
        said = np.concatenate([question, np.zeros(2 * VOICE_RATE, np.float32)])
        encoder = AudioEncoder("audio/pcmu")
        content = encoder.push(resample(said, VOICE_RATE, VOICE_RATE)) + encoder.flush()
        for start in range(0, len(content), 400):
            await talk.connection.input_audio_buffer.append(
                audio=base64.b64encode(content[start : start + 400]).decode()
            )
        done = await talk.until("response.done")
        assert done.response.status == "completed"
        bytes_out = sum(len(base64.b64decode(event.delta)) for event in talk.of("response.output_audio.delta"))
        assert bytes_out > 4000  # half a second at 8 kHz


async def test_speech_interrupts_a_reply(server: RunningServer, question: FloatArray) -> None:
    async with talking(server) as talk:
        # An interpreter is not interrupted unless the client asks for it; with its task, a reply can be a long one.
        detection = {"type": "server_vad", "interrupt_response": True}
        await talk.update(
            noema={"task": "translate", "reply_language": "fra"}, audio={"input": {"turn_detection": detection}}
        )
        await talk.write(STORY)
        await talk.connection.response.create()
        first = await talk.until("response.output_audio.delta")
        await talk.speak(question)
        cancelled = await talk.until("response.done")
        assert cancelled.response.status == "cancelled"
        assert cancelled.response.status_details.reason == "turn_detected"
        kinds = talk.kinds(deltas=True)
        after = kinds[kinds.index("input_audio_buffer.speech_started") :]
        assert not [kind for kind in after if kind.endswith(".delta")]
        assert [kind for kind in after if kind.startswith("response.")] == [
            kind for kind in AUDIO_ENDS if kind.startswith("response.")
        ]
        # This client knows the extension, so it is told up to where the server takes the reply to have been heard. As
        # clients do, it flushes its playback and tells how much that really was.
        reckoned = await talk.until("conversation.item.truncated")
        await talk.connection.conversation.item.truncate(item_id=first.item_id, content_index=0, audio_end_ms=300)
        truncated = await talk.until("conversation.item.truncated")
        assert reckoned.item_id == truncated.item_id == first.item_id
        assert truncated.audio_end_ms == 300
        answered = await talk.until("response.done")
        assert answered.response.status == "completed"
        deltas = talk.of("response.output_audio.delta")
        assert {event.response_id for event in deltas} == {first.response_id, answered.response.id}


async def test_the_client_cancels_a_reply(server: RunningServer) -> None:
    async with talking(server) as talk:
        await talk.update(noema={"task": "translate", "reply_language": "fra"})
        await talk.write(STORY)
        await talk.connection.response.create()
        await talk.until("response.output_audio.delta")
        await talk.connection.response.cancel()
        done = await talk.until("response.done")
        assert (done.response.status, done.response.status_details.reason) == ("cancelled", "client_cancelled")
        await talk.connection.response.cancel()
        error = await talk.until("error")
        assert error.error.code == "response_cancel_not_active"
        await talk.write("Are you there?")
        await talk.connection.response.create()
        assert (await talk.until("response.done")).response.status == "completed"


async def test_a_turn_is_committed_by_hand(server: RunningServer, question: FloatArray) -> None:
    async with talking(server) as talk:
        session = await talk.update(audio={"input": {"turn_detection": None}})
        assert session.audio.input.turn_detection is None
        await talk.speak(question, quiet_s=0.2)
        await talk.connection.input_audio_buffer.commit()
        await talk.until("conversation.item.done")
        assert talk.kinds() == list(USER[2:])  # nobody detected any speech
        await talk.connection.response.create()
        done = await talk.until("response.done")
        assert talk.kinds()[3:] == [*BEGINS, *AUDIO_ENDS]
        assert done.response.status == "completed"
        await talk.connection.input_audio_buffer.commit()
        assert (await talk.until("error")).error.code == "input_audio_buffer_commit_empty"


async def test_items_are_retrieved_and_deleted(server: RunningServer) -> None:
    async with talking(server) as talk:
        await talk.update(output_modalities=["text"])
        await talk.write("My name is Ada.")
        item = (await talk.until("conversation.item.done")).item
        await talk.connection.conversation.item.retrieve(item_id=item.id)
        found = await talk.until("conversation.item.retrieved")
        assert found.item.content[0].text == "My name is Ada."
        await talk.connection.conversation.item.delete(item_id=item.id)
        assert (await talk.until("conversation.item.deleted")).item_id == item.id
        await talk.connection.conversation.item.retrieve(item_id=item.id)
        assert (await talk.until("error")).error.param == "item_id"


async def test_closing_is_clean(server: RunningServer) -> None:
    async with talking(server) as talk:
        await talk.connection.close()
    async with asyncio.timeout(PATIENCE_S):
        while not server.idle():  # noqa: ASYNC110 - it happens on another thread's loop
            await asyncio.sleep(0.01)
