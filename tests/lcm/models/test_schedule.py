"""Noise schedules: nothing is left at the end, and the times are those of the papers."""

import json
import math
from dataclasses import asdict
from fractions import Fraction
from typing import Any, get_args

import pytest
import torch

from configs.loader import ConfigError, parse_config
from lcm.models.one_tower import OneTowerConfig
from lcm.models.sampler import DenoisingPlan, Sampling, denoise
from lcm.models.schedule import NoiseCurve, NoiseSchedule, Shape, trailing
from lcm.models.two_tower import TwoTowerConfig
from lcm.models.variants import built


@pytest.mark.parametrize("shape", ["cosine", "quadratic", "sigmoid"])
def test_it_falls_to_nothing(shape: Shape) -> None:
    alphas_cumprod = NoiseSchedule(shape).alphas_cumprod()
    assert len(alphas_cumprod) == 100
    assert float(alphas_cumprod[0]) > 0.98
    assert float(alphas_cumprod[-1]) == 0.0
    assert bool((alphas_cumprod.diff() < 0).all())


def test_the_cosine_one_has_the_values_that_metas_code_prints() -> None:
    alphas_cumprod = NoiseSchedule().alphas_cumprod()
    expected = {0: 0.99936855, 1: 0.99825197, 9: 0.97207934, 49: 0.49363762, 74: 0.14403991, 98: 0.00022796523}
    for time, value in expected.items():
        assert float(alphas_cumprod[time]) == pytest.approx(value, rel=1e-4)


def test_times_are_spaced_from_the_last_one_down() -> None:
    assert trailing(10, 100) == [99, 89, 79, 69, 59, 49, 39, 29, 19, 9]
    assert trailing(50, 100)[:3] == [99, 97, 95]
    assert trailing(1, 100) == [99]
    assert len(set(trailing(40, 100))) == 40
    with pytest.raises(ValueError, match="1 to 100"):
        trailing(101, 100)


def test_times_that_fall_between_two_steps_are_the_nearest_the_later_of_two_as_near() -> None:
    assert trailing(30, 100)[:5] == [99, 96, 92, 89, 86]
    assert trailing(40, 100)[:5] == [99, 97, 94, 92, 89]
    for total in (7, 50, 100, 1000):
        for steps in range(1, total + 1, max(1, total // 100)):
            exact = [Fraction(total * left, steps) - 1 for left in range(steps, 0, -1)]
            assert trailing(steps, total) == [math.floor(time + Fraction(1, 2)) for time in exact]


def test_a_model_that_knows_the_answer_is_followed_there() -> None:
    truth = torch.randn(3, 8)
    plan = DenoisingPlan.of(NoiseSchedule(), 7)
    drawn = denoise(lambda *_: (truth, None), plan, torch.randn(3, 8), Sampling(guidance=1.0))
    torch.testing.assert_close(drawn, truth)


def test_guidance_goes_beyond_what_the_context_adds_and_not_at_the_last_time() -> None:
    given, free = torch.ones(1, 8) * torch.arange(8), torch.zeros(1, 8)
    asked: list[bool] = []

    def model(_step: int, _x: torch.Tensor, guided: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        asked.append(guided)
        return given, free if guided else None

    plan = DenoisingPlan.of(NoiseSchedule(), 4)
    drawn = denoise(model, plan, torch.randn(1, 8), Sampling(guidance=3.0, guidance_rescale=0.0))
    assert asked == [False, True, True, True]
    assert float(drawn[0, -1]) == pytest.approx(3 * 7.0, rel=0.05)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"temperature": -1.0}, {"top_k": -2}, {"clip": 0.0}])
def test_settings_that_mean_nothing_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        Sampling(**settings)  # type: ignore[arg-type]


def test_the_settings_of_every_curve_count() -> None:
    plain = {shape: NoiseSchedule(shape).alphas_cumprod() for shape in get_args(Shape)}
    steeper = NoiseSchedule("sigmoid", curve=NoiseCurve(slope=3.5)).alphas_cumprod()
    assert float(steeper[10]) > float(plain["sigmoid"][10])
    assert float(steeper[90]) < float(plain["sigmoid"][90])
    earlier = NoiseSchedule("sigmoid", curve=NoiseCurve(offset=-1.0)).alphas_cumprod()
    assert bool((earlier[1:-1] < plain["sigmoid"][1:-1]).all())
    louder = NoiseSchedule("quadratic", curve=NoiseCurve(first_beta=0.02, last_beta=0.022)).alphas_cumprod()
    assert bool((louder[1:-1] < plain["quadratic"][1:-1]).all())


def test_a_model_of_a_configuration_has_the_curve_that_it_names_or_describes() -> None:
    curve = NoiseCurve(slope=3.5, offset=-1.0)
    wanted = {
        "{}": NoiseSchedule(),
        "schedule: quadratic": NoiseSchedule("quadratic"),
        "{schedule: sigmoid, times: 50, curve: {slope: 3.5, offset: -1}}": NoiseSchedule("sigmoid", 50, curve),
    }
    for text, schedule in wanted.items():
        for kind in (OneTowerConfig, TwoTowerConfig):
            config = parse_config(text, kind, source="own.yaml")
            assert config.noise_schedule() == schedule
            assert kind(**json.loads(json.dumps(asdict(config)))) == config, "as a bundle keeps it"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("schedule: cosin", "schedule: should be .* did you mean cosine"),
        ("curve: {slop: 3}", "unknown setting curve.slop; did you mean slope"),
        ("curve: {first_beta: 0.5, last_beta: 0.1}", "curve: betas must rise"),
        ("curve: {slope: 0}", "curve: slope must be above 0"),
    ],
)
def test_curves_that_do_not_exist_are_refused_by_configurations(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"own.yaml:1: {told}"):
        parse_config(text, OneTowerConfig, source="own.yaml")


@pytest.mark.parametrize(
    "settings", [{"schedule": "cosin"}, {"curve": {"slope": float("nan")}}, {"times": 1}, {"times": 20_000_000}]
)
def test_curves_that_do_not_exist_are_refused_from_bundles(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"no noise schedule 'cosin'|slope must|has 2 to 10000 steps"):
        built("one_tower", settings)
