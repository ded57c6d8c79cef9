"""Diffusion config: sizes of the towers that undo noise, and how the noise goes. Knows nothing of how it is undone."""

from collections.abc import Mapping
from dataclasses import dataclass

from lcm.models.schedule import NoiseCurve, NoiseSchedule, Shape
from lcm.models.tower import TowerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionConfig(TowerConfig):
    """Sizes of any tower, and the noise."""

    schedule: Shape = "cosine"
    times: int = 100
    """noise levels"""
    curve: NoiseCurve | None = None
    """settings of the schedule, if not its own"""

    def __post_init__(self) -> None:
        TowerConfig.__post_init__(self)
        given: object = self.curve
        if isinstance(given, Mapping):  # as a bundle says it
            object.__setattr__(self, "curve", NoiseCurve(**given))
        self.noise_schedule()  # refuses one that does not exist

    def noise_schedule(self) -> NoiseSchedule:
        """How noisy a concept is at each time."""
        return NoiseSchedule(self.schedule, self.times, self.curve or NoiseCurve())
