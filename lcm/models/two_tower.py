"""Two-Tower diffusion LCM: one tower reads the concepts so far, the other turns noise into the next one [LCM §2.3.4].

Knows nothing of text, turns' ends or how fast its denoiser runs (`fast_denoiser.py`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lcm.models.denoiser import Denoiser
from lcm.models.diffusion_config import DiffusionConfig
from lcm.models.fast_denoiser import FastDenoiser
from lcm.models.fast_linear import Maps
from lcm.models.graphs import Graphed
from lcm.models.refining import ReadRows
from lcm.models.sampler import DenoisingPlan, Sampling, denoise
from lcm.models.seen import Seen
from lcm.models.state import LcmState, Placed
from lcm.models.tower import Tower
from lcm.models.turns import Turns


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoTowerConfig(DiffusionConfig):
    """Sizes of both towers; `layers` are the contextualiser's."""

    layers: int = 3
    denoiser_layers: int = 4
    whole_attention: bool = False
    """as of `Denoiser`: with it, a model of Meta's sizes has as many parameters as Meta's"""


class TwoTower(Tower):
    """Contextualiser and denoiser."""

    config: TwoTowerConfig

    def __init__(self, config: TwoTowerConfig) -> None:
        super().__init__(config)
        self.denoiser = Denoiser(
            config.concept_dim, config.dim, config.denoiser_layers, config.heads, config.ffn_dim, config.dropout,
            bias=config.bias, whole=config.whole_attention,
        )  # fmt: skip

    def refined(self, read: ReadRows, noisy: Tensor, times: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
        """As `Refines` has it."""
        x = Tower.forward(self, read.normalised, read.turns, read.seen)
        seen = read.seen & ~free[:, None, :, None]
        mask = torch.cat([torch.ones_like(seen[..., :1]), seen], dim=-1)  # nothing, then the context
        context = self.norm(x)
        context = torch.cat([torch.zeros_like(context[:, :1]), context], dim=1)
        level = self.denoiser.levels(torch.arange(self.config.times, device=x.device))
        return x, self.denoiser(noisy, level, times, self.asked(read.asked), context, mask)

    def start(self, rows: int, slots: int | None = None) -> LcmState:
        """Also holds the keys and values that the denoiser's layers see of each concept."""
        return self.config.state(rows, self.norm.weight, slots, self.config.denoiser_layers)

    def drawer(self, sampling: Sampling, maps: Maps | None = None) -> "TwoTowerDrawer":
        """A chain of denoising steps."""
        plan = DenoisingPlan.of(self.config.noise_schedule(), sampling.steps)
        return TwoTowerDrawer.of(self, FastDenoiser(self.denoiser, plan.times, maps or Maps()), plan, sampling)

    def _remember(self, x: Tensor, state: LcmState, placed: Placed) -> None:
        context = self.norm(x)
        for number, layer in enumerate(self.denoiser.layers, start=self.config.layers):
            state.write(number, placed, *layer.cross.keys_and_values(context))  # type: ignore[union-attr,operator]


@dataclass(frozen=True, slots=True)
class TwoTowerDrawer:
    """Denoises what comes next."""

    model: TwoTower
    denoiser: FastDenoiser
    plan: DenoisingPlan
    sampling: Sampling
    chain: Graphed

    @classmethod
    def of(cls, model: TwoTower, denoiser: FastDenoiser, plan: DenoisingPlan, sampling: Sampling) -> "TwoTowerDrawer":
        """Its chain of steps is one CUDA graph, where there is CUDA."""
        layers = model.config.denoiser_layers

        def chain(noise: Tensor, told: Tensor, *held: Tensor) -> Tensor:
            context = Seen.of(held, layers)

            def step(number: int, x: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
                return denoiser.step(number, x, told, context, guided=guided)

            return denoise(step, plan, noise, sampling)

        return cls(model, denoiser, plan, sampling, Graphed(chain, rows=True))

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Of one concept."""
        return (self.model.config.concept_dim,)

    def __call__(self, asked: Turns, state: LcmState, noise: Tensor) -> Tensor:
        """[B, C]."""
        context = self.denoiser.context(state, self.model.config.layers)
        drawn = self.chain(noise, self.model.asked(asked), *context.tensors())
        return self.model.normalizer.inverse(drawn)
