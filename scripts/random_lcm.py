"""Random weights for concept models: the same for the same name, shape and seed, on any machine.

For benchmarks, and for golden files that need not hold what can be made again. Nothing is left at zero or one: gates
that start closed and norms that start flat would hide whatever stands behind them.
"""

import math
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

_SPREAD = float(np.sqrt(12))
_NARROW = 0.2
_MODULATED = 0.3


def random_weights(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """What `model.load_state_dict` takes, float32; `model` may be on the meta device."""
    return {name: random_weight(name, tuple(tensor.shape), seed) for name, tensor in model.state_dict().items()}


def random_weight(name: str, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Uniform, so that the numbers hang on nothing but the generator's bits."""
    bits = np.random.default_rng([seed, zlib.crc32(name.encode())])
    unit: Tensor = _SPREAD * (torch.from_numpy(bits.random(shape, np.float32)) - 0.5)
    if len(shape) > 1:
        return unit * ((_MODULATED if "modulat" in name else 1.0) / math.sqrt(shape[-1]))
    return 1 + _NARROW * unit if name.endswith("scale") or "norm.weight" in name else _NARROW * unit


def checksum(weights: Mapping[str, Tensor]) -> float:
    """One number that another generator's weights would hardly give."""
    return float(sum(tensor.double().square().sum() for tensor in weights.values()))
