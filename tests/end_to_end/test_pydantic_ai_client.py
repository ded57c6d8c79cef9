"""pydantic-ai's Realtime client, unchanged, against the real server: text, speech, interruption, turns by hand."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic_ai import Agent, ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.messages import SpeechPart
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.realtime import (
    RealtimeInputSpeechEndEvent,
    RealtimeInputSpeechStartEvent,
    RealtimeSession,
    RealtimeSessionErrorEvent,
    RealtimeTurnCompleteEvent,
)
from pydantic_ai.realtime.openai import OpenAIRealtimeModel, OpenAIRealtimeModelSettings

from audio.frames import FloatArray, to_pcm16
from audio.voice import Voice
from tests.agent.server.running import WIRE_RATE, RunningServer, running

LIMIT_S = 60
PIECE = 2 * WIRE_RATE // 10
"""Bytes of a tenth of a second"""
PAUSE = bytes(2 * WIRE_RATE)
LOUD = 2000


@pytest.fixture(scope="module")
def live(small_bundle: Path) -> Iterator[RunningServer]:
    with running(str(small_bundle)) as server:
        yield server


@pytest.fixture(scope="module")
def speech() -> bytes:
    """A sentence without the silence before it."""

    async def spoken() -> FloatArray:
        async with Voice() as voice:
            return await voice.synthesize("Where is the station?", "eng")

    samples = asyncio.run(spoken())
    return to_pcm16(samples[np.flatnonzero(np.abs(samples) > 0.05)[0] :]).astype("<i2").tobytes()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


class Conversation:
    """A session of the client, and everything that it told the application."""

    def __init__(self, session: RealtimeSession) -> None:
        self.session = session
        self.events: list[Any] = []
        self._changed = asyncio.Condition()

    async def follow(self) -> None:
        """Takes the events."""
        async for event in self.session:
            self.events.append(event)
            async with self._changed:
                self._changed.notify_all()

    async def until(self, kind: type[Any], count: int = 1) -> None:
        """Waits for so many events of a kind."""
        async with asyncio.timeout(LIMIT_S), self._changed:
            await self._changed.wait_for(lambda: len(self.all(kind)) >= count)

    async def replied(self, messages: int) -> None:
        """Waits for the reply that is owed, and until the words of what was said before it are known, too."""
        async with asyncio.timeout(LIMIT_S):
            await self.session.wait_for_reply()
            while len(self.messages) < messages:
                async with self._changed:
                    await self._changed.wait()

    def all(self, kind: type[Any]) -> list[Any]:
        """Events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def messages(self) -> list[ModelMessage]:
        """The conversation as the client keeps it."""
        return self.session.new_messages()

    async def say(self, sound: bytes) -> None:
        """Sends sound, in pieces."""
        for start in range(0, len(sound), PIECE):
            await self.session.send_audio(sound[start : start + PIECE])


@asynccontextmanager
async def conversing(
    live: RunningServer,
    settings: OpenAIRealtimeModelSettings | None = None,
    history: list[ModelMessage] | None = None,
    **more: Any,
) -> AsyncGenerator[Conversation, None]:
    """A session against our server without an error, unless a reply was over before it was cancelled."""
    provider = OpenAIProvider(base_url=f"http://127.0.0.1:{live.port}/v1", api_key="none")
    model = OpenAIRealtimeModel("noema", provider=provider, settings=settings)
    agent = Agent(instructions="Answer briefly.")
    async with agent.realtime(model, message_history=history).session(**more) as session:
        conversation = Conversation(session)
        following = asyncio.create_task(conversation.follow())
        try:
            yield conversation
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    assert {error.code for error in conversation.all(RealtimeSessionErrorEvent)} <= {"response_cancel_not_active"}


def _spoken(message: ModelMessage) -> SpeechPart:
    (part,) = message.parts
    assert isinstance(part, SpeechPart)
    return part


async def test_it_converses_in_words(live: RunningServer) -> None:
    async with conversing(live, {"output_modality": "text"}) as talk:
        for number, text in enumerate(("The cat is hungry.", "Where is the station?"), 1):
            await talk.session.send(text)
            await talk.until(RealtimeTurnCompleteEvent, number)
        asked, answered, _, again = talk.messages
        assert isinstance(asked.parts[0], UserPromptPart)
        for reply in (answered, again):
            assert isinstance(reply, ModelResponse)
            assert isinstance(reply.parts[0], TextPart)
            assert "reply" in reply.parts[0].content
            assert (reply.model_name, reply.finish_reason) == ("noema", "stop")
            assert reply.usage.input_tokens == 1
            assert reply.usage.output_tokens > 0


async def test_it_is_heard_and_hears_the_reply(live: RunningServer, speech: bytes) -> None:
    async with conversing(live) as talk:
        stream = talk.session.stream_audio()
        await talk.say(speech + PAUSE)
        await talk.until(RealtimeInputSpeechStartEvent)
        await talk.until(RealtimeInputSpeechEndEvent)
        await talk.replied(2)
        said, reply = map(_spoken, talk.messages)
        assert (said.speaker, reply.speaker) == ("user", "assistant")
        assert said.transcript
        assert reply.transcript
        assert np.abs(np.frombuffer(await anext(_loud(stream)), "<i2")).max() > LOUD


async def _loud(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in stream:
        if np.abs(np.frombuffer(chunk, "<i2")).max() > LOUD:
            yield chunk


async def test_speech_interrupts_a_reply_that_is_heard(live: RunningServer, speech: bytes) -> None:
    async with conversing(live, handle_barge_in=True) as talk:
        stream = talk.session.stream_audio()
        await talk.session.send("The cat is hungry. Where is the station?")
        await anext(_loud(stream))  # it plays, and no more of it is asked for
        await talk.say(speech + PAUSE)
        await talk.until(RealtimeInputSpeechEndEvent)
        await talk.replied(4)
        cut, said, reply = map(_spoken, talk.messages[1:])
        assert cut.interrupted_at_ms is not None
        assert cut.interrupted_at_ms < 2000
        assert (said.speaker, reply.speaker) == ("user", "assistant")
        assert reply.interrupted_at_ms is None
        assert reply.transcript


async def test_the_application_interrupts_and_goes_on(live: RunningServer) -> None:
    async with conversing(live) as talk:
        stream = talk.session.stream_audio()
        await talk.session.send("Good morning, how are you today?")
        await anext(_loud(stream))
        await talk.session.interrupt(played_ms=80)
        await talk.replied(2)
        assert _spoken(talk.messages[1]).interrupted_at_ms == 80
        await talk.session.send("We will meet at eight o'clock.")
        await talk.replied(4)
        assert _spoken(talk.messages[3]).transcript


async def test_turns_by_hand(live: RunningServer, speech: bytes) -> None:
    async with conversing(live, {"turn_detection": False}) as talk:
        await talk.say(speech)
        await talk.session.clear_audio()  # it was nothing
        await talk.say(speech)
        await talk.session.commit_audio()
        await talk.session.create_response()
        await talk.replied(2)
        said, reply = map(_spoken, talk.messages)
        assert said.transcript
        assert reply.transcript
        assert not talk.all(RealtimeInputSpeechStartEvent)


async def test_it_goes_on_from_an_earlier_conversation(live: RunningServer) -> None:
    history: list[ModelMessage] = [
        ModelRequest(parts=[UserPromptPart("The cat is hungry.")]),
        ModelResponse(parts=[TextPart("Where is the station?")]),
    ]
    async with conversing(live, {"output_modality": "text"}, history) as talk:
        await talk.session.send("Good morning, how are you today?", respond=False)
        await talk.session.send("We will meet at eight o'clock.")
        await talk.until(RealtimeTurnCompleteEvent)
        reply = talk.messages[-1]
        assert isinstance(reply, ModelResponse)
        assert isinstance(reply.parts[0], TextPart)
        assert reply.parts[0].content
