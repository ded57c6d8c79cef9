"""A story goes on: by the mini bundle's model, in every language; and over a model whose paragraphs are known."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lcm.continuation import continuation, plan
from lcm.engine import MAX_CONCEPTS, REPEAT_COSINE, ROLE_NARRATOR, STOP_PROBABILITY, Engine, Sampling, step_seed
from lcm.errors import ContextError
from lcm.models.base_lcm import BaseLcm, BaseLcmConfig
from lcm.models.tower import Tower
from lcm.models.two_tower import TwoTower, TwoTowerConfig
from lcm.space import ConceptSpace
from scripts.random_lcm import random_weights

STORY = {
    "eng": ["There was once a poor man.", "He had three sons.", "One day he went into the wood."],
    "fra": ["Il était une fois un homme pauvre.", "Il avait trois fils.", "Un jour il alla dans la forêt."],
    "spa": ["Había una vez un hombre pobre.", "Tenía tres hijos.", "Un día fue al bosque."],
    "deu": ["Es war einmal ein armer Mann.", "Er hatte drei Söhne.", "Eines Tages ging er in den Wald."],
}


@pytest.fixture(scope="module")
def mini() -> ConceptSpace:
    return ConceptSpace.load("mini", device="cpu", parts=["text_encoder", "text_decoder"])


@pytest.fixture(scope="module")
def engine(mini: ConceptSpace) -> Engine:
    return Engine.load("mini", space=mini, device="cpu")


@pytest.fixture(scope="module")
def small(small_bundle: Path) -> Engine:
    return Engine.load(small_bundle, device="cpu")


DIM, CONTEXT = 16, 6
SIZES = {"concept_dim": DIM, "dim": 32, "layers": 3, "heads": 2, "ffn_dim": 48, "context": CONTEXT}


def base() -> Tower:
    return BaseLcm(BaseLcmConfig(**SIZES))  # type: ignore[arg-type]


def two_tower() -> Tower:
    return TwoTower(TwoTowerConfig(**SIZES, denoiser_layers=2))  # type: ignore[arg-type]


@pytest.fixture(params=[base, two_tower])
def talkative(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Its weights are random: what ends a story that repeats itself is off."""
    monkeypatch.setattr("lcm.continuation.REPEAT_COSINE", 2.0)
    model: Tower = request.param()
    model.load_state_dict(random_weights(model))
    return Engine(model, sampling=Sampling(steps=4))


def story_of(length: int) -> Tensor:
    return torch.randn(length, DIM, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("language", STORY)
def test_a_story_in_any_language_goes_on_in_any_language(mini: ConceptSpace, engine: Engine, language: str) -> None:
    story = mini.encode_text(STORY[language], language)
    told = torch.stack([next_.concept for next_ in continuation(engine, story, 3)])
    assert 1 <= len(told) <= 3
    for to in STORY:
        assert all(text.strip() for text in mini.decode_text(told, to))


def test_what_comes_next_hardly_depends_on_the_language_it_was_told_in(mini: ConceptSpace, engine: Engine) -> None:
    next_ = torch.stack(
        [next(continuation(engine, mini.encode_text(story, language), 1)).concept for language, story in STORY.items()]
    )
    other = mini.encode_text(["Which train goes to the station?", "It is ten past four.", "Thank you."], "eng")
    elsewhere = next(continuation(engine, other, 1)).concept
    alike = F.cosine_similarity(next_[:1], next_[1:], dim=1)
    assert float(alike.min()) > float(F.cosine_similarity(next_[0], elsewhere, dim=0))


def test_it_begins_as_the_narrators_turn(engine: Engine, mini: ConceptSpace) -> None:
    story = mini.encode_text(STORY["eng"], "eng")
    [turn] = engine.predict([story], [torch.full((3,), ROLE_NARRATOR)], max_concepts=4)
    told = [next_ for next_ in continuation(engine, story, 4) if next_.paragraph == 0]
    torch.testing.assert_close(torch.stack([next_.concept for next_ in told]), turn)


def test_it_never_tells_more_than_asked_for_nor_the_same_twice_running(small: Engine) -> None:
    for seed in range(20):
        story = torch.randn(1 + 3 * seed, small.dim, generator=torch.Generator().manual_seed(seed))
        told = list(continuation(small, story, 5))
        assert 1 <= len(told) <= 5
        assert [next_.paragraph for next_ in told] == sorted(next_.paragraph for next_ in told)
        concepts = torch.stack([next_.concept for next_ in told])
        assert not len(told) > 1 or float(F.cosine_similarity(concepts[1:], concepts[:-1]).max()) < REPEAT_COSINE


def test_all_of_a_long_story_counts_and_is_followed_from_paragraph_to_paragraph(talkative: Engine) -> None:
    story = story_of(20 * CONTEXT)
    paragraph = 0
    for number, told in enumerate(continuation(talkative, story, 12, seed=3)):
        roles = torch.full((len(story),), ROLE_NARRATOR)
        [whole] = talkative.predict_next([story], [roles], [step_seed(3, number)])
        [cut] = talkative.predict_next([story[-CONTEXT:]], [roles[-CONTEXT:]], [step_seed(3, number)])
        paragraph += number > 0 and whole.ended >= STOP_PROBABILITY
        torch.testing.assert_close(told.concept, whole.concept, rtol=0, atol=1e-4)
        assert not torch.allclose(told.concept, cut.concept, rtol=0, atol=1e-2), "the layers together look back further"
        assert told.paragraph == paragraph
        story = torch.cat([story, told.concept[None]])
    assert len(story) == 20 * CONTEXT + 12


def test_a_paragraph_ends_where_the_model_ends_it_and_nowhere_else(talkative: Engine) -> None:
    most = MAX_CONCEPTS + 8
    for bias, paragraphs in ((-100.0, [0] * most), (100.0, list(range(most)))):
        with torch.no_grad():
            talkative.model.stop_head.bias.fill_(bias)
        assert [told.paragraph for told in continuation(talkative, story_of(3), most)] == paragraphs


def test_the_same_seed_tells_the_same(small: Engine) -> None:
    story = torch.randn(4, small.dim, generator=torch.Generator().manual_seed(0))
    first, again = (torch.stack([t.concept for t in continuation(small, story, 4, seed=9)]) for _ in range(2))
    assert torch.equal(first, again)


def test_a_plan_goes_on_from_the_plans_so_far(small: Engine) -> None:
    paragraphs = [torch.randn(n, small.dim, generator=torch.Generator().manual_seed(n)) for n in (1, 4, 7)]
    planned = plan(small, paragraphs, 3)
    assert planned.shape[1] == small.dim
    assert 1 <= len(planned) <= 3


def test_no_story_cannot_go_on(small: Engine) -> None:
    with pytest.raises(ContextError):
        list(continuation(small, torch.zeros(0, small.dim), 2))
