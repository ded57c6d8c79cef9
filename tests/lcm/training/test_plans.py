"""Plans in training texts: before each paragraph its own plan, behind it a break; and a model that plans ahead."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lcm.continuation import continuation, plan
from lcm.conversation import Conversation, read
from lcm.engine import ROLE_NARRATOR, Engine, Sampling
from lcm.models.planning import ROLE_BREAK, ROLE_PLAN, Planning, PlanningConfig, planned_story
from lcm.planning import LONGEST_PARAGRAPH, plan_concept
from lcm.training.concepts import ConceptTable
from lcm.training.extended_table import ExtendedTable
from lcm.training.packing import PackingPlan, batch_of, packed, pieces_of
from lcm.training.plans import with_plans
from tests.lcm.training.conversations import DIALOGUES, DIM, TURNS, write_concepts


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ConceptTable:
    return write_concepts(tmp_path_factory.mktemp("concepts"))


def story(table: ConceptTable, ends: list[int]) -> ExtendedTable:
    """The table's documents as stories, paragraphs ending at these sentences of each."""
    documents = table.documents("train")
    last = np.zeros((DIALOGUES, TURNS), dtype=np.uint8)
    last[:, ends] = 1
    told = replace(documents, roles=np.full_like(documents.roles, ROLE_NARRATOR), last=last.flatten())
    return ExtendedTable(table, torch.full((DIM,), 7.0), lambda _, table: with_plans(told, table))


def test_each_paragraph_follows_its_plan_and_ends_in_a_break(table: ConceptTable) -> None:
    planned = story(table, [2, 7])
    documents = planned.documents("train")
    rows = documents.rows(0)
    said, roles, last = documents.sentences[rows], documents.roles[rows].tolist(), documents.last[rows].tolist()
    plain = table.documents("train").sentences[:TURNS]
    nothing = len(table.concepts)
    assert roles == [ROLE_PLAN, 2, 2, 2, ROLE_BREAK, ROLE_PLAN, 2, 2, 2, 2, 2, ROLE_BREAK]
    assert said[1:4].tolist() == plain[:3].tolist()
    assert said[6:11].tolist() == plain[3:].tolist()
    assert [i for i, row in enumerate(said) if row == nothing] == [4, 11]
    assert said[0] == plain[plan_concept(table.of(plain[:3]))]
    assert [i for i, end in enumerate(last) if end] == [3, 10], "the stop head ends the paragraph"
    assert len(documents) == DIALOGUES
    concepts = planned.of(said)
    assert torch.equal(concepts[4], torch.full((DIM,), 7.0))
    torch.testing.assert_close(concepts[:4], table.of(said[:4]))


def test_a_paragraph_that_is_too_long_is_cut(tmp_path: Path) -> None:
    table = write_concepts(tmp_path)
    documents = table.documents("train")
    whole = replace(
        documents, roles=np.full_like(documents.roles, ROLE_NARRATOR), last=np.zeros_like(documents.last),
        starts=np.array([0, DIALOGUES * TURNS]), corpora=documents.corpora[:1], names=documents.names[:1],
    )  # fmt: skip
    told = with_plans(whole, table)
    lengths = np.diff(np.flatnonzero(told.roles == ROLE_BREAK), prepend=-1) - 2
    assert lengths.max() <= LONGEST_PARAGRAPH
    assert lengths.sum() == DIALOGUES * TURNS


def test_short_paragraphs_are_planned_together(table: ConceptTable) -> None:
    documents = story(table, [0, 1, 3, 4]).documents("train")
    roles = documents.roles[documents.rows(0)].tolist()
    assert roles == [ROLE_PLAN, 2, 2, 2, 2, ROLE_BREAK, ROLE_PLAN, 2, 2, 2, 2, ROLE_BREAK]


def test_what_is_too_short_to_plan_stays_as_it_is(table: ConceptTable) -> None:
    plain = table.documents("train")
    two = np.arange(DIALOGUES)[:, None] * TURNS + np.arange(2)
    told = replace(
        plain, sentences=plain.sentences[two.flatten()], roles=np.full(two.size, ROLE_NARRATOR, plain.roles.dtype),
        last=np.tile(np.array([0, 1], plain.last.dtype), DIALOGUES), starts=np.arange(DIALOGUES + 1) * 2,
    )  # fmt: skip
    assert with_plans(told, table).sentences.tolist() == told.sentences.tolist()


def test_dialogues_stay_as_they_are(table: ConceptTable) -> None:
    documents = table.documents("train")
    told = with_plans(documents, table)
    assert told.sentences.tolist() == documents.sentences.tolist()
    assert told.starts.tolist() == documents.starts.tolist()


def test_a_dialogue_that_a_narrator_opens_is_no_story(table: ConceptTable) -> None:
    plain = table.documents("train")
    roles = plain.roles.copy()
    roles[plain.starts[:-1]] = ROLE_NARRATOR  # as a system prompt is read
    told = with_plans(replace(plain, roles=roles), table)
    assert told.roles.tolist() == roles.tolist()
    assert told.sentences.tolist() == plain.sentences.tolist()
    assert told.starts.tolist() == plain.starts.tolist()


def test_rows_are_packed_with_their_breaks(table: ConceptTable) -> None:
    planned = story(table, [2, 7])
    documents, packing = planned.documents("train"), PackingPlan(20, 4, 0.0, 0)
    rows = packed(pieces_of(documents, packing, 0), packing, 0)
    batch = batch_of(documents, rows[:4], 20)
    assert int((batch.asked.roles == ROLE_PLAN).sum()) > 0
    assert bool((planned.of(batch.targets.clamp_min(0).numpy())[batch.asked.roles == ROLE_BREAK] == 7.0).all())


@pytest.fixture
def planner(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Untrained, it says nearly the same always: what ends a story that repeats itself is off."""
    monkeypatch.setattr("lcm.continuation.REPEAT_COSINE", 2.0)
    torch.manual_seed(0)
    model = Planning(PlanningConfig(concept_dim=DIM, dim=32, layers=2, heads=2, ffn_dim=48, context=12))
    return Engine(model, sampling=Sampling(steps=2), variant="planning")


def test_a_planning_model_tells_sentences_in_paragraphs(planner: Engine) -> None:
    story = torch.randn(5, DIM)
    told = list(continuation(planner, story, 14, seed=4))
    assert len(told) == 14
    lengths = [sum(part.paragraph == number for part in told) for number in range(told[-1].paragraph + 1)]
    assert all(lengths), "each paragraph has sentences, and its plan is none"
    assert lengths[0] <= LONGEST_PARAGRAPH - 5
    assert max(lengths) <= LONGEST_PARAGRAPH
    concepts, roles, known = planned_story(story, planner.model.break_concept)  # type: ignore[arg-type]
    assert roles.tolist() == [ROLE_PLAN, *[ROLE_NARRATOR] * 5]
    assert known == 5
    [first] = planner.predict_next([concepts], [roles], [4])
    torch.testing.assert_close(told[0].concept, first.concept)


def test_a_planning_model_that_repeats_itself_ends(planner: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcm.continuation.REPEAT_COSINE", -2.0)
    assert len(list(continuation(planner, torch.randn(5, DIM), 14))) == 1


def test_a_planning_model_plans_as_far_ahead_as_asked(planner: Engine) -> None:
    engine = planner
    paragraphs = [torch.randn(3, DIM), torch.randn(1, DIM)]
    ahead = plan(engine, paragraphs, 3, seed=4)
    assert ahead.shape == (3, DIM)
    assert torch.equal(ahead, plan(engine, paragraphs, 3, seed=4))
    assert not torch.equal(ahead, plan(engine, paragraphs, 3, seed=5))


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The roles of whatever is read."""
    heard: list[list[int]] = []

    def noted(engine: Engine, conversations: list[Conversation], said: list[tuple[Tensor, Tensor]]) -> list[float]:
        heard.extend(roles.tolist() for _, roles in said)
        return read(engine, conversations, said)

    monkeypatch.setattr("lcm.continuation.read", noted)
    return heard


def test_a_planning_model_reads_all_of_a_story_by_the_paragraphs_that_it_has(
    planner: Engine, heard: list[list[int]]
) -> None:
    lengths = [4, 6, 3, 7, 5]
    assert sum(lengths) > planner.context
    next(continuation(planner, torch.randn(25, DIM), 1, starts=[0, 4, 10, 13, 20]))
    told = [[ROLE_PLAN, *[ROLE_NARRATOR] * length] for length in lengths]
    assert heard[0] == [*itertools.chain(*([*part, ROLE_BREAK] for part in told[:-1])), *told[-1]]


def test_a_planning_model_reads_the_paragraphs_of_an_outline_as_it_learnt_them(
    planner: Engine, heard: list[list[int]]
) -> None:
    plan(planner, [torch.randn(count, DIM) for count in (1, 1, 2, 5, 1)], 1)
    of_four, of_six = ([ROLE_PLAN, *[ROLE_NARRATOR] * count, ROLE_BREAK] for count in (4, 6))
    assert heard[0] == of_four + of_six, "where fewer than three sentences stand alone, they are joined"
