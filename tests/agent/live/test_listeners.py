"""Listeners of a session, with the real modules of a small bundle: what each hears, and what that costs."""

import asyncio
import base64
import json
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from agent.core.events import (
    ConceptsKnown,
    Heard,
    ReplyEnded,
    ReplySentence,
    ReplyTruncated,
    Task,
    TurnCommitted,
    TurnEnded,
)
from agent.core.inputs import Decode, ModelRequest, TypedText
from agent.core.turn import TurnMachine
from agent.core.turn_options import TurnOptions
from agent.errors import Overloaded
from agent.inference.job import Job
from agent.inference.model_worker import ModelWorker
from agent.inference.models import Models
from agent.live.interpretation import Listening
from agent.live.listeners import GONE, ListenerHub, ListenerLimits, listener_token
from agent.live.outbox import NORMAL, TOO_SLOW, OutboxClosed
from agent.metrics import Metrics
from agent.order import VirtualLatency, VirtualOrder
from agent.session import Parts, run_session
from audio.frames import AudioFrame
from audio.vad import load_vad
from audio.voice import Voice
from tests.small_bundle import DIM


class CountingWorker(ModelWorker):
    """The model worker, and what the hub asked it for."""

    def __init__(self, bundle: Path) -> None:
        super().__init__(lambda: Models.load(str(bundle), device="cpu", tasks=("converse",)))
        self.decoded: Counter[str] = Counter()

    def submit(self, session: int, request: ModelRequest) -> Job:
        if session < 0:
            assert isinstance(request, Decode)
            assert not request.urgent
            self.decoded[request.language] += 1
        return super().submit(session, request)


class CountingVoice(Voice):
    """The voice, and how often each language was spoken."""

    def __init__(self) -> None:
        super().__init__()
        self.spoken: Counter[str] = Counter()

    def speak(self, text: str, language: str, **how: Any) -> AsyncGenerator[np.ndarray, None]:
        self.spoken[language] += 1
        return super().speak(text, language, **how)


class Talk:
    """A hub, and what its listeners have been told."""

    def __init__(self, worker: CountingWorker, voice: CountingVoice) -> None:
        self.worker = worker
        self.voice = voice
        self.counts: list[dict[str, int]] = []
        self.hub = self.with_limits(ListenerLimits())

    def with_limits(self, limits: ListenerLimits) -> ListenerHub:
        self.hub = ListenerHub(self.worker, self.voice, limits=limits, changed=self._changed)
        self.hub.share(True)
        return self.hub

    def _changed(self, count: Any) -> None:
        self.counts.append(dict(count))

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Until everything was said."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.hub.run())
            yield
            self.hub.close()

    async def typed(self, *sentences: str) -> None:
        """A session in which these are typed, each answered."""

        async def silence() -> AsyncGenerator[AudioFrame, None]:
            no_sound: tuple[AudioFrame, ...] = ()
            for frame in no_sound:
                yield frame

        script = [TypedText(number, text) for number, text in enumerate(sentences)]
        machine = TurnMachine(TurnOptions(spoken_reply=False))
        parts = Parts(self.worker, load_vad("webrtc"), None, Metrics())
        await run_session(silence(), VirtualOrder(VirtualLatency(), script), machine, parts, [self.hub])

    async def turn(self, number: int, task: Task = "converse", language: str = "eng") -> None:
        await self.hub.on_event(TurnCommitted(0, number, "speech", language, language, task))

    async def says(self, turn: int, role: Any, index: int = 0, language: str = "eng") -> None:
        concept = np.random.default_rng(100 * turn + index).normal(size=(1, DIM)).astype(np.float32)
        await self.hub.on_event(ConceptsKnown(0, turn, role, index, concept, language))


@pytest_asyncio.fixture
async def talk(small_bundle: Path) -> AsyncGenerator[Talk, None]:
    worker = CountingWorker(small_bundle)
    async with CountingVoice() as voice, worker:
        yield Talk(worker, voice)


async def told(listening: Listening) -> list[dict[str, Any]]:
    """All that a listener was told."""
    messages = []
    try:
        while True:
            messages.append(json.loads(await listening.outbox.take()))
    except OutboxClosed:
        return messages


async def words(listening: Listening) -> list[str]:
    return [m["delta"].strip() for m in await told(listening) if m["type"] == "session.output_transcript.delta"]


async def test_each_language_is_decoded_and_voiced_once_however_many_listen(talk: Talk) -> None:
    async with talk.running():
        german = [talk.hub.join("deu"), talk.hub.join("deu"), talk.hub.join("deu", audio=False)]
        french = talk.hub.join("fra", "speaker", audio=False)
        await talk.typed("The cat is hungry.", "Where is the station? Good morning.")
    both, same, silent = [await told(one) for one in german]
    said = [m for m in both if m["type"] == "session.output_transcript.delta"]
    assert both == same
    assert silent == [m for m in both if m["type"] != "session.output_audio.delta"]
    assert silent[-1]["type"] == "session.closed"
    assert len({m["event_id"] for m in both}) == len(both)
    sound = b"".join(base64.b64decode(m["delta"]) for m in both if m["type"] == "session.output_audio.delta")
    assert len(sound) > 2 * 24_000  # a second of it
    assert np.abs(np.frombuffer(sound, "<i2")).max() > 1000
    by_user = [m for m in said if m["speaker"] == "user"]
    assert len(by_user) == 3
    assert [m["item_id"] for m in by_user] == ["turn_1_user", "turn_2_user", "turn_2_user"]
    assert by_user[2]["delta"].startswith(" ")
    assert len(said) > 3
    assert talk.worker.decoded == {"deu": len(said), "fra": 3}
    assert talk.voice.spoken == {"deu": len(said)}
    heard = [m for m in await told(french) if m["type"] == "session.output_transcript.delta"]
    assert [m["speaker"] for m in heard] == ["user"] * 3
    assert talk.counts[3] == {"deu": 3, "fra": 1}
    assert talk.counts[-1] == {}


async def test_nothing_is_computed_for_languages_that_nobody_listens_in(talk: Talk) -> None:
    async with talk.running():
        talk.hub.leave(talk.hub.join("deu"))
        await talk.typed("The cat is hungry.")
    assert talk.worker.decoded == {}
    assert talk.counts == [{"deu": 1}, {}]


async def test_in_the_language_that_is_spoken_the_sessions_own_words_are_heard(talk: Talk) -> None:
    async with talk.running():
        listening = talk.hub.join("eng", audio=False)
        await talk.typed("The cat is hungry. Where is the station?")
    heard = await words(listening)
    assert heard[0] == "The cat is hungry. Where is the station?"
    assert heard[1].startswith("eng reply")  # a sentence of the bank, as it stands there
    assert talk.worker.decoded == {}


async def test_what_was_heard_comes_before_the_reply_though_its_words_are_known_later(talk: Talk) -> None:
    async with talk.running():
        listening = talk.hub.join("eng", audio=False)
        await talk.turn(1)
        await talk.says(1, "user")
        await talk.hub.on_event(ReplySentence(0, 1, 0, "Yes.", "eng"))
        await talk.hub.on_event(Heard(0, 1, "Is it?", "eng", paraphrase=True))
        await talk.turn(2)
        await talk.says(2, "user")  # and its words never are: it failed
        await talk.hub.on_event(TurnEnded(0, 2, "failed"))
    assert await words(listening) == ["Is it?", "Yes."]


async def test_who_comes_late_hears_what_is_said_next(talk: Talk) -> None:
    async with talk.running():
        early = talk.hub.join("deu", audio=False)
        await talk.turn(1)
        await talk.says(1, "user", 0)
        late = talk.hub.join("deu", audio=False)
        await talk.says(1, "user", 1)
    everything = await words(early)
    assert len(everything) == 2
    assert await words(late) == everything[1:]
    assert talk.worker.decoded == {"deu": 2}


async def test_a_listener_that_takes_nothing_is_closed_and_the_others_do_not_notice(talk: Talk) -> None:
    talk.with_limits(ListenerLimits(outbox_bytes=500))
    async with talk.running():
        slow, quick = talk.hub.join("deu", audio=False), talk.hub.join("deu", audio=False)
        heard = []
        await talk.turn(1)
        for index in range(5):
            await talk.says(1, "user", index)
            heard.append(json.loads(await quick.outbox.take())["type"])
    assert slow.outbox.farewell is TOO_SLOW
    assert heard == ["session.output_transcript.delta"] * 5
    assert [m["type"] for m in await told(quick)] == ["session.closed"]


async def test_of_a_reply_that_was_cut_off_the_rest_is_not_said(talk: Talk) -> None:
    async with talk.running():
        listening = talk.hub.join("deu", "agent", audio=False)
        for turn in (1, 2):
            await talk.turn(turn)
            for index in range(3):
                await talk.says(turn, "agent", index)
        await talk.hub.on_event(ReplyTruncated(0, 1, 1000, 1))
        await talk.hub.on_event(ReplyEnded(0, 1, "interrupted"))
        await talk.hub.on_event(ReplyEnded(0, 2, "cancelled"))
        await talk.says(2, "user")
    said = [m for m in await told(listening) if m["type"] == "session.output_transcript.delta"]
    assert [m["item_id"] for m in said] == ["turn_1_agent"]
    assert talk.worker.decoded == {"deu": 1}


async def test_too_much_that_waits_leaves_the_oldest_out_and_says_so(talk: Talk) -> None:
    talk.with_limits(ListenerLimits(backlog=4))
    async with talk.running():
        listening = talk.hub.join("deu", audio=False)
        await talk.turn(1)
        for index in range(10):
            await talk.says(1, "user", index)
    messages = await told(listening)
    assert messages[0]["type"] == "noema.warning"
    assert messages[0]["message"].startswith("6 sentences")
    assert len(messages) == 1 + 4 + 1
    assert talk.worker.decoded == {"deu": 4}


async def test_an_interpreters_sentences_are_not_heard_twice(talk: Talk) -> None:
    async with talk.running():
        both, agent = talk.hub.join("fra", audio=False), talk.hub.join("fra", "agent", audio=False)
        await talk.turn(1, "translate")
        await talk.says(1, "user")
        await talk.says(1, "agent", language="deu")
    assert [m.get("speaker") for m in await told(both)] == ["user", None]
    assert [m.get("speaker") for m in await told(agent)] == ["agent", None]


async def test_a_sentence_that_fails_is_told_and_the_next_is_said(talk: Talk) -> None:
    async with talk.running():
        listening = talk.hub.join("klingon", audio=False)
        await talk.turn(1)
        await talk.says(1, "user")
        await talk.hub.on_event(ReplySentence(0, 1, 0, "nuqneH", "klingon"))
    assert [m["type"] for m in await told(listening)] == [
        "noema.warning",
        "session.output_transcript.delta",
        "session.closed",
    ]


async def test_languages_are_bounded_and_a_session_that_is_over_has_no_room(talk: Talk) -> None:
    talk.with_limits(ListenerLimits(languages=1))
    async with talk.running():
        talk.hub.join("deu")
        talk.hub.join("deu")
        with pytest.raises(Overloaded, match="deu"):
            talk.hub.join("fra")
    with pytest.raises(Overloaded, match="nobody"):
        talk.hub.join("deu")


async def test_who_no_longer_shares_has_no_listeners_until_he_shares_again(talk: Talk) -> None:
    async with talk.running():
        listening = talk.hub.join("deu", audio=False)
        talk.hub.share(False)
        with pytest.raises(Overloaded):
            talk.hub.join("deu")
        talk.hub.share(True)
        again = talk.hub.join("deu", audio=False)
        await talk.turn(1)
        await talk.says(1, "user")
    assert [m["type"] for m in await told(listening)] == ["session.closed"]
    assert len(await words(again)) == 1


@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_session_that_comes_back_is_not_over_for_its_listeners(talk: Talk, goes_on: bool) -> None:
    hub = ListenerHub(talk.worker, None, goes_on=lambda: goes_on)
    hub.share(True)
    running = asyncio.create_task(hub.run())
    await asyncio.sleep(0)
    listening = hub.join("deu")
    running.cancel()
    await asyncio.wait([running])
    assert [m["type"] for m in await told(listening)] == ([] if goes_on else ["session.closed"])
    assert listening.outbox.farewell is (GONE if goes_on else NORMAL)


async def test_context_that_nobody_said_is_not_heard(talk: Talk) -> None:
    async with talk.running():
        listening = talk.hub.join("deu", audio=False)
        await talk.says(1, "user")
    assert await words(listening) == []
    assert talk.worker.decoded == {}


def test_a_listeners_token_is_the_same_for_a_session_and_tells_nothing_of_it() -> None:
    assert listener_token("secret") == listener_token("secret")
    assert listener_token("secret") != listener_token("secrets")
    assert len(listener_token("secret")) == 43
