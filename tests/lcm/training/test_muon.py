"""Muon: nearly orthogonal updates, and the same as torch's own."""

import pytest
import torch

from lcm.training.muon import Muon, orthogonalise

SHAPES = [(12, 8), (8, 12), (12, 8), (6, 6)]


@pytest.mark.parametrize("shape", [(16, 8), (8, 16), (8, 8)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    before = torch.linalg.svdvals(matrices)
    assert values.min() > 0.4
    assert values.max() < 1.3
    assert (values.max() / values.min()) < 0.75 * (before.max() / before.min())


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon to compare with")
def test_steps_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    theirs = [torch.nn.Parameter(parameter.detach().clone()) for parameter in ours]
    begun = [parameter.detach().clone() for parameter in ours]
    mine = Muon(ours, lr=0.02, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="original")
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        mine.step()
        reference.step()
    for one, other, first in zip(ours, theirs, begun, strict=True):  # both round to bfloat16, in another order
        assert (one - other).norm() < 0.05 * (other - first).norm()


def test_what_has_no_gradient_stays() -> None:
    parameter = torch.nn.Parameter(torch.ones(4, 4))
    Muon([parameter], lr=1.0, weight_decay=0.5).step()
    assert torch.equal(parameter, torch.ones(4, 4))
