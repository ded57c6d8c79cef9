"""Trainings of the variants, as configuration files give them."""

from pathlib import Path

import pytest

from configs.loader import ConfigError, load_config, packaged_config, parse_config
from lcm.models.sampler import Sampling
from lcm.training.lcm_trainer import LcmTraining
from lcm.training.lcm_variants import DistilledTraining, OneStepTraining, QuantizedTraining, TwoTowerTraining, sizes
from scripts.train import TrainingFile


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


@pytest.mark.parametrize(
    "path", sorted(packaged_config("training/base_mini.yaml").parent.glob("*.yaml")), ids=lambda path: path.stem
)
def test_trainings_that_begin_with_another_have_its_model(path: Path) -> None:
    config = load_config(path, TrainingFile).lcm
    if config is None or not config.initial:
        return
    earlier = load_config(packaged_config(f"training/{config.initial}.yaml"), TrainingFile).lcm
    assert earlier is not None
    assert sizes(config.model) == sizes(earlier.model)


def test_a_student_begins_where_its_teacher_began() -> None:
    with pytest.raises(ConfigError, match="initial_noise is not the teacher's"):
        parse_config("sampling: {initial_noise: 1.0}", DistilledTraining, source="own.yaml")


def test_drawing_settings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"own.yaml:1: unknown setting sampling.warmth"):
        parse_config("sampling: {warmth: 1}", OneStepTraining, source="own.yaml")
