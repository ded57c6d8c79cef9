"""Base-LCM: cached == uncached, causal, padding unseen, and the stop head told nothing of who speaks next."""

import pytest
import torch
from torch import Tensor

from lcm.models.base_lcm import BaseLcm, BaseLcmConfig, Turns, places_in_turn

SMALL = BaseLcmConfig(concept_dim=12, dim=16, layers=2, heads=2, ffn_dim=24, places=3)


@pytest.fixture
def model() -> BaseLcm:
    torch.manual_seed(0)
    return BaseLcm(SMALL).eval()


def conversation(batch: int, length: int) -> tuple[Tensor, Turns]:
    generator = torch.Generator().manual_seed(1)
    concepts = torch.randn(batch, length, SMALL.concept_dim, generator=generator)
    roles = torch.randint(0, 2, (batch, length), generator=generator)
    return concepts, Turns.of(roles, torch.ones(batch, dtype=torch.int64))


def part(turns: Turns, at: slice) -> Turns:
    return Turns(turns.roles[:, at], turns.places[:, at], turns.next_roles[:, at])


def test_places_count_from_each_change_of_speaker() -> None:
    roles = torch.tensor([[0, 0, 1, 1, 1, 0], [2, 2, 2, 2, 2, 2]])
    assert places_in_turn(roles).tolist() == [[0, 1, 0, 1, 2, 0], [0, 1, 2, 3, 4, 5]]


@torch.no_grad()
def test_cached_equals_uncached(model: BaseLcm) -> None:
    concepts, turns = conversation(3, 9)
    whole, whole_stop = model(concepts, turns)
    state = model.start(3, 9)
    parts = []
    for at in (slice(0, 4), slice(4, 5), slice(5, 9)):
        counts = torch.full((3,), at.stop - at.start)
        parts.append(model.extend(concepts[:, at], part(turns, at), counts, state))
    torch.testing.assert_close(torch.cat([p for p, _ in parts], dim=1), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat([s for _, s in parts], dim=1), whole_stop, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_rows_of_different_length_share_a_state(model: BaseLcm) -> None:
    concepts, turns = conversation(2, 8)
    counts = torch.tensor([3, 6])
    state = model.start(2, 8)
    model.extend(concepts[:, :6], part(turns, slice(0, 6)), counts, state)
    following = torch.stack([concepts[0, 3], concepts[1, 6]])[:, None]
    columns = torch.tensor([[3], [6]])
    one = Turns(*(t.gather(1, columns) for t in (turns.roles, turns.places, turns.next_roles)))
    predicted, _ = model.extend(following, one, torch.ones(2, dtype=torch.int64), state)
    whole, _ = model(concepts, turns)
    torch.testing.assert_close(predicted[:, 0], torch.stack([whole[0, 3], whole[1, 6]]), rtol=1e-5, atol=1e-5)
    assert state.lengths.tolist() == [4, 7]


@torch.no_grad()
def test_the_future_is_not_seen(model: BaseLcm) -> None:
    concepts, turns = conversation(1, 6)
    before, _ = model(concepts, turns)
    concepts[:, 4:] = 100.0
    after, _ = model(concepts, turns)
    torch.testing.assert_close(after[:, :4], before[:, :4])
    assert not torch.allclose(after[:, 4:], before[:, 4:])


@torch.no_grad()
def test_who_speaks_next_changes_the_prediction_but_not_the_stop_head(model: BaseLcm) -> None:
    concepts, turns = conversation(1, 5)
    other = Turns(turns.roles, turns.places, 1 - turns.next_roles)
    predicted, stop = model(concepts, turns)
    otherwise, same_stop = model(concepts, other)
    assert not torch.allclose(predicted, otherwise)
    assert torch.equal(stop, same_stop)


def test_the_mini_model_has_about_four_million_parameters() -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in BaseLcm(BaseLcmConfig()).parameters())
    assert 3_800_000 < count < 4_200_000
