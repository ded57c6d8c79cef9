"""One-Tower diffusion LCM: the transformer that reads the concepts so far also denoises the next one [LCM §2.3.3].

A step of the joint tower is a noise level. Rotary positions instead of the paper's learned ones, so that the context
can slide. Knows nothing of text.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcm.models.diffusion_config import DiffusionConfig
from lcm.models.fast_linear import Maps
from lcm.models.joint_tower import JointDrawer, JointTower, Look, steps_embedding
from lcm.models.sampler import DenoisingPlan, Sampling, denoise


@dataclass(frozen=True, slots=True, kw_only=True)
class OneTowerConfig(DiffusionConfig):
    """Sizes of the tower."""


class OneTower(JointTower):
    """Reads and denoises: what it says of a noisy concept is x_0, normalised."""

    config: OneTowerConfig

    def __init__(self, config: OneTowerConfig) -> None:
        super().__init__(config, outputs=config.concept_dim)
        self.level_embed = steps_embedding(config.times)

    @property
    def steps(self) -> nn.Embedding:
        """Noise levels."""
        return self.level_embed

    def drawer(self, sampling: Sampling, maps: Maps | None = None) -> JointDrawer:
        """A chain of denoising steps."""
        plan = DenoisingPlan.of(self.config.noise_schedule(), sampling.steps)

        def chain(noise: Tensor, told: Tensor, look: Look) -> Tensor:
            def step(number: int, x: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
                times = torch.full((len(x),), plan.times[number], device=x.device)
                token = self.token(x, times, told)
                predicted = self.predicted(look(token.repeat(2, 1) if guided else token))
                given, free = predicted.chunk(2) if guided else (predicted, None)
                return given, free

            return denoise(step, plan, noise, sampling)

        return JointDrawer.of(self, maps or Maps(), (self.config.concept_dim,), chain)
