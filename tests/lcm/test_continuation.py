"""A story goes on: by the mini bundle's model, in every language; and over a model whose paragraphs are known."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lcm.continuation import continuation, plan
from lcm.engine import REPEAT_COSINE, ROLE_NARRATOR, Engine
from lcm.errors import ContextError
from lcm.space import ConceptSpace

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
