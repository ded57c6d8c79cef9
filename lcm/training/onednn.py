"""Linear maps in float32 training on a CPU: by oneDNN, forward and backward, where torch would ask MKL.

MKL leaves half of the arithmetic units of processors that are not Intel's idle (lcm/space/packed.py does the same for
inference). bfloat16 goes to oneDNN anyway. Knows nothing of models.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_WHOLE_ROWS = 3
"""Dimensions of what is packed into rows of one length. oneDNN compiles each number of rows anew and keeps it, so what
comes in ever other numbers stays with MKL"""


def trained_linear(device: torch.device, *, bf16: bool) -> AbstractContextManager[object]:
    """What to compute a loss in; its backward follows by itself."""
    wanted = device.type == "cpu" and not bf16 and torch.backends.mkldnn.is_available()
    return OneDnnLinear() if wanted else nullcontext()


class OneDnnLinear(TorchFunctionMode):
    """Computes `F.linear` of float32 [B, T, in] by oneDNN while it is entered."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Every other function is called as it was."""
        if func is F.linear and _is_taken(args[0], args[1]):
            return _Linear.apply(*args, **(kwargs or {}))  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


def _is_taken(x: Tensor, weight: Tensor) -> bool:
    return x.dim() == _WHOLE_ROWS and x.numel() > 0 and x.dtype == weight.dtype == torch.float32


class _Linear(torch.autograd.Function):
    """x [B, T, in], weight [out, in], bias [out] or None → [B, T, out]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _product(x.contiguous(), weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows, read = gradient.flatten(0, 1), x.flatten(0, 1)
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(rows.contiguous(), weight.T.contiguous()).view_as(x) if of_x else None,
            _product(rows.T.contiguous(), read.T.contiguous()) if of_weight else None,
            rows.sum(0) if of_bias and ctx.has_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y
