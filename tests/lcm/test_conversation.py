"""Conversations read step by step give what the engine gives for the whole context, together and alone, and forget."""

import random

import pytest
import torch
from torch import Tensor

from lcm.conversation import Conversation, follow, following, read
from lcm.engine import Engine, Sampling
from lcm.errors import ContextError
from lcm.models.base_lcm import BaseLcm, BaseLcmConfig
from lcm.models.state import LcmState
from lcm.models.tower import Tower
from lcm.models.turns import Turns
from lcm.models.two_tower import TwoTower, TwoTowerConfig
from scripts.random_lcm import random_weights

DIM, CONTEXT = 16, 6
SIZES = {"concept_dim": DIM, "dim": 32, "layers": 2, "heads": 4, "ffn_dim": 48, "context": CONTEXT}
LONG = 150


def base() -> Tower:
    return BaseLcm(BaseLcmConfig(**SIZES))  # type: ignore[arg-type]


def two_tower() -> Tower:
    return TwoTower(TwoTowerConfig(**SIZES, denoiser_layers=2))  # type: ignore[arg-type]


@pytest.fixture(params=[base, two_tower])
def engine(request: pytest.FixtureRequest) -> Engine:
    model: Tower = request.param()
    model.load_state_dict(random_weights(model))
    return Engine(model, sampling=Sampling(steps=4))


def said(length: int, seed: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(length, DIM, generator=generator), torch.randint(0, 2, (length,), generator=generator)


def test_read_step_by_step_it_is_what_the_whole_context_gives(engine: Engine) -> None:
    concepts, roles = said(LONG)
    conversation = Conversation.of(engine)
    for at in (slice(0, 3), slice(3, 4), slice(4, 90), *(slice(i, i + 1) for i in range(90, LONG))):
        [ended] = read(engine, [conversation], [(concepts[at], roles[at])])
    [step] = following(engine, [conversation], [7])
    [whole] = engine.predict_next([concepts], [roles], [7])
    torch.testing.assert_close(step.concept, whole.concept, rtol=0, atol=1e-4)
    assert ended == pytest.approx(whole.ended, abs=1e-5)
    assert step.ended == pytest.approx(whole.ended, abs=1e-5)


def test_sessions_of_different_length_go_together(engine: Engine) -> None:
    each = [said(length, seed) for seed, length in enumerate((2, 40, LONG))]
    conversations = [Conversation.of(engine) for _ in each]
    read(engine, conversations, [(c[:-1], r[:-1]) for c, r in each])
    read(engine, conversations, [(c[-1:], r[-1:]) for c, r in each])
    together = following(engine, conversations, [1, 2, 3])
    for (concepts, roles), seed, step in zip(each, (1, 2, 3), together, strict=True):
        [alone] = engine.predict_next([concepts], [roles], [seed])
        torch.testing.assert_close(step.concept, alone.concept, rtol=0, atol=1e-4)


def test_nothing_grows_with_a_conversation(engine: Engine) -> None:
    conversation = Conversation.of(engine)
    concepts, roles = said(LONG)
    read(engine, [conversation], [(concepts, roles)])
    size = conversation.state.keys[0].shape, len(conversation.concepts)
    read(engine, [conversation], [(concepts, roles)])
    assert (conversation.state.keys[0].shape, len(conversation.concepts)) == size
    assert len(conversation) == 2 * LONG


@pytest.mark.parametrize("length", [5, LONG])
def test_it_follows_what_was_taken_back_and_said_instead(engine: Engine, length: int) -> None:
    concepts, roles = said(length)
    unsaid, _ = said(3, seed=9)
    conversation = Conversation.of(engine)
    follow(engine, conversation, concepts, roles)
    follow(engine, conversation, torch.cat([concepts, unsaid]), torch.cat([roles, torch.ones(3, dtype=torch.int64)]))
    new, told = said(2, seed=11)
    heard, by = torch.cat([concepts, new]), torch.cat([roles, told])
    follow(engine, conversation, heard, by)
    assert len(conversation) == length + 2
    [step] = following(engine, [conversation])
    torch.testing.assert_close(step.concept, engine.predict_next([heard], [by])[0].concept, rtol=0, atol=1e-4)
    assert follow(engine, conversation, heard, by) is None, "nothing is new"


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 37, 64, 90])
def test_at_once_in_pieces_and_after_what_was_taken_back_it_is_the_same_to_the_bit(engine: Engine, length: int) -> None:
    concepts, roles = said(length)
    unsaid, _ = said(7, seed=9)
    at_once, in_pieces, taken_back = (Conversation.of(engine) for _ in range(3))
    ended = follow(engine, at_once, concepts, roles)
    [step] = following(engine, [at_once], [7])
    for end in range(1, length + 1):
        last = follow(engine, in_pieces, concepts[:end], roles[:end])
    for kept, more in ((length // 2, 7), (length - 1, 1), (length, 3)):
        other = torch.cat([concepts[:kept], unsaid[:more]]), torch.cat([roles[:kept], torch.ones(more)])
        follow(engine, taken_back, *other)
    again = follow(engine, taken_back, concepts, roles)
    assert ended == last == again
    for conversation in (in_pieces, taken_back):
        [same] = following(engine, [conversation], [7])
        assert torch.equal(same.concept, step.concept)
        assert same.ended == step.ended


def test_one_more_concept_is_one_pass_more_and_many_are_few(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    whole = engine.model.read

    def counted(new: Tensor, turns: Turns, count: Tensor, state: LcmState) -> Tensor:
        passes.append(new.shape[1])
        return whole(new, turns, count, state)

    monkeypatch.setattr(engine.model, "read", counted)
    concepts, roles = said(40)
    conversation = Conversation.of(engine)
    for end in range(1, 41):
        follow(engine, conversation, concepts[:end], roles[:end])
    assert len(passes) == 40
    passes.clear()
    follow(engine, Conversation.of(engine), concepts[:39], roles[:39])
    assert passes == [32, 4, 2, 1]


@pytest.mark.parametrize("shorter", [4, 2, 100])
def test_it_follows_a_conversation_that_was_cut(engine: Engine, shorter: int) -> None:
    concepts, roles = said(LONG if shorter == 100 else 5)
    conversation = Conversation.of(engine)
    follow(engine, conversation, concepts, roles)
    follow(engine, conversation, concepts[:shorter], roles[:shorter])
    [step] = following(engine, [conversation])
    [whole] = engine.predict_next([concepts[:shorter]], [roles[:shorter]])
    torch.testing.assert_close(step.concept, whole.concept, rtol=0, atol=1e-4)


def test_it_follows_whatever_is_said_and_cut_in_any_order(engine: Engine) -> None:
    by_lot = random.Random(0)
    conversation, (concepts, roles) = Conversation.of(engine), said(60)
    for seed in range(60):
        new, told = said(by_lot.choice([1, 1, 2, 30]), seed)
        kept = max(1, len(concepts) - by_lot.choice([0, 0, 1, 2, 31, 33]))
        if by_lot.random() < 0.3:
            concepts, roles = concepts[:kept], roles[:kept]
        else:
            concepts, roles = torch.cat([concepts[:kept], new]), torch.cat([roles[:kept], told])
        follow(engine, conversation, concepts, roles)
        assert len(conversation) == len(concepts)
        [step], [whole] = following(engine, [conversation]), engine.predict_next([concepts], [roles])
        torch.testing.assert_close(step.concept, whole.concept, rtol=0, atol=1e-4)


def test_another_conversation_is_read_anew(engine: Engine) -> None:
    conversation = Conversation.of(engine)
    follow(engine, conversation, *said(8))
    concepts, roles = said(6, seed=5)
    follow(engine, conversation, concepts, roles)
    [step] = following(engine, [conversation])
    torch.testing.assert_close(step.concept, engine.predict_next([concepts], [roles])[0].concept, rtol=0, atol=1e-4)


def test_who_has_read_nothing_cannot_go_on(engine: Engine) -> None:
    with pytest.raises(ContextError, match="read nothing yet"):
        following(engine, [Conversation.of(engine)])
    with pytest.raises(ContextError, match="not finite"):
        read(engine, [Conversation.of(engine)], [(torch.full((1, DIM), float("nan")), torch.zeros(1))])
