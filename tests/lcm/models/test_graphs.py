"""CUDA graphs: what is replayed equals what is called, for new inputs and new shapes; without CUDA it is called."""

import pytest
import torch
from torch import Tensor

from lcm.engine import Engine, Sampling
from lcm.models.graphs import Graphed
from lcm.models.one_tower import OneTower, OneTowerConfig
from lcm.models.quantized import Quantized, QuantizedConfig
from lcm.models.tower import Tower
from lcm.models.two_tower import TwoTower, TwoTowerConfig

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA GPU is missing")
SIZES = {"concept_dim": 16, "dim": 32, "layers": 2, "heads": 2, "ffn_dim": 48, "context": 8}


def test_without_cuda_the_function_is_called() -> None:
    calls = []

    def double(x: Tensor) -> Tensor:
        calls.append(len(x))
        return 2 * x

    graphed = Graphed(double)
    assert graphed(torch.ones(3)).tolist() == [2.0, 2.0, 2.0]
    assert graphed(torch.zeros(1)).tolist() == [0.0]
    assert calls == [3, 1]
    assert not graphed.captured


@needs_cuda
def test_replayed_equals_called() -> None:
    graphed = Graphed(lambda x, y: (x @ y).relu())
    for size in (3, 5, 3):
        x, y = torch.randn(size, 4, device="cuda"), torch.randn(4, size, device="cuda")
        torch.testing.assert_close(graphed(x, y), (x @ y).relu())
    assert len(graphed.captured) == 2


@needs_cuda
def test_what_is_to_be_called_is_called_on_cuda_too() -> None:
    graphed, x = Graphed(torch.relu, graphs=False), torch.randn(3, device="cuda")
    torch.testing.assert_close(graphed(x), x.relu())
    assert not graphed.captured


@needs_cuda
@pytest.mark.parametrize(
    "model",
    [
        OneTower(OneTowerConfig(**SIZES)),  # type: ignore[arg-type]
        TwoTower(TwoTowerConfig(**SIZES, denoiser_layers=2)),  # type: ignore[arg-type]
        Quantized(QuantizedConfig(**SIZES, codebooks=3, entries=8)),  # type: ignore[arg-type]
    ],
    ids=lambda model: type(model).__name__,
)
def test_on_cuda_the_engine_says_what_it_says_on_a_cpu(model: Tower) -> None:
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    contexts = [torch.randn(n, 16) for n in (3, 20)]
    roles = [torch.arange(n) % 2 for n in (3, 20)]
    sampling = Sampling(steps=6)
    there = Engine(model, "cuda", sampling).predict(contexts, roles, seeds=[1, 2])
    again = type(model)(model.config)
    again.load_state_dict(weights)
    here = Engine(again, "cpu", sampling).predict(contexts, roles, seeds=[1, 2])
    for said, meant in zip(there, here, strict=True):
        torch.testing.assert_close(said, meant, rtol=1e-3, atol=1e-3)
