"""What ends a text: near enough is the end, and only weights that tell it know it."""

import math

import torch

from lcm.models.base_lcm import BaseLcm, BaseLcmConfig
from lcm.models.ending import END_COSINE, Ending


def test_what_is_near_enough_to_the_end_ends() -> None:
    ending = Ending(2)
    ending.concept = torch.tensor([2.0, 0.0])
    angle = math.acos(END_COSINE)
    near, far = ([[math.cos(a), math.sin(a)]] for a in (angle - 0.01, angle + 0.01))
    assert ending(torch.tensor([near, far])).tolist() == [[True], [False]]


def test_where_no_end_is_known_nothing_ends() -> None:
    assert not bool(Ending(2)(torch.randn(5, 2)).any())


def test_the_end_is_among_the_weights_of_those_alone_that_know_it() -> None:
    config = BaseLcmConfig(concept_dim=12, dim=16, layers=1, heads=2, ffn_dim=24, turns=False)
    knows, other = BaseLcm(config), BaseLcm(config)
    assert "ending.concept" not in knows.state_dict()
    other.load_state_dict(knows.state_dict())
    assert other.ending.concept is None
    knows.ending.concept = torch.randn(12)
    other.load_state_dict(knows.state_dict())
    assert torch.equal(other.state_dict()["ending.concept"], knows.ending.concept)
