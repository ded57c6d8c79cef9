"""Noise schedules: how much of a concept is left at each diffusion step. Pure numbers; knows nothing of models.

x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε, t = 0 … T − 1 [LCM §2.3.2]. The schedule is rescaled so that nothing at all is left at
the last step (zero terminal SNR) [Lin et al. 2024, algorithm 1], where generating begins.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Shape = Literal["cosine", "quadratic", "sigmoid"]
_COSINE_OFFSET = 0.008
_MAX_BETA = 0.999
_STEEPEST = 20
_MOST_STEPS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseCurve:
    """Settings of the curves; each reads what concerns it."""

    first_beta: float = 1e-4
    """of the quadratic one, at its first step"""
    last_beta: float = 0.02
    """at its last; both as in [Ho et al. 2020, §4]"""
    slope: float = 1.5
    """γ of the sigmoid one [LCM eq. 14]"""
    offset: float = 0.0
    """δ of the sigmoid one"""

    def __post_init__(self) -> None:
        if not 0 < self.first_beta < self.last_beta < 1:
            raise ValueError(f"betas must rise between 0 and 1, not from {self.first_beta} to {self.last_beta}")
        if not (0 < self.slope <= _STEEPEST and abs(self.offset) <= _STEEPEST):
            raise ValueError(f"slope must be above 0 and at most {_STEEPEST}, offset within ±{_STEEPEST}")


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """Which curve, and how many steps it has."""

    shape: Shape = "cosine"
    steps: int = 100
    """T"""
    curve: NoiseCurve = NoiseCurve()

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise ValueError(f"no noise schedule {self.shape!r}; choose one of: {', '.join(get_args(Shape))}")
        if not 2 <= self.steps <= _MOST_STEPS:
            raise ValueError(f"a noise schedule has 2 to {_MOST_STEPS} steps, not {self.steps}")

    def alphas_cumprod(self) -> Tensor:
        """ᾱ [T] float32, from nearly 1 down to 0."""
        alphas = 1.0 - _zero_terminal_snr(self._betas())
        return alphas.cumprod(dim=0)

    def _betas(self) -> Tensor:
        if self.shape == "quadratic":
            first, last = self.curve.first_beta**0.5, self.curve.last_beta**0.5
            return torch.linspace(first, last, self.steps, dtype=torch.float32) ** 2
        curve = self._cosine if self.shape == "cosine" else self._sigmoid
        ratios = [curve((i + 1) / self.steps) / curve(i / self.steps) for i in range(self.steps)]
        return torch.tensor([min(1 - r, _MAX_BETA) for r in ratios], dtype=torch.float32)

    def _cosine(self, time: float) -> float:  # [Nichol & Dhariwal 2021, eq. 17]
        return math.cos((time + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * math.pi / 2) ** 2

    def _sigmoid(self, time: float) -> float:
        time = min(max(time, 1e-7), 1 - 1e-7)
        return 1 / (1 + math.exp(self.curve.slope * math.log(time / (1 - time)) - self.curve.offset))


def _zero_terminal_snr(betas: Tensor) -> Tensor:
    """Shift and stretch √ᾱ so that it ends at 0 and begins where it did."""
    roots = (1.0 - betas).cumprod(dim=0).sqrt()
    first, last = roots[0].clone(), roots[-1].clone()
    alphas_cumprod = ((roots - last) * (first / (first - last))) ** 2
    return 1 - torch.cat([alphas_cumprod[:1], alphas_cumprod[1:] / alphas_cumprod[:-1]])


def trailing(steps: int, total: int) -> list[int]:
    """`steps` of the times 0 … `total` − 1, evenly spaced from the last one down [Lin et al. 2024, table 2]."""
    if not 1 <= steps <= total:
        raise ValueError(f"denoise in 1 to {total} steps, not {steps}")
    # Rounded, halves up, in whole numbers: floats would put some a step off.
    return [(2 * total * left + steps) // (2 * steps) - 1 for left in range(steps, 0, -1)]
