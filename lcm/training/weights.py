"""Weights under training: gradients in, updated weights and their moving average out; schedule and checkpoints with it.

What every trainer has in common. Knows nothing of models, losses or data.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from configs.loader import Settings
from lcm.training.bounds import Count, Positive, Share


class Schedule(Settings):
    """How long a run is and how its learning rate goes: up, constant, and down at the end."""

    warmup_steps: Count = 300
    steps: Count = 200_000
    decay_steps: int = Field(default=0, ge=0)
    """The last so many; 0: the rate stays"""
    clip: Positive = 1.0
    ema: Share = 0.999

    def factor(self, step: int) -> float:
        """Of the learning rates, after `step` steps."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        decay = min(1.0, (self.steps - step) / self.decay_steps) if self.decay_steps else 1.0
        return warm * max(decay, 0.0)

    def ending_in(self, steps: int, step: int) -> Self:
        """The same, but ending `steps` after `step`, with the rate falling linearly to zero."""
        return self.model_copy(update={"steps": step + steps, "decay_steps": steps})

    def resumed(self, saved: Mapping[str, Any]) -> Self:
        """The same, but for an end that was under way when `saved`, a dump of a schedule, was written."""
        ending = {name: saved[name] for name in ("steps", "decay_steps")}
        return self.model_copy(update=ending) if saved["decay_steps"] else self


class AveragedWeights:
    """A model's weights, the optimisers that move them, and their exponential moving average."""

    def __init__(self, model: nn.Module, optimisers: Sequence[Optimizer]) -> None:
        self.model, self.optimisers = model, optimisers
        self.average = {name: p.detach().clone() for name, p in model.named_parameters()}
        self._rates = [[group["lr"] for group in o.param_groups] for o in optimisers]

    def update(self, loss: Tensor, factor: float, schedule: Schedule, step: int) -> Tensor:
        """One step down the gradient of `loss`, at `factor` times the rates; returns the gradient's norm."""
        for optimiser, rates in zip(self.optimisers, self._rates, strict=True):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), schedule.clip)
        if bool(torch.isfinite(norm)):  # one bad batch must not end a night's run
            for optimiser in self.optimisers:
                optimiser.step()
        with torch.no_grad():
            # A young average forgets its random start faster.
            keep = min(schedule.ema, (2 + step) / (11 + step))
            parameters = dict(self.model.named_parameters())
            torch._foreach_lerp_(list(self.average.values()), [parameters[n] for n in self.average], 1 - keep)
        return norm

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimisers": [o.state_dict() for o in self.optimisers],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """What `state` gave."""
        self.model.load_state_dict(state["model"])
        for name, value in state["average"].items():
            self.average[name].copy_(value)
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)


def write_checkpoint(run: Path, state: Mapping[str, Any]) -> None:
    """Write `checkpoint.pt` aside, then put it in place."""
    aside = run / "checkpoint.pt.new"
    torch.save(dict(state), aside)
    aside.replace(run / "checkpoint.pt")


def read_checkpoint(run: Path, device: str | torch.device) -> dict[str, Any] | None:
    """What was written last; None if nothing was."""
    path = run / "checkpoint.pt"
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state
