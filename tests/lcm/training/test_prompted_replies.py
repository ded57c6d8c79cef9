"""Replies to the fixed prompts: what counts as generic or as a loop, and that the same seed says the same."""

import pytest
import torch

from lcm.engine import Engine
from lcm.models.variants import built
from lcm.reply_bank import ReplyBank
from lcm.space import ConceptSpace
from lcm.training.data import key
from lcm.training.prompted_replies import (
    LcmReplier,
    Prompted,
    RetrieveReplier,
    are_generic,
    prompts,
    reply_figures,
)


def test_there_are_fifty_prompts_and_the_user_speaks_last() -> None:
    found = prompts()
    assert len(found) == 50
    assert {len(turns) for turns in found} == {1, 3}
    assert len({key(turns[-1]) for turns in found}) == 50


def test_generic_is_what_fits_anywhere() -> None:
    replies = [["I see."], ["Blue whales sing."], ["Ha!"], ["ha", "More."], ["Ha."], []]
    assert are_generic(replies, frozenset({"i see"})) == [True, False, True, True, True, False]


def test_loops_are_counted_among_replies_of_several_sentences(small_space: ConceptSpace) -> None:
    unlike = ["The cat is hungry.", "We ate nine green apples yesterday evening!"]
    alike = torch.nn.functional.cosine_similarity(*small_space.encode_text(unlike, "eng").split(1)).item()
    assert alike < 0.9, "or the example shows nothing"
    figures = reply_figures([[["Yes.", "No.", "yes!"], unlike, ["One."], ["Two."]]], frozenset(), small_space)
    assert figures["loops"] == 50.0
    assert figures["generic"] == 0.0
    assert figures["sentences"] == pytest.approx(7 / 4)


def test_a_silent_model_has_no_loops(small_space: ConceptSpace) -> None:
    figures = reply_figures([[[], []]], frozenset(), small_space)
    assert "loops" not in figures
    assert figures["distinct_2"] == 0.0


@pytest.fixture
def engine(small_space: ConceptSpace) -> Engine:
    torch.manual_seed(0)
    sizes = {"concept_dim": small_space.dim, "dim": 16, "layers": 1, "heads": 2, "ffn_dim": 16}
    model, sampling = built("base", sizes)
    return Engine(model, "cpu", sampling, "base")


def bank(space: ConceptSpace) -> ReplyBank:
    texts = ["Good.", "I like tea.", "Where is it?", "My dog sleeps.", "Not now."]
    return ReplyBank(space.encode_text(texts, "eng"), torch.zeros(5), [{"eng": text} for text in texts], 0.5)


def test_both_ways_answer_every_prompt_the_same_for_the_same_seed(small_space: ConceptSpace, engine: Engine) -> None:
    prompted = Prompted.of(prompts()[:2] + prompts()[-2:], small_space)
    assert [roles.tolist() for roles in prompted.roles][-1][-1] == 0
    for replier in (LcmReplier(engine, small_space), RetrieveReplier(engine, bank(small_space))):
        said = replier.replies(prompted, 0, 3)
        assert [1 <= len(reply) <= 3 for reply in said] == [True] * 4
        assert said == replier.replies(prompted, 0, 3)


def test_retrieve_repeats_neither_itself_nor_the_user(small_space: ConceptSpace, engine: Engine) -> None:
    prompted = Prompted.of([["Good.", "Not now.", "I like tea."]], small_space)
    [said] = RetrieveReplier(engine, bank(small_space)).replies(prompted, 0, 8)
    assert set(said) <= {"Where is it?", "My dog sleeps."}
    assert len(set(said)) == len(said)
