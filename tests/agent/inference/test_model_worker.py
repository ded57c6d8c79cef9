"""The model worker, with the real modules of a small bundle."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from agent.config import OpenAiConfig, ThinkerConfig
from agent.core.inputs import Decode, EncodeSpeech, EncodeText, ModelRequest, Think
from agent.core.turn import TurnMachine
from agent.core.turn_options import TurnOptions
from agent.errors import Overloaded, TextInputError, exit_code
from agent.inference.job import Answer
from agent.inference.model_worker import ModelWorker
from agent.inference.models import EncodedSpeech, EncodedText, Models
from tests.small_bundle import DIM


@pytest_asyncio.fixture
async def worker(small_bundle: Path) -> AsyncGenerator[ModelWorker, None]:
    def load() -> Models:
        return Models.load(
            str(small_bundle), device="cpu", tasks=("converse", "translate"), thinker=ThinkerConfig(name="lcm")
        )

    async with ModelWorker(load) as running:
        yield running


async def answers(worker: ModelWorker, request: ModelRequest, session: int = 0) -> list[object]:
    return [answer.value async for answer in worker.submit(session, request).answers()]


async def test_text_and_speech_become_concepts_and_concepts_text(worker: ModelWorker) -> None:
    [text] = await answers(worker, EncodeText(1, 1, 0, "The cat is hungry. Where is it?", "eng"))
    assert isinstance(text, EncodedText)
    assert text.texts == ("The cat is hungry.", "Where is it?")
    assert text.concepts.shape == (2, DIM)
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    [speech] = await answers(worker, EncodeSpeech(2, 1, 0, noise, "eng"))
    assert isinstance(speech, EncodedSpeech)
    assert speech.concepts.shape == (1, DIM)
    assert speech.language is None
    [words] = await answers(worker, Decode(3, 1, 0, text.concepts, "fra"))
    assert isinstance(words, str)


async def test_less_than_a_concept_takes_is_filled_up_with_silence(worker: ModelWorker) -> None:
    [answer] = [a async for a in worker.submit(0, EncodeSpeech(1, 1, 0, np.zeros(400, np.float32), "eng")).answers()]
    assert answer.value.concepts.shape[0] == 1


async def test_a_failure_reaches_its_caller_and_nobody_else(worker: ModelWorker) -> None:
    with pytest.raises(TextInputError, match="empty"):
        await answers(worker, EncodeText(1, 1, 0, " \x07 ", "eng"))
    with pytest.raises(Exception, match="klingon") as caught:
        await answers(worker, EncodeText(2, 1, 0, "Hello.", "klingon"))
    assert exit_code(caught.value) == 2
    assert len(await answers(worker, EncodeText(3, 1, 0, "Hello.", "eng"))) == 1


async def test_sessions_at_once_get_their_own_answers(worker: ModelWorker) -> None:
    concepts = [np.random.default_rng(n).normal(size=(1, DIM)).astype(np.float32) for n in range(12)]
    alone = [await answers(worker, Decode(1, 1, 0, concept, "deu")) for concept in concepts]
    together = await asyncio.gather(
        *(answers(worker, Decode(1, 1, 0, concept, "deu"), session) for session, concept in enumerate(concepts))
    )
    assert alone == list(together)


async def test_a_cancelled_job_gives_no_more_answers(worker: ModelWorker) -> None:
    job = worker.submit(0, EncodeText(1, 1, 0, "Hello.", "eng"))
    job.cancel()
    assert [answer async for answer in job.answers()] == []


async def test_thinking_lets_others_in_between_steps(worker: ModelWorker) -> None:
    machine = TurnMachine(TurnOptions())
    machine.conversation.said(1, "user", np.ones((1, DIM), np.float32), ("Hello.",), "eng")
    thoughts = await answers(worker, Think(1, 1, machine.conversation.view(), "converse", "eng"))
    assert 1 <= len(thoughts) <= 4


async def test_a_server_that_does_not_answer_keeps_nobody_waiting(small_bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = OpenAiConfig(base_url=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=60)
        thinker = ThinkerConfig(name="openai", openai=settings)
        models = Models.load(str(small_bundle), device="cpu", tasks=("converse",), thinker=thinker)
        async with ModelWorker(lambda: models) as worker, asyncio.timeout(30):
            job = worker.submit(0, Think(1, 1, (), "converse", "eng"))
            assert len(await answers(worker, EncodeText(2, 1, 0, "Hello.", "eng"))) == 1
            job.cancel()
            assert [answer async for answer in job.answers()] == []


async def test_answers_nobody_takes_are_bounded_and_their_loss_is_told(worker: ModelWorker) -> None:
    job = worker.submit(0, EncodeText(1, 1, 0, "Hello.", "eng"))
    for _ in range(10_000):
        job.deliver(Answer("word", 0.0))
    with pytest.raises(Overloaded):
        [answer async for answer in job.answers()]


async def test_a_bundle_that_is_missing_is_told_when_the_worker_starts() -> None:
    with pytest.raises(Exception, match="no bundle at") as caught:
        async with ModelWorker(lambda: Models.load("/nowhere/bundle")):
            pass
    assert exit_code(caught.value) == 1
