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


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("sampling: {initial_noise: 1.0}", "sampling.initial_noise is not the teacher's"),
        ("sampling: {steps: 8}", "sampling.steps is 8, objective.steps 4: .*; give both the same"),
        ("objective: {steps: 2}", "sampling.steps is 4, objective.steps 2: .*; give both the same"),
        ("sampling: {guidance: 2}", "sampling.guidance is 2.0: .*; give 1"),
    ],
)
def test_a_student_is_drawn_as_it_has_learnt(setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_config(setting, DistilledTraining, source="own.yaml")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("row: 0", "base.row: should be greater than or equal to 2"),
        ("row: 1", "base.row: should be greater than or equal to 2"),
        ("rows_a_step: 0", "base.rows_a_step: should be greater than or equal to 1"),
        ("warmup_steps: 0", "base.warmup_steps: should be"),
        ("checkpoint_every: 0", "base.checkpoint_every: should be"),
        ("epochs: 0", "base.epochs: should be"),
        ("lr: -1", "base.lr: should be"),
        ("matrix_lr: .nan", "base.matrix_lr: should be a finite number"),
        ("seed: -1", "base.seed: should be"),
        ("ema: 2", "base.ema: should be"),
        ("clip: 0", "base.clip: should be greater than 0"),
        ("crop_share: 1.5", "base.crop_share: should be"),
        ("repeats: {book: -1}", "base.repeats.book: should be"),
        ("objective: {temperature: 0}", "base.objective.temperature: should be greater than 0"),
        ("sampling: {guidance: .nan}", "base.sampling: guidance must be 0 or more, not nan$"),
        ("sampling: {guidance: -1}", r"base.sampling: guidance must be 0 or more, not -1.0$"),
        ("sampling: {temperature: .inf}", "base.sampling: temperature must be 0 or more, not inf$"),
        ("sampling: {clip: .inf}", "base.sampling: clip must be above 0, not inf$"),
        ("sampling: {guidance_rescale: 9}", r"base.sampling: guidance_rescale must be from 0 to 1, not 9.0$"),
    ],
)
def test_what_no_training_can_run_with_is_refused_as_it_is_read(setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=rf"own.yaml:1: {says}"):
        parse_config(f"base: {{{setting}}}", TrainingFile, source="own.yaml")


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("two_tower: {sampling: {steps: 200}}", "sampling.steps is 200, but the model has 100 noise levels"),
        ("planning: {model: {times: 30}}", "sampling.steps is 40, but the model has 30 noise levels"),
        ("distilled: {objective: {teacher: {steps: 200}}}", "objective.teacher.steps is 200, but"),
        ("distilled: {objective: {steps: 0}}", "objective.steps: should be"),
        ("distilled: {objective: {sentences: 0}}", "objective.sentences: should be"),
        ("decoded: {objective: {sentences: 0}}", "objective.sentences: should be"),
        ("one_tower: {objective: {free_share: 2}}", "objective.free_share: should be"),
        ("quantized: {objective: {input_noise: .inf}}", "objective.input_noise: should be a finite number"),
        ("one_step: {objective: {stop_weight: -1}}", "objective.stop_weight: should be"),
    ],
)
def test_lessons_that_cannot_be_given_are_refused_as_they_are_read(section: str, says: str) -> None:
    with pytest.raises(ConfigError, match=rf"own.yaml:1: \w+.{{1,2}}{says}"):
        parse_config(section, TrainingFile, source="own.yaml")


def test_drawing_settings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"own.yaml:1: unknown setting sampling.warmth"):
        parse_config("sampling: {warmth: 1}", OneStepTraining, source="own.yaml")
