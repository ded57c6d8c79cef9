"""One-Tower diffusion LCM: the transformer that reads the concepts so far also denoises the next one [LCM §2.3.3].

Each input is a concept with its noise level beside it; noisy ones see the clean ones before them, and nobody sees them.
Rotary positions instead of the paper's learned ones, so that the context can slide. Knows nothing of text.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcm.models.fast_linear import Maps
from lcm.models.graphs import Graphed
from lcm.models.peek import Held, Peek
from lcm.models.refining import ReadRows, beside, places
from lcm.models.sampler import DenoisingPlan, Sampling, denoise
from lcm.models.schedule import NoiseSchedule, Shape
from lcm.models.state import LcmState
from lcm.models.tower import Tower, TowerConfig
from lcm.models.turns import Turns

_LEVEL_DIM = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class OneTowerConfig(TowerConfig):
    """Sizes of the tower."""

    schedule: Shape = "cosine"
    times: int = 100

    def noise_schedule(self) -> NoiseSchedule:
        """How noisy a concept is at each time."""
        return NoiseSchedule(self.schedule, self.times)


class OneTower(Tower):
    """Reads and denoises."""

    config: OneTowerConfig

    def __init__(self, config: OneTowerConfig) -> None:
        super().__init__(config)
        self.level_embed = nn.Embedding(config.times + 1, _LEVEL_DIM)  # the last one: clean
        self.postnet = nn.Linear(config.dim, config.concept_dim)
        nn.init.normal_(self.level_embed.weight, std=0.5)
        nn.init.normal_(self.postnet.weight, std=0.02)
        nn.init.zeros_(self.postnet.bias)

    def _prenet(self, config: TowerConfig) -> nn.Module:
        return nn.Linear(config.concept_dim + _LEVEL_DIM, config.dim)

    def embedded(self, normalised: Tensor, turns: Turns) -> Tensor:
        """Clean concepts [..., C] → [..., D]."""
        clean = torch.full(normalised.shape[:-1], self.config.times, device=normalised.device)
        x = self._projected(normalised, clean)
        return self.told(x, turns)

    def token(self, noisy: Tensor, times: Tensor, told: Tensor) -> Tensor:
        """A noisy concept [..., C] as the first layer gets it: [..., D]; `told` who says it, as `asked` gives it."""
        return self.dropout(self._projected(noisy, times) + told)

    def predicted(self, x: Tensor) -> Tensor:
        """Normalised x_0 [..., C], float32, from the tower's output [..., D]."""
        concept: Tensor = self.postnet(self.norm(x)).float()
        return concept

    def refined(self, read: ReadRows, unfinished: Tensor, steps: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
        """As `Refines` has it."""
        length = unfinished.shape[1]
        x = torch.cat(
            [self.embedded(read.normalised, read.turns), self.token(unfinished, steps, self.asked(read.asked))], dim=1
        )
        rotation = self.rotation(places(length, x.device))
        mask = beside(read, free, self.config.context)
        for layer in self.layers:
            x = layer(x, rotation, mask)
        return x[:, :length], self.predicted(x[:, length:])

    def drawer(self, sampling: Sampling, maps: Maps | None = None) -> "OneTowerDrawer":
        """A chain of denoising steps."""
        return OneTowerDrawer.of(
            self, Peek(self, maps or Maps()), DenoisingPlan.of(self.config.noise_schedule(), sampling.steps), sampling
        )

    def _projected(self, concepts: Tensor, times: Tensor) -> Tensor:
        weight_type = self.norm.weight.dtype
        with_level = torch.cat([concepts.to(weight_type), self.level_embed(times).to(weight_type)], dim=-1)
        x: Tensor = self.prenet(with_level)
        return x.to(weight_type)


@dataclass(frozen=True, slots=True)
class OneTowerDrawer:
    """Denoises what comes next."""

    model: OneTower
    peek: Peek
    plan: DenoisingPlan
    sampling: Sampling
    chain: Graphed

    @classmethod
    def of(cls, model: OneTower, peek: Peek, plan: DenoisingPlan, sampling: Sampling) -> "OneTowerDrawer":
        """Its chain of steps is one CUDA graph, where there is CUDA."""

        def chain(noise: Tensor, told: Tensor, *tensors: Tensor) -> Tensor:
            held = Held.of(tensors, model.config.layers)

            def step(number: int, x: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
                times = torch.full((len(x),), plan.times[number], device=x.device)
                token = model.token(x, times, told)
                predicted = model.predicted(peek(token.repeat(2, 1) if guided else token, held))
                given, free = predicted.chunk(2) if guided else (predicted, None)
                return given, free

            return denoise(step, plan, noise, sampling)

        return cls(model, peek, plan, sampling, Graphed(chain))

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Of one concept."""
        return (self.model.config.concept_dim,)

    def __call__(self, asked: Turns, state: LcmState, noise: Tensor) -> Tensor:
        """[B, C]."""
        drawn = self.chain(noise, self.model.asked(asked), *self.peek.held(state).tensors())
        return self.model.normalizer.inverse(drawn)
