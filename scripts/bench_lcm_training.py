"""Training in `bench lcm`: whole steps — forward, backward, AdamW — of ours and of Meta's, in turns.

Rows of 128 concepts, dropout on, the same sizes and rows; each side has its own objective of the same kind (the next
concept's distance; for Two-Tower, from noise of a random level). Both in float32; beside it ours under bfloat16
autocast, which is how our trainer runs unless told otherwise (Meta's mixes precisions under FSDP alone).
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lcm.models.tower import Tower
from lcm.models.turns import ROLE_NARRATOR, Turns
from lcm.models.two_tower import TwoTower
from lcm.training.diffusion import Diffusion, DiffusionObjective
from lcm.training.objective import Batch, Objective
from lcm.training.packing import PackedRows
from lcm.training.regression import Regression, RegressionObjective
from scripts.bench_lcm_cases import CASES, CONCEPT_DIM, SEED, build_theirs, our_model
from scripts.bench_turns import median_ratio, rounded, taken_in_turns
from scripts.meta_process import MetaProcess

TRAINED = ("two_tower_d512_t128", "base_d512_t128")
ROWS, LENGTH = 4, 128


def training_rates(meta: MetaProcess | None, folder: Path, rounds: int, budget_s: float) -> dict[str, Any]:
    """Concepts per second of both sides; with Meta's code, ours over theirs."""
    ratios: dict[str, float] = {}
    rates: dict[str, dict[str, float]] = {}
    for name in TRAINED:
        case = CASES[name]
        model, weights = our_model(case)
        concepts = torch.randn(ROWS, LENGTH + 1, CONCEPT_DIM, generator=torch.Generator().manual_seed(SEED))
        sides = {}
        if meta:
            build_theirs(case, meta, weights, folder)
            sides["theirs"] = their_step(meta, concepts, folder)
        del weights
        training = OurTraining.of(model, concepts)
        sides |= {"ours": training.step, "ours_bfloat16": partial(training.step, bf16=True)}
        for step in sides.values():
            step()  # the optimiser's state is made, and all warms up
        took = taken_in_turns(sides, rounds, budget_s)
        rates[name] = {side: rounded(ROWS * LENGTH / statistics.median(seconds)) for side, seconds in took.items()}
        if meta:
            ratios[case.name] = median_ratio(took["theirs"], took["ours"])
            ratios[f"{case.name}_bfloat16"] = median_ratio(took["theirs"], took["ours_bfloat16"])
        print(f"training {name}: {json.dumps(rates[name])}", file=sys.stderr, flush=True)
    return {**({"train_ratio": ratios} if meta else {}), "train_concepts_per_second": rates}


@dataclass(frozen=True, slots=True)
class OurTraining:
    """A model, what it learns from, and its optimiser."""

    model: Tower
    objective: Objective
    batch: Batch
    optimiser: torch.optim.Optimizer

    @classmethod
    def of(cls, model: Tower, concepts: Tensor) -> "OurTraining":
        """For rows [B, T + 1, C] of concepts, each a document of its own."""
        objective: Objective
        if isinstance(model, TwoTower):
            settings = Diffusion(input_noise=0.0, stop_weight=0.0)
            objective = DiffusionObjective(settings, model.config.noise_schedule())
        else:
            objective = RegressionObjective(Regression(input_noise=0.0, stop_weight=0.0, contrast_weight=0.0))
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=1e-4, betas=(0.9, 0.95), eps=1e-5, weight_decay=0.1, fused=True
        )
        return cls(model.train(), objective, _batch(concepts), optimiser)

    def step(self, *, bf16: bool = False) -> float:
        """Seconds of one."""
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = self.objective(self.model, self.batch)["loss"]
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return time.perf_counter() - start


def _batch(concepts: Tensor) -> Batch:
    rows, length = concepts.shape[0], concepts.shape[1] - 1
    sentences = torch.arange(rows * (length + 1)).view(rows, length + 1)
    turns = Turns.of(torch.full((rows, length), ROLE_NARRATOR))
    packed = PackedRows(
        sentences[:, :-1], sentences[:, 1:], torch.arange(rows)[:, None].expand(-1, length), turns,
        turns.followed_by(turns.roles), torch.zeros(rows, length),
    )  # fmt: skip
    none = torch.zeros(0, dtype=torch.int64), torch.zeros(0, concepts.shape[2])
    return Batch(packed, slice(0, rows), concepts[:, :-1], concepts[:, 1:], *none)


def their_step(meta: MetaProcess, concepts: Tensor, folder: Path) -> Callable[[], float]:
    inputs = folder / "concepts.npz"
    np.savez(inputs, concepts=concepts[:, 1:].numpy())

    def step() -> float:
        return float(meta.ask("train", given=str(inputs))["seconds"])

    return step
