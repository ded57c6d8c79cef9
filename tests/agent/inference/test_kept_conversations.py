"""Kept conversations: only what is new is read, what is said is the same, and memory is bounded and given back."""

from collections.abc import AsyncGenerator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from agent.config import AgentConfig, ThinkerConfig
from agent.core.events import FloatArray
from agent.core.inputs import TypedText
from agent.core.turn import TurnMachine
from agent.inference.kept_conversations import KeptConversations
from agent.opening import opened
from agent.order import ArrivalOrder
from agent.session import run_session
from audio.frames import AudioFrame
from lcm.engine import Engine, Sampling
from lcm.errors import ContextError
from lcm.models.state import LcmState
from lcm.models.turns import Turns
from lcm.models.two_tower import TwoTower, TwoTowerConfig
from tests.agent.server.running import eventually

DIM = 16


@pytest.fixture
def engine() -> Engine:
    torch.manual_seed(0)
    config = TwoTowerConfig(
        concept_dim=DIM, dim=32, layers=2, heads=4, ffn_dim=48, context=8, denoiser_layers=2, turns=False
    )
    return Engine(TwoTower(config), sampling=Sampling(steps=4))


def sentences(count: int, seed: int = 1) -> list[FloatArray]:
    return list(np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32))


def reply(
    kept: KeptConversations, session: int, context: list[FloatArray], roles: list[int] | None = None, seed: int = 0
) -> Tensor:
    """Of three sentences, [3, C]; the context stays as it was. By itself the user said all of it."""
    said, told = list(context), list(roles or [0] * len(context))
    for step in kept.ahead(session, said, told, 3, seed):
        said.append(step.concept.numpy())
        told.append(1)
    return torch.from_numpy(np.stack(said[len(context) :]))


def test_a_kept_conversation_says_what_a_fresh_one_says_and_reads_what_is_new(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    read = engine.model.read

    def counted(concepts: Tensor, turns: Turns, count: Tensor, state: LcmState) -> Tensor:
        counts.append(int(count))
        return read(concepts, turns, count, state)

    monkeypatch.setattr(engine.model, "read", counted)
    kept = KeptConversations(engine)
    context: list[FloatArray] = []
    roles: list[int] = []
    # The third sentence of a reply is read where it was heard, with what follows it.
    turns = [
        (6, 2, [4, 2, 1, 8]),
        (2, 1, [2, 1, 4]),
        (1, 3, [4, 1, 2]),
        (30, 0, [32, 8, 4, 1, 2, 1]),
        (1, 0, [2, 1, 16]),
    ]
    for turn, (new, heard, passes) in enumerate(turns):
        context += sentences(new, seed=turn)
        roles += [0] * new
        counts.clear()
        said = reply(kept, 7, context, roles, seed=turn)
        assert counts == passes
        again = reply(KeptConversations(engine), 7, context, roles, seed=turn)
        assert torch.equal(said, again)
        context += list(said[:heard].numpy())
        roles += [1] * heard
        reply(kept, 8, sentences(3))


def test_what_ends_a_text_is_not_said(engine: Engine) -> None:
    first = reply(KeptConversations(engine), 7, sentences(2))[0]
    engine.model.ending.concept = first
    assert list(KeptConversations(engine).ahead(7, sentences(2), [0, 0], 3, 0)) == []


def test_what_is_kept_is_bounded_and_the_latest_stays(engine: Engine) -> None:
    size = engine.model.start(1).nbytes
    kept = KeptConversations(engine, most_bytes=2 * size)
    for session in (1, 2, 1, 3):
        reply(kept, session, sentences(2))
    assert len(kept) == 2
    kept.forget(2)
    assert len(kept) == 2, "it had spoken longest ago"
    kept.forget(1)
    assert len(kept) == 1
    small = KeptConversations(engine, most_bytes=1)
    assert len(reply(small, 1, sentences(2))) == 3
    assert len(small) == 1


def test_a_conversation_that_cannot_be_read_is_not_kept(engine: Engine) -> None:
    kept = KeptConversations(engine)
    reply(kept, 1, sentences(2))
    with pytest.raises(ContextError, match="not finite"):
        reply(kept, 1, [*sentences(2), np.full(DIM, np.nan, np.float32)])
    assert len(kept) == 0


async def test_a_session_that_is_over_is_forgotten(small_bundle: Path) -> None:
    config = AgentConfig(bundle=str(small_bundle), device="cpu", thinker=ThinkerConfig(name="lcm"))
    seen: list[int] = []

    async def typed() -> AsyncGenerator[TypedText | AudioFrame, None]:
        yield TypedText(0, "The cat is hungry.")
        await eventually(lambda: len(conversations))
        seen.append(len(conversations))

    async with opened(config, ["converse"], spoken=False, typed=True) as there:
        assert there.worker.models.conversations is not None
        conversations = there.worker.models.conversations
        machine = TurnMachine(there.turn_options(["eng"], None))
        await run_session(typed(), ArrivalOrder(lambda: 0), machine, there.parts(3), [])
        assert seen == [1]
        await eventually(lambda: not len(conversations))
