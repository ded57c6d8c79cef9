"""Base-LCM: causal, and the stop head told nothing of who speaks next; without turns it is Meta's."""

import pytest
import torch

from lcm.models.base_lcm import BaseLcm, BaseLcmConfig
from lcm.models.sampler import Sampling
from lcm.models.turns import Turns, places_in_turn
from tests.lcm.models.conversations import conversation

SMALL = BaseLcmConfig(concept_dim=12, dim=16, layers=2, heads=2, ffn_dim=24, places=3)


@pytest.fixture
def model() -> BaseLcm:
    torch.manual_seed(0)
    return BaseLcm(SMALL).eval()


def test_places_count_from_each_change_of_speaker() -> None:
    roles = torch.tensor([[0, 0, 1, 1, 1, 0], [2, 2, 2, 2, 2, 2]])
    assert places_in_turn(roles).tolist() == [[0, 1, 0, 1, 2, 0], [0, 1, 2, 3, 4, 5]]
    starts = torch.tensor([[0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]]).bool()
    assert places_in_turn(roles, starts).tolist() == [[0, 0, 0, 1, 2, 0], [0, 1, 2, 0, 1, 2]]


def test_the_next_place_goes_on_with_the_turn_or_begins_one() -> None:
    turns = Turns(torch.tensor([0, 1, 1]), torch.tensor([2, 0, 3]))
    assert turns.followed_by(torch.tensor([0, 1, 0])).places.tolist() == [3, 1, 0]


@torch.no_grad()
def test_the_future_is_not_seen(model: BaseLcm) -> None:
    concepts, turns = conversation(1, 6, SMALL.concept_dim)
    before = model(concepts, turns)
    concepts[:, 4:] = 100.0
    after = model(concepts, turns)
    torch.testing.assert_close(after[:, :4], before[:, :4])
    assert not torch.allclose(after[:, 4:], before[:, 4:])


@torch.no_grad()
def test_who_speaks_next_changes_the_prediction_but_not_the_stop_head(model: BaseLcm) -> None:
    concepts, turns = conversation(1, 5, SMALL.concept_dim)
    x = model(concepts, turns)
    mine, yours = (turns.followed_by(torch.full_like(turns.roles, role)) for role in (0, 1))
    assert not torch.allclose(model.predicted(x, mine), model.predicted(x, yours))
    assert model.stops(x).shape == (1, 5)


@torch.no_grad()
def test_a_temperature_adds_noise_in_the_spaces_own_standard_deviations(model: BaseLcm) -> None:
    concepts, turns = conversation(1, 3, SMALL.concept_dim)
    model.normalizer.scale.fill_(2.0)
    state = model.start(1)
    model.read(concepts, turns, torch.tensor([3]), state)
    asked = Turns(torch.tensor([1]), torch.tensor([0]))
    quiet, warm = model.drawer(Sampling()), model.drawer(Sampling(temperature=0.5))
    assert quiet.noise_shape == (0,)
    noise = torch.ones(1, *warm.noise_shape)
    torch.testing.assert_close(warm(asked, state, noise), quiet(asked, state, noise[:, :0]) + 1.0)


@torch.no_grad()
def test_without_turns_roles_mean_nothing_and_no_turn_ever_ends() -> None:
    model = BaseLcm(BaseLcmConfig(concept_dim=12, dim=16, layers=1, heads=2, ffn_dim=24, turns=False, bias=True)).eval()
    concepts, turns = conversation(1, 4, 12)
    other = Turns(1 - turns.roles, turns.places)
    x = model(concepts, turns)
    assert torch.equal(x, model(concepts, other))
    assert bool((model.stops(x) == float("-inf")).all())


def test_the_mini_model_has_about_four_million_parameters() -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in BaseLcm(BaseLcmConfig()).parameters())
    assert 3_800_000 < count < 4_200_000
