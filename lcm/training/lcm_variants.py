"""How each Large Concept Model is trained: sizes and objective of every variant, as configuration files name them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lcm.bundle import Bundle
from lcm.errors import TrainingDataError
from lcm.models.base_lcm import BaseLcmConfig
from lcm.models.normalizer import Normalizer
from lcm.models.one_step import OneStepConfig
from lcm.models.one_tower import OneTowerConfig
from lcm.models.planning import Planning, PlanningConfig
from lcm.models.quantized import Quantized, QuantizedConfig
from lcm.models.quantizer import Quantizer
from lcm.models.tower import Tower
from lcm.models.two_tower import TwoTower, TwoTowerConfig
from lcm.models.variants import VARIANTS
from lcm.training.checkpoints import part_of, read_tensors
from lcm.training.concepts import ConceptTable
from lcm.training.decoded_loss import DecodedLoss, DecodedObjective, Speaker
from lcm.training.diffusion import Diffusion, DiffusionObjective
from lcm.training.distillation import Distillation, DistillationObjective
from lcm.training.energy import Energy, EnergyObjective
from lcm.training.lcm_trainer import LcmTrainer, LcmTraining
from lcm.training.objective import Objective
from lcm.training.plans import PlannedTable
from lcm.training.quantisation import Quantisation, QuantisationObjective
from lcm.training.regression import Regression, RegressionObjective

FITTED_TO = 50_000
"""Concepts"""


@dataclass(frozen=True, slots=True)
class Around:
    """What a training may need beside its settings."""

    table: ConceptTable
    device: torch.device
    bundle: str | Path | None
    initial_run: Path | None

    def bundle_open(self) -> Bundle:
        """The bundle that teaches."""
        if self.bundle is None:
            raise TrainingDataError("this learns from a bundle's decoder; give --bundle")
        return Bundle.open(self.bundle)

    def initial(self) -> dict[str, Tensor]:
        """The averaged weights of the run to begin from."""
        saved = read_tensors(self.initial_run) if self.initial_run else None
        if saved is None:
            raise TrainingDataError(f"there is no trained model in {self.initial_run}; train it first")
        return part_of(saved[0], "average")


class BaseTraining(LcmTraining):
    """Base-LCM."""

    variant: Literal["base", "base_mse"] = "base"
    model: BaseLcmConfig = BaseLcmConfig()
    objective: Regression = Regression()

    def learnt(self, around: Around) -> Objective:
        """What it learns."""
        return RegressionObjective(self.objective)


class DecodedTraining(LcmTraining):
    """Base-LCM taught by the frozen decoder."""

    variant: Literal["base_ce"] = "base_ce"
    model: BaseLcmConfig = BaseLcmConfig()
    objective: DecodedLoss = DecodedLoss()

    def learnt(self, around: Around) -> Objective:
        """What it learns."""
        return DecodedObjective(self.objective, Speaker.of(around.bundle_open(), around.table.texts(), around.device))


class OneTowerTraining(LcmTraining):
    """One-Tower diffusion."""

    variant: Literal["one_tower"] = "one_tower"
    model: OneTowerConfig = OneTowerConfig()
    objective: Diffusion = Diffusion()

    def learnt(self, around: Around) -> Objective:
        """What it learns."""
        return DiffusionObjective(self.objective, self.model.noise_schedule())


class PlanningTraining(LcmTraining):
    """One-Tower that plans paragraphs."""

    variant: Literal["planning"] = "planning"
    model: PlanningConfig = PlanningConfig()
    objective: Diffusion = Diffusion()

    def learnt(self, around: Around) -> Objective:
        """What it learns."""
        return DiffusionObjective(self.objective, self.model.noise_schedule())


class TwoTowerTraining(LcmTraining):
    """Two-Tower diffusion."""

    variant: Literal["two_tower"] = "two_tower"
    model: TwoTowerConfig = TwoTowerConfig()
    objective: Diffusion = Diffusion()

    def learnt(self, around: Around) -> Objective:
        """What it learns."""
        return DiffusionObjective(self.objective, self.model.noise_schedule())


class DistilledTraining(LcmTraining):
    """Two-Tower of few steps, taught by the one of many that `initial` names."""

    variant: Literal["two_tower_few"] = "two_tower_few"
    model: TwoTowerConfig = TwoTowerConfig()
    objective: Distillation = Distillation()

    def learnt(self, around: Around) -> Objective:
        """What it learns."""
        teacher = TwoTower(replace(self.model, concept_dim=around.table.concepts.shape[1]))
        teacher.load_state_dict(around.initial())
        return DistillationObjective.of(self.objective, teacher.to(around.device))


class OneStepTraining(LcmTraining):
    """One-step stochastic head."""

    variant: Literal["one_step"] = "one_step"
    model: OneStepConfig = OneStepConfig()
    objective: Energy = Energy()

    def learnt(self, around: Around) -> Objective:
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

    def learnt(self, around: Around) -> Objective:
        """What it learns."""
        return QuantisationObjective(self.objective)


VariantTraining = (
    BaseTraining | DecodedTraining | OneTowerTraining | PlanningTraining | TwoTowerTraining | DistilledTraining
    | OneStepTraining | QuantizedTraining
)  # fmt: skip


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
    bundle: str | Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> LcmTrainer:
    """The trainer of a variant, resumed if its folder holds a checkpoint.

    Args:
        config: what to train.
        table: the concepts to learn from.
        run: the run's folder; the run that `initial` names lies beside it.
        device: where.
        bundle: whose decoder teaches, where one does.
        report: told of what takes a while.

    Raises:
        TrainingDataError: as `LcmTrainer`; also where there is no run to begin from, or no bundle to be taught by.
    """
    torch.manual_seed(config.seed)
    sizes = replace(config.model, concept_dim=table.concepts.shape[1])
    model = VARIANTS[config.variant][0](sizes)
    around = Around(table, torch.device(device), bundle, run.parent / config.initial if config.initial else None)
    if read_tensors(run) is None:
        if config.initial:
            begin_with(model, around)
        else:
            fit(model, table, report)
    learnt_from = PlannedTable(table, model.normalizer.centre.clone()) if isinstance(model, Planning) else table
    return LcmTrainer(config.variant, model, config.learnt(around), config, learnt_from, run, device)


def begin_with(model: Tower, around: Around) -> None:
    """Begin with the averaged weights of the run that `initial` names."""
    try:
        model.load_state_dict(around.initial())
    except RuntimeError as error:
        raise TrainingDataError(
            f"the run {around.initial_run} is of another model; give both the same sizes, or train it anew"
        ) from error
