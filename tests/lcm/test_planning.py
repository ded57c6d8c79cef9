"""Paragraphs and the concept that stands for each."""

import pytest
import torch

from lcm.errors import ContextError
from lcm.planning import BoundaryOptions, boundary_depths, paragraph_starts, plan_concept


def _topics(*lengths: int, noise: float = 0.2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    centres = torch.eye(16)[: len(lengths)]
    return torch.cat(
        [
            centre + noise * torch.randn(n, 16, generator=generator) / 4
            for centre, n in zip(centres, lengths, strict=True)
        ]
    )


def test_a_plan_concept_is_the_nearest_to_the_mean() -> None:
    paragraph = torch.tensor([[0.0, 0.0], [4.0, 0.0], [2.1, 0.1], [2.0, 3.0]])
    distances = (paragraph - paragraph.mean(dim=0)).norm(dim=1)
    assert plan_concept(paragraph) == int(distances.argmin()) == 2


@pytest.mark.parametrize("seed", range(8))
def test_of_two_sentences_it_is_the_first_whatever_rounding_says(seed: int) -> None:
    assert plan_concept(torch.randn(2, 512, generator=torch.Generator().manual_seed(seed))) == 0


def test_nothing_has_no_plan_concept() -> None:
    with pytest.raises(ContextError):
        plan_concept(torch.zeros(0, 4))


def test_paragraphs_are_found_where_the_topic_changes() -> None:
    assert paragraph_starts(_topics(6, 5, 7)) == [0, 6, 11]


def test_one_topic_is_one_paragraph() -> None:
    assert paragraph_starts(torch.ones(8, 4)) == [0]
    assert paragraph_starts(torch.ones(1, 4)) == [0]
    assert paragraph_starts(torch.ones(2, 4)) == [0]
    assert paragraph_starts(torch.zeros(0, 4)) == []


@pytest.mark.parametrize("longest", [1, 2, 4, 9])
@pytest.mark.parametrize("length", [1, 3, 10, 50])
def test_no_paragraph_is_longer_than_allowed(longest: int, length: int) -> None:
    text = torch.randn(length, 8, generator=torch.Generator().manual_seed(length))
    starts = paragraph_starts(text, longest)
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    assert max(b - a for a, b in zip(starts, [*starts[1:], length], strict=True)) <= longest


def test_depth_is_deepest_at_the_change_and_never_negative() -> None:
    depths = boundary_depths(_topics(5, 5), BoundaryOptions().window)
    assert len(depths) == 9
    assert int(depths.argmax()) == 4
    assert float(depths.min()) >= 0
