"""Trainings of every Large Concept Model at sizes that learn in seconds."""

from itertools import islice
from typing import Any

from torch import Tensor

from lcm.engine import Sampling
from lcm.models.base_lcm import BaseLcmConfig
from lcm.models.one_step import OneStepConfig
from lcm.models.one_tower import OneTowerConfig
from lcm.models.planning import PlanningConfig
from lcm.models.quantized import QuantizedConfig
from lcm.models.two_tower import TwoTowerConfig
from lcm.training.lcm_trainer import LcmTrainer
from lcm.training.lcm_variants import (
    BaseTraining,
    OneStepTraining,
    OneTowerTraining,
    PlanningTraining,
    QuantizedTraining,
    TwoTowerTraining,
    VariantTraining,
)
from lcm.training.packing import PackedRows

RUN: dict[str, Any] = {
    "row": 20, "rows_a_step": 4, "epochs": 3, "lr": 3e-3, "negatives": 8, "warmup_steps": 5, "evaluate_items": 20,
}  # fmt: skip
LONG: dict[str, Any] = {"epochs": 3, "repeats": {"taskmaster4": 10, "book": 10}}
"""thirty readings, and three evaluations"""
BASE = BaseTraining(**RUN, model=BaseLcmConfig(dim=32, layers=1, heads=2, ffn_dim=48, context=8, key_dim=8))
TWO_TOWER = TwoTowerTraining(
    **RUN, model=TwoTowerConfig(dim=32, layers=1, denoiser_layers=2, heads=2, ffn_dim=48, context=8)
)
ONE_TOWER = OneTowerTraining(**RUN, model=OneTowerConfig(dim=32, layers=2, heads=2, ffn_dim=48, context=8))
ONE_STEP = OneStepTraining(**RUN, model=OneStepConfig(dim=32, layers=1, heads=2, ffn_dim=48, context=8, noise_dim=4))
QUANT: dict[str, Any] = {"dim": 32, "layers": 2, "heads": 2, "ffn_dim": 48, "context": 8, "codebooks": 3, "entries": 8}
QUANT_D = QuantizedTraining(**RUN, model=QuantizedConfig(**QUANT), sampling=Sampling(guidance=1.0))
QUANT_C = QuantizedTraining(**RUN, model=QuantizedConfig(**QUANT, discrete=False), sampling=Sampling(guidance=1.0))
PLANNING = PlanningTraining(**RUN, model=PlanningConfig(dim=32, layers=2, heads=2, ffn_dim=48, context=8))
EVERY = [BASE, ONE_TOWER, PLANNING, TWO_TOWER, ONE_STEP, QUANT_D, QUANT_C]


def named(config: VariantTraining) -> str:
    """What pytest calls it."""
    return config.variant


def steps(trainer: LcmTrainer, count: int) -> None:
    """Train for so many."""
    for _ in islice(trainer.train(), count):
        pass


def noted_steps(trainer: LcmTrainer) -> list[dict[str, float]]:
    """The terms of each step that it goes on to train."""
    terms: list[dict[str, float]] = []
    step = trainer.train_step

    def noted(rows: PackedRows, progress: float) -> dict[str, Tensor]:
        metrics = step(rows, progress)
        terms.append({name: float(value) for name, value in metrics.items()})
        return metrics

    trainer.train_step = noted  # type: ignore[method-assign]
    return terms
