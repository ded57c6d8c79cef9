"""Models that reach a concept in steps: what is drawn fast equals what the trained modules give, seed for seed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lcm.models.one_tower import OneTower, OneTowerConfig
from lcm.models.quantized import Quantized, QuantizedConfig, chosen
from lcm.models.refining import ReadRows
from lcm.models.sampler import DenoisingPlan, Sampling, denoise
from lcm.models.tower import TowerConfig
from lcm.models.turns import Turns
from lcm.models.two_tower import TwoTower, TwoTowerConfig
from scripts.random_lcm import random_weights
from tests.lcm.models.conversations import conversation, part, sliding

LENGTH = 9
TOWER = {"concept_dim": 12, "dim": 16, "layers": 2, "heads": 2, "ffn_dim": 24, "places": 3, "context": 5}
QUANT = {**TOWER, "codebooks": 4, "entries": 8}
Refined = OneTower | TwoTower | Quantized
MODELS: dict[str, tuple[type[Refined], TowerConfig]] = {
    "one_tower": (OneTower, OneTowerConfig(**TOWER)),  # type: ignore[arg-type]
    "two_tower": (TwoTower, TwoTowerConfig(**TOWER, denoiser_layers=3)),  # type: ignore[arg-type]
    "quant_d": (Quantized, QuantizedConfig(**QUANT)),  # type: ignore[arg-type]
    "quant_c": (Quantized, QuantizedConfig(**QUANT, discrete=False)),  # type: ignore[arg-type]
}
SAMPLINGS = {
    "eight steps": Sampling(steps=8),
    "one step": Sampling(steps=1),
    "unguided": Sampling(steps=5, guidance=1.0),
    "by lot": Sampling(steps=5, guidance=2.0, temperature=0.7),
    "of three": Sampling(steps=5, guidance=1.0, temperature=0.7, top_k=3),
}


def small(name: str, *, metas: bool) -> Refined:
    """`metas`: with biases, without turns, as Meta's."""
    kind, config = MODELS[name]
    changes: dict[str, Any] = {"bias": metas, "turns": not metas}
    if name == "two_tower":
        changes["whole_attention"] = metas
    model: Refined = kind(replace(config, **changes))  # type: ignore[arg-type]
    model.load_state_dict(random_weights(model))
    return model.eval()


def plain(model: Refined, concepts: Tensor, turns: Turns, asked: Turns, noise: Tensor, sampling: Sampling) -> Tensor:
    """One conversation [1, T, C] by the modules that are trained, over the whole sequence at every step."""
    length = concepts.shape[1]
    told = Turns(asked.roles.expand(1, length), asked.places.expand(1, length))
    read = ReadRows(model.normalizer(concepts), turns, told, sliding(length, model.config)[None, None])

    def said(unfinished: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """With the context and without."""
        everywhere, steps = unfinished[:, None].expand(1, length, -1), torch.full((1, length), step)
        given, free = (
            model.refined(read, everywhere, steps, torch.full((1, length), hidden))[1][:, -1]
            for hidden in (False, True)
        )
        return given, free

    if isinstance(model, Quantized):
        return model.normalizer.inverse(plain_entries(model, said, noise, sampling))
    plan = DenoisingPlan.of(model.config.noise_schedule(), sampling.steps)

    def step(number: int, noisy: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
        given, free = said(noisy, plan.times[number])
        return given, free if guided else None

    return model.normalizer.inverse(denoise(step, plan, noise, sampling))


def plain_entries(
    model: Quantized, said: Callable[[Tensor, int], tuple[Tensor, Tensor]], noise: Tensor, sampling: Sampling
) -> Tensor:
    """Entries added up: [1, C]."""
    so_far = torch.zeros(1, model.config.concept_dim)
    for number in range(model.config.codebooks):
        book = model.quantizer.codebook(number)
        given, free = (
            (out if model.config.discrete else -((out - so_far)[:, None] - book).square().sum(dim=2))
            / (sampling.temperature or 1.0)
            for out in said(so_far, number)
        )
        guided = free.log_softmax(dim=1) + sampling.guidance * (given.log_softmax(dim=1) - free.log_softmax(dim=1))
        of_book = noise[:, number] if sampling.temperature else None
        so_far = so_far + book[chosen(guided, of_book, sampling.top_k)]
    return so_far


@torch.no_grad()
@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize("metas", [True, False], ids=["as Meta's", "with turns"])
def test_drawn_fast_equals_drawn_plainly(name: str, sampling: Sampling, metas: bool) -> None:
    model = small(name, metas=metas)
    concepts, turns = conversation(2, LENGTH, 12)
    counts = torch.tensor([LENGTH, 4])
    state, drawer = model.start(2), model.drawer(sampling)
    model.read(concepts, turns, counts, state)
    asked = Turns(torch.tensor([1, 0]), torch.tensor([0, 2]))
    noise = torch.randn(2, *drawer.noise_shape, generator=torch.Generator().manual_seed(5))
    together = drawer(asked, state, noise)
    for row, count in enumerate(counts.tolist()):
        at = slice(row, row + 1)
        alone = plain(
            model, concepts[at, :count], part(turns, slice(count)).row(row),
            Turns(asked.roles[at], asked.places[at]), noise[at], sampling,
        )  # fmt: skip
        torch.testing.assert_close(together[at], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", list(MODELS))
def test_drawing_leaves_the_state_as_it_was(name: str) -> None:
    model = small(name, metas=False)
    concepts, turns = conversation(1, LENGTH, 12)
    state = model.start(1)
    model.read(concepts, turns, torch.tensor([LENGTH]), state)
    drawer, asked = model.drawer(Sampling(steps=3)), Turns(torch.tensor([1]), torch.tensor([0]))
    noise = torch.ones(1, *drawer.noise_shape)
    first = drawer(asked, state, noise)
    assert torch.equal(drawer(asked, state, noise), first)
    assert int(state.lengths) == LENGTH


@torch.no_grad()
@pytest.mark.parametrize("name", list(MODELS))
def test_unfinished_concepts_are_seen_by_nobody_else(name: str) -> None:
    model = small(name, metas=False)
    concepts, turns = conversation(1, LENGTH, 12)
    read = ReadRows(concepts, turns, turns, sliding(LENGTH, model.config)[None, None])
    unfinished, steps = torch.randn(1, LENGTH, 12), torch.full((1, LENGTH), 3)
    nowhere = torch.zeros(1, LENGTH, dtype=torch.bool)
    x, out = model.refined(read, unfinished, steps, nowhere)
    other = unfinished.clone()
    other[:, 4] = 9.0
    same_x, changed = model.refined(read, other, steps, nowhere)
    assert torch.equal(x, same_x)
    assert [i for i in range(LENGTH) if not torch.allclose(out[0, i], changed[0, i], atol=1e-5)] == [4]


@torch.no_grad()
@pytest.mark.parametrize("name", list(MODELS))
def test_guidance_and_noise_change_what_is_drawn(name: str) -> None:
    model = small(name, metas=False)
    concepts, turns = conversation(1, 4, 12)
    state = model.start(1)
    model.read(concepts, turns, torch.tensor([4]), state)
    asked = Turns(torch.tensor([1]), torch.tensor([0]))
    noise = torch.randn(1, *model.drawer(Sampling(temperature=1.0)).noise_shape)
    drawn = {
        guidance: model.drawer(Sampling(steps=4, guidance=guidance, temperature=1.0))(asked, state, noise)
        for guidance in (1.0, 3.0)
    }
    assert not torch.allclose(drawn[1.0], drawn[3.0], atol=1e-3)
    by_lot = model.drawer(Sampling(steps=4, guidance=1.0, temperature=20.0))
    assert not torch.allclose(by_lot(asked, state, noise), by_lot(asked, state, -noise), atol=1e-3)


def test_queries_that_nothing_depends_on_are_there_for_metas_checkpoints_only() -> None:
    assert any(".own.q_proj." in name for name, _ in small("two_tower", metas=True).named_parameters())
    assert not any(".own.q_proj." in name for name, _ in small("two_tower", metas=False).named_parameters())
