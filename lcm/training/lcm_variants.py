"""How each Large Concept Model is trained: sizes and objective of every variant, as configuration files name them."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from lcm.models.base_lcm import BaseLcmConfig
from lcm.models.two_tower import TwoTowerConfig
from lcm.models.variants import VARIANTS
from lcm.training.concepts import ConceptTable
from lcm.training.diffusion import Diffusion, DiffusionObjective
from lcm.training.lcm_trainer import LcmTrainer, LcmTraining
from lcm.training.objective import Objective
from lcm.training.regression import Regression, RegressionObjective


class BaseTraining(LcmTraining):
    """Base-LCM."""

    variant: Literal["base", "base_mse"] = "base"
    model: BaseLcmConfig = BaseLcmConfig()
    objective: Regression = Regression()

    def learnt(self) -> Objective:
        """What it learns."""
        return RegressionObjective(self.objective)


class TwoTowerTraining(LcmTraining):
    """Two-Tower diffusion."""

    variant: Literal["two_tower"] = "two_tower"
    model: TwoTowerConfig = TwoTowerConfig()
    objective: Diffusion = Diffusion()

    def learnt(self) -> Objective:
        """What it learns."""
        return DiffusionObjective(self.objective, self.model.noise_schedule())


VariantTraining = BaseTraining | TwoTowerTraining


def lcm_trainer(config: VariantTraining, table: ConceptTable, run: Path, device: str = "cpu") -> LcmTrainer:
    """The trainer of a variant, resumed if its folder holds a checkpoint.

    Raises:
        TrainingDataError: as `LcmTrainer`.
    """
    torch.manual_seed(config.seed)
    sizes = replace(config.model, concept_dim=table.concepts.shape[1])
    model = VARIANTS[config.variant][0](sizes)
    return LcmTrainer(config.variant, model, config.learnt(), config, table, run, device)
