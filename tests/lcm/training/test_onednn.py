"""Training's linear maps: oneDNN gives the losses and gradients that torch gives by itself."""

import pytest
import torch
import torch.nn.functional as F

from lcm.training.onednn import OneDnnLinear

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_are_the_same(*, bias: bool, frozen: bool) -> None:
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(24, 40, bias=bias), torch.randn(3, 7, 24, requires_grad=not frozen)
    learnt = [*linear.parameters(), *([] if frozen else [x])]
    plainly = linear(x)
    wanted = torch.autograd.grad(plainly.square().sum(), learnt)
    with OneDnnLinear():
        fast = linear(x)
    assert "_Linear" in fast.grad_fn.name()
    torch.testing.assert_close(fast, plainly)
    for got, right in zip(torch.autograd.grad(fast.square().sum(), learnt), wanted, strict=True):
        torch.testing.assert_close(got, right, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("x", [torch.randn(5, 24), torch.randn(2, 5, 24, dtype=torch.float64), torch.randn(0, 5, 24)])
def test_what_it_does_not_take_goes_the_usual_way(x: torch.Tensor) -> None:
    weight = torch.randn(8, 24, dtype=x.dtype, requires_grad=True)
    with OneDnnLinear():
        y = F.linear(x, weight)
    assert "_Linear" not in y.grad_fn.name()  # type: ignore[union-attr]
    assert torch.equal(y, F.linear(x, weight))
