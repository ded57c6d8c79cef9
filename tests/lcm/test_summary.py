"""Which sentences stand for a text, in a space where it is plain to see."""

import pytest
import torch
import torch.nn.functional as F

from lcm.errors import ContextError
from lcm.summary import SummaryOptions, centralities, kept_count, summary


@pytest.mark.parametrize(
    ("sentences", "ratio", "kept"), [(10, 0.2, 2), (11, 0.2, 3), (100, 0.07, 7), (1, 0.01, 1), (5, 1.0, 5), (0, 0.5, 0)]
)
def test_a_ratio_keeps_so_many_rounded_up(sentences: int, ratio: float, kept: int) -> None:
    assert kept_count(sentences, ratio) == kept


def test_what_the_text_is_about_is_kept_and_what_is_beside_it_is_not() -> None:
    about = torch.tensor([[1.0, 0.1, 0.0], [1.0, 0.0, 0.1], [1.0, 0.0, 0.0]])
    beside = torch.tensor([[0.0, 0.0, -1.0]])
    assert summary(torch.cat([beside, about]), 1, SummaryOptions(early=0.0)) == [3]


def test_the_same_thing_is_not_said_twice() -> None:
    first, second = torch.eye(2)
    text = torch.stack([first, first, first, second, second])
    assert summary(text, 2, SummaryOptions(early=0.0, diversity=0.5)) == [0, 3]
    assert summary(text, 2, SummaryOptions(early=0.0, diversity=0.0)) == [0, 1]


def test_of_equals_the_earlier_is_kept() -> None:
    assert summary(torch.ones(6, 4), 2) == [0, 1]


def test_the_order_is_that_of_the_text_and_no_more_is_kept_than_there_is() -> None:
    text = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    kept = summary(text, 7)
    assert kept == sorted(set(kept))
    assert len(kept) == 7
    assert summary(text, 99) == list(range(20))
    assert summary(text[:1], 1) == [0]


def test_the_length_of_a_concept_does_not_matter() -> None:
    text = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
    assert summary(text * torch.linspace(0.1, 9, 12)[:, None], 4) == summary(text, 4)


def test_centrality_is_the_mean_cosine_to_the_others() -> None:
    unit = F.normalize(torch.randn(9, 5, generator=torch.Generator().manual_seed(2)).double(), dim=1)
    cosines = unit @ unit.T
    expected = (cosines.sum(dim=1) - 1) / 8
    torch.testing.assert_close(centralities(unit), expected)


@pytest.mark.parametrize("concepts", [torch.zeros(0, 4), torch.full((2, 4), torch.nan), torch.zeros(4)])
def test_what_is_no_text_is_refused(concepts: torch.Tensor) -> None:
    with pytest.raises(ContextError):
        summary(concepts, 1)
