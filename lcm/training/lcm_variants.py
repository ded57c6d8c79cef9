"""How each Large Concept Model is trained: sizes and objective of every variant, as configuration files name them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from lcm.models.base_lcm import BaseLcmConfig
from lcm.models.normalizer import Normalizer
from lcm.models.one_step import OneStepConfig
from lcm.models.one_tower import OneTowerConfig
from lcm.models.quantized import Quantized, QuantizedConfig
from lcm.models.quantizer import Quantizer
from lcm.models.tower import Tower
from lcm.models.two_tower import TwoTowerConfig
from lcm.models.variants import VARIANTS
from lcm.training.checkpoints import read_tensors
from lcm.training.concepts import ConceptTable
from lcm.training.diffusion import Diffusion, DiffusionObjective
from lcm.training.energy import Energy, EnergyObjective
from lcm.training.lcm_trainer import LcmTrainer, LcmTraining
from lcm.training.objective import Objective
from lcm.training.quantisation import Quantisation, QuantisationObjective
from lcm.training.regression import Regression, RegressionObjective

FITTED_TO = 50_000
"""Concepts"""


class BaseTraining(LcmTraining):
    """Base-LCM."""

    variant: Literal["base", "base_mse"] = "base"
    model: BaseLcmConfig = BaseLcmConfig()
    objective: Regression = Regression()

    def learnt(self) -> Objective:
        """What it learns."""
        return RegressionObjective(self.objective)


class OneTowerTraining(LcmTraining):
    """One-Tower diffusion."""

    variant: Literal["one_tower"] = "one_tower"
    model: OneTowerConfig = OneTowerConfig()
    objective: Diffusion = Diffusion()

    def learnt(self) -> Objective:
        """What it learns."""
        return DiffusionObjective(self.objective, self.model.noise_schedule())


class TwoTowerTraining(LcmTraining):
    """Two-Tower diffusion."""

    variant: Literal["two_tower"] = "two_tower"
    model: TwoTowerConfig = TwoTowerConfig()
    objective: Diffusion = Diffusion()

    def learnt(self) -> Objective:
        """What it learns."""
        return DiffusionObjective(self.objective, self.model.noise_schedule())


class OneStepTraining(LcmTraining):
    """One-step stochastic head."""

    variant: Literal["one_step"] = "one_step"
    model: OneStepConfig = OneStepConfig()
    objective: Energy = Energy()

    def learnt(self) -> Objective:
        """What it learns."""
        return EnergyObjective(self.objective)


class QuantizedTraining(LcmTraining):
    """Quant-d or Quant-c, as `model.discrete` says."""

    model: QuantizedConfig = QuantizedConfig()
    objective: Quantisation = Quantisation()

    @property
    def variant(self) -> str:
        """By what it predicts."""
        return "quant_d" if self.model.discrete else "quant_c"

    def learnt(self) -> Objective:
        """What it learns."""
        return QuantisationObjective(self.objective)


VariantTraining = BaseTraining | OneTowerTraining | TwoTowerTraining | OneStepTraining | QuantizedTraining


def fit(model: Tower, table: ConceptTable, report: Callable[[str], None] = lambda _: None) -> None:
    """Fit what is fitted once, to a sample of the training concepts: normaliser and, where there are any, codebooks."""
    used = np.unique(table.documents("train").sentences)
    sample = np.sort(np.random.default_rng(0).choice(used, min(FITTED_TO, len(used)), replace=False))
    concepts = table.of(sample)
    model.normalizer.load_state_dict(Normalizer.fitted(concepts.numpy()).state_dict())
    if isinstance(model, Quantized):
        config = model.config
        quantizer = Quantizer.fitted(model.normalizer(concepts), config.codebooks, config.entries, report=report)
        model.quantizer.load_state_dict(quantizer.state_dict())


def lcm_trainer(
    config: VariantTraining,
    table: ConceptTable,
    run: Path,
    device: str = "cpu",
    report: Callable[[str], None] = lambda _: None,
) -> LcmTrainer:
    """The trainer of a variant, resumed if its folder holds a checkpoint.

    Raises:
        TrainingDataError: as `LcmTrainer`.
    """
    torch.manual_seed(config.seed)
    sizes = replace(config.model, concept_dim=table.concepts.shape[1])
    model = VARIANTS[config.variant][0](sizes)
    if read_tensors(run) is None:
        fit(model, table, report)
    return LcmTrainer(config.variant, model, config.learnt(), config, table, run, device)
