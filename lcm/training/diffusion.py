"""Objective of the diffusion LCMs: the next concept out of its noisy self and the context [LCM §2.3.2].

x_0-prediction: MSE of the normalised concept, weighted by how much the noise level tells. In a share of the places the
context is hidden, so that the model can be guided [Ho & Salimans 2022].
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from configs.loader import Settings
from lcm.models.refining import Refines
from lcm.models.schedule import NoiseSchedule
from lcm.models.tower import Tower
from lcm.training.bounds import NotNegative, Positive, Share
from lcm.training.objective import Batch, read_rows, squares, stop_loss


class Diffusion(Settings):
    """What is learnt, and where from."""

    free_share: Share = 0.15
    """of the places, which see no context"""
    weighting: Literal["one", "clamped_snr", "fragility"] = "one"
    most_snr: Positive = 5.0
    """where the signal-to-noise ratio is clamped"""
    stop_weight: NotNegative = 0.1
    input_noise: NotNegative = 0.3


@dataclass(frozen=True, slots=True)
class DiffusionObjective:
    """Distance and stop."""

    settings: Diffusion
    schedule: NoiseSchedule
    importance: Tensor | None = None
    """[N] of each row of the concept table, where the weighting goes by fragility"""

    def __call__(self, model: Tower, batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss."""
        settings, known = self.settings, batch.known
        rows = batch.rows.rows(batch.mine)
        read = read_rows(model, batch, settings.input_noise)
        targets = batch.targets[batch.mine]
        alphas_cumprod = self.schedule.alphas_cumprod().to(targets.device)
        length = known.shape[1]
        times = (batch.uniform(length) * self.schedule.steps).long()
        signal = alphas_cumprod[times][..., None]
        noisy = signal.sqrt() * model.normalizer(targets) + (1 - signal).sqrt() * batch.noise_like(batch.targets)
        free = batch.uniform(length) < settings.free_share
        x, predicted = cast(Refines, model).refined(read, noisy, times, free)
        wrong = squares(model, predicted[known], targets[known])
        distance = batch.mean(wrong * self._weights(times[known], rows.targets[known]))
        terms = {"distance": distance, "stop": stop_loss(model, batch, x)}
        terms["loss"] = terms["distance"] + settings.stop_weight * terms["stop"]
        return terms

    def _weights(self, times: Tensor, sentences: Tensor) -> Tensor:
        """[M] of mean 1, not in a batch but in all of them: a batch falls apart among processes."""
        if self.settings.weighting == "clamped_snr":
            return snr_weights(self.schedule, self.settings.most_snr).to(times.device)[times]
        if self.settings.weighting == "fragility":
            assert self.importance is not None  # whoever sets the weighting measures it first
            return self.importance[sentences]
        return torch.ones(len(times), device=times.device)


def snr_weights(schedule: NoiseSchedule, most: float) -> Tensor:
    """Clamped signal-to-noise ratio of each time over the mean of all: [T] [Hang et al. 2023]."""
    alphas_cumprod = schedule.alphas_cumprod()
    snr = (alphas_cumprod / (1 - alphas_cumprod)).clamp(1e-3, most)
    return snr / snr.mean()


def importance(fragility: Tensor) -> Tensor:
    """σ(−4 F + 3.5) over the mean of the table [N]; 1 where it was not measured [LCM eq. 22]."""
    weight = torch.sigmoid(-4 * fragility + 3.5)
    return (weight / weight.nanmean()).nan_to_num(1.0)
