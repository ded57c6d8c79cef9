"""Engine: batched == alone, bit-identical alone, seeds per item, bounded, and clear about bad input."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.bundle_writer import BundleWriter
from lcm.engine import Engine, Sampling, step_seed
from lcm.errors import BundleError, ContextError
from lcm.models import fast_linear
from lcm.models.base_lcm import BaseLcm, BaseLcmConfig
from lcm.models.one_tower import OneTower, OneTowerConfig
from lcm.models.planning import Planning, PlanningConfig
from lcm.models.quantized import Quantized, QuantizedConfig
from lcm.models.tower import Tower
from lcm.models.turns import Turns
from lcm.models.two_tower import TwoTower, TwoTowerConfig
from lcm.space.backend import Precision
from lcm.space.packed import PackedLinear
from scripts.random_lcm import random_weights

SIZES: dict[str, Any] = {"concept_dim": 16, "dim": 32, "layers": 2, "heads": 4, "ffn_dim": 48, "context": 6}
SMALL = BaseLcmConfig(**SIZES)


def small_model(stop_bias: float = -9.0, *, turns: bool = True) -> BaseLcm:
    torch.manual_seed(0)
    model = BaseLcm(replace(SMALL, turns=turns))
    torch.nn.init.normal_(model.postnet.weight, std=0.5)
    if turns:
        torch.nn.init.constant_(model.stop_head.bias, stop_bias)
    return model


@pytest.fixture
def engine() -> Engine:
    return Engine(small_model())


def contexts(*lengths: int) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(3)
    concepts = [torch.randn(n, SMALL.concept_dim, generator=generator) for n in lengths]
    return concepts, [torch.arange(n) % 2 for n in lengths]


def test_batched_equals_alone(engine: Engine) -> None:
    concepts, roles = contexts(1, 4, 2, 6)
    together = engine.predict(concepts, roles, max_concepts=5, seeds=[0, 1, 2, 3], sampling=Sampling(temperature=0.3))
    for row in range(4):
        [alone] = engine.predict(
            concepts[row : row + 1], roles[row : row + 1], 5, [row], sampling=Sampling(temperature=0.3)
        )
        torch.testing.assert_close(together[row], alone, rtol=0, atol=1e-4)


def test_alone_it_is_bit_identical(engine: Engine) -> None:
    concepts, roles = contexts(5)
    first = engine.predict(concepts, roles, seeds=[7], sampling=Sampling(temperature=0.5))
    again = engine.predict(concepts, roles, seeds=[7], sampling=Sampling(temperature=0.5))
    assert torch.equal(first[0], again[0])


def test_seeds_are_per_item(engine: Engine) -> None:
    concepts, roles = contexts(3, 3)
    a, b = engine.predict(concepts, roles, seeds=[1, 2], sampling=Sampling(temperature=0.5))
    c, d = engine.predict(concepts, roles, seeds=[1, 9], sampling=Sampling(temperature=0.5))
    torch.testing.assert_close(a, c, rtol=0, atol=1e-4)
    assert not torch.allclose(b[0], d[0], atol=1e-2)


@pytest.mark.parametrize(
    "model",
    [
        OneTower(OneTowerConfig(**SIZES)),
        TwoTower(TwoTowerConfig(**SIZES, denoiser_layers=2)),
        TwoTower(TwoTowerConfig(**SIZES, denoiser_layers=2, bias=True, whole_attention=True)),
        Quantized(QuantizedConfig(**SIZES, codebooks=3, entries=8)),
    ],
    ids=lambda model: type(model).__name__,
)
def test_however_concepts_are_drawn_the_maps_are_the_same(model: Tower, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[PackedLinear] = []

    def counted(weight: Tensor, bias: torch.nn.Parameter | None) -> PackedLinear:
        made.append(PackedLinear(weight, bias))
        return made[-1]

    monkeypatch.setattr(fast_linear, "PackedLinear", counted)
    engine, (concepts, roles) = Engine(model), contexts(3)
    engine.predict(concepts, roles, sampling=Sampling(steps=2))
    count = len(made)
    engine.predict(concepts, roles, sampling=Sampling(steps=3, guidance=2.0, temperature=0.5))
    assert len(made) == count


def test_seeds_may_be_any_integers(engine: Engine) -> None:
    concepts, roles = contexts(3, 3, 3)
    seeds = [2**70 + 5, 2**64 - 1, -7]
    sampling = Sampling(temperature=0.5)
    replies = engine.predict(concepts, roles, max_concepts=2, seeds=seeds, sampling=sampling)
    again = engine.predict(concepts, roles, max_concepts=2, seeds=seeds, sampling=sampling)
    assert all(torch.equal(a, b) for a, b in zip(replies, again, strict=True))
    assert len({float(reply[0, 0]) for reply in replies}) == 3


def test_roles_are_checked_together_not_one_by_one(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    context, roles = torch.zeros(1_000, SMALL.concept_dim), torch.zeros(1_000, dtype=torch.int64)
    monkeypatch.setattr(Tensor, "__iter__", lambda _: pytest.fail("it goes through the roles"))
    engine.check([context], [roles])
    for wrong in (-1, 3):
        with pytest.raises(ContextError, match="a role is none of"):
            engine.check([context], [roles + wrong * (torch.arange(1_000) == 700)])


def test_of_roles_the_models_own_are_named(engine: Engine) -> None:
    planner = Engine(Planning(PlanningConfig(**SIZES)))
    context, role = torch.zeros(1, SMALL.concept_dim), torch.tensor([5])
    with pytest.raises(ContextError, match=r"none of 0 \(user\), 1 \(agent\), 2 \(narrator\)$"):
        engine.check([context], [role])
    with pytest.raises(ContextError, match=r"2 \(narrator\), 3 \(plan\), 4 \(break\)$"):
        planner.check([context], [role])


def test_without_temperature_the_seed_changes_nothing(engine: Engine) -> None:
    concepts, roles = contexts(3)
    assert torch.equal(engine.predict(concepts, roles, seeds=[1])[0], engine.predict(concepts, roles, seeds=[2])[0])


def test_a_cached_reply_equals_asking_anew_after_each_concept(engine: Engine) -> None:
    concepts, roles = contexts(2)
    sampling = Sampling(temperature=0.5)
    [reply] = engine.predict(concepts, roles, max_concepts=4, seeds=[7], sampling=sampling)
    assert len(reply) == 4
    context, told = concepts[0], roles[0]
    for number, concept in enumerate(reply):
        [following] = engine.predict_next([context], [told], [step_seed(7, number)], sampling=sampling)
        torch.testing.assert_close(following.concept, concept, rtol=0, atol=1e-4)
        context, told = torch.cat([context, concept[None]]), torch.cat([told, torch.ones(1, dtype=torch.int64)])


def test_the_stop_head_ends_a_reply_after_its_first_concept() -> None:
    concepts, roles = contexts(2, 4)
    replies = Engine(small_model(stop_bias=9.0)).predict(concepts, roles, max_concepts=4)
    assert [len(r) for r in replies] == [1, 1]


def test_a_reply_that_repeats_itself_ends() -> None:
    model = small_model()
    torch.nn.init.zeros_(model.postnet.weight)
    torch.nn.init.ones_(model.postnet.bias)  # it would say the same for ever
    concepts, roles = contexts(2)
    [reply] = Engine(model).predict(concepts, roles, max_concepts=8)
    assert len(reply) == 1


def test_a_text_ends_where_its_end_is_predicted_which_is_not_said() -> None:
    concepts, roles = contexts(2)
    model = small_model(turns=False)
    [whole] = Engine(model).predict(concepts, roles, max_concepts=6)
    assert len(whole) == 6
    for said in (3, 0):
        model.ending.concept = whole[said].clone()
        [reply] = Engine(model).predict(concepts, roles, max_concepts=6)
        assert torch.equal(reply, whole[:said])
    [step] = Engine(model).predict_next(concepts, roles)
    assert step.ends
    assert step.ended == 1.0


def test_one_text_of_a_batch_may_end_before_the_others() -> None:
    concepts, roles = contexts(2, 4)
    model = small_model(turns=False)
    whole = Engine(model).predict(concepts, roles, max_concepts=4)
    model.ending.concept = whole[0][1].clone()
    short, other = Engine(model).predict(concepts, roles, max_concepts=4)
    torch.testing.assert_close(short, whole[0][:1])
    torch.testing.assert_close(other, whole[1])


def test_a_long_context_slides_by_as_if_it_had_been_read_concept_by_concept(engine: Engine) -> None:
    concepts, roles = contexts(90)
    state = engine.model.start(1)
    turns = Turns.of(roles[0][None])
    for at in range(90):
        here = Turns(turns.roles[:, at : at + 1], turns.places[:, at : at + 1])
        with torch.no_grad():
            engine.model.read(concepts[0][None, at : at + 1], here, torch.ones(1, dtype=torch.int64), state)
    asked = turns.followed_by(torch.ones_like(turns.roles))
    with torch.no_grad():
        drawn = engine.model.drawer(Sampling())(
            Turns(asked.roles[:, -1], asked.places[:, -1]), state, torch.zeros(1, 0)
        )
    torch.testing.assert_close(engine.predict_next(concepts, roles)[0].concept, drawn[0], rtol=0, atol=1e-5)
    far = torch.cat([torch.randn(30, SMALL.concept_dim), concepts[0][30:]])
    torch.testing.assert_close(engine.predict_next([far], roles)[0].concept, drawn[0], rtol=0, atol=1e-5)


def test_a_context_is_read_as_far_back_as_the_layers_look_together(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    concepts, roles = contexts(40)
    [whole] = engine.predict_next(concepts, roles)
    monkeypatch.setattr("lcm.engine.MAX_CONTEXT", 8)  # of which two layers, each seeing six, would miss some
    [bounded] = engine.predict_next(concepts, roles)
    torch.testing.assert_close(bounded.concept, whole.concept, rtol=0, atol=1e-5)


def test_ended_tells_whether_the_turn_was_complete() -> None:
    concepts, roles = contexts(2)
    assert Engine(small_model(stop_bias=9.0)).predict_next(concepts, roles)[0].ended > 0.9
    assert Engine(small_model(stop_bias=-9.0)).predict_next(concepts, roles)[0].ended < 0.1


def bad_shape() -> tuple[list[Tensor], list[Tensor]]:
    return [torch.randn(3, 5)], [torch.zeros(3)]


def empty() -> tuple[list[Tensor], list[Tensor]]:
    return [torch.zeros(0, 16)], [torch.zeros(0)]


def not_finite() -> tuple[list[Tensor], list[Tensor]]:
    return [torch.full((2, 16), float("nan"))], [torch.zeros(2)]


def unknown_role() -> tuple[list[Tensor], list[Tensor]]:
    return [torch.zeros(2, 16)], [torch.tensor([0, 7])]


def roles_missing() -> tuple[list[Tensor], list[Tensor]]:
    return [torch.zeros(2, 16)], [torch.tensor([0])]


@pytest.mark.parametrize("make", [bad_shape, empty, not_finite, unknown_role, roles_missing])
def test_bad_input_is_refused(engine: Engine, make: Callable[[], tuple[list[Tensor], list[Tensor]]]) -> None:
    with pytest.raises(ContextError):
        engine.predict(*make())


def test_more_concepts_than_a_reply_may_have_are_refused(engine: Engine) -> None:
    concepts, roles = contexts(1)
    with pytest.raises(ContextError, match="1 to 32"):
        engine.predict(concepts, roles, max_concepts=33)


def test_no_contexts_no_replies(engine: Engine) -> None:
    assert engine.predict([], []) == []


def written_bundle(folder: Path, space_id: str | None = None) -> Path:
    writer = BundleWriter(folder, "small")
    written = writer.write_space(b"tokens", ["eng"], {"concept_dim": 16}, {"weight": torch.zeros(2)})
    writer.write_part("base", asdict(SMALL), small_model().state_dict(), space_id or written)
    return folder


def test_a_bundle_round_trip_keeps_the_predictions(tmp_path: Path, engine: Engine) -> None:
    loaded = Engine.load(written_bundle(tmp_path), device="cpu")
    concepts, roles = contexts(4)
    torch.testing.assert_close(loaded.predict(concepts, roles), engine.predict(concepts, roles), rtol=0, atol=0.05)


def test_a_model_of_another_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="was made for space other"):
        Engine.load(written_bundle(tmp_path, space_id="other"), device="cpu")


def test_an_unknown_variant_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="base"):
        Engine.load(written_bundle(tmp_path), variant="text_encoder", device="cpu")


@pytest.mark.parametrize(("precision", "off"), [("bfloat16", 0.1), ("int8", 0.15)])
def test_narrower_weights_say_nearly_the_same(precision: Precision, off: float) -> None:
    concepts, roles = contexts(5, 3)
    exact = Engine(small_model()).predict(concepts, roles)
    narrow = Engine(small_model(), precision=precision).predict(concepts, roles)
    for said, meant in zip(narrow, exact, strict=True):
        assert said.dtype == torch.float32
        assert float((said[0] - meant[0]).norm() / meant[0].norm()) < off


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "int8"])
def test_keys_are_nearly_the_same_with_narrower_weights(precision: Precision) -> None:
    config, candidates = replace(SMALL, key_dim=16), torch.randn(7, 16, generator=torch.Generator().manual_seed(2))
    keys: list[Tensor] = []
    kinds: tuple[Precision, ...] = ("float32", precision)
    for kind in kinds:
        model = BaseLcm(config)
        model.load_state_dict(random_weights(model))
        keys.append(Engine(model, precision=kind).keys(candidates))
    exact, narrow = keys
    assert narrow.dtype == torch.float32
    assert float(F.cosine_similarity(exact, narrow).min()) > 0.99


def test_choosing_goes_by_keys_where_the_model_has_them() -> None:
    concepts, roles = contexts(4)
    candidates = torch.randn(7, SMALL.concept_dim)
    plain = Engine(small_model())
    assert not plain.keyed
    assert plain.predict_next(concepts, roles)[0].query is None
    torch.testing.assert_close(plain.keys(candidates), F.normalize(candidates, dim=1))
    torch.manual_seed(0)
    keyed = Engine(BaseLcm(replace(SMALL, key_dim=6)))
    [step] = keyed.predict_next(concepts, roles)
    assert step.query is not None
    assert step.query.shape == (6,)
    assert keyed.keys(candidates).shape == (7, 6)
    torch.testing.assert_close(keyed.keys(candidates).norm(dim=1), torch.ones(7))
