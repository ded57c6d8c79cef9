"""What `bench lcm` measures: sizes, contexts, noise and random weights; ours built of them, and Meta's told of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from lcm.models.sampler import Sampling
from lcm.models.tower import Tower
from scripts.meta_models import bare_model
from scripts.meta_process import MetaProcess
from scripts.random_lcm import random_weights

Kind = Literal["base", "two_tower"]
CONCEPT_DIM = 1024
LAYERS = {"base": 8, "two_tower": 5}
DENOISER_LAYERS = 13
"""As in Meta's 1.6B; their Base has 32 layers, of which 8 tell as much in a quarter of the time"""
HEAD_DIM = 128
ASKED_STEPS, STEPS = 40, 50
"""What Meta's code is asked for, and what it then takes"""
SAMPLING = Sampling(steps=STEPS, guidance=3.0, guidance_rescale=0.7, initial_noise=0.6, epsilon_scaling=1.00045)
SEED = 5


@dataclass(frozen=True, slots=True)
class Case:
    """One model and one length of context."""

    kind: Kind
    dim: int
    context: int

    @property
    def name(self) -> str:
        """As in the result."""
        return f"{self.kind}_d{self.dim}_t{self.context}"

    @property
    def sizes(self) -> dict[str, int]:
        """As both sides are told them."""
        sizes = {
            "concept_dim": CONCEPT_DIM,
            "dim": self.dim,
            "heads": self.dim // HEAD_DIM,
            "layers": LAYERS[self.kind],
        }
        return sizes | ({"denoiser_layers": DENOISER_LAYERS} if self.kind == "two_tower" else {})


CASES = {
    case.name: case
    for case in (
        Case(kind, dim, context) for kind in ("two_tower", "base") for dim in (512, 1024) for context in (16, 128)
    )
}


def our_model(case: Case) -> tuple[Tower, dict[str, Tensor]]:
    """Our model with random weights, and these."""
    model = bare_model(case.kind, case.sizes, case.context + 1)
    weights = random_weights(model, SEED)
    model.load_state_dict(weights, assign=True)
    return model.eval(), weights


def given(case: Case) -> tuple[Tensor, Tensor]:
    """A context [T, C], and the noise [C] that our engine draws from `SEED`."""
    context = torch.randn(case.context, CONCEPT_DIM, generator=torch.Generator().manual_seed(SEED + 1))
    return context, torch.randn(CONCEPT_DIM, generator=torch.Generator().manual_seed(SEED))


def build_theirs(case: Case, meta: MetaProcess, weights: dict[str, Tensor], folder: Path) -> None:
    """Have Meta's code build the same, with the same weights."""
    handed = folder / "weights.safetensors"
    save_file(weights, handed)
    meta.ask("build", kind=case.kind, sizes=case.sizes, weights=str(handed))
    handed.unlink()
