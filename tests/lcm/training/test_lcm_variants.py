"""Trainings of the variants, as configuration files give them."""

import pytest

from configs.loader import ConfigError, parse_config
from lcm.models.sampler import Sampling
from lcm.training.lcm_trainer import LcmTraining
from lcm.training.lcm_variants import DistilledTraining, OneStepTraining, QuantizedTraining, TwoTowerTraining


@pytest.mark.parametrize(
    ("kind", "text", "drawn"),
    [
        (OneStepTraining, "{}", Sampling(temperature=1.0)),
        (OneStepTraining, "sampling: {temperature: 0.5}", Sampling(temperature=0.5)),
        (QuantizedTraining, "sampling: {guidance: 1}", Sampling(temperature=1.0, guidance=1.0)),
        (QuantizedTraining, "model: {discrete: false}", Sampling(temperature=1.0, guidance=2.0)),
        (DistilledTraining, "{}", Sampling(steps=4, guidance=1.0, epsilon_scaling=1.0)),
        (TwoTowerTraining, "sampling: {steps: 10}", Sampling(steps=10)),
    ],
)
def test_what_a_configuration_does_not_say_of_drawing_is_as_the_variant_has_it(
    kind: type[LcmTraining], text: str, drawn: Sampling
) -> None:
    assert parse_config(text, kind, source="own.yaml").sampling == drawn


def test_drawing_settings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"own.yaml:1: unknown setting sampling.warmth"):
        parse_config("sampling: {warmth: 1}", OneStepTraining, source="own.yaml")
