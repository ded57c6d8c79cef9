"""The transformer's block: rotary positions are as exact far into a conversation as at its beginning."""

import math

import pytest
import torch

from lcm.models.transformer import rotated, rotations

HEAD_DIM = 16


@pytest.mark.parametrize("position", [0, 3, 4_095, 1_000_000])
def test_rotary_angles_are_those_of_the_position_however_large(position: int) -> None:
    cos, sin = rotations(torch.tensor([position]), HEAD_DIM)
    angles = [position * 10_000 ** (-2 * pair / HEAD_DIM) for pair in range(HEAD_DIM // 2)]
    assert cos.dtype == sin.dtype == torch.float32
    torch.testing.assert_close(cos[0], torch.tensor([math.cos(a) for a in angles]), rtol=0, atol=1e-6)
    torch.testing.assert_close(sin[0], torch.tensor([math.sin(a) for a in angles]), rtol=0, atol=1e-6)


def test_what_a_concept_sees_depends_on_distances_alone_however_far_the_conversation_has_come() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(1, 1, 1, HEAD_DIM), torch.randn(1, 1, 1, HEAD_DIM)

    def score(position: int) -> torch.Tensor:
        here, before = (rotations(torch.tensor([at]), HEAD_DIM) for at in (position, position - 5))
        return (rotated(query, here) * rotated(key, before)).sum()

    torch.testing.assert_close(score(1_000_000), score(5), rtol=0, atol=1e-5)
