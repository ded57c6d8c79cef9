"""Objective of distillation: a Two-Tower that needs few steps learns from one that takes many.

The teacher turns noise into a concept, guided, in its many steps. Between the two lies the path of the diffusion's own
schedule, √ᾱ_t end + √(1 − ᾱ_t) noise; at the student's few times on it the student learns where it ends, in the spirit
of progressive distillation [Salimans & Ho 2022], but from the teacher's end at once and not by halves. Guidance is
learnt too [Meng et al. 2023]: the student needs none, so each of its steps costs half.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from configs.loader import Settings
from lcm.models.fast_denoiser import FastDenoiser
from lcm.models.fast_linear import Maps
from lcm.models.refining import ReadRows
from lcm.models.sampler import DenoisingPlan, Sampling, denoise
from lcm.models.seen import Seen
from lcm.models.tower import Tower
from lcm.models.turns import Turns
from lcm.models.two_tower import TwoTower
from lcm.training.bounds import Count, NotNegative
from lcm.training.objective import Batch, read_rows, stop_loss


class Distillation(Settings):
    """How the teacher draws, and how often the student asks."""

    teacher: Sampling = Sampling(steps=20)
    steps: Count = 4
    """of the student"""
    sentences: Count = 160
    """of a step, drawn by lot, that the teacher is asked about"""
    stop_weight: NotNegative = 0.1
    input_noise: NotNegative = 0.3


@dataclass(frozen=True, slots=True)
class DistillationObjective:
    """Distance to where the teacher ends, and stop."""

    settings: Distillation
    teacher: TwoTower
    fast: FastDenoiser
    plan: DenoisingPlan

    @classmethod
    def of(cls, settings: Distillation, teacher: TwoTower) -> "DistillationObjective":
        """Learning from a trained model."""
        teacher = teacher.eval().requires_grad_(False)
        plan = DenoisingPlan.of(teacher.config.noise_schedule(), settings.teacher.steps)
        return cls(settings, teacher, FastDenoiser(teacher.denoiser, plan.times, Maps()), plan)

    def __call__(self, model: Tower, batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss."""
        assert isinstance(model, TwoTower)
        settings = self.settings
        read = read_rows(model, batch, settings.input_noise)
        asked = batch.by_lot(settings.sentences)
        noise = batch.noise_like(batch.targets) * settings.teacher.initial_noise
        mine = asked[batch.mine]
        ends = self._ends(read_rows(self.teacher, batch, 0.0), noise, mine)
        plan = DenoisingPlan.of(model.config.noise_schedule(), settings.steps)
        chosen = (batch.uniform(mine.shape[1]) * settings.steps).long()
        times = torch.tensor(plan.times, device=noise.device)[chosen]
        signal, level = (
            torch.tensor(part, device=noise.device)[chosen][..., None] for part in (plan.signal, plan.noise)
        )
        free = torch.zeros_like(mine)
        x, predicted = model.refined(read, signal * ends + level * noise, times, free)
        wrong = (predicted[mine] - ends[mine]).square().mean(dim=1)
        terms = {"distance": wrong.sum() / asked.sum().clamp_min(1), "stop": stop_loss(model, batch, x)}
        terms["loss"] = terms["distance"] + settings.stop_weight * terms["stop"]
        return terms

    @torch.no_grad()
    def _ends(self, read: ReadRows, noise: Tensor, mine: Tensor) -> Tensor:
        """Where the teacher ends at the places `mine` [b, T], normalised: [b, T, C]; zeros elsewhere."""
        teacher, settings = self.teacher, self.settings.teacher
        context = teacher.norm(teacher(read.normalised, read.turns, read.seen))
        context = torch.cat([torch.zeros_like(context[:, :1]), context], dim=1)
        row, _ = mine.nonzero(as_tuple=True)
        seen = read.seen[:, 0][mine]  # [M, T]
        mask = torch.cat([torch.ones_like(seen[:, :1]), seen], dim=1)[:, None, None]
        held = [layer.cross.keys_and_values(context) for layer in teacher.denoiser.layers]  # type: ignore[union-attr,operator]
        known = Seen([k[row] for k, _ in held], [v[row] for _, v in held], mask)
        told = teacher.asked(Turns(read.asked.roles[mine], read.asked.places[mine]))

        def step(number: int, noisy: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
            return self.fast.step(number, noisy, told, known, guided=guided)

        ends = torch.zeros_like(noise)
        if len(row):  # none may be of a process's few rows
            ends[mine] = denoise(step, self.plan, noise[mine] / settings.initial_noise, settings)
        return ends
