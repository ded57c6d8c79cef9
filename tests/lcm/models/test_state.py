"""State: read piece by piece equals read at once, however long; nothing grows; what is taken back was never read."""

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
def test_those_who_stay_are_as_they_were(model: BaseLcm) -> None:
    concepts, turns = conversation(3, 6, SMALL.concept_dim)
    state = model.start(3)
    model.read(concepts, turns, torch.tensor([6, 2, 4]), state)
    drawer, asked = model.drawer(Sampling()), Turns(torch.ones(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))
    before = drawer(asked, state, torch.zeros(3, 0))
    chosen = torch.tensor([2, 0])
    few = Turns(asked.roles[chosen], asked.places[chosen])
    torch.testing.assert_close(drawer(few, state.select(chosen), torch.zeros(2, 0)), before[chosen])
