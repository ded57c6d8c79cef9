"""State: read piece by piece equals read at once, however long; nothing grows; what is taken back was never read."""

import random
from dataclasses import replace

import pytest
import torch

from lcm.models.base_lcm import BaseLcm, BaseLcmConfig
from lcm.models.sampler import Sampling
from lcm.models.state import REWINDABLE, LcmState
from lcm.models.turns import Turns
from tests.lcm.models.conversations import conversation, part, sliding

SMALL = BaseLcmConfig(concept_dim=12, dim=16, layers=2, heads=2, ffn_dim=24, places=3, context=5)
LONG = 3 * (SMALL.context + REWINDABLE)


@pytest.fixture
def model() -> BaseLcm:
    torch.manual_seed(0)
    return BaseLcm(SMALL).eval()


def read(model: BaseLcm, length: int, pieces: list[int], of: int | None = None) -> LcmState:
    concepts, turns = conversation(1, of or length, SMALL.concept_dim)
    state, start = model.start(1), 0
    for size in pieces:
        at = slice(start, start + size)
        model.read(concepts[:, at], part(turns, at), torch.tensor([size]), state)
        start += size
    assert start == length
    return state


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[4, 1, 4], [9], [1] * 9])
def test_cached_equals_uncached(model: BaseLcm, pieces: list[int]) -> None:
    concepts, turns = conversation(1, 9, SMALL.concept_dim)
    whole = model(concepts, turns, sliding(9, SMALL)[None, None])
    torch.testing.assert_close(read(model, 9, pieces).hidden, whole[:, -1], rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[LONG], [1] * LONG, [50, 1, LONG - 51]])
def test_a_long_conversation_slides_through_a_ring_that_does_not_grow(model: BaseLcm, pieces: list[int]) -> None:
    concepts, turns = conversation(1, LONG, SMALL.concept_dim)
    whole = model(concepts, turns, sliding(LONG, SMALL)[None, None])
    state = read(model, LONG, pieces)
    torch.testing.assert_close(state.hidden, whole[:, -1], rtol=1e-5, atol=1e-5)
    assert state.keys[0].shape[2] == SMALL.context + REWINDABLE + 1
    assert int(state.visible().sum()) == SMALL.context


@torch.no_grad()
def test_rows_of_different_length_share_a_state(model: BaseLcm) -> None:
    concepts, turns = conversation(2, LONG, SMALL.concept_dim)
    counts = torch.tensor([3, LONG])
    state = model.start(2)
    stops = model.read(concepts, turns, counts, state)
    assert state.lengths.tolist() == [3, LONG]
    for row, count in enumerate(counts.tolist()):
        x = model(
            concepts[row : row + 1, :count], part(turns, slice(count)).row(row), sliding(count, SMALL)[None, None]
        )
        assert state.hidden is not None
        torch.testing.assert_close(state.hidden[row], x[0, -1], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(stops[row], model.stops(x)[0, -1], rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("length", [8, LONG])
def test_what_is_taken_back_was_never_read(model: BaseLcm, length: int) -> None:
    concepts, turns = conversation(1, length + 1, SMALL.concept_dim)
    state = read(model, length, [length], of=length + 1)
    other = torch.zeros(1, 3, SMALL.concept_dim)
    roles = Turns(torch.ones(1, 3, dtype=torch.int64), torch.arange(3)[None])
    model.read(other, roles, torch.tensor([3]), state)
    assert state.rewind(length)
    at = slice(length, length + 1)
    model.read(concepts[:, at], part(turns, at), torch.tensor([1]), state)
    whole = model(concepts, turns, sliding(length + 1, SMALL)[None, None])
    torch.testing.assert_close(state.hidden, whole[:, -1], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_more_than_the_ring_holds_cannot_be_taken_back(model: BaseLcm) -> None:
    assert not read(model, LONG, [LONG]).rewind(LONG - REWINDABLE - 2)
    assert read(model, 20, [20]).rewind(1)


@torch.no_grad()
@pytest.mark.parametrize("context", [2, 3, 5])
def test_whatever_is_read_and_taken_back_in_any_order_it_is_as_read_afresh(context: int) -> None:
    torch.manual_seed(context)
    model = BaseLcm(replace(SMALL, context=context)).eval()
    by_lot = random.Random(context)
    state, concepts, refused = model.start(1), torch.empty(1, 0, SMALL.concept_dim), 0
    written: dict[int, int] = {}
    """Slot → position"""
    for _ in range(400):
        length = concepts.shape[1]
        if length and by_lot.random() < 0.4:
            wanted = max(0, length - by_lot.choice([1, 2, REWINDABLE, REWINDABLE + 2, length]))
            possible = all(written[p % state.slots] == p for p in range(max(0, wanted - context + 1), wanted))
            assert state.rewind(wanted) == possible
            refused += not possible
            concepts = concepts[:, :wanted] if possible else concepts
        new = torch.randn(1, by_lot.choice([1, 1, 2, 20]), SMALL.concept_dim)
        concepts = torch.cat([concepts, new], dim=1) if concepts.shape[1] < LONG else concepts[:, :0]
        if not concepts.shape[1]:
            state = model.start(1)
            continue
        turns = Turns.of(torch.zeros(concepts.shape[:2], dtype=torch.int64))
        at = slice(-new.shape[1], None)
        model.read(new, part(turns, at), torch.tensor([new.shape[1]]), state)
        written |= {p % state.slots: p for p in range(concepts.shape[1] - new.shape[1], concepts.shape[1])}
        whole = model(concepts, turns, sliding(concepts.shape[1], model.config)[None, None])
        torch.testing.assert_close(state.hidden, whole[:, -1], rtol=1e-4, atol=1e-4)
    assert refused


@torch.no_grad()
def test_one_of_many_keeps_nothing_of_the_others(model: BaseLcm) -> None:
    state = model.start(8)
    model.read(*conversation(8, 3, SMALL.concept_dim), torch.full((8,), 3), state)
    alone, one = state.alone(2, 3), model.start(1)
    for kept, own in zip([*alone.keys, *alone.values, alone.held], [*one.keys, *one.values, one.held], strict=True):
        assert kept.untyped_storage().nbytes() == own.untyped_storage().nbytes()


@torch.no_grad()
def test_those_who_stay_are_as_they_were(model: BaseLcm) -> None:
    concepts, turns = conversation(3, 6, SMALL.concept_dim)
    state = model.start(3)
    model.read(concepts, turns, torch.tensor([6, 2, 4]), state)
    drawer, asked = model.drawer(Sampling()), Turns(torch.ones(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))
    before = drawer(asked, state, torch.zeros(3, 0))
    chosen = torch.tensor([2, 0])
    few = Turns(asked.roles[chosen], asked.places[chosen])
    torch.testing.assert_close(drawer(few, state.select(chosen), torch.zeros(2, 0)), before[chosen])
