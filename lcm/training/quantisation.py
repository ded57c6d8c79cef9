"""Objective of the Quant-LCMs: the next codebook's entry out of the sum of those before and the context [LCM §2.4].

Quant-d: cross-entropy of the entry. Quant-c: MSE of the normalised concept. In a share of the places the context is
hidden, so that the model can be guided.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.loader import Settings
from lcm.models.quantized import Quantized
from lcm.models.tower import Tower
from lcm.training.bounds import NotNegative, Share
from lcm.training.objective import Batch, read_rows, squares, stop_loss


class Quantisation(Settings):
    """What is learnt, and where from."""

    free_share: Share = 0.15
    """of the places, which see no context"""
    stop_weight: NotNegative = 0.1
    input_noise: NotNegative = 0.3


@dataclass(frozen=True, slots=True)
class QuantisationObjective:
    """Entries (or distance) and stop."""

    settings: Quantisation

    def __call__(self, model: Tower, batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss."""
        assert isinstance(model, Quantized)
        settings, known, books = self.settings, batch.known, model.config.codebooks
        read = read_rows(model, batch, settings.input_noise)
        targets = batch.targets[batch.mine]
        shape = targets.shape[:2]
        steps = (batch.uniform(shape[1]) * books).long()
        free = batch.uniform(shape[1]) < settings.free_share
        with torch.no_grad():
            codes = model.quantizer(model.normalizer(targets).flatten(0, 1))
            so_far = model.quantizer.sums(codes, steps.flatten()).view(targets.shape)
        wanted = codes.gather(1, steps.flatten()[:, None]).view(shape)
        x, out = model.refined(read, so_far, steps, free)
        if model.config.discrete:
            wrong = F.cross_entropy(out[known], wanted[known], reduction="none")
        else:
            wrong = squares(model, out[known], targets[known])
        terms = {
            "entries" if model.config.discrete else "distance": batch.mean(wrong),
            "stop": stop_loss(model, batch, x),
        }
        terms["loss"] = batch.mean(wrong) + settings.stop_weight * terms["stop"]
        return terms
