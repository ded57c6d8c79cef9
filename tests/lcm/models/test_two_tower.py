"""Two-Tower: the fast denoiser gives what the plain one does, seed for seed, guided or not, alone or in a batch."""

import pytest
import torch
from torch import Tensor

from lcm.models.sampler import DenoisingPlan, Sampling, denoise
from lcm.models.turns import Turns
from lcm.models.two_tower import TwoTower, TwoTowerConfig
from tests.lcm.models.conversations import conversation, part, sliding

LENGTH = 9


def small(*, bias: bool = True, turns: bool = True) -> TwoTower:
    torch.manual_seed(0)
    config = TwoTowerConfig(
        concept_dim=12, dim=16, layers=2, denoiser_layers=3, heads=2, ffn_dim=24, places=3, context=5, bias=bias,
        turns=turns, whole_attention=bias,
    )  # fmt: skip
    model = TwoTower(config).eval()
    for parameter in model.parameters():  # gates begin at zero, which would hide everything
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def plain(model: TwoTower, concepts: Tensor, turns: Turns, asked: Turns, noise: Tensor, sampling: Sampling) -> Tensor:
    """One conversation [1, T, C] by the modules that are trained, over the whole sequence at every step."""
    length = concepts.shape[1]
    seen = sliding(length, model.config)
    x = model(model.normalizer(concepts), turns, seen[None, None])
    plan = DenoisingPlan.of(model.config.noise_schedule(), sampling.steps)
    nothing, told = (
        torch.ones(length, 1, dtype=torch.bool),
        Turns(asked.roles.expand(1, length), asked.places.expand(1, length)),
    )

    def step(number: int, noisy: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
        everywhere = noisy[:, None].expand(1, length, -1)
        times = torch.full((1, length), plan.times[number])
        given, free = (
            model.denoised(x, everywhere, times, told, torch.cat([nothing, mask], dim=1)[None, None])[:, -1]
            for mask in (seen, torch.zeros_like(seen))
        )
        return given, free if guided else None

    return model.normalizer.inverse(denoise(step, plan, noise, sampling))


@torch.no_grad()
@pytest.mark.parametrize("sampling", [Sampling(steps=8), Sampling(steps=1), Sampling(steps=5, guidance=1.0)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_fast_denoiser_equals_the_plain_one(sampling: Sampling, bias: bool) -> None:
    model = small(bias=bias, turns=not bias)
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
def test_guidance_and_noise_change_what_is_drawn() -> None:
    model = small()
    concepts, turns = conversation(1, 4, 12)
    state = model.start(1)
    model.read(concepts, turns, torch.tensor([4]), state)
    asked = Turns(torch.tensor([1]), torch.tensor([0]))
    noise = torch.randn(1, 12, generator=torch.Generator().manual_seed(2))
    drawn = [model.drawer(Sampling(steps=4, guidance=g))(asked, state, noise) for g in (1.0, 3.0)]
    assert not torch.allclose(drawn[0], drawn[1], atol=1e-3)
    assert not torch.allclose(drawn[1], model.drawer(Sampling(steps=4))(asked, state, -noise), atol=1e-3)


def test_without_queries_that_nothing_depends_on_it_is_smaller_and_draws_the_same() -> None:
    names = {name for name, _ in small(bias=True).named_parameters()}
    assert any(".own.q_proj." in name for name in names)
    assert not any(".own.q_proj." in name for name, _ in small(bias=False).named_parameters())
