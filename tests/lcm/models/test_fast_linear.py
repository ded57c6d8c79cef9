"""Fast linear maps: a weight is held once, in the form that it is used in; part of a map is what it would be alone."""

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lcm.engine import Engine, Sampling
from lcm.models.fast_linear import FastLinear, Map, Maps, make_fast, mapped
from lcm.models.variants import VARIANTS, built
from lcm.space.backend import Precision
from scripts.random_lcm import random_weights

SIZES: dict[str, Any] = {"concept_dim": 64, "dim": 128, "layers": 2, "heads": 2, "ffn_dim": 256, "context": 6}
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")


def tensors() -> list[Tensor]:
    gc.collect()
    return [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]


def memory(tensor: Tensor) -> tuple[int, int]:
    """Where it lies, and how many bytes there are; of those in oneDNN's layout only the latter is known."""
    if tensor.is_mkldnn:
        return id(tensor), tensor.nbytes
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()


def held(variant: str, precision: Precision) -> tuple[int, int]:
    """Bytes of the tensors that an engine keeps which has read and drawn, and how many parameters it has."""
    before = tensors()
    known = set(map(id, before))
    model, _ = built(variant, SIZES)
    model.load_state_dict(random_weights(model))
    engine = Engine(model, variant=variant, precision=precision, sampling=Sampling(steps=2))
    del model
    engine.predict([torch.zeros(2, 64)], [torch.arange(2)], max_concepts=2)
    return sum(dict(memory(new) for new in tensors() if id(new) not in known).values()), engine.parameters


@pytest.mark.parametrize(
    ("variant", "copies"), [("base", 1), ("one_step", 1), ("two_tower", 1), ("one_tower", 2), ("planning", 2)]
)
def test_an_engine_holds_each_weight_once_in_the_form_that_it_reads(variant: str, copies: int) -> None:
    """A joint tower reads with maps of one and draws with maps of several: packed, these are others."""
    (exact, count), (bfloat16, _), (int8, _) = (held(variant, precision) for precision in PRECISIONS)
    assert exact < 1.05 * copies * 4 * count
    assert bfloat16 < 1.05 * 2 * count
    assert int8 < 1.2 * count, "what is no linear map is bfloat16"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_map_keeps_the_weight_that_it_was_made_of(variant: str, precision: Precision) -> None:
    engine = Engine(built(variant, SIZES)[0], variant=variant, precision=precision)
    linears = [module for module in engine.model.modules() if isinstance(module, FastLinear)]
    assert linears
    assert all(linear.weight is None for linear in linears)


@pytest.mark.parametrize(
    ("kind", "int8"),
    [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)],
    ids=PRECISIONS,
)
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_part_of_several_maps_is_the_map_alone_to_the_bit(kind: torch.dtype, int8: bool, bias: bool) -> None:
    torch.manual_seed(0)
    sizes = [48, 48, 20]
    several = nn.ModuleList(nn.Linear(32, size, bias=bias) for size in sizes).to(kind)
    alone: list[Map] = [mapped(one.weight, one.bias, int8) for one in several]  # type: ignore[arg-type]
    make_fast(several, int8=int8)
    maps, x = Maps(int8), torch.randn(3, 32, dtype=kind)
    stack = maps.of(*several)
    assert maps.of(*several) is stack
    torch.testing.assert_close(stack(x), torch.cat([map_(x) for map_ in alone], dim=1))
    for linear, before in zip(several, alone, strict=True):
        assert torch.equal(linear(x), before(x))
        assert maps.of(linear) is linear.alone()  # type: ignore[arg-type,operator]


@pytest.mark.parametrize("inputs", [5, 12, 24, 40, 48])
@torch.no_grad()
def test_int8_takes_any_number_of_inputs(inputs: int) -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(inputs, 16), torch.randn(3, inputs)
    narrow = mapped(linear.weight.bfloat16(), linear.bias.bfloat16(), True)(x.bfloat16()).float()
    assert float((narrow - linear(x)).norm()) < 0.02 * float(linear(x).norm())
