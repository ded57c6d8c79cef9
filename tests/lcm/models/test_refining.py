"""Models that reach a concept in steps: what is drawn fast equals what the trained modules give, seed for seed."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lcm.models.one_tower import OneTower, OneTowerConfig
from lcm.models.refining import ReadRows
from lcm.models.sampler import DenoisingPlan, Sampling, denoise
from lcm.models.turns import Turns
from lcm.models.two_tower import TwoTower, TwoTowerConfig
from tests.lcm.models.conversations import conversation, part, sliding

LENGTH = 9
TOWER = {"concept_dim": 12, "dim": 16, "layers": 2, "heads": 2, "ffn_dim": 24, "places": 3, "context": 5}
MODELS = {
    "one_tower": (OneTower, OneTowerConfig(**TOWER)),  # type: ignore[arg-type]
    "two_tower": (TwoTower, TwoTowerConfig(**TOWER, denoiser_layers=3)),  # type: ignore[arg-type]
}


def small(name: str, *, metas: bool) -> OneTower | TwoTower:
    """`metas`: with biases, without turns, as Meta's."""
    torch.manual_seed(0)
    kind, config = MODELS[name]
    changes: dict[str, Any] = {"bias": metas, "turns": not metas}
    if name == "two_tower":
        changes["whole_attention"] = metas
    model: OneTower | TwoTower = kind(replace(config, **changes)).eval()
    for parameter in model.parameters():  # gates begin at zero, which would hide everything
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def plain(
    model: OneTower | TwoTower, concepts: Tensor, turns: Turns, asked: Turns, noise: Tensor, sampling: Sampling
) -> Tensor:
    """One conversation [1, T, C] by the modules that are trained, over the whole sequence at every step."""
    length = concepts.shape[1]
    told = Turns(asked.roles.expand(1, length), asked.places.expand(1, length))
    read = ReadRows(model.normalizer(concepts), turns, told, sliding(length, model.config)[None, None])
    plan = DenoisingPlan.of(model.config.noise_schedule(), sampling.steps)

    def step(number: int, noisy: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
        everywhere, times = noisy[:, None].expand(1, length, -1), torch.full((1, length), plan.times[number])
        given, free = (
            model.refined(read, everywhere, times, torch.full((1, length), hidden))[1][:, -1]
            for hidden in (False, True)
        )
        return given, free if guided else None

    return model.normalizer.inverse(denoise(step, plan, noise, sampling))


@torch.no_grad()
@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("sampling", [Sampling(steps=8), Sampling(steps=1), Sampling(steps=5, guidance=1.0)])
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
    drawer, asked, noise = (
        model.drawer(Sampling(steps=3)),
        Turns(torch.tensor([1]), torch.tensor([0])),
        torch.ones(1, 12),
    )
    first = drawer(asked, state, noise)
    assert torch.equal(drawer(asked, state, noise), first)
    assert int(state.lengths) == LENGTH


@torch.no_grad()
@pytest.mark.parametrize("name", list(MODELS))
def test_unfinished_concepts_are_seen_by_nobody_else(name: str) -> None:
    model = small(name, metas=False)
    concepts, turns = conversation(1, LENGTH, 12)
    read = ReadRows(concepts, turns, turns, sliding(LENGTH, model.config)[None, None])
    unfinished, steps = torch.randn(1, LENGTH, 12), torch.full((1, LENGTH), 50)
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
    noise = torch.randn(1, 12, generator=torch.Generator().manual_seed(2))
    drawn = [model.drawer(Sampling(steps=4, guidance=g))(asked, state, noise) for g in (1.0, 3.0)]
    assert not torch.allclose(drawn[0], drawn[1], atol=1e-3)
    assert not torch.allclose(drawn[1], model.drawer(Sampling(steps=4))(asked, state, -noise), atol=1e-3)


def test_queries_that_nothing_depends_on_are_there_for_metas_checkpoints_only() -> None:
    assert any(".own.q_proj." in name for name, _ in small("two_tower", metas=True).named_parameters())
    assert not any(".own.q_proj." in name for name, _ in small("two_tower", metas=False).named_parameters())
