"""Variants: every Large Concept Model by the name it has in a bundle. The registry is one dict."""

from dataclasses import dataclass, replace
from typing import Any

from configs.loader import load_config, packaged_config
from lcm.models.base_lcm import BaseLcm, BaseLcmConfig
from lcm.models.one_step import OneStep, OneStepConfig
from lcm.models.one_tower import OneTower, OneTowerConfig
from lcm.models.planning import Planning, PlanningConfig
from lcm.models.quantized import Quantized, QuantizedConfig
from lcm.models.sampler import Sampling
from lcm.models.tower import Tower, TowerConfig
from lcm.models.two_tower import TwoTower, TwoTowerConfig

_OF_THE_PAPER = Sampling()
_BY_LOT = Sampling(temperature=1.0)  # what was trained with noise, drawn with as much
_OF_ENTRIES = Sampling(temperature=1.0, guidance=2.0)
_IN_FEW_STEPS = Sampling(steps=4, guidance=1.0, epsilon_scaling=1.0)  # the student has learnt the guidance


@dataclass(frozen=True, slots=True)
class Variant:
    """What a name stands for."""

    model: type[Tower]
    config: type[TowerConfig]
    sampling: Sampling = _OF_THE_PAPER
    """how it is drawn from where neither a configuration nor a bundle says otherwise"""


VARIANTS: dict[str, Variant] = {
    "base": Variant(BaseLcm, BaseLcmConfig),
    "base_mse": Variant(BaseLcm, BaseLcmConfig),
    "base_ce": Variant(BaseLcm, BaseLcmConfig),
    "one_step": Variant(OneStep, OneStepConfig, _BY_LOT),
    "one_tower": Variant(OneTower, OneTowerConfig),
    "planning": Variant(Planning, PlanningConfig),
    "quant_c": Variant(Quantized, QuantizedConfig, _OF_ENTRIES),
    "quant_d": Variant(Quantized, QuantizedConfig, _OF_ENTRIES),
    "two_tower": Variant(TwoTower, TwoTowerConfig),
    "two_tower_few": Variant(TwoTower, TwoTowerConfig, _IN_FEW_STEPS),
}


def built(variant: str, config: dict[str, Any]) -> tuple[Tower, Sampling]:
    """An untrained model of a variant and how it is sampled, from what a bundle says of it.

    Raises:
        TypeError, ValueError: settings that this code does not know.
    """
    settings, kind = dict(config), VARIANTS[variant]
    sampling = replace(kind.sampling, **settings.pop("sampling", {}))
    return kind.model(kind.config(**settings)), sampling


@dataclass(frozen=True, slots=True)
class _Published:
    base: BaseLcmConfig | None = None
    one_tower: OneTowerConfig | None = None
    quantized: QuantizedConfig | None = None
    two_tower: TwoTowerConfig | None = None


def published(name: str) -> TowerConfig:
    """Sizes of a model in a paper, by the name of a file in `configs/models`, such as `two_tower_1_6b`.

    Raises:
        ConfigError: there is no such file.
    """
    read = load_config(packaged_config(f"models/{name}.yaml"), _Published)
    found = read.base or read.one_tower or read.quantized or read.two_tower
    assert found is not None  # the files are ours
    return found
