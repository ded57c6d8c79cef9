"""Objective of the one-step head: energy score of its samples [CALM §3.2, eq. 7].

E‖x − y‖ − ½ E‖x − x′‖ over the model's samples x, x′ and the truth y: least in expectation where the samples are
distributed as the truth is. Proper without likelihoods. CALM has its autoencoder draw a hundred truths for each place;
a concept comes with one, and the batch takes the mean over many.
"""

from dataclasses import dataclass
from typing import cast

import torch
from pydantic import Field
from torch import Tensor

from configs.loader import Settings
from lcm.models.one_step import OneStep
from lcm.models.tower import Tower
from lcm.models.turns import Turns
from lcm.training.bounds import NotNegative
from lcm.training.objective import Batch, heard, stop_loss


class Energy(Settings):
    """How the score is estimated."""

    samples: int = Field(default=8, ge=2)
    """of the model, for each concept; of one alone there is no distance to another"""
    stop_weight: NotNegative = 0.1
    input_noise: NotNegative = 0.3


@dataclass(frozen=True, slots=True)
class EnergyObjective:
    """Energy and stop."""

    settings: Energy

    def __call__(self, model: Tower, batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss."""
        one_step, settings, known = cast(OneStep, model), self.settings, batch.known
        rows = batch.rows.rows(batch.mine)
        whole = batch.targets.new_empty(settings.samples, *batch.targets.shape[:2], one_step.config.noise_dim)
        read = heard(model, batch, settings.input_noise)
        # Drawn before the model's dropout, which draws more where there are more rows.
        noise = batch.noise_like(whole.transpose(0, 1)).transpose(0, 1)[:, known]
        x = model(read, rows.turns, rows.mask(model.config.context))
        truths = model.normalizer(batch.targets[batch.mine][known])
        asked = Turns(rows.asked.roles[known], rows.asked.places[known])
        samples = one_step.predicted(x[known], asked, noise)  # [S, M, C]
        energy = energy_score(samples, truths)
        distance = (samples.mean(dim=0) - truths).square().mean(dim=1)
        terms = {"energy": batch.mean(energy), "distance": batch.mean(distance), "stop": stop_loss(model, batch, x)}
        terms["loss"] = terms["energy"] + settings.stop_weight * terms["stop"]
        return terms


def energy_score(samples: Tensor, truths: Tensor) -> Tensor:
    """[S, M, C] samples and [M, C] truths → [M], in units of √C: a dimension's worth."""
    root = samples.shape[-1] ** 0.5
    to_truth = (samples - truths).norm(dim=-1).mean(dim=0)
    apart = torch.cdist(samples.transpose(0, 1), samples.transpose(0, 1))  # [M, S, S]
    count = len(samples)
    between = apart.sum(dim=(1, 2)) / (count * (count - 1))
    score: Tensor = (to_truth - between / 2) / root
    return score
