"""Variants by name, and the sizes of the papers: as many parameters as in Meta's public code, where there is some."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from configs.loader import ConfigError, packaged_config
from lcm.engine import Engine
from lcm.models.quantized import Quantized, QuantizedConfig
from lcm.models.sampler import Sampling
from lcm.models.variants import VARIANTS, built, published
from lcm.space.backend import Precision
from scripts.random_lcm import random_weights

META = {"base_1_6b": 1_649_185_792, "two_tower_1_6b": 1_645_538_304, "two_tower_7b": 6_930_781_696}
"""as its public code builds them"""
OURS = {"one_tower_1_6b": 1_649_323_328, "quant_d_1_6b": 1_664_008_256, "quant_c_1_6b": 1_649_321_024}


@pytest.mark.parametrize(("name", "count"), (META | OURS).items())
def test_published_sizes_have_as_many_parameters_as_they_say(name: str, count: int) -> None:
    config = published(name)
    [model] = {kind.model for kind in VARIANTS.values() if kind.config is type(config)}
    with torch.device("meta"):
        parameters = sum(p.numel() for p in model(config).parameters())
    assert parameters == count
    assert f"{count:,}" in packaged_config(f"models/{name}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["quant_d_1_6b", "quant_c_1_6b"])
def test_quants_codebooks_are_the_papers_and_no_parameters(name: str) -> None:
    config = published(name)
    assert isinstance(config, QuantizedConfig)
    with torch.device("meta"):
        model = Quantized(config)
    assert model.quantizer.entries.shape == (64 * 8192, 1024)
    assert config.discrete == (name == "quant_d_1_6b")
    assert not [name for name, _ in model.named_parameters() if name.startswith("quantizer")]


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


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "int8"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_says_nearly_the_same_with_narrower_weights(variant: str, precision: Precision) -> None:
    sizes = {"concept_dim": 16, "dim": 32, "layers": 1, "heads": 2, "ffn_dim": 32, "context": 6}
    quantised = {"codebooks": 3, "entries": 8, "discrete": variant == "quant_d"}
    settings = sizes | (quantised if variant.startswith("quant") else {})
    weights = random_weights(built(variant, settings)[0])
    torch.manual_seed(0)
    context, roles = torch.randn(5, 16), torch.arange(5) % 2
    said: list[Tensor] = []
    kinds: tuple[Precision, ...] = ("float32", precision)
    for kind in kinds:
        model, _ = built(variant, settings)
        model.load_state_dict(weights)
        said += Engine(model, variant=variant, precision=kind).predict([context], [roles], max_concepts=1)
    exact, narrow = said
    assert narrow.dtype == torch.float32
    assert bool(narrow.isfinite().all())
    assert float((narrow - exact).norm()) < 0.15 * float(exact.norm())


@pytest.mark.parametrize(
    ("variant", "wrong", "says"),
    [
        ("base", {"dim": 36, "heads": 4}, "dim 36 is no multiple of twice the heads, 8"),
        ("base", {"heads": 0}, "heads is 0; give 1 or more"),
        ("base", {"roles": 2}, "roles is 2; give 3 or more"),
        ("planning", {"roles": 3}, "roles is 3; give 5 or more"),
        ("base", {"key_dim": -1}, "key_dim is -1; give 0 or more"),
        ("one_tower", {"layers": 0}, "layers is 0"),
        ("two_tower", {"denoiser_layers": -2}, "denoiser_layers is -2"),
        ("quant_c", {"codebooks": 0}, "codebooks is 0"),
        ("one_step", {"dropout": 1.0}, "dropout is 1.0; give 0 or more, less than 1"),
    ],
)
def test_sizes_that_make_no_model_are_refused(variant: str, wrong: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        built(variant, wrong)


def test_a_variant_trained_with_noise_is_drawn_with_noise_unless_told_otherwise() -> None:
    assert VARIANTS["one_step"].sampling == Sampling(temperature=1.0)
    _, sampling = built("one_step", {"sampling": {"temperature": 0.0}})
    assert sampling.temperature == 0.0
