"""Quant-LCM: the next concept codebook by codebook, each from the context and the sum of the entries before [LCM §2.4].

A step of the joint tower is a codebook. Quant-d says how probable a codebook's entries are: one softmax for all
codebooks, which learns from the step whose entries are meant. Quant-c says a concept, and entries near what it leaves
over are the likely ones.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcm.models.fast_linear import Maps
from lcm.models.joint_tower import JointDrawer, JointTower, Look, steps_embedding
from lcm.models.quantizer import Quantizer
from lcm.models.sampler import Sampling
from lcm.models.tower import TowerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedConfig(TowerConfig):
    """Sizes of the tower and the codebooks."""

    codebooks: int = 12
    entries: int = 256
    """of each codebook"""
    discrete: bool = True
    """Quant-d; otherwise Quant-c"""


class Quantized(JointTower):
    """Reads, and chooses entries."""

    config: QuantizedConfig

    def __init__(self, config: QuantizedConfig) -> None:
        super().__init__(config, outputs=config.entries if config.discrete else config.concept_dim)
        self.quantizer = Quantizer(config.codebooks, config.entries, config.concept_dim)
        self.step_embed = steps_embedding(config.codebooks)

    @property
    def steps(self) -> nn.Embedding:
        """Codebooks."""
        return self.step_embed

    @property
    def exact(self) -> tuple[nn.Module, ...]:
        """Entries too: they are added up, and what is left over is compared with them."""
        return (*super().exact, self.quantizer)

    def scores(self, x: Tensor, so_far: Tensor, number: int, temperature: float) -> Tensor:
        """Logits [..., K] of the entries of codebook `number`, from the tower's output [..., D] and the sum so far."""
        logits = self.predicted(x)
        if not self.config.discrete:  # softmax(−β ‖c − r̂‖²) [LCM §2.4.2], β = 1 / temperature
            logits = -torch.cdist(logits - so_far, self.quantizer.codebook(number)).square()
        return logits / temperature if temperature > 0 else logits

    def drawer(self, sampling: Sampling, maps: Maps | None = None) -> JointDrawer:
        """Codebook after codebook; from one number for each entry, or from none where the likeliest is taken."""
        config = self.config
        noise_shape = (config.codebooks, config.entries) if sampling.temperature > 0 else (0,)
        return JointDrawer.of(self, maps or Maps(), noise_shape, EntryChain(self, sampling))


@dataclass(frozen=True, slots=True)
class EntryChain:
    """Chooses an entry of each codebook."""

    model: Quantized
    sampling: Sampling

    def __call__(self, noise: Tensor, told: Tensor, look: Look) -> Tensor:
        """Entries of all codebooks, added up: normalised concepts [B, C]."""
        so_far = torch.zeros(len(noise), self.model.config.concept_dim, device=noise.device)
        for number in range(self.model.config.codebooks):
            logits = self._logits(number, so_far, told, look)
            of_book = noise[:, number] if self.sampling.temperature > 0 else None
            so_far = so_far + self.model.quantizer.codebook(number)[chosen(logits, of_book, self.sampling.top_k)]
        return so_far

    def _logits(self, number: int, so_far: Tensor, told: Tensor, look: Look) -> Tensor:
        sampling = self.sampling
        token = self.model.token(so_far, torch.full((len(so_far),), number, device=so_far.device), told)
        if sampling.guidance == 1.0:
            return self.model.scores(look(token), so_far, number, sampling.temperature)
        x = look(token.repeat(2, 1))
        scores = self.model.scores(x, so_far.repeat(2, 1), number, sampling.temperature)
        given, free = scores.log_softmax(dim=-1).chunk(2)
        return free + sampling.guidance * (given - free)


def chosen(logits: Tensor, noise: Tensor | None, top_k: int) -> Tensor:
    """Entries [B] drawn from the softmax of logits [B, K] by Gaussian noise [B, K]; without it the likeliest.

    `top_k`: how many of them may be drawn; 0: all.
    """
    if noise is None:
        return logits.argmax(dim=-1)
    if top_k:
        least = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    uniform = torch.special.ndtr(noise).clamp(1e-7, 1 - 1e-7)
    return (logits - (-uniform.log()).log()).argmax(dim=-1)  # the Gumbel trick: a draw from the softmax
