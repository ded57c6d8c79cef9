"""One-step stochastic head: noise and what the tower read in, a concept out, in one pass [CALM §3].

Different noise gives different replies, without denoising steps. Knows nothing of the energy loss that teaches it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcm.models.fast_linear import Maps
from lcm.models.sampler import Sampling
from lcm.models.state import LcmState
from lcm.models.tower import Tower, TowerConfig
from lcm.models.transformer import NORM_EPS, SwiGlu
from lcm.models.turns import Turns


@dataclass(frozen=True, slots=True, kw_only=True)
class OneStepConfig(TowerConfig):
    """Sizes of the tower and the head."""

    noise_dim: int = 64
    """N: numbers of Gaussian noise that one concept is drawn from"""
    head_layers: int = 3
    """of the generator, each with a feed-forward as wide as the tower's"""


class _HeadLayer(nn.Module):
    def __init__(self, dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(dim, eps=NORM_EPS)
        self.mix = nn.Linear(2 * dim, dim, bias=False)
        self.ffn = SwiGlu(dim, ffn_dim)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        out: Tensor = x + self.ffn(self.mix(torch.cat([self.norm(x), hidden], dim=-1)))
        return out


class OneStep(Tower):
    """Tower and generator."""

    config: OneStepConfig

    def __init__(self, config: OneStepConfig) -> None:
        super().__init__(config)
        self.noise_proj = nn.Linear(config.noise_dim, config.dim)
        self.head = nn.ModuleDict(
            {"layers": nn.ModuleList(_HeadLayer(config.dim, config.ffn_dim) for _ in range(config.head_layers))}
        )
        self.head_norm = nn.RMSNorm(config.dim, eps=NORM_EPS)
        self.postnet = nn.Linear(config.dim, config.concept_dim)
        nn.init.normal_(self.postnet.weight, std=0.02)
        nn.init.zeros_(self.postnet.bias)

    def predicted(self, x: Tensor, asked: Turns, noise: Tensor) -> Tensor:
        """The tower's output [..., D] and noise [..., N] → normalised concepts [..., C], float32."""
        hidden = self.norm(x) + self.asked(asked)
        x = self.noise_proj(noise.to(hidden.dtype)).to(hidden.dtype)
        for layer in self.head["layers"]:  # type: ignore[attr-defined]
            x = layer(x, hidden.expand_as(x))
        concept: Tensor = self.postnet(self.head_norm(x)).float()
        return concept

    def drawer(self, sampling: Sampling, maps: Maps | None = None) -> "OneStepDrawer":
        """One pass; the temperature scales the noise."""
        return OneStepDrawer(self, sampling.temperature)


@dataclass(frozen=True, slots=True)
class OneStepDrawer:
    """One pass."""

    model: OneStep
    temperature: float

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """What the head is given."""
        return (self.model.config.noise_dim,)

    def __call__(self, asked: Turns, state: LcmState, noise: Tensor) -> Tensor:
        """[B, C]."""
        assert state.hidden is not None  # something was read
        return self.model.normalizer.inverse(self.model.predicted(state.hidden, asked, self.temperature * noise))
