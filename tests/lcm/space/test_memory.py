"""Loading takes what a model takes, and little more."""

import subprocess
import sys

import torch
from torch import nn

from lcm.space.memory import shapes_only

LOADING = """
import sys
from lcm.space import ConceptSpace
ConceptSpace.load("mini", "cpu")
print("sympy" in sys.modules)
"""


def test_modules_have_shapes_and_no_values() -> None:
    with shapes_only():
        embedding, linear = nn.Embedding(1_000_000_000, 64, padding_idx=0), nn.Linear(8, 8)
    assert embedding.weight.shape == (1_000_000_000, 64)
    assert embedding.weight.is_meta
    assert linear.weight.is_meta
    assert nn.Embedding(3, 4).weight.abs().sum() > 0  # outside, all is as ever
    assert torch.randn(3).device.type == "cpu"


def test_loading_brings_no_symbolic_algebra() -> None:
    """75 MB and half a second, for random values that a checkpoint replaces."""
    told = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
