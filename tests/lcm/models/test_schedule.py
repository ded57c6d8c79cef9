"""Noise schedules: nothing is left at the end, and the times are those of the papers."""

import pytest
import torch

from lcm.models.sampler import DenoisingPlan, Sampling, denoise
from lcm.models.schedule import NoiseSchedule, Shape, trailing


@pytest.mark.parametrize("shape", ["cosine", "quadratic", "sigmoid"])
def test_it_falls_to_nothing(shape: Shape) -> None:
    kept = NoiseSchedule(shape).kept()
    assert len(kept) == 100
    assert float(kept[0]) > 0.98
    assert float(kept[-1]) == 0.0
    assert bool((kept.diff() < 0).all())


def test_the_cosine_one_has_the_values_that_metas_code_prints() -> None:
    kept = NoiseSchedule("cosine").kept()
    expected = {0: 0.99936855, 1: 0.99825197, 9: 0.97207934, 49: 0.49363762, 74: 0.14403991, 98: 0.00022796523}
    for time, value in expected.items():
        assert float(kept[time]) == pytest.approx(value, rel=1e-4)


def test_times_are_spaced_from_the_last_one_down() -> None:
    assert trailing(10, 100) == [99, 89, 79, 69, 59, 49, 39, 29, 19, 9]
    assert trailing(50, 100)[:3] == [99, 97, 95]
    assert trailing(1, 100) == [99]
    assert len(set(trailing(40, 100))) == 40
    with pytest.raises(ValueError, match="1 to 100"):
        trailing(101, 100)


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
