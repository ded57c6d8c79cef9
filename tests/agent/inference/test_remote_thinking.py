"""A reply that is thought of elsewhere: concepts, fallback, interruption, with a real endpoint and real models."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest

from agent.config import AgentConfig, OpenAiConfig, ThinkerConfig
from agent.core.events import ConceptsKnown, DomainEvent, ReplySentence, TurnEnded, Warned
from agent.core.inputs import EncodeText, Input, Result, Think, Thought, TypedText
from agent.core.turn import TurnMachine
from agent.errors import ThinkerError
from agent.inference.model_worker import ModelWorker
from agent.inference.models import EncodedText, Models
from agent.inference.thinkers import Setback, ThoughtPart
from agent.metrics import Metrics
from agent.opening import opened
from agent.order import ArrivalOrder
from agent.recordings.replay import Recomputer
from agent.session import run_session
from agent.stages import Stages
from lcm.bundle import Bundle
from tests.agent.chat_server import Answer, ChatServer, Exchange, chat_server, event, never, says, sends


def thinker(chat: ChatServer, rest_s: float = 0) -> ThinkerConfig:
    patient = OpenAiConfig(
        base_url=chat.base_url, connect_timeout_s=20, first_word_timeout_s=20, word_timeout_s=20, rest_s=rest_s
    )
    return ThinkerConfig(name="openai", openai=patient)


@asynccontextmanager
async def working(bundle: Path, answer: Answer) -> AsyncIterator[tuple[ModelWorker, ChatServer]]:
    async with chat_server(answer) as chat:
        settings = thinker(chat)
        async with ModelWorker(
            lambda: Models.load(str(bundle), device="cpu", tasks=("converse", "translate"), thinker=settings)
        ) as worker:
            yield worker, chat


async def encoded(worker: ModelWorker, text: str) -> EncodedText:
    [answer] = [answer.value async for answer in worker.submit(0, EncodeText(1, 1, 0, text, "eng")).answers()]
    assert isinstance(answer, EncodedText)
    return answer


async def question(worker: ModelWorker) -> Think:
    machine = TurnMachine(
        AgentConfig().turn_options(task="converse", languages=["eng"], reply_language=None, spoken_reply=False)
    )
    said = await encoded(worker, "What time is it?")
    machine.conversation.said(1, "user", said.concepts, said.texts, "eng")
    return Think(2, 1, machine.conversation.view(), "converse", "eng")


async def thoughts(worker: ModelWorker) -> list[ThoughtPart | Setback]:
    return [answer.value async for answer in worker.submit(0, await question(worker)).answers()]


async def cut_off(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.say("It is late. Good")


async def test_each_sentence_comes_as_a_concept_too(small_bundle: Path) -> None:
    async with working(small_bundle, says("It is late. Good", " night.")) as (worker, _):
        said = await thoughts(worker)
        expected = await encoded(worker, "It is late. Good night.")
    assert [part.text for part in said if isinstance(part, ThoughtPart)] == ["It is late.", "Good night."]
    concepts = [part.concept for part in said if isinstance(part, ThoughtPart) and part.concept is not None]
    np.testing.assert_allclose(np.stack(concepts), expected.concepts, atol=1e-5)


async def test_a_thinker_elsewhere_is_not_asked_for_what_may_not_be_wanted(small_bundle: Path) -> None:
    async with working(small_bundle, never) as (worker, _):
        assert not worker.models.thinker("converse").speculative
        assert worker.models.thinker("converse").words_first
        assert worker.models.thinker("translate").speculative


async def test_retrieve_answers_in_the_place_of_one_that_fails(small_bundle: Path) -> None:
    async with working(small_bundle, sends(b"", "503 Busy")) as (worker, _):
        setback, *said = await thoughts(worker)
    assert isinstance(setback, Setback)
    assert "503 Busy" in setback.message
    assert setback.message.endswith("retrieve answers meanwhile")
    assert said
    for part in said:
        assert isinstance(part, ThoughtPart)
        assert part.concept is not None
        assert part.text is not None
        assert part.text.startswith("eng reply")


async def test_where_nobody_can_answer_in_its_place_the_turn_fails(small_bundle: Path, tmp_path: Path) -> None:
    folder = Path(copytree(small_bundle, tmp_path / "bundle"))
    description = folder / "bundle.json"
    bank = next(name for name in Bundle.open(folder).parts if name == "bank")
    description.write_text(description.read_text().replace(f'"{bank}"', '"other"'))
    async with working(folder, sends(b"", "503 Busy")) as (worker, _):
        with pytest.raises(ThinkerError, match="503 Busy"):
            await thoughts(worker)


async def test_what_was_said_before_it_failed_is_the_reply(small_bundle: Path) -> None:
    async with working(small_bundle, cut_off) as (worker, _):
        part, setback = await thoughts(worker)
    assert isinstance(part, ThoughtPart)
    assert part.text == "It is late."
    assert isinstance(setback, Setback)
    assert setback.message.endswith("the reply ends here")


@pytest.mark.parametrize("leave", ["job", "worker"])
async def test_nobody_listens_on_once_nobody_waits(small_bundle: Path, leave: str) -> None:
    async with chat_server(never) as chat:
        settings = thinker(chat)
        async with ModelWorker(
            lambda: Models.load(str(small_bundle), device="cpu", tasks=("converse",), thinker=settings)
        ) as worker:
            job = worker.submit(0, await question(worker))
            await chat.was_asked.wait()
            if leave == "job":
                job.cancel()
                await chat.left.wait()
                assert [answer async for answer in job.answers()] == []
        await chat.left.wait()


async def test_a_reply_half_given_when_the_server_died_is_not_asked_for_again(small_bundle: Path) -> None:
    results: list[Result] = []

    async def deliver(item: Result) -> None:
        results.append(item)

    async with working(small_bundle, says("It is late.")) as (worker, chat):
        stages = Stages(0, worker, None, Metrics(), deliver)
        stages.ask_again(await question(worker), answered=1)
        stages.work.close()
        await stages.think()
    assert [result.last for result in results] == [True]
    assert chat.asked == []


async def test_what_somebody_else_said_is_not_computed_again(small_bundle: Path) -> None:
    async with working(small_bundle, says("It is late.")) as (worker, chat):
        recomputer, think = Recomputer(worker), await question(worker)
        recomputer.requested([think])
        await recomputer.compare(Thought(0, think.request, think.turn, None, "It was early.", last=False))
    assert recomputer.compared == 0
    assert chat.asked == []


class Told:
    """What happened in a session."""

    def __init__(self) -> None:
        self.events: list[DomainEvent] = []
        self.turn_over = asyncio.Event()

    async def on_input(self, item: Input) -> None:
        """Of no interest."""

    async def on_event(self, event: DomainEvent) -> None:
        self.events.append(event)
        if isinstance(event, TurnEnded):
            self.turn_over.set()

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


async def session(bundle: Path, *answers: Answer, rest_s: float = 0) -> Told:
    """One turn for each answer of the endpoint."""
    told = Told()
    async with chat_server(answers[0]) as chat:
        config = AgentConfig(bundle=str(bundle), device="cpu", thinker=thinker(chat, rest_s))

        async def typed() -> AsyncGenerator[TypedText, None]:
            for answer in answers:
                chat.answer = answer
                told.turn_over.clear()
                yield TypedText(0, "What time is it?")
                await told.turn_over.wait()

        async with opened(config, ["converse"], spoken=False, typed=True) as ready:
            machine = TurnMachine(ready.turn_options(["eng"], None))
            await run_session(typed(), ArrivalOrder(lambda: 0), machine, ready.parts(), [told])
    return told


async def test_an_endpoint_that_is_down_is_told_once_and_the_conversation_goes_on(small_bundle: Path) -> None:
    down = sends(b"", "503 Busy")
    told = await session(small_bundle, down, down, says("It is late."), down)
    assert [ended.status for ended in told.of(TurnEnded)] == ["done"] * 4
    assert ["503 Busy" in warned.message for warned in told.of(Warned)] == [True, True]
    replies = {turn: [s.text for s in told.of(ReplySentence) if s.turn == turn] for turn in range(1, 5)}
    assert replies[3] == ["It is late."]
    assert all(text.startswith("eng reply") for turn in (1, 2, 4) for text in replies[turn])
    places = [event.turn for event in told.events if isinstance(event, ReplySentence | TurnEnded)]
    assert places == sorted(places)
    marks = [event for event in told.events if isinstance(event, Warned | TurnEnded)]
    assert [type(mark) for mark in marks] == [Warned, TurnEnded, TurnEnded, TurnEnded, Warned, TurnEnded]


async def test_an_endpoint_that_rests_is_no_news_to_whoever_was_told_that_it_failed(small_bundle: Path) -> None:
    down = sends(b"", "503 Busy")
    told = await session(small_bundle, down, down, down, rest_s=1000)
    assert [ended.status for ended in told.of(TurnEnded)] == ["done"] * 3
    assert ["503 Busy" in warned.message for warned in told.of(Warned)] == [True]


async def test_a_reply_that_breaks_off_ends_with_what_was_said_and_why(small_bundle: Path) -> None:
    told = await session(small_bundle, cut_off)
    assert [sentence.text for sentence in told.of(ReplySentence)] == ["It is late."]
    assert [ended.status for ended in told.of(TurnEnded)] == ["done"]
    assert [warned.message.endswith("the reply ends here") for warned in told.of(Warned)] == [True]


async def test_what_it_says_is_on_the_conversations_path_and_in_the_next_question(small_bundle: Path) -> None:
    asked: list[dict[str, Any]] = []

    async def answer(exchange: Exchange) -> None:
        asked.append(exchange.question)
        await exchange.begin()
        await exchange.send(event({"choices": [{"delta": {"content": "It is late."}, "finish_reason": "stop"}]}))

    told = await session(small_bundle, answer, answer)
    assert [(known.role, known.turn, len(known.concepts)) for known in told.of(ConceptsKnown)] == [
        ("user", 1, 1),
        ("agent", 1, 1),
        ("user", 2, 1),
        ("agent", 2, 1),
    ]
    assert [message["role"] for message in asked[1]["messages"]] == ["system", "user", "assistant", "user"]
    assert asked[1]["messages"][2]["content"] == "It is late."
