"""Variants by name, and Meta's sizes: as many parameters as its public code builds."""

from dataclasses import replace

import pytest
import torch

from configs.loader import ConfigError
from lcm.engine import Engine
from lcm.models.base_lcm import BaseLcm, BaseLcmConfig
from lcm.models.sampler import Sampling
from lcm.models.two_tower import TwoTower
from lcm.models.variants import VARIANTS, built, published


@pytest.mark.parametrize(
    ("name", "count"),
    [("base_1_6b", 1_649_185_792), ("two_tower_1_6b", 1_645_538_304), ("two_tower_7b", 6_930_781_696)],
)
def test_published_sizes_have_as_many_parameters_as_metas(name: str, count: int) -> None:
    config = published(name)
    with torch.device("meta"):
        model = BaseLcm(config) if isinstance(config, BaseLcmConfig) else TwoTower(config)
    assert sum(p.numel() for p in model.parameters()) == count


def test_sizes_that_nobody_published_are_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match="two_tower_7b"):
        published("two_tower_8b")


def test_every_variant_is_built_from_what_a_bundle_says() -> None:
    for variant in VARIANTS:
        sizes = {"concept_dim": 8, "dim": 16, "layers": 1, "heads": 2, "ffn_dim": 16}
        model, sampling = built(variant, {**sizes, "sampling": {"steps": 7}})
        assert model.config.concept_dim == 8
        assert sampling == replace(VARIANTS[variant].sampling, steps=7)
        assert Engine(model, variant=variant).sampling == VARIANTS[variant].sampling
    with pytest.raises(TypeError):
        built("base", {"depth": 3})


def test_a_variant_trained_with_noise_is_drawn_with_noise_unless_told_otherwise() -> None:
    assert VARIANTS["one_step"].sampling == Sampling(temperature=1.0)
    _, sampling = built("one_step", {"sampling": {"temperature": 0.0}})
    assert sampling.temperature == 0.0
