"""Sampling: a model that undoes noise and a draw of noise in, a concept out. Knows nothing of the model's insides.

DDIM without added noise [Song et al. 2021, eq. 12], predicting x_0; classifier-free guidance on the noise, rescaled
[Lin et al. 2024, algorithm 2]; the predicted noise scaled down [Ning et al. 2024]; guidance left out at the last
timestep, where the noise says nothing yet [LCM §2.3.2].
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lcm.models.schedule import NoiseSchedule, trailing


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a concept is drawn; a variant reads what concerns it. The defaults are the paper's [LCM §2.3.4]."""

    steps: int = 40
    """of denoising"""
    guidance: float = 3.0
    """1: none"""
    guidance_rescale: float = 0.7
    """share of the guided noise that is scaled to the spread of the unguided [Lin et al. 2024, algorithm 2]; 0: none"""
    initial_noise: float = 0.6
    """where the chain begins: standard deviations of Gaussian noise"""
    epsilon_scaling: float = 1.00045
    """what the predicted noise is divided by [Ning et al. 2024]; 1: nothing"""
    clip: float = 100.0
    """no number of a noisy concept, normalised, is further from 0"""
    temperature: float = 0.0
    """of Base: Gaussian noise, in standard deviations; of One-step: what its noise is multiplied with, 0 for always the
    same; of the quantised ones: of the softmax, 0 for the likeliest"""
    top_k: int = 0
    """of the quantised ones: how many entries of a codebook may be drawn; 0: all"""

    def __post_init__(self) -> None:
        for name in ("steps", "initial_noise", "epsilon_scaling", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("guidance", "temperature", "top_k"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if not 0 <= self.guidance_rescale <= 1:
            raise ValueError(f"guidance_rescale must be from 0 to 1, not {self.guidance_rescale}")


Denoise = Callable[[int, Tensor, bool], tuple[Tensor, Tensor | None]]
"""(number of the step, x_t [B, C], whether to guide) → x_0 [B, C] given the context, and [B, C] without it if asked"""


@dataclass(frozen=True, slots=True)
class DenoisingPlan:
    """The times of one chain and what is kept of the concept at each: made once, so that the loop never asks for it."""

    times: tuple[int, ...]
    signal: tuple[float, ...]  # √ᾱ_t, one a step
    noise: tuple[float, ...]  # √(1 − ᾱ_t)
    next_signal: tuple[float, ...]
    next_noise: tuple[float, ...]

    @classmethod
    def of(cls, schedule: NoiseSchedule, steps: int) -> "DenoisingPlan":
        """For `steps` steps, evenly spaced from the last one down."""
        alphas_cumprod, times = schedule.alphas_cumprod(), trailing(steps, schedule.steps)
        here = alphas_cumprod[times]
        after = torch.cat([alphas_cumprod[times[1:]], torch.ones(1)])
        roots = [r.sqrt().tolist() for r in (here, 1 - here, after, 1 - after)]
        return cls(tuple(times), *(tuple(r) for r in roots))


def denoise(model: Denoise, plan: DenoisingPlan, noise: Tensor, sampling: Sampling) -> Tensor:
    """Normalised concepts [B, C] from Gaussian `noise` [B, C]; nothing in the loop waits for the device."""
    x = (noise * sampling.initial_noise).clamp(-sampling.clip, sampling.clip)
    predicted = x
    for step in range(len(plan.times)):
        signal, level = plan.signal[step], plan.noise[step]
        guided = sampling.guidance != 1.0 and signal > 0
        predicted, free = model(step, x, guided)
        epsilon = (x - signal * predicted) / level
        if free is not None:
            epsilon = _guided(epsilon, (x - signal * free) / level, sampling)
            predicted = (x - level * epsilon) / signal
        scaled = epsilon / sampling.epsilon_scaling
        x = plan.next_signal[step] * predicted + plan.next_noise[step] * scaled
        x = x.clamp(-sampling.clip, sampling.clip)
    return predicted


def _guided(given: Tensor, free: Tensor, sampling: Sampling) -> Tensor:
    """Noise predicted with the context and without it → noise that the context counts more in."""
    guided = free + sampling.guidance * (given - free)
    factor = given.std(dim=-1, keepdim=True) / guided.std(dim=-1, keepdim=True)
    return guided * (sampling.guidance_rescale * factor + (1 - sampling.guidance_rescale))
