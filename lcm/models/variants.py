"""Variants: every Large Concept Model by the name it has in a bundle. The registry is one dict."""

from dataclasses import dataclass
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

VARIANTS: dict[str, tuple[type[Tower], type[TowerConfig]]] = {
    "base": (BaseLcm, BaseLcmConfig),
    "base_mse": (BaseLcm, BaseLcmConfig),
    "base_ce": (BaseLcm, BaseLcmConfig),
    "one_step": (OneStep, OneStepConfig),
    "one_tower": (OneTower, OneTowerConfig),
    "planning": (Planning, PlanningConfig),
    "quant_c": (Quantized, QuantizedConfig),
    "quant_d": (Quantized, QuantizedConfig),
    "two_tower": (TwoTower, TwoTowerConfig),
    "two_tower_few": (TwoTower, TwoTowerConfig),
}


def built(variant: str, config: dict[str, Any]) -> tuple[Tower, Sampling]:
    """An untrained model of a variant and how it is sampled, from what a bundle says of it.

    Raises:
        TypeError, ValueError: settings that this code does not know.
    """
    settings = dict(config)
    sampling = Sampling(**settings.pop("sampling", {}))
    model, sizes = VARIANTS[variant]
    return model(sizes(**settings)), sampling


@dataclass(frozen=True, slots=True)
class _Published:
    base: BaseLcmConfig | None = None
    two_tower: TwoTowerConfig | None = None


def published(name: str) -> BaseLcmConfig | TwoTowerConfig:
    """Sizes that somebody published, by the name of a file in `configs/models`, such as `two_tower_1_6b`.

    Raises:
        ConfigError: there is no such file.
    """
    read = load_config(packaged_config(f"models/{name}.yaml"), _Published)
    found = read.base or read.two_tower
    assert found is not None  # the files are ours
    return found
