"""Long recordings are cut where nobody speaks, into pieces that fit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lcm.space.fbank import SAMPLE_RATE
from lcm.space.pauses import cut_at_pauses


def sound(seconds: float) -> torch.Tensor:
    return 0.3 * torch.randn(int(seconds * SAMPLE_RATE), generator=torch.Generator().manual_seed(0))


def silence(seconds: float) -> torch.Tensor:
    return torch.zeros(int(seconds * SAMPLE_RATE))


def test_what_fits_stays_whole() -> None:
    assert cut_at_pauses(sound(8.0), 8.0) == [(0, 8 * SAMPLE_RATE)]
    assert cut_at_pauses(torch.zeros(0), 8.0) == []


def test_cuts_lie_in_the_pauses() -> None:
    recording = torch.cat([sound(5), silence(0.5), sound(6), silence(0.4), sound(5.5)])
    pieces = cut_at_pauses(recording, 8.0)
    assert len(pieces) == 3
    pauses = ((5.0, 5.5), (11.5, 11.9))
    for (_, cut), (begins, ends) in zip(pieces, pauses, strict=False):
        assert begins <= cut / SAMPLE_RATE <= ends


@pytest.mark.parametrize("longest", [2.0, 8.0, 30.0])
@given(seconds=st.floats(0.0, 100.0), seed=st.integers(0, 99))
def test_pieces_cover_everything_and_fit(longest: float, seconds: float, seed: int) -> None:
    samples = torch.randn(int(seconds * 1_000), generator=torch.Generator().manual_seed(seed)).repeat_interleave(16)
    pieces = cut_at_pauses(samples, longest)
    assert [start for start, _ in pieces] == [0, *(end for _, end in pieces[:-1])][: len(pieces)]
    assert not pieces or pieces[-1][1] == len(samples)
    assert all(0 < end - start <= longest * SAMPLE_RATE for start, end in pieces)
    if len(pieces) > 1:
        assert min(end - start for start, end in pieces) > longest * SAMPLE_RATE / 8
