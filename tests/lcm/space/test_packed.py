"""Weights packed for oneDNN give what they gave before."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lcm.bundle import Bundle
from lcm.space.backend import Precision, TorchBackend
from lcm.space.packed import PackedLinear, can_pack, pack, rows_taken
from lcm.space.text_decoder import TextDecoder, TextDecoderConfig
from tests.lcm.space.golden_bundle import NEWER, write_golden_bundle

needs_packing = pytest.mark.skipif(not can_pack(), reason="this torch packs no weights: it lacks oneDNN")


@needs_packing
@pytest.mark.parametrize("rows", [0, 1, 2, 16, 113])
def test_a_packed_map_gives_the_same(rows: int) -> None:
    linear = nn.Linear(96, 40)
    x = torch.randn(2, rows, 96)
    with torch.inference_mode():
        given = PackedLinear(linear.weight, linear.bias)(x)
        assert given.shape == (2, rows, 40)
        torch.testing.assert_close(given, linear(x), atol=1e-5, rtol=0)


@given(st.integers(0, 100_000))
def test_few_numbers_of_rows_are_ever_taken(rows: int) -> None:
    taken = rows_taken(rows)
    assert rows <= taken <= max(rows + 7, rows * 5 / 4)
    assert rows_taken(taken) == taken


def test_a_session_meets_few_of_them() -> None:
    assert len({rows_taken(rows) for rows in range(1, 1_025)}) < 32


@needs_packing
@torch.inference_mode()
def test_a_packed_decoder_says_the_same_and_keeps_its_embedding() -> None:
    config = TextDecoderConfig(50, dim=32, layers=2, heads=4, ffn_dim=64, concept_dim=32, dropout=0.0)
    plain = TextDecoder(config).eval()
    packed = copy.deepcopy(plain)
    for name, child in list(packed.named_modules()):
        if isinstance(child, nn.Linear | nn.Embedding):
            pack(packed, name)
    assert isinstance(packed.output_proj, PackedLinear)
    assert [name for name, _ in packed.named_parameters() if name.startswith("embed")] == ["embed.weight"]
    concepts, tokens = torch.randn(3, 32), torch.randint(4, 50, (3, 7))
    said = [decoder.logits(decoder.hidden(concepts, tokens)) for decoder in (plain, packed)]
    assert (said[0] - said[1]).abs().max() < 1e-4


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_float32_is_packed_and_nothing_else(tmp_path: Path, precision: Precision) -> None:
    bundle = Bundle.open(write_golden_bundle(tmp_path / "golden", NEWER))
    decoder = TorchBackend(bundle, torch.device("cpu"), precision).module("text_decoder")
    kinds = {type(module) for module in decoder.modules()}
    assert (PackedLinear in kinds) == (precision == "float32" and can_pack())
    assert (nn.Linear in kinds) != (PackedLinear in kinds)


@needs_packing
def test_a_packed_map_takes_what_autocast_hands_it() -> None:
    packed = PackedLinear(torch.randn(5, 8), None)
    x = torch.randn(3, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = packed(x.bfloat16())
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, packed(x), atol=0.1, rtol=0.1)
