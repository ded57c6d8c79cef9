"""CUDA graphs: what is replayed equals what is called, for new inputs and new shapes; without CUDA it is called."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from lcm.engine import Engine, Sampling
from lcm.models.graphs import Graphed
from lcm.models.one_tower import OneTower, OneTowerConfig
from lcm.models.quantized import Quantized, QuantizedConfig
from lcm.models.tower import Tower
from lcm.models.two_tower import TwoTower, TwoTowerConfig
from scripts.random_lcm import random_weights

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


@dataclass
class Replay:
    """In the place of a captured graph: calls the function again, on the inputs that it was captured with."""

    function: Callable[..., Tensor]
    inputs: list[Tensor]
    output: Tensor

    @property
    def graph(self) -> "Replay":
        return self

    def replay(self) -> None:
        self.output.copy_(self.function(*self.inputs))


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[Replay]:
    """Whatever is captured; a CPU's tensors say that they are on CUDA."""
    made: list[Replay] = []

    def capture(graphed: Graphed, inputs: tuple[Tensor, ...]) -> Replay:
        kept = [tensor.clone() for tensor in inputs]
        made.append(Replay(graphed.function, kept, torch.zeros_like(graphed.function(*kept))))
        return made[-1]

    monkeypatch.setattr(Graphed, "_capture", capture)
    monkeypatch.setattr(Tensor, "is_cuda", property(lambda _: True))
    return made


def test_a_batch_that_gets_smaller_is_captured_at_powers_of_two(replays: list[Replay]) -> None:
    graphed = Graphed(lambda x, y, scale: scale * (x + y.sum(dim=1)), rows=True)
    for rows in range(12, 0, -1):
        x, y, scale = torch.randn(rows, 3), torch.randn(rows, 2, 3), torch.tensor(2.0)
        assert torch.equal(graphed(x, y, scale), 2 * (x + y.sum(dim=1)))
    assert [len(replay.output) for replay in replays] == [16, 8, 4, 2, 1]


def test_what_mixes_rows_is_captured_as_it_comes(replays: list[Replay]) -> None:
    graphed = Graphed(lambda x: x.sum(dim=0))
    assert graphed(torch.ones(3, 2)).tolist() == [3.0, 3.0]
    assert graphed(torch.ones(5, 2)).tolist() == [5.0, 5.0]
    assert len(replays) == 2


def test_models_give_each_row_what_it_gets_alone_where_rows_are_filled_up(
    replays: list[Replay], monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in (OneTower(OneTowerConfig(**SIZES)), TwoTower(TwoTowerConfig(**SIZES, denoiser_layers=2))):  # type: ignore[arg-type]
        model.load_state_dict(random_weights(model))
        engine = Engine(model, sampling=Sampling(steps=3))
        contexts, roles = [torch.randn(n, 16) for n in (3, 20, 7)], [torch.arange(n) % 2 for n in (3, 20, 7)]
        replays.clear()
        together = engine.predict_next(contexts, roles, [1, 2, 3])
        assert [len(replay.output) for replay in replays] == [4]
        with monkeypatch.context() as called:
            called.setattr(Tensor, "is_cuda", property(lambda _: False))
            alone = [
                engine.predict_next([c], [r], [n])[0] for n, (c, r) in enumerate(zip(contexts, roles, strict=True), 1)
            ]
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one.concept, other.concept, rtol=0, atol=1e-4)


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
    weights = random_weights(model)
    model.load_state_dict(weights)
    contexts = [torch.randn(n, 16) for n in (3, 20)]
    roles = [torch.arange(n) % 2 for n in (3, 20)]
    sampling = Sampling(steps=6)
    there = Engine(model, "cuda", sampling).predict(contexts, roles, seeds=[1, 2])
    again = type(model)(model.config)
    again.load_state_dict(weights)
    here = Engine(again, "cpu", sampling).predict(contexts, roles, seeds=[1, 2])
    for said, meant in zip(there, here, strict=True):
        torch.testing.assert_close(said, meant, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="a second CUDA GPU is missing")
def test_what_lies_on_another_gpu_is_captured_there() -> None:
    for device in ("cuda:0", "cuda:1"):
        graphed = Graphed(lambda x: (x @ x).relu())
        for _ in range(2):
            x = torch.randn(4, 4, device=device)
            torch.testing.assert_close(graphed(x), (x @ x).relu())
