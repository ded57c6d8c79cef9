"""Quant-LCM: one head for all codebooks, which is told whose entry is meant."""

from dataclasses import replace

import pytest
import torch

from lcm.models.quantized import Quantized, QuantizedConfig

SMALL = QuantizedConfig(
    concept_dim=12, dim=16, layers=2, heads=2, ffn_dim=24, places=3, context=5, codebooks=4, entries=8
)


@pytest.mark.parametrize("discrete", [True, False], ids=["d", "c"])
def test_its_head_does_not_grow_with_the_codebooks(discrete: bool) -> None:
    few, many = (Quantized(replace(SMALL, codebooks=n, discrete=discrete)) for n in (4, 40))
    sizes = [sum(p.numel() for p in model.parameters()) for model in (few, many)]
    assert sizes[1] - sizes[0] == 36 * few.step_embed.embedding_dim, "but for the number of the codebook"
    assert few.postnet.out_features == (SMALL.entries if discrete else SMALL.concept_dim)


@torch.no_grad()
@pytest.mark.parametrize("discrete", [True, False], ids=["d", "c"])
def test_the_codebook_asked_about_changes_the_scores(discrete: bool) -> None:
    torch.manual_seed(0)
    model = Quantized(replace(SMALL, discrete=discrete)).eval()
    so_far = torch.zeros(1, 12)
    first, second = (model.token(so_far, torch.tensor([n]), torch.zeros(16)) for n in (0, 1))
    assert not torch.allclose(model.postnet(model.norm(first)), model.postnet(model.norm(second)), atol=1e-3)
