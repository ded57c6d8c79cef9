"""Objective of the Base-LCM: the mean of what comes next, and its direction among others'.

MSE of the normalised concept [LCM §2.3.1]; InfoNCE of the predicted direction, and of the query where the model has
one, against the batch's own targets and a bank of training replies.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.loader import Settings
from lcm.models.base_lcm import BaseLcm
from lcm.models.tower import Tower
from lcm.models.turns import ROLE_NARRATOR, Turns
from lcm.training.bounds import NotNegative, Positive
from lcm.training.objective import Batch, heard, squares, stop_loss
from lcm.training.packing import PADDING


class Regression(Settings):
    """Weights of the terms."""

    distance_weight: NotNegative = 1.0
    contrast_weight: NotNegative = 1.0
    stop_weight: NotNegative = 0.1
    key_weight: NotNegative = 1.0
    """of a model with queries and keys"""
    temperature: Positive = 0.05
    """of the direction's InfoNCE, and of the keys'"""
    input_noise: NotNegative = 0.3


@dataclass(frozen=True, slots=True)
class RegressionObjective:
    """Distance, contrast, stop."""

    settings: Regression

    def __call__(self, model: Tower, batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss."""
        assert isinstance(model, BaseLcm)
        settings, known = self.settings, batch.known
        rows = batch.rows.rows(batch.mine)
        x = model(heard(model, batch, settings.input_noise), rows.turns, rows.mask(model.config.context))
        predicted = model.predicted(x, rows.asked)[known]
        targets = batch.targets[batch.mine][known]
        terms = {
            "distance": batch.mean(squares(model, predicted, targets)),
            "contrast": self._contrast(model.normalizer.inverse(predicted), batch),
            "keys": self._keys(model, x, batch),
            "stop": stop_loss(model, batch, x),
        }
        weights = (settings.distance_weight, settings.contrast_weight, settings.key_weight, settings.stop_weight)
        terms["loss"] = sum((w * t for w, t in zip(weights, terms.values(), strict=True)), x.new_zeros(()))
        return terms

    def _contrast(self, predicted: Tensor, batch: Batch) -> Tensor:
        if self.settings.contrast_weight == 0:
            return predicted.new_zeros(())
        return batch.mean(contrast(predicted, batch, self.settings.temperature))

    def _keys(self, model: BaseLcm, x: Tensor, batch: Batch) -> Tensor:
        if not model.config.key_dim or self.settings.key_weight == 0:
            return x.new_zeros((), dtype=torch.float32)
        asked, known = batch.rows.rows(batch.mine).asked, batch.known
        queries = model.queries(x[known], Turns(asked.roles[known], asked.places[known]))
        return batch.mean(
            contrast(queries, batch, self.settings.temperature, lambda c: model.keys(model.normalizer(c)))
        )


def contrast(
    predicted: Tensor, batch: Batch, temperature: float, keyed: Callable[[Tensor], Tensor] = lambda c: c
) -> Tensor:
    """InfoNCE [M] of my predictions [M, C] among all targets of the batch and the negatives.

    `keyed` maps their concepts [N, C] to where the predictions lie, if these are no concepts.
    """
    every = batch.rows.known
    keys = torch.cat([batch.rows.targets[every], batch.negatives])
    concepts = torch.cat([batch.targets[every], batch.negative_concepts])
    mine = torch.zeros_like(every)
    mine[batch.mine] = every[batch.mine]
    # What follows in a story has to be told from its other sentences.
    dialogues = batch.rows.pieces.masked_fill(batch.rows.turns.roles == ROLE_NARRATOR, PADDING)
    logits, wanted = contrast_logits(predicted, (keys, concepts), dialogues[every], mine[every], keyed)
    return F.cross_entropy(logits / temperature, wanted, reduction="none")


def contrast_logits(
    predicted: Tensor,
    keys: tuple[Tensor, Tensor],
    pieces: Tensor,
    mine: Tensor,
    keyed: Callable[[Tensor], Tensor] = lambda c: c,
) -> tuple[Tensor, Tensor]:
    """Cosines [M, K] of predictions [M, C] to every distinct sentence, and the right one [M].

    `keys` are rows [N + K] and concepts of all targets of the batch and of negatives; `pieces` [N] tells which piece of
    a dialogue each target is of, if any, and `mine` [N] which of them the predictions are for. Other sentences of one's
    own piece count as neither right nor wrong: as wrong ones they would teach the prediction to stay away from its
    subject.
    """
    rows, concepts = keys
    _, place = rows.unique(return_inverse=True)
    count = int(place.max()) + 1
    first = torch.full((count,), len(rows), device=rows.device)
    first = first.scatter_reduce(0, place, torch.arange(len(rows), device=rows.device), "amin")
    with torch.autocast(predicted.device.type, dtype=torch.bfloat16):
        logits = (F.normalize(predicted, dim=1) @ F.normalize(keyed(concepts[first]), dim=1).T).float()
    of_targets = place[: len(pieces)]
    wanted = of_targets[mine]
    beside = torch.zeros(int(pieces.max()) + 2, count, dtype=torch.bool, device=rows.device)
    beside[pieces, of_targets] = True
    beside[PADDING] = False  # the last row: of no dialogue
    ignored = beside[pieces[mine]]
    ignored[torch.arange(len(predicted), device=rows.device), wanted] = False
    return logits.masked_fill(ignored, float("-inf")), wanted
