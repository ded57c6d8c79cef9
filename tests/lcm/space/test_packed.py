"""Weights packed for oneDNN give what they gave before."""

import copy

import pytest
import torch
from torch import nn

from lcm.space.packed import PackedLinear, can_pack, pack
from lcm.space.text_decoder import TextDecoder, TextDecoderConfig

needs_packing = pytest.mark.skipif(not can_pack(), reason="this torch packs no weights: it lacks oneDNN")


@needs_packing
@pytest.mark.parametrize("rows", [1, 2, 16, 113])
def test_a_packed_map_gives_the_same(rows: int) -> None:
    linear = nn.Linear(96, 40)
    x = torch.randn(2, rows, 96)
    with torch.inference_mode():
        given = PackedLinear(linear.weight, linear.bias)(x)
        assert given.shape == (2, rows, 40)
        assert (given - linear(x)).abs().max() < 1e-5


@needs_packing
@torch.inference_mode()
def test_a_packed_decoder_says_the_same_and_keeps_its_embedding() -> None:
    config = TextDecoderConfig(50, dim=32, layers=2, heads=4, ffn_dim=64, concept_dim=32, dropout=0.0)
    plain = TextDecoder(config).eval()
    packed = copy.deepcopy(plain)
    pack(packed)
    assert isinstance(packed.output_proj, PackedLinear)
    assert [name for name, _ in packed.named_parameters() if name.startswith("embed")] == ["embed.weight"]
    concepts, tokens = torch.randn(3, 32), torch.randint(4, 50, (3, 7))
    said = [decoder.logits(decoder.hidden(concepts, tokens)) for decoder in (plain, packed)]
    assert (said[0] - said[1]).abs().max() < 1e-4


def test_other_precisions_stay_as_they_are() -> None:
    module = nn.Sequential(nn.Linear(8, 8)).bfloat16()
    pack(module)
    assert isinstance(module[0], nn.Linear)
