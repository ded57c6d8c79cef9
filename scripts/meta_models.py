"""Meta's architectures in our classes, by the sizes that their own code is told. Knows nothing of weights."""

from typing import Any

import torch

from lcm.models.base_lcm import BaseLcm, BaseLcmConfig
from lcm.models.tower import Tower
from lcm.models.two_tower import TwoTower, TwoTowerConfig

PUBLISHED: dict[str, tuple[str, dict[str, int]]] = {
    "base_1_6b": ("base", {"concept_dim": 1024, "dim": 2048, "layers": 32, "heads": 16}),
    "two_tower_1_6b": (
        "two_tower",
        {"concept_dim": 1024, "dim": 2048, "layers": 5, "heads": 16, "denoiser_layers": 13},
    ),
    "two_tower_7b": ("two_tower", {"concept_dim": 1024, "dim": 4096, "layers": 5, "heads": 32, "denoiser_layers": 14}),
}


def bare_model(kind: str, told: dict[str, int], context: int) -> Tower:
    """Ours of Meta's architecture, from the sizes that their code is told, on the meta device."""
    sizes: dict[str, Any] = {**told, "ffn_dim": ffn_dim(told["dim"]), "bias": True, "turns": False, "context": context}
    with torch.device("meta"):
        if kind == "two_tower":
            return TwoTower(TwoTowerConfig(**sizes, whole_attention=True))
        sizes.pop("denoiser_layers", None)
        return BaseLcm(BaseLcmConfig(**sizes))


def ffn_dim(dim: int) -> int:
    """Inner width of their feed-forwards: two thirds of 4 · dim, up to a multiple of 256."""
    return -(-int(4 * dim * 2 / 3) // 256) * 256
