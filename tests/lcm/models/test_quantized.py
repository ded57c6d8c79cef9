"""Quant-LCM: one head for all codebooks, which is told whose entry is meant; entries are drawn from its softmax."""

from dataclasses import replace

import pytest
import torch

from lcm.models.quantized import Quantized, QuantizedConfig, chosen

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


def noise(rows: int, entries: int = 8) -> torch.Tensor:
    return torch.randn(rows, entries, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_entries_are_drawn_as_often_as_the_softmax_says(temperature: float) -> None:
    logits = torch.tensor([2.0, 1.5, 0.0, 0.0, -1.0, 1.0, 0.5, -3.0]) / temperature
    count = 40_000
    often = torch.bincount(chosen(logits.expand(count, -1), noise(count), top_k=0), minlength=8) / count
    torch.testing.assert_close(often, logits.softmax(dim=0), rtol=0, atol=4 * (0.25 / count) ** 0.5)


def test_of_the_likeliest_entries_each_is_drawn_as_often_as_the_softmax_of_them_says() -> None:
    logits = torch.tensor([2.0, 1.5, 0.0, 0.1, -1.0, 1.0, 0.5, -3.0])
    count = 40_000
    often = torch.bincount(chosen(logits.expand(count, -1), noise(count), top_k=3), minlength=8) / count
    of_three = torch.full((8,), float("-inf"))
    of_three[[0, 1, 5]] = logits[[0, 1, 5]]
    torch.testing.assert_close(often, of_three.softmax(dim=0), rtol=0, atol=4 * (0.25 / count) ** 0.5)


def test_the_likeliest_alone_is_what_no_noise_gives() -> None:
    logits = torch.randn(500, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(chosen(logits, noise(500), top_k=1), logits.argmax(dim=1))
    assert torch.equal(chosen(logits, None, top_k=0), logits.argmax(dim=1))
    assert torch.equal(chosen(logits, noise(500), top_k=99), chosen(logits, noise(500), top_k=0)), "there are eight"


@torch.no_grad()
def test_quant_c_scores_entries_by_their_distance_to_what_is_left() -> None:
    torch.manual_seed(0)
    model = Quantized(replace(SMALL, discrete=False)).eval()
    model.quantizer.entries.normal_()
    x, so_far = torch.randn(3, 16), torch.randn(3, 12)
    left = model.predicted(x) - so_far
    distances = (left[:, None] - model.quantizer.codebook(2)[None]).square().sum(dim=2)
    torch.testing.assert_close(model.scores(x, so_far, 2, 0.5), -distances / 0.5, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.scores(x, so_far, 2, 0.0), -distances, rtol=1e-4, atol=1e-4)
